"""save and load: named arrays come back bit for bit, and nothing is lost when writing fails."""

from __future__ import annotations

import json

import lamina
import numpy as np
import pytest
from lamina import nn
from numpy.testing import assert_array_equal


def test_round_trip(tmp_path):
    state = {
        "float": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "double": lamina.tensor([[1.5, -2.0]], dtype=np.float64),
        "int": np.array(7),
        "empty": np.zeros((0, 3), np.float32),
        "swapped": np.arange(3, dtype=">f4"),
        "bool": np.array([True, False]),
    }
    path = tmp_path / "state.safetensors"
    lamina.save(state, path)
    loaded = lamina.load(path)
    assert set(loaded) == set(state)
    for name, value in state.items():
        array = value.data if isinstance(value, lamina.Tensor) else value
        assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype.newbyteorder("=")
    assert list(tmp_path.iterdir()) == [path]


def test_module_and_optimiser_state(tmp_path):
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(4, 5))
    lamina.save(network.state_dict(), tmp_path / "net")
    other = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(4, 5))
    other.load_state_dict(lamina.load(tmp_path / "net"))
    for name, array in network.state_dict().items():
        assert_array_equal(other.state_dict()[name], array)


def test_loaded_arrays_are_ones_own(tmp_path):
    lamina.save({"a": np.ones(3), "b": np.zeros((2, 0))}, tmp_path / "x")
    loaded = lamina.load(tmp_path / "x")
    loaded["a"] += 1
    assert_array_equal(loaded["a"], np.full(3, 2.0))
    assert loaded["b"].shape == (2, 0)
    assert lamina.load(tmp_path / "x")["a"].sum() == 3


def test_metadata(tmp_path):
    path = tmp_path / "x"
    metadata = {"epoch": "12", "f\u00fcr": "\u03b1"}
    lamina.save({"a": np.ones(3)}, str(path), metadata=metadata)
    assert lamina.load_metadata(path) == metadata
    assert list(lamina.load(path)) == ["a"]
    lamina.save({}, path)
    assert lamina.load_metadata(path) == {}
    assert lamina.load(path) == {}


