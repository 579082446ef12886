"""The graph: custom Functions, hooks, modes, reuse, depth and writes in place."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import warnings
import weakref

import lamina
import numpy as np
import pytest
from lamina import Tensor, autograd
from lamina.autograd import Function
from lamina.testing import gradcheck, integer_array, tolerance


class Square(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad_y):
        (x,) = ctx.saved
        return 2 * x * grad_y


class SumAndDifference(Function):
    """Two results, and a third without a gradient; gradients where none arrives are zeros."""

    @staticmethod
    def forward(ctx, a, b, scale, *, negate=False):
        ctx.scale = -scale if negate else scale
        index = np.argsort(a)
        ctx.mark_non_differentiable(index)
        return ctx.scale * (a + b), ctx.scale * (a - b), index

    @staticmethod
    def backward(ctx, grad_sum, grad_difference, grad_index):
        assert grad_index is None
        return (
            ctx.scale * (grad_sum + grad_difference),
            ctx.scale * (grad_sum - grad_difference) if ctx.needs_input_grad[1] else None,
            None,
        )


def leaf(*values, dtype=np.float64):
    return lamina.tensor(np.array(values, dtype), requires_grad=True)


def test_custom_function():
    x = leaf(1, 2, 3)
    y = Square.apply(x)
    assert repr(y.grad_fn) == "<SquareBackward>" and not y.is_leaf and y.requires_grad
    y.backward(np.array([1.0, 10, 100]))
    assert x.grad.tolist() == [2, 40, 600]
    assert gradcheck(Square.apply, [np.linspace(-1, 1, 7)])


def test_plain_arrays_in_plain_arrays_out():
    y = Square.apply(np.array([3.0]))
    assert type(y) is np.ndarray and y.tolist() == [9]


@pytest.mark.parametrize("which, expected", [(0, (2, 2)), (1, (2, -2))])
def test_several_results(which, expected):
    a, b = leaf(1), leaf(5)
    results = SumAndDifference.apply(a, b, 2.0)
    assert not results[2].requires_grad
    results[which].backward()
    assert (a.grad.item(), b.grad.item()) == expected


def test_keyword_and_needs_input_grad():
    a = leaf(1)
    b = lamina.tensor([5.0], dtype=np.float64)
    SumAndDifference.apply(a, b, 2.0, negate=True)[0].backward()
    assert a.grad.item() == -2 and b.grad is None
    with pytest.raises(TypeError, match="must be positional, got the keyword negate"):
        SumAndDifference.apply(a, b, 2.0, negate=a)


def test_gradient_is_cast_to_the_input():
    x = leaf(1, dtype=np.float32)
    (x.double() * 2).sum().backward()
    assert x.grad.dtype == np.float32


def test_diamond_runs_each_node_once():
    calls = []

    class Traced(Square):
        @staticmethod
        def backward(ctx, grad_y):
            calls.append(grad_y.copy())
            return Square.backward(ctx, grad_y)

    x = leaf(3)
    middle = Traced.apply(x)
    (middle * 2 + middle * middle).backward()
    assert len(calls) == 1 and calls[0].tolist() == [2 + 2 * 9]
    assert x.grad.tolist() == [20 * 6]


def test_one_leaf_in_both_arguments():
    x = leaf(3)
    (x * x + x - x / x).backward()
    assert x.grad.tolist() == [7]


def test_gradients_add_up_and_are_not_shared():
    a, b = leaf(1, 2), leaf(3, 4)
    for _ in range(2):
        (a + b).backward(np.array([1.0, 5]))
    assert a.grad.tolist() == b.grad.tolist() == [2, 10]
    a.grad.zero_()
    assert b.grad.tolist() == [2, 10]


def test_given_gradient_is_not_written():
    seed = np.ones(2)
    x = leaf(1, 2)
    y = x + 0
    (y + y).backward(seed)
    (x + x).backward(seed)
    assert seed.tolist() == [1, 1]


@pytest.mark.parametrize("depth", [5_000, 50_000])
def test_deep_chain(depth):
    x = leaf(1)
    y = x
    for _ in range(depth):
        y = y + 1
    y.backward()
    assert x.grad.item() == 1
    del y
    gc.collect()


def test_backward_does_not_warn():
    x = lamina.tensor(np.full((1, 1), 100, np.float32), requires_grad=True)
    one = np.ones((1, 1), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for activation in ("tanh", "sigmoid", "relu", None):
            for _ in range(2):
                x.grad = None
                y = lamina.functional.linear(x, one, activation=activation) * one
                (y + y).backward(one * np.inf)  # times a slope of 0
                assert not np.isfinite(x.grad.item())


def test_graph_is_freed():
    x = leaf(1, 2)
    y = (Square.apply(x)).sum()
    node = weakref.ref(y.grad_fn)
    y.backward()
    with pytest.raises(RuntimeError, match="freed by an earlier backward.*retain_graph=True"):
        y.backward()
    del y
    assert node() is None  # no reference cycles: memory goes at once


def test_retain_graph():
    x = leaf(2)
    y = Square.apply(x)
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 8


def test_same_bits_every_time():
    data = np.random.default_rng(0).standard_normal((8, 300)).astype(np.float32)

    def run():
        x = lamina.tensor(data, requires_grad=True)
        y = x.tanh()
        (y * x + y.exp() * y.sum(0) - y[:, ::2].mean()).sum().backward()
        return x.grad.numpy()

    assert np.array_equal(run(), run())


def test_modes():
    x = leaf(1)
    with lamina.no_grad():
        assert not lamina.is_grad_enabled() and not (x * 2).requires_grad
        with lamina.enable_grad():
            assert (x * 2).requires_grad
        assert not lamina.is_grad_enabled()
    assert lamina.is_grad_enabled()

    @lamina.no_grad()
    def plain(n):
        assert not lamina.is_grad_enabled()
        return plain(n - 1) if n else x * 2

    assert not plain(3).requires_grad and plain.__name__ == "plain" and lamina.is_grad_enabled()
    with pytest.raises(KeyError), lamina.no_grad():
        raise KeyError
    assert lamina.is_grad_enabled()


@pytest.mark.parametrize("block", [lamina.no_grad, lamina.no_grad(), lamina.set_grad_enabled])
def test_generators_run_inside_the_block(block):
    if block is lamina.set_grad_enabled:
        block = block(False)
        lamina.set_grad_enabled(True)
    log = []

    @block
    def steps(n):
        try:
            for i in range(n):
                try:
                    log.append((yield i, lamina.is_grad_enabled()))
                except KeyError:
                    log.append(lamina.is_grad_enabled())
            return "end"
        finally:
            log.append(lamina.is_grad_enabled())

    generator = steps(3)
    assert next(generator) == (0, False) and lamina.is_grad_enabled()
    assert generator.send("sent") == (1, False) and lamina.is_grad_enabled()
    assert generator.throw(KeyError()) == (2, False)
    with pytest.raises(StopIteration, match="end"):
        next(generator)
    assert log == ["sent", False, None, False] and lamina.is_grad_enabled()
    generator = steps(2)
    next(generator)
    generator.close()
    assert log[4:] == [False] and lamina.is_grad_enabled()


def test_decorator_without_a_call():
    plain = lamina.no_grad(lamina.is_grad_enabled)
    assert not plain() and lamina.is_grad_enabled() and plain.__name__ == "is_grad_enabled"


def test_set_grad_enabled():
    lamina.set_grad_enabled(False)
    assert not lamina.is_grad_enabled()
    lamina.set_grad_enabled(True)
    with lamina.set_grad_enabled(False):
        assert not lamina.is_grad_enabled()
    assert lamina.is_grad_enabled()

    @lamina.set_grad_enabled(False)
    def inside():
        return lamina.is_grad_enabled()

    assert lamina.is_grad_enabled() and not inside() and lamina.is_grad_enabled()


def test_mode_belongs_to_the_thread():
    seen = []
    with lamina.no_grad():
        thread = threading.Thread(target=lambda: seen.append(lamina.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_threads_have_their_own_graphs():
    results = [None] * 4

    def work(i):
        x = leaf(*range(50))
        for _ in range(20):
            x.grad = None
            (Square.apply(x) * (i + 1)).sum().backward()
        results[i] = x.grad.tolist()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[2.0 * v * (i + 1) for v in range(50)] for i in range(4)]


def test_hooks():
    x = leaf(1, 2)
    y = x * 3
    seen = []
    x.register_hook(lambda g: seen.append(("x", g.tolist())))
    handle = y.register_hook(lambda g: g * 10)
    removed = y.register_hook(lambda g: g * 0)
    removed.remove()
    removed.remove()
    (y + x + x).sum().backward(retain_graph=True)
    assert seen == [("x", [32, 32])] and x.grad.tolist() == [32, 32]  # once, with the whole sum
    handle.remove()
    x.grad = None
    (y + x).sum().backward()
    assert x.grad.tolist() == [4, 4]


def test_hook_of_wrong_shape():
    x = leaf(1, 2)
    x.register_hook(lambda g: np.zeros(3))
    with pytest.raises(RuntimeError, match=r"register_hook: .*\(3,\)"):
        (x * 2).sum().backward()


def test_retain_grad():
    x = leaf(1, 2)
    y = x * 3
    y.retain_grad()
    (y * y).sum().backward()
    assert y.grad.tolist() == [6, 12] and x.grad.tolist() == [18, 36]


def test_grad_function():
    x, z = leaf(3), leaf(4)
    y = x * x
    total = y * z
    gx, gy = autograd.grad(total, [x, y])
    assert (gx.item(), gy.item()) == (24, 4) and x.grad is None and z.grad is None
    with pytest.raises(RuntimeError, match=r"unused inputs \[0\]"):
        autograd.grad(x * 2, [z])
    assert autograd.grad(x * 2, z, allow_unused=True) == (None,)


def test_grad_of_what_lies_between():
    """Gradients that were asked for are not written over by those of earlier operations."""
    for _ in range(2):  # recorded by Python, then by a known call
        x = leaf(-1, 2, 3)
        squares = x * x
        shifted = squares + 1.0
        y = lamina.functional.relu(shifted).exp().sum()
        found = autograd.grad(y, [squares, x, shifted, y, x])
        slope = np.exp(x.detach().numpy() ** 2 + 1)
        of_x = slope * 2 * x.detach().numpy()
        for gradient, wanted in zip(found, [slope, of_x, slope, 1, of_x], strict=True):
            np.testing.assert_allclose(gradient.numpy(), wanted, rtol=1e-6)
        assert x.grad is None


def test_write_between_forward_and_backward():
    x, w = leaf(1, 2), leaf(3, 4)
    y = (x * w).sum()
    with lamina.no_grad():
        w.fill_(0)
    with pytest.raises(RuntimeError, match="Mul needs was written in place.*clone"):
        y.backward()
    y = (x * w[:1]).sum()  # a view shares the count
    with lamina.no_grad():
        w.detach().zero_()
    with pytest.raises(RuntimeError, match="written in place"):
        y.backward()
    y = (x + w).sum()  # an addition needs neither
    with lamina.no_grad():
        w.zero_()
    y.backward()


@pytest.mark.parametrize(
    "write",
    [
        lambda x, y: x.zero_(),
        lambda x, y: x.fill_(1),
        lambda x, y: x.copy_(np.zeros(2)),
        lambda x, y: y.zero_(),
        lambda x, y: x.__setitem__(0, 1.0),
        lambda x, y: lamina.zeros(2).copy_(x),
        lambda x, y: lamina.zeros(2).__setitem__(0, x[0]),
    ],
)
def test_unrecorded_writes_are_refused(write):
    x = leaf(1, 2)
    y = x * 2
    with pytest.raises(RuntimeError, match="writes in place are not recorded"):
        write(x, y)
    with lamina.no_grad():
        write(x, y)


def test_augmented_assignment_makes_a_new_tensor():
    x = leaf(1)
    y = x
    y += 1
    y *= 3
    y.backward()
    assert x.tolist() == [1] and x.grad.tolist() == [3]


class WrongShape(Square):
    @staticmethod
    def backward(ctx, grad_y):
        return grad_y[:1]


class WrongCount(Square):
    @staticmethod
    def backward(ctx, grad_y):
        return grad_y, grad_y


class NoBackward(Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2


def _freed():
    y = Square.apply(leaf(1))
    y.backward()
    y.backward()


def _no_graph_backward():
    with lamina.no_grad():
        y = leaf(1) * 2
    y.backward()


BAD = [
    (lambda: WrongShape.apply(leaf(1, 2)).sum().backward(), RuntimeError, r"\(1,\).*\(2,\)"),
    (lambda: WrongCount.apply(leaf(1)).backward(), RuntimeError, "must return one gradient.*got 2"),
    (lambda: NoBackward.apply(leaf(1)).backward(), NotImplementedError, "defines backward"),
    (lambda: Function.apply(leaf(1)), NotImplementedError, "defines forward"),
    (_freed, RuntimeError, "freed"),
    (_no_graph_backward, RuntimeError, "requires_grad=False"),
    (lambda: lamina.tensor([1.0]).backward(), RuntimeError, "requires_grad=False"),
    (lambda: leaf(1, 2).backward(), RuntimeError, r"one element only, got shape=\(2,\)"),
    (lambda: leaf(1, 2).backward(np.ones(3)), ValueError, r"gradient.shape=\(3,\)"),
    (lambda: leaf(1).backward("x"), TypeError, "backward: dtype must be"),
    (lambda: lamina.tensor([1.0]).register_hook(print), RuntimeError, "register_hook: "),
    (lambda: leaf(1).register_hook(3), TypeError, "must be callable, got int"),
    (lambda: lamina.tensor([1]).requires_grad_(), TypeError, "got dtype=int64"),
    (lambda: (leaf(1) * 2).requires_grad_(False), RuntimeError, "use detach"),
    (lambda: leaf(1).numpy(), RuntimeError, r"use detach\(\)\.numpy\(\)"),
    (lambda: np.from_dlpack(leaf(1)), RuntimeError, "use detach"),
    (lambda: autograd.grad(leaf(1) * 2, lamina.tensor([1.0])), RuntimeError, "inputs.0."),
    (lambda: autograd.grad([leaf(1) * 2], leaf(1), [1.0, 2.0]), ValueError, "got 2 for 1"),
    (lambda: autograd.backward([leaf(1) * 2], []), ValueError, "got 0 for 1"),
    (lambda: autograd.backward([lamina.tensor([1.0])], [None]), RuntimeError, "requires_grad"),
    (lambda: setattr(leaf(1), "grad", np.ones(2)), ValueError, r"grad.shape=\(2,\)"),
    (lambda: setattr(leaf(1) * 2, "data", np.ones(1)), RuntimeError, "only a leaf"),
    (lambda: setattr(leaf(1), "data", np.ones(1, int)), TypeError, "dtype=int64"),
    (lambda: copy.deepcopy(leaf(1) * 2), RuntimeError, "only leaves"),
    (lambda: pickle.dumps(leaf(1) * 2), RuntimeError, "only leaves"),
]


@pytest.mark.parametrize("call, error, message", BAD, ids=range(len(BAD)))
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_leaves_are_copied_and_pickled():
    x = leaf(1, 2)
    (x * 2).sum().backward()
    twin = copy.deepcopy(x)
    assert twin.grad.tolist() == [2, 2] and twin.requires_grad
    twin.data[0] = 9
    assert x.tolist() == [1, 2]
    again = pickle.loads(pickle.dumps(x))
    assert again.tolist() == [1, 2] and again.requires_grad and isinstance(again, Tensor)


def test_copies_share_the_array():
    """As torch's: leaves, also of results, without a gradient."""
    x = leaf(1, 2)
    y = x.exp()
    y.backward(np.ones(2))
    for original in (x, y, x.detach(), y[:1]):
        twin = copy.copy(original)
        assert twin.is_leaf and twin.grad is None and type(twin) is Tensor
        assert twin.requires_grad is original.requires_grad
        assert np.shares_memory(twin.data, original.data)
    y = x.exp()
    with lamina.no_grad():
        copy.copy(y).zero_()
    with pytest.raises(RuntimeError, match="written in place"):  # torch's is wrong without a word
        y.sum().backward()
    with pytest.raises(RuntimeError, match="only leaves"):
        copy.deepcopy(y)


