"""The part of an exploration that belongs to competing populations that learn by STDP."""