@pytest.mark.parametrize("place", ["os.fsync", "os.replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, place, error):
    path = tmp_path / "state"
    lamina.save({"a": np.ones(3)}, path)
    before = path.read_bytes()

    def refuse(*_):
        raise error

    monkeypatch.setattr(place, refuse)
    with pytest.raises(type(error)):
        lamina.save({"a": np.zeros(3)}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_files_have_the_usual_permissions_and_links_stay(tmp_path):
    plain, link = tmp_path / "plain", tmp_path / "link"
    plain.write_bytes(b"")
    link.symlink_to(plain)
    lamina.save({"a": np.ones(3)}, link)
    assert link.is_symlink()
    assert_array_equal(lamina.load(plain)["a"], np.ones(3))
    lamina.save({"a": np.ones(3)}, tmp_path / "new")
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_sixteen_bit_floats_and_unknown_dtypes(tmp_path):
    def write(dtype, data):
        header = {"x": {"dtype": dtype, "shape": [len(data) // 2], "data_offsets": [0, len(data)]}}
        text = json.dumps(header).encode()
        path = tmp_path / dtype
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)
        return path

    values = np.array([1.0, -2.5, 3e38, np.inf], np.float32)  # 3e38 is cut, the others exact
    upper = (values.view(np.uint32) >> 16).astype("<u2")
    loaded = lamina.load(write("BF16", upper.tobytes()))["x"]
    assert loaded.dtype == np.float32
    assert_array_equal(loaded, (upper.astype(np.uint32) << 16).view(np.float32))
    half = np.array([1.0, -2.5], np.float16)
    assert_array_equal(lamina.load(write("F16", half.tobytes()))["x"], half)
    path = write("F4", b"")
    with pytest.raises(ValueError, match="load: "):
        lamina.load(path)


@pytest.mark.torch
def test_torchs_files_load_unchanged(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    theirs = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    save_file(theirs.state_dict(), tmp_path / "torch.safetensors")
    ours = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    ours.load_state_dict(lamina.load(tmp_path / "torch.safetensors"))
    x = np.random.default_rng(0).normal(size=(2, 2, 5, 5)).astype(np.float32)
    expected = theirs.eval()(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(ours.eval()(lamina.Tensor(x)).data, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.torch
def test_torch_reads_ours(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    lamina.save({"a": x.T, "b": lamina.Tensor(x[::2])}, tmp_path / "x")
    loaded = load_file(tmp_path / "x")
    assert_array_equal(loaded["a"].numpy(), x.T)
    assert_array_equal(loaded["b"].numpy(), x[::2])
    save_file({"a": torch.tensor(x).bfloat16()}, tmp_path / "y")
    expected = torch.tensor(x).bfloat16().float().numpy()
    assert_array_equal(lamina.load(tmp_path / "y")["a"], expected)


ONES = {"a": np.ones(3)}
BAD = [
    (lambda d: lamina.save([np.ones(3)], d / "x"), TypeError, "state must map names"),
    (lambda d: lamina.save(np.ones(3), d / "x"), TypeError, "got ndarray; use module.state_dict()"),
    (lambda d: lamina.save({1: np.ones(3)}, d / "x"), TypeError, "names must be strings, got 1"),
    (lambda d: lamina.save({"__metadata__": np.ones(3)}, d / "x"), ValueError, "use metadata="),
    (lambda d: lamina.save({"a": [1.0]}, d / "x"), TypeError, "a must be a Tensor or an array"),
    (lambda d: lamina.save({"a": None}, d / "x"), TypeError, "a must be a Tensor or an array"),
    (lambda d: lamina.save({"a": {}}, d / "x"), TypeError, "got dict; save nested states one by"),
    (lambda d: lamina.save({"a": np.array("x")}, d / "x"), TypeError, "a must hold real numbers"),
    (lambda d: lamina.save({"a": np.array([{}])}, d / "x"), TypeError, "got a.dtype=object"),
    (lambda d: lamina.save({"a": np.ones(2) * 1j}, d / "x"), TypeError, "got a.dtype=complex128"),
    (lambda d: lamina.save(ONES, d / "x", {"epoch": 3}), TypeError, "metadata must map strings to"),
    (lambda d: lamina.save(ONES, d / "x", "epoch"), TypeError, "metadata must map strings to"),
    (lambda d: lamina.save(ONES, 3), TypeError, "save: path must be a string or a path, got int"),
    (
        lambda d: lamina.save(ONES, d / "no" / "x"),
        FileNotFoundError,
        "that can be written (No such",
    ),
    (lambda d: lamina.save(ONES, d), OSError, "save: path must name a file that can be written"),
    (lambda d: lamina.load(d / "missing"), FileNotFoundError, "load: path must name an existing"),
    (lambda d: lamina.load_metadata(d / "missing"), FileNotFoundError, "missing"),
    (lambda d: lamina.load(d), OSError, ""),
    (lambda d: lamina.load(None), TypeError, "load: path must be a string or a path"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=range(len(BAD)))
def test_bad_input(call, error, text, tmp_path):
    with pytest.raises(error) as caught:
        call(tmp_path)
    assert text in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("read", [lamina.load, lamina.load_metadata])
@pytest.mark.parametrize("keep", [0, 4, 50, -1])
def test_damaged_file(tmp_path, keep, read):
    path = tmp_path / "state"
    lamina.save({"a": np.arange(30.0)}, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="load: path must name a whole safetensors file, got path"):
        read(path)


def test_any_damaged_byte_is_a_value_error_or_other_values(tmp_path):
    path = tmp_path / "state"
    lamina.save({"a": np.arange(3.0), "b": np.arange(4)}, path, {"c": "d"})
    whole = path.read_bytes()
    source = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[source.integers(len(whole))] = source.integers(256)
        path.write_bytes(damaged)
        try:
            lamina.load(path)
        except ValueError as error:
            assert str(error).startswith("load: ")
