"""The arithmetic losses: torch on every option, gradients, formulas on paper, bad input."""

from __future__ import annotations

import lamina
import lamina.functional as F
import numpy as np
import pytest
from lamina import Tensor
from lamina.testing import gradcheck

RNG = np.random.default_rng(3)
X, T = RNG.standard_normal((4, 5)), RNG.standard_normal((4, 5))
P, Q = RNG.uniform(0.05, 0.95, (4, 5)), RNG.uniform(0.05, 0.95, (4, 5))
W = RNG.uniform(0.5, 2, (4, 5))
SIGNS = np.where(RNG.random((4, 5)) < 0.5, 1.0, -1.0)
BINARY = (SIGNS > 0).astype(float)
A, B, C = (RNG.standard_normal((4, 5)) for _ in range(3))
CLASSES = np.array([1, 0, 4, 2])
LABELS = np.array([[3, 0, -1, 1, 2], [-1, 1, 2, 3, 4], [4, -1, -1, -1, -1], [0, 1, 2, 3, 4]])

# id: (function, inputs, options)
CASES = {
    "l1": ("l1_loss", [X, T], {}),
    "l1_weight": ("l1_loss", [X, T], {"weight": W}),
    "mse": ("mse_loss", [X, T], {}),
    "mse_weight": ("mse_loss", [X, T], {"weight": W}),
    "smooth_l1": ("smooth_l1_loss", [X, T], {}),
    "smooth_l1_beta": ("smooth_l1_loss", [X, T], {"beta": 0.3}),
    "smooth_l1_zero": ("smooth_l1_loss", [X, T], {"beta": 0.0}),
    "huber": ("huber_loss", [X, T], {"delta": 0.7}),
    "huber_weight": ("huber_loss", [X, T], {"weight": W}),
    "kl": ("kl_div", [np.log(P), Q], {}),
    "kl_log": ("kl_div", [np.log(P), np.log(Q)], {"log_target": True}),
    "bce": ("binary_cross_entropy", [P, Q], {}),
    "bce_weight": ("binary_cross_entropy", [P, BINARY], {"weight": W[0]}),
    "logits": ("binary_cross_entropy_with_logits", [X * 5, Q], {}),
    "logits_weights": (
        "binary_cross_entropy_with_logits",
        [X, BINARY],
        {"weight": W, "pos_weight": W[1]},
    ),
    "poisson": ("poisson_nll_loss", [X, P * 5], {}),
    "poisson_full": ("poisson_nll_loss", [P, Q * 5], {"log_input": False, "full": True}),
    "gaussian": ("gaussian_nll_loss", [X, T, W], {}),
    "gaussian_rows": ("gaussian_nll_loss", [X, T, W[:, 0]], {"full": True}),
    "gaussian_one": ("gaussian_nll_loss", [X, T, W[:, :1]], {}),
    "hinge": ("hinge_embedding_loss", [X, SIGNS], {"margin": 0.8}),
    "ranking": ("margin_ranking_loss", [A, B, SIGNS], {"margin": 0.2}),
    "cosine": ("cosine_embedding_loss", [A, B, SIGNS[:, 0]], {"margin": 0.1}),
    "cosine_vector": ("cosine_embedding_loss", [A[0], B[0], np.array(SIGNS[0, 0])], {}),
    "soft_margin": ("soft_margin_loss", [X, SIGNS], {}),
    "multi": ("multi_margin_loss", [X, CLASSES], {}),
    "multi_2": ("multi_margin_loss", [X, CLASSES], {"p": 2, "margin": 0.5, "weight": W[0]}),
    "multi_vector": ("multi_margin_loss", [X[0], np.array(2)], {}),
    "multilabel": ("multilabel_margin_loss", [X, LABELS], {}),
    "multilabel_vector": ("multilabel_margin_loss", [X[0], LABELS[0]], {}),
    "multilabel_soft": ("multilabel_soft_margin_loss", [X, BINARY], {"weight": W[0]}),
    "triplet": ("triplet_margin_loss", [A, B, C], {}),
    "triplet_swap": ("triplet_margin_loss", [A, B, C], {"swap": True, "p": 3, "margin": 2.0}),
    "triplet_distance": ("triplet_margin_with_distance_loss", [A, B, C], {"swap": True}),
}
# The gradient of these targets is not what torch or a difference can compare.
LABELLED = ("hinge", "ranking", "cosine", "soft_margin")
MODES = ["none", "mean", "sum"]


