"""Batch normalisation and activations taken into the layer before them, for inference."""

from __future__ import annotations

import cases
import lamina
import numpy as np
import pytest
from lamina import nn
from numpy.testing import assert_allclose, assert_array_equal


def with_statistics(bn):
    """A normalisation that has seen something: no statistic is 0 or 1."""
    names = ("running_mean", "running_var", "weight", "bias")
    for seed, name in enumerate(names):
        array = getattr(bn, name).data
        array[:] = cases.reals(array.shape, seed, np.float64)
    bn.running_var.data[:] = bn.running_var.data**2 + 0.1
    return bn.eval()


LAYERS = [
    (nn.Conv2d(3, 4, 3, padding=1, dtype=np.float64), nn.BatchNorm2d(4, dtype=np.float64)),
    (
        nn.Conv1d(4, 6, 3, groups=2, bias=False, dtype=np.float64),
        nn.BatchNorm1d(6, 0.1, dtype=np.float64),
    ),
    (
        nn.ConvTranspose2d(4, 6, 2, 2, groups=2, dtype=np.float64),
        nn.BatchNorm2d(6, dtype=np.float64),
    ),
    (nn.ConvTranspose3d(2, 5, 2, dtype=np.float64), nn.BatchNorm3d(5, dtype=np.float64)),
    (nn.Linear(5, 7, dtype=np.float64), nn.BatchNorm1d(7, dtype=np.float64)),
]


def inputs_of(layer):
    if isinstance(layer, nn.Linear):
        return cases.reals((3, layer.in_features), 9, np.float64)
    return cases.reals((2, layer.in_channels, 5, 6, 4)[: 2 + layer.axes], 9, np.float64)


@pytest.mark.parametrize(("layer", "bn"), LAYERS, ids=str)
def test_layer_with_normalisation(layer, bn):
    layer, bn = layer.eval(), with_statistics(bn)
    if isinstance(layer, nn.Linear):
        fused = nn.utils.fuse_linear_bn_eval(layer, bn)
    else:
        fused = nn.utils.fuse_conv_bn_eval(layer, bn, layer.transposed)
    x = inputs_of(layer)
    assert_allclose(fused(x).data, bn(layer(x)).data, rtol=1e-12, atol=1e-12)
    assert fused is not layer
    assert fused.weight is not layer.weight


@pytest.mark.parametrize(("layer", "bn"), LAYERS, ids=str)
def test_chain_becomes_one_call(layer, bn):
    net = nn.Sequential(layer, with_statistics(bn), nn.LeakyReLU(0.2), nn.Tanh())
    fused = nn.utils.fuse(net)
    assert list(fused._modules) == ["0", "3"]
    assert fused[0].activation == ("leaky_relu", 0.2)
    x = inputs_of(layer)
    assert_allclose(fused(x).data, net.eval()(x).data, rtol=1e-12, atol=1e-12)


class Block(nn.Module):
    """A residual block that calls its own layers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Conv2d(4, 4, 3, padding=1, activation="relu")

    def forward(self, x):
        return self.second(self.first(x), residual=x)


def test_networks():
    """At any depth; what is used twice, hooked or called by a module of one's own stays."""
    shared = nn.Conv2d(4, 4, 1)
    hooked = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
    calls = []
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), with_statistics(nn.BatchNorm2d(4)), nn.ReLU6()),
        Block(),
        *(shared, nn.ReLU(), shared, nn.Hardswish()),
        hooked,
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 5), nn.GELU("tanh"), nn.Linear(5, 2)),
    )
    hooked[0].register_forward_hook(lambda *_: calls.append(1))
    state = {name: value.copy() for name, value in net.state_dict().items()}
    fused = nn.utils.fuse(net)
    x = cases.reals((2, 3, 6, 6), 1)
    expected = net.eval()(x).data
    assert_allclose(fused(x).data, expected, rtol=2e-5, atol=2e-5 * np.abs(expected).max())
    kinds = [type(module).__name__ for module in fused.modules()]
    assert kinds.count("BatchNorm2d") == kinds.count("ReLU6") == kinds.count("GELU") == 0
    assert kinds.count("ReLU") == 2  # behind the shared and the hooked convolution
    assert len(calls) == 2
    for name, value in net.state_dict().items():
        assert_array_equal(value, state[name])
    assert not any(module.training for module in fused.modules())


def test_normalisation_of_another_axis_is_left_alone():
    net = nn.Sequential(nn.Linear(5, 7), with_statistics(nn.BatchNorm1d(3)), nn.ReLU())
    x = cases.reals((2, 3, 5), 1)
    assert_allclose(nn.utils.fuse(net)(x).data, net.eval()(x).data)


def test_bad_input():
    conv, bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    with pytest.raises(ValueError, match="fuse_conv_bn_eval: both modules must be in eval mode"):
        nn.utils.fuse_conv_bn_eval(conv, bn)
    with pytest.raises(ValueError, match="one feature per output channel, 4, got .*=5"):
        nn.utils.fuse_conv_bn_eval(conv.eval(), nn.BatchNorm2d(5).eval())
    with pytest.raises(ValueError, match="bn keeps no running statistics"):
        nn.utils.fuse_conv_bn_eval(conv, nn.BatchNorm2d(4, track_running_stats=False).eval())
    with pytest.raises(TypeError, match="fuse: model must be a Module, got function"):
        nn.utils.fuse(lamina.tensor)


@pytest.mark.torch
def test_weights_against_torch():
    torch = pytest.importorskip("torch")
    shapes = [(4, 3, 3, 3), (4,), (4,), (4,), (4,), (4,)]
    arrays = [np.abs(cases.reals(s, i, np.float64)) + 0.1 for i, s in enumerate(shapes)]
    ours = nn.utils.fuse_conv_bn_weights(
        *map(lamina.tensor, arrays[:4]), 1e-3, *map(lamina.tensor, arrays[4:])
    )
    given = [torch.from_numpy(a) for a in arrays]
    theirs = torch.nn.utils.fusion.fuse_conv_bn_weights(*given[:4], 1e-3, *given[4:])
    for a, b in zip(ours, theirs, strict=True):
        assert_allclose(a.data, b.detach().numpy(), rtol=1e-13)
