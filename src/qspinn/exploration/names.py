"""Names of candidates that people read, and a legend for the abbreviations in their labels.

A label such as `ptq w4 per-neuron nearest lean N400` is part of a candidate's content key; it says in short what the
candidate does. Here each of its words is spelt out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple


class Term(NamedTuple):
    """Kind of word in labels: `{}` stands for the number in it.

    Attributes:
        pattern: regular expression of the whole word; its group is the number.
        name: words in the readable name of a candidate.
        meaning: explanation in a legend; the number is left out of it.
        sign: word as a legend shows it, with … for the number.
    """

    pattern: str
    name: str
    meaning: str
    sign: str


TERMS = (
    Term(r"w(\d+)", "{}-bit weights", "bits of the weights", "w…"),
    Term(r"s(\d+)", "{}-bit states", "bits of the states, all but the weights; some constants take more", "s…"),
    Term(r"gradient(\d+)", "{}-bit learned weights", "bits of the learned weights and their updates", "gradient…"),
    Term(r"trace(\d+)", "{}-bit traces", "bits of synaptic and membrane traces", "trace…"),
    Term(r"u(\d+)", "{}-bit potentials", "bits of the potentials", "u…"),
    Term(r"r(\d+)", "{}-bit refractory traces", "bits of the refractory traces", "r…"),
    Term(r"readout(\d+)", "{}-bit read-out", "bits of the random read-out matrices", "readout…"),
    Term(r"error(\d+)", "{}-bit errors", "bits of the values read out and of errors", "error…"),
    Term("lean", "lean states", "all other tensors: the fewest bits that did no harm alone", "lean"),
    Term("plan", "states of the plan", "all other tensors: as in the experiment's plan", "plan"),
    Term("per-neuron", "one step per neuron", "weights of each neuron in steps of their own size", "per-neuron"),
    Term("per-channel", "one step per channel", "weights of each channel in steps of their own size", "per-channel"),
    Term("global", "one step for all", "all weights in steps of one size", "global"),
    Term("truncate", "rounded down", "rounding towards minus infinity", "truncate"),
    Term("nearest", "nearest rounding", "rounding to the nearest code", "nearest"),
    Term("stochastic", "stochastic rounding", "rounding up or down at random, without bias", "stochastic"),
    Term("toward_zero", "rounded toward zero", "rounding toward zero", "toward_zero"),
    Term("ptq", "PTQ", "post-training quantization", "ptq"),
    Term("ptq_adapt", "PTQ with adapted thresholds", "PTQ, then thresholds learned anew", "ptq_adapt"),
    Term("itq", "QAT", "in-training quantization (ITQ), the field's quantization-aware training (QAT)", "itq"),
    Term(r"first(\d+)", "{}-bit first layer", "bits of the first layer's weights", "first…"),
    Term(r"last(\d+)", "{}-bit last layer", "bits of the last layer's weights", "last…"),
    Term(r"inputs>([\d.e+-]+)", "inputs above {} spikes per step", "only inputs that spike more often", "inputs>…"),
    Term(r"N(\d+)", "{} neurons", "neurons", "N…"),
)  # fmt: skip
"""Words of labels in the order in which a readable name has them."""


def readable_name(label: str) -> str:
    """Candidate in words: "4-bit weights, lean states, one step per neuron, nearest rounding, PTQ, 400 neurons".

    Args:
        label: of the candidate; words that are none of `TERMS` stay as they are, at the end.
    """
    words = label.split()
    known = {word: term for word in words if (term := _term(word))}
    in_order = sorted(known, key=lambda word: TERMS.index(known[word][0]))
    names = [known[word][0].name.format(known[word][1]) for word in in_order]
    return ", ".join([*names, *(word for word in words if word not in known)])


def legend(labels: Iterable[str]) -> list[tuple[str, str]]:
    """Abbreviations that occur in labels, and the meaning of each, in the order of `TERMS`."""
    used = {entry[0] for label in labels for word in label.split() if (entry := _term(word))}
    return [(term.sign, term.meaning) for term in TERMS if term in used]


def _term(word: str) -> tuple[Term, str] | None:
    """Term of a word of a label and the number in it ("" where it has none); None where the word is no term."""
    for term in TERMS:
        if match := re.fullmatch(term.pattern, word):
            return term, match[1] if match.re.groups else ""
    return None