def _differentiable(case, inputs):
    count = len(inputs) - 1 if case.startswith(LABELLED) else len(inputs)
    return [i for i, x in enumerate(inputs[:count]) if x.dtype.kind == "f"]


def _options(options, convert):
    return {k: convert(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("reduction", MODES)
def test_gradient(case, reduction):
    name, inputs, options = CASES[case]
    chosen = _differentiable(case, inputs)

    def loss(*moved):
        arguments = list(inputs)
        for i, x in zip(chosen, moved, strict=True):
            arguments[i] = x
        return getattr(F, name)(*arguments, **options, reduction=reduction)

    assert gradcheck(loss, [inputs[i] for i in chosen])


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:reduction")  # torch on kl_div's mean
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("reduction", MODES)
def test_like_torch(case, reduction, dtype):
    torch = pytest.importorskip("torch")
    name, inputs, options = CASES[case]
    chosen = _differentiable(case, inputs)

    def cast(x):
        return x.astype(dtype) if x.dtype.kind == "f" else x

    ours = [Tensor(cast(x), requires_grad=i in chosen) for i, x in enumerate(inputs)]
    peers = [torch.tensor(cast(x), requires_grad=i in chosen) for i, x in enumerate(inputs)]
    y = getattr(F, name)(*ours, **_options(options, cast), reduction=reduction)
    peer_options = _options(options, lambda x: torch.tensor(cast(x)))
    expected = getattr(torch.nn.functional, name)(*peers, **peer_options, reduction=reduction)
    close = {"rtol": 2e-5, "atol": 2e-5} if dtype == np.float32 else {"rtol": 1e-10, "atol": 1e-12}
    np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), **close)
    assert y.dtype == dtype and y.shape == tuple(expected.shape)
    y.sum().backward()
    expected.sum().backward()
    for i in chosen:
        np.testing.assert_allclose(ours[i].grad.numpy(), peers[i].grad.numpy(), **close)


@pytest.mark.parametrize("case", CASES)
def test_plain_arrays(case):
    name, inputs, options = CASES[case]
    kept = [x.copy() for x in inputs]
    y = getattr(F, name)(*inputs, **options)
    assert isinstance(y, np.ndarray) and y.dtype == np.float64 and y.shape == ()
    for x, before in zip(inputs, kept, strict=True):
        assert np.array_equal(x, before)
    tensors = [Tensor(x) for x in inputs]
    assert getattr(F, name)(*tensors, **options).item() == y
    mixed = [Tensor(inputs[0]), *inputs[1:]]
    assert isinstance(getattr(F, name)(*mixed, **options), Tensor)


def test_on_paper():
    x, t = np.array([0.0, 1, 4]), np.array([0.0, 3, 1])
    assert F.l1_loss(x, t, reduction="none").tolist() == [0, 2, 3]
    assert F.mse_loss(x, t, reduction="sum") == 13
    assert F.smooth_l1_loss(x, t, reduction="none").tolist() == [0, 1.5, 2.5]
    assert F.huber_loss(x, t, delta=2.0, reduction="none").tolist() == [0, 2, 4]
    assert F.gaussian_nll_loss(x, t, 1.0, reduction="sum") == 6.5
    assert F.margin_ranking_loss(x, t, np.array([1.0, -1, 1]), reduction="sum") == 0
    half = F.binary_cross_entropy(np.full(3, 0.5), np.array([0.0, 1, 0.3]))
    np.testing.assert_allclose(half, np.log(2), rtol=1e-15)
    assert F.kl_div(np.log(P), P, reduction="batchmean") == 0


def test_older_spelling_of_reduction():
    assert F.mse_loss(X, T, size_average=False) == F.mse_loss(X, T, reduction="sum")
    assert F.mse_loss(X, T, reduce=False).shape == X.shape
    assert F.l1_loss(X, T, True, True, "sum") == F.l1_loss(X, T)


@pytest.mark.torch
def test_extremes_like_torch():
    torch = pytest.importorskip("torch")
    x = np.array([0.0, 1, 0, 1, np.nan])
    t = np.array([1.0, 0, 0, 1, 0.5])
    ours, peer = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y = F.binary_cross_entropy(ours[:4], t[:4], reduction="none")
    z = torch.nn.functional.binary_cross_entropy(peer[:4], torch.tensor(t[:4]), reduction="none")
    y.sum().backward()
    z.sum().backward()
    np.testing.assert_array_equal(y.detach().numpy(), z.detach().numpy())
    np.testing.assert_allclose(ours.grad.numpy(), peer.grad.numpy(), rtol=1e-8)  # 1e-12f there
    x = np.array([1e4, -1e4, 0, np.nan])
    y = F.binary_cross_entropy_with_logits(x, np.ones(4), reduction="none")
    assert y[:3].tolist() == [0, 1e4, np.log1p(1)] and np.isnan(y[3])


