"""One flow for networks of every family, with the same words; what a verb does not take is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qspinn
from qspinn.data import Dataset, EventDataset, EventSet, Split
from qspinn.data.events.event_set import from_dense
from qspinn.errors import ArtifactError, ConfigError, DataError
from qspinn.exploration.statistics import Accuracy
from qspinn.fixedpoint import Rounding
from qspinn.learning.gradients.surrogate import SurrogateNet
from qspinn.learning.stdp.grid import GridModel
from qspinn.networks.checkpoint import Trained, TrainedLayers
from qspinn.networks.layered import EventInput, Layer, LayeredNetwork, Leaky, Linear, NeuronReadout
from qspinn.networks.local import LocalLayer, LocalNetwork
from qspinn.program import Program, to_bytes
from qspinn.quantization.plan import Granularity, QuantPlan, QuantRule
from qspinn.quantization.ranges import LayerRanges, Ranges
from qspinn.spikes import from_dense as spikes_from_dense
from samples import COMPETING, trained_competing, trained_layers, trained_local

FEW = QuantRule(tensor="*.w", bits=4, granularity=Granularity.PER_NEURON, rounding=Rounding.STOCHASTIC)
WIDE = QuantRule(tensor="*.theta", bits=16, rounding=Rounding.STOCHASTIC)
PLAN = QuantPlan(rules=(FEW, WIDE, QuantRule(tensor="*", bits=12)))
LAYERS_PLAN = QuantPlan(
    rules=(QuantRule(tensor="*.w", bits=4, granularity=Granularity.PER_CHANNEL), QuantRule(tensor="*", bits=10))
)


def images() -> Dataset:
    """Two classes of 5 x 5 pictures, the upper or the lower half bright."""
    rng = np.random.default_rng(0)

    def split(n: int, first: int) -> Split:
        labels = np.arange(n) % 2
        pictures = rng.integers(0, 40, (n, 25))
        for k, label in enumerate(labels):
            pictures[k, 12 * label : 12 * label + 12] += 200
        return Split(images=pictures.astype(np.uint8), labels=labels, first=first)

    parts = {name: split(n, first) for name, n, first in (("train", 40, 0), ("validation", 20, 40), ("test", 20, 60))}
    return Dataset(name="halves", shape=(5, 5), labels=("up", "down"), split_rule="as drawn", **parts)


def recordings() -> EventDataset:
    """Two classes of recordings [5 steps, 2 x 3 x 3], one polarity or the other."""
    rng = np.random.default_rng(1)

    def events(n: int) -> EventSet:
        labels = np.arange(n) % 2
        raster = rng.random((n, 5, 2, 3, 3)) < 0.05
        for k, label in enumerate(labels):
            raster[k, :, label] |= rng.random((5, 3, 3)) < 0.6
        return from_dense(raster, labels, order="BT")

    return EventDataset(
        name="polarity", shape=(2, 3, 3), n_steps=5, bin_ms=2.0, labels=("on", "off"), split_rule="as drawn",
        train=events(64), validation=events(32), test=events(32),
    )  # fmt: skip


IMAGES, RECORDINGS = images(), recordings()
NETWORK = qspinn.diehl_cook(25, 10, n_steps=60, n_classes=2, rate_hz=400.0)
LAYERS = LayeredNetwork(
    name="l", input=EventInput(shape=(2, 3, 3)), n_steps=5, readout=NeuronReadout(source="out"),
    layers=(Layer(name="a", shape=(8, 1, 1), neuron=Leaky(decay=0.7)), Layer(name="out", shape=(2, 1, 1))),
    connections=(Linear(source="input", target="a"), Linear(source="a", target="out")),
)  # fmt: skip
SUPERVISION = qspinn.Supervision(n_epochs=30, batch=16, learning_rate=0.01)
FLOWS = {
    "competing": (NETWORK, IMAGES, qspinn.StdpTraining(n_passes=2), PLAN, Trained, Ranges, "GridModel"),
    "layered": (LAYERS, RECORDINGS, SUPERVISION, LAYERS_PLAN, TrainedLayers, LayerRanges, "QuantNet"),
}  # fmt: skip


@pytest.mark.parametrize("family", FLOWS)
def test_one_flow(family: str, tmp_path: Path) -> None:
    network, data, training, plan, kind, ranges_kind, model_kind = FLOWS[family]
    trained, accuracy = qspinn.train(network, data, training, seed=1)
    assert type(trained) is kind
    assert (type(accuracy), accuracy.split, accuracy.accuracy > 0.8) == (Accuracy, "validation", True)
    seeded = {"seed": 1} if family == "competing" else {}  # its spikes are drawn
    assert qspinn.evaluate(trained, data.validation, "validation", **seeded)[0] == accuracy
    ranges = qspinn.calibrate(trained, data)
    assert type(ranges) is ranges_kind
    program = qspinn.quantize(trained, plan, data)
    assert (type(program), program.labels) == (Program, data.labels)
    found, predicted = qspinn.evaluate(program, data.test)
    assert (found.split, found.accuracy > 0.8, predicted.shape) == ("test", True, data.test.labels.shape)
    model = qspinn.prepare(trained, plan, data)
    assert type(model).__name__ == model_kind
    again, learned = qspinn.train(model, data, training)
    assert again is model
    converted = qspinn.convert(model, data)
    assert (learned.split, converted.labels) == ("validation", data.labels)
    assert qspinn.evaluate(converted, data.validation, "validation")[0].accuracy == learned.accuracy > 0.7
    for name, thing in (("m.qspinn", program), ("t.safetensors", trained)):
        back = qspinn.load(qspinn.save(thing, tmp_path / name))
        assert type(back) is type(thing)
        assert np.array_equal(qspinn.evaluate(back, data.test)[1], qspinn.evaluate(thing, data.test)[1])


def test_ranges_stand_for_data_and_give_the_same_program() -> None:
    network, data, training, plan, *_ = FLOWS["layered"]
    trained, _ = qspinn.train(network, data, training)
    ranges = qspinn.calibrate(trained, data)
    from_data, from_ranges = (qspinn.quantize(trained, plan, x) for x in (data.train, ranges))
    assert to_bytes(from_data) == to_bytes(from_ranges)
    models = [qspinn.prepare(trained, plan, data), qspinn.prepare(trained, plan, ranges=ranges),
              qspinn.prepare(trained, plan, ranges)]  # fmt: skip
    assert len({to_bytes(qspinn.convert(model)) for model in models}) == 1


def test_a_split_alone_is_measured_on_itself() -> None:
    for network, split, training in (
        (NETWORK, IMAGES.train, qspinn.StdpTraining(n_passes=1)),
        (LAYERS, RECORDINGS.train, qspinn.Supervision(n_epochs=1)),
    ):
        assert qspinn.train(network, split, training)[1].split == "train"


def test_local_layers_train_and_are_evaluated(tmp_path: Path) -> None:
    network = LocalNetwork(layers=(LocalLayer(channels=4, kernel=3, padding=1),))
    trained, accuracy = qspinn.train(network, RECORDINGS, qspinn.LocalLearning(n_epochs=2, burn_in=1))
    assert accuracy.split == "validation"
    assert qspinn.evaluate(trained, RECORDINGS.validation, "validation")[0] == accuracy
    back = qspinn.load(qspinn.save(trained, tmp_path / "l.safetensors"))
    assert back.key() == trained.key()


@pytest.mark.parametrize("make", [trained_competing, trained_layers, trained_local])
def test_files_tell_their_family(make: Callable[[], Any], tmp_path: Path) -> None:
    back = qspinn.load(qspinn.save(make(), tmp_path / "any name"))
    assert (type(back), back.key()) == (type(make()), make().key())


@pytest.mark.parametrize("content", [b"", b"nothing", b"\0" * 64])
def test_foreign_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(content)
    for path in (tmp_path / "f", tmp_path / "missing", tmp_path, None):
        with pytest.raises(ArtifactError):
            qspinn.load(path)  # type: ignore[arg-type]


EXPERIMENT = qspinn.Experiment(name="e")
LOCAL = LocalNetwork(layers=(LocalLayer(channels=2),))
LOCAL_EXPERIMENT = qspinn.LocalExperiment(
    name="e", family="local", data=qspinn.EventData(name="nmnist8"), network=LOCAL
)
SPIKES = spikes_from_dense(np.ones((COMPETING.n_steps, 2, COMPETING.input.n), np.uint8))
PROGRAM = qspinn.quantize(SurrogateNet(LAYERS), LAYERS_PLAN, LayerRanges(v={"a": 2.0, "out": 2.0}))
NO_PATHS: tuple[Any, ...] = (5, None, b"x", True, "a\0b")
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: qspinn.train(3), ConfigError, r"^train: does not take such an object; got 'int'; allowed: Experiment"),
    (lambda: qspinn.train(trained_competing(), IMAGES), ConfigError, r"^train: .*got 'Trained'"),
    (lambda: qspinn.train(EXPERIMENT, IMAGES), ConfigError, r"^train\.data: is said by the experiment"),
    (lambda: qspinn.train(EXPERIMENT, seed=3), ConfigError, r"^train\.seed: is said by the experiment"),
    (lambda: qspinn.train(NETWORK), DataError, r"^data: is not data that this network takes; got 'NoneType'"),
    (lambda: qspinn.train(NETWORK, RECORDINGS), DataError, r"^data: .*allowed: a Dataset"),
    (lambda: qspinn.train(LAYERS, IMAGES), DataError, r"^data: .*allowed: a EventDataset"),
    (lambda: qspinn.train(COMPETING, IMAGES), DataError, r"^data: does not fit the network; got '25 pixels'"),
    (lambda: qspinn.train(NETWORK, IMAGES, qspinn.Supervision()), ConfigError, r"^training: is of the wrong type"),
    (lambda: qspinn.train(LAYERS, RECORDINGS, qspinn.StdpTraining()), ConfigError, r"^training: is of the wrong type"),
    (
        lambda: qspinn.train(LocalNetwork(layers=(LocalLayer(channels=2),)), RECORDINGS, qspinn.Supervision()),
        ConfigError,
        r"^training: is of the wrong type",
    ),
    (lambda: qspinn.train(NETWORK, IMAGES, resume="r"), ConfigError, r"^resume: STDP keeps nothing"),
    (lambda: qspinn.train(NETWORK, IMAGES, device="cuda"), ConfigError, r"^device: only gradients"),
    (lambda: qspinn.train(NETWORK, IMAGES, seed=-1), ConfigError, r"^train\.seed"),
    (lambda: qspinn.train(NETWORK, IMAGES, teacher=3), ConfigError, r"^train\.teacher: is no option here"),
    (lambda: qspinn.train(LocalNetwork(layers=(LocalLayer(channels=2),)), RECORDINGS.train), DataError, r"^data: "),
    (lambda: qspinn.calibrate(trained_local(), RECORDINGS), ConfigError, r"^calibrate: .*got 'TrainedLocal'"),
    (lambda: qspinn.quantize(trained_local(), PLAN, RECORDINGS), ConfigError, r"^quantize: .*got 'TrainedLocal'"),
    (lambda: qspinn.quantize(trained_competing(), "4 bits", IMAGES), ConfigError, r"^plan: is of the wrong type"),
    (lambda: qspinn.quantize(trained_layers(), LAYERS_PLAN, IMAGES), DataError, r"^data: "),
    (lambda: qspinn.prepare(NETWORK, PLAN, IMAGES, width=3), ConfigError, r"^prepare\.width: is no .* of layered"),
    (lambda: qspinn.prepare(LAYERS, LAYERS_PLAN, widht=3), ConfigError, r"^prepare\.widht: is no option here"),
    (
        lambda: qspinn.prepare(LAYERS, LAYERS_PLAN, RECORDINGS, LayerRanges(v={"a": 1.0, "out": 1.0})),
        ConfigError,
        r"^prepare\.ranges: stand beside data",
    ),
    (
        lambda: qspinn.prepare(trained_layers(), LAYERS_PLAN, {"p.w": 1}, LayerRanges(v={"p": 1.0})),
        ConfigError,
        r"^prepare\.ranges: stand beside data",
    ),
    (lambda: qspinn.convert(qspinn.prepare(LAYERS, LAYERS_PLAN), "no data"), DataError, r"^data: is not data"),
    (lambda: qspinn.evaluate(trained_layers(), RECORDINGS.test, seed=3), ConfigError, r"^evaluate\.seed"),
    (lambda: qspinn.convert(trained_layers()), ConfigError, r"^convert: .*got 'TrainedLayers'"),
    (lambda: qspinn.evaluate(trained_competing(), RECORDINGS.test), DataError, r"^test: "),
    (lambda: qspinn.evaluate(trained_layers(), RECORDINGS.test, backend="torch"), ConfigError, r"^evaluate\.backend"),
    (lambda: qspinn.evaluate(LAYERS, RECORDINGS.test), ConfigError, r"^evaluate: .*got 'LayeredNetwork'"),
    (lambda: qspinn.save(LAYERS, "x"), ConfigError, r"^trained: is no trained network; got 'LayeredNetwork'"),
    (lambda: qspinn.train(NETWORK, IMAGES, progress=5), ConfigError, r"^progress: is no function; got 5"),
    (lambda: qspinn.train(EXPERIMENT, progress="x"), ConfigError, r"^progress: is no function"),
    (lambda: qspinn.train(EXPERIMENT, resume="nowhere"), ConfigError, r"^resume: STDP keeps nothing"),
    (lambda: qspinn.train(EXPERIMENT, resume=5), ConfigError, r"^resume: is no path; got 5"),
    (lambda: qspinn.train(LAYERS, RECORDINGS, resume=True), ConfigError, r"^resume: is no path; got True"),
    (lambda: qspinn.train(LAYERS, RECORDINGS, resume="a\0"), ConfigError, r"^resume: is no path"),
    (lambda: qspinn.train(LOCAL, RECORDINGS, resume=b"x"), ConfigError, r"^resume: is no path; got b'x'"),
    (lambda: qspinn.train(EXPERIMENT, foo=None), ConfigError, r"^train\.foo: is no option here"),
    (lambda: qspinn.train(LOCAL_EXPERIMENT, plan=None), ConfigError, r"^train\.plan: is said by the experiment"),
    (lambda: qspinn.train(LAYERS, RECORDINGS, plan=PLAN), ConfigError, r"^train\.plan: is no .* of local networks"),
    (lambda: qspinn.train(LAYERS, RECORDINGS, device=None), ConfigError, r"^device: is of the wrong type; got 'None"),
    (lambda: qspinn.train(LAYERS, RECORDINGS, device=np.ones(2)), ConfigError, r"^device: is of the wrong type"),
    (lambda: qspinn.train(NETWORK, IMAGES, seed=1.5), ConfigError, r"^train\.seed: is no integer; got 1\.5"),
    (
        lambda: qspinn.train(LAYERS, RECORDINGS, teacher=SurrogateNet(LAYERS)),
        ConfigError,
        r"^train\.teacher: is not asked: the training has no distillation",
    ),
    (
        lambda: qspinn.train(LOCAL, RECORDINGS, qspinn.LocalLearning(arithmetic="float"), plan=LAYERS_PLAN),
        ConfigError,
        r"^train\.plan: has widths of integers",
    ),
    (lambda: qspinn.calibrate(trained_layers(), RECORDINGS, seed="x"), ConfigError, r"^calibrate\.seed: is no int"),
    (lambda: qspinn.calibrate(trained_layers(), RECORDINGS, seed=3), ConfigError, r"^calibrate\.seed: .*: 0 here"),
    (lambda: qspinn.calibrate(trained_competing(), SPIKES, seed=3), ConfigError, r"^calibrate\.seed: .*: 0 here"),
    (lambda: qspinn.calibrate(trained_competing(), IMAGES, seed=-1), ConfigError, r"^calibrate\.seed: is out of range"),
    (lambda: qspinn.quantize(trained_layers(), LAYERS_PLAN, RECORDINGS, seed=None), ConfigError, r"^quantize\.seed"),
    (lambda: qspinn.prepare(LAYERS, LAYERS_PLAN, seed=2**32), ConfigError, r"^prepare\.seed: is out of range"),
    (
        lambda: qspinn.prepare(trained_layers(), LAYERS_PLAN, RECORDINGS, params={}),
        ConfigError,
        r"^prepare\.params: is no option here; .*allowed: learn_steps, surrogate, width, estimator",
    ),
    (lambda: qspinn.evaluate(trained_layers(), RECORDINGS.test, 5), ConfigError, r"^evaluate\.name: .*got 'int'"),
    (lambda: qspinn.evaluate(trained_layers(), RECORDINGS.test, seed=np.ones(2)), ConfigError, r"^evaluate\.seed"),
    (
        lambda: qspinn.evaluate(trained_layers(), RECORDINGS.test, backend=np.ones(2)),
        ConfigError,
        r"^evaluate\.backend",
    ),
    (lambda: qspinn.evaluate(trained_layers(), RECORDINGS.test, device=None), ConfigError, r"^evaluate\.device"),
    (
        lambda: qspinn.convert(qspinn.prepare(LAYERS, LAYERS_PLAN), labels=np.array(["a", "b"])),
        DataError,
        r"^convert\.labels: is no tuple of texts",
    ),
    (lambda: qspinn.sensitivity(EXPERIMENT, "x", foo=1), ConfigError, r"^sensitivity\.foo: unknown key"),
    (lambda: qspinn.sensitivity(EXPERIMENT, None), ConfigError, r"^out: is no path; got None"),
    (lambda: qspinn.explore(EXPERIMENT, 5), ConfigError, r"^out: is no path; got 5"),
    (lambda: qspinn.explore(EXPERIMENT, "a\0"), ConfigError, r"^out: is no path"),
    (lambda: qspinn.explore(EXPERIMENT, "x", on_event=5), ConfigError, r"^on_event: is no function"),
    (lambda: qspinn.explore(EXPERIMENT, "x", executors=5), ConfigError, r"^executors: is no function"),
    *((lambda path=path: qspinn.save(trained_layers(), path), ConfigError, r"^path: is no path") for path in NO_PATHS),
    *((lambda path=path: qspinn.save(PROGRAM, path), ConfigError, r"^path: is no path") for path in NO_PATHS),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), REFUSED, ids=range(len(REFUSED)))
def test_what_a_verb_does_not_take_is_named(call: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_grid_models_need_labelled_images() -> None:
    model = qspinn.prepare(NETWORK, PLAN, IMAGES)
    assert isinstance(model, GridModel)
    with pytest.raises(DataError, match=r"^data: "):
        qspinn.convert(model)


def test_a_model_on_the_grid_keeps_its_seed() -> None:
    """Samples and roundings are drawn by the seed that `prepare` got: another one would say nothing."""
    once = qspinn.StdpTraining(n_passes=1)
    with pytest.raises(ConfigError, match=r"^train\.seed: .*got 7; allowed: 3; fix: give the seed to qspinn\.prepare"):
        qspinn.train(qspinn.prepare(NETWORK, PLAN, IMAGES, seed=3), IMAGES, once, seed=7)
    models = [qspinn.prepare(NETWORK, PLAN, IMAGES, seed=seed) for seed in (3, np.int64(3), 4)]
    for model, given in zip(models, ({}, {"seed": 3}, {}), strict=True):
        qspinn.train(model, IMAGES, once, **given)
    same, different = (np.array_equal(models[0].w, model.w) for model in models[1:])
    assert (same, different) == (True, False)


def test_numbers_of_numpy_are_seeds() -> None:
    programs = [
        qspinn.convert(qspinn.prepare(LAYERS, LAYERS_PLAN, RECORDINGS, seed=seed)) for seed in (np.int64(2), 2, 3)
    ]
    assert [to_bytes(program) == to_bytes(programs[0]) for program in programs] == [True, True, False]
    weights = [SurrogateNet(LAYERS, seed=seed).params()["a.w"] for seed in (np.int64(2), 2)]
    assert np.array_equal(*weights)
    for seed in (-1, 2**32, 1.5, None):
        with pytest.raises(ConfigError, match=r"^seed: is"):
            SurrogateNet(LAYERS, seed=seed)  # type: ignore[arg-type]


def test_names_of_classes_come_from_data_that_the_network_takes() -> None:
    net = qspinn.prepare(LAYERS, LAYERS_PLAN)
    assert qspinn.convert(net, RECORDINGS).labels == ("on", "off")
    assert qspinn.convert(net, RECORDINGS.train).labels == ()
    longer = from_dense(np.zeros((2, 6, 2, 3, 3), np.uint8), np.array([0, 1]), order="BT")
    wider = from_dense(np.zeros((2, 5, 2, 3, 4), np.uint8), np.array([0, 1]), order="BT")
    more = from_dense(np.zeros((2, 5, 2, 3, 3), np.uint8), np.array([0, 2]), order="BT")
    for data, words in (
        (longer, r"^data: does not fit the network; got 'events \(2, 3, 3\) over 6 steps'"),
        (wider, r"^data: does not fit the network"),
        (more, r"^data: labels: has classes that the model does not know"),
    ):
        with pytest.raises(DataError, match=words):
            qspinn.convert(net, data)


@pytest.mark.parametrize("make", [trained_competing, trained_layers])
def test_limits_of_memory_are_numbers_of_bytes(make: Callable[[], Any], tmp_path: Path) -> None:
    path = qspinn.save(make(), tmp_path / "f")
    assert qspinn.load(path, memory_limit=1 << 20).key() == make().key()
    for limit in ("x", 0, 1.5):
        with pytest.raises(ConfigError, match="memory_limit"):
            qspinn.load(path, memory_limit=limit)  # type: ignore[arg-type]


def test_switches_of_numpy_are_switches() -> None:
    spikes = spikes_from_dense(np.ones((5, 1, 18), np.uint8))
    assert qspinn.run(PROGRAM, spikes, record=np.bool_(True)).v.keys() == {"a", "out"}  # type: ignore[arg-type]


@pytest.mark.parametrize(("former", "present"), [("fit", "train"), ("layer_ranges", "calibrate")])
def test_former_names_say_the_present_one(former: str, present: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"^qspinn\.{former} is called qspinn\.{present} now$"):
        assert callable(getattr(qspinn, former))
