"""`lamina compare`: the layers it says, results judged part by part, reports that can be continued.

Times are not tested, but which rounds count is.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager

import lamina
import numpy as np
import pytest
import reference
from lamina.bench import compare, jobs, measure, timing
from lamina.bench.cli import app
from lamina.bench.layers import HELD_OUT, LINES, SUITE, TINY, VOLUMES, ConvLayer
from lamina.bench.peers import Peer, load_peers
from lamina.bench.plot import ratios
from rich.console import Console
from typer.testing import CliRunner

SMALL = [
    ConvLayer("plain", 4, 9, 6, 3, 1, 1),
    ConvLayer("grouped", 4, (8, 11), 6, (3, 1), 2, (1, 0), 2),
    ConvLayer("dilated", 3, 12, 5, 3, 1, 2, dilation=2),
    ConvLayer("line", 4, (20,), 6, 5, 2, 3, 2),
    ConvLayer("volume", 2, (5, 6, 7), 3, 3, 1, 1),
    ConvLayer("up", 6, (5, 4), 4, 3, 2, 1, 2, transposed=True, output_padding=1),
]


@pytest.fixture(autouse=True)
def _ceilings(monkeypatch):
    """The machine's, without the second that measuring them takes; malloc as it was."""
    monkeypatch.setattr(measure, "machine_roofline", lambda: {"gflops": 100.0, "gbytes": 10.0})
    yield
    timing.keep_memory(False)


def run(*arguments):
    return CliRunner().invoke(
        app, ["compare", *arguments, "--seconds", "0.001"], env={"COLUMNS": "200"}
    )


# Layers


@pytest.mark.parametrize(
    "pairs, count", [(SUITE, 89), (HELD_OUT, 20), (LINES, 26), (VOLUMES, 33), (TINY, 5)]
)
def test_layers_have_names_of_their_own_and_outputs(pairs, count):
    assert len({(layer.name, batch) for layer, batch in pairs}) == len(pairs) == count
    for layer, batch in pairs:
        assert min(layer.y_shape(batch)) >= 1
        if layer.transposed:
            assert layer.underlying.y_shape(batch) == layer.x_shape(batch)


def test_names_passes_and_batches_choose():
    def found(*arguments):
        return {subject.key for subject in compare.subjects(*arguments)}

    assert len(found(["suite"], ["fprop"])) == 89
    assert len(found(["suite"], ["all"])) == 4 * 89
    assert found(["suite"], ["dgrad"], "alex1_b8") == {("suite", "alex1", 8, "dgrad")}
    assert {key[2] for key in found(["suite", "tiny"], ["fprop", "train"], "", 1)} == {1}
    assert {key[0] for key in found(["memory"], ["train"])} == set(compare.MEMORY_FAMILIES)
    assert {key[0] for key in found(["all"], ["fprop"])} == set(compare.families())


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["siute"], "'siute'"),
        (["suite", "--layers", "vgg9"], "vgg9"),
        (["suite", "--pass", "backward"], "backward"),
        (["suite", "--peers", "numpy"], "'numpy'"),
        (["suite", "--allocator", "mine"], "mine"),
        (["suite", "--precision", "low", "--peers", ""], "'low'"),
        (["suite", "--json", "/nowhere/rows.json"], "/nowhere"),
    ],
)
def test_bad_options_are_refused(arguments, word):
    result = run(*arguments)
    assert result.exit_code == 2 and word in result.output


def test_absent_peer_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    result = run("suite")
    assert result.exit_code == 2 and "torch is not installed" in result.output


# What is computed


@pytest.mark.parametrize("layer", SMALL[:-1], ids=lambda layer: layer.name)
def test_float64_gradients_are_the_definitions(layer):
    rng = np.random.default_rng(0)
    sizes = layer.x_shape(2), layer.weight_shape, layer.y_shape(2)
    x, weight, grad_y = (rng.normal(size=size) for size in sizes)
    options = layer.stride, layer.padding, layer.dilation, layer.groups
    expected = {
        "fprop": reference.conv(x, weight, None, *options),
        "dgrad": reference.conv_dgrad(grad_y, weight, x.shape, *options),
        "wgrad": reference.conv_wgrad(x, grad_y, weight.shape, *options),
    }
    for pass_, array in expected.items():
        found = jobs.conv_expected(pass_, layer, x, weight, grad_y)
        np.testing.assert_allclose(found, array, rtol=1e-11, atol=1e-11)


