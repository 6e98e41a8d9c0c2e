"""A tensor that no width of the sweep can hold ends the search with the reason, not with a missing key."""

from __future__ import annotations

from pathlib import Path

import pytest

from qspinn.data import DataConfig
from qspinn.errors import LoweringError
from qspinn.exploration.competing.space import Experiment, NetworkConfig, SearchConfig
from qspinn.exploration.scheme import Scheme
from qspinn.exploration.search import explore
from qspinn.fixedpoint import Rounding
from qspinn.learning.stdp.training import StdpTraining
from qspinn.networks.competing import Lif
from running import inline


def test_a_tensor_that_cannot_be_quantized_is_named_with_the_reason(tmp_path: Path) -> None:
    experiment = Experiment(
        name="wide",
        data=DataConfig(name="digits", n_train=40, n_validation=20, n_test=20),
        network=NetworkConfig(n_neurons=4, n_steps=10, neuron=Lif(v_min_mv=-1e30, v_th_mv=1e30)),
        training=StdpTraining(n_passes=1),
        search=SearchConfig(schemes=(Scheme.PTQ,), ptq={"roundings": (Rounding.NEAREST,)}, sweep={"bits": (8,)}),
    )
    with pytest.raises(LoweringError, match=r"cannot be quantized, rounding nearest, at any width .*; got '.+'"):
        explore(experiment, tmp_path, executors=inline)
