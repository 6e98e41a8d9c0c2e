"""Spike-timing-dependent plasticity of competing populations: `training` in float32, `grid` in integers."""
