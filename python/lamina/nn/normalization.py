"""Normalisation layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional as F
from ..functional import _epilogue
from ..functional._arguments import check_rank, integer
from ..tensor import Tensor
from .activation import _Activation, activation_of
from .module import Module, is_plain
from .parameter import Parameter

_COUNT = "num_batches_tracked"


def _register_affine(module: Module, shape: Any, weight: bool, bias: bool, dtype: Any) -> None:
    for name, present in (("weight", weight), ("bias", bias)):
        module.register_parameter(name, Parameter(np.empty(shape, dtype)) if present else None)


def _sizes(name: str, normalized_shape: Any) -> tuple[int, ...]:
    several = isinstance(normalized_shape, tuple | list)
    given = normalized_shape if several else [normalized_shape]
    return tuple(integer(name, "normalized_shape", size, 1) for size in given)


def _reset_affine(module: Module) -> None:
    for name, parameter in module.named_parameters(recurse=False):
        parameter.data.fill(1 if name == "weight" else 0)


class _BatchNorm(Module):
    """weight, bias [C]; buffers running_mean, running_var [C] and num_batches_tracked.

    `activation` is as in functional.batch_norm; a call may name a `residual`.
    """

    ranks: tuple[int, ...]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        activation: Any = None,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__()
        self.num_features = integer(type(self).__name__, "num_features", num_features, 1)
        self.eps, self.momentum = eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.activation = activation
        _register_affine(self, num_features, affine, affine and bias, dtype)
        for name, kind in (("running_mean", dtype), ("running_var", dtype), (_COUNT, np.int64)):
            shape = () if name == _COUNT else num_features
            statistic = Tensor(np.empty(shape, kind)) if track_running_stats else None
            self.register_buffer(name, statistic)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Running mean 0 and variance 1, of no batch."""
        if self.track_running_stats:
            self.running_mean.data.fill(0)
            self.running_var.data.fill(1)
            self.num_batches_tracked.data.fill(0)

    def reset_parameters(self) -> None:
        """weight 1, bias 0, and the statistics as before any batch."""
        self.reset_running_stats()
        _reset_affine(self)

    def forward(self, input: Any, *, residual: Any = None) -> Any:
        return self.normalised(input, self.activation, residual)

    def normalised(self, input: Any, activation: Any, residual: Any = None) -> Any:
        """forward with the activation of the layer behind."""
        check_rank(type(self).__name__, "input", input, self.ranks)
        rate = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats:
            count = self.num_batches_tracked.data
            count += 1  # in place
            if self.momentum is None:  # cumulative average
                rate = 1 / int(self.num_batches_tracked)
        return F.batch_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            rate,
            self.eps,
            activation=activation,
            residual=residual,
        )

    def extra_repr(self) -> str:
        words = (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, bias={self.bias is not None}, "
            f"track_running_stats={self.track_running_stats}"
        )
        return words if self.activation is None else f"{words}, activation={self.activation!r}"


def _is_as_made(module: Any, base: type) -> bool:
    """Without hooks and with the base's forward()."""
    return is_plain(module) and getattr(module.forward, "__func__", None) is base.forward  # type: ignore[attr-defined]


def taken_in(norm: Any, follower: Any) -> Any:
    """The follower as `activation=` of the batch norm before it, or None.

    None where one of them has hooks or another forward(), and for activations whose gradient
    needs more than their output.
    """
    if not isinstance(norm, _BatchNorm) or not isinstance(follower, _Activation):
        return None
    if not _is_as_made(norm, _BatchNorm) or not _is_as_made(follower, _Activation):
        return None
    activation = activation_of(follower)
    if activation is None or norm.activation is not None:
        return None
    kind = _epilogue.activation_kind("batch_norm", activation)
    return activation if _epilogue.output_tells_kernel(kind) else None


