"""benchmarks/fit_costs.py: constants are found again, and the report says what was missed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from lamina.bench.drawn_layers import DRAWN, drawn_layers
from lamina.bench.layers import ConvLayer

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "fit_costs.py"


@pytest.fixture(scope="module")
def fit_costs():
    spec = importlib.util.spec_from_file_location("fit_costs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_constants_are_found_again(fit_costs):
    rng = np.random.default_rng(0)
    features = rng.uniform(1, 100, (40, 6)) * [1e6, 1e3, 1e3, 1e3, 0, 1]
    constants = np.array([2e-9, 3e-6, 0, 5e-6, 0, 1e-3])
    found = fit_costs.fit(features, features @ constants)
    np.testing.assert_allclose(found, constants, rtol=1e-6, atol=1e-14)
    assert (fit_costs.fit(features, features @ (constants - [0, 0, 1e-7, 0, 0, 0])) >= 0).all()


def test_regret_is_relative_to_the_fastest_candidate(fit_costs):
    rows = [{"candidates": ["a", "b"], "seconds": {"a": 2.0, "b": 1.0, "c": 0.1}}]
    assert fit_costs.regret(rows, lambda row: "a") == [2.0]
    assert fit_costs.regret(rows, lambda row: "b") == [1.0]


def test_layers_are_measured_once_and_reported(fit_costs, tmp_path, monkeypatch, capsys):
    path = tmp_path / "times.json"
    arguments = ["fit_costs", str(path), "--families", "tiny", "--layers", "4x4"]
    monkeypatch.setattr("sys.argv", [*arguments, "--seconds", "0.001"])
    fit_costs.main()
    rows = json.loads(path.read_text())["rows"]
    assert [row["pass"] for row in rows] == ["fprop", "dgrad", "wgrad"]
    assert {"direct", "im2col", "winograd"} <= set(rows[0]["seconds"])
    printed = capsys.readouterr().out
    for pass_ in fit_costs.PASSES:
        assert f"== {pass_}: 1 layers" in printed
    assert "regret of the rule" in printed and "direct" in printed
    monkeypatch.setattr(fit_costs, "measure", None)
    monkeypatch.setattr("sys.argv", arguments)
    fit_costs.main()
    monkeypatch.setattr("sys.argv", [*arguments, "--report"])
    fit_costs.main()
    assert capsys.readouterr().out == printed + printed


@pytest.mark.parametrize("family", DRAWN)
def test_drawn_layers_are_those_of_their_seed(family, fit_costs, tmp_path, monkeypatch, capsys):
    axes = DRAWN[family]
    layers = drawn_layers(5, 12, axes)
    assert layers == drawn_layers(5, 20, axes)[:12] != drawn_layers(6, 12, axes)
    for layer, batch in layers:
        assert layer.axes == axes and min(layer.y_shape(batch)) > 0
        assert layer.c % layer.groups == layer.k % layer.groups == 0
    path, name = tmp_path / "drawn.json", layers[3][0].name
    family = ["--families", f"{family}:5:12", "--layers", name, "--pass", "fprop"]
    monkeypatch.setattr("sys.argv", ["fit_costs", str(path), *family, "--seconds", "0.001"])
    fit_costs.main()
    (row,) = json.loads(path.read_text())["rows"]
    assert row["name"] == f"{name}_b{layers[3][1]}" and "direct" in row["seconds"]
    assert "== fprop: 1 layers" in capsys.readouterr().out


def test_drawn_layers_are_those_of_the_reports():
    last = [drawn_layers(2026, 48)[-1], *(drawn_layers(2026, 24, axes)[-1] for axes in (1, 3))]
    assert last == [
        (ConvLayer("drawn2026_47", 128, (10, 20), 32, (5, 5), 1, (6, 6), 8, dilation=3), 16),
        (ConvLayer("line2026_23", 256, (750,), 256, (1,), 1, (0,)), 4),
        (ConvLayer("volume2026_23", 32, (4, 14, 7), 256, (3, 7, 7), 2, (1, 3, 3)), 2),
    ]
