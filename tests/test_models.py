"""`lamina.models`: torchvision's sizes and names, and the same files on torch's `nn`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lamina
import numpy as np
import pytest
from lamina import models, nn
from lamina.bench import networks
from lamina.bench.peers import Peer, load_peers
from numpy.testing import assert_allclose

EXAMPLES = Path(__file__).parents[1] / "examples"
OURS = Peer("lamina", lamina)
# Parameters with 1000 classes, and some names and shapes, of torchvision's networks.
TORCHVISION = {
    "alexnet": (61_100_840, {"features.10.bias": (256,), "classifier.6.weight": (1000, 4096)}),
    "vgg16": (138_357_544, {"features.28.weight": (512, 512, 3, 3), "classifier.3.bias": (4096,)}),
    "resnet18": (
        11_689_512,
        {"layer2.0.downsample.0.weight": (128, 64, 1, 1), "layer4.1.bn2.running_var": (512,)},
    ),
    "resnet50": (
        25_557_032,
        {
            "layer1.0.downsample.1.num_batches_tracked": (),
            "layer3.5.conv3.weight": (1024, 256, 1, 1),
            "fc.weight": (1000, 2048),
        },
    ),
    "mobilenet_v2": (
        3_504_872,
        {
            "features.1.conv.1.weight": (16, 32, 1, 1),
            "features.2.conv.1.0.weight": (96, 1, 3, 3),
            "features.18.1.running_mean": (1280,),
            "classifier.1.weight": (1000, 1280),
        },
    ),
}
# The smallest images that every layer takes, and options that keep the tests small.
SMALL = {
    "lenet": ((2, 1, 28, 28), {}),
    "alexnet": ((2, 3, 63, 63), {}),
    "vgg16": ((2, 3, 32, 32), {"hidden": 16}),
    "resnet18": ((2, 3, 64, 64), {}),
    "resnet50": ((2, 3, 64, 64), {}),
    "mobilenet_v2": ((2, 3, 64, 64), {}),
}


@pytest.fixture
def _no_random_weights(monkeypatch):
    for name in ("kaiming_uniform_", "uniform_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *options, **more: tensor)


@pytest.mark.usefixtures("_no_random_weights")
@pytest.mark.parametrize("name", TORCHVISION)
def test_sizes_and_names_are_torchvisions(name):
    count, some = TORCHVISION[name]
    network = getattr(models, name)()
    assert sum(parameter.data.size for parameter in network.parameters()) == count
    shapes = {key: array.shape for key, array in network.state_dict().items()}
    assert {key: shapes.get(key) for key in some} == some


def test_lenet_has_the_papers_layers():
    network = models.lenet()
    assert sum(parameter.data.size for parameter in network.parameters()) == 61_706
    with lamina.no_grad():
        y = network.features(lamina.Tensor(np.zeros((3, 1, 28, 28), np.float32)))
    assert y.shape == (3, 16, 5, 5)


@pytest.mark.parametrize("name", SMALL)
def test_networks_classify_and_learn(name):
    shape, options = SMALL[name]
    network = networks.without_dropout(getattr(models, name)(num_classes=5, **options))
    x, labels = np.random.default_rng(0).normal(size=shape).astype(np.float32), np.array([1, 3])
    logits = networks.forward_call(OURS, network, x)()
    assert logits.shape == (2, 5) and not logits.requires_grad
    step = networks.train_call(OURS, network, x, labels, rate=1e-3)
    losses = [step().item() for _ in range(4)]
    assert losses[-1] < losses[0]


# Rounding errors are proportional to eps as long as they are small (Higham 2002, section 3.4): what
# float64 loses in a network is what float32 loses, which a second run shows, times this. So they
# hold what batch normalisation over few positions multiplies, and sums that cancel to zero.
FLOAT64_TO_FLOAT32 = np.finfo(np.float64).eps / np.finfo(np.float32).eps
# Another library adds in another order: the longest sums, of vgg16's first linear layer, round by
# something between one and sqrt(n) steps of a random walk.
ORDER = 25088**0.5


def step(peer, network, x, labels):
    """The loss of a step of training, and the gradients of all parameters."""
    loss = networks.train_call(peer, networks.without_dropout(network), x, labels)()
    gradients = {key: value.grad.numpy() for key, value in network.named_parameters()}
    return {"loss": np.asarray(loss.item()), **gradients}


def bound(exact, rounded):
    """Of the difference between two results in float64, of which float32 made `rounded`."""
    error, once = np.abs(rounded - exact).max(), np.finfo(np.float32).eps * np.abs(exact).max()
    return ORDER * FLOAT64_TO_FLOAT32 * max(error, once)


@pytest.mark.torch
@pytest.mark.parametrize("name", SMALL)
def test_torch_computes_the_same(name):
    """Logits, loss and the gradients of all parameters, in float64."""
    pytest.importorskip("torch")
    theirs = load_peers(["torch"])[1]
    shape, options = SMALL[name]
    rounded = networks.build(OURS, name, num_classes=5, **options)
    ours = networks.build(OURS, name, num_classes=5, **options).double()
    twin = networks.build(theirs, name, num_classes=5, **options).double()
    ours.load_state_dict(rounded.state_dict())
    networks.load(theirs, twin, ours.state_dict())
    x, labels = np.random.default_rng(0).normal(size=shape).astype(np.float32), np.array([1, 3])
    runs = [(OURS, ours, x.astype(float)), (theirs, twin, x.astype(float)), (OURS, rounded, x)]
    found, expected, in_float32 = (
        {"logits": networks.forward_call(*run)().numpy()} for run in runs
    )
    for results, run in zip((found, expected, in_float32), runs, strict=True):
        results |= step(*run, labels)
    for key, value in expected.items():
        atol = bound(found[key], in_float32[key])
        assert_allclose(found[key], value, rtol=0, atol=atol, equal_nan=False, err_msg=key)


@pytest.mark.parametrize("name", SMALL)
def test_fused_networks_compute_the_same(name):
    """In one convolution: what follows it, up to a block's sum. The original stays as it was."""
    shape, options = SMALL[name]
    network = getattr(models, name)(num_classes=5, **options).double()
    rng = np.random.default_rng(0)
    for key, array in network.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            array[...] = rng.uniform(0.5, 1.5, array.shape)
    x, keys = rng.normal(size=shape), list(network.state_dict())
    expected = networks.forward_call(OURS, network, x)().numpy()
    fused = nn.utils.fuse(network)
    found = networks.forward_call(OURS, fused, x)().numpy()
    assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    kinds = {type(module).__name__ for module in fused.modules()}
    assert not kinds & {"BatchNorm2d", "ReLU6"} and list(network.state_dict()) == keys
    if name.startswith("res"):
        assert "ReLU" not in kinds


