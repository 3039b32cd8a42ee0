"""Intervals and p-values, on NumPy and SciPy alone."""
