"""Exploration of plans: search space, significance, search, journal, Pareto front, reward.

`search` runs an exploration with `workers` on `tasks`; `family` is the interface behind which each family of networks
has a folder of its own: `competing`, `layered` and `local`, each with `space` (settings), `proposal` (candidates) and
`measurement` (building and measuring them).
"""
