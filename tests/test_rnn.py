"""Recurrent cells against the NumPy reference: values and all gradients.

Tolerance: a gate sums fewer than 64 products, each rounded once, and passes through functions of
slope at most 1 accurate to a few eps: 256 eps of values of order 1 to 10.
"""

from __future__ import annotations

import cases
import lamina
import lamina.functional as F
import numpy as np
import pytest
import reference
from lamina import _C, nn
from numpy.testing import assert_allclose

SIZES = [(3, 5, 4), (1, 1, 1), (2, 7, 33), (4, 3, 130)]  # N, I, H


def operands(sizes, gates, dtype, states=1):
    n, features, hidden = sizes
    shapes = [(n, features)] + [(n, hidden)] * states
    shapes += [(gates * hidden, features), (gates * hidden, hidden)] + [(gates * hidden,)] * 2
    return [0.5 * cases.reals(shape, seed, dtype) for seed, shape in enumerate(shapes)]


def close(actual, expected):
    bound = 256 * np.finfo(actual.dtype).eps
    assert_allclose(actual, expected, rtol=bound, atol=bound)


def check(call, tensors, grads, expected, expected_grads):
    results = call(*tensors)
    results = results if isinstance(results, tuple) else (results,)
    total = sum((r * g).sum() for r, g in zip(results, grads, strict=True))
    total.backward()
    for result, wanted in zip(results, expected, strict=True):
        close(result.data, wanted)
    for tensor, wanted in zip(tensors, expected_grads, strict=True):
        close(tensor.grad.data, wanted)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("f", ["tanh", "relu"])
