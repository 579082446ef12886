"""`lamina bench` and `lamina check`: the right layers, right results first, wrong ones seen.

Times are not tested.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import lamina
import numpy as np
import pytest
from lamina.bench import bandwidth, check, jobs, measure, report, timing
from lamina.bench.cli import app
from lamina.bench.definitions import DEFINITIONS, definitions_of
from lamina.bench.layers import FAMILIES, ConvLayer, PlainLayer
from lamina.runtime import Kernel
from rich.console import Console
from typer.testing import CliRunner

ROOT = Path(__file__).parent.parent
LAYERS = [layer for several in FAMILIES.values() for layer in several]
TINY = [
    ConvLayer("same", 4, 9, 6, 3, 1, 1),
    ConvLayer("strided", 3, 11, 4, 5, 2, 1),
    ConvLayer("grouped", 4, 8, 6, 3, 2, 1, 2),
    ConvLayer("depthwise", 4, 9, 4, 3, 1, 1, 4),
    ConvLayer("up", 4, 5, 6, 4, 2, 1, transposed=True),
    ConvLayer("up_grouped", 4, 5, 6, 3, 2, 0, 2, transposed=True),
]


@pytest.fixture(autouse=True)
def _ceilings(monkeypatch):
    """The machine's, without the second that measuring them takes."""
    ceilings = {"gflops": 100.0, "gbytes": 10.0}
    monkeypatch.setattr(measure, "machine_roofline", lambda: ceilings)


def bench(*arguments):
    return CliRunner().invoke(
        app, ["bench", *arguments, "--seconds", "0.001"], env={"COLUMNS": "200"}
    )


# Layers and their names


def test_layers_have_definitions_kernels_and_names_of_their_own():
    assert len({layer.name for layer in LAYERS}) == len(LAYERS)
    for layer in LAYERS:
        if isinstance(layer, PlainLayer):
            op = DEFINITIONS[layer.definition].op or layer.definition
            assert lamina.kernels(op, "fprop"), layer


@pytest.mark.parametrize("family", FAMILIES)
def test_families_have_a_benchmark_file(family):
    assert f'cases("{family}")' in (ROOT / "benchmarks" / f"test_{family}.py").read_text()


def test_transposed_layer_is_the_gradient_of_its_underlying_one():
    layer = ConvLayer("g2", 1024, 4, 512, 4, 2, 1, transposed=True)
    assert layer.underlying.x_shape(2) == (2, 512, 8, 8)
    assert layer.underlying.weight_shape == (1024, 512, 4, 4)
    assert layer.underlying.y_shape(2) == (2, 1024, 4, 4)


def test_names_choose_families_networks_layers_and_parts():
    def names(*wanted):
        return [layer.name for _, layer in measure.choose(*wanted)]

    assert names(["all"]) == [layer.name for layer in LAYERS]
    assert names(["gemm"]) == [layer.name for layer in FAMILIES["gemm"]]
    assert names(["lenet"]) == ["lenet.sigmoid"]  # not googlenet
    assert names(["vgg16.pool1"]) == ["vgg16.pool1"]
    assert {name.partition(".")[0] for name in names(["resnet"])} == {"resnet50"}
    assert names(["lenet", "lenet.sigmoid"]) == ["lenet.sigmoid"]  # once
    assert names(["pool"], "vgg16") == ["vgg16.pool1", "vgg16.pool3"]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["cnov"], ["'cnov'", "near: conv"]),
        (["vgg16.pol1"], ["'vgg16.pol1'", "vgg16.pool1"]),
        (["gemm", "qqqq"], ["'qqqq'", "--list"]),
        (["pool", "--layers", "vgg61"], ["'vgg61'", "vgg16"]),
        (["gemm", "--pass", "wgrad"], ["fprop", "train", "'wgrad'"]),
        (["conv", "--pass", "train"], ["fprop", "dgrad", "'train'"]),
        (["conv", "--vs", "numpy"], ["'numpy'", "torch"]),
        (["conv", "--batch", "0"], ["batch"]),
        (["conv", "--json", "/nowhere/rows.json"], ["/nowhere", "directory"]),
        (["conv", "--plot", "/nowhere/roofline.png"], ["/nowhere", "directory"]),
    ],
)
def test_bad_names_are_refused_with_near_ones(arguments, words):
    result = bench(*arguments)
    assert result.exit_code == 2
    assert all(word in result.output for word in words), result.output


def test_list_prints_families_and_layers():
    result = bench("--list")
    assert result.exit_code == 0
    assert all(name in result.output for name in FAMILIES)
    assert all(layer.name in result.output for layer in LAYERS)


# Reports


