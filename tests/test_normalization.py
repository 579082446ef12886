"""Normalisation against the NumPy reference: values, running statistics and all gradients.

Tolerance: a sum of m terms in float64 rounds by less than m eps of its terms; 64 eps covers the
sets here (m up to 60) with the square root and the divisions.
"""

from __future__ import annotations

import cases
import lamina
import lamina.functional as F
import numpy as np
import pytest
import reference
from lamina import _C, nn
from numpy.testing import assert_allclose, assert_array_equal

BOUND = 64 * np.finfo(np.float64).eps
SHAPES = [(5, 3), (4, 3, 7), (2, 4, 3, 5), (2, 4, 2, 3, 2), (3, 2, 37)]


def operands(shape, affine):
    x = cases.reals(shape, 1, np.float64) * 2 + 1
    return x, cases.reals(affine, 2, np.float64), cases.reals(affine, 3, np.float64)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(backend, shape, training):
    x, weight, bias = operands(shape, shape[1:2])
    mean, var = cases.reals(shape[1:2], 4, np.float64), np.arange(1.0, 1 + shape[1])
    expected, new_mean, new_var = reference.batch_norm(
        x, mean, var, weight, bias, training=training, momentum=0.3
    )
    tensors = [lamina.tensor(a, requires_grad=True) for a in (x, weight, bias)]
    running = mean.copy(), var.copy()
    y = F.batch_norm(tensors[0], *running, *tensors[1:], training, 0.3)
    grad_y = cases.reals(shape, 5, np.float64)
    y.backward(grad_y)
    assert_allclose(y.data, expected, rtol=BOUND, atol=BOUND)
    assert_allclose(running[0], new_mean, rtol=BOUND, atol=BOUND)
    assert_allclose(running[1], new_var, rtol=BOUND, atol=BOUND)
    lamina.testing.gradcheck(
        lambda *a: F.batch_norm(a[0], mean.copy(), var.copy(), a[1], a[2], training, 0.3),
        [x, weight, bias],
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "shape", [(300, 1030), (700, 3), (20, 2100), (70, 530, 2), (40, 9, 29)], ids=str
)
def test_batch_norm_of_channels_with_few_elements_an_image(shape, training):
    """On the CPU such images are rows: several blocks of positions and runs of images.

    Channel 0 has a NaN, which stays there; the first images of channel 1 lie far from the others.
    Tolerance: sums of m terms, in float64 where they are long, after runs of 256 in float32.
    """
    axes = (0, *range(2, len(shape)))
    terms = shape[0] * int(np.prod(shape[2:]))
    for dtype in (np.float32, np.float64):
        bound = 2 * min(terms, 256) * np.finfo(dtype).eps
        x = cases.reals(shape, 1, dtype) * 2 + 10
        x[0, 0] = np.nan
        x[:32, 1] += 1000
        affine = [cases.reals(shape[1:2], seed, dtype) for seed in (2, 3)]
        fixed = x.mean(axes), x.var(axes) + 1
        grad_y = cases.reals(shape, 5, dtype)
        tensors = [lamina.tensor(a, requires_grad=True) for a in (x, *affine)]
        running = [np.nan_to_num(a) for a in fixed]
        precise = [a.astype(np.float64) for a in (x, *running, *affine, grad_y)]
        y = F.batch_norm(tensors[0], *running, *tensors[1:], training)
        y.backward(grad_y)
        expected, *_ = reference.batch_norm(*precise[:5], training=training)
        grads = reference.batch_norm_backward(precise[5], *precise[:4], training)
        assert np.isnan(y.data[0, 0]).all() and np.isfinite(y.data[:, 1:]).all()
        assert_allclose(y.data[:, 1:], expected[:, 1:], rtol=0, atol=bound * 16)
        for tensor, wanted, scale in zip(tensors, grads, (16, terms, terms), strict=True):
            ours = tensor.grad.data
            channels = (slice(None), slice(1, None)) if ours.ndim > 1 else slice(1, None)
            assert_allclose(ours[channels], wanted[channels], rtol=0, atol=bound * scale)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_group_layer_and_instance_norm(backend, shape):
    x, weight, bias = operands(shape, shape[1:2])
    groups = 2 if shape[1] % 2 == 0 else shape[1]
    if len(shape) == 2 and groups == shape[1]:
        groups = 1  # one element has no variance
    y = F.group_norm(x, groups, weight, bias)
    expected = reference.group_norm(x, groups, weight, bias)
    assert_allclose(y, expected, rtol=BOUND, atol=BOUND)
    lamina.testing.gradcheck(lambda *a: F.group_norm(a[0], groups, *a[1:]), [x, weight, bias])
    tail = shape[1:]
    weight, bias = cases.reals(tail, 2, np.float64), cases.reals(tail, 3, np.float64)
    y = F.layer_norm(x, tail, weight, bias)
    expected = reference.layer_norm(x, tail, weight, bias)
    assert_allclose(y, expected, rtol=BOUND, atol=BOUND)
    lamina.testing.gradcheck(lambda *a: F.layer_norm(a[0], tail, *a[1:]), [x, weight, bias])
    if len(shape) > 2:
        y = F.instance_norm(x)
        assert_allclose(y, reference.instance_norm(x)[0], rtol=BOUND, atol=BOUND)


