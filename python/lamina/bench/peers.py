"""The libraries that `lamina compare` calls, each through its own public functions.

torch and Lamina have the same names, so one description of a call serves both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

import lamina

from .. import _C
from .. import functional as F
from ..functional.conv import conv_shape
from .jobs import geometry_of
from .layers import ConvLayer
from .timing import Call, Within, keep_memory

PEERS = (
    *("torch", "torch.default", "torch.channels_last", "torch.medium", "torch.autocast"),
    *("onnxruntime", "lamina.highest"),
)
# Those that differ from torch and Lamina by what holds during a call.
SETTINGS = ("default", "highest", "medium", "autocast")


class Peer(NamedTuple):
    """A library: `library` is its module, `extra` are options of the convolution call."""

    name: str
    library: Any
    version: str = ""
    extra: tuple[tuple[str, Any], ...] = ()

    @property
    def functional(self) -> Any:
        return F if self.library is lamina else self.library.nn.functional

    def operand(self, array: np.ndarray) -> Any:
        """What needs no gradient."""
        if self.library is lamina:
            return array
        tensor = self.library.from_numpy(array)
        if self.name == "torch.channels_last" and array.ndim == 4:
            return tensor.contiguous(memory_format=self.library.channels_last)
        return tensor

    def leaf(self, array: np.ndarray) -> Any:
        """What needs one."""
        if self.library is lamina:
            return lamina.Tensor(array, requires_grad=True)
        return self.operand(array).requires_grad_()

    @property
    def setting(self) -> str:
        """Of SETTINGS, or nothing."""
        last = self.name.rpartition(".")[2]
        return last if last in SETTINGS else ""

    @contextmanager
    def settings(self) -> Iterator[None]:
        """What the name asks for, while it holds.

        default: malloc's own defaults. highest: Lamina's precision. medium: torch's products of
        float32 in bfloat16, where its kernels know how. autocast: torch's tensors in bfloat16.
        """
        if self.setting == "default":
            keep_memory(False)
            try:
                yield
            finally:
                keep_memory(True)
        elif self.setting == "highest":
            with lamina.set_float32_precision("highest"):
                yield
        elif self.setting == "medium":
            allowed = self.library.backends.mkldnn
            before = allowed.conv.fp32_precision, allowed.matmul.fp32_precision
            allowed.conv.fp32_precision = allowed.matmul.fp32_precision = "bf16"
            try:
                yield
            finally:
                allowed.conv.fp32_precision, allowed.matmul.fp32_precision = before
        elif self.setting == "autocast":
            with self.library.autocast("cpu", dtype=self.library.bfloat16):
                yield
        else:
            yield

    def within(self, call: Call) -> Call:
        """The call within `settings`, which hold around many calls.

        But those of autocast around each, as in use: its casts of weights live as long as it does.
        """
        if not self.setting:
            return call
        inside = Within(call, self.settings)
        return inside.__call__ if self.setting == "autocast" else inside


def array_of(result: Any) -> np.ndarray:
    """A library's result; NumPy has no bfloat16."""
    if isinstance(result, np.ndarray):
        return result
    tensor = result.detach()
    return np.asarray((tensor.float() if "bfloat16" in str(tensor.dtype) else tensor).numpy())


class Norm(NamedTuple):
    """A batch normalisation in inference, by channel."""

    mean: np.ndarray
    var: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    eps: float = 1e-5


def load_peers(names: Sequence[str], algorithms: bool = False) -> list[Peer]:
    """Lamina and the named peers, all with Lamina's number of threads.

    Raises ValueError for a name that is not a peer's, ImportError for a package that is missing.
    """
    found = [Peer("lamina", lamina)]
    if algorithms:
        names_of = dict.fromkeys(kernel.algo for kernel in lamina.kernels("conv", backend="cpu"))
        found += [Peer(f"lamina.{algo}", lamina, "", (("algo", algo),)) for algo in names_of]
    for name in names:
        if name not in PEERS:
            raise ValueError(f"compare: peers are {', '.join(PEERS)}, got {name!r}")
        if name == "onnxruntime":
            import onnxruntime

            found.append(Peer(name, onnxruntime, onnxruntime.__version__))
            continue
        if name.startswith("lamina."):
            found.append(Peer(name, lamina))
            continue
        import torch

        torch.set_num_threads(lamina.get_num_threads())
        found.append(Peer(name, torch, torch.__version__))
    if any(name == "torch.default" for name in names):
        found.insert(1, Peer("lamina.default", lamina))
    return found


