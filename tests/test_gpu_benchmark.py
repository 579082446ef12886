"""benchmarks/gpu.py without a GPU: fake_cupy's arrays, the host's clock, no peer."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import fake_cupy
import pytest
from lamina.bench.layers import FAMILIES, ConvLayer

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def gpu():
    spec = importlib.util.spec_from_file_location("gpu", ROOT / "benchmarks" / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.TURNS, module.TURN_MS = 1, 0.001
    return module


def test_convolution_rows(gpu):
    with fake_cupy.installed() as cupy:
        rows = gpu.conv_rows(cupy, None, gpu.host_timer, ConvLayer("small", 4, 6, 4, 3, 1, 1), 2)
    assert [row["pass"] for row in rows] == ["fprop", "dgrad", "wgrad"]
    for row in rows:
        assert row["auto"] in row["ms"]
        assert {"lamina.direct", "lamina.winograd"} <= set(row["ms"])
        assert all(time > 0 for time in row["ms"].values())
    assert "small" in gpu.summary(rows)


def test_rows_of_another_layer(gpu):
    layer = next(x for x in FAMILIES["softmax"])
    small = layer._replace(shapes=((3, 17),))
    with fake_cupy.installed() as cupy:
        rows = gpu.plain_rows(cupy, None, gpu.host_timer, small, 3)
    assert [row["pass"] for row in rows] == ["fprop", "train"]
    assert all(row["error"]["lamina"] < 1e-6 for row in rows)


def test_a_failing_layer_is_a_row(gpu, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("no memory")

    monkeypatch.setattr(gpu, "conv_rows", broken)
    rows = gpu.rows_of(None, None, None, "resnet50.layer3", 1)
    assert "RuntimeError: no memory" in {row["failed"] for row in rows}
