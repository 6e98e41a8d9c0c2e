"""Networks that were trained with other libraries, read into the declarations of this package, with a proof."""

from qspinn.importers.from_modules import from_torch
from qspinn.importers.model import ImportNote, Model

__all__ = ["ImportNote", "Model", "from_torch"]
