"""Spike-timing-dependent plasticity of competing populations: `training` in float32, `grid` in integers."""

from __future__ import annotations

from qspinn import former

__getattr__ = former.names_of(__name__)
