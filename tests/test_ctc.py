"""ctc_loss: every path by enumeration, torch, gradients and bad input."""

from __future__ import annotations

import itertools

import lamina.functional as F
import numpy as np
import pytest
from lamina import Tensor
from lamina.testing import gradcheck

RNG = np.random.default_rng(5)
X = RNG.standard_normal((7, 3, 4))
X -= np.log(np.exp(X).sum(-1, keepdims=True))
TARGETS = np.array([[1, 2, 2], [3, 1, 1], [2, 3, 1]])
INPUTS, SIZES = np.array([7, 5, 3]), np.array([3, 1, 0])


def _collapsed(path):
    return [label for label, _ in itertools.groupby(path) if label != 0]


@pytest.mark.parametrize("target", [[], [1], [1, 2], [2, 2], [1, 2, 1]])
def test_every_path(target):
    p = np.exp(X[:4, 0, :3])
    total = sum(
        np.prod([p[t, label] for t, label in enumerate(path)])
        for path in itertools.product(range(3), repeat=4)
        if _collapsed(path) == target
    )
    loss = F.ctc_loss(X[:4, 0, :3], np.array(target, int), [4], [len(target)], reduction="sum")
    np.testing.assert_allclose(loss, -np.log(total), rtol=1e-12)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("joined", [False, True])
def test_gradient(reduction, joined):
    targets = np.concatenate([t[:s] for t, s in zip(TARGETS, SIZES, strict=True)])
    given = targets if joined else TARGETS
    assert gradcheck(lambda x: F.ctc_loss(x, given, INPUTS, SIZES, 0, reduction), [X])


@pytest.mark.torch
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("blank", [0, 3])
@pytest.mark.parametrize("inputs", [[7, 5, 3], [7, 5, 1]])
def test_like_torch(reduction, blank, inputs):
    torch = pytest.importorskip("torch")
    targets = (TARGETS if blank == 0 else TARGETS - 1).copy()
    sizes = [3, 2, 2]
    x, peer = Tensor(X, requires_grad=True), torch.tensor(X, requires_grad=True)
    y = F.ctc_loss(F.log_softmax(x, -1), targets, inputs, sizes, blank, reduction, True)
    z = torch.nn.functional.ctc_loss(
        torch.log_softmax(peer, -1), torch.tensor(targets), inputs, sizes, blank, reduction, True
    )
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-10)
    y.sum().backward()
    z.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), peer.grad.numpy(), rtol=1e-8, atol=1e-12)


def test_impossible_target():
    assert F.ctc_loss(X[:1], TARGETS, [1, 1, 1], [3, 1, 0], reduction="none")[0] == np.inf


@pytest.mark.torch
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1, 2), (3, 2, 3), (70, 5, 9), (90, 3, 200)], ids=str)
def test_many_states_like_torch(backend, shape, dtype):
    """Rows of states below, at and above whole vectors; labels that repeat; unused steps."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(sum(shape))
    steps, count, classes = shape
    x = (3 * rng.standard_normal(shape)).astype(dtype)
    targets = rng.integers(1, min(classes, 6), (count, min(steps, 30)))
    sizes = rng.integers(0, targets.shape[1] // 2 + 1, count)
    sizes[0] = targets.shape[1] // 2
    inputs = rng.integers(steps // 2 + 1, steps + 1, count)
    weights = rng.standard_normal(count).astype(dtype)
    options = targets, inputs, sizes, 0, "none", True
    ours, peer = Tensor(x, requires_grad=True), torch.tensor(x.astype(float), requires_grad=True)
    y = F.ctc_loss(F.log_softmax(ours, -1), *options)
    z = torch.nn.functional.ctc_loss(
        torch.log_softmax(peer, -1),
        *(torch.tensor(a) if isinstance(a, np.ndarray) else a for a in options),
    )
    close = {"rtol": 1e-4, "atol": 1e-5} if dtype == np.float32 else {"rtol": 1e-9, "atol": 1e-12}
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), **close)
    y.backward(weights)
    z.backward(torch.tensor(weights))
    np.testing.assert_allclose(ours.grad.numpy(), peer.grad.numpy(), **close)


def test_nan_and_impossible_targets_have_no_other_gradient(backend):
    x = np.log(np.full((4, 3, 3), 1 / 3))
    x[2, 0] = np.nan
    leaf = Tensor(x, requires_grad=True)
    targets = np.array([[1, 2], [1, 1], [1, 2]])
    loss = F.ctc_loss(leaf, targets, [4, 2, 4], [2, 2, 2], reduction="none")
    assert np.isnan(loss[0].item()) and loss[1].item() == np.inf and loss[2].item() < np.inf
    loss.backward(np.array([1.0, 0, 1]))
    assert np.isnan(leaf.grad.numpy()[:, 0]).any()
    assert not leaf.grad.numpy()[:, 1].any() and np.isfinite(leaf.grad.numpy()[:, 2]).all()


def test_labels_written_after_forward_are_not_seen():
    x, labels, lengths = Tensor(X, requires_grad=True), np.array([1, 2, 3]), np.array([7, 5, 3])
    loss = F.ctc_loss(x, labels, lengths, [1, 1, 1], reduction="sum")
    labels[:], lengths[:] = 1000, 1000
    loss.backward()
    assert np.isfinite(x.grad.numpy()).all() and not x.grad.numpy()[5:, 1].any()


BAD = [
    (lambda: F.ctc_loss(X[0, 0], TARGETS, INPUTS, SIZES), ValueError, r"log_probs.shape=\(4,\)"),
    (lambda: F.ctc_loss(X, TARGETS * 1.0, INPUTS, SIZES), TypeError, "targets must be an array"),
    (lambda: F.ctc_loss(X, TARGETS + 1, INPUTS, SIZES), ValueError, "targets must be from 0 to 3"),
    (lambda: F.ctc_loss(X, TARGETS - 1, INPUTS, SIZES), ValueError, "without blank=0"),
    (lambda: F.ctc_loss(X, TARGETS[:2], INPUTS, SIZES), ValueError, r"targets.shape=\(2, 3\)"),
    (lambda: F.ctc_loss(X, TARGETS[0], INPUTS, [1, 1, 0]), ValueError, r"targets.shape=\(3,\)"),
    (lambda: F.ctc_loss(X, TARGETS, [8, 1, 1], SIZES), ValueError, "input_lengths must be from"),
    (lambda: F.ctc_loss(X, TARGETS, [7, 1], SIZES), ValueError, "must hold 3 lengths"),
    (lambda: F.ctc_loss(X, TARGETS, INPUTS, [4, 1, 1]), ValueError, "target_lengths must be from"),
    (lambda: F.ctc_loss(X, TARGETS, INPUTS * 1.0, SIZES), TypeError, "input_lengths must be"),
    (lambda: F.ctc_loss(X, TARGETS, INPUTS, SIZES, 4), ValueError, "blank must be below 4"),
    (lambda: F.ctc_loss(X, TARGETS, INPUTS, SIZES, 0, "avg"), ValueError, "reduction must be"),
    (lambda: F.ctc_loss(X.astype(int), TARGETS, INPUTS, SIZES), TypeError, "log_probs must be"),
]


@pytest.mark.parametrize("call, error, message", BAD, ids=range(len(BAD)))
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"ctc_loss: .*{message}"):
        call()
