"""Autotuning: what is measured, what is chosen, and the file that outlives the process."""

from __future__ import annotations

import json
import subprocess
import sys

import lamina
import numpy as np
import pytest
from lamina import _C, autotuning
from lamina import functional as F
from numpy.testing import assert_array_equal

X = np.random.default_rng(0).normal(size=(2, 6, 11, 10)).astype(np.float32)
WEIGHT = np.random.default_rng(1).normal(size=(8, 6, 3, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A directory of its own, and autotuning off in the end."""
    monkeypatch.setenv("LAMINA_CACHE_DIR", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    lamina.autotune(False)


def questions() -> dict:
    return autotuning.read(autotuning.cache_file())


def test_measured_algorithm_is_chosen_and_kept(cache):
    assert not autotuning.is_autotuning()
    y = F.conv2d(X, WEIGHT, padding=1)
    assert lamina.last_plan().chosen_by == "cost rule"
    lamina.autotune(True)
    assert autotuning.is_autotuning()
    tuned = F.conv2d(X, WEIGHT, padding=1)
    plan = lamina.last_plan()
    assert plan.chosen_by == "measured"
    ((question, times),) = questions().items()
    assert question.startswith("fprop float32 highest threads=") and " k=8 " in question
    assert plan.algo == min(times, key=lambda pair: pair[1])[0]
    slower = {algo: reason for algo, reason in plan.refusals if reason.endswith("as measured")}
    assert {*slower, plan.algo} == {algo for algo, _ in times}
    np.testing.assert_allclose(tuned, y, atol=1e-4)
    assert_array_equal(F.conv2d(X, WEIGHT, padding=1, algo=plan.algo), tuned)
    assert lamina.last_plan().chosen_by == "algo="
    lamina.autotune(False)
    F.conv2d(X, WEIGHT, padding=1)
    assert lamina.last_plan().chosen_by == "cost rule"


def fake(question_times):
    """Writes times as if they had been measured."""
    path = autotuning.cache_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"format": 1, "identity": autotuning.identity(), "times": question_times}
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("algo", ["direct", "im2col", "winograd"])
def test_kept_times_decide(algo):
    lamina.autotune(True)
    F.conv2d(X, WEIGHT, padding=1)
    times = {
        question: [(name, 1.0 if name == algo else 2.0) for name, _ in times]
        for question, times in questions().items()
    }
    fake(times)
    lamina.autotune(True)
    F.conv2d(X, WEIGHT, padding=1)
    assert (lamina.last_plan().algo, lamina.last_plan().chosen_by) == (algo, "measured")


def test_passes_dtypes_limits_and_threads_are_questions_of_their_own():
    lamina.autotune(True)
    x, weight = (lamina.tensor(a, requires_grad=True) for a in (X, WEIGHT))
    F.conv2d(x, weight, padding=1).sum().backward()
    F.conv2d(X.astype(np.float64), WEIGHT.astype(np.float64), padding=1)
    F.conv2d(X, WEIGHT, padding=1, workspace_limit=0)
    threads = lamina.get_num_threads()
    try:
        lamina.set_num_threads(threads + 1)
        F.conv2d(X, WEIGHT, padding=1)
    finally:
        lamina.set_num_threads(threads)
    F.conv2d(X, WEIGHT, padding=1)
    found = questions()
    assert len(found) == 6
    assert {question.split()[0] for question in found} == {"fprop", "dgrad", "wgrad"}
    (limited,) = [times for question, times in found.items() if "workspace_limit=0" in question]
    assert "im2col" not in dict(limited) and "direct" in dict(limited)


def test_imprecise_algorithms_are_never_measured_at_full_precision():
    lamina.autotune(True)
    F.conv2d(X, WEIGHT, padding=1)
    (times,) = questions().values()
    assert "winograd4" not in dict(times)
    allowed = {algo for algo, _ in times}
    shape = "n=2 c=6"
    assert all(shape in question for question in questions())
    fake({question: [*times, ("winograd4", 0.0)] for question in questions()})
    lamina.autotune(True)
    F.conv2d(X, WEIGHT, padding=1)
    assert lamina.last_plan().algo in allowed


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        '{"format": 1}',
        '{"format": 2, "identity": {}, "times": {}}',
        '{"format": 1, "identity": {"processor": "another"}, "times": {"a": [["direct", 1]]}}',
    ],
)
def test_files_that_do_not_fit_are_ignored_and_replaced(content):
    path = autotuning.cache_file()
    path.parent.mkdir(parents=True)
    path.write_text(content)
    lamina.autotune(True)
    F.conv2d(X, WEIGHT, padding=1)
    assert lamina.last_plan().chosen_by == "measured" and len(questions()) == 1


@pytest.mark.parametrize("times", ["direct", [["direct"]], [["direct", "soon"]], [["direct", -1]]])
def test_times_that_are_none_are_ignored(times):
    fake({"a": times})
    assert autotuning.read(autotuning.cache_file()) == {}
    for seconds in (float("nan"), float("inf"), 10**400):
        fake({"a": [["direct", seconds]]})
        assert autotuning.read(autotuning.cache_file()) == {}


def test_directory_that_cannot_be_written_is_reported(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LAMINA_CACHE_DIR", str(tmp_path / "file"))
    lamina.autotune(True)
    with pytest.warns(RuntimeWarning, match="LAMINA_CACHE_DIR"):
        F.conv2d(X, WEIGHT, padding=1)
    assert lamina.last_plan().chosen_by == "measured"


def test_unfinished_files_are_not_left(cache, monkeypatch):
    """Of a writer that was killed, and of one whose disk is full."""
    lamina.autotune(True)
    cache.mkdir()
    autotuning.cache_file().with_suffix(".partial").write_text("[")
    F.conv2d(X, WEIGHT, padding=1)
    assert len(questions()) == 1

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(autotuning.os, "replace", full)
    with pytest.warns(RuntimeWarning, match="No space left"):
        F.conv2d(X, WEIGHT)
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".lock"]


def test_bad_argument_is_refused():
    with pytest.raises(TypeError, match="autotune: enabled"):
        lamina.autotune("yes")


def test_default_directory_is_the_users_cache(monkeypatch):
    platformdirs = pytest.importorskip("platformdirs")
    monkeypatch.delenv("LAMINA_CACHE_DIR")
    assert autotuning.cache_file().parent == platformdirs.user_cache_path("lamina", appauthor=False)


def test_simulated_kernels_are_not_measured():
    if "simt" not in lamina.backends():
        pytest.skip("needs the CUDA kernels on the CPU")
    lamina.autotune(True)
    with lamina.backend("simt"):
        F.conv2d(X, WEIGHT, padding=1)
    assert lamina.last_plan().chosen_by == "cost rule" and questions() == {}


WRITER = """
import sys
import numpy as np, lamina
from lamina import functional as F
for channels in range(1, 9):
    k = int(sys.argv[1]) + 2 * channels
    F.conv2d(np.ones((1, 2, 6, 6), np.float32), np.ones((k, 2, 3, 3), np.float32))
    assert lamina.last_plan().chosen_by == "measured", lamina.last_plan()
"""


def test_processes_write_at_the_same_time(cache, monkeypatch):
    """Two of them, told by the environment: nothing is lost, and a third one measures nothing."""
    monkeypatch.setenv("LAMINA_AUTOTUNE", "1")
    both = [subprocess.Popen([sys.executable, "-c", WRITER, str(start)]) for start in (0, 1)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert len(questions()) == 16
    before = autotuning.cache_file().stat().st_mtime_ns
    subprocess.run([sys.executable, "-c", WRITER, "0"], check=True, timeout=120)
    assert autotuning.cache_file().stat().st_mtime_ns == before
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".lock"]


def test_candidates_are_ordered_by_the_rule():
    geometry = F.conv.Geometry("conv2d", (1, 1), ((1, 1), (1, 1)), (1, 1), 1, "auto", -1)
    shape = F.conv.conv_shape(geometry, X.shape, WEIGHT.shape)
    names = _C.conv_candidates("fprop", shape)
    costs = [_C.conv_cost(name, "fprop", shape) for name in names]
    assert costs == sorted(costs) and len(names) >= 4
