"""One hospital for the length of one message: its settings, the five verbs, what its process keeps."""