def test_nan_stays():
    x = X.copy()
    x[0, 0] = np.nan
    for case in ("mse", "smooth_l1", "huber", "hinge", "multi", "multilabel", "soft_margin"):
        name, inputs, options = CASES[case]
        assert np.isnan(getattr(F, name)(x, *inputs[1:], **options)), case


@pytest.mark.torch
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_cosine_similarity(dim):
    torch = pytest.importorskip("torch")
    for second in (B, B[:1], B * 0):
        y = F.cosine_similarity(A, second, dim)
        z = torch.nn.functional.cosine_similarity(torch.tensor(A), torch.tensor(second), dim)
        np.testing.assert_allclose(y, z.numpy(), rtol=1e-12)
    assert gradcheck(lambda a, b: F.cosine_similarity(a, b, dim), [A, B])


@pytest.mark.torch
@pytest.mark.parametrize("p", [1.0, 2.0, 3.5, np.inf])
def test_pairwise_distance(p):
    torch = pytest.importorskip("torch")
    y = F.pairwise_distance(A, B[0], p, keepdim=True)
    z = torch.nn.functional.pairwise_distance(torch.tensor(A), torch.tensor(B[0]), p, keepdim=True)
    np.testing.assert_allclose(y, z.numpy(), rtol=1e-12)
    assert gradcheck(lambda a, b: F.pairwise_distance(a, b, p), [A, B])


def test_zero_batch():
    empty = np.zeros((0, 5))
    assert F.mse_loss(empty, empty, reduction="sum") == 0
    assert np.isnan(F.mse_loss(empty, empty))
    assert F.multi_margin_loss(empty, np.zeros(0, int), reduction="none").shape == (0,)


@pytest.mark.parametrize("name", ["l1_loss", "mse_loss", "smooth_l1_loss", "huber_loss"])
def test_other_shapes_warn(name):
    """[3] and [3, 1] become [3, 3], as in torch, which warns too; the warning is the caller's."""
    x, t = np.arange(3.0), np.arange(3.0).reshape(3, 1)
    with pytest.warns(UserWarning, match=rf"{name}: .*target.shape=\(3, 1\)") as caught:
        y = getattr(F, name)(x, t, reduction="none")
    assert y.shape == (3, 3) and caught[0].filename == __file__