@pytest.mark.parametrize("given", [0, 1])
@pytest.mark.parametrize("name", ["batch_norm", "group_norm", "layer_norm", "instance_norm"])
def test_weight_or_bias_alone(name, given):
    """Of several axes too; a call of known shapes computes the same."""
    shape = (2, 4, 3, 2)
    options = {"batch_norm": {"training": True}, "group_norm": {"num_groups": 2}}.get(name, {})
    affine = shape[1:2]
    if name == "layer_norm":
        options, affine = {"normalized_shape": shape[1:]}, shape[1:]
    x, values, _ = operands(shape, affine)
    if name == "batch_norm":
        options |= {"running_mean": None, "running_var": None}
    key = ("weight", "bias")[given]
    for _ in range(2):
        lamina.testing.gradcheck(
            lambda x, a: getattr(F, name)(x, **{key: a}, **options), [x, values]
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (70, 33), (300, 64), (3, 5000)], ids=str)
@pytest.mark.parametrize("name", ["ref", "cpu"])
def test_rms_norm_of_rows(name, shape, dtype):
    x, weight, grad_y = (
        cases.reals(s, seed, dtype) for s, seed in ((shape, 1), (shape[1:], 2), (shape, 3))
    )
    wide = [a.astype(np.float64) for a in (x, weight, grad_y)]
    root = np.sqrt((wide[0] ** 2).mean(1, keepdims=True) + 1e-3)
    h, g = wide[0] / root, wide[2] * wide[1]
    expected = (g - h * (g * h).mean(1, keepdims=True)) / root, (wide[2] * h).sum(0)
    eps = np.finfo(dtype).eps
    for tensors in (2, 1, 2):
        with lamina.backend(name):
            a, w = (lamina.tensor(v, requires_grad=i < tensors) for i, v in enumerate((x, weight)))
            y = F.rms_norm(a, shape[1:], w, 1e-3)
            y.backward(grad_y)
        assert_allclose(y.detach().numpy(), h * wide[1], rtol=16 * eps)
        for found, values in zip((a, w)[:tensors], expected, strict=False):
            bound = 32 * eps * max(np.abs(values).max(), 1)
            assert_allclose(found.grad.numpy(), values, atol=bound)
    with lamina.backend(name):
        again = F.rms_norm(x.T.copy().T, shape[1:], weight, 1e-3)
    assert_array_equal(again, y.detach().numpy(), strict=True)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rms_norm_and_normalize(shape):
    x, weight, _ = operands(shape, shape[1:])
    y = F.rms_norm(x, shape[1:], weight)
    assert_allclose(y, reference.rms_norm(x, shape[1:], weight), rtol=BOUND, atol=BOUND)
    lamina.testing.gradcheck(lambda *a: F.rms_norm(a[0], shape[1:], a[1], 0.1), [x, weight])
    for p in (1.0, 2.0, 3.5):
        y = F.normalize(x, p, -1)
        assert_allclose(y, reference.normalize(x, p, -1), rtol=BOUND, atol=BOUND)
        lamina.testing.gradcheck(lambda x, p=p: F.normalize(x, p, -1), [x])
    whole = F.normalize(x, dim=None)
    assert_allclose(whole, reference.normalize(x.ravel(), dim=0).reshape(shape), rtol=BOUND)
    for dim in (tuple(range(x.ndim)), ()):
        assert_array_equal(F.normalize(x, dim=dim), whole)


