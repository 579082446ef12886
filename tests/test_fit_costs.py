"""benchmarks/fit_costs.py: constants are found again, and the report says what was missed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from lamina.bench.drawn_layers import drawn_layers

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


def test_drawn_layers_are_those_of_their_seed(fit_costs, tmp_path, monkeypatch, capsys):
    layers = drawn_layers(5, 12)
    assert layers == drawn_layers(5, 20)[:12] != drawn_layers(6, 12)
    for layer, batch in layers:
        assert min(layer.y_shape(batch)) > 0
        assert layer.c % layer.groups == layer.k % layer.groups == 0
    path = tmp_path / "drawn.json"
    family = ["--families", "drawn:5:12", "--layers", "drawn5_3", "--pass", "fprop"]
    monkeypatch.setattr("sys.argv", ["fit_costs", str(path), *family, "--seconds", "0.001"])
    fit_costs.main()
    (row,) = json.loads(path.read_text())["rows"]
    assert row["name"] == f"drawn5_3_b{layers[3][1]}" and "direct" in row["seconds"]
    assert "== fprop: 1 layers" in capsys.readouterr().out
