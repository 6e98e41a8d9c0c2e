"""Parts of a population: what each says of itself is complete, and files hold the same in one table."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from qspinn.fixedpoint import QFormat
from qspinn.program.flat import FILE_NAMES, KINDS, FlatLif, flat_of, from_flat
from qspinn.program.ops import LifOp
from qspinn.program.parts import Part
from qspinn.testing.layered import random_layered
from qspinn.testing.programs import random_case
from qspinn.testing.vectors import lone


@pytest.mark.parametrize("kind", sorted({kind for _, kind, _ in KINDS}, key=lambda kind: kind.__name__))
def test_a_part_says_everything_of_its_fields(kind: type[Part]) -> None:
    """Every field has a name in files; those of texts are tensors with codes or factors, or words."""
    fields = {f.name: f.type for f in msgspec.structs.fields(kind)}
    assert set(kind.FLAT) == set(fields)
    names = {name for name, hint in fields.items() if hint in (str, str | None)}
    assert names == {*kind.CODES, *kind.FACTORS}
    assert {*kind.SHIFTS, *kind.FACTORS.values()} <= {name for name, hint in fields.items() if hint is int}


def test_files_have_every_field_once() -> None:
    """The rise of a threshold is shifted alike whether it is constant or moves."""
    own = set(LifOp.__struct_fields__) - {place for place, _, _ in KINDS}
    assert own | set(FILE_NAMES.values()) == set(FlatLif.__struct_fields__)
    assert not own & set(FILE_NAMES.values())
    names = [name for _, kind, _ in KINDS for name in kind.FLAT.values()]
    assert {name for name in names if names.count(name) > 1} == {"theta_shift"}


def test_both_ways_between_parts_and_files() -> None:
    programs = [make(seed).program for make, seed in itertools.product((random_case, random_layered), range(60))]
    ops = [op for program in programs for op in program.ops]
    assert [from_flat(flat_of(op)) for op in ops] == ops
    seen = {(place, type(part)) for op in ops if isinstance(op, LifOp) for place, part in op.parts.items()}
    assert seen == {(place, kind) for place, kind, _ in KINDS}


def test_a_population_with_many_parts_by_hand() -> None:
    program = lone(
        [[1]],
        in_shifts=[2],
        current=(3, 2),
        i_bits=9,
        theta_step=[4],
        theta_decay=(1, 1),
        theta_bits=7,
        theta_shift=2,
        max_spikes=5,
        reset="subtract",
        n_ref=4,
    )
    (op,) = program.ops_of(LifOp)
    assert op.states() == {"v": 16, "ref": 3, "i": 9, "theta": 7, "s": 3}
    assert set(op.factors) == {"p.decay", "p.current", "p.theta_decay"}
    assert op.tensors == {
        "leak.decay": "p.decay",
        "input.shifts": "p.in_shifts",
        "threshold.tensor": "p.v_th",
        "reset.tensor": "p.v_reset",
        "theta.step": "p.theta_step",
        "theta.decay": "p.theta_decay",
        "bias.tensor": "p.bias",
        "current.decay": "p.current",
    }
    flat = flat_of(op)
    assert isinstance(flat, FlatLif)
    assert (flat.theta, flat.theta_fmt, flat.theta_shift, flat.theta_decay_shift) == ("", QFormat(bits=7), 2, 1)
    assert (flat.current, flat.current_shift, flat.reset, flat.max_spikes) == ("p.current", 2, "subtract", 5)
    assert (flat.inhibition, flat.store_fmt) == ("", None)


def test_a_population_alone_keeps_its_potential_only() -> None:
    (op,) = lone([[1]]).ops_of(LifOp)
    assert op.states() == {"v": 16}
    assert op.states(fed_back=True) == {"v": 16, "s": 1}
