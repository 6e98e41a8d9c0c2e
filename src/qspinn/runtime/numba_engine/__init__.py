"""The compiled, event-driven engine for CPUs: `engine` runs a program, `competing` and `layered` its populations."""
