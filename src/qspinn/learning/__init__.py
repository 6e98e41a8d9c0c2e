"""Learning of networks: `stdp` for competing populations, `gradients` for layers (surrogate gradients and
quantization-aware training), `local` for layers that learn from themselves alone, in integers."""
