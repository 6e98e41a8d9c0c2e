"""Named architectures: functions that return a Network."""

from __future__ import annotations

from qspinn.network import Dense, Lateral, Lif, Network, PoissonInput, Population, Stdp, VoteReadout


def lif_for(n_neurons: int) -> Lif:
    """LIF constants for N competing neurons: theta_plus_mv = 0.0025 * sqrt(N).

    A neuron of a larger population wins less often, so each win must raise its threshold more for the same balance
    (Diehl & Cook 2015 use 0.05 mV for every N; the two agree at N = 400). Chosen on the validation split of MNIST.
    """
    return Lif(theta_plus_mv=round(0.0025 * n_neurons**0.5, 6))


def diehl_cook(
    n_inputs: int = 784,
    n_neurons: int = 400,
    *,
    n_steps: int = 250,
    rate_hz: float = 128.0,
    n_classes: int = 10,
    neuron: Lif | None = None,
    stdp: Stdp | None = None,
    inhibition_mv: float = 1000.0,
) -> Network:
    """The unsupervised digit network: Poisson inputs, N excitatory LIF neurons, direct lateral inhibition, STDP.

    Without `neuron` its constants follow N: see `lif_for`.
    `stdp.norm` is meant for 784 inputs and is scaled with n_inputs, so the mean weight stays the same.
    Source: Diehl & Cook (2015); direct lateral inhibition after FSpiNN (2020).

    >>> diehl_cook(64, 100).dense_into("exc").stdp.norm
    6.4
    """
    stdp = stdp or Stdp()
    norm = round(stdp.norm * n_inputs / 784, 6)
    plastic = Stdp(**{**{f: getattr(stdp, f) for f in stdp.__struct_fields__}, "norm": norm})
    return Network(
        name="diehl_cook",
        input=PoissonInput(n=n_inputs, rate_hz=rate_hz),
        populations=(Population(name="exc", n=n_neurons, neuron=neuron or lif_for(n_neurons)),),
        connections=(
            Dense(source="input", target="exc", stdp=plastic),
            Lateral(target="exc", strength_mv=inhibition_mv),
        ),
        readout=VoteReadout(source="exc", n_classes=n_classes),
        n_steps=n_steps,
    )
