"""What a Tensor is: creation, conversion, writes, layouts, and errors of its operations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lamina
import numpy as np
import pytest
from lamina import Tensor

ROOT = Path(lamina.__file__).parents[1]
NET = lamina.nn.Linear(2, 1)


def test_creation():
    assert lamina.zeros(2, 3).shape == (2, 3) and lamina.ones((2,)).dtype == np.float32
    assert lamina.full((2,), 3).dtype == np.int64 and lamina.full((), 0.5).item() == 0.5
    assert lamina.arange(2, 8, 2).tolist() == [2, 4, 6] and lamina.arange(2.5).dtype == np.float32
    assert lamina.eye(2, 3).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert lamina.linspace(0, 1, 3).tolist() == [0, 0.5, 1]
    x = lamina.zeros(2, dtype="float64", requires_grad=True)
    assert x.requires_grad and lamina.ones_like(x).dtype == np.float64
    assert lamina.zeros_like(x, dtype=np.int64).tolist() == [0, 0]
    assert lamina.full_like(x, 2).tolist() == [2, 2] and lamina.empty(0, 3).shape == (0, 3)


def test_tensor_copies_and_Tensor_shares():
    x = np.ones(2, np.float32)
    copy, shared = lamina.tensor(x), Tensor(x)
    x[0] = 5
    assert copy.tolist() == [1, 1] and shared.tolist() == [5, 1]
    assert lamina.tensor([lamina.tensor(1.0), 2.0]).tolist() == [1, 2]
    assert lamina.tensor([1, 2]).dtype == np.int64 and lamina.tensor([True]).dtype == bool


def test_conversion():
    x = lamina.tensor([1.5, -2.0])
    assert x.to("cpu") is x and x.float() is x and x.cpu() is x and x.device == "cpu"
    assert x.long().tolist() == [1, -2] and x.to(x.double()).dtype == np.float64
    assert x.to(dtype="float64", device="cpu").dtype == np.float64 and x.to(copy=True) is not x
    assert np.asarray(x) is x.data and np.array(x, dtype=np.float64).dtype == np.float64
    assert float(x[0]) == 1.5 and int(x[1]) == -2 and bool(x[0]) and x.numel() == 2
    assert [1, 2, 3][lamina.tensor(1)] == 2 and [y.item() for y in x] == [1.5, -2]
    assert x.size() == (2,) and x.size(0) == 2 and x.dim() == 1 and len(x) == 2


def test_dlpack():
    x = np.arange(3, dtype=np.float32)
    y = lamina.from_dlpack(x)
    assert np.shares_memory(y.data, x) and np.shares_memory(np.from_dlpack(y), x)


@pytest.mark.torch
def test_dlpack_with_torch():
    torch = pytest.importorskip("torch")
    x = lamina.from_dlpack(torch.arange(3.0))
    assert torch.from_dlpack(x.clone()).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "x, expected",
    [
        (lambda: lamina.tensor([1.0, 2.5]), "tensor([1. , 2.5])"),
        (lambda: lamina.tensor(3), "tensor(3)"),
        (lambda: lamina.tensor([1.0], dtype="float64"), "tensor([1.], dtype=float64)"),
        (lambda: lamina.tensor([1.0], requires_grad=True), "tensor([1.], requires_grad=True)"),
        (
            lambda: lamina.tensor([1.0], requires_grad=True) + 1,
            "tensor([2.], grad_fn=<AddBackward>)",
        ),
        (lambda: lamina.zeros(0, 3), "tensor([], size=(0, 3))"),
    ],
)
def test_repr(x, expected):
    assert repr(x()) == expected


def test_format():
    loss = lamina.tensor(1.25, requires_grad=True)
    assert f"{loss:.1f} {loss * 2:5.2f} {loss}" == "1.2  2.50 1.25"
    assert f"{lamina.tensor([1.0])}" == "tensor([1.])"
    with pytest.raises(TypeError, match="unsupported format"):
        f"{lamina.tensor([1.0]):.1f}"


def test_writes():
    x = lamina.zeros(2, 3)
    x[0, 1:] = lamina.tensor([1, 2])
    x[x == 0] = -1.0
    assert x.tolist() == [[-1, 1, 2], [-1, -1, -1]]
    assert x.copy_(lamina.arange(3)) is x and x[1].tolist() == [0, 1, 2]
    assert x.fill_(2).zero_().sum().item() == 0


def test_layouts_and_read_only():
    base = np.arange(24.0).reshape(4, 6)
    base.setflags(write=False)
    for x in (base, base[::-1, ::2], np.asfortranarray(base), base.T, base.astype(">f8")):
        np.testing.assert_array_equal((Tensor(x) * 2).sum(0).numpy(), (np.array(x) * 2).sum(0))
    with pytest.raises(ValueError, match="zero_: .*read-only"):
        Tensor(base).zero_()


def test_import_is_quick_and_clean():
    code = (
        "import sys, lamina; lamina.tensor([1.0]) + 1; "
        "heavy = {'cupy', 'torch', 'sklearn', 'matplotlib', 'lamina.nn', 'lamina.functional'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT)})


@pytest.mark.parametrize(
    "owner, typo, name", [(lamina, "tensro", "tensor"), (NET, "wieght", "weight")]
)
def test_python_can_suggest_a_name(owner, typo, name):
    """It looks among dir(obj) for one like `name`."""
    with pytest.raises(AttributeError) as caught:
        getattr(owner, typo)
    assert caught.value.obj is owner and caught.value.name == typo and name in dir(owner)


X = lamina.tensor([[1.0, 2, 3], [4, 5, 6]])
BAD = [
    (lambda: Tensor("text"), TypeError, "Tensor: dtype must be"),
    (lambda: Tensor(np.ones(2, np.float16)), TypeError, r"float16.*\.astype\('float32'\)"),
    (lambda: Tensor(np.ones(2, complex)), TypeError, "two float32 arrays"),
    (lambda: Tensor([None]), TypeError, "got dtype=object"),
    (lambda: Tensor([[1, 2], [3]]), ValueError, "must be rectangular"),
    (lambda: Tensor(np.ma.array([1.0], mask=[True])), TypeError, "MaskedArray"),
    (lambda: lamina.tensor([1.0], dtype="no"), TypeError, "tensor: dtype must name"),
    (lambda: lamina.tensor([1.0], device="tpu"), ValueError, "device must be 'cpu' or 'cuda"),
    (lambda: X.to("cuda:x"), ValueError, "to: device must be"),
    (lambda: X.to("float16"), TypeError, "to: .*float16"),
    (lambda: X + lamina.zeros(2), ValueError, r"add: shapes must broadcast, got a.shape=\(2, 3\)"),
    (lambda: X * "2", TypeError, "mul: b must be a Tensor, an array or a number.*str"),
    (lambda: X + None, TypeError, "add: .*NoneType"),
    (lambda: X + 1j, TypeError, "add: .*complex"),
    (lambda: X @ X, ValueError, r"matmul: .*a.shape=\(2, 3\), b.shape=\(2, 3\)"),
    (lambda: X @ 2, ValueError, "matmul: .*use .*"),
    (lambda: X @ lamina.tensor(1.0), ValueError, "matmul: .*must have a dimension"),
    (lambda: -(X > 1), TypeError, "neg: .*use ~x"),
    (lambda: (X > 1) - (X > 1), TypeError, "sub: .*boolean"),
    (lambda: X.reshape(4, -1), ValueError, "reshape: shape must hold 6 elements"),
    (lambda: X.reshape(-1, -1), ValueError, "at most one size may be -1"),
    (lambda: X.reshape(2.0, 3), TypeError, "reshape: sizes must be integers"),
    (lambda: lamina.reshape([1, 2], 2), TypeError, "reshape: x must be a Tensor.*list"),
    (lambda: lamina.flatten(3), TypeError, "flatten: x must be a Tensor.*int"),
    (lambda: X.permute(0, 0), ValueError, "permute: dims must name each"),
    (lambda: X.transpose(0, 2), ValueError, "transpose: dim must be from -2 to 1, got dim=2"),
    (lambda: X.flatten(1, 0), ValueError, "flatten: start_dim"),
    (lambda: X.expand(2, 4), ValueError, "expand: .*only sizes of one"),
    (lambda: X.movedim((0, 1), 0), ValueError, "movedim: "),
    (lambda: X.sum(5), ValueError, "sum: dim must be"),
    (lambda: X.sum((0, 0)), ValueError, "sum: dim must name each"),
    (lambda: X.sum(1.5), TypeError, "sum: dim must be an integer"),
    (lambda: lamina.sum([1, 2]), TypeError, "sum: x must be"),
    (lambda: X.long().mean(), TypeError, "mean: x must be floating"),
    (lambda: lamina.zeros(0).max(), ValueError, "amax: x must have an element"),
    (lambda: lamina.zeros(2, 0).max(1), ValueError, "max: x must have an element"),
    (lambda: lamina.zeros(0).argmin(), ValueError, "argmin: x must have an element"),
    (lambda: X.norm("nuc"), ValueError, "norm: p must be"),
    (lambda: X.clamp(), ValueError, "clamp: min or max"),
    (lambda: lamina.where(X, X, X), TypeError, "where: condition must be boolean"),
    (lambda: X[2], IndexError, "getitem: .*out of bounds"),
    (lambda: X[0, 0, 0], IndexError, "getitem: "),
    (lambda: X[1.0], TypeError, "getitem: index must be integers"),
    (lambda: X[X], TypeError, "getitem: index arrays must be integers or booleans"),
    (lambda: X["a"], TypeError, "getitem: "),
    (lambda: X[::0], ValueError, "step must not be 0"),
    (lambda: X.gather(1, lamina.tensor([[3], [0]])), ValueError, "gather: index must be from 0"),
    (lambda: X.gather(1, lamina.tensor([0])), ValueError, "gather: index must have"),
    (lambda: X.split(0), ValueError, "split: split_size must be at least 1"),
    (lambda: X.split([1, 2]), ValueError, "split: sections must add up"),
    (lambda: X.chunk(0), ValueError, "chunk: "),
    (lambda: X.narrow(0, 1, 2), ValueError, "narrow: "),
    (lambda: lamina.cat([]), ValueError, "cat: tensors must not be empty"),
    (lambda: lamina.cat(X), TypeError, "cat: tensors must be a list"),
    (lambda: lamina.cat([X, X.T]), ValueError, r"cat: .*tensors\[1\].shape=\(3, 2\)"),
    (lambda: lamina.cat([X, 1.0]), TypeError, r"cat: tensors\[1\]"),
    (lambda: lamina.stack([X, X.T]), ValueError, "stack: tensors must have one shape"),
    (lambda: X.copy_(lamina.zeros(4)), ValueError, "copy_: source must broadcast"),
    (lambda: X.item(), ValueError, "item: the tensor must have one element"),
    (lambda: bool(X), ValueError, "bool: "),
    (lambda: [1][lamina.tensor(0.0)], TypeError, "index: only one integer"),
    (lambda: len(lamina.tensor(1)), TypeError, "len: "),
    (lambda: lamina.from_dlpack([1]), TypeError, "from_dlpack: obj must have __dlpack__"),
    (lambda: lamina.zeros(-1), ValueError, "zeros: .*negative size"),
    (lambda: lamina.zeros(2**40, 2**40), ValueError, "zeros: .*fewer than 2"),
    (lambda: lamina.zeros(2**45), MemoryError, "zeros: the result needs"),
    (lambda: lamina.zeros(2, dtype="complex64"), TypeError, "zeros: dtype must be"),
    (lambda: lamina.arange(0, 1, 0), ValueError, "arange: "),
    (lambda: lamina.full((2,), "x"), TypeError, "full: fill_value"),
    (lambda: lamina.eye(2.5), TypeError, "eye: sizes must be integers"),
    (lambda: lamina.nothing, AttributeError, "has no attribute 'nothing'"),
]


@pytest.mark.parametrize("call, error, message", BAD, ids=range(len(BAD)))
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
