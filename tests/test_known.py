"""The second call with known shapes takes the short way: it must do what the first one did."""

from __future__ import annotations

import threading

import lamina
import numpy as np
import pytest
from lamina import functional as F


def values(*shape, dtype=np.float32):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


X, W, B = (2, 4, 7, 6), (6, 2, 3, 3), (6,)
TARGET = np.array([0, 2, 3])
MASK = values(3, 4) > 0
PICKS = np.array([[1, -1], [0, 1]])
UNARY = ("exp", "expm1", "tanh", "sin", "cos", "floor", "ceil", "round", "abs")
CALLS = {
    "conv1d": (lambda x, w: F.conv1d(x, w, padding=1), (2, 3, 9), (4, 3, 3)),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, (2, 1), "valid", 1, 2), X, W, B),
    "conv2d unbatched": (lambda x, w, b: F.conv2d(x, w, b, groups=2), X[1:], W, B),
    "conv2d epilogue": (
        lambda x, w, r: F.conv2d(x, w, padding="same", activation="relu", residual=r),
        (1, 3, 5, 5),
        (2, 3, 3, 3),
        (1, 2, 5, 5),
    ),
    "conv2d named": (lambda x, w: F.conv2d(x, w, groups=2, algo="direct"), X, W),
    "conv3d": (lambda x, w: F.conv3d(x, w), (1, 2, 3, 4, 5), (3, 2, 2, 2, 2)),
    "conv_transpose1d": (
        lambda x, w: F.conv_transpose1d(x, w, None, 2, 1, output_size=[10]),
        (2, 3, 5),
        (3, 4, 4),
    ),
    "conv_transpose2d": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, (2, 1), 1, (1, 0), 2),
        *(X, (4, 3, 3, 3), B),
    ),
    "conv_transpose2d unbatched": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, 2, groups=2),
        *(X[1:], (4, 3, 3, 3), B),
    ),
    "conv_transpose2d epilogue": (
        lambda x, w, b, r: F.conv_transpose2d(x, w, b, activation="relu", residual=r),
        *((1, 3, 4, 4), (3, 2, 2, 2), (2,), (1, 2, 5, 5)),
    ),
    "conv_transpose2d tanh": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2, activation="tanh"),
        *((1, 3, 4, 4), (3, 2, 2, 2)),
    ),
    "conv_transpose3d": (
        lambda x, w: F.conv_transpose3d(x, w, dilation=(1, 2, 1)),
        *((1, 2, 3, 4, 5), (2, 3, 2, 2, 2)),
    ),
    "linear": (lambda x, w, b: F.linear(x, w, b), (2, 3, 5), (4, 5), (4,)),
    "linear vector": (lambda x, w: F.linear(x, w), (3, 5), (5,)),
    "linear epilogue": (
        lambda x, w, r: F.linear(x, w, activation=("leaky_relu", 0.2), residual=r),
        (3, 5),
        (4, 5),
        (3, 4),
    ),
    "relu": (F.relu, (3, 4)),
    "elu": (lambda x: F.elu(x, 0.5), (3, 4)),
    "elu of a scalar": (lambda x: F.elu(x, 0.5), ()),
    "softmax": (lambda x: F.softmax(x, -1), (3, 4)),
    "log_softmax": (lambda x: F.log_softmax(x, 0), (3, 4)),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1), X),
    "max_pool1d": (lambda x: F.max_pool1d(x, 2, ceil_mode=True), (4, 7)),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, (2, 3), 1, count_include_pad=False), X),
    "batch_norm": (lambda x, m, v: F.batch_norm(x, m, v**2, eps=1e-3), X, (4,), (4,)),
    "batch_norm affine": (
        lambda x, m, v, w, b: F.batch_norm(x, m, v**2, w, b),
        *(X, (4,), (4,), (4,), (4,)),
    ),
    "batch_norm training": (
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        *(X, (4,), (4,)),
    ),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (5,), w, b), (2, 3, 5), (5,), (5,)),
    "layer_norm plain": (lambda x: F.layer_norm(x, (3, 5)), (2, 3, 5)),
    "group_norm": (lambda x, w, b: F.group_norm(x, 2, w, b, 1e-3), X, (4,), (4,)),
    "cross_entropy": (lambda x: F.cross_entropy(x, TARGET), (3, 4)),
    "cross_entropy sum": (
        lambda x: F.cross_entropy(x, TARGET, ignore_index=2, reduction="sum", label_smoothing=0.1),
        (3, 4),
    ),
    "cross_entropy none": (lambda x: F.cross_entropy(x, TARGET, reduction="none"), (3, 4)),
    "cross_entropy of probabilities": (
        lambda x, q: F.cross_entropy(x, q, values(4, dtype=x.dtype) ** 2, label_smoothing=0.1),
        *((3, 4), (3, 4)),
    ),
    "cross_entropy of probabilities, none": (
        lambda x, q: F.cross_entropy(x, q, reduction="none"),
        *((2, 70, 9), (2, 70, 9)),
    ),
    "pairwise_distance": (
        lambda a, b: F.pairwise_distance(a, b, 1.0, keepdim=True),
        *((2, 3, 5), (2, 3, 5)),
    ),
    "cosine_embedding_loss": (
        lambda a, b: F.cosine_embedding_loss(a, b, np.array([1, -1, 1]), 0.1),
        *((3, 40), (3, 40)),
    ),
    "triplet_margin_loss": (
        lambda a, p, n: F.triplet_margin_loss(a, p, n, swap=True),
        *((3, 40), (3, 40), (3, 40)),
    ),
    "rms_norm": (lambda x, w: F.rms_norm(x, (5,), w), (2, 3, 5), (5,)),
    "glu": (lambda x: F.glu(x, 1), (2, 6, 5)),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 3), (2, 6, 5, 4)),
    "nll_loss": (lambda x: F.nll_loss(x, TARGET, values(4, dtype=x.dtype)), (3, 4)),
    "nll_loss none": (lambda x: F.nll_loss(x, TARGET, None, None, 2, None, "none"), (3, 4)),
    "mse_loss": (F.mse_loss, (3, 4), (3, 4)),
    "mse_loss of many": (F.mse_loss, (3, 50001), (3, 50001)),
    "l1_loss sum": (lambda x, t: F.l1_loss(x, t, reduction="sum"), (3, 4), (3, 4)),
    "smooth_l1_loss": (lambda x, t: F.smooth_l1_loss(x, t, beta=0.5), (3, 4), (3, 4)),
    "huber_loss none": (lambda x, t: F.huber_loss(x, t, "none", 0.5), (3, 40), (3, 40)),
    "logits": (F.binary_cross_entropy_with_logits, (3, 4), (3, 4)),
    "soft_margin_loss": (
        lambda x: F.soft_margin_loss(x, np.where(MASK, 1, -1).astype(x.dtype)),
        (3, 4),
    ),
    "margin_ranking_loss": (
        lambda a, b: F.margin_ranking_loss(a, b, np.where(MASK, 1, -1).astype(a.dtype), 0.3),
        *((3, 4), (3, 4)),
    ),
    "multilabel_soft_margin_loss": (F.multilabel_soft_margin_loss, (3, 4), (3, 4)),
    "add": (lamina.add, (3, 4), (3, 4)),
    "sub": (lamina.sub, (3, 4), (3, 4)),
    "mul": (lamina.mul, (3, 4), (3, 4)),
    "div": (lamina.div, (3, 4), (3, 4)),
    "neg": (lamina.neg, (3, 4)),
    "add a row": (lamina.add, (3, 4), (4,)),
    "div by a scalar": (lamina.div, (3, 4), ()),
    "a row minus": (lamina.sub, (4,), (2, 3, 4)),
    "of numbers": (lambda x: 2 - (x * 2.5 + 1) / 3, (3, 4)),
    "a number over": (lambda x: 2 / x, (3, 4)),
    "sum": (lamina.sum, (3, 4)),
    "sum of rows": (lambda x: lamina.sum(x, -1, keepdim=True), (3, 4)),
    "sum of the last": (lambda x: lamina.sum(x, (1, 2)), (3, 4, 5)),
    "sum of many": (lamina.sum, (3, 70000)),
    "sum of columns": (lambda x: lamina.sum(x, 0), (3, 4)),
    "sum of many columns": (lambda x: lamina.sum(x, 0), (5000, 9)),
    "sum of channels": (lambda x: lamina.sum(x, (0, 2)), (3, 4, 5)),
    "sum between": (lambda x: lamina.sum(x, 1, keepdim=True), (3, 4, 5)),
    "mean": (lamina.mean, (3, 4)),
    "mean of rows": (lambda x: lamina.mean(x, -1, keepdim=True), (3, 4)),
    "mean of columns": (lambda x: lamina.mean(x, 0), (3, 300)),
    "amax": (lamina.amax, (3, 4)),
    "amax of many": (lamina.amax, (3, 40000)),
    "amin of columns": (lambda x: lamina.amin(x, 0), (3, 4)),
    "amax between": (lambda x: lamina.amax(x, 1, keepdim=True), (3, 4, 5)),
    "amax of the first": (lambda x: lamina.amax(x, (0, 1)), (3, 4, 5)),
    "max of rows": (lambda x: lamina.max(x, 1).values, (3, 400)),
    "min of columns": (lambda x: lamina.min(x, 0, keepdim=True)[0], (3, 4)),
    **{name: (getattr(lamina, name), (3, 4)) for name in UNARY},
    "sigmoid": (lamina.sigmoid, (3, 4)),
    "exp of many": (lamina.exp, (3, 40000)),
    "square": (lambda x: x**2, (3, 4)),
    "log": (lambda x: lamina.log(lamina.abs(x)), (3, 4)),
    "root": (lambda x: lamina.rsqrt(lamina.sqrt(x * x)), (3, 4)),
    "add a column": (lamina.add, (3, 4), (3, 1)),
    "multiply channels": (lamina.mul, (2, 3, 4, 5), (3, 1, 1)),
    "divide crosswise": (lamina.div, (2, 1, 4, 1), (3, 1, 5)),
    "columns over rows": (lamina.div, (3, 1), (1, 4)),
    "maximum": (lamina.maximum, (3, 4), (3, 4)),
    "minimum of a row": (lamina.minimum, (3, 4), (4,)),
    "relu by maximum": (lambda x: lamina.maximum(x, 0), (3, 4)),
    "clamp": (lambda x: lamina.clamp(x, -1, 0.5), (3, 4)),
    "clamp from below": (lambda x: lamina.clamp(x, min=0), (3, 4)),
    "clamp crossed": (lambda x: lamina.clamp(x, 1, -1), (3, 4)),
    "where": (lambda a, b: lamina.where(MASK, a, b), (3, 4), (3, 4)),
    "where of a row": (lambda a, b: lamina.where(MASK, a, b), (4,), (3, 4)),
    "where of a row of masks": (lambda a: lamina.where(MASK[0], a, -1.0), (3, 4)),
    "masked_fill": (lambda x: lamina.masked_fill(x, MASK, 2), (3, 4)),
    "cat": (lambda a, b: lamina.cat([a, b], 1), (3, 4, 2), (3, 1, 2)),
    "cat of rows": (lambda a, b, c: lamina.cat((a, b, c)), (3, 4), (1, 4), (2, 4)),
    "cat of many": (lambda a, b: lamina.cat([a, b], -1), (3, 40000), (3, 30001)),
    "stack": (lambda a, b: lamina.stack([a, b], 1), (3, 4), (3, 4)),
    "stack last": (lambda a, b: lamina.stack([a, b], -1), (3, 4), (3, 4)),
    "clone": (lamina.clone, (3, 4)),
    "rows by index": (lambda x: lamina.operations.indexing.index(x, TARGET), (4, 3)),
    "rows by index, repeated": (lambda x: lamina.operations.indexing.index(x, PICKS), (4, 3, 2)),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 3), value=0.5), (3, 4)),
    "crop": (lambda x: F.pad(x, [-1, 2, 1, -2]), (3, 4)),
    "pad between": (lambda x: F.pad(x, (0, 0, 1, -1, 2, 0)), (2, 3, 4)),
    "matmul": (lamina.matmul, (3, 4), (4, 5)),
    "matmul of batches": (lamina.matmul, (2, 2, 3, 4), (2, 2, 4, 5)),
    "matmul of a batch and a matrix": (lamina.matmul, (2, 3, 4), (4, 5)),
    "matmul of a matrix and a batch": (lamina.matmul, (3, 4), (2, 4, 5)),
    "matmul of batches that broadcast": (lamina.matmul, (2, 1, 3, 4), (3, 4, 5)),
    "matmul of vectors": (lamina.matmul, (4,), (4,)),
    "matmul of a vector and a batch": (lamina.matmul, (4,), (2, 4, 5)),
    "matmul of a batch and a vector": (lamina.matmul, (2, 3, 4), (4,)),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_bits_the_second_time(backend, name, dtype):
    function, *shapes = CALLS[name]
    operands = [values(*shape, dtype=dtype) for shape in shapes]
    first = function(*operands)
    plan = lamina.last_plan()
    for _ in range(2):
        again = function(*operands)
        assert type(again) is np.ndarray and again.dtype == dtype
        np.testing.assert_array_equal(again, first, strict=True)
        assert lamina.last_plan() == plan
    other = [np.asarray(values(*shape, dtype=dtype) + 1, dtype) for shape in shapes]
    # Seldom known, and in the same order: sums go along memory, those of a Fortran copy otherwise.
    copies = [np.stack([x, x], -1)[..., 0] for x in other]
    np.testing.assert_array_equal(function(*other), function(*copies), strict=True)


