"""The jobs of the command line as Python calls, with one verb for all families of networks.

`verbs` has the verbs (train, calibrate, quantize, prepare, convert, evaluate, load, save ...) and picks the family by
the type of its first argument; `competing`, `layered` and `local` have what each family does; `experiments` reads
experiments and data sets; `splits` checks data against networks and programs.
"""

from __future__ import annotations

from qspinn import former

__getattr__ = former.names_of(__name__)
