"""The vocabulary of compiled code: what kernels are written in.

`jit` compiles and caches; `scalars`, `vectors`, `float_vectors`, `lanes`, `products` and `drive` are arithmetic that
kernels inline; `competing` is one step of a competing population; `threads` spreads work over cores. Kernels are
programs made of these words and lie in folders called `kernels`, beside the code that calls them.
"""