@pytest.mark.parametrize("name", CALLS)
def test_tensors(name):
    function, *shapes = CALLS[name]
    operands = [values(*shape) for shape in shapes]
    expected = function(*operands)
    tensors = [lamina.tensor(x) for x in operands]
    for _ in range(2):
        result = function(*tensors)
        assert type(result) is lamina.Tensor and not result.requires_grad
        assert result.is_leaf and result.grad is None
        np.testing.assert_array_equal(result.numpy(), expected, strict=True)
        (result + result).exp()  # a Tensor like any other
        result.requires_grad_().sum().backward()
        assert (result.grad.numpy() == 1).all()


def gradients(function, arrays):
    tensors = [lamina.tensor(x, requires_grad=True) for x in arrays]
    y = function(*tensors)
    y.backward(np.arange(y.numel(), dtype=np.float32).reshape(y.shape))
    return [y, *(tensor.grad for tensor in tensors)]


@pytest.mark.parametrize("name", CALLS)
def test_gradients_are_the_same_the_second_time(backend, name):
    function, *shapes = CALLS[name]
    if name in ("batch_norm", "batch_norm affine"):  # the statistics given have no gradients
        mean, var = values(4), values(4)
        wrapped = function
        shapes = [shapes[0], *shapes[3:]]
        function = lambda x, *affine: wrapped(x, mean, var, *affine)  # noqa: E731
    operands = [values(*shape) for shape in shapes]
    first = gradients(function, operands)
    for again in (gradients(function, operands), gradients(function, map(np.copy, operands))):
        for one, other in zip(first, again, strict=True):
            np.testing.assert_array_equal(one.detach(), other.detach(), strict=True)