ONE = np.ones(3)
BAD = [
    (lambda: F.mse_loss(ONE, np.ones(2)), ValueError, r"mse_loss: .*target.shape=\(2,\)"),
    (lambda: F.mse_loss(ONE, ONE.astype("f")), TypeError, "target.dtype=float32"),
    (lambda: F.mse_loss(ONE, [1.0]), TypeError, "mse_loss: target must be .*list"),
    (lambda: F.mse_loss(ONE, ONE, reduction="max"), ValueError, "mse_loss: reduction must be"),
    (lambda: F.mse_loss(ONE, ONE, reduction="batchmean"), ValueError, "reduction must be"),
    (lambda: F.l1_loss(ONE, ONE, weight=np.ones(1)), ValueError, r"weight.shape=\(1,\)"),
    (lambda: F.l1_loss(lamina.arange(3), ONE), TypeError, "l1_loss: input must be float32"),
    (lambda: F.smooth_l1_loss(ONE, ONE, beta=-1), ValueError, "beta must be at least 0"),
    (lambda: F.smooth_l1_loss(ONE, ONE, beta=np.nan), ValueError, "beta must be at least 0"),
    (lambda: F.smooth_l1_loss(ONE, ONE, beta="a"), TypeError, "beta must be a number"),
    (lambda: F.huber_loss(ONE, ONE, delta=0), ValueError, "delta must be above 0"),
    (lambda: F.binary_cross_entropy(ONE * 2, ONE), ValueError, "probabilities from 0 to 1"),
    (lambda: F.binary_cross_entropy(ONE, np.ones(1)), ValueError, "shapes must be equal"),
    (lambda: F.gaussian_nll_loss(ONE, ONE, -ONE), ValueError, "var must not be negative"),
    (lambda: F.gaussian_nll_loss(ONE, ONE, ONE, eps=0), ValueError, "eps must be above 0"),
    (lambda: F.hinge_embedding_loss(ONE, ONE * 0), ValueError, "target must hold 1 and -1"),
    (lambda: F.soft_margin_loss(ONE, ONE * 2), ValueError, "target must hold 1 and -1"),
    (lambda: F.margin_ranking_loss(ONE, ONE, ONE * 0), ValueError, "target must hold"),
    (lambda: F.cosine_embedding_loss(A, B, ONE), ValueError, r"target.shape=\(3,\)"),
    (lambda: F.multi_margin_loss(X, CLASSES + 1), ValueError, "target must be from 0 to 4"),
    (lambda: F.multi_margin_loss(X, CLASSES * 1.0), TypeError, "target must be an array of int"),
    (lambda: F.multi_margin_loss(X, CLASSES[:2]), ValueError, r"target.shape=\(2,\)"),
    (lambda: F.multi_margin_loss(X, CLASSES, p=3), ValueError, "p must be 1 or 2"),
    (lambda: F.multi_margin_loss(X, CLASSES, weight=ONE), ValueError, r"weight.shape=\(3,\)"),
    (lambda: F.multilabel_margin_loss(X, LABELS - 1), ValueError, "target must be from -1 to 4"),
    (lambda: F.multilabel_margin_loss(X, LABELS[0]), ValueError, r"target.shape=\(5,\)"),
    (lambda: F.cross_entropy(X, Q, ignore_index=0), ValueError, "ignore_index is for targets that"),
    (lambda: F.triplet_margin_loss(A, B, C, margin=0), ValueError, "margin must be above 0"),
    (lambda: F.triplet_margin_loss(A, B, ONE), ValueError, "triplet_margin_loss: shapes must"),
    (lambda: F.pairwise_distance(np.ones(()), np.ones(())), ValueError, "must have a dimension"),
    (lambda: F.cosine_similarity(A, B, 2), ValueError, "cosine_similarity: dim must be from"),
]


@pytest.mark.parametrize("call, error, message", BAD, ids=range(len(BAD)))
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_gradients_of_class_probabilities():
    """A smoothed target is (1 - smoothing) * target + smoothing / classes."""
    for options in ({}, {"label_smoothing": 0.3}, {"label_smoothing": 0.3, "weight": W[0]}):
        for reduction in ("mean", "sum", "none"):
            gradcheck(
                lambda x, q, o=options, r=reduction: F.cross_entropy(x, q, reduction=r, **o), [X, Q]
            )


def test_ignored_targets_have_no_gradient():
    """Even where the mean over no target is NaN."""
    for loss in (F.nll_loss, F.cross_entropy):
        x = lamina.tensor(X, requires_grad=True)
        result = loss(x, np.zeros(4, int), ignore_index=0)
        result.backward()
        assert np.isnan(result.item())
        assert not x.grad.data.any()


def test_gradients_of_any_layout():
    """Reversed, and at an address that is no multiple of the element's size."""
    grad = RNG.standard_normal(4)
    unaligned = np.zeros(grad.nbytes + 1, np.uint8)[1:].view(float)
    unaligned[:] = grad
    for loss in (F.nll_loss, F.cross_entropy):
        found = []
        for given in (grad, unaligned, grad[::-1].copy()[::-1]):
            x = lamina.tensor(X, requires_grad=True)
            loss(x, CLASSES, reduction="none").backward(given)
            found.append(x.grad.data)
        np.testing.assert_array_equal(found[1], found[0])
        np.testing.assert_array_equal(found[2], found[0])


def test_targets_written_after_forward_are_refused():
    x = lamina.tensor(np.zeros((2, 3), np.float32), requires_grad=True)
    for _ in range(2):
        target = np.array([0, 2])
        loss = F.cross_entropy(x, target)
        target[1] = 3
        with pytest.raises(ValueError, match="cross_entropy: target"):
            loss.backward()


POINTWISE = {
    "l1_loss": {},
    "mse_loss": {},
    "smooth_l1_loss": {"beta": 0.5},
    "huber_loss": {"delta": 0.5},
    "binary_cross_entropy_with_logits": {},
    "soft_margin_loss": {},
    "multilabel_soft_margin_loss": {},
}