def conv_call(
    peer: Peer,
    layer: ConvLayer,
    pass_: str,
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    grad_y: np.ndarray,
) -> Call | None:
    """The pass as a call; None where the peer has none. "train" gives y and all gradients."""
    if peer.name == "onnxruntime":
        return _onnx_conv(peer.library, layer, x, weight) if pass_ == "fprop" else None
    if peer.name == "torch.channels_last" and layer.axes != 2:
        return None
    kind = "conv_transpose" if layer.transposed else "conv"
    if not _can_run(peer, layer, pass_, len(x)):
        return None
    function = getattr(peer.functional, f"{kind}{layer.axes}d")
    options: dict[str, Any] = {
        "stride": layer.each(layer.stride),
        "padding": layer.each(layer.padding),
        "dilation": layer.each(layer.dilation),
        "groups": layer.groups,
        **dict(peer.extra),
    }
    if layer.transposed:
        options["output_padding"] = layer.output_padding
    grad = peer.library.autograd.grad
    if pass_ == "fprop":
        fixed = peer.operand(x), peer.operand(weight), None
        return peer.within(lambda: function(*fixed, **options))
    seed = peer.operand(grad_y)
    if pass_ == "train":
        leaves = [peer.leaf(array) for array in (x, weight, bias)]

        def train() -> Any:
            y = function(*leaves, **options)
            return (y, *grad(y, leaves, _of_type(seed, y)))

        return peer.within(train)
    leaf = peer.leaf(x if pass_ == "dgrad" else weight)
    operands = (leaf, peer.operand(weight)) if pass_ == "dgrad" else (peer.operand(x), leaf)
    with peer.settings():
        for _ in range(2):  # the graph of a shape seen before, as in all steps but the first
            y = function(*operands, None, **options)
        seed = _of_type(seed, y)
    return peer.within(lambda: grad(y, leaf, seed, retain_graph=True)[0])


def fused_calls(
    peers: Sequence[Peer], layer: ConvLayer, x: np.ndarray, weight: np.ndarray, norm: Norm
) -> dict[str, Call]:
    """Inference of convolution, batch normalisation and ReLU.

    Lamina: one call, the normalisation folded into the weights. torch: its three calls, and
    "torch.folded": folded too, the ReLU in place.
    """
    scale = norm.weight / np.sqrt(norm.var + norm.eps)
    folded = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    bias = norm.bias - norm.mean * scale
    name = f"conv{layer.axes}d"
    options = {
        "stride": layer.each(layer.stride),
        "padding": layer.each(layer.padding),
        "dilation": layer.each(layer.dilation),
        "groups": layer.groups,
    }
    ours = getattr(F, name)
    calls: dict[str, Call] = {"lamina": lambda: ours(x, folded, bias, **options, activation="relu")}
    peer = next((peer for peer in peers if peer.name == "torch"), None)
    if peer is not None:
        theirs, of = getattr(peer.functional, name), peer.functional
        tx, tw, tf, tb = map(peer.operand, (x, weight, folded, bias))
        mean, var, gamma, beta = map(peer.operand, norm[:4])

        def three() -> Any:
            y = theirs(tx, tw, None, **options)
            return of.relu(of.batch_norm(y, mean, var, gamma, beta, False, 0.0, norm.eps))

        calls["torch"] = three
        calls["torch.folded"] = lambda: theirs(tx, tf, tb, **options).relu_()
    return calls


def _of_type(seed: Any, y: Any) -> Any:
    """A gradient in the type of its result, which torch's autocast chooses."""
    return seed if seed.dtype == y.dtype else seed.to(y.dtype)


def _can_run(peer: Peer, layer: ConvLayer, pass_: str, batch: int) -> bool:
    """Whether the kernel that `extra` names can run every pass."""
    algo = dict(peer.extra).get("algo")
    if algo is None:
        return True
    if layer.transposed:
        layer = layer.underlying
        pass_ = {"fprop": "dgrad", "dgrad": "fprop"}.get(pass_, pass_)
    shape = conv_shape(geometry_of("compare", layer), layer.x_shape(batch), layer.weight_shape)
    for part in ("fprop", "dgrad", "wgrad") if pass_ == "train" else (pass_,):
        try:
            _C.conv_plan("compare", part, shape, algo)
        except ValueError:
            return False
    return True


def _onnx_conv(onnxruntime: Any, layer: ConvLayer, x: np.ndarray, weight: np.ndarray) -> Call:
    """A model of one node; its weights are known when it is made, so it may pack them."""
    from onnx import TensorProto, helper, numpy_helper

    pads = layer.each(layer.padding)
    attributes: dict[str, Any] = {
        "strides": layer.each(layer.stride),
        "pads": pads * 2,
        "dilations": layer.each(layer.dilation),
        "group": layer.groups,
    }
    if layer.transposed:
        attributes["output_padding"] = layer.each(layer.output_padding)
    shapes = {"x": x.shape, "y": layer.y_shape(len(x))}
    kind = "ConvTranspose" if layer.transposed else "Conv"
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", "weight"], ["y"], **attributes)],
        layer.name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shapes["x"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shapes["y"])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = lamina.get_num_threads()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(["y"], {"x": x})[0]