def test_batch_norm_layer_trains_and_infers():
    layer = nn.BatchNorm2d(3)
    x = lamina.Tensor(cases.reals((4, 3, 5, 5), 1))
    y = layer(x).data
    assert_allclose(y.mean((0, 2, 3)), 0, atol=1e-6)
    assert_allclose(y.var((0, 2, 3)), 1, atol=1e-4)
    assert int(layer.num_batches_tracked) == 1
    assert list(layer.state_dict()) == [
        "weight",
        "bias",
        "running_mean",
        "running_var",
        "num_batches_tracked",
    ]
    before = layer.running_mean.data.copy()
    layer.eval()(x)
    assert_array_equal(layer.running_mean.data, before)


TAKEN_IN = ["relu", "relu6", ("leaky_relu", 0.2), ("hardtanh", -0.5, 1.0)]  # by kernels of the CPU
ACTIVATIONS = [None, *TAKEN_IN, ("threshold", 0.1, -0.3), "silu", "sigmoid"]


def formula(activation, name="{}"):
    """The function of the reference: name is that of the gradient."""
    kind, *options = (activation,) if isinstance(activation, str) else activation
    return lambda *a: getattr(reference, name.format(kind))(*a, *options)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("shape", [(3, 4, 7, 11), (6, 5, 3)], ids=str)
def test_batch_norm_with_activation_and_residual(
    backend, shape, activation, with_residual, training
):
    x, weight, bias = operands(shape, shape[1:2])
    fixed = cases.reals(shape[1:2], 4, np.float64), np.arange(1.0, 1 + shape[1])
    grad_y = cases.reals(shape, 5, np.float64)
    added = cases.reals(shape, 6, np.float64) if with_residual else np.zeros(shape)
    argument = reference.batch_norm(x, *fixed, weight, bias, training)[0] + added
    expected, g = argument, grad_y
    if activation is not None:
        expected = formula(activation)(argument)
        g = formula(activation, "{}_backward")(grad_y, argument)
    wanted = [*reference.batch_norm_backward(g, x, *fixed, weight, training), g]
    for _ in range(2):  # the second time the call is known
        tensors = [lamina.tensor(a, requires_grad=True) for a in (x, weight, bias, added)]
        statistics = [s.copy() for s in fixed]
        options = {"activation": activation, "residual": tensors[3] if with_residual else None}
        y = F.batch_norm(tensors[0], *statistics, *tensors[1:3], training, **options)
        y.backward(grad_y)
        assert_allclose(y.data, expected, rtol=BOUND, atol=BOUND)
        terms = g.size // shape[1]
        for tensor, grad, scale in zip(tensors, wanted, (16, terms, terms, 1), strict=True):
            if tensor is not tensors[3] or with_residual:
                assert_allclose(tensor.grad.data, grad, rtol=BOUND, atol=BOUND * scale)


@pytest.mark.parametrize("shape", [*SHAPES, (8, 32, 20, 20), (2, 3, 70, 70)], ids=str)
@pytest.mark.parametrize("activation", TAKEN_IN, ids=str)
def test_one_call_gives_the_bits_of_several(shape, activation):
    """On the CPU, whoever else reads the residual or listens to a gradient."""
    x, weight, bias, residual, grad_y = (
        cases.reals(s, seed) for seed, s in enumerate((shape, *[shape[1:2]] * 2, shape, shape))
    )
    name, *options = (activation,) if isinstance(activation, str) else activation
    heard = []

    def run(together, added):
        leaves = [lamina.tensor(a, requires_grad=True) for a in (x, weight, bias, residual)]
        source, shortcut = leaves[0] * 2, F.tanh(leaves[3])
        source.register_hook(lambda g: heard.append(g.data.copy()))
        end = {"residual": shortcut if added else None}
        if together:
            y = F.batch_norm(source, None, None, *leaves[1:3], True, activation=activation, **end)
        else:
            y = F.batch_norm(source, None, None, *leaves[1:3], True)
            y = getattr(F, name)(y + shortcut if added else y, *options)
        (F.tanh(y) + y + shortcut).backward(grad_y)
        return [y.data, *(leaf.grad.data for leaf in leaves), heard.pop()]

    for added in (False, True):
        apart = run(False, added)
        for _ in range(2):
            for found, expected in zip(run(True, added), apart, strict=True):
                assert_array_equal(found, expected)


