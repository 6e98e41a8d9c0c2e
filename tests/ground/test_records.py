"""Configuration records: unknown keys, canonical bytes, overrides."""

from __future__ import annotations

import msgspec
import pytest

from qspinn.errors import ConfigError, QSpinnError
from qspinn.exploration.competing.space import Experiment, SearchConfig
from qspinn.networks.competing import Network
from qspinn.networks.models import diehl_cook
from qspinn.quantization.plan import QuantPlan, QuantRule
from qspinn.records.plain import with_override
from qspinn.records.record import canonical_json, content_key, from_plain, to_plain


@pytest.mark.parametrize(
    ("kind", "data", "where", "near"),
    [
        (Experiment, {"name": "x", "netwrok": {}}, "experiment.netwrok", "network"),
        (Experiment, {"name": "x", "network": {"n_neuron": 3}}, "experiment.network.n_neuron", "n_neurons"),
        (
            Experiment,
            {"name": "x", "network": {"stdp": {"eta_pots": 1}}},
            "experiment.network.stdp.eta_pots",
            "eta_post",
        ),
        (Experiment, {"name": "x", "network": {"neuron": {"v_th": 1}}}, "experiment.network.neuron.v_th", "v_th_mv"),
        (Experiment, {"name": "x", "search": {"itq_stdp": {"nrm": 1}}}, "experiment.search.itq.stdp.nrm", "norm"),
        (
            QuantPlan,
            {"rules": [{"tensor": "*", "bits": 4}, {"tensor": "*", "bit": 3}]},
            "experiment.rules[1].bit",
            "bits",
        ),
    ],
)
def test_unknown_keys_name_their_path_and_the_nearest_key(kind: type, data: dict, where: str, near: str) -> None:
    with pytest.raises(ConfigError, match="unknown key") as caught:
        from_plain(kind, data, "experiment")
    assert caught.value.where == where
    assert f"did you mean '{near}'?" in str(caught.value)


def test_unknown_keys_in_tagged_unions() -> None:
    data = to_plain(diehl_cook(4, 2))
    data["connections"][1]["strenght_mv"] = 3
    with pytest.raises(ConfigError, match=r"net\.connections\[1\]\.strenght_mv.*did you mean 'strength_mv'"):
        from_plain(Network, data, "net")


@pytest.mark.parametrize(
    ("data", "where"),
    [
        ({"name": 3}, "config.name"),
        ({"name": "x", "network": {"n_neurons": "many"}}, "config.network.n_neurons"),
        ({"name": "x", "search": {"schemes": ["guess"]}}, "config.search.schemes"),
        ({}, "config"),
        ({"name": "x", "network": {"n_neurons": 1.5}}, "config.network.n_neurons"),
    ],
)
def test_bad_values_name_their_path(data: dict, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_plain(Experiment, data)
    assert caught.value.where.startswith(where)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "x", "seed": -1}, "seed"),
        ({"name": "x", "version": 2}, "newer qspinn"),
        ({"name": "x", "search": {"weight_bits": [17]}}, r"search\.ptq\.weight_bits"),
        ({"name": "x", "search": {"weight_bits": []}}, "at least one entry"),
        ({"name": "x", "data": {"n_train": -1}}, r"data\.n_train"),
        ({"name": "x", "reward": {"mu": -1}}, r"reward\.mu"),
    ],
)
def test_values_out_of_range_are_config_errors(data: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_plain(Experiment, data)


def test_plain_data_make_the_same_record() -> None:
    for record in (
        Experiment(name="x", search=SearchConfig(ptq={"weight_bits": (3,)})),
        diehl_cook(5, 3),
        QuantPlan(rules=(QuantRule(tensor="*", bits=3),)),
    ):
        assert from_plain(type(record), to_plain(record)) == record
        assert from_plain(type(record), msgspec.json.decode(canonical_json(record))) == record


def test_keys_follow_content_only() -> None:
    plan = QuantPlan(rules=(QuantRule(tensor="*", bits=3),))
    again = from_plain(QuantPlan, {"version": 1, "rules": [{"bits": 3, "tensor": "*"}]})
    assert plan.key() == again.key() == content_key(plan)
    assert plan.key() != QuantPlan(rules=(QuantRule(tensor="*", bits=4),)).key()
    assert content_key(plan, 1) != content_key(1, plan)
    assert canonical_json({"b": 1, "a": {"d": 2, "c": 3}}) == b'{"a":{"c":3,"d":2},"b":1}'


def test_overrides() -> None:
    data = {"network": {"n_neurons": 3}, "name": "x"}
    assert with_override(data, "network.n_neurons=100") == {"network": {"n_neurons": 100}, "name": "x"}
    assert with_override(data, "search.ptq.weight_bits=[4, 2]")["search"] == {"ptq": {"weight_bits": [4, 2]}}
    assert with_override(data, "data.name=mnist")["data"] == {"name": "mnist"}
    assert with_override(data, "data.folder=a=b")["data"] == {"folder": "a=b"}
    assert with_override(data, "training.anneal=false")["training"] == {"anneal": False}
    assert data == {"network": {"n_neurons": 3}, "name": "x"}
    for bad in ("network.n_neurons", "=3", ""):
        with pytest.raises(ConfigError, match=r"path\.to\.key=value"):
            with_override(data, bad)
    with pytest.raises(ConfigError, match="not a table"):
        with_override(data, "name.first=1")
    with pytest.raises(ConfigError, match="did you mean 'n_neurons'"):
        from_plain(Experiment, with_override({"name": "x"}, "network.n_neuronz=3"))


def test_records_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Experiment(name="x").seed = 3


def test_errors_say_where_what_and_how_and_cross_processes() -> None:
    import copy

    error = ConfigError("a.b", "is wrong", got=3, allowed="1..2", fix="choose 2")
    assert str(error) == "a.b: is wrong; got 3; allowed: 1..2; fix: choose 2"
    back = copy.copy(error)  # by __reduce__, as pickling between worker processes does
    assert type(back) is ConfigError
    assert str(back) == str(error)
    assert isinstance(back, QSpinnError)
    assert str(QSpinnError("x", "y", got=0)) == "x: y; got 0"
