"""Compiled passes of a layer over all steps, forward and backward."""