def normalised(norm: Any, x: Any, follower: Any, residual: Any = None) -> Any:
    """follower(norm(x) + residual) for modules, in one call where that is the same.

    follower, residual: or None.
    """
    if follower is None:
        alone = isinstance(norm, _BatchNorm) and _is_as_made(norm, _BatchNorm)
        if alone and norm.activation is None:
            return norm.normalised(x, None, residual)
    elif (activation := taken_in(norm, follower)) is not None:
        return norm.normalised(x, activation, residual)
    y = norm(x)
    y = y if residual is None else y + residual
    return y if follower is None else follower(y)


class BatchNorm1d(_BatchNorm):
    """functional.batch_norm of [N, C] or [N, C, L]."""

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """functional.batch_norm of [N, C, H, W]."""

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """functional.batch_norm of [N, C, D, H, W]."""

    ranks = (5,)


class _InstanceNorm(_BatchNorm):
    """Statistics of each image; running ones only if asked for, as in torch."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        bias: bool = True,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, bias=bias, dtype=dtype
        )

    def forward(self, input: Any) -> Any:  # type: ignore[override]
        name = type(self).__name__
        check_rank(name, "input", input, self.ranks, "(a batch axis is optional)")
        unbatched = len(input.shape) == min(self.ranks)
        x = input.reshape(1, *input.shape) if unbatched else input
        if x.shape[1] != self.num_features:
            raise ValueError(
                f"{name}: input must have num_features={self.num_features} channels, "
                f"got input.shape={input.shape}"
            )
        y = F.instance_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
        )
        return y.reshape(*input.shape) if unbatched else y


class InstanceNorm1d(_InstanceNorm):
    """functional.instance_norm of [N, C, L] or [C, L]."""

    ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """functional.instance_norm of [N, C, H, W] or [C, H, W]."""

    ranks = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """functional.instance_norm of [N, C, D, H, W] or [C, D, H, W]."""

    ranks = (4, 5)


class GroupNorm(Module):
    """functional.group_norm; weight, bias [C]."""

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        bias: bool = True,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__()
        self.num_groups = integer("GroupNorm", "num_groups", num_groups, 1)
        self.num_channels = integer("GroupNorm", "num_channels", num_channels, 1)
        if num_channels % num_groups:
            raise ValueError(
                "GroupNorm: num_groups must divide num_channels, got "
                f"num_groups={num_groups}, num_channels={num_channels}"
            )
        self.eps, self.affine = eps, affine
        _register_affine(self, num_channels, affine, affine and bias, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """weight 1, bias 0."""
        _reset_affine(self)

    def forward(self, input: Any) -> Any:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class LayerNorm(Module):
    """functional.layer_norm; weight, bias of normalized_shape."""

    def __init__(
        self,
        normalized_shape: Any,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__()
        self.normalized_shape = _sizes("LayerNorm", normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        has_bias = elementwise_affine and bias
        _register_affine(self, self.normalized_shape, elementwise_affine, has_bias, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """weight 1, bias 0."""
        _reset_affine(self)

    def forward(self, input: Any) -> Any:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


class LocalResponseNorm(Module):
    """`functional.local_response_norm`; within: over windows of a map instead of channels."""

    def __init__(
        self,
        size: int,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 1.0,
        *,
        within: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k, self.within = size, alpha, beta, k, within

    def forward(self, input: Any) -> Any:
        return F.local_response_norm(
            input, self.size, self.alpha, self.beta, self.k, within=self.within
        )

    def extra_repr(self) -> str:
        shown = f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
        return shown + (", within=True" if self.within else "")


class RMSNorm(Module):
    """`functional.rms_norm`; weight of normalized_shape."""

    def __init__(
        self,
        normalized_shape: Any,
        eps: float | None = None,
        elementwise_affine: bool = True,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__()
        self.normalized_shape = _sizes("RMSNorm", normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        weight = Parameter(np.empty(self.normalized_shape, dtype)) if elementwise_affine else None
        self.register_parameter("weight", weight)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """weight 1."""
        _reset_affine(self)

    def forward(self, input: Any) -> Any:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )
