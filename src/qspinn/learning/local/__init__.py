"""Local learning (DECOLLE) of convolutional layers, declared: shapes, constants, and how the layers are trained.

Settings only, so that reading an experiment needs neither torch nor compiled kernels. Every layer has a fixed random
read-out of its own and learns from it alone, at every step; no gradient crosses layers or time. For one step, with
input spikes S_in and per-channel decays alpha, beta:

    P <- alpha P + m_p Q;  Q <- beta Q + m_q S_in;  U = 2^scale conv(P, W) + b - R;  S = [U >= 0];  R <- gamma R + S
    a = sigmoid(max-pool U);  r = G a;  e = r - one-hot;  dU = (H' e) * a (1 - a) at the maximum of each window
    W <- W - rate * sum over batch and places of dU P

P takes the Q of the step before. G is the read-out, H a second random matrix of the same signs. The layer above is fed
with the max-pooled S. `floats` computes this in float32, `integers` in integers only.

Source: Kaiser, Mostafa and Neftci 2020 (DECOLLE); constants and widths of Schaefer and Joshi 2020. Deviations from both
are listed in docs/adr/0012.
"""

from __future__ import annotations

from qspinn import former

__getattr__ = former.names_of(__name__)
