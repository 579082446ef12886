"""Arrays on a GPU through every function, without one: fake_cupy's arrays take the path of CuPy's.

Results and gradients must equal those of the CPU and stay on the device. The functions are called
with the arguments of `lamina parity`.
"""

from __future__ import annotations

import fake_cupy
import lamina
import numpy as np
import pytest
from lamina import functional
from lamina.bench.parity_cases import FUNCTIONS, Real

# What is not offered on a GPU, and says so.
CPU_ONLY = {"ctc_loss"}
RANDOM = {"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout"}

CALLS = [
    (name, index)
    for name, calls in FUNCTIONS.items()
    for index in range(len(calls))
    if name not in CPU_ONLY
]


@pytest.fixture
def cupy():
    with fake_cupy.installed() as module:
        yield module


def call(name, index, place):
    """Results and gradients of a call whose arrays went through `place`."""
    chosen = FUNCTIONS[name][index]
    lamina.manual_seed(3)
    arguments, leaves = [], []
    for position, value in enumerate(chosen.args):
        if isinstance(value, Real):
            leaf = lamina.Tensor(place(value.array(position)), requires_grad=value.gradient)
            leaves.append(leaf)
            arguments.append(leaf)
        elif isinstance(value, np.ndarray):
            arguments.append(lamina.Tensor(place(value.copy())))
        else:
            arguments.append(value)
    options = {
        key: lamina.Tensor(place(value.array(50)))
        if isinstance(value, Real)
        else lamina.Tensor(place(value.copy()))
        if isinstance(value, np.ndarray)
        else value
        for key, value in chosen.options.items()
    }
    result = getattr(functional, name)(*arguments, **options)
    results = list(result) if isinstance(result, (tuple, list)) else [result]
    total = None
    for y in results:
        if y.requires_grad:
            weight = np.random.default_rng(9).normal(size=y.shape)
            term = (y * lamina.Tensor(place(weight))).sum()
            total = term if total is None else total + term
    if total is not None:
        total.backward()
    return results + [leaf.grad for leaf in leaves if leaf.grad is not None]


# With sums or norms along lines, whose elements the CPU adds lane by lane and other devices in an
# order of theirs: less than a hundred terms of about 1, an eps of float64 each. glu: the CPU's exp.
SUMMED = {
    "bilinear",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cosine_embedding_loss",
    "cosine_similarity",
    ("cross_entropy", 4),  # of probabilities
    "embedding_bag",
    "gaussian_nll_loss",
    "glu",
    "hinge_embedding_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "normalize",
    "pad",  # gradients of elements that came in twice
    "pairwise_distance",
    "pdist",
    "poisson_nll_loss",
    "rms_norm",
    "smooth_l1_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
}


@pytest.mark.parametrize(("name", "index"), CALLS)
def test_function(name, index, cupy):
    ours = call(name, index, cupy.asarray)
    with lamina.backend("simt"):
        theirs = call(name, index, lambda x: x)
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.device == "cuda:0"
        if lamina.cuda.is_available():  # a GPU's exp, log, ... are not the C library's
            np.testing.assert_allclose(mine.cpu().data, other.data, rtol=1e-11, atol=1e-11)
        elif name in SUMMED or (name, index) in SUMMED:
            np.testing.assert_allclose(mine.cpu().data, other.data, rtol=1e-14, atol=1e-14)
        else:
            np.testing.assert_array_equal(mine.cpu().data, other.data)


def test_the_backend_is_cuda(cupy):
    functional.relu(cupy.asarray(np.ones(3, np.float32)))
    assert lamina.last_plan().backend == "cuda"


def test_devices_do_not_mix(cupy):
    x, weight = np.ones((1, 2, 5), np.float32), np.ones((3, 2, 3), np.float32)
    with pytest.raises((TypeError, RuntimeError), match="device"):
        functional.conv1d(cupy.asarray(x), weight)
    with pytest.raises((TypeError, RuntimeError), match="device"):
        lamina.Tensor(cupy.asarray(x)) + lamina.Tensor(x)


def test_to_and_back(cupy):
    x = lamina.tensor([1.0, -2.0])
    y = x.cuda()
    assert (y.device, y.is_cuda, y.cpu().device) == ("cuda:0", True, "cpu")
    layer = lamina.nn.Linear(3, 2).to("cuda")
    assert layer.weight.device == "cuda:0"
    with pytest.raises(RuntimeError, match=r"numpy: the tensor must be on the CPU"):
        y.numpy()


