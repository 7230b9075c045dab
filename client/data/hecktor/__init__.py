"""HECKTOR's folders and tables, and a hospital's own by its mapping."""
