"""Reductions by the kernels beside formulas in float64: a first call and a known one."""

from __future__ import annotations

import itertools

import lamina
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference import reduction as reference

# One axis to four; lines longer than a piece; columns wider than a tile, in blocks of rows.
SMALL = [(7,), (1,), (3, 5), (33, 70), (4, 6, 49), (2, 3, 5, 7), (5, 1, 4), (9, 33, 17)]
LARGE = [(140001,), (2, 70001), (300, 1030), (40000, 7), (2, 66000, 3), (3, 5, 40000)]


@pytest.fixture(params=["ref", "cpu"])
def backend(request):
    with lamina.backend(request.param):
        yield request.param


def values(*shape, dtype=np.float32):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def choices(rank):
    """None, and every choice of axes."""
    several = (itertools.combinations(range(rank), r) for r in range(1, rank + 1))
    return [None, *itertools.chain.from_iterable(several)]


def call(op, x, dims, *arguments):
    if op == "prod" and dims is not None:
        dims = list(dims)
    return getattr(lamina, op)(x, *arguments, dims)


def forward_and_gradient(op, x, dims, arguments, grad_y):
    tensor = lamina.tensor(x, requires_grad=True)
    y = call(op, tensor, dims, *arguments)
    y.backward(grad_y)
    return y.detach().numpy(), tensor.grad.numpy()


REDUCTIONS = {
    "sum": (np.sum, lambda g, x, y, dims: g * np.ones_like(x)),
    "mean": (np.mean, lambda g, x, y, dims: reference.mean_backward(g, x, dims)),
    "var": (reference.var, lambda g, x, y, dims: reference.var_backward(g, x, dims)),
    "std": (
        lambda x, dims: np.sqrt(reference.var(x, dims)),
        lambda g, x, y, dims: reference.std_backward(g, x, dims),
    ),
    "norm": (
        lambda x, dims: reference.norm(x, 2, dims),
        lambda g, x, y, dims: reference.norm_backward(g, x, 2, dims),
    ),
    "norm 1": (
        lambda x, dims: reference.norm(x, 1, dims),
        lambda g, x, y, dims: reference.norm_backward(g, x, 1, dims),
    ),
    "prod": (np.prod, None),
    "amax": (np.max, lambda g, x, y, dims: reference.extreme_backward(g, x, y, dims)),
    "amin": (np.min, lambda g, x, y, dims: reference.extreme_backward(g, x, y, dims)),
}


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [*SMALL, *LARGE], ids=str)
def test_reductions_and_gradients(backend, op, dtype, shape):
    x = values(*shape, dtype=dtype)
    if op == "prod":
        x = 1 + x / 512
    formula, backward = REDUCTIONS[op]
    name, _, p = op.partition(" ")
    arguments = (float(p or 2),) if name == "norm" else ()
    eps = np.finfo(dtype).eps
    for dims in choices(len(shape)):
        wide = x.astype(np.float64)
        with np.errstate(all="ignore"):
            expected = np.asarray(formula(wide, dims))
        count = x.size // expected.size
        if name in ("var", "std") and count == 1:
            expected = np.full_like(expected, np.nan)
        # Added in double: one rounding of the result; doubles: blocks of 4096 elements in chains.
        size = wide if name not in ("sum", "mean") else np.abs(wide)
        scale = np.asarray(formula(size, dims)) if count > 1 else np.abs(expected)
        steps = 2 if dtype == np.float32 else 80 + count / 512
        grad_y = values(*expected.shape, dtype=dtype)
        first, known = (forward_and_gradient(name, x, dims, arguments, grad_y) for _ in range(2))
        found, grad_x = first
        assert found.shape == expected.shape and found.dtype == dtype
        assert_array_equal(found, call(name, x, dims, *arguments), strict=True)
        assert_array_equal(found, known[0], strict=True)
        if count == 1 and name in ("var", "std"):
            assert np.isnan(found).all()
            continue
        error = np.abs(found - expected)
        assert (error <= steps * eps * np.abs(scale)).all()
        if backward is None:
            continue
        axes = tuple(range(x.ndim)) if dims is None else dims
        seed = np.expand_dims(grad_y, axes) if name == "sum" else grad_y
        slope = backward(seed.astype(np.float64), wide, expected, dims)
        # What is left of elements beside the roundings of a deviation that may be small.
        far = np.abs(x).max() / expected.min() if name == "std" else 1
        assert (np.abs(grad_x - slope) <= 64 * eps * far + 16 * eps * np.abs(slope)).all()
        assert_array_equal(grad_x, known[1], strict=True)


