"""Containers, state, hooks and bad input of layers. Their results: test_parity and the families."""

from __future__ import annotations

from collections import OrderedDict

import lamina
import numpy as np
import pytest
from lamina import nn
from numpy.testing import assert_array_equal


def test_containers_behave_like_lists():
    layers = [nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2), nn.Tanh()]
    for container in (nn.Sequential(*layers), nn.ModuleList(layers)):
        assert len(container[1:3]) == 2
        assert type(container[1:3]) is type(container)
        assert container[-1] is layers[3]
        container.append(nn.Sigmoid()).insert(0, nn.Identity()).extend([nn.ReLU()])
        assert [type(m).__name__ for m in container][:2] == ["Identity", "Linear"]
        assert len(container) == 7
        assert type(container.pop()).__name__ == "ReLU"
        del container[0]
        container[0] = nn.Flatten()
        assert isinstance(container[0], nn.Flatten)
        assert [name for name, _ in container.named_children()] == list("01234")
    named = nn.Sequential(OrderedDict(first=nn.ReLU(), second=nn.Tanh()))
    assert list(dict(named.named_children())) == ["first", "second"]


def test_dictionaries():
    modules = nn.ModuleDict({"a": nn.Linear(2, 2)})
    modules["b"] = nn.ReLU()
    assert list(modules) == list(modules.keys()) == ["a", "b"]
    assert "a" in modules
    assert len(list(modules.parameters())) == 2
    modules.pop("a")
    assert [name for name, _ in modules.items()] == ["b"]
    parameters = nn.ParameterDict({"w": np.ones((2, 3), np.float32)})
    parameters["v"] = lamina.Tensor(np.zeros(2, np.float32))
    assert list(parameters.state_dict()) == ["w", "v"]
    assert repr(parameters).splitlines()[0].endswith("[lamina.float32 of size 2x3]")
    several = nn.ParameterList([np.ones(2), np.ones(3)]).append(np.ones(4))
    assert [p.shape for p in several] == [(2,), (3,), (4,)]
    assert len(several[1:]) == 2
    assert list(several.state_dict()) == ["0", "1", "2"]


def test_load_state_dict_tells_what_is_left():
    layer = nn.Linear(2, 3)
    result = layer.load_state_dict({"weight": np.zeros((3, 2)), "other": np.ones(1)}, strict=False)
    assert result == (["bias"], ["other"])
    assert_array_equal(layer.weight.data, 0)
    assert layer.load_state_dict(layer.state_dict()) == ([], [])


def test_hooks_see_calls():
    layer, seen = nn.Linear(2, 3), []
    remove = layer.register_forward_hook(lambda module, args, result: seen.append(result.shape))
    layer.register_forward_pre_hook(lambda module, args: (args[0] * 0,))
    y = layer(lamina.Tensor(np.ones((4, 2), np.float32)))
    assert_array_equal(y.data, np.broadcast_to(layer.bias.data, (4, 3)))
    remove()
    layer(lamina.Tensor(np.ones((4, 2), np.float32)))
    assert seen == [(4, 3)]


X = np.ones((2, 4, 5, 5), np.float32)
BAD = [
    (lambda: nn.Conv2d(4, 6, 3, padding_mode="mirror"), ValueError, "padding_mode must be one of"),
    (lambda: nn.ConvTranspose2d(4, 6, 3, padding_mode="reflect"), ValueError, "padding_mode must"),
    (lambda: nn.Conv2d(4, 6, 3, groups=3), ValueError, "groups must divide in_channels"),
    (lambda: nn.Conv2d(4, 6, 3, padding=-1), ValueError, "padding must be at least 0"),
    (lambda: nn.Conv2d(4, 6, 3, padding=9, padding_mode="reflect")(X), ValueError, "pads of at"),
    (lambda: nn.InstanceNorm2d(3)(X), ValueError, "num_features=3 channels"),
    (lambda: nn.InstanceNorm1d(4)(X), ValueError, "input must have 2 or 3"),
    (lambda: nn.RMSNorm(4)(X), ValueError, "normalized_shape must be the last axes"),
    (lambda: nn.Bilinear(0, 1, 2), ValueError, "in1_features must be at least 1"),
    (lambda: nn.Bilinear(5, 5, 2)(X, X[:1]), ValueError, "equal leading axes"),
    (lambda: nn.MSELoss(reduction="avg")(X, X), ValueError, "reduction must be one of"),
    (lambda: nn.Sequential(3), TypeError, "must be a Module"),
    (lambda: nn.ModuleDict({"a": 3}), TypeError, "must be a Module"),
    (lambda: nn.Module()(X), NotImplementedError, "must define forward"),
    (lambda: lamina.functional.normalize(X, dim=7), ValueError, "dim must be from"),
    (lambda: lamina.functional.rms_norm(X, 5, np.ones(4, np.float32)), ValueError, "weight must"),
    (lambda: lamina.functional.pdist(X), ValueError, "input must have 2 dimensions"),
    (lambda: lamina.functional.pdist(X[0, 0], -1), ValueError, "p must not be negative"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=range(len(BAD)))
def test_bad_input(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)
