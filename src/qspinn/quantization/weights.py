"""Codes and steps of weights: uniform, binary and ternary levels; one rule for lowering and for training.

Binary and ternary weights are standardized per output channel, w^ = (w - mean) / std. Its sign is the code, so the
deviation does not enter the code, only the gradient; the step is the mean of |w - mean|, which is std * mean|w^|: what
normalization after the connection would bring back is kept, as weights here have theirs folded in.
Source: Wei et al. (2024), eq. 6, 7, 14; ternary threshold: Li & Liu (2016); power of two: Qin et al. (2020).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qspinn.errors import LoweringError
from qspinn.fixedpoint import Ints, QFormat, encode
from qspinn.quantization.calibrators import Floats, weight_tops
from qspinn.quantization.plan import Granularity, Levels, QuantRule

TERNARY_SHARE = 0.7
"""Of the mean size: ternary weights below it are 0."""


def weight_format(rule: QuantRule) -> QFormat:
    """The format of a tensor of weights: one bit with a sign is binary."""
    return QFormat(bits=rule.bits, signed=True)


def weight_codes(path: str, w: NDArray, rule: QuantRule, step: Floats, key: int = 0) -> Ints:
    """The codes of real weights w [C or N_post, ...].

    Args:
        step: of each channel [C]; neurons of a grid share their channel's.
        key: of the random bits of stochastic rounding.

    Raises:
        LoweringError: standardization leaves nothing of the weights.
    """
    fmt = weight_format(rule)
    if rule.levels is Levels.UNIFORM:
        scale = np.repeat(step, len(w) // len(step)).reshape(-1, *[1] * (w.ndim - 1))
        codes, _ = encode(w, fmt, rule.rounding, scale=scale, key=key)
        return np.maximum(codes, -fmt.code_max)
    rows = centred(path, w, rule, len(step))
    codes = np.where(rows >= 0, 1, -1)
    if rule.levels is Levels.TERNARY:
        codes *= _kept(rows)
    return codes.reshape(w.shape)


def n_clipped(w: NDArray, rule: QuantRule, step: Floats) -> int:
    """Number of real weights that lie more than half a step beyond the largest code, which cuts them off."""
    if rule.levels is not Levels.UNIFORM:
        return 0
    scale = np.repeat(step, len(w) // len(step)).reshape(-1, *[1] * (w.ndim - 1))
    return int(np.count_nonzero(np.abs(w) > (weight_format(rule).code_max + 0.5) * scale))


def channel_tops(path: str, w: NDArray, rule: QuantRule, n_channels: int) -> Floats:
    """Real value of the largest code: one number per channel, or one for all.

    Raises:
        LoweringError: standardization leaves nothing of the weights.
    """
    n_rows = n_channels if rule.granularity is Granularity.PER_CHANNEL else 1
    if rule.levels is Levels.UNIFORM:
        return weight_tops(w.reshape(n_rows, -1), rule, weight_format(rule).code_max)
    rows = centred(path, w, rule, n_channels)
    counted = _kept(rows) if rule.levels is Levels.TERNARY else np.ones_like(rows)
    sums, counts = ((x.reshape(n_rows, -1).sum(axis=1)) for x in (np.abs(rows) * counted, counted))
    tops: Floats = sums / np.maximum(counts, 1)
    return nearest_power(tops) if rule.power_of_two else tops


def nearest_power(x: Floats) -> Floats:
    """The powers of two nearest to positive x, on a scale of powers; zero stays so."""
    powers: Floats = np.where(x > 0, 2.0 ** np.floor(np.log2(np.where(x > 0, x, 1.0)) + 0.5), 0.0)
    return powers


def centred(path: str, w: NDArray, rule: QuantRule, n_channels: int) -> Floats:
    """Weights [C, n] of each channel, less their mean where the rule standardizes them.

    Raises:
        LoweringError: a channel has one weight only, or its weights are all alike; or without standardization, binary
            weights of a channel are all 0, which has no sign.
    """
    rows = np.asarray(w, dtype=np.float64).reshape(n_channels, -1)
    if not rule.standardize:
        silent = np.flatnonzero(~rows.any(axis=1))
        if rule.levels is Levels.BINARY and silent.size:
            raise LoweringError(
                path,
                f"all weights of output channel {silent[0]} are 0, which binary codes do not have: it would spike",
                got=0.0,
                allowed="a weight other than 0 in every channel",
                fix='levels = "ternary" or "uniform" here, or leave the channel out of the network',
            )
        return rows
    fix = "uniform levels here, or standardize = false"
    if rows.shape[1] < 2:
        raise LoweringError(
            path,
            "has one weight per output channel, of which standardization leaves nothing",
            got=w.shape,
            allowed="two at least",
            fix=fix,
        )
    less: Floats = rows - rows.mean(axis=1, keepdims=True)
    alike = np.flatnonzero(np.ptp(rows, axis=1) == 0)
    if alike.size:
        raise LoweringError(
            path,
            f"has variance zero in output channel {alike[0]}, so standardization leaves nothing",
            got=float(rows[alike[0], 0]),
            allowed="weights that differ",
            fix=fix,
        )
    return less


def _kept(rows: Floats) -> NDArray:
    """1 where a ternary weight is not 0."""
    return (np.abs(rows) > TERNARY_SHARE * np.abs(rows).mean(axis=1, keepdims=True)).astype(np.int64)
