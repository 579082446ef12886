"""Containers, state, hooks and bad input of layers. Their results: test_parity and the families."""

from __future__ import annotations

import inspect
import warnings
from collections import OrderedDict

import lamina
import lamina.functional as F
import numpy as np
import pytest
from lamina import nn
from lamina.bench.parity_cases import LAYERS
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


def test_sums_products_and_names_of_containers():
    relu, tanh = nn.ReLU(), nn.Tanh()
    assert list(nn.Sequential(relu) + nn.Sequential(tanh)) == [relu, tanh]
    assert list(2 * nn.Sequential(relu, tanh)) == [relu, tanh] * 2
    assert list(nn.ModuleList([relu]) + [tanh]) == [relu, tanh]
    assert list(reversed(nn.ModuleList([relu, tanh]))) == [tanh, relu]
    several = nn.Sequential(relu)
    several += [tanh]
    several *= 2
    assert len(several) == 4
    assert tanh in several
    named = nn.Sequential(OrderedDict(a=relu, b=tanh, c=nn.Sigmoid()))
    assert list(dict(named[1:].named_children())) == ["b", "c"]
    del named[0]
    assert list(dict(named.named_children())) == ["0", "1"]


def test_shared_modules_have_every_name_in_the_state():
    """As in torch's files: a network that uses a layer twice saves it under both names."""
    layer = nn.Linear(2, 2)
    twice = nn.Sequential(layer, layer)
    names = ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert list(twice.state_dict()) == names
    assert [n for n, _ in twice.named_parameters(remove_duplicate=False)] == names
    assert [n for n, _ in twice.named_parameters()] == names[:2]
    assert len(list(twice.children())) == 1
    x = np.ones((1, 2), np.float32)
    assert_array_equal(twice(x).data, layer(layer(x)).data)
    assert twice.load_state_dict(twice.state_dict()) == ([], [])


def test_members_by_path_and_conversion():
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    assert network.get_parameter("0.weight") is network[0].weight
    assert network.get_buffer("1.running_var") is network[1].running_var
    network(lamina.Tensor(np.ones((4, 2), np.float32))).sum().backward()
    network.to(dtype=np.float64)
    assert {p.dtype for p in network.parameters()} == {np.dtype(np.float64)}
    assert {p.grad.dtype for p in network.parameters()} == {np.dtype(np.float64)}
    assert network[1].num_batches_tracked.dtype == np.int64
    network[1].reset_parameters()
    assert_array_equal(network[1].running_var.data, 1)
    assert network[1].num_batches_tracked.item() == 0


def test_options_are_attributes():
    relu = nn.LeakyReLU(0.2, inplace=True)
    assert (relu.negative_slope, relu.inplace) == (0.2, True)
    assert repr(relu) == "LeakyReLU(negative_slope=0.2, inplace=True)"
    pool = nn.MaxPool2d(2)
    pool.stride = 1
    assert pool(np.ones((1, 3, 3), np.float32)).shape == (1, 2, 2)


def test_layers_without_parameters_take_plain_arrays():
    for layer, shape in ((nn.Flatten(), (2, 20)), (nn.Unflatten(-1, (5, -1)), (2, 4, 5, 1))):
        assert type(layer(np.ones((2, 4, 5)))) is np.ndarray
        assert layer(np.ones((2, 4, 5))).shape == shape
        assert layer(np.ones((0, 4, 5))).shape == (0, *shape[1:])


# What torch's layers also hold, and a layer here does without.
WITHOUT = {
    "Embedding": {"sparse", "_weight", "_freeze"},
    "EmbeddingBag": {"sparse", "_weight"},
    "Hardtanh": {"min_value", "max_value"},
    "Upsample": {"name"},
    "UpsamplingNearest2d": {"name"},
    "UpsamplingBilinear2d": {"name"},
}


