"""The passes of a layer in torch operations, for devices that the compiled kernels do not know."""
