"""Whole networks beside torch: `lamina.models`, and the same files run on torch's `nn`.

The modules of `lamina.models` use nothing but names that torch has too; its network is therefore
made from the same source, with the same weights. Dropout is off, so that both compute the same.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

import lamina

from .. import models, nn
from .peers import Peer, array_of
from .timing import Call

CLASSES = 10


class Network(NamedTuple):
    """A function of `lamina.models` and the images it takes."""

    name: str
    image: tuple[int, ...]
    batches: tuple[int, ...] = (1, 8)
    flops: float = 0.0  # of a forward pass, an image


NETWORKS = (
    Network("lenet", (1, 28, 28), (1, 64), flops=0.83e6),
    Network("alexnet", (3, 224, 224), flops=1.42e9),
    Network("vgg16", (3, 224, 224), flops=30.9e9),
    Network("resnet18", (3, 224, 224), flops=3.63e9),
    Network("resnet50", (3, 224, 224), flops=8.18e9),
    Network("mobilenet_v2", (3, 224, 224), flops=0.60e9),
)


@lru_cache
def torch_twin(module: ModuleType) -> ModuleType:
    """A file of `lamina.models` with torch's `nn` in place of Lamina's."""
    source = inspect.getsource(module)
    ours, theirs = "from .. import nn\n", "from torch import nn\n"
    if source.count(ours) != 1:
        raise ValueError(f"networks: {module.__name__} must import nn alone, as {ours!r}")
    twin = ModuleType(f"{module.__name__}_on_torch")
    twin.__package__ = module.__package__
    exec(compile(source.replace(ours, theirs), f"<{twin.__name__}>", "exec"), twin.__dict__)
    return twin


def build(peer: Peer, name: str, **options: Any) -> Any:
    """The network of that name in the peer's library, freshly initialised."""
    make = getattr(models, name)
    if peer.library is lamina:
        return make(**options)
    return getattr(torch_twin(importlib.import_module(make.__module__)), name)(**options)


def load(peer: Peer, network: Any, state: dict[str, np.ndarray]) -> None:
    """Gives a network the weights of another one."""
    if peer.library is lamina:
        network.load_state_dict(state)
        return
    network.load_state_dict({key: peer.library.from_numpy(value) for key, value in state.items()})


def without_dropout(network: Any) -> Any:
    for module in network.modules():
        if type(module).__name__ == "Dropout":
            module.p = 0.0
    return network


def batch_of(network: Network, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, *network.image)).astype(np.float32)
    return images, rng.integers(0, CLASSES, batch)


def forward_call(peer: Peer, network: Any, images: np.ndarray) -> Call:
    """Inference: logits of the images."""
    network.eval()
    x = lamina.Tensor(images) if peer.library is lamina else peer.operand(images)

    def forward() -> Any:
        with peer.library.no_grad():
            return network(x)

    return peer.within(forward)


def train_call(
    peer: Peer, network: Any, images: np.ndarray, labels: np.ndarray, rate: float = 1e-3
) -> Call:
    """A step of stochastic gradient descent with momentum: the loss before it."""
    network.train()
    ours = peer.library is lamina
    x = lamina.Tensor(images) if ours else peer.operand(images)
    targets = labels if ours else peer.library.from_numpy(labels)
    optimizer = peer.library.optim.SGD(network.parameters(), lr=rate, momentum=0.9)

    def step() -> Any:
        optimizer.zero_grad()
        loss = peer.functional.cross_entropy(network(x), targets)
        loss.backward()
        optimizer.step()
        return loss

    return peer.within(step)


def network_calls(
    network: Network, batch: int, pass_: str, peers: Sequence[Peer], fused: bool = False
) -> tuple[dict[str, Call], Callable[[Any], float], int]:
    """The calls of the peers that run networks, what judges logits or the first loss, and bytes."""
    images, labels = batch_of(network, batch)
    first = without_dropout(build(peers[0], network.name, num_classes=CLASSES))
    state = first.state_dict()
    expected = _expected(network.name, state, images, labels, pass_)
    calls: dict[str, Call] = {}
    for peer in peers:
        if peer.name not in ("lamina", "torch") and not peer.setting:
            continue
        own = first
        if peer is not peers[0]:
            own = without_dropout(build(peer, network.name, num_classes=CLASSES))
            load(peer, own, state)
        if pass_ == "fprop":
            if fused and peer.library is not lamina:
                calls[f"{peer.name}.fused"] = forward_call(peer, _fused_by_torch(own), images)
            used = nn.utils.fuse(own) if fused and peer.library is lamina else own
            calls[peer.name] = forward_call(peer, used, images)
        else:
            calls[peer.name] = train_call(peer, own, images, labels)

    def error(result: Any) -> float:
        array = np.atleast_1d(array_of(result))
        return float(np.abs(array[: len(expected)] - expected).max() / np.abs(expected).max())

    return calls, error, sum(array.nbytes for array in state.values())


def _fused_by_torch(network: Any) -> Any:
    """Its own folding of normalisations into convolutions."""
    from torch.fx.experimental.optimization import fuse

    return fuse(network.eval())


def _expected(
    name: str, state: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray, pass_: str
) -> np.ndarray:
    """In float64: the first image's logits, or the loss of all."""
    double = without_dropout(getattr(models, name)(num_classes=CLASSES)).double()
    double.load_state_dict(state)
    with lamina.no_grad():
        if pass_ == "fprop":
            return double.eval()(lamina.Tensor(images[:1].astype(np.float64))).numpy()
        loss = nn.CrossEntropyLoss()(double(lamina.Tensor(images.astype(np.float64))), labels)
    return loss.numpy().reshape(1)
