"""Integer programs (`program`), the check that lets engines rely on them (`check`), and their files (`file`)."""

from __future__ import annotations

from qspinn import former
from qspinn.program.check import check
from qspinn.program.file import FORMAT_VERSION, from_bytes, load, pack, save, to_bytes, unpack
from qspinn.program.program import CodeTensor, Note, Program

__all__ = [
    "FORMAT_VERSION",
    "CodeTensor",
    "Note",
    "Program",
    "check",
    "from_bytes",
    "load",
    "pack",
    "save",
    "to_bytes",
    "unpack",
]

__getattr__ = former.names_of(__name__)
