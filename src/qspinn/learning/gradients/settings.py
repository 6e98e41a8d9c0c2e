"""Settings of training a layered network with labels, apart from the code so that reading them needs no torch."""

from __future__ import annotations

from qspinn.networks.names import need_size
from qspinn.records.record import Record, need


class Supervision(Record, frozen=True):
    """Settings of a training: Adam with a cosine schedule on the cross-entropy of gain * scores.

    Bins are those of the training data: steps, or parts of a step (`EventData.fine`).

    With `spike_regulation` lambda, lambda * sum((f - 1/2)**2) is added to the loss, f the spikes per neuron and step of
    each layer but the one that is read (Wei et al. 2024, eq. 15 and 16, who leave out the first layer too).

    With `distillation` a, the loss is (1 - a) times that of the labels plus a T**2 times the Kullback-Leibler
    divergence from a teacher's answers softmax(gain * scores / T) to the network's own, T the `temperature` (Hinton,
    Vinyals and Dean 2015, section 2). The teacher sees the same moved events.

    Attributes:
        n_epochs, batch: passes over the data, samples per update.
        learning_rate: at the start; it falls to zero along half a cosine.
        clip: longer gradients are shortened to this length, all parameters taken together; 0: as they are.
        gain: what scores (spikes or potential per step) are multiplied by before the softmax.
        width: steepness of the derivative that stands for the spike's, see `SurrogateNet`; 0: as the module was made.
        shift: events are moved by up to so many pixels in x and y, anew in every epoch; 0 for none.
        flip: half of the samples are mirrored left to right, anew in every epoch.
        delay: recordings are moved by up to so many bins in time, either way, anew in every epoch.
        jitter: every event is moved in time on its own, by a normal number of bins of this deviation, anew in every
            epoch; events that meet count up to the input's max_count.
        drop: this share of the events is left out, anew in every epoch.
        spike_regulation: lambda; 0 for none.
        distillation, temperature: a and T; a of 0 for none, and needs no teacher.
    """

    n_epochs: int = 8
    batch: int = 64
    learning_rate: float = 3e-3
    clip: float = 0.0
    gain: float = 10.0
    width: float = 0.0
    shift: int = 0
    flip: bool = False
    delay: int = 0
    jitter: float = 0.0
    drop: float = 0.0
    spike_regulation: float = 0.0
    distillation: float = 0.0
    temperature: float = 2.0

    def check(self) -> None:
        need(0 <= self.n_epochs <= 10_000, "training.n_epochs", self.n_epochs, "0..10000")
        need(1 <= self.batch <= 1 << 16, "training.batch", self.batch, "1..65536")
        need(self.learning_rate > 0, "training.learning_rate", self.learning_rate, "> 0")
        need(self.clip >= 0, "training.clip", self.clip, ">= 0")
        need(self.gain > 0, "training.gain", self.gain, "> 0")
        need(self.width >= 0, "training.width", self.width, ">= 0")
        need(0 <= self.shift <= 64, "training.shift", self.shift, "0..64")
        need(0 <= self.delay <= 1 << 15, "training.delay", self.delay, "0..32768")
        need(0 <= self.jitter <= 1 << 15, "training.jitter", self.jitter, "0..32768")
        need(self.spike_regulation >= 0, "training.spike_regulation", self.spike_regulation, ">= 0; 0 for none")
        need(0 <= self.distillation <= 1, "training.distillation", self.distillation, "0..1; 0 for none")
        need(self.temperature > 0, "training.temperature", self.temperature, "> 0")
        need(0 <= self.drop < 1, "training.drop", self.drop, "0 <= share < 1")
        for name in ("learning_rate", "clip", "gain", "width", "jitter", "spike_regulation", "temperature"):
            need_size(f"training.{name}", getattr(self, name))
