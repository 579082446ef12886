"""Embeddings against the NumPy reference. Small integers make the sums exact."""

from __future__ import annotations

import cases
import lamina
import lamina.functional as F
import numpy as np
import pytest
import reference
from lamina import nn
from numpy.testing import assert_allclose, assert_array_equal

RNG = np.random.default_rng(0)
INDICES = [RNG.integers(0, 7, shape) for shape in [(), (5,), (3, 4), (2, 0), (40, 3, 2)]]

OPTIONS = [{}, {"padding_idx": -2}, {"scale_grad_by_freq": True}]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("indices", INDICES, ids=lambda i: str(i.shape))
@pytest.mark.parametrize(
    "options", [{}, {"padding_idx": -2}, {"scale_grad_by_freq": True}], ids=str
)
def test_embedding(backend, indices, options, dtype):
    weight = cases.integers((7, 5), 1, dtype)
    tensor = lamina.tensor(weight, requires_grad=True)
    y = F.embedding(indices, tensor, **options)
    grad = cases.integers(y.shape, 2, dtype)
    y.backward(grad)
    assert_array_equal(y.data, reference.embedding(indices, weight, **options))
    expected = reference.embedding_backward(grad, indices, weight, **options)
    # 1 / count is rounded once, then the sum of fewer than 64 terms of at most 3.
    exact = "scale_grad_by_freq" not in options
    assert_allclose(
        tensor.grad.data, expected, rtol=0, atol=0 if exact else 64 * np.finfo(dtype).eps
    )


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.5])
def test_max_norm(backend, norm_type):
    weight = cases.reals((6, 4), 1, np.float64)
    before = weight.copy()
    indices = np.array([1, 3, 3])
    y = F.embedding(indices, weight, max_norm=1.0, norm_type=norm_type)
    expected = reference.embedding(indices, weight, max_norm=1.0, norm_type=norm_type)
    assert_allclose(y, expected, rtol=1e-14)
    assert_array_equal(weight, before)


FLAT, OFFSETS = RNG.integers(0, 7, 12), np.array([0, 3, 3, 7])
BAGS = [
    {"input": RNG.integers(0, 7, (4, 3))},
    {"input": FLAT, "offsets": OFFSETS},
    {"input": FLAT, "offsets": np.append(OFFSETS, 12), "include_last_offset": True},
    {"input": FLAT, "offsets": OFFSETS, "padding_idx": 2},
    {"input": np.zeros(0, int), "offsets": np.zeros(2, int)},
]


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("options", BAGS, ids=range(len(BAGS)))
def test_embedding_bag(backend, mode, options):
    weight = cases.integers((7, 5), 1, np.float64)
    tensor = lamina.tensor(weight, requires_grad=True)
    arguments = {key: value for key, value in options.items() if key != "input"}
    y = F.embedding_bag(options["input"], tensor, **arguments, mode=mode)
    expected = reference.embedding_bag(options["input"], weight, **arguments, mode=mode)
    bound = 16 * np.finfo(np.float64).eps  # means of up to 5 integers below 4
    assert_allclose(y.data, expected, rtol=0, atol=bound)
    grad = cases.integers(y.shape, 2, np.float64)
    y.backward(grad)
    expected, _ = reference.embedding_bag_backward(
        grad, options["input"], weight, **arguments, mode=mode
    )
    assert_allclose(tensor.grad.data, expected, rtol=0, atol=bound)


def test_per_sample_weights(backend):
    weight, scale = cases.integers((7, 5), 1), cases.integers(FLAT.shape, 3)
    tensors = [lamina.tensor(a, requires_grad=True) for a in (weight, scale)]
    y = F.embedding_bag(FLAT, tensors[0], OFFSETS, mode="sum", per_sample_weights=tensors[1])
    expected = reference.embedding_bag(FLAT, weight, OFFSETS, mode="sum", per_sample_weights=scale)
    assert_array_equal(y.data, expected)
    grad = cases.integers(y.shape, 2)
    y.backward(grad)
    expected = reference.embedding_bag_backward(
        grad, FLAT, weight, OFFSETS, mode="sum", per_sample_weights=scale
    )
    for tensor, wanted in zip(tensors, expected, strict=True):
        assert_array_equal(tensor.grad.data, wanted)


