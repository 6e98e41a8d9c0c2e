"""Programs with inputs to hold a backend against: random ones, and hand-built ones that hit a stated condition.

Random programs miss the corners (a potential that equals its threshold, a tie of a negative product), so the corners
are built by hand in `adversarial`, and `observed` proves from a run of the reference that they are met.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from qspinn.fixedpoint import QFormat, Rounding, requantize, stream_key
from qspinn.program import CodeTensor, Program
from qspinn.program.constants import decays, inhibitions, thresholds
from qspinn.program.ops import DenseOp, LifOp, Op, PoissonOp, SelectOp, Stream, VoteOp
from qspinn.program.parts import Inhibition, InputShift, Leak, Offset, Reset, Threshold
from qspinn.runtime import reference
from qspinn.spikes import Spikes, from_dense

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Ints = NDArray[np.int64]
ROUNDINGS = tuple(Rounding)


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """Recipe of one population of a random program; its tensors are drawn from the recipe's seed."""

    n: int = 5
    v_bits: int = 8
    v_signed: bool = False
    w_bits: int = 4
    w_signed: bool = False
    decay_shift: int = 4
    shift_bias: int = 0
    rounding: Rounding = Rounding.NEAREST
    per_neuron: bool = False
    theta: bool = False
    n_ref: int = 0
    winner: bool = True
    inhibition: bool = True


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """A random program and its input in words; `build` makes them. Small, so that Hypothesis can shrink it."""

    seed: int = 0
    n_inputs: int = 6
    n_steps: int = 12
    n_samples: int = 2
    density: float = 0.4
    select: bool = False
    layers: tuple[Layer, ...] = (Layer(),)


