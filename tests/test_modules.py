"""Every layer against torch's: repr, state_dict, value and gradients from the same arguments.

Values and gradients in float64, relative to the largest: a layer sums fewer than 1000 products, and
functions of slope below 10 follow: 1e-12.
"""

from __future__ import annotations

from collections import OrderedDict

import cases
import lamina
import numpy as np
import pytest
from lamina import nn
from numpy.testing import assert_allclose, assert_array_equal

IMAGE, FLAT, LINE, CUBE = (2, 4, 7, 6), (5, 6), (2, 4, 9), (2, 4, 5, 4, 3)
LABELS = np.array([1, 0, 5, 3, 2])

# name, constructor arguments, inputs: shapes, or arrays that need no gradient
LAYERS = [
    ("Linear", (6, 3), {}, [FLAT]),
    ("Linear", (6, 3), {"bias": False}, [FLAT]),
    ("Bilinear", (6, 3, 4), {}, [FLAT, (5, 3)]),
    ("Identity", (), {}, [FLAT]),
    ("Flatten", (), {}, [IMAGE]),
    ("Unflatten", (1, (2, 3)), {}, [FLAT]),
    ("Conv1d", (4, 6, 3), {"padding": 1, "groups": 2}, [LINE]),
    ("Conv2d", (4, 6, (3, 2)), {"stride": 2, "bias": False}, [IMAGE]),
    ("Conv2d", (4, 6, 3), {"padding": "same", "dilation": 2}, [IMAGE]),
    ("Conv2d", (4, 6, 3), {"padding": (1, 2), "padding_mode": "reflect"}, [IMAGE]),
    ("Conv2d", (4, 6, 3), {"padding": "same", "padding_mode": "circular"}, [IMAGE]),
    ("Conv1d", (4, 6, 4), {"padding": "same", "padding_mode": "replicate"}, [LINE]),
    ("Conv3d", (4, 2, 2), {"padding": 1, "padding_mode": "replicate"}, [CUBE]),
    ("ConvTranspose1d", (4, 6, 3), {"stride": 2, "output_padding": 1}, [LINE]),
    ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "padding": 1, "groups": 2}, [IMAGE]),
    ("ConvTranspose3d", (4, 2, 2), {"dilation": 2, "bias": False}, [CUBE]),
    ("BatchNorm1d", (6,), {}, [FLAT]),
    ("BatchNorm2d", (4,), {"momentum": None, "eps": 1e-3}, [IMAGE]),
    ("BatchNorm3d", (4,), {"affine": False, "track_running_stats": False}, [CUBE]),
    ("InstanceNorm1d", (4,), {}, [LINE]),
    ("InstanceNorm2d", (4,), {"affine": True, "track_running_stats": True}, [IMAGE]),
    ("InstanceNorm2d", (4,), {}, [IMAGE[1:]]),
    ("InstanceNorm3d", (4,), {"affine": True}, [CUBE]),
    ("GroupNorm", (2, 4), {}, [IMAGE]),
    ("LayerNorm", ((7, 6),), {}, [IMAGE]),
    ("LayerNorm", (6,), {"bias": False}, [FLAT]),
    ("RMSNorm", (6,), {}, [FLAT]),
    ("RMSNorm", ((7, 6),), {"eps": 0.1, "elementwise_affine": False}, [IMAGE]),
    ("LocalResponseNorm", (3,), {"alpha": 0.4}, [IMAGE]),
    ("Softmax2d", (), {}, [IMAGE]),
    ("Unfold", (2,), {"padding": 1}, [IMAGE]),
    ("Fold", ((3, 4), 2), {}, [(2, 8, 6)]),
    ("CosineSimilarity", (), {"dim": 1}, [IMAGE, IMAGE]),
    ("PairwiseDistance", (), {"p": 3.0, "keepdim": True}, [FLAT, FLAT]),
    ("ZeroPad2d", ((1, 2, 0, -1),), {}, [IMAGE]),
    ("L1Loss", (), {}, [FLAT, FLAT]),
    ("L1Loss", (), {"size_average": False}, [FLAT, FLAT]),
    ("MSELoss", (), {"reduction": "sum"}, [FLAT, FLAT]),
    ("MSELoss", (), {"reduce": False}, [FLAT, FLAT]),
    ("SmoothL1Loss", (), {"beta": 0.3}, [FLAT, FLAT]),
    ("HuberLoss", (), {"delta": 0.4, "reduction": "none"}, [FLAT, FLAT]),
    ("KLDivLoss", (), {"reduction": "batchmean", "log_target": True}, [FLAT, FLAT]),
    ("BCELoss", (), {}, [lambda: cases.reals(FLAT, 1, np.float64) * 0 + 0.3, "bits"]),
    ("BCEWithLogitsLoss", (), {"pos_weight": "positive"}, [FLAT, "bits"]),
    ("NLLLoss", (), {"ignore_index": 2}, [FLAT, LABELS]),
    ("CrossEntropyLoss", (), {"label_smoothing": 0.1, "weight": "positive"}, [FLAT, LABELS]),
    ("PoissonNLLLoss", (), {"full": True}, [FLAT, "positive"]),
    ("GaussianNLLLoss", (), {"full": True}, [FLAT, FLAT, "positive"]),
    ("HingeEmbeddingLoss", (), {"margin": 0.7}, [FLAT, "signs"]),
    ("SoftMarginLoss", (), {}, [FLAT, "signs"]),
    ("MarginRankingLoss", (), {"margin": 0.2}, [FLAT, FLAT, "signs"]),
    ("CosineEmbeddingLoss", (), {"margin": 0.1}, [FLAT, FLAT, np.array([1, -1, 1, 1, -1])]),
    ("MultiMarginLoss", (), {"p": 2, "margin": 0.8}, [FLAT, LABELS]),
    ("MultiLabelMarginLoss", (), {}, [FLAT, np.tile([3, 0, -1, 1, 2, 4], (5, 1))]),
    ("MultiLabelSoftMarginLoss", (), {}, [FLAT, "bits"]),
    ("TripletMarginLoss", (), {"swap": True, "margin": 2.0}, [FLAT, FLAT, FLAT]),
    ("TripletMarginWithDistanceLoss", (), {"margin": 3.0}, [FLAT, FLAT, FLAT]),
    ("ReLU6", (), {}, [IMAGE]),
    ("PReLU", (4,), {}, [IMAGE]),
    ("GLU", (), {"dim": 1}, [IMAGE]),
    ("MaxPool2d", (2,), {}, [IMAGE]),
    ("AdaptiveAvgPool2d", ((3, 2),), {}, [IMAGE]),
]


