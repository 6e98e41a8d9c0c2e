"""Exploration of plans: space, significance, search, journal, front, reward.

The package itself can be called, `qspinn.explore(experiment, out)`: a function of that name in `qspinn` would be hidden
by this package as soon as one of its modules is imported.
"""

from __future__ import annotations

import sys
import types
from typing import Any


class _CallableModule(types.ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """See `qspinn.explore.search.explore`."""
        from qspinn.explore.search import explore

        return explore(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
