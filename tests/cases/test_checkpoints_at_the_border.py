"""A checkpoint is what was saved: all of its entry is under a checksum, its family is known, its arrays are its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import safetensors
import safetensors.numpy

import qspinn
from qspinn.errors import ArtifactError
from qspinn.learning.local.model import TrainedLocal, load_local
from qspinn.networks import checkpoint
from qspinn.networks.checkpoint import Trained, TrainedLayers
from samples import trained_competing, trained_layers, trained_local

MAKERS: list[Callable[[], Any]] = [trained_competing, trained_layers, trained_local]


def entry_in(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="np") as file:
        entry: dict[str, Any] = msgspec.json.decode(file.metadata()["qspinn_float"])
    return entry


def rewritten(path: Path, entry: dict[str, Any]) -> None:
    """The file with another entry."""
    arrays = safetensors.numpy.load(path.read_bytes())
    path.write_bytes(safetensors.numpy.save(arrays, metadata={"qspinn_float": msgspec.json.encode(entry).decode()}))


def with_provenance() -> TrainedLocal:
    t = trained_local()
    origin = {"experiment": {"data": {"name": "synthetic_gestures", "bin_ms": 1.5}}}
    return TrainedLocal(network=t.network, params=t.params, provenance=origin)


@pytest.mark.parametrize(
    ("old", "new"), [(b"synthetic_gestures", b"synthetic_gesttres"), (b"experiment", b"experilent"), (b"1.5", b"1.7")]
)
def test_an_altered_provenance_is_refused(old: bytes, new: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    qspinn.save(with_provenance(), path)
    assert qspinn.load(path).provenance == with_provenance().provenance
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(ArtifactError, match="checksum does not match"):
        qspinn.load(path)


@pytest.mark.parametrize("make", [*MAKERS, with_provenance])
def test_no_bit_of_the_metadata_can_be_turned_unseen(make: Callable[[], Any], tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    qspinn.save(make(), path)
    good = path.read_bytes()
    length = 8 + int.from_bytes(good[:8], "little")
    first = qspinn.load(path)
    rng = np.random.default_rng(0)
    for at in rng.choice(length, 60, replace=False):
        bad = bytearray(good)
        bad[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        try:
            again = qspinn.load(path)
        except ArtifactError:
            continue
        assert again.key() == first.key()
        assert getattr(again, "provenance", None) == getattr(first, "provenance", None)


@pytest.mark.parametrize("make", [*MAKERS, with_provenance])
def test_files_from_before_the_second_checksum_can_be_read(make: Callable[[], Any], tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    qspinn.save(make(), path)
    entry = entry_in(path)
    assert entry.pop("sha256_all")
    rewritten(path, entry)
    assert qspinn.load(path).key() == make().key()


@pytest.mark.parametrize("family", ["LAYERS", "layers2", None, 5, ["layers"], ""])
@pytest.mark.parametrize("signed", [True, False])
def test_a_family_that_is_not_known_is_refused(family: Any, signed: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    qspinn.save(trained_layers(), path)
    entry = entry_in(path) | {"family": family}
    del entry["sha256_all"]
    rewritten(path, entry | ({"sha256_all": checkpoint.__dict__["_of_all"](entry)} if signed else {}))
    with pytest.raises(ArtifactError):
        qspinn.load(path)
    with pytest.raises(ArtifactError, match="does not know" if family != "" else "holds competing populations"):
        checkpoint.load_layers(path)


def test_an_entry_that_is_not_known_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    qspinn.save(trained_layers(), path)
    rewritten(path, entry_in(path) | {"sha256_alk": "0"})
    with pytest.raises(ArtifactError, match="has entries that this version does not know; got \\['sha256_alk'\\]"):
        qspinn.load(path)


@pytest.mark.parametrize("which", range(3))
def test_a_checkpoint_of_another_family_is_called_by_its_name(which: int, tmp_path: Path) -> None:
    loaders: list[Callable[[Path], Any]] = [checkpoint.load, checkpoint.load_layers, load_local]
    path = tmp_path / "a.safetensors"
    qspinn.save(MAKERS[which](), path)
    for i, load in enumerate(loaders):
        if i != which:
            with pytest.raises(ArtifactError, match=r"holds (competing|a network|layers).*; allowed: "):
                load(path)


def test_the_reason_is_told_however_long_the_path_is(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    path = folder / "a.safetensors"
    qspinn.save(trained_layers(), path)
    entry = entry_in(path)
    entry["network"]["speed"] = 3
    rewritten(path, entry)
    with pytest.raises(ArtifactError, match=r"network\.speed: unknown key") as caught:
        qspinn.load(path)
    assert str(caught.value).count("d" * 120) == 1


@pytest.mark.parametrize("make", MAKERS)
def test_a_trained_network_does_not_change_with_the_arrays_that_it_was_made_of(make: Callable[[], Any]) -> None:
    params = {path: array.copy() for path, array in make().params.items()}
    trained: Trained | TrainedLayers | TrainedLocal = msgspec.structs.replace(make(), params=params)
    key = trained.key()
    for array in params.values():
        array[...] = array + 1
    assert trained.key() == key