def test_gradcheck(backend):
    weight = cases.reals((4, 3), 1, np.float64)
    lamina.testing.gradcheck(lambda w: F.embedding(np.array([[0, 3], [3, 1]]), w), [weight])
    lamina.testing.gradcheck(lambda w: F.embedding_bag(np.array([[0, 3], [3, 1]]), w), [weight])


def test_same_bits_for_any_thread_count():
    indices, weight = RNG.integers(0, 50, 5000), cases.reals((50, 33), 1)
    results = []
    for threads in (1, 2, 3, 8):
        lamina.set_num_threads(threads)
        t = lamina.tensor(weight, requires_grad=True)
        F.embedding(indices, t).backward(cases.reals((5000, 33), 2))
        results.append(t.grad.data.tobytes())
    assert len(set(results)) == 1


@pytest.mark.parametrize("width", [1, 3, 130])
@pytest.mark.parametrize("rows", [1, 5, 3000])
def test_large_tables(rows, width):
    indices, weight = RNG.integers(0, rows, (700, 6)), cases.integers((rows, width), 1)
    indices[3:5] = 0  # many of one
    indices[9] = rows - 1  # of one bag, and left out
    options = {"padding_idx": rows - 1}
    for _ in range(2):
        tensor = lamina.tensor(weight, requires_grad=True)
        y = F.embedding(lamina.tensor(indices), tensor, **options)
        assert_array_equal(y.data, weight[indices])
        grad = cases.integers(y.shape, 2)
        y.backward(grad)
        expected = reference.embedding_backward(grad, indices, weight, **options)
        assert_array_equal(tensor.grad.data, expected)
        tensor.grad = None
        y = F.embedding_bag(indices, tensor, mode="sum", **options)
        assert_array_equal(y.data, reference.embedding_bag(indices, weight, mode="sum", **options))
        grad = cases.integers(y.shape, 2)
        y.backward(grad)
        expected, _ = reference.embedding_bag_backward(grad, indices, weight, mode="sum", **options)
        assert_array_equal(tensor.grad.data, expected)


def test_what_gives_a_tensor():
    indices, weight = np.array([[0, 2], [1, 0]]), cases.reals((3, 4), 1)
    for function in (F.embedding, F.embedding_bag):
        for _ in range(2):
            assert isinstance(function(indices, lamina.tensor(weight)), lamina.Tensor)
            assert isinstance(function(lamina.tensor(indices), weight), np.ndarray)


def test_indices_are_checked_every_time():
    weight, offsets = cases.reals((3, 4), 1), np.array([0, 2])
    good = np.array([0, 2, 1])
    for _ in range(2):
        F.embedding(good, weight)
        F.embedding_bag(good, weight, offsets)
        F.one_hot(good, 3)
        for bad in (-1, 3, 2**62, -(2**62)):
            wrong = np.array([0, bad, 1])
            with pytest.raises(ValueError, match="embedding: indices must be from 0 to 2"):
                F.embedding(wrong, weight)
            with pytest.raises(ValueError, match="embedding_bag: indices must be from 0 to 2"):
                F.embedding_bag(wrong, weight, offsets)
            with pytest.raises(ValueError, match="one_hot: "):
                F.one_hot(wrong, 3)
        for wrong, text in (([1, 2], "begin"), ([0, 4], "ascend"), ([0, -1], "ascend")):
            with pytest.raises(ValueError, match=f"embedding_bag: offsets must {text}"):
                F.embedding_bag(good, weight, np.array(wrong))


def test_one_hot():
    indices = np.array([[0, 2], [1, 0]])
    assert_array_equal(F.one_hot(indices.astype(np.int32), 4), reference.one_hot(indices, 4))
    assert_array_equal(F.one_hot(indices), reference.one_hot(indices))
    assert_array_equal(F.one_hot(lamina.tensor(indices), 5).data, reference.one_hot(indices, 5))