@pytest.mark.parametrize("twin_of", [copy.copy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_of_parameters_keep_attributes(twin_of):
    weight = lamina.nn.Parameter([1.0, 2.0], requires_grad=False)
    weight.tag = "frozen"
    twin = twin_of(weight)
    assert type(twin) is lamina.nn.Parameter and twin.tag == "frozen" and not twin.requires_grad


def test_gradcheck_fails_and_shows_both():
    class Wrong(Square):
        @staticmethod
        def backward(ctx, grad_y):
            return 3 * ctx.saved[0] * grad_y

    for size in (3, 100):
        with pytest.raises(AssertionError, match=r"(?s)inputs\[0\] differ.*backward:.*expected:"):
            gradcheck(Wrong.apply, [np.linspace(1, 2, size)])
    with pytest.raises(TypeError, match="got none"):
        gradcheck(Square.apply, [np.arange(3)])


def test_testing_helpers():
    x = integer_array((3, 5), seed=1, low=-2, high=2)
    assert x.dtype == np.float32 and np.array_equal(x, integer_array((3, 5), 1, -2, 2))
    assert x.min() >= -2 and x.max() <= 2 and (x == x.round()).all()
    assert tolerance(10, np.float32) == 10 * np.finfo(np.float32).eps
    assert tolerance(0, np.float64, factor=4) == 4 * np.finfo(np.float64).eps
