"""One layer over all steps, forward and backward, as one node for autograd.

`node` joins a connection (`wiring`, `conv_kernel`, `conv_back_kernel`) with the neurons behind it: `scan` says what a
pass must know of them, `choice` which kernels compute it, the general ones (`forward_kernel`, `backward_kernel`) or
those of the usual layer (`usual_kernel`). `torch_connection` and `torch_neurons` are the same in torch operations, for
devices that kernels do not know. `surrogate` and `quantized`, one floor up, put layers together.
"""
