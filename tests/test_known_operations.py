"""What tensors compute by known calls, beside NumPy: the second call as the first."""

from __future__ import annotations

import lamina
import numpy as np
import pytest
from numpy.testing import assert_array_equal


def values(*shape, dtype=np.float32):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


NAN = float("nan")
PICKS = np.array([[1, -1], [0, 1]])


@pytest.mark.parametrize("n", [0, 1, 7, 8, 1023, 1025, 40000, 200001])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_are_as_good_as_exact(n, dtype):
    x = values(2, n, dtype=dtype)
    # eight chains of 128 in a block, and the sums of blocks; float32 is rounded once
    steps = 1 if dtype == np.float32 else 140 + n / 1024
    for axis in ((0, 1), 1):
        exact = x.sum(axis, dtype=np.longdouble)
        bound = steps * np.finfo(dtype).eps * np.abs(x).sum(axis, dtype=np.longdouble)
        assert (np.abs(lamina.sum(x, axis) - exact) <= bound).all()


def test_numbers_are_told_apart():
    x = lamina.tensor(values(3, 4), requires_grad=True)
    for number in (2, 2.0, -0.5, 1e300, float("nan"), float("inf"), 3):
        with np.errstate(all="ignore"):
            expected = x.detach().numpy() * np.float32(number)
        y = x * number
        assert y.dtype == np.float32
        assert_array_equal(y.detach().numpy(), expected)
    assert (lamina.tensor([1, 2]) * 2).dtype == np.int64
    assert (lamina.tensor([1, 2]) * 2.5).tolist() == [2.5, 5]
    assert (x.detach() * True).dtype == np.float32
    with pytest.raises(OverflowError):
        x * 10**400
    with pytest.raises(TypeError, match="mul: b must be"):
        x * "2"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_powers(dtype):
    a = np.abs(values(40, 30, dtype=dtype)) + dtype(0.25)
    for exponent in (
        2,
        0.5,
        -1,
        0,
        1,
        3,
        -2,
        -0.5,
        2.5,
        -0.75,
        values(30, dtype=dtype),
        values(40, 1),
    ):
        power = np.asarray(exponent, np.float64)
        for _ in range(2):
            x = lamina.tensor(a, requires_grad=True)
            y = x**exponent
            wide = a.astype(np.float64)
            np.testing.assert_allclose(
                y.detach().numpy(), wide**power, rtol=4 * np.finfo(dtype).eps
            )
            assert_array_equal(lamina.pow(a, exponent), y.detach().numpy(), strict=True)
            y.backward(np.ones(y.shape, y.dtype))
            slope = power * wide ** (power - 1)
            np.testing.assert_allclose(x.grad.numpy(), slope, rtol=8 * np.finfo(dtype).eps)
    assert_array_equal(lamina.pow(2, a), lamina.pow(dtype(2), a), strict=True)


