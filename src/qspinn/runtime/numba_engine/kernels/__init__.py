"""Compiled runs of a population over all steps of a sample."""