def test_report_and_picture(tmp_path):
    report, picture = tmp_path / "rows.json", tmp_path / "roofline.png"
    result = bench(
        *("lenet", "dcgan.g5_image", "shufflenet", "--pass", "all", "--batch", "2"),
        *("--json", str(report), "--plot", str(picture)),
    )
    assert result.exit_code == 0, result.output
    assert picture.stat().st_size > 1000
    rows = json.loads(report.read_text())["rows"]
    found = {(row["layer"], row["pass"]) for row in rows}
    both = {"fprop", "train"}
    assert found == {
        *((name, p) for name in ("lenet.sigmoid", "shufflenet.shuffle") for p in both),
        *(("dcgan.g5_image", p) for p in ("fprop", "dgrad", "wgrad")),
    }
    kernels = {row["kernel"] for row in rows if row["layer"] == "dcgan.g5_image"}
    cpu = {f"cpu.{algo}" for algo in ("direct", "im2col", "gather_gemm", "implicit_gemm")}
    assert kernels == {"ref.direct", *cpu}
    for row in rows:
        assert row["ms"] > 0 and row["vs_ref"] > 0 and row["gbytes"] > 0
        reached = max(row["gflops"] / 100, row["gbytes"] / 10)
        assert row["roofline_percent"] == pytest.approx(100 * reached)
        assert 0 <= row["error"] <= jobs.ERROR_BOUND and not row["wrong"]
    assert all(row["gflops"] > 0 for row in rows if row["layer"] != "shufflenet.shuffle")


def test_bandwidth_is_measured_beside_copies(monkeypatch, tmp_path):
    monkeypatch.setattr(timing, "COPIED_BYTES", 1 << 16)
    monkeypatch.setattr(bandwidth, "PARAMETER", (64, 64))
    small = [
        row._replace(shapes=tuple((2, *shape[1:2], 12, 12)[: len(shape)] for shape in row.shapes))
        for row in bandwidth.STREAMED
        if len(row.shapes) == 1
    ]
    monkeypatch.setattr(bandwidth, "STREAMED", small)
    report = tmp_path / "rows.json"
    arguments = ["bandwidth", "--seconds", "0", "--threads", "1", "--json", str(report)]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    rows = {(row["kernel"], row["pass"]): row for row in json.loads(report.read_text())["rows"]}
    assert len(rows) == 2 * len(small) + 5
    assert all(row["ms"] > 0 and row["copy_percent"] > 0 for row in rows.values())
    image = 2 * 64 * 12 * 12 * 4 / 1e6
    assert rows["relu", "forward"]["mbytes"] == pytest.approx(2 * image)
    assert rows["relu", "backward"]["mbytes"] == pytest.approx(3 * image)
    # y and grad_y are a quarter of x, an index is as long as two of their elements
    assert rows["max_pool", "forward"]["mbytes"] == pytest.approx(1.25 * image)
    assert rows["max_pool", "backward"]["mbytes"] == pytest.approx(1.75 * image)
    assert rows["adam", "step"]["mbytes"] == pytest.approx(7 * 64 * 64 * 4 / 1e6)


def test_bandwidth_of_nothing_is_refused():
    result = CliRunner().invoke(app, ["bandwidth", "no_such_kernel"])
    assert result.exit_code == 2 and "no_such_kernel" in result.output


@pytest.mark.parametrize(
    "arguments, words",
    [
        ("bench --json {0}", "is a directory; name a file in it"),
        ("bench --plot {0}/no/x.png", "no is not a directory; create it first"),
        ("bandwidth --json {0}", "is a directory"),
        ("compare --plot {0}", "is a directory"),
        ("bench --threads 5000", "less than or equal to 4096"),
        ("plan 1x4x8x8 4x4x3x3 --backend cuda", "cuda: "),
        ("plan 1x4x8x8 4x4x3x3 --backend gpu", "got name='gpu'"),
        ("train digits --out {0}/file", "File exists"),
    ],
)
def test_refused_before_anything_is_measured(tmp_path, arguments, words):
    (tmp_path / "file").touch()
    command = arguments.format(tmp_path).split()
    result = CliRunner().invoke(app, command, env={"COLUMNS": "400"})
    if "--backend cuda" in arguments and result.exit_code == 0:
        pytest.skip("there is a GPU")
    assert result.exit_code == 2 and words in result.output


def test_version_and_module():
    done = [sys.executable, "-m", "lamina", "--version"]
    said = subprocess.run(done, capture_output=True, text=True, check=True).stdout
    assert said == f"lamina {lamina.__version__}\n"


def test_ceilings_are_measured(monkeypatch):
    monkeypatch.undo()
    best = measure._best
    monkeypatch.setattr(measure, "_best", lambda function, rounds: best(function, 1))
    found = measure.machine_roofline()
    assert found["gflops"] > 0 and found["gbytes"] > 0


def test_wrong_results_are_marked_and_fail(monkeypatch):
    monkeypatch.setattr(measure, "ERROR_BOUND", -1.0)
    result = bench("lenet", "--no-ref")
    assert result.exit_code == 1
    assert "WRONG" in result.output and "ref.elementwise" not in result.output


def test_absent_peer_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    result = bench("lenet", "--vs", "torch")
    assert result.exit_code == 2 and "not installed" in result.output


