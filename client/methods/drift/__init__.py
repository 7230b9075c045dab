"""A center's end of what keeps centers together, and of what gives each center something of its own."""
