"""Names of candidates in words, and the legend of their labels."""

from __future__ import annotations

import itertools

import pytest

from qspinn.exploration.competing import space as competing
from qspinn.exploration.layered import space as layered
from qspinn.exploration.local.proposal import SHORT
from qspinn.exploration.names import TERMS, legend, readable_name
from qspinn.exploration.scheme import Scheme
from qspinn.fixedpoint import Rounding
from qspinn.quantization.plan import Granularity


@pytest.mark.parametrize(
    ("label", "name"),
    [
        (
            "ptq w4 per-neuron nearest lean inputs>0.003 N400",
            "4-bit weights, lean states, one step per neuron, nearest rounding, PTQ, inputs above 0.003 spikes "
            "per step, 400 neurons",
        ),
        (
            "itq w1 per-channel stochastic s6 first8 last4",
            "1-bit weights, 6-bit states, one step per channel, stochastic rounding, QAT, 8-bit first layer, 4-bit "
            "last layer",
        ),
        ("w8 trace6 plan", "8-bit weights, 6-bit traces, states of the plan"),
        ("w4x strange w4", "4-bit weights, w4x, strange"),
        ("", ""),
    ],
)
def test_readable_names(label: str, name: str) -> None:
    assert readable_name(label) == name


def test_every_word_of_every_label_has_an_entry_in_the_legend() -> None:
    labels = [
        competing.label_of(scheme, 4, granularity, rounding, states, rate, 20)
        for scheme, granularity, rounding, states, rate in itertools.product(
            Scheme, (Granularity.GLOBAL, Granularity.PER_NEURON), Rounding, ("lean", "s8"), (0.0, 1e-5)
        )
    ]
    search = layered.LayeredSearch(first_bits=8, last_bits=6)
    labels += [
        layered.label_of(Scheme.ITQ, 2, "s3", rounding, granularity, search)
        for rounding, granularity in itertools.product(Rounding, (Granularity.GLOBAL, Granularity.PER_CHANNEL))
    ]
    labels += [f"{short}{bits} {level}" for short in SHORT.values() for bits in (2, 16) for level in ("plan", "lean")]
    for label in labels:
        assert len(legend([label])) == len(label.split()), label
        assert len(readable_name(label).split(", ")) == len(label.split()), label
    assert legend(labels) == [(term.sign, term.meaning) for term in TERMS]


def test_labels_that_differ_have_names_that_differ() -> None:
    labels = [
        " ".join(words) for words in itertools.product(("w1", "w2"), ("s1", "s2", "lean"), ("nearest", "truncate"))
    ]
    assert len({readable_name(label) for label in labels}) == len(labels)
    assert legend([]) == []