def test_layers_take_in_the_activation_behind_them():
    x, seed = cases.reals((4, 3, 5, 5), 1), cases.reals((4, 3, 5, 5), 2)

    class Own(nn.ReLU):
        def forward(self, input):
            return super().forward(input)

    def run(norm, follower, hooked=()):
        chain = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), norm, follower)
        chain[0].weight.data[...] = cases.reals((3, 3, 1, 1), 3)
        seen = []
        for index in hooked:
            chain[index].register_forward_hook(lambda _, __, y: seen.append(y.data.copy()))
        y = chain(lamina.Tensor(x))
        names, node = [], y.grad_fn
        while isinstance(node, lamina.autograd.Node):
            names.append(node.name)
            node = node.edges[0] and node.edges[0][0]
        y.backward(seed)
        return y.data, chain[0].weight.grad.data, names, seen

    y, grad, names, _ = run(nn.BatchNorm2d(3), nn.ReLU(inplace=True))
    assert names == ["BatchNormBackward", "ConvBackward"]
    for norm, follower, hooked in (
        (nn.BatchNorm2d(3, activation="relu"), nn.Identity(), []),
        (nn.BatchNorm2d(3), Own(), []),
        (nn.BatchNorm2d(3), nn.ReLU(), [1]),
        (nn.BatchNorm2d(3), nn.ReLU(), [1, 2]),
    ):
        other, other_grad, names, seen = run(norm, follower, hooked)
        assert len(names) == (2 if norm.activation else 3) and len(seen) == len(hooked)
        assert_array_equal(other, y)
        assert_array_equal(other_grad, grad)
        if seen:
            assert seen[0].min() < 0
    assert repr(nn.BatchNorm1d(2, activation="relu")).endswith("activation='relu')")
    norm = nn.BatchNorm2d(3, activation=("leaky_relu", 0.5))
    assert_array_equal(
        norm(x, residual=seed).data, F.leaky_relu(nn.BatchNorm2d(3)(x) + seed, 0.5).data
    )


@pytest.mark.parametrize("shape", [(4, 6, 33, 7), (5, 3, 50, 60)], ids=str)
def test_same_bits_for_any_thread_count(shape):
    x = cases.reals(shape, 1)
    results = []
    for threads in (1, 2, 3, 8):
        lamina.set_num_threads(threads)
        t = lamina.tensor(x, requires_grad=True)
        y = F.batch_norm(F.group_norm(t, 3), None, None, training=True)
        y = F.batch_norm(y, None, None, training=True, activation="relu", residual=t)
        y.backward(x)
        results.append(y.data.tobytes() + t.grad.data.tobytes())
    assert len(set(results)) == 1


# [n, c, inner]: planes of whole vectors and not, for a warp, a block and several blocks; columns.
PLANES = [(2, 3, 49), (3, 2, 64), (2, 2, 600), (2, 2, 516), (1, 2, 9001), (1, 2, 16400)]
PLANES += [(3, 2, 9001), (25, 16, 83)]  # channels that tasks of a CPU share
PLANES += [(30, 5, 1), (1100, 3, 1), (37, 300, 1)]
DTYPES = ["float32", "float64", "float16", "bfloat16"]


def close(actual, expected, scale=1.0):
    """Within 64 eps of the arithmetic, of `scale`, and one rounding to a 16-bit float."""
    eps = np.finfo(np.float64 if actual.dtype == np.float64 else np.float32).eps
    rtol = cases.rounding(actual.dtype)
    assert_allclose(actual.astype(float), expected, rtol=rtol + 64 * eps, atol=64 * eps * scale)


def layer_operands(backend, shape, affine, dtype):
    """x far from zero, weight, bias, grad_y in the dtype; the same in float64."""
    dtype = cases.storage(dtype, backend)
    x, weight, bias = (a.astype(dtype) for a in operands(shape, affine))
    arrays = x + dtype.type(4), weight, bias, cases.reals(shape, 4).astype(dtype)
    return arrays, [a.astype(float) for a in arrays]


def batch_norm_kernels(arrays, shape, training=True):
    """y, mean, var, grad_x, grad_weight, grad_bias of [n, c, inner] from the kernels."""
    x, weight, bias, grad_y = arrays
    kept = np.float64 if x.dtype == np.float64 else np.float32
    mean, var = np.full(shape[1], 3.9, kept), np.full(shape[1], 2.1, kept)
    y, grad_x, grads = np.empty_like(x), np.empty_like(x), [np.empty_like(weight) for _ in "wb"]
    options = (*shape, training, 1e-5)
    _C.batch_norm(x, weight, bias, mean, var, None, y, None, None, *options)
    _C.batch_norm(x, weight, bias, mean, var, grad_y, grad_x, *grads, *options)
    return y, mean, var, grad_x, *grads