@pytest.mark.torch
@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", MODES)
def test_pointwise_of_many_like_torch(backend, name, dtype, reduction):
    """Whole and broken vectors, several tasks, extremes; the second call is a known one."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(8)
    for shape in ((1,), (3, 5), (33,), (2, 40003)):
        x, t = (3 * rng.standard_normal(shape)).astype(dtype), rng.random(shape).astype(dtype)
        if name == "soft_margin_loss":
            t = np.where(t > 0.5, dtype(1), dtype(-1))
        x.reshape(-1)[-1] = {1: 100, 3: -1000, 33: np.inf, 2: np.nan}[shape[0]]
        peers = [torch.tensor(x, requires_grad=True), torch.tensor(t)]
        peers[1].requires_grad_(name != "soft_margin_loss")  # torch has no such gradient
        loss = getattr(torch.nn.functional, name)(*peers, reduction=reduction, **POINTWISE[name])
        loss.sum().backward()
        for _ in range(2):
            ours = [Tensor(a, requires_grad=True) for a in (x, t)]
            y = getattr(F, name)(*ours, reduction=reduction, **POINTWISE[name])
            y.sum().backward()
            eps = 64 * np.finfo(dtype).eps
            close = {"rtol": eps, "atol": eps * (1 if reduction != "sum" else x.size)}
            np.testing.assert_allclose(y.detach().numpy(), loss.detach().numpy(), **close)
            for mine, other in zip(ours, peers, strict=True):
                if other.requires_grad:  # in torch NaN has a sign of 0
                    grads = (np.where(np.isnan(x), 0, a.grad.numpy()) for a in (mine, other))
                    np.testing.assert_allclose(*grads, rtol=eps, atol=eps)


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise_of_any_layout(name):
    x, t = RNG.standard_normal((5, 8)), np.where(RNG.random((5, 8)) < 0.5, 1.0, -1.0)
    expected = getattr(F, name)(x, t)
    unaligned = np.zeros(x.nbytes + 1, np.uint8)[1:].view(float).reshape(x.shape)
    unaligned[:] = x
    for given in (unaligned, np.asfortranarray(x), np.repeat(x, 2, 1)[:, ::2], x.astype(">f8")):
        assert getattr(F, name)(given, t) == expected
        leaf = Tensor(np.asarray(given, float), requires_grad=True)
        getattr(F, name)(leaf, t).backward()
        assert np.isfinite(leaf.grad.numpy()).all()


@pytest.mark.torch
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", MODES)
def test_probabilities_like_torch(backend, dtype, reduction):
    """Down to the smallest ones, of which 1 - x knows nothing."""
    torch = pytest.importorskip("torch")
    tiny = np.finfo(dtype).tiny
    x = np.concatenate([np.geomspace(tiny, 0.5, 300), 1 - np.geomspace(1e-7, 0.5, 300), [0, 1]])
    x = np.tile(x.astype(dtype), 200)
    t = np.random.default_rng(1).random(x.shape).astype(dtype)
    t[::3], t[1::3] = 0, 1
    peers = [torch.tensor(a, requires_grad=True) for a in (x, t)]
    expected = torch.nn.functional.binary_cross_entropy(*peers, reduction=reduction)
    expected.sum().backward()
    eps = 64 * np.finfo(dtype).eps
    for _ in range(2):
        ours = [Tensor(a, requires_grad=True) for a in (x, t)]
        loss = F.binary_cross_entropy(*ours, reduction=reduction)
        loss.sum().backward()
        # torch adds in float32, the reference one after the other
        error = eps if reduction == "none" else 1e-4 if dtype == np.float32 else 1e-12
        np.testing.assert_allclose(loss.detach().numpy(), expected.detach().numpy(), error, 0)
        for mine, other in zip(ours, peers, strict=True):
            inside = (x > 1e-9) & (x < 1)  # 1e-12 is a float there
            found, wanted = mine.grad.numpy()[inside], other.grad.numpy()[inside]
            np.testing.assert_allclose(found, wanted, rtol=eps, atol=0)


def test_probabilities_are_checked_every_time():
    x, t = np.array([0, 0.5, 1, np.nan], np.float32), np.ones(4, np.float32)
    for _ in range(3):
        assert np.isnan(F.binary_cross_entropy(x, t))
        for bad in (-0.5, 1.5):
            with pytest.raises(ValueError, match=f"probabilities from 0 to 1, got {bad}"):
                F.binary_cross_entropy(np.where(x == 0.5, np.float32(bad), x), t)


def test_signs_are_checked_every_time():
    x, t = np.ones(3, np.float32), np.array([1, -1, 1], np.float32)
    for loss in (F.soft_margin_loss, lambda x, t: F.margin_ranking_loss(x, x, t)):
        for _ in range(3):
            loss(x, t)
            with pytest.raises(ValueError, match=r"target must hold 1 and -1 only, got 0\.5"):
                loss(x, t / 2)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5,), (7, 3), (40, 1000), (2, 5, 300), (3, 4, 2, 9)], ids=str)
@pytest.mark.parametrize("reduction", MODES)
@pytest.mark.parametrize("weighted", [False, True])
def test_class_losses_like_torch(shape, dtype, reduction, weighted):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(9)
    x, q = rng.standard_normal(shape).astype(dtype), rng.random(shape).astype(dtype)
    classes = shape[min(1, len(shape) - 1)]
    target = rng.integers(0, classes, shape[:1] + shape[2:] if len(shape) > 1 else ())
    if target.ndim:
        target.reshape(-1)[1] = -100
    weight = rng.random(classes).astype(dtype) if weighted else None
    peer_weight = None if weight is None else torch.tensor(weight)
    close = {"rtol": 2e-5, "atol": 2e-5} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-12}
    for name, t, options in (
        ("nll_loss", target, {}),
        ("cross_entropy", q, {}),
        ("cross_entropy", q, {"label_smoothing": 0.2}),
    ):
        peers = [torch.tensor(x, requires_grad=True), torch.tensor(t)]
        peers[1].requires_grad_(t is q)
        expected = getattr(torch.nn.functional, name)(
            *peers, peer_weight, reduction=reduction, **options
        )
        expected.sum().backward()
        for _ in range(2):
            ours = [Tensor(x, requires_grad=True), Tensor(t, requires_grad=t is q)]
            loss = getattr(F, name)(*ours, weight, reduction=reduction, **options)
            loss.sum().backward()
            np.testing.assert_allclose(loss.detach().numpy(), expected.detach().numpy(), **close)
            for mine, other in zip(ours, peers, strict=True):
                if mine.requires_grad:
                    np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), **close)


@pytest.mark.parametrize("shape", [(140_000, 32), (3, 21, 70_000)], ids=str)
def test_nll_loss_beyond_the_caches(shape):
    """Targets name places that are asked for ahead, those that are ignored or no class, too."""
    numbers, positions = np.random.default_rng(2), (shape[0], *shape[2:])
    x = numbers.standard_normal(shape, np.float32)
    target = numbers.integers(0, shape[1], positions)
    target.flat[::7] = -(2**30)
    loss = F.nll_loss(x, target, ignore_index=-(2**30), reduction="none")
    picked = np.take_along_axis(x, np.maximum(target, 0)[:, None], 1)[:, 0]
    np.testing.assert_array_equal(loss, np.where(target < 0, 0, -picked))
    target.flat[100] = 2**62
    with pytest.raises(ValueError, match=str(2**62)):
        F.nll_loss(x, target, ignore_index=-(2**30))


def test_nll_loss_refuses_what_is_no_class():
    x, target = np.zeros((2, 3, 20000), np.float32), np.zeros((2, 20000), int)
    for _ in range(2):
        F.nll_loss(x, target)
        bad = target.copy()
        bad[1, 5], bad[1, 19000] = 3, -1
        with pytest.raises(ValueError, match=r"nll_loss: .* got 3 at position \(1, 5\)"):
            F.nll_loss(x, bad)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", MODES)
def test_multilabel_margin_of_many_like_torch(dtype, reduction):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(10)
    x = rng.standard_normal((70, 90)).astype(dtype)
    target = np.full((70, 90), -1)
    for row in target:
        count = rng.integers(0, 91)
        row[:count] = rng.permutation(90)[:count]
    target[3, -1] = 5  # behind the end
    peer = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.multilabel_margin_loss(
        peer, torch.tensor(target), reduction=reduction
    )
    expected.sum().backward()
    close = {"rtol": 2e-5, "atol": 2e-5} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-13}
    for _ in range(2):
        ours = Tensor(x, requires_grad=True)
        loss = F.multilabel_margin_loss(ours, target, reduction=reduction)
        loss.sum().backward()
        np.testing.assert_allclose(loss.detach().numpy(), expected.detach().numpy(), **close)
        np.testing.assert_allclose(ours.grad.numpy(), peer.grad.numpy(), **close)
        for bad in (-2, 90):
            with pytest.raises(ValueError, match=f"must be from -1 to 89, .*{bad}"):
                F.multilabel_margin_loss(x, np.where(target == 5, bad, target))
