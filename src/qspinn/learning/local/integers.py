"""Local learning in integers only: what `floats` does, on the grid of `formats`, bit for bit repeatable.

Between input spikes and new weights there are integer arrays, shifts, integer multiplications and two small tables
(the sigmoid and its slope). One step of one layer, all codes as in `formats` and `round` by the plan:

    P <- sat(round((alpha P 2^a + gain Q 2^b) >> 8 + a)); Q <- sat(round(beta Q >> 8) + jump S_in)
    U = sat(round((sum P W + (b << b_shift) - (R << r_shift)) >> u_shift)); S = [U >= 0]
    R <- sat(round(gamma R >> 8) + 2^r_bits S)
    r = sat(round(sum G sigmoid[max-pool U] >> read_shift)); e = sat(round(r - one-hot))
    dU = sat(round(((H' e) slope[U] + push [U >= 0] - pull slope[U] [few active]) >> e_shift))
    g = sum over batch, places of dU P;  W <- sat(W - round(rate (g / 2^k * 2^16) >> rate_shift))

2^k is the power of two nearest to the largest |g| of the layer (biases have their own), and e_shift brings the power of
two nearest to the largest error *of the step before* to the top of the error's format: so no error need be stored
wider than its format until the largest of the batch is known. The random word of weight i of layer l at update n is
`fixedpoint.random_words(stream_key(seed, STREAM + l, n), i)`, i counting [C_out, k, k, C_in] and then the biases.
Sums of integers do not depend on their order, so any number of threads gives the same weights.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from qspinn.compiled.products import PAIRED, PLACES
from qspinn.compiled.scalars import MODE
from qspinn.compiled.threads import in_parts
from qspinn.compiled.vectors import INTS, aligned
from qspinn.fixedpoint import Rounding, stream_key
from qspinn.learning.local.formats import DECAY_BITS, LayerGrid, grid_of, local_rules
from qspinn.learning.local.kernels import step as kernels
from qspinn.learning.local.kernels import update as updates
from qspinn.learning.local.settings import LocalLearning
from qspinn.learning.local.start import LayerStart, need_labels, need_raster
from qspinn.networks.layered import Shape
from qspinn.networks.local import LocalNetwork
from qspinn.quantization.plan import QuantPlan

STREAM = 512
"""First random stream of local learning: layer l draws the rounding of its updates from STREAM + l."""
NEVER = -(1 << 30)
"""Bias of channels that only fill a register up."""


class IntegerLayers:
    """The layers in integers; `learn` trains them in place.

    Args:
        n_threads: 0 for all cores; results do not depend on it.
    """

    def __init__(
        self,
        network: LocalNetwork,
        learning: LocalLearning,
        start: tuple[LayerStart, ...],
        plan: QuantPlan,
        *,
        seed: int = 0,
        n_threads: int = 0,
    ) -> None:
        rules = local_rules(plan, [layer.size.name for layer in start])
        self.learning, self.seed, self.n_updates = learning, seed, 0
        self.n_threads = n_threads or os.cpu_count() or 1
        self.layers = [_Layer(grid_of(layer, network, learning, rules), network.bias) for layer in start]

    @property
    def fits(self) -> tuple[Shape, int]:
        """Shape (channels, height, width) of the recordings, and number of classes, that the layers were made for."""
        grid = self.layers[0].grid
        return grid.size.source, len(grid.readout)

    def learn(self, raster: NDArray[np.uint8], labels: NDArray[np.int64], epoch: int) -> None:
        """Trains on a batch: raster uint8 [T, B, y, x, C] of 0 and 1, labels [B]; one update per step."""
        halvings = self.learning.halvings(epoch)
        wanted = need_labels(labels, raster, self.fits[1])
        spikes = self._begin(raster)
        for t in range(len(raster)):
            learns = t >= self.learning.burn_in
            self._step(spikes, t, wanted, learns)
            if learns:
                keys = [stream_key(self.seed, STREAM + number, self.n_updates) for number in range(len(self.layers))]

                def update(first: int, last: int, keys: list[int] = keys) -> None:
                    for layer, key in zip(self.layers[first:last], keys[first:last], strict=True):
                        layer.update(key, halvings)

                in_parts(update, len(self.layers), len(self.layers), self.n_threads)
                self.n_updates += 1

    def readouts(self, raster: NDArray[np.uint8]) -> tuple[NDArray[np.int64], int]:
        """Codes of the last layer's read-out at every step [T, B, n_classes], and spikes of all layers after
        pooling."""
        spikes, labels = self._begin(raster), np.zeros(raster.shape[1], np.int64)
        values, n_spikes = [], 0
        for t in range(len(raster)):
            self._step(spikes, t, labels, False)
            values.append(self.layers[-1].readouts.astype(np.int64))
            n_spikes += sum(layer.n_spikes() for layer in self.layers)
        return np.stack(values), n_spikes

    def _begin(self, raster: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Input spikes with filled-up rows, flat; all states at rest."""
        need_raster(raster, self.fits[0])
        n_steps, batch = raster.shape[:2]
        for layer in self.layers:
            layer.rest(batch, min(self.n_threads, batch))
        size = self.layers[0].sizes
        filled = np.zeros((n_steps, batch, size.in_sample), np.uint8)
        rows = filled[:, :, : size.height * size.in_row].reshape(n_steps, batch, size.height, size.in_row)
        rows[..., : size.width * size.c_in] = raster.reshape(*rows.shape[:3], -1)
        return filled.reshape(-1)

    def _step(self, spikes: NDArray[np.uint8], t: int, labels: NDArray[np.int64], learns: bool) -> None:
        """All layers of all samples, one step on; a thread takes some samples through all layers."""
        batch, n_parts = len(labels), min(self.n_threads, len(labels))

        def part(start: int, stop: int) -> None:
            source, at = spikes, t * batch * self.layers[0].sizes.in_sample
            number = -(-start * n_parts // batch)
            for layer in self.layers:
                layer.advance(source, at, labels, learns, number, start, stop)
                source, at = layer.out, 0

        in_parts(part, batch, n_parts, self.n_threads)

    def state(self) -> dict[str, NDArray]:
        """Every array that learning changes, integers throughout."""
        arrays: dict[str, NDArray] = {"n_updates": np.array([self.n_updates])}
        for layer in self.layers:
            arrays |= {
                f"{layer.name}.w": layer.weights(),
                f"{layer.name}.b": layer.learned[layer.n_weights :].copy(),
                f"{layer.name}.e_exponent": np.array([layer.e_exponent]),
            }
        return arrays

    def put_back(self, state: dict[str, NDArray]) -> None:
        """Goes on from what `state` returned."""
        self.n_updates = int(state["n_updates"][0])
        for layer in self.layers:
            layer.learned[: layer.n_weights] = state[f"{layer.name}.w"].transpose(0, 2, 3, 1).ravel()
            layer.learned[layer.n_weights :] = state[f"{layer.name}.b"]
            layer.e_exponent = int(state[f"{layer.name}.e_exponent"][0])
            layer.repack()


class _Layer:
    """One layer: constants, learned codes [C_out, k, k, C_in] then biases, and states of a batch."""

    def __init__(self, grid: LayerGrid, bias: bool) -> None:
        self.grid, self.bias_learns, self.name = grid, bias, grid.size.name
        self.sizes, self.numbers = sizes_of_kernel(grid), numbers_of_kernel(grid)
        size, c_out = self.sizes, self.sizes.c_out
        self.n_weights = grid.size.n_weights
        self.learned = np.concatenate([grid.learned.ravel(), np.zeros(c_out, np.int64)]).astype(np.int16)
        self.w = aligned((size.kernel * size.pairs * size.wide * 2,), np.int16)
        self.b = np.full(size.wide, NEVER, np.int32)
        self.tables = tables_of_kernel(grid, size)
        index = np.arange(self.n_weights)
        c, rest = np.divmod(index, size.kernel * size.run)
        k, j = np.divmod(rest, size.run)
        self.place = (((k * size.pairs + j // 2) * size.wide + c) * 2 + j % 2).astype(np.int32)
        inverse = np.argsort(PLACES)
        strip = (c * size.kernel + k) * size.strips + j // PAIRED
        self.order = (strip * PAIRED + inverse[j % PAIRED]).astype(np.int32)
        self.b_order = np.arange(c_out, dtype=np.int32)
        self.steps = np.zeros(max(self.n_weights, c_out), np.int32)
        self.e_exponent = grid.bits["error"] - 1
        self.rooms: list[tuple] = []
        self.repack()

    def repack(self) -> None:
        """Forward codes of the learned weights."""
        grid = self.grid
        shift = grid.bits["gradient"] - grid.bits["w"]
        updates.forward_codes(
            self.learned[: self.n_weights], shift, grid.half("w", shift), grid.top("w"), self.place, self.w
        )
        biases = np.zeros(self.sizes.c_out, np.int32)
        updates.forward_codes(
            self.learned[self.n_weights :], shift, grid.half("w", shift), grid.top("w"), self.b_order, biases
        )
        self.b[: len(biases)] = biases << grid.b_shift

    def rest(self, batch: int, parts: int) -> None:
        """States at the start of a recording, and room to work in."""
        size, n_classes = self.sizes, len(self.grid.readout)
        n_q, n_p, n_r = size.in_sample, size.p_sample, size.rows * size.cols * size.wide
        self.state = (
            np.zeros(batch * n_q, np.int16),
            np.zeros(batch * n_p + 2 * PAIRED, np.int16),
            np.zeros(batch * n_r, np.uint8),
        )
        self.out = np.zeros(batch * size.out_sample, np.uint8)
        self.readouts = np.zeros((batch, n_classes), np.int16)
        self.top = np.zeros(parts, np.int64)
        if len(self.rooms) != parts:
            self.rooms = [room_of_kernel(size, n_classes) for _ in range(parts)]
            blocks = (parts, size.c_out, size.kernel, size.strips * PAIRED)
            self.grads = (
                np.zeros(blocks, np.int32),
                np.zeros(blocks, np.int64),
                np.zeros((parts, size.c_out), np.int64),
            )

    def advance(
        self,
        spikes: NDArray[np.uint8],
        at: int,
        labels: NDArray[np.int64],
        learns: bool,
        part: int,
        start: int,
        stop: int,
    ) -> None:
        """One step of samples start..stop, on gradients of their own."""
        e_shift = max(0, self.e_exponent - (self.grid.bits["error"] - 1))
        kernels.advance(
            self.sizes,
            self.numbers,
            self.tables,
            self.w,
            self.b,
            self.state,
            spikes,
            at,
            self.out,
            self.rooms[part],
            self.readouts,
            labels,
            learns,
            e_shift,
            self.top,
            self.grads,
            part,
            start,
            stop,
        )

    def update(self, key: int, halvings: int) -> None:
        """New weights from the gradients of all parts, which are then cleared."""
        grid, (_, total, total_bias) = self.grid, self.grads
        rounding = grid.rounding["gradient"]
        options = (
            self.steps,
            grid.top("gradient"),
            grid.rate,
            min(grid.rate_shift + halvings, 30),
            MODE[rounding],
            np.uint32(key),
        )
        updates.update(total.reshape(len(total), -1), self.order, *options, 0, self.learned[: self.n_weights])
        if self.bias_learns:
            updates.update(total_bias, self.b_order, *options, self.n_weights, self.learned[self.n_weights :])
        total[:], total_bias[:] = 0, 0
        largest = int(self.top.max())
        if largest > 0:
            self.e_exponent = int(updates.power_of(largest))
        self.top[:] = 0
        self.repack()

    def n_spikes(self) -> int:
        """Spikes of the batch in this step, after pooling."""
        size = self.sizes
        rows = self.out.reshape(-1, size.out_sample)[:, : size.p_rows * size.out_row].reshape(-1, size.out_row)
        return int(rows[:, : size.p_cols * size.c_out].sum())

    def weights(self) -> NDArray[np.int16]:
        """Learned codes [C_out, C_in, k, k]."""
        size = self.sizes
        shape = (size.c_out, size.kernel, size.kernel, size.c_in)
        return np.ascontiguousarray(self.learned[: self.n_weights].reshape(shape).transpose(0, 3, 1, 2))


def sizes_of_kernel(grid: LayerGrid) -> kernels.Sizes:
    """The geometry of a layer as the kernels take it."""
    layer, (c_in, height, width), (c_out, rows, cols) = grid.size.layer, grid.size.source, grid.size.target
    _, p_rows, p_cols = grid.size.pooled
    in_row, run, wide = _up(width * c_in, INTS), layer.kernel * c_in, _up(c_out, INTS)
    line, out_row = (width + 2 * layer.padding) * c_in + INTS, _up(p_cols * c_out, INTS)
    return kernels.Sizes(
        c_in=c_in,
        height=height,
        width=width,
        in_row=in_row,
        in_sample=height * in_row + INTS,
        pad=layer.padding,
        line=line,
        p_sample=(height + 2 * layer.padding) * line,
        kernel=layer.kernel,
        stride=layer.stride,
        run=run,
        pairs=-(-run // 2),
        strips=-(-run // PAIRED),
        c_out=c_out,
        wide=wide,
        rows=rows,
        cols=cols,
        pool=layer.pool,
        p_rows=p_rows,
        p_cols=p_cols,
        n_wide=_up(p_rows * p_cols * wide, 2 * PAIRED),
        out_row=out_row,
        out_sample=p_rows * out_row + INTS,
    )


def _up(n: int, to: int) -> int:
    """n filled up to a multiple."""
    return -(-n // to) * to


def numbers_of_kernel(grid: LayerGrid) -> kernels.Numbers:
    """The arithmetic of a layer as the kernels take it."""
    bits = grid.bits
    q_up, p_up = max(0, bits["p_trace"] - bits["q_trace"]), max(0, bits["q_trace"] - bits["p_trace"])
    p_shift = DECAY_BITS + p_up
    e_down = max(0, bits["read"] - bits["error"])
    n_outputs = grid.size.n_outputs
    return kernels.Numbers(
        p_up=1 << p_up,
        q_up=1 << q_up,
        p_shift=p_shift,
        p_half=grid.half("p_trace", p_shift),
        p_max=grid.top("p_trace"),
        q_half=grid.half("q_trace", DECAY_BITS),
        q_max=grid.top("q_trace"),
        r_decay=grid.r_decay,
        r_half=grid.half("r", DECAY_BITS),
        r_unit=1 << bits["r"],
        r_max=grid.top("r"),
        r_shift=grid.r_shift,
        u_shift=grid.u_shift,
        u_half=grid.half("u", grid.u_shift),
        u_max=grid.top("u"),
        read_shift=grid.read_shift,
        read_half=grid.half("read", grid.read_shift),
        read_max=grid.top("read"),
        one=grid.top("read"),
        e_down=e_down,
        e_half=grid.half("error", e_down),
        e_up=max(0, bits["error"] - bits["read"]),
        e_max=grid.top("error"),
        e_rounds=int(grid.rounding["error"] is Rounding.NEAREST),
        push=grid.push,
        pull=grid.pull,
        least=-(-(n_outputs << bits["activation"]) // 10),
        p_one=1 << bits["p_trace"],
        n_safe=(1 << 30) // ((grid.size.pooled[1] * grid.size.pooled[2] + 1) * grid.top("error") * grid.top("p_trace")),
    )


def tables_of_kernel(grid: LayerGrid, size: kernels.Sizes) -> tuple[NDArray, ...]:
    """Decays by place in a row, and the tables and matrices of the read-out, filled up with zeros."""

    def by_place(codes: NDArray[np.int64]) -> NDArray[np.int32]:
        row = np.zeros(size.in_row, np.int32)
        row[: size.width * size.c_in] = np.tile(codes, size.width)
        return row

    def matrix(codes: NDArray[np.int64]) -> NDArray[np.int16]:
        filled = np.zeros((len(codes), size.p_rows * size.p_cols, size.wide), np.int16)
        filled[:, :, : size.c_out] = codes.reshape(len(codes), -1, size.c_out)
        whole = aligned((len(codes), size.n_wide), np.int16)
        whole[:, : filled[0].size] = filled.reshape(len(codes), -1)
        return whole

    rows = (by_place(x) for x in (grid.alpha, grid.gain, grid.beta, grid.jump))
    return (
        *rows,
        grid.activity.astype(np.int16),
        grid.slope.astype(np.int16),
        matrix(grid.readout),
        matrix(grid.feedback),
    )


def room_of_kernel(size: kernels.Sizes, n_classes: int) -> tuple[NDArray, ...]:
    """Room for one sample: sums, U, pooled U, sigmoid, slope, errors, places, errors of classes, lists by channel."""
    per_channel = size.p_rows * size.p_cols + 2
    return (
        np.zeros(size.cols * size.wide, np.int32),
        np.zeros(size.rows * size.cols * size.wide, np.int16),
        np.full(size.n_wide, -1, np.int16),
        aligned((size.n_wide,), np.int16),
        aligned((size.n_wide,), np.int16),
        np.zeros(size.n_wide, np.int16),
        np.zeros(size.n_wide, np.int32),
        np.zeros(n_classes, np.int32),
        np.zeros(size.c_out, np.int64),
        np.zeros(size.c_out * per_channel, np.int32),
        np.zeros(size.c_out * per_channel, np.int16),
    )