@pytest.mark.parametrize("name", CALLS)
def test_gradients_are_recorded_all_the_same(name):
    function, *shapes = CALLS[name]
    tensors = [lamina.tensor(values(*shape)) for shape in shapes]
    plain = function(*tensors)
    tensors[0].requires_grad_()
    result = function(*tensors)
    assert result.requires_grad and result.grad_fn is not None
    np.testing.assert_array_equal(result.detach().numpy(), plain.numpy(), strict=True)
    result.sum().backward()
    assert tensors[0].grad is not None
    with lamina.no_grad():
        assert not function(*tensors).requires_grad
    assert function(*tensors).requires_grad


def test_options_are_told_apart():
    x, w = values(1, 2, 5, 5), values(3, 2, 3, 3)
    for _ in range(2):
        assert F.conv2d(x, w, stride=1, padding=1).shape == (1, 3, 5, 5)
        assert F.conv2d(x, w, stride=(1, 2), padding=1).shape == (1, 3, 5, 3)
        assert F.conv2d(x, w, padding=((1, 0), (0, 0))).shape == (1, 3, 4, 3)
        assert F.conv2d(x, w, padding="same").shape == (1, 3, 5, 5)
        for bad in (True, 1.0, "1", None, (1, 1, 1), np.float32(1)):
            with pytest.raises((TypeError, ValueError), match="stride"):
                F.conv2d(x, w, stride=bad, padding=1)
        with pytest.raises(ValueError, match="algo"):
            F.conv2d(x, w, padding=1, algo="other")