def calls(layer, pass_, *peers):
    return compare._conv(layer, 2, pass_)([Peer("lamina", lamina), *peers])


@pytest.mark.parametrize("layer", SMALL, ids=lambda layer: layer.name)
@pytest.mark.parametrize("pass_", compare.CONV_PASSES)
def test_results_are_judged(layer, pass_):
    work = calls(layer, pass_)
    result = work.calls["lamina"]()
    assert work.error(result) <= jobs.ERROR_BOUND
    parts = list(result) if isinstance(result, tuple) else [result]
    assert len(parts) == (4 if pass_ == "train" else 1)
    for index, part in enumerate(parts):
        array = part if isinstance(part, np.ndarray) else part.detach().numpy()
        changed = [*parts[:index], array * np.float32(1.001), *parts[index + 1 :]]
        assert work.error(tuple(changed)) > jobs.ERROR_BOUND


def test_settings_are_made_outside_of_what_is_timed():
    """And hold for every call of it."""
    active, seen = [], []

    @contextmanager
    def slow():
        time.sleep(0.02)
        active.append(True)
        yield
        active.pop()

    call = timing.Within(lambda: seen.append(bool(active)), slow)
    times = timing.interleaved({"set": call, "plain": lambda: None}, 0.001)
    assert times.median("set") < 0.01 and seen and all(seen)
    call()
    assert seen[-1] and not active


@pytest.mark.torch
@pytest.mark.parametrize("layer", SMALL, ids=lambda layer: layer.name)
@pytest.mark.parametrize("pass_", compare.CONV_PASSES)
def test_peers_compute_the_same(layer, pass_):
    pytest.importorskip("torch")
    names = ["torch", "torch.default", "torch.channels_last"]
    work = calls(layer, pass_, *load_peers(names)[1:])
    assert {"lamina", "lamina.default", "torch", "torch.default"} <= set(work.calls)
    assert ("torch.channels_last" in work.calls) == (layer.axes == 2)
    for call in work.calls.values():
        assert work.error(call()) <= jobs.ERROR_BOUND


@pytest.mark.torch
@pytest.mark.parametrize("layer", SMALL, ids=lambda layer: layer.name)
@pytest.mark.parametrize("pass_", compare.CONV_PASSES)
def test_peers_of_other_precisions_compute_the_same(layer, pass_):
    torch = pytest.importorskip("torch")
    work = calls(
        layer, pass_, *load_peers(["torch.medium", "torch.autocast", "lamina.highest"])[1:]
    )
    medium = compare.error_bound("suite", "medium")
    bound = {"lamina": medium, "torch.medium": medium, "torch.autocast": 1e-2}
    with lamina.set_float32_precision("medium"):
        for name, call in work.calls.items():
            assert work.error(call()) <= bound.get(name, jobs.ERROR_BOUND), name
            assert lamina.get_float32_precision() == "medium"
    assert torch.backends.mkldnn.conv.fp32_precision == "none"
    assert not torch.is_autocast_enabled("cpu")


def test_onnxruntime_computes_the_same():
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    for layer in SMALL:
        work = calls(layer, "fprop", *load_peers(["onnxruntime"])[1:])
        assert work.error(work.calls["onnxruntime"]()) <= jobs.ERROR_BOUND
        assert "onnxruntime" not in calls(layer, "dgrad", *load_peers(["onnxruntime"])[1:]).calls


def test_algorithms_are_peers_where_they_can_run():
    peers = load_peers([], algorithms=True)
    assert {"lamina", "lamina.direct", "lamina.winograd"} <= {peer.name for peer in peers}
    work = compare._conv(SMALL[1], 1, "fprop")(peers)  # strided
    assert "lamina.winograd" not in work.calls and "lamina.direct" in work.calls


