"""Operations on Tensors against NumPy, gradcheck and, under the marker, torch."""

from __future__ import annotations

import lamina
import numpy as np
import pytest
from lamina import Tensor
from lamina.testing import gradcheck


def away(*shape):
    """Values away from 0 and from each other, so that no difference crosses a kink."""
    size = int(np.prod(shape))
    x = (np.arange(size) + 1.5) / (size + 1) * np.where(np.arange(size) % 2, -1.0, 1.0)
    return np.random.default_rng(1).permutation(x).reshape(shape)


def positive(*shape):
    return abs(away(*shape)) + 0.1


A, B, ROW, COLUMN = away(3, 4), away(3, 4)[::-1].copy(), away(4), away(3, 1)
MASK = np.array([[True, False, True, False]] * 2 + [[False] * 4])
CUBE = away(2, 3, 4)
PICKS = np.array([[0, 2], [2, 0]])

# name: (function, inputs); every one is checked by gradcheck and, where torch agrees on the
# spelling, against torch.
DIFFERENTIABLE = {
    "add": (lambda a, b: a + b, [A, ROW]),
    "add_scalar": (lambda a: 2 + a + 1.5, [A]),
    "add_0d": (lambda a, b: a + b, [A, np.array(0.5)]),
    "sub": (lambda a, b: a - b, [ROW, COLUMN]),
    "rsub": (lambda a: 1 - a, [A]),
    "mul": (lambda a, b: a * b, [A, COLUMN]),
    "mul_itself": (lambda a: a * a, [A]),
    "div": (lambda a, b: a / b, [COLUMN, A]),
    "rdiv": (lambda a: 2 / a, [A]),
    "floor_divide": (lambda a, b: a + a // b, [A, ROW]),
    "remainder": (lambda a, b: a % b, [A, ROW]),
    "remainder_scalar": (lambda a: (7.3 % a) + a % -0.3, [A]),
    "neg": (lambda a: -a, [A]),
    "pow": (lambda a, b: a**b, [positive(3, 4), ROW]),
    "pow_scalar": (lambda a: a**3, [A]),
    "pow_zero": (lambda a: a**0, [A]),
    "rpow": (lambda a: 2.0**a, [A]),
    "abs": (lambda a: abs(a), [A]),
    "sign": (lambda a: a.sign(), [A]),
    "exp": (lambda a: a.exp(), [A]),
    "expm1": (lambda a: a.expm1(), [A]),
    "log": (lambda a: a.log(), [positive(5)]),
    "log2": (lambda a: a.log2(), [positive(5)]),
    "log1p": (lambda a: a.log1p(), [positive(5)]),
    "sqrt": (lambda a: a.sqrt(), [positive(5)]),
    "rsqrt": (lambda a: a.rsqrt(), [positive(5)]),
    "square": (lambda a: a.square(), [A]),
    "sin": (lambda a: a.sin(), [A]),
    "cos": (lambda a: a.cos(), [A]),
    "tanh": (lambda a: a.tanh(), [A]),
    "sigmoid": (lambda a: (a * 20).sigmoid(), [A]),
    "floor": (lambda a: a.floor(), [A]),
    "ceil": (lambda a: a.ceil(), [A]),
    "round": (lambda a: (a * 1.7).round(), [A]),
    "maximum": (lambda a, b: a.maximum(b), [A, ROW[::-1] * 0.9]),
    "minimum": (lambda a, b: a.minimum(b), [A, COLUMN * 0.9]),
    "clamp": (lambda a: a.clamp(-0.31, 0.62), [A]),
    "clamp_min": (lambda a: a.clamp(min=0.1), [A]),
    "clamp_tensors": (lambda a, b, c: a.clamp(b, c), [A, COLUMN * 0.3 - 0.4, ROW * 0.3 + 0.4]),
    "clamp_crossed": (lambda a: a.clamp(0.5, -0.5), [A]),
    "masked_fill": (lambda a, m: a.masked_fill(m, 7.0), [A, MASK]),
    "matmul": (lambda a, b: a @ b, [A, away(4, 5)]),
    "matmul_batch": (lambda a, b: a @ b, [CUBE, away(5, 1, 4, 2)]),
    "matmul_vector_left": (lambda a, b: a @ b, [away(3), CUBE]),
    "matmul_vector_right": (lambda a, b: a @ b, [CUBE, ROW]),
    "matmul_vectors": (lambda a, b: a @ b, [ROW, ROW * 2]),
    "sum": (lambda a: a.sum(), [CUBE]),
    "sum_dims": (lambda a: a.sum((0, -1)), [CUBE]),
    "sum_keepdim": (lambda a: a.sum(1, keepdim=True), [CUBE]),
    "mean": (lambda a: a.mean(), [CUBE]),
    "mean_dim": (lambda a: a.mean(1), [CUBE]),
    "prod": (lambda a: a.prod(), [ROW]),
    "prod_dim": (lambda a: a.prod(1, True), [CUBE]),
    "prod_zeros": (lambda a: a.prod(0), [np.array([[0.0, 0, 2], [3, 0, 4], [5, 6, 7]])]),
    "max": (lambda a: a.max(), [CUBE]),
    "min": (lambda a: a.min(), [CUBE]),
    "max_dim": (lambda a: a.max(1)[0], [CUBE]),
    "min_keepdim": (lambda a: a.min(-1, True)[0], [CUBE]),
    "amax": (lambda a: a.amax((0, 2)), [CUBE]),
    "amin": (lambda a: a.amin(1, True), [CUBE]),
    "var": (lambda a: a.var(), [CUBE]),
    "var_dims": (lambda a: a.var((0, 2), unbiased=False), [CUBE]),
    "var_correction": (lambda a: a.var(1, correction=0, keepdim=True), [CUBE]),
    "std": (lambda a: a.std(-1), [CUBE]),
    "norm": (lambda a: a.norm(), [CUBE]),
    "norm_1": (lambda a: a.norm(1, 1), [CUBE]),
    "norm_3": (lambda a: a.norm(3, (0, 2), True), [CUBE]),
    "norm_inf": (lambda a: a.norm(np.inf, 0), [CUBE]),
    "norm_neg_inf": (lambda a: a.norm(-np.inf, 0), [CUBE]),
    "logsumexp": (lambda a: a.logsumexp(1), [CUBE * 300]),
    "logsumexp_dims": (lambda a: a.logsumexp((0, 2), keepdim=True), [CUBE]),
    "cumsum": (lambda a: a.cumsum(1), [CUBE]),
    "reshape": (lambda a: a.reshape(4, -1), [CUBE]),
    "reshape_of_turned": (lambda a: a.transpose(0, 1).reshape((-1,)), [CUBE]),
    "permute": (lambda a: a.permute(2, 0, 1), [CUBE]),
    "transpose": (lambda a: a.transpose(0, -1), [CUBE]),
    "swapaxes": (lambda a: a.swapaxes(1, 2), [CUBE]),
    "movedim": (lambda a: a.movedim((0, 1), (-1, 0)), [CUBE]),
    "T": (lambda a: a.T, [A]),
    "mT": (lambda a: a.mT, [CUBE]),
    "flatten": (lambda a: a.flatten(1), [CUBE]),
    "unflatten": (lambda a: a.unflatten(1, (2, -1)), [A]),
    "squeeze": (lambda a: a.squeeze(), [COLUMN]),
    "squeeze_dim": (lambda a: a.squeeze(0), [COLUMN]),
    "unsqueeze": (lambda a: a.unsqueeze(-2), [A]),
    "expand": (lambda a: a.expand(2, -1, 5), [COLUMN]),
    "flip": (lambda a: a.flip(0, 2), [CUBE]),
    "narrow": (lambda a: a.narrow(1, 1, 2), [CUBE]),
    "split": (lambda a: a.split(3, -1)[1], [CUBE]),
    "split_sections": (lambda a: a.split([1, 2], 1)[1], [CUBE]),
    "chunk": (lambda a: a.chunk(3, 2)[0], [CUBE]),
    "unbind": (lambda a: a.unbind(1)[2], [CUBE]),
    "clone": (lambda a: a.clone(), [A]),
    "contiguous": (lambda a: a.T.contiguous(), [A]),
    "double": (lambda a: a.double(), [A]),
    "index_int": (lambda a: a[1], [A]),
    "index_slices": (lambda a: a[::2, 1:3], [A]),
    "index_new": (lambda a: a[..., None, -1], [A]),
    "index_mask": (lambda a, m: a[m], [A, MASK]),
    "index_picks": (lambda a, i: a[i], [A, PICKS]),
    "index_pairs": (lambda a, i, j: a[i, j], [A, PICKS, PICKS + 1]),
    "index_mixed": (lambda a, i: a[:, i, 1:], [CUBE, np.array([0, 0, -1])]),
    "index_integer_and_picks": (lambda a, i: a[1, :, i], [CUBE, np.array([0, 0, -1])]),
    "index_picks_and_integer": (lambda a, i: a[i, ..., 0], [CUBE, np.array([0, 1, 1])]),
    "index_integer_and_mask": (lambda a, m: a[-1, :, m], [CUBE, np.arange(4) != 2]),
    "gather": (lambda a, i: a.gather(1, i), [A, np.array([[0, 0], [3, 1], [2, 2]])]),
}
NO_GRADIENT_IN_TORCH = ("floor_divide", "remainder_scalar")
FUNCTIONS = {
    "cat": (lambda m, a, b: m.cat([a, b], 1), [A, COLUMN]),
    "stack": (lambda m, a, b: m.stack((a, b), -1), [A, B]),
    "where": (lambda m, c, a, b: m.where(c, a, b), [MASK, ROW, A]),
    "where_scalar": (lambda m, c, a: m.where(c, a, 2.0), [MASK, A]),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradient(name):
    fn, inputs = DIFFERENTIABLE[name]
    assert gradcheck(fn, inputs)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient_of_function(name):
    fn, inputs = FUNCTIONS[name]
    assert gradcheck(lambda *args: fn(lamina, *args), inputs)


def test_integers_choose_before_arrays_do():
    """As in torch: the arrays' dimension stays where it is."""
    picks, mask = np.array([0, 0, -1]), np.arange(4) != 2
    x = Tensor(CUBE)
    np.testing.assert_array_equal(x[1, :, picks].data, CUBE[1][:, picks])
    np.testing.assert_array_equal(x[-1, :, mask].data, CUBE[-1][:, mask])
    np.testing.assert_array_equal(
        x[picks % 2, ..., None, 0].data, CUBE[..., 0][picks % 2][..., None]
    )
    y, expected = Tensor(CUBE.copy()), CUBE.copy()
    y[1, :, picks] = 7.0
    expected[1][:, picks] = 7.0
    np.testing.assert_array_equal(y.data, expected)


def _versus_torch(mine, theirs, inputs, dtype):
    torch = pytest.importorskip("torch")
    arrays = [x.astype(dtype) if x.dtype.kind == "f" else x for x in inputs]
    ours = [Tensor(x, requires_grad=x.dtype.kind == "f") for x in arrays]
    peers = [torch.tensor(x, requires_grad=x.dtype.kind == "f") for x in arrays]
    y, expected = mine(*ours), theirs(*peers)
    assert y.shape == tuple(expected.shape)
    assert str(y.dtype) == str(expected.dtype).removeprefix("torch.")
    rtol = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), rtol, rtol)
    weight = np.random.default_rng(2).uniform(0.5, 1.5, y.shape).astype(y.dtype)
    y.backward(weight)
    expected.backward(torch.tensor(weight))
    for x, peer in zip(ours, peers, strict=True):
        if x.requires_grad and peer.grad is not None:
            np.testing.assert_allclose(x.grad.numpy(), peer.grad.numpy(), rtol, rtol)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [n for n in DIFFERENTIABLE if n not in NO_GRADIENT_IN_TORCH])
