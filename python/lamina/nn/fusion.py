"""Networks for inference: batch normalisation and activations become part of the layer before.

    scale = gamma / sqrt(var + eps), weight' = weight * scale, bias' = (bias - mean) * scale + beta

with the running statistics. The first four functions are those of torch.nn.utils.fusion.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import numpy as np

from ..arrays import module_of
from .activation import activation_of
from .container import Sequential
from .conv import _ConvNd
from .linear import Linear
from .module import Module, is_plain
from .normalization import BatchNorm1d, BatchNorm2d, BatchNorm3d
from .parameter import Parameter

__all__ = [
    "fuse",
    "fuse_conv_bn_eval",
    "fuse_conv_bn_weights",
    "fuse_linear_bn_eval",
    "fuse_linear_bn_weights",
]

_BatchNorm = BatchNorm1d | BatchNorm2d | BatchNorm3d


def _fused(
    weight: Any, bias: Any, mean: Any, var: Any, eps: float, gamma: Any, beta: Any, out_axis: int
) -> tuple[Parameter, Parameter]:
    """In float64, rounded once. The output channels of weight lie along out_axis."""
    xp = module_of(weight.data)

    def array(value: Any, default: float = 0.0) -> Any:
        return default if value is None else xp.asarray(value.data, np.float64)

    scale = array(gamma, 1.0) / xp.sqrt(array(var) + eps)
    shift = (array(bias) - array(mean)) * scale + array(beta)
    if out_axis == 0:
        rows = scale[:, None]
    else:  # transposed: [in, out / groups, ...], a group of inputs after the other
        groups = scale.size // weight.shape[1]
        rows = xp.repeat(scale.reshape(groups, -1), weight.shape[0] // groups, axis=0)
    fused = array(weight) * rows.reshape(*rows.shape, *[1] * (weight.ndim - 2))
    dtype, wants = weight.dtype, weight.requires_grad
    return Parameter(fused.astype(dtype), wants), Parameter(shift.astype(dtype), wants)


def fuse_conv_bn_weights(
    conv_w: Any,
    conv_b: Any,
    bn_rm: Any,
    bn_rv: Any,
    bn_eps: float,
    bn_w: Any,
    bn_b: Any,
    transpose: bool = False,
) -> tuple[Parameter, Parameter]:
    """Weight and bias of the convolution with the batch normalisation behind it."""
    return _fused(conv_w, conv_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, 1 if transpose else 0)


def fuse_linear_bn_weights(
    linear_w: Any, linear_b: Any, bn_rm: Any, bn_rv: Any, bn_eps: float, bn_w: Any, bn_b: Any
) -> tuple[Parameter, Parameter]:
    """Weight and bias of the linear layer with the batch normalisation behind it."""
    return _fused(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, 0)


def _channels(layer: Any) -> int:
    return layer.out_features if isinstance(layer, Linear) else layer.out_channels


def _with_bn(op: str, layer: Any, bn: Any, transpose: bool) -> Any:
    if layer.training or bn.training:
        raise ValueError(f"{op}: both modules must be in eval mode; call eval() first")
    if bn.running_mean is None:
        raise ValueError(f"{op}: bn keeps no running statistics, got bn={bn}")
    channels = _channels(layer)
    if channels != bn.num_features:
        raise ValueError(
            f"{op}: bn must have one feature per output channel, {channels}, "
            f"got bn.num_features={bn.num_features}"
        )
    fused = copy.deepcopy(layer)
    weights = _fused(
        layer.weight,
        layer.bias,
        bn.running_mean,
        bn.running_var,
        bn.eps,
        bn.weight,
        bn.bias,
        1 if transpose else 0,
    )
    fused.weight, fused.bias = weights
    if bn.activation is not None:
        fused.activation = bn.activation
    return fused


def fuse_conv_bn_eval(conv: Any, bn: Any, transpose: bool = False) -> Any:
    """A copy of the convolution that computes bn(conv(x)). ValueError unless both are in eval mode.

    transpose: whether conv is a transposed convolution.
    """
    return _with_bn("fuse_conv_bn_eval", conv, bn, transpose)


def fuse_linear_bn_eval(linear: Any, bn: Any) -> Any:
    """A copy of the linear layer that computes bn(linear(x)). ValueError unless in eval mode."""
    return _with_bn("fuse_linear_bn_eval", linear, bn, False)


def _fuse_chain(chain: Sequential, uses: Counter[int]) -> None:
    names = list(chain._modules)
    while names:
        name = names.pop(0)
        layer = chain._modules[name]
        if not isinstance(layer, _ConvNd | Linear) or not is_plain(layer) or uses[id(layer)] > 1:
            continue
        if layer.activation is not None:
            continue
        while names:
            follower = chain._modules[names[0]]
            if follower is None or not is_plain(follower):
                break
            activation = activation_of(follower)
            if activation is not None:
                layer.activation = activation
            elif (
                isinstance(follower, _BatchNorm)
                and follower.running_mean is not None
                and follower.num_features == _channels(layer)
            ):
                layer = _with_bn("fuse", layer, follower, getattr(layer, "transposed", False))
            else:
                break
            del chain._modules[names.pop(0)]
            if layer.activation is not None:
                break
        chain._modules[name] = layer


def fuse(model: Any) -> Any:
    """A copy of the model for inference, in eval mode, in which fewer calls compute the same.

    In every Sequential at any depth, a convolution or linear layer takes in the normalisations and
    the activation that follow it directly. Layers keep their names; those that were taken in
    are gone. Linear layers are taken to see [N, features]. Layers used twice, or with hooks, are
    left alone, and so is what other modules do in their own forward(), unless they say what to do:
    a module with a method `fused()`, called when its children are done, is replaced by its result.
    """
    if not isinstance(model, Module):
        raise TypeError(f"fuse: model must be a Module, got {type(model).__name__}")
    fused: Any = copy.deepcopy(model).eval()
    uses = Counter(id(module) for _, module in fused.named_modules(remove_duplicate=False))
    for module in list(fused.modules()):
        if type(module).forward is Sequential.forward and is_plain(module):
            _fuse_chain(module, uses)
    holder = Sequential(fused)
    for parent in reversed(list(holder.modules())):
        for name, child in parent.named_children():
            if hasattr(type(child), "fused") and is_plain(child) and uses[id(child)] == 1:
                parent._modules[name] = child.fused()
    return holder[0]