# Reports


def test_report_is_written_and_continued(tmp_path):
    path = tmp_path / "rows.json"
    options = ["tiny", "--peers", "", "--json", str(path)]
    first = run(*options, "--pass", "fprop", "--layers", "4x4")
    assert first.exit_code == 0, first.output
    (row,) = json.loads(path.read_text())["rows"]
    assert (row["layer"], row["batch"], row["pass"]) == ("tiny_4x4", 1, "fprop")
    assert row["ms"]["lamina"] > 0 and row["algo"]
    assert 0 < row["error"]["lamina"] <= jobs.ERROR_BOUND
    second = run(*options, "--pass", "fprop,train", "--layers", "tiny_")
    assert second.exit_code == 0, second.output
    rows = json.loads(path.read_text())["rows"]
    assert rows[0] == row and len(rows) == 6
    assert not list(tmp_path.glob("*.partial"))
    threads = lamina.get_num_threads()
    try:
        third = run(*options, "--threads", str(threads + 1))
    finally:
        lamina.set_num_threads(threads)
    assert third.exit_code == 2 and "threads" in third.output
    fourth = run(*options, "--precision", "medium")
    assert fourth.exit_code == 2 and "precision highest" in fourth.output


@pytest.mark.torch
def test_report_has_ratios_and_their_means(tmp_path):
    pytest.importorskip("torch")
    path = tmp_path / "rows.json"
    result = run("tiny", "softmax", "--layers", "e", "--pass", "fprop", "--json", str(path))
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    ratios = {row["layer"]: row["ratio"]["torch"] for row in report["rows"]}
    (tiny,) = [row for row in report["summary"] if row["family"] == "tiny"]
    several = {name: ratio for name, ratio in ratios.items() if name.startswith("lenet")}
    assert tiny["worst"] == min(several.values()) and several[tiny["worst_layer"][:-3]]
    assert tiny["geomean"] == pytest.approx(np.exp(np.mean(np.log(list(several.values())))))
    assert "transformer.log_softmax" in ratios and "torch" in report["versions"]


def test_plot_needs_a_peer_and_shows_every_pass(tmp_path):
    rows = [
        {"family": "suite", "pass": pass_, "layer": "a", "batch": 1, "ratio": {"torch": ratio}}
        for pass_, ratio in (("fprop", 2.0), ("fprop", 0.5), ("train", 1.5))
    ]
    report = {"rows": rows, "summary": compare.summary(rows), "threads": 2, "isa": "avx2"}
    ratios(report, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="no times of onnxruntime"):
        ratios(report, tmp_path / "picture.png", "onnxruntime")


def fused(layer, *peers):
    return compare._fused(layer, 2)([Peer("lamina", lamina), *peers])


def test_fused_layers_are_judged():
    work = fused(SMALL[0])
    y = work.calls["lamina"]()
    assert work.error(y) <= jobs.ERROR_BOUND < work.error(y * np.float32(1.001))


@pytest.mark.torch
def test_peers_compute_the_same_fused_layers():
    pytest.importorskip("torch")
    work = fused(SMALL[0], *load_peers(["torch"])[1:])
    assert set(work.calls) == {"lamina", "torch", "torch.folded"}
    for call in work.calls.values():
        assert work.error(call()) <= jobs.ERROR_BOUND
    assert {layer.name for layer, _ in SUITE} >= set(compare.FUSED)


def test_networks_are_judged_and_timed(tmp_path):
    path = tmp_path / "rows.json"
    result = run("networks", "--layers", "lenet_b1", "--peers", "", "--json", str(path))
    assert result.exit_code == 0, result.output
    rows = json.loads(path.read_text())["rows"]
    assert [row["pass"] for row in rows] == ["fprop", "train"]
    assert all(0 < row["error"]["lamina"] < 1e-6 for row in rows)