def group_norm_kernels(arrays, layout):
    """y, grad_x, grad_weight, grad_bias of [outer, groups, channels, inner] from the kernels."""
    x, weight, bias, grad_y = arrays
    kept = np.float64 if x.dtype == np.float64 else np.float32
    mean, rstd = (np.empty(layout[0] * layout[1], kept) for _ in range(2))
    y, grad_x, grads = np.empty_like(x), np.empty_like(x), [np.empty_like(weight) for _ in "wb"]
    _C.group_norm(x, weight, bias, mean, rstd, None, y, None, None, *layout, 1e-5)
    _C.group_norm(x, weight, None, mean, rstd, grad_y, grad_x, *grads, *layout, 1e-5)
    return y, grad_x, *grads


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", PLANES, ids=str)
def test_batch_norm_over_planes_of_every_size(backend, shape, dtype):
    arrays, (x, weight, bias, grad_y) = layer_operands(backend, shape, shape[1:2], dtype)
    y, mean, var, grad_x, grad_weight, grad_bias = batch_norm_kernels(arrays, shape)
    close(mean, x.mean((0, 2)))
    close(var, x.var((0, 2)), 4)
    close(y, reference.batch_norm(x, None, None, weight, bias, True)[0], 16)
    expected = reference.batch_norm_backward(grad_y, x, None, None, weight, True)
    terms = shape[0] * shape[2]
    for grad, wanted, scale in zip(
        (grad_x, grad_weight, grad_bias), expected, (16, terms, terms), strict=True
    ):
        close(grad, wanted, scale)
    fixed = np.full(shape[1], 3.9), np.full(shape[1], 2.1)
    y, *_, grad_x, grad_weight, grad_bias = batch_norm_kernels(arrays, shape, False)
    close(y, reference.batch_norm(x, *fixed, weight, bias)[0], 16)
    close(grad_x, reference.batch_norm_backward(grad_y, x, *fixed, weight)[0])


def skip_if_slow(backend, channels):
    if backend == "ref" and channels > 2000:
        pytest.skip("the reference takes a time quadratic in the channels")


# outer, groups, channels, inner: rows for a warp, a block, a loop of it, several; many short rows.
ROWS = [(2, 2, 3, 49), (1, 2, 8, 64), (2, 1, 3, 1501), (1, 2, 3, 3000), (1, 1, 2, 8200)]
ROWS += [(3, 1, 12, 1), (3, 2, 48, 1), (2, 1, 1024, 1), (2, 3, 501, 1), (1, 1, 9001, 1)]
ROWS += [(1, 1, 9008, 1), (1100, 1, 7, 1), (600, 1, 100, 1)]


