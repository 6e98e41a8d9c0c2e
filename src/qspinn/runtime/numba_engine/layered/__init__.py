"""Programs of layers on compiled kernels.

- `populations`: populations and pools over all steps of a block of samples;
- `field`: how a population lies in memory; `strips`: its connections as strips of weights;
- `proof`: the narrowest lanes that are exact; `arguments`: constants as the kernels take them;
- `..kernels`: `feed`, `lanes` and `general`, the compiled loops.
"""
