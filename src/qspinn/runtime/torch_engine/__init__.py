"""The batched engine in torch operations, on CPUs and CUDA devices: `engine` runs a program."""
