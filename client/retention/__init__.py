"""How long what a hospital keeps stays: prepared volumes, logs, steps' shelves in the vault; accounts stay for good."""
