"""One layer over all steps, forward and backward, as one node for autograd.

`node` joins a connection (`wiring`, `kernels.conv`, `kernels.conv_back`) with the neurons behind it: `scan` holds their
constants, `choice` picks the kernels that compute a pass, the general ones (`kernels.forward`, `kernels.backward`) or
the fast ones for the most frequent kind of layer (`kernels.fast`). `torch_passes` are the same in torch operations, for
devices without kernels. `surrogate` and `quantized`, one floor up, put layers together.
"""
