"""Models that are linear in their coefficients."""
