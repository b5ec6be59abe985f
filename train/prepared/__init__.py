"""Data sets larger than memory: files converted once, then read frame by frame."""
