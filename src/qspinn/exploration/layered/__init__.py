"""The part of an exploration that belongs to layers that learn by gradients."""
