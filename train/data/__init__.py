"""Frames and their labels: every kind of file read, units converted, split and weighted."""
