"""What a run leaves for people and for programs: report.html, results.json and the summary table in the terminal."""
