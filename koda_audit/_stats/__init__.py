"""Intervals, p-values and chance levels, on NumPy and SciPy alone."""
