"""Declarations of spiking networks in floats: frozen records without behaviour.

All potentials are relative to the resting potential, in mV; times in ms or in steps of `dt_ms`. What one step does,
in which order, is stated in `docs/numerics.md` and in the docstring of `Lif`; executing it is the runtime's work.

Tensor paths, used by plans, memory accounts and errors, are `<population>.<kind>`: `exc.w` (weights of the
connection into exc), `exc.v`, `exc.v_th`, `exc.theta`, `exc.decay`, `exc.inhibition`, `exc.x_pre`, `exc.x_post`, and
`readout.votes`.
"""

from __future__ import annotations

import math
from typing import Literal

from qspinn.errors import ConfigError
from qspinn.networks.names import need_name, need_size, need_steps
from qspinn.records.record import Record, need


class PoissonInput(Record, frozen=True):
    """n sources that spike with probability rate_hz * dt * value / 255, drawn anew at every step.

    Attributes:
        n: number of sources (pixels).
        rate_hz: rate [Hz] at full intensity 255. Source: Diehl & Cook (2015) use 63.75 Hz; a higher rate lets fewer
            steps suffice.
    """

    n: int
    rate_hz: float = 128.0

    def check(self) -> None:
        need(1 <= self.n <= 1 << 20, "network.input.n", self.n, "1..2**20")
        need(0 < self.rate_hz < 1e6, "network.input.rate_hz", self.rate_hz, "above 0, below 1e6")


class Lif(Record, frozen=True, tag="lif"):
    """Leaky integrate-and-fire neurons with adaptive threshold.

    One step: v <- decay * v; where the neuron is not refractory, v <- max(v_min, v + input); it crosses when
    v >= v_th + theta; a spike sets v to v_reset, silences the neuron for n_ref_steps steps and raises theta by
    theta_plus_mv (while learning). Source: Diehl & Cook (2015), constants relative to their rest of -65 mV; step order
    as in BindsNET's DiehlAndCookNodes, except that a spike reaches the neurons of the next layer in the same step.

    Attributes:
        tau_ms: membrane time constant [ms]; decay = exp(-dt / tau).
        v_th_mv: threshold above rest [mV] (-52 mV absolute).
        v_reset_mv: potential after a spike [mV]. Theirs is +5 (-60 absolute); 0 here: a winner restarts from rest like
            everybody else (better in one exploratory validation run, one seed).
        v_min_mv: lower bound of v [mV]; 0 keeps potentials unsigned.
        n_ref_steps: refractory period in steps. Theirs is 5 ms; 2 here, chosen in exploratory validation runs with two
            seeds: no clear difference at N = 400, about 1 point at N = 100.
        theta_plus_mv: increment of the adaptive threshold per spike [mV]. It does not decay here (theirs has a time
            constant of 1e7 ms and hardly does).
    """

    tau_ms: float = 100.0
    v_th_mv: float = 13.0
    v_reset_mv: float = 0.0
    v_min_mv: float = 0.0
    n_ref_steps: int = 2
    theta_plus_mv: float = 0.05

    def check(self) -> None:
        need(self.tau_ms > 0, "network.neuron.tau_ms", self.tau_ms, "> 0")
        for name in ("v_th_mv", "v_min_mv", "v_reset_mv", "theta_plus_mv"):
            need_size(f"network.neuron.{name}", getattr(self, name))
        need(self.v_th_mv > self.v_reset_mv, "network.neuron.v_th_mv", self.v_th_mv, "> v_reset_mv")
        need(self.v_min_mv <= min(0.0, self.v_reset_mv), "network.neuron.v_min_mv", self.v_min_mv, "<= 0, <= v_reset")
        need(0 <= self.n_ref_steps <= 255, "network.neuron.n_ref_steps", self.n_ref_steps, "0..255")
        need(self.theta_plus_mv >= 0, "network.neuron.theta_plus_mv", self.theta_plus_mv, ">= 0")


class Stdp(Record, frozen=True):
    """Trace-based spike-timing-dependent plasticity of a dense connection.

    Traces are set to 1 by a spike and decay with tau_pre_ms / tau_post_ms. At a postsynaptic spike
    ``w += eta_post * (x_pre - x_offset) * b``, at a presynaptic one ``w -= eta_pre * x_post * b``; then w is clipped to
    [0, w_max]. The bound b is (w_max - w) for "soft", 1 for "hard", and for "two_sided" (w_max - w) on the way up and
    w on the way down. After each sample the weights into every neuron that spiked are scaled to the sum `norm`.
    Source: Diehl & Cook (2015), eq. 3 (power-law dependence with exponent 1, target trace x_offset) and their weight
    normalization; the pre-spike term as in BindsNET's PostPre.

    Attributes:
        eta_post, eta_pre: learning rates at post- and presynaptic spikes.
        x_offset: trace value at which a postsynaptic spike leaves the weight as it is.
        norm: sum of the weights into one neuron; 0 turns normalization off.
    """

    eta_post: float = 0.01
    eta_pre: float = 0.0
    x_offset: float = 0.1
    tau_pre_ms: float = 20.0
    tau_post_ms: float = 20.0
    bound: Literal["soft", "hard", "two_sided"] = "soft"
    norm: float = 78.4

    def check(self) -> None:
        for name in ("eta_post", "eta_pre", "x_offset", "norm"):
            need(0 <= getattr(self, name) < 1e6, f"network.stdp.{name}", getattr(self, name), "0 <= x < 1e6")
            need_size(f"network.stdp.{name}", getattr(self, name))
        for name in ("tau_pre_ms", "tau_post_ms"):
            need(getattr(self, name) > 0, f"network.stdp.{name}", getattr(self, name), "> 0")