def test_operands_are_told_apart():
    x, w = values(2, 5), values(3, 5)
    for _ in range(2):
        expected = F.linear(x, w)
        np.testing.assert_array_equal(F.linear(x[:, ::-1][:, ::-1], w), expected)
        swapped = x.astype(">f4")
        np.testing.assert_array_equal(F.linear(swapped, w), expected)
        with pytest.raises(TypeError, match="dtype"):
            F.linear(x.astype(np.float64), w)
        with pytest.raises(TypeError, match="input"):
            F.linear(x.astype(np.int32), w)
        with pytest.raises(TypeError, match="MaskedArray"):
            F.linear(np.ma.masked_array(x), w)
        with pytest.raises(TypeError, match="list"):
            F.linear([[1.0] * 5], w)
        with pytest.raises(ValueError, match="features"):
            F.linear(values(5, 2), w)


def test_read_only_operands_and_writable_results():
    x = values(8, 8)
    x.flags.writeable = False
    for _ in range(2):
        y = F.relu(x)
        assert y.flags.writeable and y is not x
        y[...] = 0


def test_another_backend_is_another_kernel():
    x, w = values(1, 2, 5, 5), values(3, 2, 3, 3)
    for _ in range(2):
        F.conv2d(x, w)
        assert lamina.last_plan().backend == "cpu"
        with lamina.backend("ref"):
            F.conv2d(x, w)
            assert lamina.last_plan().backend == "ref"