def reduced(gradient, shape):
    """The sums of the gradient over what was broadcast."""
    shape = (1,) * (gradient.ndim - len(shape)) + shape
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    return gradient.sum(axes, keepdims=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shapes", [((40, 30), (40, 30)), ((), (7,)), ((5, 1), (3, 5, 4))], ids=str)
def test_gradients_of_powers(dtype, shapes):
    a, b = (np.abs(values(*shape, dtype=dtype)) + dtype(0.25) for shape in shapes)
    grad = values(*np.broadcast_shapes(*shapes), dtype=dtype)
    y, log = a.astype(float) ** b, np.log(a.astype(float))
    full = b * a.astype(float) ** (b - 1.0) * grad, y * log * grad
    for _ in range(2):
        x, exponent = (lamina.tensor(o, requires_grad=True) for o in (a, b))
        (x**exponent).backward(grad)
        for tensor, slope, shape in zip((x, exponent), full, shapes, strict=True):
            bound = 64 * np.finfo(dtype).eps
            expected = reduced(slope, shape).reshape(shape)
            np.testing.assert_allclose(tensor.grad.numpy(), expected, rtol=bound, atol=bound)


@pytest.mark.torch
def test_special_powers_like_torch():
    torch = pytest.importorskip("torch")
    numbers = np.array([0, -0.0, 1, -2, 0.5, np.inf, -np.inf, NAN], np.float32)
    a, b = (o.ravel().copy() for o in np.meshgrid(numbers, numbers))
    for operands in ((a, b), (numbers, 0.0), (numbers, 3), (numbers, -2), (2, b)):
        for _ in range(2):
            ours, theirs = (
                [o if isinstance(o, int | float) else make(o) for o in operands]
                for make in (lambda o: lamina.tensor(o, requires_grad=True), torch.tensor)
            )
            for o in theirs:
                if not isinstance(o, int | float):
                    o.requires_grad_()
            y, expected = ours[0] ** ours[1], theirs[0] ** theirs[1]
            assert_array_equal(y.detach().numpy(), expected.detach().numpy())
            y.backward(np.ones(y.shape, np.float32))
            expected.backward(torch.ones_like(expected))
            for mine, their in zip(ours, theirs, strict=True):
                if not isinstance(mine, int | float):
                    assert_array_equal(mine.grad.numpy(), their.grad.numpy())


SPECIAL = [0, -0.0, 1, -3, 0.1, 1e30, -1e-40, np.inf, -np.inf, np.nan, 2**22, 2**24 + 2, 5e6]


@pytest.mark.parametrize("function", [np.floor_divide, np.remainder])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_divisions_have_the_bits_of_numpy(function, dtype):
    rng = np.random.default_rng(0)
    special = np.array(SPECIAL, dtype)
    whole = rng.integers(1, 2000, 30001).astype(dtype)
    below = np.nextafter(whole * dtype(0.7), dtype(0))  # quotients that round up to a whole number
    pairs = [
        (special[:, None], special),
        (special[:, None] * np.ones(37, dtype), special[:, None]),
        (values(30001, dtype=dtype) * dtype(100), values(30001, dtype=dtype)),
        (below, dtype(0.7)),
        (np.exp(10 * values(3, 1001, dtype=dtype)), -np.exp(10 * values(1001, dtype=dtype))),
        (dtype(7), values(17, dtype=dtype)),
        (np.zeros((0, 3), dtype), special[:3]),
    ]
    ours = getattr(lamina, function.__name__)
    for a, b in pairs:
        with np.errstate(all="ignore"):
            expected = function(a, b)
        for _ in range(2):
            found = ours(np.asarray(a), np.asarray(b))
            assert_array_equal(found, expected, strict=True)
            known = ~np.isnan(expected)
            assert_array_equal(np.signbit(found)[known], np.signbit(expected)[known])


def test_gradients_of_divisions():
    a, b = values(30, 40), values(40) + 3
    for _ in range(2):
        x, y = (lamina.tensor(o, requires_grad=True) for o in (a, b))
        (x % y).backward(a)
        assert_array_equal(x.grad.numpy(), a)
        expected = -(a.astype(float) * (a // b)).sum(0)
        np.testing.assert_allclose(y.grad.numpy(), expected, rtol=1e-5, atol=1e-5)
        (x // y).backward(a)
        assert_array_equal(x.grad.numpy(), a)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 15, 17, 40001])
def test_signs_and_limits(dtype, size):
    x = np.resize(np.array(SPECIAL, dtype), size)
    with np.errstate(all="ignore"):
        roots = 1 / np.sqrt(x)
    for _ in range(2):
        assert_array_equal(lamina.sign(x), np.sign(x), strict=True)
        assert_array_equal(lamina.rsqrt(x), roots, strict=True)
        assert_array_equal(lamina.logical_not(x), x == 0, strict=True)
        assert_array_equal(lamina.clamp(x, -1, 2), np.clip(x, dtype(-1), dtype(2)), strict=True)


COMPARISONS = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}


@pytest.mark.parametrize("name", COMPARISONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_])
def test_comparisons(name, dtype):
    function, expected = getattr(lamina, name), COMPARISONS[name]
    a, b = (np.asarray(values(*shape) * 2, dtype) for shape in ((3, 4), (3, 1)))
    b[0] = a[0, 0]
    for x, y in ((a, b), (b, a), (a, a[1]), (a, a.T.copy().T), (a, 1), (0, b)):
        for _ in range(2):
            found = function(x, y)
            assert_array_equal(found, expected(x, y), strict=True)
            if not isinstance(x, int):
                tensor = function(lamina.tensor(x), y)
                assert type(tensor) is lamina.Tensor and not tensor.requires_grad
                assert_array_equal(tensor.numpy(), found, strict=True)
    if dtype == np.float32:
        x = lamina.tensor(a, requires_grad=True)
        for _ in range(2):
            assert not function(x, x).requires_grad


@pytest.mark.parametrize("name", ["isnan", "isinf", "isfinite", "logical_not"])
def test_tests_of_elements(name):
    x = np.array([0, 1, -np.inf, np.nan], np.float32)
    for _ in range(2):
        assert_array_equal(getattr(lamina, name)(x), getattr(np, name)(x), strict=True)