class Dense(Record, frozen=True, tag="dense"):
    """All-to-all connection from `source` to `target` with weights w [N_post, N_pre] in [0, w_max]."""

    source: str
    target: str
    w_max: float = 1.0
    stdp: Stdp | None = None

    def check(self) -> None:
        need(self.w_max > 0, f"network.connections.{self.target}.w_max", self.w_max, "> 0")
        need_size(f"network.connections.{self.target}.w_max", self.w_max)


class Lateral(Record, frozen=True, tag="lateral"):
    """Direct lateral inhibition: one winner per step, and its spike lowers v of all others by strength_mv.

    Among the neurons that cross in the same step the winner is drawn by the counter-based hash (BindsNET draws at
    random). The draw compares no potentials, so it is exact in integers even where every neuron counts in a unit of
    its own. v is bounded below by v_min, so a strength beyond the largest potential means: a spike clears everybody.
    Source: FSpiNN (Putra & Shafique 2020) for direct lateral inhibition in place of an inhibitory population.
    """

    target: str
    strength_mv: float = 1000.0

    def check(self) -> None:
        need(self.strength_mv >= 0, f"network.connections.{self.target}.strength_mv", self.strength_mv, ">= 0")


class Population(Record, frozen=True):
    """n neurons of one model."""

    name: str
    n: int
    neuron: Lif = Lif()

    def check(self) -> None:
        need_name("network.populations.name", self.name, "input", "kept")  # kept: the inputs that a plan keeps
        need(1 <= self.n <= 1 << 16, f"network.{self.name}.n", self.n, "1..65536")


class VoteReadout(Record, frozen=True):
    """Class scores = spike counts times votes [N, n_classes]; the largest wins, ties go to the lowest class.

    `rule` says how votes are made from the mean responses R [N, n_classes] on labelled training data:
    ``"highest"``: 1 for the neuron's best class, divided by the number of neurons that chose it (Diehl & Cook 2015);
    ``"proportion"``: the share of each class in the neuron's response.
    """

    source: str
    n_classes: int = 10
    rule: Literal["highest", "proportion"] = "proportion"

    def check(self) -> None:
        need(2 <= self.n_classes <= 1 << 16, "network.readout.n_classes", self.n_classes, "2..65536")


Connection = Dense | Lateral


class Network(Record, frozen=True):
    """A whole network: inputs, populations in execution order, connections, read-out.

    Attributes:
        dt_ms: length of a step [ms].
        n_steps: steps per sample, T.
    """

    name: str
    input: PoissonInput
    populations: tuple[Population, ...]
    connections: tuple[Connection, ...]
    readout: VoteReadout
    dt_ms: float = 1.0
    n_steps: int = 250

    def check(self) -> None:
        need_steps("dt_ms", self.dt_ms, self.n_steps)
        names = [p.name for p in self.populations]
        if len(set(names)) != len(names) or "input" in names:
            raise ConfigError("network.populations", "names must differ from each other and from 'input'", got=names)
        seen = {"input"}
        for population in self.populations:
            feeding = [c for c in self.connections if isinstance(c, Dense) and c.target == population.name]
            if len(feeding) != 1 or feeding[0].source not in seen:
                raise ConfigError(
                    f"network.{population.name}",
                    "needs exactly one dense connection from an earlier population",
                    got=[c.source for c in feeding],
                    allowed=", ".join(sorted(seen)),
                )
            if sum(isinstance(c, Lateral) and c.target == population.name for c in self.connections) > 1:
                raise ConfigError(f"network.{population.name}", "has more than one lateral connection")
            seen.add(population.name)
        for c in self.connections:
            if c.target not in names:
                raise ConfigError("network.connections", "unknown target", got=c.target, allowed=", ".join(names))
        if self.readout.source not in names:
            raise ConfigError(
                "network.readout.source", "unknown population", got=self.readout.source, allowed=", ".join(names)
            )

    def population(self, name: str) -> Population:
        """Population of this name."""
        return next(p for p in self.populations if p.name == name)

    def dense_into(self, name: str) -> Dense:
        """Connection into a population."""
        return next(c for c in self.connections if isinstance(c, Dense) and c.target == name)

    def lateral_of(self, name: str) -> Lateral | None:
        """Lateral inhibition of a population; None where it has none."""
        return next((c for c in self.connections if isinstance(c, Lateral) and c.target == name), None)

    def size_of(self, name: str) -> int:
        """Number of neurons of a population, or of inputs."""
        return self.input.n if name == "input" else self.population(name).n


def decay_factor(tau_ms: float, dt_ms: float) -> float:
    """exp(-dt / tau), the factor by which a quantity with time constant tau shrinks in one step."""
    return math.exp(-dt_ms / tau_ms)