@pytest.mark.parametrize("text", ["", "[]", '{"rows": []}'])
def test_another_file_is_not_continued(tmp_path, text):
    path = tmp_path / "rows.json"
    path.write_text(text)
    result = run("tiny", "--peers", "", "--json", str(path))
    assert result.exit_code == 2 and "holds no report" in result.output
    assert path.read_text() == text


def test_peers_without_calls_are_named():
    rows = [
        {"family": "fused", "ms": {"lamina": 1, "torch": 1}},
        {"family": "networks_fused", "ms": {"lamina": 1, "torch.fused": 1, "other": 1}},
    ]
    peers = [Peer(name, None) for name in ("lamina", "torch", "other")]
    assert compare._without_calls(rows, peers) == {"fused": ["other"]}


def test_unknown_precision_is_refused_first(monkeypatch):
    monkeypatch.setattr(measure, "machine_roofline", lambda: pytest.fail("measured"))
    result = run("tiny", "--peers", "", "--precision", "low")
    assert result.exit_code == 2 and "got 'low'" in result.output


def test_wrong_results_fail(monkeypatch):
    monkeypatch.setattr(compare, "ERROR_BOUND", -1.0)
    result = run("tiny", "--layers", "4x4", "--pass", "fprop", "--peers", "")
    assert result.exit_code == 1 and "WRONG" in result.output


@pytest.mark.parametrize(
    "family, pass_, torch_error, wrong",
    [
        ("pool", "train", 5e-4, False),  # as far as torch's: two equal maxima
        ("pool", "train", 1e-4, True),
        ("pool", "fprop", 5e-4, True),
        ("suite", "train", 5e-4, True),
    ],
)
def test_only_gradients_of_pools_may_be_as_far_as_torchs(
    monkeypatch, family, pass_, torch_error, wrong
):
    row = {"family": family, "layer": "l", "batch": 1, "pass": pass_, "algo": "a"}
    row |= {"ms": {"lamina": 1.0}, "ratio": {}, "floor_ms": 1.0}
    row["error"] = {"lamina": 5e-4, "torch": torch_error}
    monkeypatch.setattr(compare, "measure", lambda *_: row)
    subject = compare.Subject(family, "l", 1, pass_, lambda peers: None)
    report = compare.run(Console(quiet=True), [subject], [], 0.0)
    assert report["rows"][-1]["wrong"] == wrong


# Rounds


def test_disturbed_rounds_are_measured_again(monkeypatch):
    shares = iter([0.5, 0.0, 0.3, *[0.0] * 100])
    monkeypatch.setattr(timing, "_foreign_share", lambda before, after: next(shares))
    times = timing.interleaved({"a": lambda: None, "b": lambda: None}, 1e-4)
    assert times.rejected >= 2 and len(times.rounds) >= timing.LEAST_ROUNDS
    assert times.foreign == 0 and times.ratio("a", of="a") == 1
    assert all(set(round_) == {"a", "b"} for round_ in times.rounds)


def test_quietest_rounds_are_taken_where_none_is_quiet(monkeypatch):
    monkeypatch.setattr(timing, "_foreign_share", lambda before, after: 0.5)
    monkeypatch.setattr(timing, "BLOCK_SECONDS", 0.01)
    times = timing.interleaved({"a": lambda: None}, 0.001)
    assert times.foreign == 0.5 and len(times.rounds) >= timing.LEAST_ROUNDS


def test_samples_of_short_calls_are_long(monkeypatch):
    count = [0]

    def call():
        count[0] += 1

    repeats, before = timing._repeats(call)
    assert before > repeats >= 10
    count[0] = 0
    timing._sample(call, repeats, before)
    assert count[0] == repeats + before


def test_one_slow_call_does_not_shorten_the_samples(monkeypatch):
    clock = [0.0]
    durations = iter([1e-4, 5e-4])  # the second call still wakes somebody

    def call():
        clock[0] += next(durations, 1e-4)

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    repeats, before = timing._repeats(call)
    assert repeats == 3 and before >= 15


def test_memory_is_kept_and_given_back():
    if not timing.keep_memory(True):
        pytest.skip("needs glibc")
    assert timing.keep_memory(False)
