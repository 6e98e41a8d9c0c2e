"""What records and their files accept has one meaning: names, numbers, tables, files that can be read again."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from qspinn.cli.inputs import data_of_model, read_experiment
from qspinn.errors import ArtifactError, ConfigError, DataError, QSpinnError
from qspinn.exploration.competing.space import Experiment, NetworkConfig, SearchConfig
from qspinn.exploration.layered.space import ItqBits, LayeredSearch
from qspinn.exploration.local.space import LocalExperiment
from qspinn.files import remove_parts
from qspinn.learning.gradients.settings import Supervision
from qspinn.learning.local.formats import DEFAULT_PLAN, local_rules
from qspinn.networks import checkpoint
from qspinn.networks.checkpoint import Trained, TrainedLayers
from qspinn.networks.competing import Dense, Lif, Population, Stdp
from qspinn.networks.layered import EventInput, Layer, LayeredNetwork, Leaky, Linear, NeuronReadout, Pool2d
from qspinn.networks.models import DenseLink, PoolLink, chain, diehl_cook, lif_for
from qspinn.quantization.plan import Calibrator, Granularity, QuantRule
from qspinn.records.record import canonical_json, from_plain, to_plain
from qspinn.workflow.experiments import load_experiment


@pytest.mark.parametrize("name", ["b__w", "a_", "_a_", "_a", "a__b", "", "a b", "input"])
def test_names_from_which_paths_cannot_be_told_apart_are_refused(name: str) -> None:
    for make in (
        lambda: Layer(name=name, shape=(1, 1, 1)),
        lambda: Pool2d(source="a", target=name),
        lambda: Population(name=name, n=1),
    ):
        with pytest.raises(ConfigError, match=r"name|target"):
            make()
    assert Layer(name="a_b", shape=(1, 1, 1)).name == "a_b"


def test_a_table_in_part_keeps_the_rest_of_the_default(tmp_path: Path) -> None:
    file = tmp_path / "e.toml"
    file.write_text('name = "e"')
    read: Any = load_experiment(file, ["search.itq.stdp.eta_post=0.02"])
    default = SearchConfig().itq.stdp
    assert read.search.itq.stdp == msgspec.structs.replace(default, eta_post=0.02)
    assert SearchConfig(itq={"stdp": {"eta_post": 0.02}}) == read.search  # type: ignore[arg-type]
    assert from_plain(Experiment, to_plain(read)) == read
    assert from_plain(Experiment, {"name": "e", "network": {"stdp": {"norm": 1.0}}}).network.stdp == Stdp(norm=1.0)


def test_zero_has_no_sign() -> None:
    assert canonical_json(Lif(v_reset_mv=-0.0)) == canonical_json(Lif())
    assert canonical_json(SearchConfig(ptq={"input_rates": (-0.0,)})) == canonical_json(
        SearchConfig(ptq={"input_rates": (0.0,)})
    )


@pytest.mark.parametrize("bits", [np.timedelta64(8), np.datetime64(8, "s"), np.array(8, object), np.ma.masked_array(8)])
def test_times_and_masked_values_are_no_numbers(bits: Any) -> None:
    with pytest.raises(ConfigError, match=r"QuantRule\.bits: is of the wrong type"):
        QuantRule(tensor="*", bits=bits)
    with pytest.raises(ConfigError, match="current_decay"):
        Leaky(current_decay=np.ma.masked)


def test_whole_numbers_are_not_rounded() -> None:
    with pytest.raises(ConfigError, match=r"Supervision\.gain: is a whole number that no float"):
        Supervision(gain=2**53 + 1)
    assert Supervision(gain=2**53).gain == 2.0**53


def test_records_take_values_by_name_and_can_be_copied() -> None:
    with pytest.raises(ConfigError, match=r"Linear: takes its values by name; .*fix: Linear\(source=, target=, bias="):
        Linear("a", "b", True)  # type: ignore[misc]
    record = Linear(source="a", target="b", bias=True)
    assert pickle.loads(pickle.dumps(record)) == copy.deepcopy(record) == copy.copy(record) == record


@pytest.mark.parametrize(
    "make",
    [
        lambda: Lif(v_th_mv=5e-324),
        lambda: Lif(v_th_mv=1e39),
        lambda: Leaky(v_th=5e-324),
        lambda: Leaky(theta_step=1e-310),
        lambda: Dense(source="a", target="b", w_max=5e-324),
        lambda: Dense(source="a", target="b", w_max=1e39),
        lambda: Stdp(norm=1e-320),
        lambda: Supervision(gain=1e300),
    ],
)
def test_sizes_that_float32_cannot_compute_with_are_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match="sizes of 1e-30 to 1e"):
        make()


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: SearchConfig(n_neurons=(0,)), "search.n_neurons"),
        (lambda: SearchConfig(n_neurons=(-5,)), "n_neurons"),
        (lambda: SearchConfig(ptq={"input_rates": (-0.5,)}), "ptq.input_rates"),
        (lambda: SearchConfig(itq={"passes": -1}), "itq.passes"),
        (lambda: SearchConfig(ptq={"granularities": (Granularity.PER_CHANNEL,)}), "ptq.granularities"),
        (lambda: NetworkConfig(n_neurons=-4), "network.n_neurons"),
        (lambda: NetworkConfig(n_steps=-4), "network.n_steps"),
        (lambda: NetworkConfig(rate_hz=-4), "rate_hz"),
        (lambda: NetworkConfig(inhibition_mv=-4), "strength_mv"),
        (lambda: lif_for(10**400), "n_neurons"),
        (lambda: lif_for(-1), "n_neurons"),
        (lambda: LayeredSearch(ptq={"weight_calibrator": Calibrator.THRESHOLD}), "ptq.weight_calibrator"),
        (lambda: LayeredSearch(itq={"calibrator": Calibrator.THRESHOLD}), "itq.calibrator"),
        (lambda: LayeredSearch(itq={"epochs": 20_000}), "itq.epochs"),
        (lambda: LayeredSearch(itq={"bits": (ItqBits(weights=4, states=8, accumulator_bits=4),)}), "itq.bits"),
        *(
            (lambda name=name: Experiment(name=name), "name")
            for name in ("", ".", "..", "a/b", "/a", "a\\b", "a\0", "a" * 201)
        ),
    ],
)
def test_settings_that_no_run_could_keep_are_refused(make: Any, where: str) -> None:
    with pytest.raises(ConfigError, match=where.replace(".", r"\.")):
        make()


def test_options_of_competing_populations_are_refused_for_local_learning() -> None:
    for option in ({"fold_theta": True}, {"keep_sum": False}, {"min_input_rate": 0.1}):
        plan = msgspec.structs.replace(DEFAULT_PLAN, **option)
        with pytest.raises(ConfigError, match=f"plan.{next(iter(option))}: is for competing populations only"):
            local_rules(plan, ["conv1"])
        with pytest.raises(ConfigError, match=f"{next(iter(option))}: is for competing"):
            from_plain(
                LocalExperiment,
                {
                    "name": "e",
                    "family": "local",
                    "data": {"name": "nmnist8"},
                    "network": {"layers": [{"channels": 1}]},
                    "plan": to_plain(plan),
                },
            )


def test_small_sums_of_weights_do_not_become_zero_which_means_no_normalization() -> None:
    assert diehl_cook(64, 100).dense_into("exc").stdp == Stdp(norm=6.4)
    small = diehl_cook(10, 4, stdp=Stdp(norm=1e-6)).dense_into("exc").stdp
    assert small is not None
    assert small.norm == pytest.approx(1e-6 * 10 / 784, rel=1e-12)
    with pytest.raises(ConfigError):
        diehl_cook("64", 4)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="stdp"):
        diehl_cook(64, 4, stdp={})  # type: ignore[arg-type]


def test_one_link_may_stand_for_several_layers() -> None:
    link = DenseLink(n=3)
    net = chain((1, 2, 2), (link, link), n_classes=3, n_steps=2)
    assert [x.name for x in net.layers] == ["fc1", "out"]
    assert chain([1, 2, 2], [to_plain(link)], n_classes=3, n_steps=2).layers[0].n == 3  # type: ignore[arg-type]
    for bad in ({"shape": (8, 8)}, {"links": link}, {"n_classes": "3"}, {"neuron": {}}):
        with pytest.raises(ConfigError):
            chain(**{"shape": (1, 2, 2), "links": (link,), "n_classes": 3, "n_steps": 2} | bad)  # type: ignore[arg-type]
    pools = (Pool2d(source="p", target="q", kernel=(1, 1)), Pool2d(source="input", target="p", kernel=(1, 1)))
    with pytest.raises(ConfigError, match="fix: declare layers, and pooled signals, in the order"):
        LayeredNetwork(
            name="n",
            input=EventInput(shape=(1, 4, 4)),
            layers=(Layer(name="a", shape=(1, 1, 1)),),
            connections=(*pools, Linear(source="q", target="a")),
            readout=NeuronReadout(source="a"),
        )
    assert PoolLink().kernel == 2


NETWORK = LayeredNetwork(
    name="n",
    input=EventInput(shape=(1, 1, 1)),
    layers=(Layer(name="a", shape=(2, 1, 1)),),
    connections=(Linear(source="input", target="a"),),
    readout=NeuronReadout(source="a"),
)


def trained(kind: type) -> Any:
    if kind is TrainedLayers:
        return TrainedLayers(network=NETWORK, params={"a__w": np.ones((2, 1), ">f4")})
    return Trained(network=diehl_cook(1, 2), params={"exc.w": np.ones((2, 1), ">f4"), "exc.theta": np.zeros(2, "<f4")})


@pytest.mark.parametrize("kind", [Trained, TrainedLayers])
def test_checkpoints_that_are_written_can_be_read(kind: type, tmp_path: Path) -> None:
    load = checkpoint.load if kind is Trained else checkpoint.load_layers
    path, key = tmp_path / "a.safetensors", "exc.w" if kind is Trained else "a__w"
    checkpoint.save(trained(kind), path)
    assert load(path).key() == trained(kind).key()  # type: ignore[operator]
    for spoil in (
        lambda p: p.pop(key),
        lambda p: p[key].fill(np.nan),
        lambda p: p.update(b=np.ones(1)),
        lambda p: p.update({key: np.ones((2, 1), np.longdouble)}),
    ):
        spoilt = trained(kind)
        spoil(spoilt.params)
        with pytest.raises(DataError):
            checkpoint.save(spoilt, path)
    with pytest.raises(ConfigError, match="is no trained network"):
        checkpoint.save({}, path)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match="a folder"):
        checkpoint.save(trained(kind), tmp_path)


def test_only_half_files_of_the_run_are_removed(tmp_path: Path) -> None:
    for name in (".thesis.part", ".a.npy.12.part", "b.part", "docs/.x.3.part"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    remove_parts(tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.part")) == [
        ".thesis.part",
        "b.part",
        "docs/.x.3.part",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("e.json", '{"name": "a", "name": "b"}'),
        ("e.json", '{"name": "e", "search": {"itq_passes": 1, "itq_passes": 2}}'),
        ("e.JSON", 'name = "e"'),
        ("e.json", "[" * 100_000),
        ("e.json", '{"name": "e", "seed": NaN}'),
        ("e.toml", "a = " + "[" * 10_000),
        ("e.toml", "seed = " + "1" * 5000),
        ("e.toml", ".".join("a" * 100_000) + " = 1"),
        ("e.toml", "#" * (1 << 21)),
        ("e.toml", 'name = "\0"'),
    ],
)
def test_files_of_no_experiment_are_refused(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError):
        load_experiment(tmp_path / name)


def test_overrides_are_assignments(tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_bytes(b'\xef\xbb\xbfname = "e"')
    (tmp_path / "e.JSON").write_text(json.dumps({"name": "e"}))
    assert load_experiment(tmp_path / "e.toml", ["name =  x "]).name == "x"
    assert load_experiment(tmp_path / "e.JSON") == load_experiment(tmp_path / "e.toml")
    for bad in (
        [1],
        None,
        "name=x",
        [".".join("a" * 3000) + "=1"],
        ["name=" + "[" * 100_000],
        ['search={"a":1,"a":2}'],
    ):
        with pytest.raises(ConfigError):
            load_experiment(tmp_path / "e.toml", bad)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match='fix: write "123", with the quotes'):
        load_experiment(tmp_path / "e.toml", ["name=123"])
    for path in (5, "a\0b", None):
        with pytest.raises(ConfigError):
            load_experiment(path)  # type: ignore[arg-type]
    with pytest.raises(QSpinnError, match=r"config\.search\.itq\.stdp\.eta_post: value out of range"):
        load_experiment(tmp_path / "e.toml", ["search.itq.stdp.eta_post=-1"])


@pytest.mark.parametrize("folder", ["2024", "null", "1e3", "true", '"sp ace"', " a "])
def test_the_folder_of_data_is_text_whatever_it_looks_like(folder: str, tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text('name = "e"')
    assert read_experiment(tmp_path / "e.toml", None, folder, None).data.folder == folder


@pytest.mark.parametrize("experiment", [None, 5, "e", {"data": 3}, {}])
def test_models_that_do_not_say_their_data_need_them_named(experiment: Any) -> None:
    with pytest.raises(ConfigError, match="does not say which data"):
        data_of_model({"experiment": experiment}, True, "", "")
