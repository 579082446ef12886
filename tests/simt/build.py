"""Compiles the test programs of the SIMT runtime: its own sources and the kernels beside this file.

The checking build takes the flags that csrc/simt/CMakeLists.txt gives Lamina's kernels.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

KERNELS = Path(__file__).parent / "kernels"
CSRC = Path(__file__).parents[2] / "csrc"
CHECKER = ("check", "source_lines")  # files of the runtime that only the checking build links
# Kernels without an error, which every build runs, and those that only the checking build does.
CORRECT = ("collectives", "memory", "tensor", "copies", "launches")
CHECKED = ("counters", "races", "divergence", "accesses", "asynchrony")


def compiler() -> list[str] | None:
    """$CXX, else c++ or g++, behind ccache where there is one; None without a compiler."""
    named = (
        os.environ.get("CXX", "").split()
        or [name for name in ("c++", "g++") if shutil.which(name)][:1]
    )
    if not named or not CSRC.is_dir():
        return None
    return [*(["ccache"] if shutil.which("ccache") else []), *named]


def check_flags() -> list[str]:
    """What the build system compiles the watched kernels with."""
    text = (CSRC / "simt" / "CMakeLists.txt").read_text()
    options = re.search(r"target_compile_options\(\s*lamina_simt_check_kernels(.*?)\)", text, re.S)
    shared = re.search(r"set\(kernel_options (.*?)\)", text)
    assert options and shared
    words = options[1].replace("${kernel_options}", shared[1]).split()
    return [*(word for word in words if word.startswith("-")), "-DSIMT_CHECK"]


class Result(NamedTuple):
    """What one test of a program reported; findings and requests only if it was checked."""

    failure: str
    digest: str
    counters: dict[str, int]
    findings: list[dict[str, Any]]
    requests: list[dict[str, Any]]


class Program(NamedTuple):
    """An executable with named tests."""

    path: Path

    def names(self) -> list[str]:
        return subprocess.check_output([self.path, "list"], text=True).split()

    @cache  # noqa: B019
    def results(self, schedule: str = "forward", threads: int = 1) -> dict[str, Result]:
        """Runs all tests in one process: each must leave the runtime fit for the next."""
        done = subprocess.run(
            [self.path, "run", schedule, str(threads)], capture_output=True, text=True, timeout=120
        )
        found = {}
        for line in done.stdout.splitlines():
            entry = json.loads(line)
            counters = {k: entry[k] for k in ("launches", "flops", "special", "mma_flops")}
            found[entry["name"]] = Result(
                entry["failure"],
                entry["digest"],
                counters,
                entry.get("findings", []),
                entry.get("requests", []),
            )
        assert done.returncode == 0, f"exit status {done.returncode} after {list(found)[-1:]}"
        return found


def build(folder: Path) -> dict[str, Program]:
    """The programs "fast", "ucontext" (with the portable fiber switch) and "check"."""
    command = compiler()
    assert command
    basic = [*command, "-std=c++20", "-pthread", f"-I{CSRC}"]
    fast = ["-O1", "-fno-strict-aliasing"]
    jobs: dict[Path, list[str]] = {}

    def compiled(source: Path, name: str, flags: list[str]) -> Path:
        target = folder / f"{name}.{source.stem}.o"
        jobs[target] = [*basic, *flags, "-x", "c++", "-c", str(source), "-o", str(target)]
        return target

    runtime, checker = [], []
    for source in sorted((CSRC / "simt").glob("*.cpp")):
        mine = source.stem.startswith(CHECKER)
        (checker if mine else runtime).append(compiled(source, "runtime", ["-O1"]))
    portable = compiled(CSRC / "simt" / "fiber.cpp", "ucontext", ["-O1", "-DSIMT_UCONTEXT"])
    sources = [KERNELS / f"{name}.cu" for name in CORRECT]
    kernels = [compiled(source, "fast", fast) for source in [KERNELS / "main.cpp", *sources]]
    sources += [KERNELS / f"{name}.cu" for name in CHECKED]
    watched = [compiled(source, "check", check_flags()) for source in sources]
    watched.append(compiled(KERNELS / "main.cpp", "check", ["-O1", "-DSIMT_CHECK"]))

    other = [portable if path.name == "runtime.fiber.o" else path for path in runtime]
    programs = {
        "fast": [*runtime, *kernels],
        "ucontext": [*other, *kernels],
        "check": [*runtime, *checker, *watched],
    }
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_run, jobs.values()))
        links = [
            [*basic, *map(str, objects), "-o", str(folder / name), "-ldl"]
            for name, objects in programs.items()
        ]
        list(pool.map(_run, links))
    return {name: Program(folder / name) for name in programs}


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, " ".join(command) + "\n" + done.stderr
