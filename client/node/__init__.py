"""The hospital's node: a SuperNode that runs this checkout's own code and no other."""
