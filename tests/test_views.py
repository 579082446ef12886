"""Shapes, orders and slices by the compiled views: what NumPy shows, and its gradient."""

from __future__ import annotations

import lamina
import numpy as np
import pytest


def values(*shape, dtype=np.float32):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


# name: (of a Tensor, of an array, shape)
VIEWS = {
    "reshape": (lambda x: x.reshape(4, 6), lambda x: x.reshape(4, 6), (2, 3, 4)),
    "reshape of a list": (lambda x: x.reshape([6, -1]), lambda x: x.reshape(6, 4), (2, 3, 4)),
    "reshape to one": (lambda x: x.reshape(-1), lambda x: x.reshape(-1), (2, 3, 4)),
    "reshape to none": (lambda x: x.reshape(()), lambda x: x.reshape(()), (1, 1)),
    "flatten": (lambda x: x.flatten(1), lambda x: x.reshape(2, 12), (2, 3, 4)),
    "flatten the first": (lambda x: x.flatten(0, -2), lambda x: x.reshape(6, 4), (2, 3, 4)),
    "squeeze": (lambda x: x.squeeze(), lambda x: x.squeeze(), (1, 3, 1, 4)),
    "squeeze one": (lambda x: x.squeeze(-2), lambda x: x.squeeze(2), (1, 3, 1, 4)),
    "squeeze nothing": (lambda x: x.squeeze(1), lambda x: x, (1, 3, 1, 4)),
    "unsqueeze": (lambda x: x.unsqueeze(1), lambda x: x[:, None], (2, 3)),
    "unsqueeze last": (lambda x: x.unsqueeze(-1), lambda x: x[..., None], (2, 3)),
    "permute": (lambda x: x.permute(2, 0, -2), lambda x: x.transpose(2, 0, 1), (2, 3, 4)),
    "transpose": (lambda x: x.transpose(0, -1), lambda x: x.swapaxes(0, 2), (2, 3, 4)),
    "T": (lambda x: x.T, lambda x: x.T, (2, 3)),
    "expand": (lambda x: x.expand(2, -1, 4), lambda x: np.broadcast_to(x, (2, 3, 4)), (3, 1)),
    "x[1]": (lambda x: x[1], lambda x: x[1], (2, 3, 4)),
    "x[-1, 2]": (lambda x: x[-1, 2], lambda x: x[-1, 2], (2, 3, 4)),
    "x[1, 2] of two": (lambda x: x[1, 2], lambda x: np.asarray(x[1, 2]), (2, 3)),
    "x[..., 1]": (lambda x: x[..., 1], lambda x: x[..., 1], (2, 3, 4)),
    "x[0, ..., None]": (lambda x: x[0, ..., None], lambda x: x[0, ..., None], (2, 3, 4)),
    "x[:, 1:]": (lambda x: x[:, 1:], lambda x: x[:, 1:], (2, 3, 4)),
    "x[::-1, ::2]": (lambda x: x[::-1, ::2], lambda x: x[::-1, ::2], (2, 3, 4)),
    "x[5:]": (lambda x: x[5:], lambda x: x[5:], (2, 3)),
    "x[-9:9]": (lambda x: x[-9:9], lambda x: x[-9:9], (2, 3)),
    "x[()]": (lambda x: x[()], lambda x: x[()], (2, 3)),
    "narrow": (lambda x: x.narrow(1, 1, 2), lambda x: x[:, 1:3], (2, 3, 4)),
    "split": (lambda x: x.split(2, 1)[1], lambda x: x[:, 2:], (2, 3, 4)),
    "flip": (lambda x: x.flip(-1), lambda x: x[..., ::-1], (2, 3, 5)),
    "flip two": (lambda x: x.flip((0, 2)), lambda x: x[::-1, :, ::-1], (2, 3, 5)),
    "chain": (
        lambda x: x.permute(2, 0, 1)[1:, :, ::2].unsqueeze(0).squeeze(),
        lambda x: x.transpose(2, 0, 1)[1:, :, ::2],
        (2, 3, 4),
    ),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int8, np.bool_])
def test_views_show_what_numpy_shows(name, dtype):
    function, of_array, shape = VIEWS[name]
    x = np.asarray(values(*shape) * 9, dtype)
    for source in (x, np.asfortranarray(x), np.repeat(x, 2, -1)[..., ::2]):
        tensor = lamina.Tensor(source)
        y = function(tensor)
        assert type(y) is lamina.Tensor and not y.requires_grad
        np.testing.assert_array_equal(y.numpy(), of_array(source), strict=True)
        if source is x and y.numel():
            assert np.shares_memory(y.numpy(), x)
            assert y._version is tensor._version is not None


