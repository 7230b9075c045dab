"""Configuration: `schema` says what may be set, `load` composes it, `rules` says what cannot work together."""