@pytest.mark.torch
@pytest.mark.parametrize("name", LAYERS)
def test_constructors_and_attributes_as_in_torch(name):
    """The same arguments in the same order with the same defaults; all of them attributes."""
    torch = pytest.importorskip("torch")
    ours, theirs = getattr(nn, name), getattr(torch.nn, name)
    without = WITHOUT.get(name, set())
    wanted = [
        (p.name, p.default)
        for p in inspect.signature(theirs.__init__).parameters.values()
        if p.name not in {"args", "kwargs", "device", "dtype", *without}
    ]
    given = [(p.name, p.default) for p in inspect.signature(ours.__init__).parameters.values()]
    assert [pair for pair in given if pair[0] != "dtype"][: len(wanted)] == wanted
    layer = LAYERS[name][0]
    options = [
        {k: make(v) if isinstance(v, np.ndarray) else v for k, v in layer.options.items()}
        for make in (lamina.tensor, torch.tensor)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # size_average and reduce
        mine, other = ours(*layer.arguments, **options[0]), theirs(*layer.arguments, **options[1])
    for attribute, value in vars(other).items():
        if not attribute.startswith("_") and attribute not in without:
            assert getattr(mine, attribute) == value, attribute


@pytest.mark.torch
def test_containers_print_as_in_torch():
    torch = pytest.importorskip("torch")

    def build(nn):
        equal = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU(True), nn.Linear(2, 2)])
        parts = nn.ModuleDict([("x", nn.Sequential(nn.Tanh(), equal)), ("y", nn.ModuleList())])
        shared = nn.Conv2d(2, 2, 3, padding="same", padding_mode="circular")
        return nn.Sequential(parts, shared, shared, nn.Unflatten(1, [1, 2]))

    assert repr(build(nn)) == repr(build(torch.nn))
    loaded = torch.nn.Linear(2, 2).load_state_dict(torch.nn.Linear(2, 2).state_dict())
    assert repr(nn.Linear(2, 2).load_state_dict(nn.Linear(2, 2).state_dict())) == repr(loaded)


def test_load_state_dict_tells_what_is_left():
    layer = nn.Linear(2, 3)
    result = layer.load_state_dict({"weight": np.zeros((3, 2)), "other": np.ones(1)}, strict=False)
    assert result == (["bias"], ["other"])
    assert_array_equal(layer.weight.data, 0)
    assert layer.load_state_dict(layer.state_dict()) == ([], [])


@pytest.mark.parametrize(
    "name", ["Conv2d", "ConvTranspose1d", "AvgPool3d", "BatchNorm2d", "ZeroPad2d"]
)
def test_type_errors_name_the_layer(name):
    with pytest.raises(TypeError, match=rf"^{name}\.__init__\(\) missing"):
        getattr(nn, name)()
    with pytest.raises(TypeError, match=rf"^{name}\.__init__\(\) got an unexpected keyword"):
        getattr(nn, name)(no_such_option=1)


def test_loading_between_forward_and_backward_is_seen():
    layer = nn.Linear(3, 4)
    x = lamina.tensor(np.ones((2, 3), np.float32), requires_grad=True)
    y = layer(x).sum()
    layer.load_state_dict(layer.state_dict())
    with pytest.raises(RuntimeError, match="written in place after it was used"):
        y.backward()


def test_hooks_see_calls():
    layer, seen = nn.Linear(2, 3), []
    handle = layer.register_forward_hook(lambda module, args, result: seen.append(result.shape))
    layer.register_forward_pre_hook(lambda module, args: (args[0] * 0,))
    y = layer(lamina.Tensor(np.ones((4, 2), np.float32)))
    assert_array_equal(y.data, np.broadcast_to(layer.bias.data, (4, 3)))
    handle.remove()
    layer(lamina.Tensor(np.ones((4, 2), np.float32)))
    assert seen == [(4, 3)]


class Pair(nn.Module):
    def forward(self, a, b, text=None):
        return a * b, b * 2


@pytest.mark.torch
def test_backward_hooks_like_torch():
    """What they see and what they replace: of layers in layers, and of several arguments."""
    torch = pytest.importorskip("torch")

    class TorchPair(torch.nn.Module):
        forward = Pair.forward

    def lists(gradients):
        return [None if g is None else g.tolist() for g in gradients]

    def seen(library, pair):
        log = []

        def note(module, grad_input, grad_output):
            log.append((type(module).__name__[-4:], lists(grad_input), lists(grad_output)))

        def double(module, grad_input, grad_output):
            return tuple(g * 2 for g in grad_input)

        net = library.nn.Sequential(
            library.nn.Linear(2, 2), library.nn.ReLU(), library.nn.Linear(2, 1)
        )
        rng = np.random.default_rng(1)
        net.load_state_dict(
            {
                k: library.tensor(rng.integers(-3, 3, v.shape) + 0.5)
                for k, v in zip(net.state_dict(), net.parameters(), strict=True)
            }
        )
        for module in net.modules():
            module.register_full_backward_hook(note)
        net[1].register_full_backward_hook(double)
        x = library.tensor([[1.0, -2.0], [0.5, 3.0]], requires_grad=True)
        y = net(x).sum()
        y.backward(retain_graph=True)
        y.backward()
        with library.no_grad():
            net(x)
        pair = pair()
        handle = pair.register_full_backward_hook(note)
        a = library.tensor([1.0, 3.0], requires_grad=True)
        first, second = pair(a, a)
        (first * second).sum().backward()
        sum(pair(a, library.tensor([5.0, 2.0], requires_grad=True))).sum().backward()
        handle.remove()
        pair(a, a)[0].sum().backward()
        return log, x.grad.tolist(), net[0].weight.grad.tolist(), a.grad.tolist()

    assert seen(lamina, Pair) == seen(torch, TorchPair)


