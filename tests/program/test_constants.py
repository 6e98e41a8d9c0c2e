"""What the fields of a population mean for each neuron, by hand; and the numbers of the random streams."""

from __future__ import annotations

from qspinn.fixedpoint import QFormat
from qspinn.program import constants
from qspinn.program.ops import STREAMS_PER_POPULATION, LifOp, Stream
from qspinn.program.parts import Store
from qspinn.testing.programs import single
from qspinn.testing.vectors import lone


def test_constants_of_six_neurons_in_three_channels() -> None:
    program = lone(
        [[1]] * 6,
        v_th=[9, 8, 7],
        bias=[1, -2, 3],
        bias_shift=2,
        in_shifts=[-1, 0, 2],
        decay=([3, 4, 0], 2),
        current=([5, 6, 7, 0, 1, 2], 3),
        theta_step=[4],
        theta_decay=([1, 2], 2),
        store=Store(fmt=QFormat(bits=8, frac=-3, signed=True), min=-100),
    )
    (op,) = program.ops_of(LifOp)
    assert constants.thresholds(program, op).tolist() == [9, 9, 8, 8, 7, 7]
    assert constants.biases(program, op).tolist() == [4, 4, -8, -8, 12, 12]
    assert constants.in_shifts(program, op).tolist() == [-1, -1, 0, 0, 2, 2]
    assert constants.decays(program, op).tolist() == [3, 3, 4, 4, 0, 0]
    assert constants.current_decays(program, op).tolist() == [5, 6, 7, 0, 1, 2]
    assert constants.theta_decays(program, op).tolist() == [1, 1, 1, 2, 2, 2]
    assert constants.theta_steps(program, op).tolist() == [4] * 6
    assert constants.inhibitions(program, op).tolist() == constants.resets(program, op).tolist() == [0] * 6
    assert constants.kept_codes(op) == (3, -100, 127)
    assert not constants.share_factors(program, op)


def test_what_is_absent_is_zero() -> None:
    program = single([[1], [2]], v_th=[5, 6], inhibition=3, in_shift=2)
    (op,) = program.ops_of(LifOp)
    assert constants.share_factors(program, op)
    assert constants.decays(program, op).tolist() == [1, 1]
    for absent in (constants.biases, constants.current_decays, constants.theta_decays, constants.theta_steps):
        assert absent(program, op).tolist() == [0, 0]
    assert constants.inhibitions(program, op).tolist() == [3, 3]
    assert constants.in_shifts(program, op).tolist() == [2, 2]
    assert constants.kept_codes(op) == (0, 0, 0)


def test_streams_keep_their_numbers() -> None:
    """Another number would give other random bits to every program that rounds stochastically."""
    numbers = {name: int(stream) for name, stream in Stream.__members__.items()}
    assert numbers == {
        "WINNER": 0,
        "DECAY": 1,
        "INPUT": 2,
        "POST_UPDATE": 3,
        "PRE_UPDATE": 4,
        "THETA": 5,
        "CURRENT": 6,
        "STORE": 7,
        "X_PRE": 6,
        "X_POST": 7,
        "LOWERING": 8,
    }
    assert max(numbers.values()) < STREAMS_PER_POPULATION == 16