def test_recording_is_a_matter_of_the_thread():
    x = lamina.tensor(values(4), requires_grad=True)
    F.relu(lamina.tensor(values(4)))
    seen = []
    with lamina.no_grad():
        thread = threading.Thread(target=lambda: seen.append(F.relu(x).requires_grad))
        thread.start()
        thread.join()
        seen.append(F.relu(x).requires_grad)
    assert seen == [True, False]


def test_many_threads_and_shapes():
    wrong = []

    def work(number):
        for step in range(200):
            x = values(1 + (step * number) % 40, 3)
            if not np.array_equal(F.relu(x), np.maximum(x, 0)):
                wrong.append(step)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("tensors", [False, True])
def test_running_statistics_follow_every_time(tensors):
    x = values(4, 3, 5)
    mean, var = np.zeros(3, np.float32), np.ones(3, np.float32)
    running = [lamina.Tensor(s) for s in (mean, var)] if tensors else [mean, var]
    expected = [s.astype(np.float64) for s in (mean, var)]
    for step in range(4):
        y = F.batch_norm(x + step, *running, training=True, momentum=0.3)
        assert type(y) is np.ndarray
        wide = (x + step).astype(np.float64)
        batch = wide.mean((0, 2)), wide.var((0, 2)) * 20 / 19
        expected = [old + 0.3 * (new - old) for old, new in zip(expected, batch, strict=True)]
        for found, wanted in zip((mean, var), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5)
    var.flags.writeable = False
    before = mean.copy()
    with pytest.raises(ValueError, match="read-only"):
        F.batch_norm(x, mean, var, training=True, momentum=0.3)
    assert not np.array_equal(mean, before) or tensors


def test_targets_are_checked_every_time():
    x = lamina.tensor(values(3, 4), requires_grad=True)
    weight = lamina.tensor(values(4) ** 2)
    for _ in range(2):
        loss = F.cross_entropy(x, lamina.tensor([0, 1, 3]), weight)
        x.grad = None
        loss.backward()
        assert np.isfinite(x.grad.numpy()).all() and loss.shape == ()
        with pytest.raises(ValueError, match=r"got 4 at position \(1,\)"):
            F.cross_entropy(x, lamina.tensor([0, 4, 3]), weight)
        with pytest.raises(TypeError, match="integers"):
            F.cross_entropy(x, np.array([True, False, True]), weight)
        nothing = F.cross_entropy(x, lamina.tensor([-100] * 3), weight)
        assert np.isnan(nothing.item())


def test_the_graph_is_as_careful_the_second_time():
    x, w = (lamina.tensor(values(3), requires_grad=True) for _ in range(2))
    for _ in range(3):
        y = F.relu(x)
        y.backward(values(3))
        with pytest.raises(RuntimeError, match="freed by an earlier backward"):
            y.backward(values(3))
        y = F.relu(x)
        with lamina.no_grad():
            x.fill_(1)
        with pytest.raises(RuntimeError, match="Activation needs was written in place"):
            y.backward(values(3))
        y = x + w  # keeps nothing
        y.backward(values(3))
        y.backward(values(3))
        y = x * w.detach()  # keeps w only
        with lamina.no_grad():
            x.fill_(2)
        y.backward(values(3))
        y = F.softmax(x, 0)
        with lamina.no_grad():
            y.fill_(2)
        with pytest.raises(RuntimeError, match="Softmax needs was written"):
            y.backward(values(3))


