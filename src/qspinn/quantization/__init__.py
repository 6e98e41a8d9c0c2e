"""From real numbers to codes.

`plan` says which tensor gets which format, `paths` how tensors are called; `ranges` measures data, `calibrators` choose
scales from it; `weights`, `units` and `grid` make codes; `competing` and `layered` lower a whole network to a program;
`rates` restores firing rates afterwards (threshold balancing).
"""
