"""Compiled STDP: in float32 (`floats`) and on the integer grid (`grid`)."""