@pytest.mark.parametrize("op", ["max", "min", "argmax", "argmin"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [*SMALL, *LARGE], ids=str)
def test_indices_are_the_first(backend, op, dtype, shape):
    x = np.round(4 * values(*shape, dtype=dtype))  # many are equal
    function, position = getattr(lamina, op), getattr(np, "arg" + op[-3:])
    for with_nan in (False, True):
        if with_nan:
            x.reshape(-1)[[x.size // 2, -1]] = np.nan
        for dim in range(-1, x.ndim):
            expected = position(x, dim)
            for _ in range(2):
                tensor = lamina.tensor(x, requires_grad=True)
                found = function(tensor, dim)
                if op.startswith("arg"):
                    assert_array_equal(found.numpy(), expected, strict=True)
                    continue
                assert_array_equal(found.indices.numpy(), expected, strict=True)
                places = np.expand_dims(expected, dim)
                kept = np.take_along_axis(x, places, dim)
                assert_array_equal(found.values.detach().numpy(), kept.squeeze(dim), strict=True)
                grad_y = values(*expected.shape, dtype=dtype)
                found.values.backward(grad_y)
                slope = np.zeros_like(x)
                np.put_along_axis(slope, places, np.expand_dims(grad_y, dim), dim)
                assert_array_equal(tensor.grad.numpy(), slope, strict=True)
    flat = position(x)
    assert function(x) == (flat if op.startswith("arg") else x.reshape(-1)[flat]) or np.isnan(
        x.reshape(-1)[flat]
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [*SMALL, *LARGE], ids=str)
def test_running_sums(backend, dtype, shape):
    x = values(*shape, dtype=dtype)
    eps = np.finfo(dtype).eps
    for dim in range(-1, x.ndim):
        wide = x.astype(np.longdouble)
        expected, size = wide.cumsum(dim), np.abs(wide).cumsum(dim)
        # Added in double: float32 is rounded once; doubles in order, some 16 roundings a vector.
        steps = 1 if dtype == np.float32 else shape[dim]
        for _ in range(2):
            tensor = lamina.tensor(x, requires_grad=True)
            y = lamina.cumsum(tensor, dim)
            assert (np.abs(y.detach().numpy() - expected) <= steps * eps * size).all()
            y.backward(x)
            slope = reference.cumsum_backward(x, dim)
            size_back = reference.cumsum_backward(np.abs(x), dim)
            assert (np.abs(tensor.grad.numpy() - slope) <= 2 * steps * eps * size_back).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [*SMALL, *LARGE], ids=str)
def test_logarithms_of_sums_of_powers(backend, dtype, shape):
    x = 5 * values(*shape, dtype=dtype)
    x.reshape(-1)[::37] -= 1000
    for dims in choices(x.ndim):
        axes = tuple(range(x.ndim)) if dims is None else dims
        wide = x.astype(np.longdouble)
        top = wide.max(axes, keepdims=True)
        kept = top + np.log(np.exp(wide - top).sum(axes, keepdims=True))
        grad_y = values(*kept.squeeze(axes).shape, dtype=dtype)
        bound = 8 * np.finfo(dtype).eps
        for _ in range(2):
            y, grad_x = forward_and_gradient("logsumexp", x, axes, (), grad_y)
            assert y.dtype == dtype
            assert_allclose(y, kept.squeeze(axes), rtol=bound, atol=bound)
            slope = np.expand_dims(grad_y, axes) * np.exp(wide - kept)
            # x - y of floats errs by a unit of the larger of them
            units = (4 + np.abs(kept) + np.abs(wide).clip(max=99)) * bound
            assert (np.abs(grad_x - slope) <= units * np.abs(slope) + 1e-37).all()


INF = float("inf")


@pytest.mark.parametrize("length", [3, 17, 5000])
@pytest.mark.parametrize("column", [False, True])
def test_logarithms_of_infinities(backend, length, column):
    lines = {(-INF, -INF): -INF, (INF, 1): INF, (-INF, INF): INF, (np.nan, INF): np.nan}
    for (first, last), expected in lines.items():
        x = np.full(length, first, np.float32)
        x[-1] = last
        both = np.stack([x, x])
        for _ in range(2):
            y = lamina.logsumexp(both.T.copy(), 0) if column else lamina.logsumexp(both, 1)
            assert_array_equal(y, np.float32([expected] * 2))


def products_of_others(x):
    """Along the last axis."""
    ones = np.ones_like(x[..., :1])
    before = np.cumprod(np.concatenate([ones, x[..., :-1]], -1), -1)
    behind = np.cumprod(np.concatenate([ones, x[..., :0:-1]], -1), -1)[..., ::-1]
    return before * behind


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7,), (1,), (33, 70), (4, 6, 49), (140001,), (300, 1030)])
@pytest.mark.parametrize("kind", ["usual", "zero", "zeros", "nan", "inf", "tiny", "huge"])
def test_gradients_of_products(backend, dtype, shape, kind):
    x = 1 + values(*shape, dtype=dtype) / 512
    flat = x.reshape(-1)
    flat[[0, -1]] = {"zero": [0, 1], "zeros": [0, 0], "nan": [0, np.nan], "inf": [3, -INF]}.get(
        kind, [2, 3]
    )
    if kind == "tiny":
        flat[:: max(x.size // 60, 1)] = 1e-8
    if kind == "huge":
        flat[:: max(x.size // 60, 1)] = 1e8
    for dims in choices(x.ndim):
        axes = tuple(range(x.ndim)) if dims is None else dims
        moved = np.moveaxis(x.astype(np.longdouble), axes, range(-len(axes), 0))
        count = int(np.prod([x.shape[axis] for axis in axes]))
        kept = moved.shape[: x.ndim - len(axes)]
        with np.errstate(all="ignore"):
            others = products_of_others(moved.reshape(*kept, count)).reshape(moved.shape)
            others = np.moveaxis(others, range(-len(axes), 0), axes)
            grad_y = values(*kept, dtype=dtype)
            expected = (np.expand_dims(grad_y, axes) * others).astype(dtype)
        for _ in range(2):
            _, grad_x = forward_and_gradient("prod", x, dims, (), grad_y)
            rounding = count * np.finfo(np.float64).eps + 4 * np.finfo(dtype).eps
            assert_allclose(grad_x, expected, rtol=rounding)


@pytest.mark.parametrize("op", ["sum", "prod", "var", "std", "norm", "amax", "amin"])
@pytest.mark.parametrize("shape", [(3, 130), (130, 3), (2, 5, 40)])
def test_nan_in_one_line_stays_there(backend, op, shape):
    x = values(*shape)
    for place in (0, 1, x.size // 2, x.size - 1):
        with_nan = x.copy()
        with_nan.reshape(-1)[place] = np.nan
        for dim in range(x.ndim):
            arguments = (2,) if op == "norm" else ()
            found = getattr(lamina, op)(with_nan, *arguments, dim)
            assert_array_equal(np.isnan(found), np.isnan(with_nan).any(dim))


def test_reductions_of_nothing_are_as_torch_has_them(backend):
    x = np.zeros((3, 0, 2), np.float32)
    for _ in range(2):
        assert_array_equal(lamina.sum(x, 1), np.zeros((3, 2), np.float32), strict=True)
        assert_array_equal(lamina.prod(x, 1), np.ones((3, 2), np.float32), strict=True)
        assert_array_equal(lamina.norm(x, 2, 1), np.zeros((3, 2), np.float32), strict=True)
        assert np.isnan(lamina.mean(x, 1)).all() and np.isnan(lamina.var(x, 1)).all()
        assert lamina.sum(x, 0).shape == (0, 2) and lamina.cumsum(x, 1).shape == x.shape
        with pytest.raises(ValueError, match="amax: x must have an element"):
            lamina.amax(x, 1)


@pytest.mark.parametrize("op", ["sum", "mean", "prod", "var", "std", "norm", "amax", "amin"])
@pytest.mark.parametrize("x", [values(3, 4), np.arange(6).reshape(2, 3)], ids=["float", "int"])
def test_no_dimension_means_all(backend, op, x):
    if op == "mean":
        x = x.astype(np.float64)
    for keepdim in (False, True):
        expected = getattr(lamina, op)(x, dim=tuple(range(x.ndim)), keepdim=keepdim)
        for dim in ((), [], ()):
            found = getattr(lamina, op)(x, dim=dim, keepdim=keepdim)
            assert_array_equal(found, expected, strict=True)
    for op in ("any", "all"):  # here torch has it that () is none
        assert_array_equal(getattr(lamina, op)(x, dim=()), x != 0)


def test_roots_at_zero_have_the_gradient_zero(backend):
    for op, arguments in (("std", ()), ("norm", (2,)), ("norm", (1,))):
        for _ in range(2):
            x = lamina.tensor(np.zeros((2, 3), np.float32), requires_grad=True)
            getattr(lamina, op)(x, *arguments, 1).sum().backward()
            assert_array_equal(x.grad.numpy(), np.zeros((2, 3), np.float32))


def test_variance_keeps_its_digits_far_from_zero(backend):
    x = np.float32(10000) + values(3, 20000) / 64
    expected = reference.var(x, 1)
    for axis, array in ((1, x), (0, np.ascontiguousarray(x.T))):
        assert_allclose(lamina.var(array, axis), expected, rtol=2e-7)
    y = x.astype(np.float64) + 1e6
    assert_allclose(lamina.var(y, 1), reference.var(y, 1), rtol=1e-9)


@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_bits_do_not_depend_on_threads(shape):
    x = values(*shape)

    def results():
        for op in ("sum", "var", "norm", "prod", "logsumexp", "amax", "argmax", "cumsum"):
            for dim in range(x.ndim):
                arguments = (2,) if op == "norm" else ()
                yield np.asarray(getattr(lamina, op)(x, *arguments, dim))

    lamina.set_num_threads(1)
    alone = list(results())
    for threads in (2, 3):
        lamina.set_num_threads(threads)
        for one, other in zip(alone, results(), strict=True):
            assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("op", ["sum", "norm", "prod", "logsumexp", "amax", "amin"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lines_do_not_depend_on_their_neighbours(op, dtype):
    """Short ones are reduced a vector of lines at a time; some lines are infinite or NaN."""
    for length in (1, 2, 5, 8, 16, 19, 63, 64, 130, 255, 256, 300, 1024, 1025):
        x = values(3, 13, length + 2, dtype=dtype)[:, 1:-1, 1:-1]
        x[0, 3, 0], x[1, 4, -1], x[1, 5], x[2, 6, length // 2] = INF, -INF, -INF, np.nan
        for _ in range(2):
            together = getattr(lamina, op)(x, dim=-1)
            assert_array_equal(together, getattr(lamina, op)(x.copy(), dim=-1), strict=True)
            for place in np.ndindex(together.shape):
                alone = getattr(lamina, op)(x[place].copy()[None], dim=-1)
                assert_array_equal(together[place], alone[0], strict=True)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_sums_of_large_transposed_arrays(order):
    x = values(40, 50, 60).transpose(order)
    for dims in choices(3):
        for keepdim in (False, True):
            expected = x.sum(dims, dtype=np.float64, keepdims=keepdim)
            found = lamina.sum(x, dims, keepdim)
            assert found.shape == expected.shape
            assert_allclose(found, expected, rtol=1e-6, atol=1e-5)
            mean = expected / (x.size // expected.size)
            assert_allclose(lamina.mean(x, dims, keepdim), mean, rtol=1e-6, atol=1e-6)


VIEWS = {
    **{str(order): order for order in itertools.permutations(range(3))},
    **{str(order): order for order in ((0, 2, 3, 1), (0, 3, 1, 2), (3, 1, 0, 2), (1, 0, 3, 2))},
}
ALONG_ONE = ("argmax", "argmin", "max", "min")
OF_SEVERAL = ("sum", "mean", "var", "std", "norm", "logsumexp", "amax", "amin")


@pytest.mark.parametrize("op", [*OF_SEVERAL, *ALONG_ONE])
@pytest.mark.parametrize("order", VIEWS.values(), ids=VIEWS)
def test_views_are_reduced_as_copies_are(op, order):
    """Transposed, cut and turned around; calls that are known give the bits of first ones."""
    whole = np.round(values(3, 4, 1, 5, 6)[:, :, 0] if len(order) == 4 else values(3, 4, 5))
    axes = len(order)
    cuts = (slice(None),), (..., slice(1, None)), (slice(None), slice(None, None, 2))
    for x in (*(whole[cut].transpose(order) for cut in cuts), whole.transpose(order)[::-1]):
        copy = np.ascontiguousarray(x)
        for dims in (*range(axes), None) if op in ALONG_ONE else choices(axes):
            for keepdim in (False, True):
                if op in ("max", "min") and dims is None:
                    continue
                options = dict(dim=dims, keepdim=keepdim)
                expected = getattr(lamina, op)(copy, **options)
                first = getattr(lamina, op)(x, **options)
                known = getattr(lamina, op)(x, **options)
                if op in ("max", "min"):
                    assert_array_equal(first.indices, expected.indices, strict=True)
                    assert_array_equal(known.indices, expected.indices, strict=True)
                    first, known, expected = first.values, known.values, expected.values
                assert_array_equal(known, first, strict=True)
                if op in ("amax", "amin", *ALONG_ONE):
                    assert_array_equal(first, expected, strict=True)
                else:
                    assert first.shape == expected.shape
                    assert_allclose(first, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("op", ["sum", "mean", "var", "amax", "norm"])
def test_gradients_of_views(op):
    for order in ((0, 2, 1), (2, 1, 0), (1, 0, 2)):
        view = values(3, 4, 5).transpose(order)
        for dims in choices(3):
            gradients = []
            for x in (np.ascontiguousarray(view), view, view):
                t = lamina.tensor(x, requires_grad=True)
                y = getattr(lamina, op)(t, dim=dims)
                y.backward(values(*y.shape) if y.ndim else np.float32(1))
                gradients.append(t.grad.numpy())
            for gradient in gradients[1:]:
                assert_allclose(gradient, gradients[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.int64, np.bool_])
@pytest.mark.parametrize("shape", [*SMALL, *LARGE, (0, 3), (5, 0, 2)], ids=str)
def test_sums_of_integers(dtype, shape):
    x = np.random.default_rng(1).integers(-(2**60), 2**60, shape)
    x = x > 0 if dtype == np.bool_ else x
    for view in (x, x.T):
        for dims in choices(x.ndim):
            for _ in range(2):
                found = lamina.sum(view, dims)
                assert_array_equal(found, view.sum(dims, dtype=np.int64), strict=True)
    odd = np.arange(300, dtype=np.uint8).view(np.bool_)  # booleans may be any byte
    assert lamina.sum(odd) == lamina.sum(odd) == 298


def test_integers_booleans_and_other_layouts_are_reduced_too():
    whole = np.arange(12).reshape(3, 4)
    for _ in range(2):
        assert lamina.sum(whole, 0).dtype == np.int64 and lamina.sum(whole > 3) == 8
        assert_array_equal(lamina.cumsum(whole, 1), whole.cumsum(1), strict=True)
        assert_array_equal(lamina.argmax(whole, 1), whole.argmax(1), strict=True)
        assert lamina.prod(whole[1:]) == whole[1:].prod()
    x = values(6, 5, 4)
    for view in (x.T, x[::2], x[:, ::-1], np.asfortranarray(x), x[:, None]):
        for _ in range(2):
            assert_allclose(lamina.var(view, 1, correction=0), view.var(1), rtol=1e-5, atol=1e-12)
            assert_array_equal(lamina.argmin(view, 0), view.argmin(0), strict=True)
            assert_allclose(lamina.cumsum(view, 0), view.cumsum(0), rtol=1e-4, atol=1e-6)
