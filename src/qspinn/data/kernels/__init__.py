"""Compiled loops of data: Poisson encoding and a simulated event camera."""
