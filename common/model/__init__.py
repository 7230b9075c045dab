"""The frozen backbone with a step's parts on it, and the states that travel."""
