"""save and load: named arrays come back bit for bit, and nothing is lost when writing fails."""

from __future__ import annotations

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


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "state"
    lamina.save({"a": np.ones(3)}, path)
    before = path.read_bytes()

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        lamina.save({"a": np.zeros(3)}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


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


BAD = [
    (lambda d: lamina.save([np.ones(3)], d / "x"), TypeError, "state must map names"),
    (lambda d: lamina.save({1: np.ones(3)}, d / "x"), TypeError, "names must be strings"),
    (lambda d: lamina.save({"a": [1.0]}, d / "x"), TypeError, "a must be a Tensor or an array"),
    (lambda d: lamina.save({"a": None}, d / "x"), TypeError, "a must be a Tensor or an array"),
    (lambda d: lamina.save({"a": np.ones(3)}, d / "no" / "x"), FileNotFoundError, ""),
    (lambda d: lamina.load(d / "missing"), FileNotFoundError, "missing"),
    (lambda d: lamina.load(d), OSError, ""),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=range(len(BAD)))
def test_bad_input(call, error, text, tmp_path):
    with pytest.raises(error) as caught:
        call(tmp_path)
    assert text in str(caught.value)


@pytest.mark.parametrize("keep", [0, 4, 50, -1])
def test_damaged_file(tmp_path, keep):
    path = tmp_path / "state"
    lamina.save({"a": np.arange(30.0)}, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        lamina.load(path)
