"""`lamina.simt` and `lamina simt`: reports on the CUDA kernels run on the CPU, and thread orders.

The runtime itself is tested in simt/, with kernels of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys

import lamina
import lamina.runtime
import numpy as np
import pytest
from lamina import functional as F
from lamina import simt
from lamina.bench import simt as command
from lamina.bench.cli import app
from lamina.bench.layers import FAMILIES, ConvLayer
from typer.testing import CliRunner


def image(seed=0, shape=(2, 4, 16, 16)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def prelu_gradients():
    """A call whose kernels use static shared memory, shuffles and barriers."""
    x, weight = (lamina.tensor(a, requires_grad=True) for a in (image(), np.ones(4, np.float32)))
    F.prelu(x, weight).backward(image(1))
    return x.grad.numpy(), weight.grad.numpy()


def run(*arguments):
    return CliRunner().invoke(app, ["simt", *arguments], env={"COLUMNS": "200"})


# Reports


def test_report_of_a_call():
    x = image()
    with simt.check() as report:
        y = F.relu(x)
    assert np.array_equal(y, np.maximum(x, 0))
    assert report.findings == []
    assert report.counters.launches == 1
    read, written = report.requests
    assert (read.write, written.write, read.shared) == (False, True, False)
    for line in (read, written):
        assert line.kernel.startswith("activation_kernel")
        assert (line.file, line.caller.partition(":")[0]) == ("vector.h", "activation.cu")
        assert line.bytes == x.nbytes
        assert line.sectors == line.ideal_sectors == x.nbytes // 32
    assert simt.requests() == report.requests  # until the next clear
    simt.clear()
    assert simt.requests() == []
    assert simt.counters() == simt.Counters(*[0] * 8)


def test_static_shared_arrays_of_the_extension_are_watched():
    """Their names and sizes come from the symbol table of a library that Python has loaded."""
    with simt.check() as report:
        prelu_gradients()
    shared = [line for line in report.requests if line.shared]
    assert {line.file for line in shared} == {"reduce.h"}
    assert {line.write for line in shared} == {True, False}
    assert report.counters.barriers > 0
    assert report.findings == []


def test_report_of_a_block_that_raises():
    with pytest.raises(ZeroDivisionError), simt.check() as report:
        F.relu(image())
        raise ZeroDivisionError
    assert report.counters.launches == 1
    assert lamina.get_backend() != "simt_check"


# Schedules


@pytest.mark.parametrize("backend", ["simt", "simt_check"])
def test_schedules_give_the_same_bits(backend):
    results = []
    for name, seed in (("forward", 1), ("reverse", 1), ("random", 1), ("random", 2)):
        with simt.schedule(name, seed), lamina.backend(backend):
            results.append(prelu_gradients())
    for result in results[1:]:
        for found, expected in zip(result, results[0], strict=True):
            assert np.array_equal(found, expected)


def test_schedule_is_restored(monkeypatch):
    calls = []

    class Module:
        def set_schedule(self, name, seed):
            calls.append((name, seed))

    monkeypatch.setattr(lamina.runtime, "load_backend", lambda name: Module())
    with simt.schedule("random", 5):
        with pytest.raises(ZeroDivisionError), simt.schedule("reverse"):
            raise ZeroDivisionError
        assert calls[::2] == calls[1::2] == [("random", 5), ("reverse", 1), ("random", 5)]
    assert calls[-1] == ("forward", 1)


def test_bad_schedule_is_refused():
    message = "'forward', 'reverse' or 'random', got 'sideways'"
    with pytest.raises(ValueError, match=message), simt.schedule("sideways"):
        pass


# The command


def test_command_reports_lines_and_totals():
    result = run("relu6")
    assert result.exit_code == 0, result.output
    for part in ("activation_kernel<float,", "vector.h:", "global read", "sectors 1.00"):
        assert part in result.output
    assert "calls without a finding" in result.output


def test_command_takes_shapes_and_algorithms():
    arguments = "--x", "1x4x8x8", "--weight", "4x4x3x3", "--padding", "1", "--no-lines"
    result = run(*arguments, "--pass", "fprop", "--algo", "direct", "--schedule", "random")
    assert result.exit_code == 0, result.output
    assert "conv2d fprop direct" in result.output
    assert "1 of 1 calls without a finding" in result.output


def test_findings_are_printed_and_fail(monkeypatch):
    finding = simt.Finding("race-shared", "some_kernel", "thread 0 at x.cu:3", 7)
    monkeypatch.setattr(simt, "findings", lambda: [finding])
    result = run("tanh", "--no-lines")
    assert result.exit_code == 1
    assert "race-shared x7  kernel some_kernel: thread 0 at x.cu:3" in result.output


def test_command_runs_the_samples_that_an_algorithm_takes():
    result = run("conv", "--algo", "winograd", "--pass", "dgrad", "--no-lines")
    assert result.exit_code == 0, result.output
    assert "conv3x3 dgrad winograd" in result.output and "conv5x5" not in result.output


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nonsense"], "nonsense"),
        (["conv", "--algo", "nonsense"], "algo='nonsense'"),
        (["--x", "1x4x8x8", "--weight", "4x4x5x5", "--algo", "winograd"], "needs a 3x3 filter"),
        (["relu", "--algo", "nonsense"], "algo='nonsense'"),
        (["--x", "1x4x8x8"], "--weight go together"),
        (["relu", "--pass", "sideways"], "sideways"),
        (["relu", "--dtype", "int8"], "int8"),
        (["relu", "--schedule", "sideways"], "sideways"),
        (["--x", "1x4x8x8", "--weight", "4x3x3x3"], "channels"),
    ],
)
def test_command_refuses_bad_options(arguments, word):
    result = run(*arguments)
    assert result.exit_code == 2
    assert word in result.output


def test_layers_are_scaled_to_what_can_be_watched():
    for layers in FAMILIES.values():
        for layer in layers:
            if isinstance(layer, ConvLayer):
                small = command.scaled(layer)
                assert small.c <= 32 and small.k <= 32 and not small.transposed
                assert min(small.y_shape(1)) >= 1
                assert (small.kernel, small.stride) == (layer.kernel, layer.stride)


CALL = """
import numpy as np, lamina
from lamina import functional as F
F.relu(np.ones(3, np.float32))
print(lamina.last_plan().backend)
"""


@pytest.mark.parametrize(("name", "said"), [("simt", "simt\n"), ("cuda?", "got name='cuda?'")])
def test_environment_names_the_backend(name, said):
    """From the first call on; an unknown one ends the import."""
    done = subprocess.run(
        [sys.executable, "-c", CALL],
        env={**os.environ, "LAMINA_BACKEND": name},
        capture_output=True,
        text=True,
    )
    assert said in (done.stderr if done.returncode else done.stdout)
