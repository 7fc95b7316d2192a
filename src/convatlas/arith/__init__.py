"""Formulas in plain Python: integers and floats, pure functions, no torch and no numpy."""
