"""torch.nn.functional's functions, on Tensors and on plain arrays.

Plain arrays in give plain arrays out; one Tensor among the arguments gives Tensors.
"""

from .activation import (
    celu,
    elu,
    gelu,
    glu,
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    logsigmoid,
    mish,
    prelu,
    relu,
    relu6,
    rrelu,
    selu,
    sigmoid,
    silu,
    softplus,
    softshrink,
    softsign,
    step,
    tanh,
    tanhshrink,
    threshold,
)

__all__ = [name for name in dir() if not name.startswith("_")]
