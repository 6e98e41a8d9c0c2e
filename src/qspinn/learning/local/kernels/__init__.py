"""Compiled steps of local learning in integers."""
