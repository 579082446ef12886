"""Activation layers: each holds the arguments of the function it calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import functional as F
from ..functional._epilogue import ACTIVATIONS
from .module import Module
from .parameter import Parameter


class _Activation(Module):
    """Calls `function(input, **options)`; a class below names both."""

    function: Callable[..., Any]

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = tuple(options)
        for name, value in options.items():
            setattr(self, name, value)

    def forward(self, input: Any) -> Any:
        held = self.__dict__
        return type(self).function(input, **{name: held[name] for name in self._options})

    def extra_repr(self) -> str:
        words = [f"{k}={getattr(self, k)!r}" for k in self._options if k != "inplace"]
        return ", ".join(words + ["inplace=True"] * getattr(self, "inplace", False))


def activation_of(module: Module) -> Any:
    """(name, parameters...) as `activation=` takes them, None if the module is no such layer."""
    if not isinstance(module, _Activation):
        return None
    name = type(module).function.__name__
    if name not in ACTIVATIONS:
        return None
    options = [getattr(module, option) for option in module._options if option != "inplace"]
    return (name, *options) if options else name


class _Plain(_Activation):
    """Without options."""

    def __init__(self) -> None:
        super().__init__()


class ReLU(_Activation):
    """functional.relu."""

    function = staticmethod(F.relu)

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace=inplace)


class ReLU6(_Activation):
    """functional.relu6."""

    function = staticmethod(F.relu6)
    min_val, max_val = 0.0, 6.0

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace=inplace)


class LeakyReLU(_Activation):
    """functional.leaky_relu."""

    function = staticmethod(F.leaky_relu)

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__(negative_slope=negative_slope, inplace=inplace)


class ELU(_Activation):
    """functional.elu."""

    function = staticmethod(F.elu)

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(alpha=alpha, inplace=inplace)


class SELU(_Activation):
    """functional.selu."""

    function = staticmethod(F.selu)

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace=inplace)


class CELU(_Activation):
    """functional.celu."""

    function = staticmethod(F.celu)

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(alpha=alpha, inplace=inplace)


class GELU(_Activation):
    """functional.gelu."""

    function = staticmethod(F.gelu)

    def __init__(self, approximate: str = "none") -> None:
        super().__init__(approximate=approximate)


class SiLU(_Activation):
    """functional.silu."""

    function = staticmethod(F.silu)

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace=inplace)


class Mish(_Activation):
    """functional.mish."""

    function = staticmethod(F.mish)

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace=inplace)


class Softplus(_Activation):
    """functional.softplus."""

    function = staticmethod(F.softplus)

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__(beta=beta, threshold=threshold)


class Softsign(_Plain):
    """functional.softsign."""

    function = staticmethod(F.softsign)


class Softshrink(_Activation):
    """functional.softshrink."""

    function = staticmethod(F.softshrink)

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__(lambd=lambd)

    def extra_repr(self) -> str:
        return str(self.lambd)


class Hardshrink(_Activation):
    """functional.hardshrink."""

    function = staticmethod(F.hardshrink)

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__(lambd=lambd)

    def extra_repr(self) -> str:
        return str(self.lambd)


class Tanhshrink(_Plain):
    """functional.tanhshrink."""

    function = staticmethod(F.tanhshrink)


class Hardtanh(_Activation):
    """functional.hardtanh."""

    function = staticmethod(F.hardtanh)

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__(min_val=min_val, max_val=max_val, inplace=inplace)


class Hardsigmoid(_Activation):
    """functional.hardsigmoid."""

    function = staticmethod(F.hardsigmoid)

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace=inplace)

    def extra_repr(self) -> str:
        return ""


class Hardswish(_Activation):
    """functional.hardswish."""

    function = staticmethod(F.hardswish)

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace=inplace)

    def extra_repr(self) -> str:
        return ""


class LogSigmoid(_Plain):
    """functional.logsigmoid."""

    function = staticmethod(F.logsigmoid)


class Sigmoid(_Plain):
    """functional.sigmoid."""

    function = staticmethod(F.sigmoid)


class Tanh(_Plain):
    """functional.tanh."""

    function = staticmethod(F.tanh)


class GLU(_Activation):
    """functional.glu."""

    function = staticmethod(F.glu)

    def __init__(self, dim: int = -1) -> None:
        super().__init__(dim=dim)


class Softmax2d(_Plain):
    """functional.softmax2d."""

    function = staticmethod(F.softmax2d)


class Softmax(_Activation):
    """functional.softmax along dim."""

    function = staticmethod(F.softmax)

    def __init__(self, dim: int | None = None) -> None:
        super().__init__(dim=dim)


class LogSoftmax(Softmax):
    """functional.log_softmax along dim."""

    function = staticmethod(F.log_softmax)


class Softmin(Softmax):
    """functional.softmin along dim."""

    function = staticmethod(F.softmin)


class Threshold(_Activation):
    """functional.threshold."""

    function = staticmethod(F.threshold)

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__(threshold=threshold, value=value, inplace=inplace)


class PReLU(Module):
    """functional.prelu with a trained slope, one for all channels or one each."""

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, dtype: Any = np.float32
    ) -> None:
        super().__init__()
        self.num_parameters, self.init = num_parameters, init
        self.weight = Parameter(np.empty(num_parameters, dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """All slopes as given."""
        self.weight.data.fill(self.init)

    def forward(self, input: Any) -> Any:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class RReLU(Module):
    """functional.rrelu; random slopes in training only."""

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3, inplace: bool = False) -> None:
        super().__init__()
        self.lower, self.upper, self.inplace = lower, upper, inplace

    def forward(self, input: Any) -> Any:
        return F.rrelu(input, self.lower, self.upper, self.training)

    def extra_repr(self) -> str:
        shown = f"lower={self.lower}, upper={self.upper}"
        return shown + (", inplace=True" if self.inplace else "")
