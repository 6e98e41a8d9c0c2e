"""What several test modules share: small networks, recordings, the command line, a reader of reports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from qspinn.data.events.event_set import EventSet, from_dense
from qspinn.learning.local.formats import DEFAULT_PLAN
from qspinn.learning.local.model import LocalDeclaration, TrainedLocal
from qspinn.learning.local.settings import LocalLearning
from qspinn.networks.checkpoint import Trained, TrainedLayers
from qspinn.networks.layered import EventInput, Layer, LayeredNetwork, Linear, NeuronReadout
from qspinn.networks.local import LocalLayer, LocalNetwork
from qspinn.networks.models import diehl_cook
from qspinn.program import Program
from qspinn.program.ops import LifOp


def with_parts(program: Program, **changes: Any) -> Program:
    """The program with other populations: a dict changes fields of a part (`reset={"by": "subtract"}`), all else takes
    the place of a field."""

    def changed(op: LifOp) -> LifOp:
        values = {
            field: replace(getattr(op, field), **value) if isinstance(value, dict) else value
            for field, value in changes.items()
        }
        return replace(op, **values)

    return replace(program, ops=tuple(changed(op) if isinstance(op, LifOp) else op for op in program.ops))


class Reader(HTMLParser):
    """Collects what a page loads, its scripts and its text."""

    def __init__(self) -> None:
        HTMLParser.__init__(self)
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.text = re.sub(r"\s+", " ", reader.text)
    return reader


LOCAL_SHAPE = (2, 9, 8)


def local_bars(n: int, seed: int) -> EventSet:
    """Three classes: a bar in the upper, middle or lower third, and noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    raster = rng.random((n, 8, *LOCAL_SHAPE)) < 0.03
    for k, label in enumerate(labels):
        raster[k, :, :, 3 * label + rng.integers(0, 2), 1:7] |= rng.random((8, 2, 6)) < 0.6
    return from_dense(raster, labels, order="BT")


AEDAT_SAMPLES = Path(os.environ.get("QSPINN_DATA", "")) / "dvs_gesture_samples"

needs_aedat_samples = pytest.mark.skipif(
    not (os.environ.get("QSPINN_DATA") and AEDAT_SAMPLES.is_dir()),
    reason="QSPINN_DATA does not name a folder with dvs_gesture_samples",
)


def command_line(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qspinn", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, **environment},
    )


COMPETING = diehl_cook(5, 3, n_steps=4, n_classes=2)

ONE_LAYER = LayeredNetwork(
    name="n",
    input=EventInput(shape=(2, 1, 1)),
    layers=(Layer(name="p", shape=(3, 1, 1)),),
    connections=(Linear(source="input", target="p", bias=True, norm=True),),
    readout=NeuronReadout(source="p"),
)


def trained_competing(**change: Any) -> Trained:
    return Trained(
        network=COMPETING,
        params=changed(
            {
                "exc.w": np.ones((3, 5), np.float32),
                "exc.theta": np.zeros(3, np.float32),
                "readout.responses": np.ones((3, 2)),
            },
            change,
        ),
    )


def trained_layers(**change: Any) -> TrainedLayers:
    norm = {f"norms.p__w.{kind}": np.ones(3, np.float32) for kind in ("weight", "bias", "running_mean", "running_var")}
    return TrainedLayers(
        network=ONE_LAYER,
        params=changed(
            {
                "p__w": np.ones((3, 2), np.float32),
                "p__bias": np.zeros(3, np.float32),
                "norms.p__w.num_batches_tracked": np.array(7),
                **norm,
            },
            change,
        ),
    )


def trained_local(arithmetic: str = "integer", **change: Any) -> TrainedLocal:
    declared = LocalDeclaration(
        network=LocalNetwork(layers=(LocalLayer(channels=4, kernel=3, padding=1),)),
        plan=DEFAULT_PLAN,
        shape=(2, 6, 6),
        learning=LocalLearning(arithmetic=arithmetic),
        n_classes=3,
        step_ms=1.0,
        seed=1,
        scales=(0,),
    )
    if arithmetic == "integer":
        params = {
            "n_updates": np.array([3]),
            "conv1.w": np.ones((4, 2, 3, 3), np.int16),
            "conv1.b": np.ones(4, np.int16),
            "conv1.e_exponent": np.array([5]),
        }
    else:
        params = {
            f"conv1.{k}": np.ones((4, 2, 3, 3) if k[0] == "w" else 4, np.float32)
            for k in ("w", "b", "w_size", "b_size")
        }
    return TrainedLocal(network=declared, params=changed(params, change))


def changed(params: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in (params | {k.replace("___", "."): v for k, v in change.items()}).items() if v is not None}
