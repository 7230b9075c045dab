"""HECKTOR 2026's container interface: one patient in fixed folders in, a mask, two stages and a time out."""
