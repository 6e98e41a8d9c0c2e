"""Declarations of networks, and trained networks.

`competing`, `layered` and `local` declare the three families of networks; `models` and `published` make networks of
the usual shapes; `parameters` says which arrays belong to a network, `checkpoint` keeps both in a file.
"""