@pytest.mark.torch
def test_peer_is_judged_and_timed_too():
    pytest.importorskip("torch")
    result = bench("lenet", "dcgan.g5_image", "--pass", "all", "--no-ref", "--vs", "torch")
    assert result.exit_code == 0, result.output
    assert result.output.count("│ torch ") == 5 and "x torch" in result.output


# Errors of jobs


@pytest.mark.parametrize("layer", TINY, ids=lambda layer: layer.name)
@pytest.mark.parametrize("pass_", jobs.CONV_PASSES)
def test_convolution_jobs_judge_every_algorithm(layer, pass_):
    job = jobs.make_job(layer, pass_, 2, ref=True)
    assert {"ref.direct", "cpu.direct", "cpu.im2col", "cpu.implicit_gemm"} <= set(job.candidates)
    assert ("cpu.depthwise" in job.candidates) == (layer.name == "depthwise")
    for run in job.candidates.values():
        y = run()
        assert job.error(y) <= jobs.ERROR_BOUND
        assert job.error(y * np.float32(1.001)) > jobs.ERROR_BOUND
        assert job.error(y[:1]) == float("inf")
        assert not job.error(y * np.float32("nan")) <= jobs.ERROR_BOUND


@pytest.mark.torch
@pytest.mark.parametrize("layer", TINY, ids=lambda layer: layer.name)
@pytest.mark.parametrize("pass_", jobs.CONV_PASSES)
def test_peers_compute_the_same_convolutions(layer, pass_):
    pytest.importorskip("torch")
    job = jobs.make_job(layer, pass_, 2, torch=True)
    assert job.error(job.candidates["torch"]()) <= jobs.ERROR_BOUND


PLAIN = sorted({layer.definition for layer in LAYERS if isinstance(layer, PlainLayer)})


@pytest.mark.parametrize("name", PLAIN)
def test_other_jobs_judge_results_and_gradients(name):
    job = jobs.make_job(PlainLayer("tiny", name, DEFINITIONS[name].shapes), "train", 1, ref=True)
    for run in job.candidates.values():
        y, gradients = run()
        assert job.error((y, gradients)) <= jobs.ERROR_BOUND
        assert job.error((y * np.float32(1.001), gradients)) > jobs.ERROR_BOUND
        for i in range(len(gradients)):
            wrong = [g * np.float32(1.01) if i == j else g for j, g in enumerate(gradients)]
            assert job.error((y, wrong)) > jobs.ERROR_BOUND, f"gradient of input {i}"


# lamina check


def test_every_operation_has_a_definition():
    assert all(definitions_of(kernel.op, kernel.backend) for kernel in lamina.kernels())


def test_kernel_without_definition_fails(monkeypatch):
    error, bound = check.check_kernel(Kernel("cpu", "telepathy", "fprop", "direct"))
    assert error == float("inf") > bound
    monkeypatch.delitem(DEFINITIONS, "prelu")
    failures = check.run_checks(Console(quiet=True))
    assert failures == len(lamina.kernels("prelu"))


@pytest.mark.parametrize("pass_", ["fprop", "dgrad"])
def test_wrong_kernel_fails(monkeypatch, pass_):
    right = DEFINITIONS["prelu"]
    wrong = right._replace(formula=lambda x, a: right.formula(x, 1.01 * a + 0.01 * x.mean()))
    monkeypatch.setitem(DEFINITIONS, "prelu", wrong)
    error, bound = check.check_kernel(Kernel("cpu", "prelu", pass_, "elementwise"))
    assert error > bound


@pytest.mark.parametrize("pass_", ["fprop", "dgrad", "wgrad"])
def test_kernel_that_did_not_run_fails(monkeypatch, pass_):
    right = DEFINITIONS["conv"]
    other = right._replace(call=lambda F, algo, *inputs: right.call(F, "im2col", *inputs))
    monkeypatch.setitem(DEFINITIONS, "conv", other)
    assert check.check_kernel(Kernel("cpu", "conv", pass_, "direct"))[0] == float("inf")


# benchmarks/


def test_benchmark_files_run():
    pytest.importorskip("pytest_benchmark")
    options = ["-q", "-k", "g5_image and fprop", "--benchmark-disable"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "benchmarks/test_conv_transpose.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout and "failed" not in done.stdout


def test_a_report_names_the_command_and_what_was_set(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/lamina", "bandwidth", "a part"])
    for name in report.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LAMINA_ISA", "avx2")
    assert report.command("lamina") == "LAMINA_ISA=avx2 lamina bandwidth 'a part'"
    path = tmp_path / "rows.json"
    path.write_text("earlier")
    with pytest.raises(TypeError):
        report.write(path, {"rows": object()})
    assert path.read_text() == "earlier"
    report.write(path, {"rows": [1]})
    assert json.loads(path.read_text()) == {"rows": [1]} and [*tmp_path.iterdir()] == [path]