class Foreign:
    """An array of another library that has nothing but the interface, such as torch's."""

    def __init__(self, array):
        self.array = array
        self.__cuda_array_interface__ = array.__cuda_array_interface__


def test_arrays_of_other_libraries_are_taken(cupy):
    x = cupy.asarray(np.array([-1.0, 2.0], np.float32))
    y = functional.relu(Foreign(x))
    np.testing.assert_array_equal(y.get(), [0, 2])
    assert lamina.tensor(Foreign(x)).device == "cuda:0"


def test_views_on_the_device(cupy):
    x = cupy.asarray(np.arange(12, dtype=np.float32).reshape(3, 4) - 5)
    np.testing.assert_array_equal(functional.relu(x[:, 1:]).get(), np.maximum(x.get()[:, 1:], 0))
    np.testing.assert_array_equal(functional.relu(x[1:]).get(), np.maximum(x.get()[1:], 0))


def test_without_a_gpu():
    if lamina.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert lamina.cuda.device_count() == 0
    with pytest.raises(RuntimeError, match="cuda"), lamina.backend("cuda"):
        pass
    with pytest.raises(RuntimeError, match="device"):
        lamina.tensor([1.0]).cuda()


def test_a_network_trains_on_the_device(cupy):
    """The same steps as on the CPU, with every parameter and state on the device."""

    def steps(device):
        lamina.manual_seed(0)
        nn = lamina.nn
        net = nn.Sequential(
            *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Dropout(0.2), nn.Linear(36, 3)),
        ).to(device)
        optimizer = lamina.optim.Adam(net.parameters(), lr=0.01)
        x = np.random.default_rng(1).normal(size=(5, 1, 6, 6)).astype(np.float32)
        target = np.array([0, 2, 1, 1, 0])
        losses = []
        for _ in range(3):
            optimizer.zero_grad()
            out = net(lamina.tensor(x, device=device))
            loss = functional.cross_entropy(out, lamina.tensor(target, device=device))
            loss.backward()
            lamina.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            losses.append(float(loss.item()))
        return losses, net

    losses, net = steps("cuda")
    with lamina.backend("simt"):
        expected, _ = steps("cpu")
    np.testing.assert_allclose(losses, expected, rtol=1e-4 if lamina.cuda.is_available() else 0)
    assert {p.device for p in net.parameters()} == {"cuda:0"}
    on_cpu = {name: value.get() for name, value in net.state_dict().items()}
    net.load_state_dict(on_cpu)
    assert {p.device for p in net.parameters()} == {"cuda:0"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_networks(cupy, dtype):
    """Forward, backward and an update within a few roundings of the float32 network's."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    half = np.dtype(getattr(ml_dtypes, dtype, dtype))
    nn = lamina.nn
    x = np.random.default_rng(1).normal(size=(4, 2, 6, 6)).astype(np.float32)
    results = []
    for kind in (np.float32, half):
        lamina.manual_seed(0)
        net = nn.Sequential(
            *(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(36, 3)),
        ).to("cuda", kind)
        y = net(lamina.tensor(x).to("cuda", kind))
        assert y.dtype == kind
        functional.cross_entropy(y, lamina.tensor(np.arange(4) % 3, device="cuda")).backward()
        lamina.optim.SGD(net.parameters(), lr=0.1).step()
        assert {p.dtype for p in net.parameters()} == {np.dtype(kind)}
        results.append((y.detach().cpu().data, net[0].weight.detach().cpu().data))
    eps = float(ml_dtypes.finfo(half).eps)
    for single, other in zip(*results, strict=True):
        # every layer rounds once, and batch norm divides by a deviation near 1
        np.testing.assert_allclose(other.astype(np.float64), single, atol=32 * eps)


def test_indices_are_not_reported_while_a_graph_is_captured(cupy, monkeypatch):
    """Nothing can be read back then; the kernel leaves the result alone, as it does otherwise."""
    x = cupy.asarray(np.ones((1, 1, 2), np.float32))
    indices = cupy.asarray(np.array([[[0, 9]]]))
    with pytest.raises(ValueError, match="indices must be from 0 to 3"):
        functional.max_unpool1d(x, indices, 2)
    monkeypatch.setattr(cupy.cuda.get_current_stream(), "is_capturing", lambda: True, raising=False)
    assert functional.max_unpool1d(x, indices, 2).shape == (1, 1, 4)