def test_backward_hooks_without_gradients_of_arguments():
    log = []
    table = nn.Embedding(3, 2)
    table.register_full_backward_hook(lambda module, *gradients: log.append(gradients))
    table(np.array([1, 2])).sum().backward()
    ((grad_input, (grad_output,)),) = log
    assert grad_input == (None,) and grad_output.tolist() == [[1, 1], [1, 1]]
    pair = Pair()
    pair.register_full_backward_hook(lambda module, grad_input, grad_output: grad_input[:1])
    with pytest.raises(RuntimeError, match="as many gradients as there are arguments, 3, got 1"):
        pair(lamina.tensor([1.0], requires_grad=True), 2.0, "text")[0].backward()


def test_backward_hooks_beside_writes_in_place():
    """A layer in place writes to no leaf, and to no array that backward needs."""
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Sigmoid(), nn.ReLU(inplace=True))
    x = lamina.tensor([[1.0, -2.0]], requires_grad=True)
    F.relu(x).sigmoid().sum().backward()
    expected = x.grad.tolist()
    for module in net:
        module.register_full_backward_hook(lambda *_: None)
    x.grad = None
    net(x).sum().backward()
    assert x.tolist() == [[1, -2]] and x.grad.tolist() == expected


def test_layers_with_backward_hooks_are_not_fused():
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.ReLU())
    net[1].register_full_backward_hook(lambda *_: None)
    assert [type(m).__name__ for m in nn.utils.fuse(net)] == ["Conv2d", "BatchNorm2d", "ReLU"]


def test_bilinear_without_features():
    bias = np.arange(4.0)
    assert_array_equal(F.bilinear(*NOTHING, bias), np.tile(bias, (2, 1)))


