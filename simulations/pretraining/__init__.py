"""How the shipped mini CT-CLIP was made."""