def test_hooks_and_nodes_of_known_calls():
    x = lamina.tensor(values(3), requires_grad=True)
    for _ in range(3):
        y = F.relu(x)
        assert repr(y.grad_fn) == "<ActivationBackward>" and not y.is_leaf
        seen: list[list[float]] = []
        y.register_hook(lambda g, seen=seen: seen.append(g.tolist()))
        y.register_hook(lambda g: g * 2)
        x.grad = None
        (y + y).backward(np.ones(3, np.float32))
        assert seen == [[2, 2, 2]]
        np.testing.assert_array_equal(x.grad.numpy(), 4 * (x.detach().numpy() > 0))
        (grad,) = lamina.autograd.grad(F.relu(x) * y.detach(), x, [y.detach()])
        assert grad.shape == x.shape


@pytest.mark.parametrize("gradient", [values(3, 8)[:, ::2], values(3, 4).astype(np.float64)])
def test_gradients_of_other_layouts(gradient):
    x = lamina.tensor(values(3, 4), requires_grad=True)
    for _ in range(3):
        x.grad = None
        F.relu(x).backward(gradient)
        expected = gradient.astype(np.float32) * (x.detach().numpy() > 0)
        np.testing.assert_array_equal(x.grad.numpy(), expected, strict=True)


def test_only_gradients_that_nobody_holds_are_written_over():
    """The first pass goes through Python and makes new arrays; later ones write over some."""
    x, weight, seed = values(4, 6, 5, 5), values(6), values(4, 6, 5, 5)

    def run():
        leaf = lamina.tensor(x, requires_grad=True)
        scale = lamina.tensor(weight, requires_grad=True)
        held = []
        normal = F.batch_norm(leaf, None, None, scale, None, True)
        inner = F.tanh(F.relu(normal))
        inner.register_hook(lambda g: held.append((g.data, g.data.copy())))
        # The gradient of a sum is one array for both arguments.
        y = F.relu(F.batch_norm(inner + F.relu(leaf), None, None, None, None, True)) + F.relu(inner)
        grad_y = seed.copy()
        y.backward(grad_y)
        np.testing.assert_array_equal(grad_y, seed)
        for array, copy in held:
            np.testing.assert_array_equal(array, copy)
        assert len(held) == 1
        return leaf.grad.numpy().copy(), scale.grad.numpy().copy()

    first = run()
    for _ in range(3):
        for expected, gradient in zip(first, run(), strict=True):
            np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("other_first", [False, True])
@pytest.mark.parametrize("conv", [F.conv2d, F.conv_transpose2d])
@pytest.mark.parametrize("stride,groups", [(1, 1), (2, 1), (1, 4)])
def test_gradients_of_inputs_add_what_has_arrived(backend, conv, stride, groups, other_first):
    """Of a convolution's input that something else reads too: the bits of a sum afterwards."""
    x, seed = values(2, 4, 6, 5), values(2, 4, 6, 5)
    weight, options = values(8, 4 // groups, 3, 3), {"stride": stride, "groups": groups}
    if conv is F.conv_transpose2d:
        weight = values(4, 8 // groups, 3, 3)

    def run(alone):
        leaf = lamina.tensor(x, requires_grad=True)
        inner, held = leaf * 1, []
        y = conv(inner, lamina.tensor(weight, requires_grad=True), **options)
        if alone:
            y.backward(np.ones(y.shape, np.float32))
            return leaf.grad.numpy().copy()
        other = inner + np.float32(0)  # hands on the array that it is given
        other.register_hook(lambda g: held.append((g.data, g.data.copy())))
        terms = [(other * seed).sum(), y.sum()]
        (terms[other_first] + terms[not other_first]).backward()
        for array, copy in held:
            np.testing.assert_array_equal(array, copy)
        assert len(held) == 1
        return leaf.grad.numpy().copy()

    expected = run(True) + seed
    for _ in range(3):
        np.testing.assert_array_equal(run(False), expected)