@pytest.mark.parametrize("name", ["max", "min", "amax", "amin", "argmax", "argmin"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("shape", [(3, 4), (5, 200), (2, 3, 4), (40001,), (3, 70001)])
def test_extremes(name, dtype, shape):
    x = np.asarray(values(*shape) * 3, dtype)
    if dtype != np.int64:
        x[..., 2] = -np.inf
        x.reshape(-1)[-3] = np.nan
    function = getattr(lamina, name)
    reference = getattr(np, name if "arg" in name else name[-3:])
    for dim in (None, *range(-1, x.ndim)):
        for _ in range(2):
            found, expected = function(x, dim), reference(x, axis=dim)
            if isinstance(found, tuple):
                indices = np.argmax(x, dim) if name == "max" else np.argmin(x, dim)
                assert_array_equal(found.indices, indices, strict=True)
                found = found.values
            assert_array_equal(found, expected)
            assert found.dtype == (np.int64 if "arg" in name else dtype)


def test_extremes_share_the_gradient_or_give_it_to_the_first():
    for _ in range(3):
        x = lamina.tensor([[1.0, 3.0, 3.0], [NAN, 2.0, NAN]], requires_grad=True)
        x.amax(1).sum().backward()
        assert x.grad.tolist() == [[0, 0.5, 0.5], [0.5, 0, 0.5]]
        x.grad = None
        values, indices = x.max(1)
        assert not indices.requires_grad and indices.tolist() == [1, 0]
        values.sum().backward()
        assert x.grad.tolist() == [[0, 1, 0], [1, 0, 0]]
        x.grad = None
        x.max(0)[0].backward(np.float32([1, 2, 3]))
        assert x.grad.tolist() == [[0, 2, 0], [1, 0, 3]]


def test_integers_are_known_too():
    a, b = np.arange(6).reshape(2, 3), np.array([1, 2, 3])
    for _ in range(2):
        for ours, numpys in (
            (lamina.add, np.add),
            (lamina.sub, np.subtract),
            (lamina.mul, np.multiply),
        ):
            assert_array_equal(ours(a, b), numpys(a, b), strict=True)
            assert_array_equal(ours(a, 7), numpys(a, 7), strict=True)
        assert lamina.div(a, 2).dtype == np.float32
        assert lamina.add(a, 0.5).dtype == np.float32
        with pytest.raises(OverflowError):
            lamina.add(a, 10**30)


def test_large_operands_of_other_layouts():
    x = values(400, 401)
    other = x.T.copy().T
    for _ in range(2):
        assert_array_equal(lamina.exp(other), lamina.exp(x))
        assert_array_equal(lamina.add(other, x), x + x)
        np.testing.assert_allclose(lamina.sum(other, 0), lamina.sum(x, 0), rtol=1e-6)


def test_rows_by_index_are_checked_every_time():
    x = lamina.tensor(values(4, 3), requires_grad=True)
    for _ in range(2):
        assert_array_equal(x[PICKS].detach().numpy(), x.detach().numpy()[PICKS])
        with pytest.raises(IndexError, match="getitem: index must lie within"):
            x[PICKS * 4]


def test_split_in_parts_that_are_recorded():
    x = lamina.tensor(values(5, 3), requires_grad=True)
    parts = x.split(2)
    assert [part.shape for part in parts] == [(2, 3), (2, 3), (1, 3)]
    rows = x.unbind()
    assert len(rows) == 5 and rows[0].shape == (3,)
    (parts[0].sum() + 2 * parts[2].sum() + 3 * rows[3].sum()).backward()
    assert_array_equal(x.grad.numpy()[:, 0], [1, 1, 0, 3, 2])
    assert [part.shape for part in x.chunk(4)] == [(2, 3), (2, 3), (1, 3)]
    assert [part.shape for part in x[:0].chunk(4)] == 4 * [(0, 3)]  # as in torch
    with pytest.raises(ValueError, match="narrow: start and length"):
        x.narrow(0, 3, 3)
    with pytest.raises(ValueError, match="split: split_size must be at least 1"):
        x.split(0)


def test_many_axes():
    for extents in ((2, 3), (3, 2)):  # what tells calls apart has its limits
        shape = (1,) * 29 + extents
        a, b = values(*shape), values(*shape)
        for _ in range(2):
            assert_array_equal(lamina.add(a, b), a + b, strict=True)
            assert_array_equal(lamina.where(a > 0, a, b), np.where(a > 0, a, b))


@pytest.mark.parametrize("shape", [(70, 65), (3, 40, 50), (2, 5, 33, 4), (300, 257)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_])
def test_copies_of_other_orders(shape, dtype):
    x = np.asarray(values(*shape) * 4, dtype)
    orders = [tuple(range(len(shape)))[::-1], (1, 0, *range(2, len(shape)))]
    views = [x.transpose(order) for order in orders] + [x[::2, ::-1], x[:, 1::3].T, x[..., :1]]
    for view in views:
        for _ in range(2):
            y = lamina.Tensor(view).contiguous()
            assert y.is_contiguous()
            assert_array_equal(y.numpy(), view, strict=True)
    if dtype == np.float32:
        tensor = lamina.Tensor(x, requires_grad=True)
        seed = values(*shape[::-1])
        for _ in range(2):
            tensor.grad = None
            tensor.permute(*orders[0]).backward(seed)
            assert_array_equal(tensor.grad.numpy(), seed.transpose(orders[0]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_])
def test_conversions(dtype):
    x = np.array([[0.0, -0.0, 1.5, -2.5, 1e30, 7.0]] * 9000)
    x = x[:, :4].astype(dtype) if np.dtype(dtype).kind in "ib" else x.astype(dtype)
    special = np.array([np.nan, np.inf, -np.inf, 1e300, 1e-45, 2**60 + 1])
    for source in (x, special.astype(np.float64), np.asfortranarray(x), x[0, 0]):
        for to in (np.float32, np.float64, np.int64, np.bool_, np.int32, np.int8):
            if np.dtype(to).kind == "i" and source is not x:
                continue  # NaN may become any integer
            with np.errstate(all="ignore"):
                expected = np.asarray(source).astype(to)
                for _ in range(2):
                    y = lamina.tensor(source).to(to)
                    assert_array_equal(y.numpy(), expected, strict=True)
    if np.dtype(dtype).kind == "f":
        for _ in range(2):
            t = lamina.tensor(x, requires_grad=True)
            assert not t.to(bool).requires_grad and not t.long().requires_grad
            grad = values(*x.shape)
            y = t.double() if dtype == np.float32 else t.float()
            y.backward(grad.astype(y.dtype))
            assert_array_equal(t.grad.numpy(), grad.astype(dtype), strict=True)


@pytest.mark.parametrize("shape", [(3,), (5, 7), (3, 5000), (200, 400)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_])
def test_masks(shape, dtype):
    x, mask = np.asarray(values(*shape) * 4, dtype), values(*shape) > 0.3
    for one in (mask, ~mask, np.zeros(shape, bool), np.ones(shape, bool)):
        found = lamina.tensor(x)[one]
        assert_array_equal(found.numpy(), x[one], strict=True)
        assert_array_equal(lamina.tensor(x)[lamina.tensor(one)].numpy(), x[one])
    if dtype == np.float32:
        tensor = lamina.tensor(x, requires_grad=True)
        tensor[mask].backward(x[mask])
        assert_array_equal(tensor.grad.numpy(), np.where(mask, x, 0))
    with pytest.raises(IndexError, match="getitem"):
        lamina.tensor(x)[np.ones((2, *shape), bool)]


@pytest.mark.parametrize("shape", [(3000, 7), (40, 300), (5, 33000, 3), (4, 9, 11, 13)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_of_rows_are_as_good_as_exact(shape, dtype):
    x = values(*shape, dtype=dtype)
    steps = 1 if dtype == np.float32 else 60 + shape[0] + shape[1] / 1024
    for dims in (0, 1, (0, 2), (1, 3), (0, 1)):
        if np.max(dims) >= x.ndim:
            continue
        exact = x.sum(dims, dtype=np.longdouble)
        bound = steps * np.finfo(dtype).eps * np.abs(x).sum(dims, dtype=np.longdouble)
        for _ in range(2):
            assert (np.abs(lamina.sum(x, dims) - exact) <= bound).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_without_dimensions(dtype):
    x = np.array(-1.5, dtype)
    for function in (lamina.abs, lambda x: lamina.clamp(x, -1, 0.5), lamina.sign, lamina.isnan):
        for _ in range(2):
            y = function(x)
            assert type(y) is np.ndarray and y.shape == ()
            assert_array_equal(y, function(lamina.tensor(x)).numpy(), strict=True)


@pytest.mark.parametrize("axis", [0, 1])
def test_written_indices_of_extremes(axis):
    for index in (-1, 99, 10**12, -(10**12)):
        for _ in range(2):
            x = lamina.tensor(values(5, 7), requires_grad=True)
            y, indices = x.max(axis)
            indices.fill_(index)
            with pytest.raises(RuntimeError, match="written in place"):
                y.sum().backward()
            # nobody sees what is written past the Tensor, but it names no memory of others
            y, indices = x.max(axis)
            indices.numpy()[...] = index
            y.sum().backward()
            assert_array_equal(x.grad.numpy(), np.zeros((5, 7), np.float32))


@pytest.mark.parametrize("pick", [lambda x, i: x[i], lambda x, i: lamina.gather(x, 0, i)])
def test_written_indices_of_picks(pick):
    x = lamina.tensor(values(5, 7), requires_grad=True)
    for _ in range(2):
        index = lamina.tensor([[0, 2, 4]])
        y = pick(x, index)
        index.fill_(1)
        with pytest.raises(RuntimeError, match="written in place"):
            y.sum().backward()