def special(word):
    x = cases.reals(FLAT, 7, np.float64)
    named = {"bits": (x > 0) * 1.0, "signs": np.sign(x), "positive": abs(x) + 0.1}
    return named[word] if word != "class" else named["positive"][0]


def build(module, name, arguments, options, to_tensor):
    plain = {
        key: to_tensor(special("positive")[0]) if value == "positive" else value
        for key, value in options.items()
    }
    return getattr(module, name)(*arguments, **plain)


def make_inputs(inputs):
    """(array, whether it needs a gradient)"""
    for seed, entry in enumerate(inputs):
        if isinstance(entry, tuple):
            yield cases.reals(entry, seed, np.float64), True
        elif callable(entry):
            yield entry(), True
        else:
            yield (special(entry) if isinstance(entry, str) else entry), False


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:size_average:UserWarning")
@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize(
    ("name", "arguments", "options", "inputs"),
    LAYERS,
    ids=[f"{i}-{layer[0]}" for i, layer in enumerate(LAYERS)],
)
def test_layer_as_in_torch(name, arguments, options, inputs):
    torch = pytest.importorskip("torch")
    theirs = build(torch.nn, name, arguments, options, torch.tensor).double()
    ours = build(nn, name, arguments, options, lamina.tensor).double()
    if name != "BatchNorm2d" or options:
        assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    rng = np.random.default_rng(0)
    for value in theirs.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.tensor(rng.uniform(0.5, 1.5, tuple(value.shape))))
    ours.load_state_dict({k: v.detach().numpy().copy() for k, v in theirs.state_dict().items()})
    pairs = list(make_inputs(inputs))
    a = [lamina.tensor(x, requires_grad=g) for x, g in pairs]
    b = [torch.tensor(x, requires_grad=g) for x, g in pairs]
    y, expected = ours(*a), theirs(*b)
    grad = cases.reals(y.shape, 9, np.float64)
    leaves = [t for t, (_, g) in zip(b, pairs, strict=True) if g] + list(theirs.parameters())
    expected.backward(torch.tensor(grad))
    y.backward(grad)
    compare(y.data, expected)
    own = [t for t, (_, g) in zip(a, pairs, strict=True) if g] + list(ours.parameters())
    for mine, other in zip(own, leaves, strict=True):
        compare(mine.grad.data, other.grad)
    for key, value in theirs.state_dict().items():  # running statistics
        compare(ours.state_dict()[key], value)


def compare(actual, expected):
    expected = expected.detach().numpy()
    assert actual.shape == expected.shape
    assert_allclose(actual, expected, rtol=0, atol=1e-12 * max(np.abs(expected).max(initial=0), 1))


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
