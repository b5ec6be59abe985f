"""Learning curves: how the error falls with the number of reference calculations."""