@pytest.mark.torch
def test_layers_as_in_torch():
    torch = pytest.importorskip("torch")
    indices = np.array([[1, 2, 0], [4, 4, 3]])
    for name, options in [
        ("Embedding", {}),
        ("Embedding", {"padding_idx": -1, "max_norm": 1.0}),
        ("EmbeddingBag", {"mode": "sum", "padding_idx": 0}),
        ("EmbeddingBag", {}),
    ]:
        theirs = getattr(torch.nn, name)(5, 3, **options)
        ours = getattr(nn, name)(5, 3, **options)
        assert repr(ours) == repr(theirs)
        ours.load_state_dict({k: v.detach().numpy().copy() for k, v in theirs.state_dict().items()})
        expected = theirs(torch.tensor(indices)).detach().numpy()
        assert_allclose(ours(indices).data, expected, rtol=1e-6)
        assert_allclose(ours.weight.data, theirs.weight.detach().numpy(), rtol=1e-6)


def test_padding_row_starts_at_zero():
    assert not nn.Embedding(4, 3, padding_idx=2).weight.data[2].any()


W = np.ones((4, 3), np.float32)
I = np.array([0, 1, 2])
BAD = [
    (lambda: F.embedding(np.array([4]), W), ValueError, "indices must be from 0 to 3"),
    (lambda: F.embedding(np.array([-1]), W), ValueError, "indices must be from 0 to 3"),
    (lambda: F.embedding(np.array([0.5]), W), TypeError, "array of integers"),
    (lambda: F.embedding([0], W), TypeError, "array of integers"),
    (lambda: F.embedding(I, W[0]), ValueError, "weight must have 2"),
    (lambda: F.embedding(I, W.astype(int)), TypeError, "float32 or float64"),
    (lambda: F.embedding(I, W, padding_idx=4), ValueError, "padding_idx must be from -4 to 3"),
    (lambda: F.embedding(I, W, padding_idx=1.5), TypeError, "padding_idx must be an integer"),
    (lambda: F.embedding(I, W, max_norm=-1), ValueError, "max_norm must not be negative"),
    (lambda: F.embedding(I, W, max_norm=1, norm_type=0), ValueError, "norm_type must be above 0"),
    (lambda: F.embedding(I, W, sparse=True), ValueError, "sparse gradients are not offered"),
    (lambda: nn.Embedding(0, 3), ValueError, "num_embeddings must be at least 1"),
    (lambda: nn.Embedding(3, 3, padding_idx=3), ValueError, "padding_idx must be from -3 to 2"),
    (lambda: F.embedding_bag(I, W), ValueError, "offsets must be given"),
    (lambda: F.embedding_bag(I[None], W, I), ValueError, "offsets must be None"),
    (lambda: F.embedding_bag(I, W, np.array([1])), ValueError, "offsets must begin with 0"),
    (lambda: F.embedding_bag(I, W, np.array([0, 9])), ValueError, "offsets must ascend"),
    (lambda: F.embedding_bag(I, W, np.array([0, 2, 1])), ValueError, "offsets must ascend"),
    (lambda: F.embedding_bag(I[None], W, mode="min"), ValueError, "mode must be one of"),
    (lambda: F.embedding_bag(I[None, None], W), ValueError, "input must have 1 or 2"),
    (lambda: F.embedding_bag(I[None] + 2, W), ValueError, "indices must be from 0 to 3"),
    (
        lambda: F.embedding_bag(I[None], W, per_sample_weights=W[:1]),
        ValueError,
        "needs mode='sum'",
    ),
    (
        lambda: F.embedding_bag(I[None], W, mode="sum", per_sample_weights=W),
        ValueError,
        "shape of input",
    ),
    (
        lambda: F.embedding_bag(I[None], W, mode="max", scale_grad_by_freq=True),
        ValueError,
        "scale_grad_by_freq needs mode",
    ),
    (lambda: F.one_hot(np.array([-1])), ValueError, "must not be negative"),
    (lambda: F.one_hot(I, 2), ValueError, "num_classes must be above the largest index 2"),
    (lambda: F.one_hot(W), TypeError, "array of integers"),
    (lambda: F.one_hot(I[:0]), ValueError, "num_classes must be given"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=range(len(BAD)))
def test_bad_input(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)
