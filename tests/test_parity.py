"""Every call of `lamina parity`, one test each, and that no name of torch is without an answer.

Values and gradients within 1e-11 of the largest element, in float64 (lamina/bench/parity.py).
"""

from __future__ import annotations

import numpy as np
import pytest
from lamina.bench.parity_cases import FUNCTIONS, LAYERS

torch = pytest.importorskip("torch")

from lamina.bench import parity  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::UserWarning:lamina"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]


@pytest.mark.parametrize(
    ("name", "index"), [(name, i) for name, calls in FUNCTIONS.items() for i in range(len(calls))]
)
def test_function(name, index):
    assert parity.call_agrees(name, FUNCTIONS[name][index])


@pytest.mark.parametrize(
    ("name", "index"), [(name, i) for name, layers in LAYERS.items() for i in range(len(layers))]
)
def test_layer(name, index):
    assert parity.layer_agrees(name, LAYERS[name][index])


def test_every_name_has_an_answer(tmp_path):
    assert parity.write_table(tmp_path / "table.md") == []
    assert "| `conv2d` | different | 7 of 7 |" in (tmp_path / "table.md").read_text()


def test_a_wrong_result_is_found(monkeypatch):
    monkeypatch.setattr(parity.functional, "relu", parity.functional.relu6)
    call = parity.Call((parity.Real((1000,)),), {})
    monkeypatch.setattr(parity.Real, "array", lambda self, seed: np.linspace(-9, 9, 1000))
    assert not parity.call_agrees("relu", call)
