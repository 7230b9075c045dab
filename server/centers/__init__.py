"""The hospitals as the server sees them: asking, enrolling, screening, quarantine, links."""