@pytest.mark.parametrize("shape", [(3, 4, 9001), (25, 12, 83)], ids=str)
def test_shared_channels_keep_nan_and_digits_to_themselves(shape):
    """Channel 0 has a NaN; the first elements of channel 1 lie far from the others."""
    x = cases.reals(shape, 1)
    x[:, 1] += 1000
    x[0, 1, :300] = 0
    x[1, 0, 50] = np.nan
    y = F.batch_norm(x, None, None, training=True)
    assert np.isnan(y[:, 0]).all()
    expected = reference.batch_norm(x.astype(float), None, None, None, None, True)[0]
    assert_allclose(y[:, 1:], expected[:, 1:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ROWS, ids=str)
def test_group_norm_over_rows_of_every_size(backend, layout, dtype):
    outer, groups, channels, inner = layout
    skip_if_slow(backend, channels)
    shape = outer, groups * channels, inner
    arrays, (x, weight, bias, grad_y) = layer_operands(backend, shape, shape[1:2], dtype)
    y, grad_x, grad_weight, grad_bias = group_norm_kernels(arrays, layout)
    close(y, reference.group_norm(x, groups, weight, bias), 16)
    expected = reference.group_norm_backward(grad_y, x, groups, weight)
    terms = outer * inner + 7
    for grad, wanted, scale in zip(
        (grad_x, grad_weight, grad_bias), expected, (16, terms, terms), strict=True
    ):
        close(grad, wanted, scale)


@pytest.mark.parametrize(
    "layout", [PLANES[1], PLANES[5], PLANES[7], *ROWS[1:4], *ROWS[7:10]], ids=str
)
def test_misaligned_views_and_schedules(backend, layout):
    shape = layout if len(layout) == 3 else (layout[0], layout[1] * layout[2], layout[3])
    skip_if_slow(backend, shape[1])
    arrays = [cases.reals(s, 1) for s in (shape, shape[1:2], shape[1:2], shape)]
    views = [cases.misaligned(a) for a in arrays]
    kernels = batch_norm_kernels if len(layout) == 3 else group_norm_kernels
    results = {
        b"".join(a.tobytes() for a in kernels(views, layout)) for _ in cases.schedules(backend)
    }
    assert len(results) == 1
    for a, b in zip(kernels(arrays, layout), kernels(views, layout), strict=True):
        close(a, b.astype(float), shape[0] * shape[2])


def test_nan_stays_in_its_set(backend):
    x = cases.reals((3, 4, 5), 1)
    x[1, 2, 3] = np.nan
    assert_array_equal(
        np.isnan(F.batch_norm(x, None, None, training=True)).any((0, 2)), [0, 0, 1, 0]
    )
    assert_array_equal(np.isnan(F.group_norm(x, 2)).sum((1, 2)), [0, 10, 0])
    assert_array_equal(np.isnan(F.layer_norm(x, 5)).sum((1, 2)), [0, 5, 0])


@pytest.mark.parametrize("activation", [None, "relu"])
def test_fixed_statistics_keep_infinities_from_the_gradient(backend, activation):
    """It is grad_y * weight / sqrt(var + eps), wherever f lets it pass."""
    x = cases.reals((2, 3, 37), 1)
    x[0, 1, [0, 20, 36]] = np.inf, -np.inf, np.nan
    t = lamina.tensor(x, requires_grad=True)
    var = np.float32([1, 2, 3])
    y = F.batch_norm(t, np.zeros(3, np.float32), var, activation=activation)
    y.backward(np.ones(x.shape, np.float32))
    scale = np.broadcast_to(1 / np.sqrt(var + 1e-5)[:, None], x.shape)
    expected = np.where(x <= 0, 0, scale) if activation else scale
    assert_allclose(t.grad.data, expected, rtol=1e-6)


ONES = np.ones(3, np.float32)
BAD = [
    (lambda x: F.batch_norm(x, None, None), ValueError, "running_mean and running_var are needed"),
    (lambda x: F.batch_norm(x[:1, :, 0, 0], None, None, training=True), ValueError, "more than 1"),
    (lambda x: F.batch_norm(x[0, 0, 0], None, None, training=True), ValueError, "dimensions"),
    (lambda x: F.batch_norm(x, ONES[:2], ONES), ValueError, "running_mean must have one element"),
    (lambda x: F.batch_norm(x, ONES, ONES, ONES[:2]), ValueError, "weight must have shape (3,)"),
    (lambda x: F.batch_norm(x, ONES, ONES, ONES.astype(float)), TypeError, "one dtype"),
    (lambda x: F.batch_norm(x, ONES, ONES, eps=-1), ValueError, "eps must not be negative"),
    (lambda x: F.batch_norm(x, ONES, ONES, eps="a"), TypeError, "eps must be a number"),
    (
        lambda x: F.batch_norm(x, ONES, ONES, residual=x[:1]),
        ValueError,
        "residual must have the sh",
    ),
    (lambda x: F.batch_norm(x, ONES, ONES, residual=x.astype(float)), TypeError, "one dtype"),
    (lambda x: F.batch_norm(x, ONES, ONES, activation="bump"), ValueError, "activation must be"),
    (lambda x: F.batch_norm(x.astype(int), ONES, ONES), TypeError, "must be float32 or float64"),
    (lambda x: F.group_norm(x, 2), ValueError, "num_groups must divide the channels"),
    (lambda x: F.group_norm(x, 0), ValueError, "num_groups must be at least 1"),
    (lambda x: F.group_norm(x, 3.0), TypeError, "num_groups must be an integer"),
    (lambda x: F.layer_norm(x, 4), ValueError, "normalized_shape must be the last axes"),
    (lambda x: F.layer_norm(x, ()), ValueError, "normalized_shape must be the last axes"),
    (lambda x: F.instance_norm(x[..., :1, :1]), ValueError, "more than 1 position"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=[text for _, _, text in BAD])
def test_bad_input(call, error, text):
    with pytest.raises(error) as caught:
        call(np.ones((2, 3, 4, 5), np.float32))
    assert text in str(caught.value)
