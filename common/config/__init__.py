"""Configuration: one module a subject; `load` composes a run, `rules` says what does not go together."""
