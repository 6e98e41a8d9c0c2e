"""Cache of what is made of a program once and used in every run of it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from qspinn.program import Program

Made = TypeVar("Made")
_making = threading.RLock()
_made: weakref.WeakKeyDictionary[Program, dict[Any, Any]] = weakref.WeakKeyDictionary()


def once(program: Program, key: tuple, make: Callable[[], Made]) -> Made:
    """Result of the first call of `make` under this key; programs never change."""
    made = _made.get(program, {})
    if key not in made:
        with _making:
            made = _made.setdefault(program, {})
            if key not in made:
                made[key] = make()
    return made[key]