def test_twin_needs_the_one_import():
    from types import ModuleType

    module = ModuleType("made_up")
    with pytest.raises((TypeError, OSError, ValueError)):
        networks.torch_twin(module)
    with pytest.raises(ValueError, match="must import nn alone"):
        networks.torch_twin(models)


def test_example_classifies_a_picture(tmp_path):
    from matplotlib.image import imsave

    lamina.save(models.resnet18().state_dict(), tmp_path / "weights.safetensors")
    imsave(tmp_path / "picture.png", np.random.default_rng(0).random((30, 50, 3)))
    arguments = ["resnet18", tmp_path / "weights.safetensors", tmp_path / "picture.png"]
    done = subprocess.run(
        [sys.executable, EXAMPLES / "classify.py", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    shares = [float(line.split()[2].rstrip("%")) for line in done.stdout.splitlines()]
    assert len(shares) == 5 and shares == sorted(shares, reverse=True)


@pytest.mark.parametrize("options", [[], ["--train", "--layers", "--threads", "1"]])
def test_example_times_a_network(options):
    arguments = ["lenet", "--batch", "2", "--seconds", "0", *options]
    done = subprocess.run(
        [sys.executable, EXAMPLES / "networks.py", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    what = "training step" if options else "forward pass"
    assert "lenet, 61,706 parameters, batch 2" in said and f"{what} " in said
    assert ("Conv2d(1, 6" in said) == bool(options)
