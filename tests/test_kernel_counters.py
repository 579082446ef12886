"""No CUDA kernel asks for more than it did: sectors, wavefronts and operations of each, counted.

The counts are exact, so the bound is tight: a twentieth above what benchmarks/results holds. A
kernel that became better, or is new, is entered by `python benchmarks/kernel_counters.py --write`.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import lamina
import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "kernel_counters.py"
SLACK = 1.05


@pytest.fixture(scope="module")
def counters():
    spec = importlib.util.spec_from_file_location("kernel_counters", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def measured(counters):
    return {kernel: found.ratios() for kernel, (found, _) in counters.measure().items()}


def test_every_kernel_is_measured(measured):
    names = {f"{k.op} {k.pass_} {k.algo}" for k in lamina.kernels(backend="simt_check")}
    assert names - measured.keys() == set()


def test_no_kernel_exceeds_its_counts(counters, measured):
    limits = json.loads(counters.NUMBERS.read_text())
    worse = [
        f"{kernel}: {name} {ratio:.3f} of the ideal, was {limits[kernel][name]:.3f}"
        for kernel, ratios in measured.items()
        for name, ratio in ratios.items()
        if name in limits.get(kernel, {}) and ratio > SLACK * limits[kernel][name]
    ]
    assert worse == []


def test_a_worse_kernel_would_be_seen(counters, measured):
    limits = json.loads(counters.NUMBERS.read_text())
    assert limits["activation fprop elementwise"] == {"sectors": 1.0, "flops": 1.0} | {
        "flops": measured["activation fprop elementwise"]["flops"]
    }
    assert measured["gemm fprop tiled"]["flops"] == pytest.approx(1, rel=0.1)