def test_like_torch(name, dtype):
    fn, inputs = DIFFERENTIABLE[name]
    _versus_torch(fn, fn, [np.ascontiguousarray(x) for x in inputs], dtype)


@pytest.mark.torch
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_like_torch(name):
    torch = pytest.importorskip("torch")
    fn, inputs = FUNCTIONS[name]
    _versus_torch(
        lambda *args: fn(lamina, *args), lambda *args: fn(torch, *args), inputs, np.float32
    )


NAN, INF = np.nan, np.inf
KINKS = np.array([[0.0, 1, 1, -2, 0.5], [-0.0, 1, 3, 3, -1]])
SPECIAL = np.array([[NAN, 1, INF, -INF, 0], [2, NAN, 1, 0, -INF]])
AT_KINKS = {
    "abs": lambda a: a.abs(),
    "sign": lambda a: a.sign(),
    "sqrt": lambda a: a.abs().sqrt(),
    "clamp": lambda a: a.clamp(-1, 1),
    "clamp_min": lambda a: a.clamp(min=1),
    "maximum": lambda a: a.maximum(a.flip(0)),
    "minimum": lambda a: a.minimum(a.flip(0)),
    "max": lambda a: a.max(),
    "max_dim": lambda a: a.max(1)[0],
    "min_dim": lambda a: a.min(1)[0],
    "amax": lambda a: a.amax(1),
    "amin": lambda a: a.amin(0),
    "pow_0": lambda a: a**0,
    "pow_1": lambda a: a**1,
    "pow_2": lambda a: a**2,
    "norm": lambda a: (a * 0).norm(2, 1),
    "norm_1": lambda a: a.norm(1, 1),
    "norm_inf": lambda a: a.norm(INF, 1),
    "std": lambda a: (a * 0).std(1),
    "prod": lambda a: a.prod(1),
    "sigmoid": lambda a: a.sigmoid(),
    "tanh": lambda a: a.tanh(),
    "exp": lambda a: a.exp(),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", AT_KINKS)
def test_kinks_like_torch(name):
    _versus_torch(AT_KINKS[name], AT_KINKS[name], [KINKS], np.float64)


# sign(NaN) is NaN here and 0 in torch; the others are multiples of zero.
SPECIAL_NAMES = [n for n in AT_KINKS if n not in ("sign", "norm", "std", "prod", "norm_inf")]


@pytest.mark.torch
@pytest.mark.parametrize("name", SPECIAL_NAMES)
def test_nan_and_inf_like_torch(name):
    torch = pytest.importorskip("torch")
    y = AT_KINKS[name](Tensor(SPECIAL)).numpy()
    np.testing.assert_array_equal(y, AT_KINKS[name](torch.tensor(SPECIAL)).numpy())


MASKS = {
    name: AT_KINKS[name]
    for name in ("clamp", "clamp_min", "maximum", "minimum", "max_dim", "min_dim")
} | {
    "clamp_max": lambda a: a.clamp(max=0.5),
    "clamp_arrays": lambda a: a.clamp(a.flip(0) - 1, a.flip(1)),
    "maximum_number": lambda a: a.maximum(type(a)([0.0])),
    "floor": lambda a: a.floor(),
    "ceil": lambda a: a.ceil(),
    "round": lambda a: a.round(),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("incoming", [INF, -INF, NAN, 1.0])
def test_nothing_comes_back_where_the_gradient_is_zero(name, incoming):
    """Not even Inf and NaN; by the call that is known from the first one, too."""
    torch = pytest.importorskip("torch")
    for values in (KINKS, SPECIAL):
        expected = torch.tensor(values, requires_grad=True)
        y = MASKS[name](expected)
        y = y if hasattr(y, "backward") else y[0]
        y.backward(torch.full_like(y, incoming))
        for _ in range(2):
            x = lamina.tensor(values, requires_grad=True)
            y = MASKS[name](x)
            y.backward(np.full(y.shape, incoming))
            np.testing.assert_array_equal(x.grad.data, expected.grad.numpy())


@pytest.mark.parametrize("limits", [(-1, 1), (None, 1), (-1, None), (np.ones(3), None)], ids=str)
def test_gradient_of_clamp_at_nan(limits):
    """0, as torch's; also by the call that is known from the first one."""
    for _ in range(2):
        x = lamina.tensor(np.array([np.nan, 1.0, 2.0]), requires_grad=True)
        x.clamp(*limits).sum().backward()
        np.testing.assert_array_equal(x.grad.data, [0, 1, limits[1] is None])


@pytest.mark.parametrize("shape", [(), (2,)], ids=str)
def test_numpy_scalars_are_numbers(shape):
    """As in torch, where float64 is one of Python's floats: they widen no floats."""
    x = Tensor(np.ones(shape, np.float32))
    for number in (np.float64(2), np.float32(2), np.int64(2), np.bool_(True), 2.0, 2, True):
        results = x * number, number - x, x / number, x**number, lamina.maximum(number, x)
        assert {y.dtype for y in results} == {np.dtype(np.float32)}, number
    assert (x * np.array(2.0)).dtype == (np.float32 if shape else np.float64)
    assert lamina.add(np.float64(1), 1.5).dtype == np.float64


MASKED = np.ma.array([1.0, 2.0, 3.0], mask=[False, True, False])
ON_MASKED = ["exp", "abs", "neg", "sign", "sum", "amax", "cumsum", "add", "matmul", "where", "cat"]


@pytest.mark.parametrize("name", ON_MASKED)
def test_masks_are_not_dropped(name):
    arguments = {"cumsum": (MASKED, 0), "add": (1, MASKED), "matmul": (np.ones(3), MASKED)}
    arguments |= {"where": (np.ones(3, bool), 0, MASKED), "cat": ([np.ones(3), MASKED],)}
    with pytest.raises(TypeError, match="must be a plain array, got . of type MaskedArray"):
        getattr(lamina, name)(*arguments.get(name, (MASKED,)))


OPERANDS = {
    "f32": np.ones(2, np.float32),
    "f64": np.ones(2, np.float64),
    "i64": np.ones(2, np.int64),
    "bool": np.ones(2, bool),
    "f64_0d": np.float64(1),
    "i64_0d": np.int64(1),
    "float": 1.5,
    "int": 2,
}


@pytest.mark.torch
@pytest.mark.parametrize("second", OPERANDS)
@pytest.mark.parametrize("first", ["f32", "f64", "i64", "bool"])
def test_promotion_like_torch(first, second):
    torch = pytest.importorskip("torch")
    a, b = OPERANDS[first], OPERANDS[second]
    peer = torch.tensor(b) if isinstance(b, np.ndarray | np.generic) else b
    mine = Tensor(b) if isinstance(b, np.ndarray | np.generic) else b
    for op in ("__add__", "__mul__", "__truediv__"):
        expected = getattr(torch.tensor(a), op)(peer).dtype
        assert f"torch.{getattr(Tensor(a), op)(mine).dtype}" == str(expected)


def test_scalars_keep_float32():
    x = lamina.tensor([1.0, 2.0])
    for y in (x + 1, 2.5 * x, x / 3, 1 / x, x**2, x - 1e10, x.maximum(0.5), x.clamp(0, 1.5)):
        assert y.dtype == np.float32
    assert lamina.tensor(2.0).dtype == np.float32 and (lamina.tensor(2.0) * 2.0).shape == ()


def test_array_on_the_left():
    x = lamina.tensor([1.0, 2.0], requires_grad=True)
    y = np.array([3.0, 4], np.float32) * x + np.float32(1)
    assert isinstance(y, Tensor) and y.tolist() == [4, 9]
    assert isinstance(np.float64(2) * x, Tensor)


def test_plain_arrays():
    x = np.arange(6.0).reshape(2, 3)
    for y in (lamina.exp(x), lamina.sum(x, 0), lamina.reshape(x, 3, 2), lamina.cat([x, x])):
        assert type(y) is np.ndarray
    assert lamina.cat([x, Tensor(x)]).shape == (4, 3)
    assert lamina.max(x, 1).indices.tolist() == [2, 2]


def test_comparisons():
    a, b = lamina.tensor([1.0, 2, NAN], requires_grad=True), lamina.tensor([1, 3, 3])
    assert (a == b).tolist() == [True, False, False] and not (a == b).requires_grad
    assert (a != 1).tolist() == [False, True, True] and (a < 2).tolist() == [True, False, False]
    assert ((a < b) & (a > 1) | (a <= 1)).tolist() == [True, True, False]
    assert (~(a >= b) ^ True).tolist() == [True, False, False]
    assert a.isnan().any() and not a.isfinite().all() and a.isinf().sum() == 0
    for other in (None, "a", {}, object()):
        assert (a == other) is False and (a != other) is True and (other == a) is False
        with pytest.raises(TypeError, match="b must be a Tensor"):
            a < other  # noqa: B015
    for other in ([1, 2, 3], (1,), 1j):  # torch answers False, although elements may be meant
        with pytest.raises(TypeError, match="b must be a Tensor"):
            a == other  # noqa: B015
    assert a in {a} and [None, "a", a].index(a) == 2


@pytest.mark.torch
@pytest.mark.parametrize("operation", [lambda a, b: a // b, lambda a, b: a % b])
def test_divisions_like_torch(operation):
    torch = pytest.importorskip("torch")
    numbers = np.array([5, -5, 3.5, -0.0, 0, INF, -INF, NAN, 1e-3, 6, 2, -2], np.float32)
    a, b = numbers[:, None], numbers
    found = operation(Tensor(a), Tensor(b))
    expected = operation(torch.tensor(a), torch.tensor(b)).numpy()
    np.testing.assert_array_equal(found.numpy(), expected)
    whole = np.array([7, -7, 6, 0])
    for other in (3, -3, 2.5, np.array([1, -2, 4, 5]), np.array([2.0, -3, 1, 7])):
        theirs = torch.tensor(other) if isinstance(other, np.ndarray) else other
        found = operation(lamina.tensor(whole), other)
        expected = operation(torch.tensor(whole), theirs).numpy()
        assert found.dtype == expected.dtype or isinstance(other, np.ndarray)
        np.testing.assert_array_equal(found.numpy(), expected)
    for a, b in ((whole, 0), (3, whole)):
        with pytest.raises(ValueError, match="must not be 0"):
            operation(a if isinstance(a, int) else lamina.tensor(a), Tensor(b))
    with pytest.raises(TypeError, match="boolean"):
        operation(Tensor(True), Tensor(True))


@pytest.mark.torch
def test_logsumexp_like_torch():
    torch = pytest.importorskip("torch")
    x = np.array([[-INF, -INF], [1, INF], [NAN, 1], [1e4, 1e4], [-INF, 0], [-1e4, 3]])
    ours, theirs = lamina.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, expected = ours.logsumexp(1), theirs.logsumexp(1)
    np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), rtol=1e-15)
    y.sum().backward()
    expected.sum().backward()
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-10)
    assert lamina.logsumexp(np.zeros((3, 0), np.float32), 1).tolist() == [-INF] * 3
    assert lamina.logsumexp(np.float32(2), 0) == 2 and lamina.logsumexp(Tensor(x), ()).shape == ()
    assert lamina.logsumexp(np.arange(3), 0).dtype == np.float32


@pytest.mark.parametrize("operation", [np.bitwise_and, np.bitwise_or, np.bitwise_xor])
def test_bits_of_integers(operation):
    symbol = {"and": "__and__", "or": "__or__", "xor": "__xor__"}[operation.__name__[8:]]
    a, b, mask = np.array([6, -7, 0]), np.array([3, 5, -1]), np.array([True, False, True])
    for left, right in ((a, b), (a, mask), (mask, mask), (a, 3), (mask, True), (a.astype("u1"), 3)):
        expected = operation(left, right)
        found = getattr(Tensor(left), symbol)(right)
        np.testing.assert_array_equal(found.data, expected, strict=True)
        found = getattr(lamina, operation.__name__)(left, right)
        np.testing.assert_array_equal(found, expected, strict=True)
    assert (3 & Tensor(a)).tolist() == [2, 1, 0] and (~Tensor(a)).tolist() == [-7, 6, -1]
    assert (~Tensor(mask)).tolist() == [False, True, False]
    for bad in (1.5, Tensor(np.ones(3))):
        with pytest.raises(TypeError, match="must be integers or booleans"):
            getattr(Tensor(a), symbol)(bad)


def test_elements_are_contained():
    x = Tensor(np.arange(6.0).reshape(2, 3))
    assert 2 in x and x[0, 1] in x and 9 not in x
    with pytest.raises(TypeError, match="must be a Tensor"):
        "a" in x  # noqa: B015


def test_max_and_min_of_two():
    a, b = Tensor([1.0, 5]), Tensor([3.0, 2])
    assert lamina.max(a, b).tolist() == [3, 5] and a.min(b).tolist() == [1, 2]
    assert a.max(np.int64(0)).indices.item() == 1 and a.max(np.array([2, 9])).tolist() == [2, 9]


def test_narrow_counts_from_the_end():
    x = Tensor(np.arange(6.0).reshape(2, 3))
    for _ in range(2):
        assert x.narrow(1, -2, 2).tolist() == [[1, 2], [4, 5]]
    for start, length in ((-4, 2), (-1, 2)):
        with pytest.raises(ValueError, match=f"got start={start}"):
            x.narrow(1, start, length)


def test_argmax():
    x = lamina.tensor([[1.0, 5, 5], [7, NAN, 9]])
    assert x[0].argmax().item() == 1 and x.argmax(1).tolist() == [1, 1]
    assert x[0].argmin(0, keepdim=True).tolist() == [0] and x.argmax().item() == 4


def test_zero_size():
    x = lamina.zeros(0, 3, requires_grad=True)
    y = (x * 2).sum(0) + x.reshape(3, 0).sum(1) + lamina.cat([x, x]).sum()
    y.sum().backward()
    assert y.tolist() == [0, 0, 0] and x.grad.shape == (0, 3)
    assert np.isnan(x.mean().item()) and x.amax(1).shape == (0,) and x.var().isnan().item()
    assert (x @ lamina.zeros(3, 2)).shape == (0, 2) and x[x > 0].shape == (0,)


def test_wide_sums():
    x = lamina.full((1 << 20,), 0.1, requires_grad=True)
    assert abs(x.sum().item() / (np.float64(np.float32(0.1)) * (1 << 20)) - 1) < 1e-7
    assert x.reshape(-1, 1).sum(0).item() == x.sum().item()