@pytest.mark.parametrize("name", VIEWS)
def test_gradients_of_views(name):
    function, of_array, shape = VIEWS[name]
    places = np.arange(np.prod(shape)).reshape(shape)
    for order in "CF":
        x = lamina.Tensor(np.asarray(values(*shape), order=order), requires_grad=True)
        y = function(x)
        weights = values(*y.shape)
        expected = np.zeros(shape, np.float32)
        np.add.at(expected.reshape(-1), of_array(places), weights)
        (y * weights).sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_gradients_of_views_are_not_shared():
    x = lamina.tensor(values(2, 3), requires_grad=True)
    y, seed = x.reshape(3, 2), values(3, 2)
    z = y + y.reshape(-1).reshape(3, 2) + x.T.reshape(3, 2)
    kept = seed.copy()
    z.backward(seed)
    np.testing.assert_array_equal(seed, kept)
    expected = 2 * seed.reshape(2, 3) + seed.reshape(3, 2).T
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-6)
    x.grad = None
    x.reshape(6).backward(flat := values(6))
    x.reshape(6).backward(flat)
    np.testing.assert_array_equal(x.grad.numpy(), 2 * flat.reshape(2, 3))
    np.testing.assert_array_equal(flat, values(6))


def test_writes_show_in_views_and_stop_backward():
    x = lamina.tensor(values(2, 3))
    row = x[1]
    row.fill_(7)
    assert (x.numpy()[1] == 7).all()
    w = lamina.tensor(values(2, 3), requires_grad=True)
    y = w * x
    with lamina.no_grad():
        row.fill_(1)
    with pytest.raises(RuntimeError, match="written in place"):
        y.backward(values(2, 3))


def test_views_of_what_was_recorded():
    x = lamina.tensor(values(2, 3), requires_grad=True)
    y = x[0]
    assert repr(y.grad_fn) == "<IndexBackward>" and y.requires_grad and not y.is_leaf
    assert repr(x.reshape(6).grad_fn) == "<ReshapeBackward>"
    y.register_hook(lambda gradient: gradient * 2)
    for _ in range(2):  # nothing was kept
        x.grad = None
        y.backward(np.ones(3, np.float32))
        assert x.grad.tolist() == [[2, 2, 2], [0, 0, 0]]
    with lamina.no_grad():
        assert not x[0].requires_grad
    assert not x.detach().T.requires_grad


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda x: x.reshape(4, 2), ValueError, "reshape: shape must hold 6 elements"),
        (lambda x: x.reshape(-1, -1), ValueError, "at most one size"),
        (lambda x: x.reshape(-2, 3), ValueError, "reshape"),
        (lambda x: x.reshape(2.0, 3), TypeError, "reshape: sizes must be integers"),
        (lambda x: x.reshape(True, 6), TypeError, "reshape: sizes must be integers"),
        (lambda x: x.permute(0, 0), ValueError, "permute: dims must name each"),
        (lambda x: x.permute(0), ValueError, "permute"),
        (lambda x: x.transpose(0, 2), ValueError, "transpose: dim must be from"),
        (lambda x: x.transpose(0, 1.5), TypeError, "transpose: dim must be an integer"),
        (lambda x: x.flatten(1, 0), ValueError, "flatten: start_dim"),
        (lambda x: x.unsqueeze(3), ValueError, "unsqueeze: dim must be from -3 to 2"),
        (lambda x: x.squeeze(2), ValueError, "squeeze: dim must be from"),
        (lambda x: x.expand(3, 3), ValueError, "expand: x must broadcast"),
        (lambda x: x[2], IndexError, "getitem: index must lie within"),
        (lambda x: x[0, 0, 0], IndexError, "getitem"),
        (lambda x: x[..., ...], IndexError, "getitem"),
        (lambda x: x[1.5], TypeError, "getitem: index must be integers"),
        (lambda x: x["a"], TypeError, "getitem: index must be integers"),
        (lambda x: x[::0], ValueError, "getitem: a slice's step must not be 0"),
    ],
)
def test_bad_arguments(call, error, match):
    for grad in (False, True):
        x = lamina.tensor(values(2, 3), requires_grad=grad)
        for _ in range(2):
            with pytest.raises(error, match=match):
                call(x)


def test_expanded_memory_is_read_only():
    x = lamina.tensor(values(3, 1))
    y = x.expand(3, 4)
    with pytest.raises(ValueError, match="read-only"):
        y.fill_(1)
