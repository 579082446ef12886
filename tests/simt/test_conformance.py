"""CUDA's vocabulary on the CPU does what the programming guide and the PTX ISA say.

The kernels in kernels/ compare themselves with plain loops; here each one must also give the same
bits under every schedule, number of OS threads and fiber switch, and show no finding when watched.
"""

from __future__ import annotations

import re

import pytest

from .build import CORRECT, KERNELS


def named(*files: str) -> list[str]:
    """The tests that the files define."""
    text = "".join((KERNELS / f"{name}.cu").read_text() for name in files)
    return re.findall(r"^TEST\((\w+)\)", text, re.MULTILINE)


# Programs, schedules and how many OS threads share the blocks.
RUNS = [
    ("fast", "forward", 1),
    ("fast", "reverse", 1),
    ("fast", "random", 1),
    ("fast", "forward", 2),
    ("fast", "random", 4),
    ("ucontext", "forward", 1),
    ("ucontext", "random", 2),
    ("check", "forward", 1),
    ("check", "reverse", 1),
    ("check", "random", 1),
]
# These let kernels fail, and go on.
FAILING = {"errors_leave_nothing_behind": {"assertion", "exception"}}
FAILING["launch_inside_a_kernel"] = {"exception"}


@pytest.mark.parametrize("run", RUNS, ids=lambda run: "-".join(map(str, run)))
@pytest.mark.parametrize("name", named(*CORRECT))
def test_kernels(programs, name, run):
    program, schedule, threads = run
    result = programs[program].results(schedule, threads)[name]
    assert result.failure == ""
    assert {finding["kind"] for finding in result.findings} <= FAILING.get(name, set())
    assert result.digest == programs["fast"].results()[name].digest


def test_every_test_runs(programs):
    assert set(programs["fast"].results()) == set(named(*CORRECT))
    assert set(named(*CORRECT)) < set(programs["check"].results())