class Case(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A program with an input, and the conditions (see `observed`) that running it must meet."""

    name: str
    program: Program
    spikes: Spikes
    hits: frozenset[str] = frozenset()


def codes(values: ArrayLike, fmt: QFormat) -> CodeTensor:
    """A tensor of codes.

    Raises:
        ValueError: a value is outside fmt.
    """
    array = np.atleast_1d(np.asarray(values, dtype=np.int64))
    if array.size and (array.min() < fmt.code_min or array.max() > fmt.code_max):
        raise ValueError(f"codes {array.min()}..{array.max()} do not fit {fmt}")
    return CodeTensor(codes=array.astype(np.int32), fmt=fmt)


def random_recipe(rng: np.random.Generator, *, signed_weights: bool = True) -> Recipe:
    """A recipe with every switch drawn at random: 1 to 3 populations, 1 to 16 bits everywhere."""

    def yes(p: float = 0.5) -> bool:
        return bool(rng.random() < p)

    def layer() -> Layer:
        signed = yes(0.4)
        return Layer(
            n=int(rng.choice([rng.integers(1, 36), rng.integers(500, 600)], p=[0.93, 0.07])),
            v_bits=int(rng.integers(2 if signed else 1, 17)),
            v_signed=signed,
            w_bits=int(rng.integers(2, 17)) if signed or yes(0.75) else 1,
            w_signed=signed_weights and signed and yes(),
            decay_shift=int(rng.integers(0, 17)),
            shift_bias=int(rng.integers(-3, 3)),
            rounding=ROUNDINGS[rng.integers(4)],
            per_neuron=yes(),
            theta=yes(),
            n_ref=int(rng.integers(0, 5)),
            winner=yes(0.7),
            inhibition=yes(0.7),
        )

    return Recipe(
        seed=int(rng.integers(1 << 32)),
        n_inputs=int(rng.integers(1, 40)),
        n_steps=int(rng.integers(1, 24)),
        n_samples=int(rng.integers(1, 5)),
        density=float(rng.choice([0.05, 0.3, 0.7, 1.0])),
        select=yes(0.3),
        layers=tuple(layer() for _ in range(rng.integers(1, 4))),
    )


def recipes() -> SearchStrategy[Recipe]:
    """Hypothesis strategy of recipes (needs hypothesis)."""
    from hypothesis import strategies as st

    bit = st.booleans()
    layer = st.builds(
        Layer,
        n=st.integers(1, 40),
        v_bits=st.integers(2, 16),
        v_signed=bit,
        w_bits=st.integers(1, 16),
        decay_shift=st.integers(0, 16),
        shift_bias=st.integers(-3, 3),
        rounding=st.sampled_from(ROUNDINGS),
        per_neuron=bit,
        theta=bit,
        n_ref=st.integers(0, 4),
        winner=bit,
        inhibition=bit,
        w_signed=st.just(False),
    )
    return st.builds(
        Recipe,
        seed=st.integers(0, (1 << 32) - 1),
        n_inputs=st.integers(1, 40),
        n_steps=st.integers(1, 24),
        n_samples=st.integers(1, 4),
        density=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
        select=bit,
        layers=st.lists(layer, min_size=1, max_size=3).map(tuple),
    )


def build(recipe: Recipe) -> Case:
    """The program and the input of a recipe; every accumulator stays within the 32 bits that lowering proves."""
    rng = np.random.default_rng(recipe.seed)
    raster = rng.random((recipe.n_steps, recipe.n_samples, recipe.n_inputs)) < recipe.density
    raster &= rng.random((recipe.n_steps, recipe.n_samples, 1)) < 0.9  # some steps stay empty
    tensors: dict[str, CodeTensor] = {}
    ops: list[Op] = [PoissonOp(per_level=1 << 20, seed=recipe.seed)]
    sizes = {"input": recipe.n_inputs}
    if recipe.select:
        kept = rng.random(recipe.n_inputs) < 0.7
        kept[rng.integers(recipe.n_inputs)] = True
        tensors["input.kept"] = codes(kept, QFormat(bits=1))
        ops.append(SelectOp(source="input", target="kept", kept="input.kept"))
        sizes = {"kept": int(kept.sum())}
    for number, layer in enumerate(recipe.layers):
        name, source = f"p{number}", str(rng.choice(list(sizes)))
        new, op = _random_population(rng, layer, name, sizes[source], number)
        tensors |= new
        ops += [DenseOp(source=source, target=name, weight=f"{name}.w"), op]
        sizes[name] = layer.n
    bits = int(rng.integers(1, 17))
    tensors["readout.votes"] = codes(rng.integers(0, 1 << bits, (recipe.layers[-1].n, 3)), QFormat(bits=bits))
    ops.append(VoteOp(source=name, votes="readout.votes"))
    program = Program(
        name="random",
        n_inputs=recipe.n_inputs,
        n_steps=recipe.n_steps,
        seed=recipe.seed,
        ops=tuple(ops),
        tensors=tensors,
        labels=("a", "b", "c"),
    )
    return Case(name=str(recipe), program=program, spikes=from_dense(raster))


def random_case(seed: int, *, signed_weights: bool = True) -> Case:
    """A random program and input, by seed."""
    case = build(random_recipe(np.random.default_rng([seed, 7]), signed_weights=signed_weights))
    return Case(name=f"random_case({seed})", program=case.program, spikes=case.spikes)


def _random_population(
    rng: np.random.Generator, layer: Layer, name: str, n_pre: int, number: int
) -> tuple[dict[str, CodeTensor], LifOp]:
    """Tensors and operation of one population, with drive, thresholds and inhibition of comparable size."""
    v_fmt = QFormat(bits=layer.v_bits, signed=layer.v_signed)
    w_fmt = QFormat(bits=layer.w_bits, signed=layer.w_signed)
    w = rng.integers(w_fmt.code_min, w_fmt.code_max + 1, (layer.n, n_pre))
    drive = 0.2 * w_fmt.code_max * n_pre / max(v_fmt.code_max, 1)
    in_shift = int(np.clip(np.ceil(np.log2(max(drive, 1e-9))) + layer.shift_bias, -6, 16))
    decay_shift = min(layer.decay_shift, 15 if layer.v_signed else 16)
    size = layer.n if layer.per_neuron else 1
    v_min = int(rng.integers(v_fmt.code_min, 1))

    def level(share: float, least: int) -> tuple[CodeTensor, int]:
        """A potential up to a share of the range, at a width and shift of its own; at least one code can be reached."""
        bits, shift = int(rng.integers(1, 17)), int(rng.integers(0, 4))
        shift = min(shift, v_fmt.code_max.bit_length() - 1)
        top = min((1 << bits) - 1, max(int(share * v_fmt.code_max) >> shift, least))
        return codes(rng.integers(least, top + 1, size), QFormat(bits=bits, frac=-shift)), shift

    decay_fmt = QFormat(bits=max(decay_shift, 1), frac=decay_shift)
    tensors = {
        f"{name}.w": codes(w, w_fmt),
        f"{name}.decay": codes(decay_fmt.code_max - rng.integers(0, decay_fmt.code_max // 4 + 1), decay_fmt),
        f"{name}.v_reset": codes(rng.integers(v_min, v_fmt.code_max // 4 + 1, size), v_fmt),
    }
    shifts = {}
    for kind, share in (("v_th", 0.7), ("theta", 0.3), ("inhibition", 0.6)):
        if kind == "v_th" or getattr(layer, kind):
            tensors[f"{name}.{kind}"], shifts[kind] = level(share, int(kind == "v_th"))
    return tensors, LifOp(
        name=name,
        n=layer.n,
        v_fmt=v_fmt,
        v_min=v_min,
        rounding=layer.rounding,
        leak=Leak(decay=f"{name}.decay", shift=decay_shift),
        input=InputShift(shift=in_shift),
        threshold=Threshold(tensor=f"{name}.v_th", shift=shifts["v_th"]),
        reset=Reset(tensor=f"{name}.v_reset"),
        n_ref=layer.n_ref,
        winner=layer.winner,
        stream=16 * (number + 1),
        theta=Offset(tensor=f"{name}.theta", shift=shifts["theta"]) if layer.theta else None,
        inhibition=Inhibition(tensor=f"{name}.inhibition", shift=shifts["inhibition"]) if layer.inhibition else None,
    )


def single(
    w: ArrayLike,
    *,
    v_bits: int = 8,
    signed: bool = False,
    w_bits: int = 8,
    v_min: int = 0,
    in_shift: int = 0,
    decay: ArrayLike = 1,
    decay_shift: int = 0,
    rounding: Rounding = Rounding.NEAREST,
    v_th: ArrayLike = 10,
    v_reset: ArrayLike = 0,
    n_ref: int = 0,
    winner: bool = True,
    inhibition: int | None = None,
    seed: int = 3,
    n_steps: int = 16,
) -> Program:
    """A program of one population with weights w [N, n_inputs]; without leak unless told otherwise."""
    weights = np.atleast_2d(np.asarray(w))
    v_fmt = QFormat(bits=v_bits, signed=signed)
    decay_fmt = QFormat(bits=max(decay_shift, 1), frac=decay_shift)
    tensors = {
        "p0.w": codes(weights, QFormat(bits=w_bits, signed=bool(weights.min() < 0))),
        "p0.decay": codes(decay, decay_fmt),
        "p0.v_th": codes(v_th, QFormat(bits=17)),
        "p0.v_reset": codes(v_reset, v_fmt),
        "readout.votes": codes(np.eye(len(weights), 2), QFormat(bits=1)),
    }
    if inhibition is not None:
        tensors["p0.inhibition"] = codes(inhibition, QFormat(bits=16))
    lif = LifOp(
        name="p0",
        n=len(weights),
        v_fmt=v_fmt,
        v_min=v_min,
        rounding=rounding,
        leak=Leak(decay="p0.decay", shift=decay_shift),
        input=InputShift(shift=in_shift),
        threshold=Threshold(tensor="p0.v_th"),
        reset=Reset(tensor="p0.v_reset"),
        n_ref=n_ref,
        winner=winner,
        stream=16,
        inhibition=None if inhibition is None else Inhibition(tensor="p0.inhibition"),
    )
    ops = (
        PoissonOp(per_level=1, seed=seed),
        DenseOp(source="input", target="p0", weight="p0.w"),
        lif,
        VoteOp(source="p0", votes="readout.votes"),
    )
    return Program(name="single", n_inputs=weights.shape[1], n_steps=n_steps, seed=seed, ops=ops, tensors=tensors)


def constant(n_inputs: int, n_steps: int = 16, n_samples: int = 2) -> Spikes:
    """Every input spikes at every step."""
    return from_dense(np.ones((n_steps, n_samples, n_inputs)))


def adversarial() -> Iterator[Case]:
    """Hand-built vectors, each under the four roundings where rounding takes part, with the conditions it must hit."""
    for rounding in ROUNDINGS:
        for case in _rounded(rounding):
            yield Case(name=f"{case.name}, {rounding.value}", program=case.program, spikes=case.spikes, hits=case.hits)
    yield from _edges()


def _rounded(rounding: Rounding) -> Iterator[Case]:
    """Vectors in which something is shifted to the right."""
    rng = np.random.default_rng(11)
    sparse = from_dense(rng.random((40, 3, 4)) < 0.5)

    def case(name: str, hits: str, spikes: Spikes, w: ArrayLike, **settings: object) -> Case:
        program = single(w, rounding=rounding, n_steps=spikes.n_steps, **settings)  # type: ignore[arg-type]
        return Case(name=name, program=program, spikes=spikes, hits=frozenset(hits.split()))

    yield case("ties of the leak", "tie", sparse, [[3, 5, 7, 2]] * 3, decay=3, decay_shift=2, v_th=200)
    yield case("ties of the input", "tie", sparse, [[1, 3, 2, 5]] * 2, in_shift=1, v_th=30)
    yield case(
        "negative ties and remainders",
        "negative_remainder negative_tie lower equal",
        sparse,
        [[-3, 5, -7, 2], [3, -5, 7, -2]],
        signed=True,
        v_min=-5,
        decay=3,
        decay_shift=2,
        in_shift=1,
        v_th=[2, 3],
        winner=False,
    )
    yield case(
        "negative potentials only leak",
        "negative_remainder",
        sparse,
        [[-1, -2, -9, -4]] * 2,
        signed=True,
        v_min=-128,
        decay=7,
        decay_shift=3,
        v_th=9,
    )
    for winner in (True, False):
        yield case(
            f"leaks of neurons, winner={winner}",
            "tie",
            sparse,
            [[3, 5, 7, 2]] * 3,
            decay=[3, 1, 2],
            decay_shift=2,
            v_th=[20, 9, 12],
            winner=winner,
            inhibition=2,
        )
    for bits in (8, 15, 16):  # just below, at and above what 16-bit lanes hold
        w = (1 << bits) // 4 - 1
        yield case(
            f"upper end of {bits} bits",
            "upper equal crowd ends",
            sparse,
            [[w, w, w, w]] * 5,
            v_bits=bits,
            w_bits=16,
            decay=65535,
            decay_shift=16,
            v_th=(1 << bits) - 1,
            inhibition=1,
        )
    full = constant(3, 4)
    for s in (1, 2, 5):  # the largest sums that a 32-bit product at the common shift of 16 can take
        top, rest = 65535, (1 << (16 + s)) - 1
        row = [min(top, rest - at) for at in range(0, rest, top)]
        yield case(
            f"input sum 2**{16 + s} - 1",
            "upper equal",
            constant(len(row), 4),
            [row] * 2,
            v_bits=16,
            w_bits=16,
            in_shift=s,
            v_th=65535,
        )
    yield case("inputs shifted out", "empty_current", full, [[1, 1, 1]], in_shift=16, v_th=1, decay_shift=16, decay=9)


def _edges() -> Iterator[Case]:
    """Vectors of comparison, refractoriness, competition and bounds."""
    rng = np.random.default_rng(12)
    noisy = from_dense(rng.random((30, 4, 3)) < 0.4)
    full = constant(3)

    def case(name: str, hits: str, spikes: Spikes, w: ArrayLike, **settings: object) -> Case:
        program = single(w, n_steps=spikes.n_steps, **settings)  # type: ignore[arg-type]
        return Case(name=name, program=program, spikes=spikes, hits=frozenset(hits.split()))

    for winner in (True, False):
        end = f", winner={winner}"
        crowd = " crowd" if winner else ""
        joint = "" if winner else " joint"
        yield case(f"v equals v_th{end}", "equal", full, [[1, 2, 2]], v_th=10, winner=winner)
        yield case(
            f"one v_th above v_max{end}", "unreachable upper", full, [[90, 90, 90]] * 2, v_th=[300, 255], winner=winner
        )
        for bits in (8, 15, 16):
            top = (1 << bits) - 1
            yield case(
                f"v_th at and just above {bits}-bit v_max{end}",
                "unreachable upper",
                full,
                [[top // 3] * 3] * 3,
                v_bits=bits,
                w_bits=16,
                v_th=[top + 1, top, top + 1],
                winner=winner,
            )
        yield case(f"v_th = 1{end}", "equal" + crowd, noisy, [[1, 0, 2]] * 4, v_th=1, n_ref=1, winner=winner)
        yield case(
            f"one bit{end}", "upper equal", noisy, [[1, 1, 0], [0, 1, 1]], v_bits=1, w_bits=1, v_th=1, winner=winner
        )
        for n_ref in (0, 1, 2, 4):
            hits = "refractory_edge" + (" refractory_drive" if n_ref else "")
            yield case(f"n_ref {n_ref}{end}", hits, full, [[5, 5, 5]], v_th=12, n_ref=n_ref, winner=winner)
        yield case(
            f"inhibition clears{end}",
            "lower ends" + crowd + joint,
            noisy,
            [[7, 6, 5]] * 4,
            v_th=12,
            inhibition=4000,
            v_reset=3,
            winner=winner,
        )
        yield case(
            f"inhibition subtracts{end}",
            "lower ends" + crowd + joint,
            noisy,
            [[7, 6, 5]] * 4,
            v_th=12,
            inhibition=5,
            v_reset=6,
            n_ref=1,
            winner=winner,
        )
        yield case(
            f"inhibition to negative v_min{end}",
            "lower ends" + crowd + joint,
            noisy,
            [[7, 6, 5]] * 4,
            signed=True,
            v_min=-9,
            v_th=12,
            inhibition=5,
            v_reset=-3,
            n_ref=2,
            winner=winner,
        )
        yield case(
            f"empty steps{end}",
            "empty_step",
            from_dense(rng.random((20, 3, 3)) < 0.05),
            [[9, 9, 9]] * 2,
            decay=15,
            decay_shift=4,
            v_th=12,
            winner=winner,
        )
        yield case(f"no spikes at all{end}", "empty_step", from_dense(np.zeros((5, 2, 3))), [[9, 9, 9]], winner=winner)
        yield case(
            f"last step spikes{end}", "equal last_step", constant(3, 4), [[1, 1, 1]], v_th=12, n_ref=3, winner=winner
        )
    for bits in (15, 16):  # small codes whose sum needs more than 16 bits
        yield case(
            f"many inputs into {bits} bits",
            "upper equal",
            constant(250, 4),
            [[255] * 250] * 2,
            v_bits=bits,
            v_th=(1 << bits) - 1,
        )
    for n in (62, 63, 64):  # counts of one-bit weights around a power of two, in more neurons than one register row
        yield case(
            f"{n} one-bit inputs",
            "upper equal crowd",
            constant(n, 12, 1),
            np.ones((530, n), int),
            w_bits=1,
            v_bits=15,
            in_shift=-8,
            decay=7,
            decay_shift=3,
            v_th=np.arange(530) % 5 * 8000 + 767,
            n_ref=2,
            inhibition=9,
        )
    yield case("one-bit weights without leak", "equal crowd", noisy, [[1, 1, 0], [1, 1, 1]] * 3, w_bits=1, v_th=7)
    yield case("a wide crowd", "crowd ends", constant(1, 200, 3), [[4]] * 33, v_th=np.full(33, 4), n_ref=1)
    yield case("one winner among thresholds", "crowd", full, [[4, 4, 4]] * 5, v_th=[300, 5, 9, 11, 200], n_ref=2)
    yield case("signed upper end", "upper equal", full, [[50, 50, 9]], signed=True, v_min=-128, v_th=127)


def observed(program: Program, spikes: Spikes) -> frozenset[str]:
    """The names of the conditions that running the program on the reference meets, over all samples and steps.

    equal, upper, lower, tie, negative_remainder, negative_tie, refractory_edge (two spikes n_ref + 1 steps apart),
    refractory_drive (kept silent only by n_ref), crowd (several cross, one wins), joint (several spike and inhibit one
    another), ends (first and last neuron spike), empty_step, empty_current (input rounded to nothing), unreachable,
    last_step.
    """
    raster = spikes.dense()
    state = reference.init(program, spikes.n_samples)
    rasters: dict[str, list[Ints]] = {op.name: [] for op in program.ops_of(LifOp)}
    found: set[str] = set()
    for t in range(spikes.n_steps):
        old = state
        state, fired = reference.step(program, state, t, raster[t])
        signals = {"input": raster[t].astype(np.int64), **fired}
        for select in program.ops_of(SelectOp):
            signals[select.target] = signals[select.source][:, program.codes(select.kept) == 1]
        found |= {"empty_step"} if (raster[t].sum(axis=1) == 0).any() else set()
        for dense in program.ops_of(DenseOp):
            op = next(o for o in program.ops_of(LifOp) if o.name == dense.target)
            current = signals[dense.source] @ program.codes(dense.weight).astype(np.int64).T
            found |= _met(program, op, t, old[op.name], current, fired[op.name])
            rasters[op.name].append(fired[op.name])
    for op in program.ops_of(LifOp):
        found |= _met_over_time(np.stack(rasters[op.name]), op.n_ref)
    return frozenset(found)


def _met(program: Program, op: LifOp, t: int, old: dict[str, Ints], current: Ints, fired: Ints) -> set[str]:
    """Conditions that one population meets in one step."""
    product, neurons = old["v"] * decays(program, op), np.arange(op.n)

    def rounded(x: Ints, shift: int, stream: Stream) -> Ints:
        return requantize(
            x,
            shift,
            op.rounding,
            key=stream_key(program.seed, op.stream + stream, t),
            index=np.broadcast_to(neurons, x.shape),
        )

    drive = rounded(current, op.input.shift, Stream.INPUT)
    v = rounded(product, op.leak.shift, Stream.DECAY) + drive
    active, level = old["ref"] == 0, np.broadcast_to(thresholds(program, op), v.shape)
    fed = np.clip(v, op.v_min, op.v_fmt.code_max)
    crossing, others = active & (fed >= level), fired.sum(axis=1, keepdims=True) - fired
    rests = [(x, x & ((1 << s) - 1), s) for x, s in ((product, op.leak.shift), (current, op.input.shift)) if s > 0]
    met = {
        "equal": active & (fed == level),
        "upper": active & (v > op.v_fmt.code_max),
        "lower": active & (v < op.v_min),
        "tie": np.array([((x > 0) & (r == 1 << (s - 1))).any() for x, r, s in rests]),
        "negative_tie": np.array([((x < 0) & (r == 1 << (s - 1))).any() for x, r, s in rests]),
        "negative_remainder": np.array([((x < 0) & (r != 0)).any() for x, r, s in rests]),
        "refractory_drive": ~active & (fed >= level),
        "crowd": crossing.sum(axis=1) > 1 if op.winner else np.zeros(1, bool),
        "unreachable": level > op.v_fmt.code_max,
        "empty_current": (current > 0) & (drive == 0),
    }
    if op.inhibition is not None:
        strength = inhibitions(program, op)
        after = np.where(fired == 1, program.codes(op.reset.tensor), fed)
        met["lower"] = met["lower"] | ((others > 0) & (after - others * strength < op.v_min))
        met["joint"] = (fired == 1) & (others > 0)
    return {name for name, where in met.items() if where.any()}


def _met_over_time(raster: Ints, n_ref: int) -> set[str]:
    """Conditions on the raster [T, B, N] of a population."""
    gap = n_ref + 1
    met = {
        "refractory_edge": (raster[gap:] & raster[:-gap]).any(),
        "last_step": raster[-1].any(),
        "ends": raster[..., 0].any() and raster[..., -1].any() and raster.shape[2] > 1,
    }
    return {name for name, yes in met.items() if yes}
