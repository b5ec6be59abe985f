"""A run directory read back and drawn: plots and one self-contained page."""