def test_rnn_cell(backend, sizes, f, dtype):
    arrays = operands(sizes, 1, dtype)
    grad = cases.reals(arrays[1].shape, 9, dtype)
    check(
        getattr(F, f"rnn_{f}_cell"),
        [lamina.tensor(a, requires_grad=True) for a in arrays],
        [grad],
        [reference.rnn_cell(*arrays, nonlinearity=f)],
        reference.rnn_cell_backward(grad, *arrays, nonlinearity=f),
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_gru_cell(backend, sizes, dtype):
    arrays = operands(sizes, 3, dtype)
    grad = cases.reals(arrays[1].shape, 9, dtype)
    check(
        F.gru_cell,
        [lamina.tensor(a, requires_grad=True) for a in arrays],
        [grad],
        [reference.gru_cell(*arrays)],
        reference.gru_cell_backward(grad, *arrays),
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("peephole", [False, True])
def test_lstm_cell(backend, sizes, peephole, coupled, dtype):
    x, h, c, *weights = operands(sizes, 3 if coupled else 4, dtype, states=2)
    p = cases.reals((2 if coupled else 3, sizes[2]), 8, dtype) if peephole else None
    grads = [cases.reals(c.shape, seed, dtype) for seed in (9, 10)]
    options = {"weight_peephole": p, "coupled": coupled}
    inputs = [x, h, c, *weights, *([p] if peephole else [])]

    def call(x, h, c, w_ih, w_hh, b_ih, b_hh, p=None):
        return F.lstm_cell(x, (h, c), w_ih, w_hh, b_ih, b_hh, weight_peephole=p, coupled=coupled)

    check(
        call,
        [lamina.tensor(a, requires_grad=True) for a in inputs],
        grads,
        reference.lstm_cell(x, (h, c), *weights, **options),
        reference.lstm_cell_backward(*grads, x, (h, c), *weights, **options),
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_kernels(arrays, coupled):
    """The cell's kernels themselves, any dtype: gates, c', h', and the four gradients."""
    c, peephole, sums, grad_h, grad_c = arrays
    gates, new_c, h = sums.copy(), np.empty_like(c), np.empty_like(c)
    _C.lstm_cell_fprop(*c.shape, coupled, c, peephole, gates, new_c, h)
    grads = [np.empty_like(a) for a in (gates, c, peephole)]
    saved = c, peephole, gates, new_c
    _C.lstm_cell_dgrad(*c.shape, coupled, *saved, grad_h, grad_c, *grads)
    return gates, new_c, h, *grads


def lstm_formulas(c, p, gates, new_c, grad_h, grad_c):
    """The gradients from the stored gates, so that their rounding is not the gradients'."""
    i, f, g, o = gates.transpose(1, 0, 2)
    t = np.tanh(new_c)
    d_o = grad_h * t * o * (1 - o)
    d_c = grad_c + grad_h * o * (1 - t * t) + d_o * p[2]
    d_i, d_f = d_c * g * i * (1 - i), d_c * c * f * (1 - f)
    grads = np.stack([d_i, d_f, d_c * i * (1 - g * g), d_o], 1)
    return grads, d_c * f + d_i * p[0] + d_f * p[1]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("sizes", [(3, 64), (2, 33), (130, 5), (600, 8), (1, 520)], ids=str)
def test_lstm_kernels_in_every_dtype(backend, sizes, dtype):
    dtype, (n, hidden) = cases.storage(dtype, backend), sizes
    shapes = [sizes, (3, hidden), (n, 4, hidden), sizes, sizes]
    arrays = [cases.reals(shape, seed).astype(dtype) for seed, shape in enumerate(shapes)]
    gates, new_c, h, *grads = (a.astype(float) for a in lstm_kernels(arrays, False))
    c, p, sums, grad_h, grad_c = (a.astype(float) for a in arrays)
    i, f = (sigmoid(sums[:, k] + p[k] * c) for k in (0, 1))
    g = np.tanh(sums[:, 2])
    full_c = f * c + i * g
    o = sigmoid(sums[:, 3] + p[2] * full_c)
    bound = 64 * np.finfo(np.float64 if dtype == np.float64 else np.float32).eps
    tolerances = {"rtol": cases.rounding(dtype) + bound, "atol": bound}
    assert_allclose(gates, np.stack([i, f, g, o], 1), **tolerances)
    assert_allclose(new_c, full_c, **tolerances)
    assert_allclose(h, o * np.tanh(full_c), **tolerances)
    of_gates, of_c = lstm_formulas(c, p, gates, new_c, grad_h, grad_c)
    assert_allclose(grads[0], of_gates, **tolerances)
    assert_allclose(grads[1], of_c, **tolerances)
    terms = np.stack([grads[0][:, 0] * c, grads[0][:, 1] * c, grads[0][:, 3] * new_c])
    tolerances["atol"] = abs(terms).sum(1).max() * (bound + n * bound / 64)
    if backend not in ("ref", "cpu"):  # the others add up before they round
        assert_allclose(grads[2], terms.sum(1), **tolerances)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("sizes", [(3, 64), (2, 33), (130, 5)], ids=str)
def test_gru_kernels_in_every_dtype(backend, sizes, dtype):
    dtype, (n, hidden) = cases.storage(dtype, backend), sizes
    shapes = [sizes, (n, 3, hidden), (n, 3, hidden), sizes]
    arrays = [cases.reals(shape, seed).astype(dtype) for seed, shape in enumerate(shapes)]
    h, a, b, grad_h = arrays
    gates, new_h = a.copy(), np.empty_like(h)
    _C.gru_cell_fprop(*sizes, h, gates, b, new_h)
    grads = [np.empty_like(x) for x in (a, b, h)]
    _C.gru_cell_dgrad(*sizes, h, gates, b, grad_h, *grads)
    h, a, b, grad_h = (x.astype(float) for x in arrays)
    r, z = sigmoid(a[:, 0] + b[:, 0]), sigmoid(a[:, 1] + b[:, 1])
    c = np.tanh(a[:, 2] + r * b[:, 2])
    bound = 64 * np.finfo(np.float64 if dtype == np.float64 else np.float32).eps
    tolerances = {"rtol": cases.rounding(dtype) + bound, "atol": bound}
    assert_allclose(gates.astype(float), np.stack([r, z, c], 1), **tolerances)
    assert_allclose(new_h.astype(float), c + z * (h - c), **tolerances)
    r, z, c = gates.astype(float).transpose(1, 0, 2)
    d_n = grad_h * (1 - z) * (1 - c * c)
    d_z, d_r = grad_h * (h - c) * z * (1 - z), d_n * b[:, 2] * r * (1 - r)
    expected = np.stack([d_r, d_z, d_n], 1), np.stack([d_r, d_z, d_n * r], 1), grad_h * z
    for actual, wanted in zip(grads, expected, strict=True):
        assert_allclose(actual.astype(float), wanted, **tolerances)


@pytest.mark.parametrize("coupled", [False, True])
def test_misaligned_views_and_schedules(backend, coupled):
    shapes = [(70, 12), (3 - coupled, 12), (70, 4 - coupled, 12), (70, 12), (70, 12)]
    arrays = [cases.reals(shape, seed) for seed, shape in enumerate(shapes)]
    views = [cases.misaligned(a) for a in arrays]
    results = {
        b"".join(a.tobytes() for a in lstm_kernels(views, coupled))
        for _ in cases.schedules(backend)
    }
    results.add(b"".join(a.tobytes() for a in lstm_kernels(arrays, coupled)))
    assert len(results) == 1


def test_gradcheck(backend):
    if backend == "simt_check":
        pytest.skip("thousands of launches; the tests above watch every kernel")
    x, h, c, *weights = operands((2, 3, 4), 4, np.float64, states=2)
    p = cases.reals((3, 4), 8, np.float64)

    def lstm(x, h, c, w_ih, w_hh, b_ih, b_hh, p):
        new_h, new_c = F.lstm_cell(x, (h, c), w_ih, w_hh, b_ih, b_hh, weight_peephole=p)
        return new_h + 2 * new_c

    lamina.testing.gradcheck(lstm, [x, h, c, *weights, p])
    lamina.testing.gradcheck(F.gru_cell, operands((2, 3, 4), 3, np.float64))
    lamina.testing.gradcheck(F.rnn_tanh_cell, operands((2, 3, 4), 1, np.float64))


def test_without_batch_or_bias():
    x, h, c, w_ih, w_hh, _, _ = operands((1, 5, 4), 4, np.float32, states=2)
    batched = F.lstm_cell(x, (h, c), w_ih, w_hh)
    single = F.lstm_cell(x[0], (h[0], c[0]), w_ih, w_hh)
    for a, b in zip(batched, single, strict=True):
        assert b.shape == (4,)
        assert a[0].tobytes() == b.tobytes()


def test_only_the_cell_state_is_used():
    tensors = [lamina.tensor(a, requires_grad=True) for a in operands((2, 3, 4), 4, np.float64, 2)]
    x, h, c, *weights = tensors
    F.lstm_cell(x, (h, c), *weights)[1].sum().backward()
    arrays = [t.data for t in tensors]
    expected = reference.lstm_cell_backward(
        np.zeros((2, 4)), np.ones((2, 4)), arrays[0], arrays[1:3], *arrays[3:]
    )
    close(x.grad.data, expected[0])


def test_same_bits_for_any_thread_count():
    arrays = operands((6, 40, 300), 4, np.float32, states=2)
    results = []
    for threads in (1, 2, 3, 8):
        lamina.set_num_threads(threads)
        x, h, c, *weights = (lamina.tensor(a, requires_grad=True) for a in arrays)
        new_h, new_c = F.lstm_cell(x, (h, c), *weights)
        (new_h * new_c).sum().backward()
        results.append(
            new_h.data.tobytes() + x.grad.data.tobytes() + weights[0].grad.data.tobytes()
        )
    assert len(set(results)) == 1


def test_nan_reaches_its_row_only(backend):
    x, h, *weights = operands((3, 5, 4), 3, np.float32)
    x[1, 2] = np.nan
    y = F.gru_cell(x, h, *weights)
    assert np.isnan(y[1]).all()
    assert np.isfinite(y[[0, 2]]).all()


@pytest.mark.torch
@pytest.mark.parametrize("name", ["RNNCell", "GRUCell", "LSTMCell"])
@pytest.mark.parametrize("bias", [True, False])
def test_layers_as_in_torch(name, bias):
    torch = pytest.importorskip("torch")
    ours, theirs = getattr(nn, name)(5, 7, bias), getattr(torch.nn, name)(5, 7, bias)
    assert repr(ours) == repr(theirs)
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    x = cases.reals((3, 5), 1)
    expected, y = theirs(torch.tensor(x)), ours(lamina.tensor(x))
    pairs = zip(y, expected, strict=True) if name == "LSTMCell" else [(y, expected)]
    for a, b in pairs:
        close(a.data, b.detach().numpy())


def test_peephole_layer_starts_as_the_plain_one():
    lamina.manual_seed(3)
    plain = nn.LSTMCell(3, 4)
    layer = nn.LSTMCell(3, 4, peephole=True)
    assert layer.weight_peephole.shape == (3, 4)
    assert not layer.weight_peephole.data.any()
    assert set(layer.state_dict()) - set(plain.state_dict()) == {"weight_peephole"}
    coupled = nn.LSTMCell(3, 4, coupled=True, peephole=True)
    assert coupled.weight_ih.shape == (12, 3)
    assert coupled.weight_peephole.shape == (2, 4)


X, H, C, W_IH, W_HH, B, _ = operands((2, 3, 4), 4, np.float32, states=2)
BAD = [
    (lambda: F.lstm_cell(X, H, W_IH, W_HH), ValueError, "hx must be the pair (h, c)"),
    (lambda: F.lstm_cell(X, (H, C[:1]), W_IH, W_HH), ValueError, "c must have shape (2, 4)"),
    (lambda: F.lstm_cell(X, (H[:, :3], C), W_IH, W_HH), ValueError, "h must have shape (2, 4)"),
    (lambda: F.lstm_cell(X[:, :2], (H, C), W_IH, W_HH), ValueError, "weight_ih must have shape"),
    (lambda: F.lstm_cell(X, (H, C), W_IH[:12], W_HH), ValueError, "weight_ih must have shape"),
    (lambda: F.lstm_cell(X, (H, C), W_IH, W_HH[:12]), ValueError, "weight_hh must have shape"),
    (lambda: F.lstm_cell(X, (H, C), W_IH, W_HH, B[:3]), ValueError, "bias_ih must have shape"),
    (lambda: F.lstm_cell(X, (H, C), W_IH, W_HH, B, B[:3]), ValueError, "bias_hh must have shape"),
    (lambda: F.lstm_cell(X[None], (H, C), W_IH, W_HH), ValueError, "input must have 1 or 2"),
    (lambda: F.lstm_cell(X.astype(float), (H, C), W_IH, W_HH), TypeError, "one dtype"),
    (lambda: F.lstm_cell(X.astype(int), (H, C), W_IH, W_HH), TypeError, "float32 or float64"),
    (lambda: F.lstm_cell("x", (H, C), W_IH, W_HH), TypeError, "must be an array"),
    (lambda: F.lstm_cell(X, (H, C), W_IH, W_HH, coupled=1), TypeError, "True or False"),
    (
        lambda: F.lstm_cell(X, (H, C), W_IH, W_HH, weight_peephole=H),
        ValueError,
        "weight_peephole must have shape (3, 4)",
    ),
    (lambda: F.gru_cell(X, H, W_IH, W_HH), ValueError, "3 gates of hidden size 4"),
    (lambda: F.gru_cell(X, None, W_IH[:12], W_HH[:12]), TypeError, "hx must be an array"),
    (lambda: F.rnn_tanh_cell(X, H, W_IH[:4], W_HH[:4, :3]), ValueError, "weight_hh must have"),
    (lambda: F.rnn_relu_cell(X, H, W_IH[:4, 0], W_HH[:4]), ValueError, "weight_ih must have 2"),
    (lambda: nn.LSTMCell(0, 3), ValueError, "input_size must be at least 1"),
    (lambda: nn.GRUCell(3, 2.5), TypeError, "hidden_size must be an integer"),
    (lambda: nn.RNNCell(3, 4, nonlinearity="elu"), ValueError, "nonlinearity must be one of"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=range(len(BAD)))
def test_bad_input(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)
