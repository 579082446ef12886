"""
Lamina's compiled kernels. Use lamina.functional instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

NDArray = np.ndarray[Any, Any]

class Call:
    """
    A checked call without its operands
    """

class ConvShape:
    def __init__(
        self,
        n: int,
        c: int,
        k: int,
        groups: int,
        in_size: Sequence[int],
        kernel: Sequence[int],
        out_size: Sequence[int],
        stride: Sequence[int],
        pad: Sequence[int],
        dilation: Sequence[int],
    ) -> None: ...
    @property
    def macs(self) -> int: ...
    @property
    def resulting_in_input(self) -> ConvShape:
        """
        For bgrad of the transposed convolution
        """

class Windows:
    def __init__(
        self,
        in_size: int,
        step: int,
        start: NDArray,
        count: NDArray,
        divisor: NDArray,
        first: NDArray,
        last: NDArray,
    ) -> None: ...

class Taps:
    def __init__(self, in_size: int, begin: NDArray, index: NDArray, weight: NDArray) -> None: ...
    def resample(self, outer: int, inner: int, x: NDArray, result: NDArray) -> None: ...
    def resample_planes(self, columns: Taps, outer: int, x: NDArray, result: NDArray) -> None: ...
    @property
    def in_size(self) -> int: ...
    @property
    def out_size(self) -> int: ...

def activation(
    kind: str, a: float, b: float, x: NDArray, grad_y: NDArray | None, result: NDArray
) -> None: ...
def activation_call(shape: Sequence[int], kind: str, a: float, b: float) -> Call:
    """
    operands: x
    """

def activation_kinds() -> list[str]: ...
def apply(function: Any, *args: Any, **kwargs: Any) -> Any:
    """
    Function.apply of a subclass
    """

def autotuning() -> bool: ...
def backward(op: Any, tensors: tuple, gradients: tuple, inputs: Any, retain_graph: bool) -> Any:
    """
    Adds the gradients of the tensors, weighted by `gradients`, to the .grad of every leaf; with
    `inputs` no .grad changes: the result has their gradients, None where none arrived
    """

def bag_call(shape: Sequence[int], rows: int, mean: bool, left_out: int) -> Call:
    """
    operands: weight, indices, offsets or None
    """

def batch_norm(
    x: NDArray,
    weight: NDArray | None,
    bias: NDArray | None,
    mean: NDArray,
    var: NDArray,
    grad_y: NDArray | None,
    result: NDArray,
    grad_weight: NDArray | None,
    grad_bias: NDArray | None,
    n: int,
    c: int,
    inner: int,
    training: bool,
    eps: float,
    activation: tuple[str, float, float] = ("identity", 0.0, 0.0),
    residual: NDArray | None = None,
    y: NDArray | None = None,
    grad_residual: NDArray | None = None,
) -> None: ...
def batch_norm_call(
    shape: Sequence[int],
    n: int,
    c: int,
    inner: int,
    training: bool,
    momentum: float,
    eps: float,
    activation: tuple[str, float, float],
    y_tells: bool,
) -> Call:
    """
    operands: x, weight, bias, running mean, running var, residual; y_tells: the
    activation's derivative follows from y
    """

def bf16_unit() -> str:
    """
    What multiplies bfloat16: 'amx', 'amx-model', 'avx512-bf16' or nothing
    """

def binary_call(shape: Sequence[int], op: str, a: Sequence[int], b: Sequence[int]) -> Call:
    """
    operands: a, b; op: NumPy's name of an arithmetic operation or comparison
    """

def calls(operands: int, function: Any, numbers: bool, layouts: str) -> tuple: ...
def cast_call(shape: Sequence[int], to_float: bool, to_double: bool) -> Call:
    """
    operands: x of float32, float64, int64 or booleans; no integers from floats
    """

def clamp_call(shape: Sequence[int]) -> Call:
    """
    operands: x, min, max
    """

def clone_call(shape: Sequence[int]) -> Call:
    """
    operands: x
    """

def compiled_isas() -> list[str]: ...
def conv(
    op: str,
    pass_: str,
    shape: ConvShape,
    x: NDArray | None,
    weight: NDArray | None,
    bias: NDArray | None,
    grad_y: NDArray | None,
    result: NDArray,
    algo: str = "auto",
    workspace_limit: int = -1,
    activation: tuple[str, float, float] = ("identity", 0.0, 0.0),
    residual: NDArray | None = None,
) -> None: ...
def conv_call(
    y_shape: Sequence[int],
    op: str,
    transposed: bool,
    shape: ConvShape,
    algo: str,
    workspace_limit: int,
    activation: tuple[str, float, float],
    y_tells: bool,
) -> Call:
    """
    operands: x, weight, bias, residual; y_tells: the activation's derivative follows from y
    """

def conv_candidates(pass_: str, shape: ConvShape, element_bytes: int = 4) -> list[str]:
    """
    The algorithms that auto may take, the cheapest first
    """

def conv_cost(algo: str, pass_: str, shape: ConvShape) -> float: ...
def conv_plan(
    op: str,
    pass_: str,
    shape: ConvShape,
    algo: str = "auto",
    workspace_limit: int = -1,
    element_bytes: int = 4,
) -> None:
    """
    Chooses without running; the choice and the refusals are in last_plan()
    """

def cross_entropy(
    x: NDArray,
    target: NDArray,
    weight: NDArray | None,
    grad_loss: NDArray | None,
    result: NDArray,
    n: int,
    c: int,
    inner: int,
    ignore_index: int,
    label_smoothing: float,
    bad: NDArray,
) -> None: ...
def cross_entropy_call(
    shape: Sequence[int],
    n: int,
    c: int,
    inner: int,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
) -> Call:
    """
    operands: x, target, weight
    """

def ctc(
    log_p: NDArray,
    labels: NDArray,
    ends: NDArray,
    lengths: NDArray,
    c: int,
    blank: int,
    grad_y: NDArray | None,
    result: NDArray,
) -> None:
    """
    The losses or, with grad_y, the gradient
    """

def cumsum(x: NDArray, y: NDArray, outer: int, n: int, inner: int, reversed: bool) -> None:
    """
    Running sums along n of x [outer, n, inner]
    """

def cumsum_call(shape: Sequence[int], outer: int, n: int, inner: int) -> Call:
    """
    operands: x
    """

def current_backend() -> str: ...
def dropout(
    x: NDArray,
    result: NDArray,
    rows: int,
    inner: int,
    seed: int,
    offset: int,
    threshold: int,
    scale: float,
    shift: float,
    dropped: float,
) -> None: ...
def elementwise(name: str, a: NDArray, b: NDArray | None, y: NDArray) -> None:
    """
    y = the function of a kernel
    """

def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """
    A new array, its memory recycled; None for what lamina.arrays.empty has to look at
    """

def extreme(
    smallest: bool,
    x: NDArray,
    y: NDArray | None,
    indices: NDArray | None,
    shape: Sequence[int],
    reduced: Sequence[bool],
) -> None:
    """
    y, the first indices, or both; indices of adjacent axes only
    """

def extreme_call(
    shape: Sequence[int], op: str, x_shape: Sequence[int], reduced: Sequence[bool]
) -> Call:
    """
    operands: x
    """

def extreme_gradient(
    x: NDArray | None,
    y: NDArray | None,
    indices: NDArray | None,
    grad_y: NDArray,
    grad_x: NDArray,
    shape: Sequence[int],
    reduced: Sequence[bool],
) -> None:
    """
    From x and y, or from indices
    """

def float32_precision() -> str: ...
def forget_measured_conv() -> None: ...
def gather_call(shape: Sequence[int], x_shape: Sequence[int], axis: int) -> Call:
    """
    operands: x, indices along the axis
    """

def gemm(
    a: NDArray,
    b: NDArray,
    c: NDArray,
    bias_n: NDArray | None,
    batch: int,
    m: int,
    n: int,
    k: int,
    trans_a: bool,
    trans_b: bool,
    accumulate: bool = False,
    activation: tuple[str, float, float] = ("identity", 0.0, 0.0),
    residual: NDArray | None = None,
) -> None: ...
def glu(x: NDArray, grad_y: NDArray | None, result: NDArray, outer: int, inner: int) -> None: ...
def glu_call(shape: Sequence[int], outer: int, inner: int) -> Call:
    """
    operands: x
    """

def grad_enabled() -> bool: ...
def group_norm(
    x: NDArray,
    weight: NDArray | None,
    bias: NDArray | None,
    mean: NDArray,
    rstd: NDArray,
    grad_y: NDArray | None,
    result: NDArray,
    grad_weight: NDArray | None,
    grad_bias: NDArray | None,
    outer: int,
    groups: int,
    channels: int,
    inner: int,
    eps: float,
) -> None: ...
def group_norm_call(
    shape: Sequence[int], outer: int, groups: int, channels: int, inner: int, eps: float
) -> Call:
    """
    operands: x, weight, bias
    """

def gru_cell_dgrad(
    n: int,
    hidden: int,
    h: NDArray,
    gates: NDArray,
    b: NDArray,
    grad_new_h: NDArray,
    grad_a: NDArray,
    grad_b: NDArray,
    grad_h: NDArray,
) -> None: ...
def gru_cell_fprop(
    n: int, hidden: int, h: NDArray, gates: NDArray, b: NDArray, new_h: NDArray
) -> None: ...
def holds_signs(t: NDArray) -> bool:
    """
    Whether all elements are 1 or -1
    """

def idle_bytes() -> int: ...
def idle_limit() -> int: ...
def im2col(pass_: str, shape: ConvShape, source: NDArray, result: NDArray) -> None: ...
def in_c_order(x: NDArray) -> Any:
    """
    A copy of an array of float32, float64, int64 or booleans in any strides
    """

def in_runs(shape: Sequence[int], reduced: Sequence[bool]) -> bool:
    """
    Whether the reduced axes form at most two runs that the kernels take
    """

def integer_sum_call(shape: Sequence[int], x_shape: Sequence[int], reduced: Sequence[bool]) -> Call:
    """
    operands: x, of int64 or booleans
    """

def is_ready(x: Any) -> bool:
    """
    Whether kernels read x as it is: float32 or float64 of NumPy, aligned, in C order
    """

def isa() -> str: ...
def join_call(shape: Sequence[int], parts: Sequence[int], item_bytes: int) -> Call:
    """
    operands: the arrays; parts: how many elements of each are in a row of the result
    """

def kernels() -> list:
    """
    (backend, op, pass, algo) of every registered kernel
    """

def last_plan() -> dict: ...
def linear_call(
    y_shape: Sequence[int],
    m: int,
    n: int,
    k: int,
    activation: tuple[str, float, float],
    y_tells: bool,
) -> Call:
    """
    operands: x [m, k], weight [n, k], bias, residual; y_tells as conv_call
    """

def local_response_norm(
    slabs: int,
    size: Sequence[int],
    window: Sequence[int],
    alpha: float,
    beta: float,
    k: float,
    x: NDArray,
    grad_y: NDArray | None,
    result: NDArray,
) -> None: ...
def loss(
    kind: str,
    a: float,
    b: float,
    reduction: str,
    x: NDArray,
    t: NDArray,
    grad_y: NDArray | None,
    of_target: bool,
    result: NDArray,
) -> None:
    """
    The loss, or with grad_y the gradient of x or of t
    """

def loss_call(
    shape: Sequence[int], kind: str, a: float, b: float, reduction: str, size: int
) -> Call:
    """
    operands: x, t
    """

def lstm_cell_dgrad(
    n: int,
    hidden: int,
    coupled: bool,
    c: NDArray,
    peephole: NDArray | None,
    gates: NDArray,
    new_c: NDArray,
    grad_h: NDArray,
    grad_new_c: NDArray,
    grad_gates: NDArray,
    grad_c: NDArray,
    grad_peephole: NDArray | None,
) -> None: ...
def lstm_cell_fprop(
    n: int,
    hidden: int,
    coupled: bool,
    c: NDArray,
    peephole: NDArray | None,
    gates: NDArray,
    new_c: NDArray,
    h: NDArray,
) -> None: ...
def masked(x: NDArray, mask: NDArray) -> Any:
    """
    x[mask] of one shape: float32, float64, int64 or booleans
    """

def matmul(
    a: NDArray,
    b: NDArray,
    y: NDArray,
    a_shape: Sequence[int],
    b_shape: Sequence[int],
    a_swapped: bool,
    b_swapped: bool,
) -> None:
    """
    y = a @ b of those shapes; a and b are stored with their last two axes swapped where said
    """

def matmul_call(
    shape: Sequence[int],
    a_shape: Sequence[int],
    b_shape: Sequence[int],
    a_swapped: bool,
    b_swapped: bool,
) -> Call:
    """
    operands: a, b; else as matmul
    """

def matmul_shape(a: Sequence[int], b: Sequence[int], a_swapped: bool, b_swapped: bool) -> Any:
    """
    The shape of a @ b, or None where the kernels do not multiply these
    """

def max_unpool(
    pass_: str,
    planes: int,
    in_size: int,
    out_size: int,
    source: NDArray,
    index: NDArray,
    result: NDArray,
    bad: NDArray,
) -> None: ...
def multilabel_margin(
    x: NDArray, target: NDArray, grad_y: NDArray | None, result: NDArray, c: int, reduction: str
) -> None:
    """
    The loss or, with grad_y, the gradient
    """

def multilabel_margin_call(shape: Sequence[int], c: int, reduction: str) -> Call:
    """
    operands: x, target
    """

def negate_call(shape: Sequence[int]) -> Call:
    """
    operands: x
    """

def nll(
    x: NDArray | None,
    target: NDArray,
    weight: NDArray | None,
    grad_loss: NDArray | None,
    result: NDArray,
    n: int,
    c: int,
    inner: int,
    ignore_index: int,
) -> int:
    """
    Returns the first position whose target is no class, or -1
    """

def nll_call(
    shape: Sequence[int], n: int, c: int, inner: int, ignore_index: int, reduction: str
) -> Call:
    """
    operands: x, target, weight
    """

def nms(boxes: NDArray, threshold: float, keep: NDArray) -> None: ...
def note_measured_conv(question: str, times: Sequence[tuple[str, float]]) -> None: ...
def num_threads() -> int: ...
def one_hot_call(shape: Sequence[int]) -> Call:
    """
    operands: indices
    """

def optimizer_step(
    kind: str,
    param: NDArray,
    grad: NDArray,
    states: Sequence[NDArray],
    coefficients: Sequence[float],
    decay: float = 0.0,
    keep: float = 1.0,
) -> None: ...
def optimizer_steps(updates: Sequence[tuple]) -> list[int]:
    """
    Runs the updates whose arrays are ready; the indices of the others
    """

def packed_bytes() -> int: ...
def packed_limit() -> int: ...
def pad_call(
    shape: Sequence[int],
    x_shape: Sequence[int],
    pairs: Sequence[tuple[int, int]],
    mode: str,
    value: float,
) -> Call:
    """
    operands: x; pairs (before, after) of every axis
    """

def pdist(
    euclidean: bool,
    n: int,
    d: int,
    x: NDArray,
    y: NDArray | None,
    grad_y: NDArray | None,
    result: NDArray,
) -> None: ...
def pdist_call(shape: Sequence[int], euclidean: bool, n: int, d: int) -> Call:
    """
    operands: x [n, d]
    """

def permute(x: NDArray, shape: Sequence[int], axes: Sequence[int], result: NDArray) -> None: ...
def permute_call(shape: Sequence[int], x_shape: Sequence[int], axes: Sequence[int]) -> Call:
    """
    operands: x, seen as `x_shape`
    """

def pool(
    op: str,
    pass_: str,
    planes: int,
    depth: Windows,
    height: Windows,
    width: Windows,
    x: NDArray | None,
    grad_y: NDArray | None,
    index: NDArray | None,
    result: NDArray,
) -> None: ...
def pool_call(
    shape: Sequence[int], op: str, planes: int, depth: Windows, height: Windows, width: Windows
) -> Call:
    """
    operands: x
    """

def prelu(
    pass_: str,
    x: NDArray,
    weight: NDArray,
    grad_y: NDArray | None,
    result: NDArray,
    n: int,
    c: int,
    inner: int,
) -> None: ...
def prelu_gradients(
    x: NDArray,
    weight: NDArray,
    grad_y: NDArray,
    grad_x: NDArray,
    grad_weight: NDArray,
    n: int,
    c: int,
    inner: int,
) -> None: ...
def probability_call(
    shape: Sequence[int], n: int, c: int, inner: int, smoothing: float, reduction: str
) -> Call:
    """
    operands: x, target, weight
    """

def probability_gradient(
    q: NDArray,
    weight: NDArray | None,
    log_p: NDArray,
    grad_y: NDArray,
    of_target: bool,
    result: NDArray,
    n: int,
    c: int,
    inner: int,
    smoothing: float,
    reduction: str,
) -> None:
    """
    Of x, or of the target
    """

def probability_loss(
    q: NDArray,
    weight: NDArray | None,
    log_p: NDArray,
    result: NDArray,
    n: int,
    c: int,
    inner: int,
    smoothing: float,
    reduction: str,
) -> None: ...
def reduce(
    kind: str,
    x: NDArray,
    y: NDArray,
    centre: NDArray | None,
    shape: Sequence[int],
    reduced: Sequence[bool],
    divisor: float,
) -> None:
    """
    y of x [shape] over the reduced axes, which are in_runs
    """

def reduce_call(
    shape: Sequence[int], kind: str, x_shape: Sequence[int], reduced: Sequence[bool], divisor: float
) -> Call:
    """
    operands: x
    """

def reduce_gradient(
    kind: str,
    x: NDArray | None,
    y: NDArray | None,
    centre: NDArray | None,
    grad_y: NDArray,
    grad_x: NDArray,
    shape: Sequence[int],
    reduced: Sequence[bool],
    divisor: float,
) -> None: ...
def reduce_loss(
    loss: NDArray,
    target: NDArray,
    weight: NDArray | None,
    ignore_index: int,
    mean: bool,
    total: NDArray,
    divisor: NDArray,
) -> None: ...
def register_backend(arg0: Any) -> None: ...
def rms_norm(
    x: NDArray,
    weight: NDArray | None,
    rstd: NDArray,
    grad_y: NDArray | None,
    result: NDArray,
    grad_weight: NDArray | None,
    outer: int,
    channels: int,
    eps: float,
) -> None: ...
def rms_norm_call(shape: Sequence[int], outer: int, channels: int, eps: float) -> Call:
    """
    operands: x, weight
    """

def roi(
    op: str,
    pass_: str,
    x_shape: Sequence[int],
    bins: Sequence[int],
    scale: float,
    sampling_ratio: int,
    aligned: bool,
    rois: NDArray,
    source: NDArray,
    result: NDArray,
    index: NDArray | None,
    bad: NDArray,
) -> None: ...
def row_distance(
    kind: str,
    p: float,
    eps: float,
    rows: int,
    d: int,
    a: NDArray,
    b: NDArray,
    y: NDArray,
    squares: NDArray | None,
) -> None:
    """
    kind: of csrc/ops/distance.h
    """

def row_distance_call(
    shape: Sequence[int], kind: str, p: float, eps: float, rows: int, d: int
) -> Call:
    """
    operands: a, b
    """

def row_distance_gradients(
    kind: str,
    p: float,
    eps: float,
    rows: int,
    d: int,
    a: NDArray,
    b: NDArray,
    y: NDArray | None,
    squares: NDArray | None,
    grad_y: NDArray,
    grad_a: NDArray | None,
    grad_b: NDArray | None,
) -> None: ...
def set_autotuning(on: bool, callback: Any = None) -> None:
    """
    callback(question, [(algorithm, seconds), ...]) or None is called after a measurement
    """

def set_current_backend(name: str) -> None: ...
def set_float32_precision(precision: str) -> None: ...
def set_grad_enabled(enabled: bool) -> None: ...
def set_graph(autograd: Any) -> None: ...
def set_idle_limit(bytes: int) -> None: ...
def set_num_threads(count: int) -> None: ...
def set_packed_limit(bytes: int) -> None: ...
def softmax(
    outer: int,
    axis: int,
    inner: int,
    log: bool,
    source: NDArray,
    grad_y: NDArray | None,
    result: NDArray,
) -> None: ...
def softmax_call(shape: Sequence[int], outer: int, axis: int, inner: int, log: bool) -> Call:
    """
    operands: x
    """

def sum_rows(x: NDArray, sums: NDArray) -> None:
    """
    sums [n] of x [m, n] over its rows, in order
    """

def take_call(
    shape: Sequence[int],
    x_shape: Sequence[int],
    outer: int,
    indexed: int,
    from_end: bool,
    left_out: int,
) -> Call:
    """
    operands: x, indices of one shape for as many of its axes as are `indexed`, after
    `outer` others
    """

def unary_call(shape: Sequence[int], name: str) -> Call:
    """
    operands: x
    """

def view(name: str, function: Any) -> Any:
    """
    A function of an array or Tensor, recorded as `function`; None: Python must look at it
    """

def where_call(
    shape: Sequence[int], condition: Sequence[int], a: Sequence[int], b: Sequence[int]
) -> Call:
    """
    operands: condition, a, b
    """
