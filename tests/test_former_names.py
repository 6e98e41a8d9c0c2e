"""Former names of modules, and of what lay in them, are the present ones, with a warning that says so."""

from __future__ import annotations

import importlib
import subprocess
import sys

import msgspec
import pytest

from qspinn.errors import ConfigError
from qspinn.former import MOVED, MOVED_NAMES, RENAMED
from qspinn.program.flat import flat_of
from qspinn.program.ops import LifOp
from qspinn.testing.programs import single

TORCH = ("learning.gradients", "exploration.layered.measurement")


@pytest.mark.parametrize(("former", "present"), MOVED.items())
def test_modules(former: str, present: str) -> None:
    sys.modules.pop(f"qspinn.{former}", None)
    with pytest.warns(DeprecationWarning, match=rf"^qspinn\.{former} is called qspinn\.{present} now$"):
        found = importlib.import_module(f"qspinn.{former}")
    assert found is importlib.import_module(f"qspinn.{present}")
    assert found.__spec__ is not None
    assert (found.__name__, found.__spec__.name) == (f"qspinn.{present}", f"qspinn.{present}")


@pytest.mark.parametrize(
    ("module", "home", "name"),
    [(module, home, name) for module, homes in MOVED_NAMES.items() for home, names in homes.items() for name in names],
)
def test_names_in_modules(module: str, home: str, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"^qspinn\.{module}\.{name} is called qspinn\.{home}\.{name} now$"):
        found = getattr(importlib.import_module(f"qspinn.{module}"), name)
    assert found is getattr(importlib.import_module(f"qspinn.{home}"), name)


@pytest.mark.parametrize(
    ("module", "former", "present"), [(m, old, new) for m, names in RENAMED.items() for old, new in names.items()]
)
def test_renamed_names(module: str, former: str, present: str) -> None:
    place = importlib.import_module(f"qspinn.{module}")
    with pytest.warns(
        DeprecationWarning, match=rf"^qspinn\.{module}\.{former} is called qspinn\.{module}\.{present} now$"
    ):
        found = getattr(place, former)
    assert found is getattr(place, present)


def test_unknown_names_stay_unknown() -> None:
    with pytest.raises(AttributeError, match=r"module 'qspinn\.quantization\.plan' has no attribute 'nonsense'"):
        _ = importlib.import_module("qspinn.quantization.plan").nonsense
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("qspinn.nonsense")


def test_populations_take_the_fields_of_files() -> None:
    """With a warning; half a part is refused as in files."""
    (op,) = single([[1]], inhibition=2).ops_of(LifOp)
    fields = msgspec.structs.asdict(flat_of(op))
    with pytest.warns(DeprecationWarning, match="LifOp takes parts now: leak="):
        assert LifOp(**fields) == op
    with (
        pytest.warns(DeprecationWarning, match="takes parts now"),
        pytest.raises(ConfigError, match=r"LifOp\.bias_shift: belongs to a part that is not there"),
    ):
        LifOp(**(fields | {"bias_shift": 2}))


def test_the_search_stays_a_function_beside_its_former_package() -> None:
    code = "import qspinn; from qspinn.explore.search import explore; assert qspinn.explore is explore"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
