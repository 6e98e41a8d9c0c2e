"""Public names are the same objects in whatever order modules were imported; without torch one line says so."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import pytest

import qspinn

ORDERS = """
import importlib, json, random, sys
import qspinn
names, homes = list(qspinn.__all__), sorted({f"qspinn.{home}" for home in qspinn._HOME.values()})
steps = [("name", n) for n in names] * 2 + [("module", m) for m in homes]
random.Random(int(sys.argv[1])).shuffle(steps)
first, kinds = {}, {}
for what, name in steps:
    if what == "module":
        importlib.import_module(name)
        continue
    found = getattr(qspinn, name)
    assert first.setdefault(name, found) is found, name
scope = {}
exec("from qspinn import *", scope)
for name in names:
    assert scope[name] is first[name], name
    kinds[name] = type(first[name]).__name__
print(json.dumps(kinds))
"""
WITHOUT_TORCH = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, Nothing())
import qspinn
from qspinn.errors import ConfigError
from qspinn.networks import layered
network = qspinn.LayeredNetwork(
    name="n", input=layered.EventInput(shape=(1, 1, 1)), layers=(layered.Layer(name="p", shape=(1, 1, 1)),),
    connections=(layered.Linear(source="input", target="p"),), readout=layered.NeuronReadout(source="p"))
plan = qspinn.QuantPlan(rules=(qspinn.QuantRule(tensor="*", bits=8),))
calls = {"SurrogateNet": lambda: qspinn.SurrogateNet, "prepare": lambda: qspinn.prepare(network, plan),
         "train": lambda: qspinn.train(network, None)}
for name, call in calls.items():
    try:
        call()
    except ConfigError as error:
        assert str(error) == f"qspinn.{name}: needs torch, which is not installed; fix: pip install qspinn[torch]"
    else:
        raise AssertionError(name)
assert callable(qspinn.convert) and callable(qspinn.quantize)
"""


def python(code: str, *arguments: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=os.environ,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("seed", [1, *(pytest.param(s, marks=pytest.mark.soak) for s in (2, 3))])
@pytest.mark.slow
def test_names_stay_the_same_objects_in_every_order_of_imports(seed: int) -> None:
    kinds = json.loads(python(ORDERS, str(seed)))
    assert kinds["prepare"] == kinds["quantize"] == kinds["run"] == "function"
    assert [n for n, kind in kinds.items() if kind == "module"] == []


def test_names_stay_the_same_objects_here() -> None:
    names = list(qspinn.__all__)
    random.Random(0).shuffle(names)
    first = {name: getattr(qspinn, name) for name in names}
    assert all(getattr(qspinn, name) is found for name, found in first.items())
    with pytest.warns(DeprecationWarning, match=r"^qspinn\.lower_layers is called qspinn\.quantize now$"):
        assert callable(qspinn.lower_layers)
    with pytest.raises(AttributeError, match="no attribute 'lower_layer'"):
        _ = qspinn.lower_layer


def test_without_torch_one_line_says_what_to_install() -> None:
    python(WITHOUT_TORCH)
