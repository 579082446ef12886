"""Layers, optimisers and the command line: a network learns, is saved and comes back."""

from __future__ import annotations

import os
import subprocess
import sys

import lamina
import lamina.functional as F
import numpy as np
import pytest
from lamina import nn, optim
from lamina.bench.cli import app
from lamina.bench.train import lenet
from lamina.data import digits
from numpy.testing import assert_allclose, assert_array_equal
from typer.testing import CliRunner


def test_digits_are_learned_from_the_command_line(tmp_path):
    result = CliRunner().invoke(
        app, ["train", "digits", "--epochs", "8", "--out", str(tmp_path / "run")]
    )
    assert result.exit_code == 0, result.output
    accuracy = float(result.output.split("test accuracy ")[1].split("%")[0])
    assert accuracy > 95
    assert (tmp_path / "run" / "filters.png").stat().st_size > 1000
    from safetensors.numpy import load_file

    network = lenet()
    network.load_state_dict(load_file(tmp_path / "run" / "weights.safetensors"))
    data = digits()
    logits = network(lamina.Tensor(data.test_images)).data
    assert (logits.argmax(1) == data.test_labels).mean() > 0.95


@pytest.mark.parametrize(
    "command",
    [
        ["info"],
        ["check"],
        ["plan", "1x3x8x8", "4x3x3x3"],
        ["plan", "1x3x8x8", "4x3x3x3", "--backend", "simt"],
    ],
)
def test_commands_succeed(command):
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "command", [["plan", "1x3", "4"], ["plan", "1x3x8x8", "4x2x3x3"], ["bench", "nothing"], []]
)
def test_commands_refuse(command):
    assert CliRunner().invoke(app, command).exit_code == 2


def test_state_dict_is_checked_before_it_is_loaded():
    network = nn.Sequential(nn.Linear(2, 3), nn.Conv2d(1, 2, 3))
    before = {name: array.copy() for name, array in network.state_dict().items()}
    state = {name: np.zeros_like(array) for name, array in before.items()}
    state["2.weight"] = np.zeros(1)
    state["1.bias"] = np.zeros(5)
    del state["0.bias"]
    with pytest.raises(RuntimeError) as caught:
        network.load_state_dict(state)
    for text in ("missing: 0.bias", "unexpected: 2.weight", "shape of 1.bias: (5,) given"):
        assert text in str(caught.value)
    for name, array in network.state_dict().items():
        assert_array_equal(array, before[name])
    others = {f"{index}.weight": np.zeros(1) for index in range(3, 60)}
    with pytest.raises(RuntimeError, match=r"missing: 0.weight, 0.bias, .*12.weight and 47 more$"):
        network.load_state_dict(others)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SGD", dict(lr=0.1)),
        ("SGD", dict(lr=0.1, momentum=0.9, weight_decay=0.01)),
        ("SGD", dict(lr=0.1, momentum=0.9, nesterov=True)),
        ("SGD", dict(lr=0.1, momentum=0.5, dampening=0.2, maximize=True)),
        ("Adam", dict(lr=0.01, weight_decay=0.1)),
        ("Adam", dict(lr=0.01, amsgrad=True)),
        ("AdamW", dict(lr=0.01, betas=(0.8, 0.9))),
    ],
    ids=str,
)
def test_optimiser_steps_are_torchs(name, options):
    torch = pytest.importorskip("torch")
    start = np.random.default_rng(0).normal(size=(4, 3))
    ours, theirs = nn.Parameter(start.copy()), torch.nn.Parameter(torch.tensor(start))
    a, b = getattr(optim, name)([ours], **options), getattr(torch.optim, name)([theirs], **options)
    for step in range(20):
        grad = np.random.default_rng(step).normal(size=start.shape)
        ours.grad, theirs.grad = lamina.Tensor(grad), torch.tensor(grad)
        a.step()
        b.step()
    assert_allclose(ours.data, theirs.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), (4,), (0, 4)])
def test_linear(backend, shape):
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.normal(size=s) for s in (shape, (3, 4), (3,)))
    assert_allclose(F.linear(x, weight, bias), x @ weight.T + bias, rtol=1e-12, atol=1e-12)
    if x.size:
        lamina.testing.gradcheck(F.linear, [x, weight, bias])


# Tiles of 8 x 48 x 256, and up to 4 rows as dot products.
GEMM_EDGES = [(1, 1, 1), (8, 48, 256), (97, 385, 257), (9, 47, 300), (5, 96, 31)]
GEMM_EDGES += [(1, 77, 300), (2, 3, 65), (3, 50, 130), (4, 33, 64), (0, 3, 4), (3, 0, 4), (3, 4, 0)]


@pytest.mark.parametrize("edges", GEMM_EDGES)
def test_gemm_is_exact_at_the_edges_of_its_tiles(backend, edges):
    m, n, k = edges
    a = np.random.default_rng(0).integers(-3, 4, (m, k)).astype(np.float32)
    b = np.random.default_rng(1).integers(-3, 4, (n, k)).astype(np.float32)
    assert_array_equal(F.linear(a, b), a @ b.T)


@pytest.mark.parametrize(
    ("shapes", "error", "text"),
    [
        (((2, 3), (4, 5)), ValueError, "input has 3 features but weight expects 5"),
        (((2, 3), (4, 3), (5,)), ValueError, "bias must have one element per output"),
        (((), (4, 3)), ValueError, "input must have"),
        (((2, 3), (4, 3, 1)), ValueError, "weight must have 1 or 2 dimensions"),
    ],
)
def test_linear_refuses(shapes, error, text):
    with pytest.raises(error, match="^linear: ") as caught:
        F.linear(*(np.zeros(shape, np.float32) for shape in shapes))
    assert text in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_child_computes():
    """The child has none of the parent's worker threads and must start its own."""
    x = np.random.default_rng(0).normal(size=(4, 16, 20, 20)).astype(np.float32)
    weight = np.ones((16, 16, 3, 3), np.float32)
    lamina.set_num_threads(4)
    expected = F.conv2d(x, weight)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, b"y" if np.array_equal(F.conv2d(x, weight), expected) else b"n")
        os._exit(0)
    os.close(write)
    assert os.read(read, 1) == b"y"
    assert os.waitpid(child, 0)[1] == 0


def test_import_is_silent_and_light():
    code = (
        "import sys, lamina; print([m for m in ('cupy', 'torch', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
