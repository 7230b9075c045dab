"""The coordinator's side of a real federation: its folder, its certificates, its processes, its runs."""
