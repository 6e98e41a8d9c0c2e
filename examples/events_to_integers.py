"""From raw events to an integer network: simulated gestures, a small convolutional network, 8-bit integers.

Run it with: python examples/events_to_integers.py (needs the torch extra; about 90 seconds on two cores).
"""

from __future__ import annotations

from qspinn import QuantPlan, QuantRule, run, save
from qspinn.data.events.synthetic_gestures import synthetic_set
from qspinn.learning.gradients.surrogate import SurrogateNet
from qspinn.learning.gradients.training import Supervision, fit, layer_ranges, scores
from qspinn.memory import program_account
from qspinn.networks.layered import Conv2d, EventInput, Layer, LayeredNetwork, Leaky, Linear, NeuronReadout
from qspinn.quantization.layered import lower_layers
from qspinn.quantization.plan import Granularity

# 1. Events: 11 motions before a simulated camera, in 30 bins of 50 ms, 32 x 32 pixels.
events = {"bin_ms": 50, "n_bins": 30, "to": (32, 32)}
train = synthetic_set(80, seed=0, **events)
test = synthetic_set(10, seed=0, first=80, **events)

# 2. The network, as a declaration.
neuron = Leaky(decay=0.9)
network = LayeredNetwork(
    name="gestures",
    input=EventInput(shape=(2, 32, 32)),
    n_steps=30,
    step_ms=50.0,
    layers=(
        Layer(name="a", shape=(16, 14, 14), neuron=neuron),
        Layer(name="b", shape=(32, 6, 6), neuron=neuron),
        Layer(name="out", shape=(11, 1, 1), neuron=neuron),
    ),
    connections=(
        Conv2d(source="input", target="a", kernel=(5, 5), stride=(2, 2), norm=True),
        Conv2d(source="a", target="b", stride=(2, 2), norm=True),
        Linear(source="b", target="out", norm=True),
    ),
    readout=NeuronReadout(source="out"),
)

# 3. Training in floats.
net = SurrogateNet(network, seed=0)
fit(
    net,
    train,
    Supervision(n_epochs=16, batch=32, shift=1),
    progress=lambda done, total, loss: print(f"epoch {done}/{total}: loss {loss:.3f}"),
)
right = scores(net, test).argmax(axis=1) == test.labels
print(f"float: {right.mean():.1%}")

# 4. Integers: which tensor gets how many bits, then one call; the engine runs what a microcontroller would.
plan = QuantPlan(
    rules=(QuantRule(tensor="*.w", bits=8, granularity=Granularity.PER_CHANNEL), QuantRule(tensor="*", bits=14))
)
program = lower_layers(network, net.params(), plan, layer_ranges(net, train))
result = run(program, test.spikes())
print(
    f"integers: {(result.predictions() == test.labels).mean():.1%}, "
    f"{program_account(program).total_bytes / 1000:.1f} kB with all states"
)
save(program, "gestures.qspinn")