NOTHING = np.ones((2, 0)), np.ones((2, 3)), np.ones((4, 0, 3))
R, B = np.ones((2, 3), np.float32), np.ones((4, 2, 3), np.float32)
L = R[:, :2]
ROWS, LAST = "equal leading axes", "normalized_shape must be the last axes"
BAD_FUNCTIONS = [
    (lambda: F.bilinear(L, R, B[0]), ValueError, "weight must have 3 dimensions"),
    (lambda: F.bilinear(R, R, B), ValueError, ROWS),
    (lambda: F.bilinear(L, L, B), ValueError, ROWS),
    (lambda: F.bilinear(L[:1], R, B), ValueError, ROWS),
    (lambda: F.bilinear(L, R[0], B), ValueError, ROWS),
    (lambda: F.bilinear(L, R, B, R[0]), ValueError, "bias must have shape (4,)"),
    (lambda: F.bilinear(L, R, B, R[:1]), ValueError, "bias must have shape (4,)"),
    (lambda: F.bilinear(L.astype(int), R, B), TypeError, "input1 must be float32 or float64"),
    (lambda: F.bilinear(L.astype(float), R, B), TypeError, "one dtype"),
    (lambda: F.bilinear(L, R.astype(complex), B), TypeError, "input2 must be float32"),
    (lambda: F.bilinear([[1.0, 2]], R[:1], B), TypeError, "input1 must be an array"),
    (lambda: F.bilinear(L, R, None), TypeError, "weight must be an array"),
    (lambda: F.bilinear(L, R, B, 1.0), TypeError, "bias must be an array"),
    (lambda: F.rms_norm(R, 4), ValueError, LAST),
    (lambda: F.rms_norm(R, ()), ValueError, LAST),
    (lambda: F.rms_norm(R, (1, 2, 3)), ValueError, LAST),
    (lambda: F.rms_norm(R, 3.0), TypeError, "normalized_shape must be an integer"),
    (lambda: F.rms_norm(R, None), TypeError, "normalized_shape must be an integer"),
    (lambda: F.rms_norm(R[:, :0], 0), ValueError, "normalized_shape must be at least 1"),
    (lambda: F.rms_norm(R, 3, R), ValueError, "weight must have shape (3,)"),
    (lambda: F.rms_norm(R, 3, R[0].astype(float)), TypeError, "one dtype"),
    (lambda: F.rms_norm(R, 3, R[0].astype(int)), TypeError, "weight must be float32"),
    (lambda: F.rms_norm(R, 3, None, -1.0), ValueError, "eps must not be negative"),
    (lambda: F.rms_norm(R, 3, None, np.nan), ValueError, "eps must not be negative"),
    (lambda: F.rms_norm(R, 3, None, "e"), TypeError, "eps must be a number"),
    (lambda: F.rms_norm(R.astype(int), 3), TypeError, "input must be float32"),
    (lambda: F.rms_norm([1.0], 1), TypeError, "input must be an array"),
    (lambda: F.normalize(R, dim=2), ValueError, "dim must be from -2 to 1"),
    (lambda: F.normalize(R, dim=(0, 2)), ValueError, "dim must be from -2 to 1"),
    (lambda: F.normalize(R, dim=(1, -1)), ValueError, "each axis once"),
    (lambda: F.normalize(R, dim=1.0), TypeError, "dim must be an integer"),
    (lambda: F.normalize(R, dim=True), TypeError, "dim must be an integer"),
    (lambda: F.normalize(R[0]), ValueError, "dim must be from -1 to 0"),
    (lambda: F.normalize(R, "2"), TypeError, "p must be a number"),
    (lambda: F.normalize(R, 1j), TypeError, "p must be a number"),
    (lambda: F.normalize(R, np.nan), ValueError, "p must be a number"),
    (lambda: F.normalize(R, eps=-1.0), ValueError, "eps must not be negative"),
    (lambda: F.normalize(R, eps="e"), TypeError, "eps must be a number"),
    (lambda: F.normalize(R.astype(int)), TypeError, "input must be float32"),
    (lambda: F.normalize("a"), TypeError, "input must be an array"),
    (lambda: F.one_hot(np.array([-1])), ValueError, "must not be negative"),
    (lambda: F.one_hot(np.array([3]), 3), ValueError, "above the largest index 3"),
    (lambda: F.one_hot(np.array([1]), 0), ValueError, "above the largest index 1"),
    (lambda: F.one_hot(np.zeros(0, int)), ValueError, "num_classes must be given"),
    (lambda: F.one_hot(np.array([1]), 2.0), TypeError, "num_classes must be an integer"),
    (lambda: F.one_hot(np.array([1]), None), TypeError, "num_classes must be an integer"),
    (lambda: F.one_hot(np.array([1]), True), TypeError, "num_classes must be an integer"),
    (lambda: F.one_hot(R), TypeError, "array of integers"),
    (lambda: F.one_hot(np.array([True])), TypeError, "array of integers"),
    (lambda: F.one_hot(np.array(["a"])), TypeError, "array of integers"),
    (lambda: F.one_hot([1]), TypeError, "array of integers"),
    (lambda: F.one_hot(None), TypeError, "array of integers"),
    (lambda: F.one_hot(np.array([2**40])), MemoryError, "more than the"),
]
X = np.ones((2, 4, 5, 5), np.float32)
BAD = [
    (lambda: nn.Conv2d(4, 6, 3, padding_mode="mirror"), ValueError, "padding_mode must be one of"),
    (lambda: nn.ConvTranspose2d(4, 6, 3, padding_mode="reflect"), ValueError, "padding_mode must"),
    (lambda: nn.Conv2d(4, 6, 3, groups=3), ValueError, "groups must divide in_channels"),
    (lambda: nn.Conv2d(4, 6, 3, padding=-1), ValueError, "padding must be at least 0"),
    (lambda: nn.Conv2d(4, 6, 3, padding=9, padding_mode="reflect")(X), ValueError, "pads of at"),
    (lambda: nn.InstanceNorm2d(3)(X), ValueError, "num_features=3 channels"),
    (lambda: nn.InstanceNorm1d(4)(X), ValueError, "input must have 2 or 3"),
    (lambda: nn.Linear(2, -1), ValueError, "Linear: out_features must be at least 0, got out_fea"),
    (lambda: nn.BatchNorm2d(-1), ValueError, "BatchNorm2d: num_features must be at least 1, got"),
    (lambda: nn.InstanceNorm1d("a"), TypeError, "InstanceNorm1d: num_features must be an integer"),
    (lambda: nn.GroupNorm(0, 4), ValueError, "GroupNorm: num_groups must be at least 1"),
    (lambda: nn.GroupNorm(3, 4), ValueError, "GroupNorm: num_groups must divide num_channels"),
    (lambda: nn.LayerNorm([4, -1]), ValueError, "LayerNorm: normalized_shape must be at least 1"),
    (lambda: nn.RMSNorm(1.5), TypeError, "RMSNorm: normalized_shape must be an integer"),
    (lambda: nn.Linear(2.0, 1), TypeError, "Linear: in_features must be an integer, got in_fea"),
    (
        lambda: nn.Sequential(nn.ReLU),
        TypeError,
        "Sequential: module 0 must be a Module, got the cl",
    ),
    (lambda: nn.Sequential([nn.ReLU()]), TypeError, "got list; unpack it: *modules"),
    (lambda: nn.RMSNorm(4)(X), ValueError, "normalized_shape must be the last axes"),
    (lambda: nn.Bilinear(0, 1, 2), ValueError, "in1_features must be at least 1"),
    (lambda: nn.Bilinear(5, 5, 2)(X, X[:1]), ValueError, "equal leading axes"),
    (lambda: nn.MSELoss(reduction="avg")(X, X), ValueError, "reduction must be one of"),
    (lambda: setattr(nn.Linear(2, 2), "weight", X), TypeError, "weight must be a Parameter"),
    (lambda: setattr(nn.BatchNorm1d(2), "running_var", X), TypeError, "must be a Tensor or None"),
    (lambda: setattr(nn.Sequential(nn.ReLU()), "0", 3), TypeError, "must be a Module or None"),
    (lambda: nn.Linear(2, 2).register_parameter("a.b", None), ValueError, "contain '.'"),
    (lambda: nn.Linear(2, 2).register_buffer("", None), ValueError, "must not be empty"),
    (lambda: nn.Linear(2, 2).register_buffer("weight", None), ValueError, "already has an"),
    (lambda: nn.ModuleDict({"forward": nn.ReLU()}), ValueError, "already has an attribute"),
    (lambda: nn.ModuleDict([3]), TypeError, "takes a mapping or (name, value) pairs"),
    (lambda: nn.Sequential(nn.ReLU())[1], IndexError, "index must be that of one of 1 modules"),
    (lambda: nn.Sequential(nn.ReLU())["a"], TypeError, "index must be an integer"),
    (lambda: nn.ModuleList().insert(1, nn.ReLU()), IndexError, "got index=1"),
    (lambda: nn.Sequential(nn.ReLU()) * 0, ValueError, "times must be at least 1"),
    (lambda: nn.ReLU().train("yes"), ValueError, "mode must be True or False"),
    (lambda: nn.Linear(2, 2).to(np.int32), TypeError, "dtype must be floating"),
    (lambda: nn.Linear(2, 2).get_parameter("scale"), AttributeError, "no parameter 'scale'"),
    (lambda: nn.Unflatten(1, 4), TypeError, "must be a tuple of integers"),
    (lambda: nn.Unflatten(4, (2, 2))(X), ValueError, "dim must be from -4 to 3"),
    (lambda: nn.Unflatten(1, (2, 3))(X), ValueError, "must multiply to the axis 1"),
    (lambda: nn.Sigmoid(dim=1), TypeError, "unexpected keyword"),
    (lambda: F.normalize(X, dim=(1, -3)), ValueError, "each axis once"),
    (lambda: nn.ReLU().load_state_dict([("w", X)]), TypeError, "state must be a mapping"),
    (lambda: nn.PReLU().load_state_dict({"weight": ["a"]}), RuntimeError, "dtype of weight"),
    (lambda: nn.PReLU().load_state_dict({"weight": X}), RuntimeError, "shape of weight"),
    (lambda: nn.PReLU().load_state_dict({}), RuntimeError, "missing: weight"),
    (lambda: nn.BatchNorm2d(4)([1.0]), TypeError, "input must be an array"),
    (lambda: nn.ReflectionPad2d(1)([1.0]), TypeError, "input must be an array"),
    (lambda: nn.Sequential(3), TypeError, "must be a Module"),
    (lambda: nn.ModuleDict({"a": 3}), TypeError, "must be a Module"),
    (lambda: nn.Module()(X), NotImplementedError, "must define forward"),
    (lambda: F.normalize(X, dim=7), ValueError, "dim must be from"),
    (lambda: F.rms_norm(X, 5, np.ones(4, np.float32)), ValueError, "weight must"),
    (lambda: F.pdist(X), ValueError, "input must have 2 dimensions"),
    (lambda: F.pdist(X[0, 0], -1), ValueError, "p must not be negative"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=range(len(BAD)))
def test_bad_input(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)


@pytest.mark.parametrize(("call", "error", "text"), BAD_FUNCTIONS, ids=range(len(BAD_FUNCTIONS)))
def test_bad_input_of_functions(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)
    assert str(caught.value).startswith(("bilinear: ", "rms_norm: ", "normalize: ", "one_hot: "))
