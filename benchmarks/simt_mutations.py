"""Takes barriers and waits out of the CUDA kernels, one at a time: does the checking build notice?

    python benchmarks/simt_mutations.py                    all of them, into docs/simt-mutations.md
    python benchmarks/simt_mutations.py reduce.h lines.h   their rows of that page anew
    python benchmarks/simt_mutations.py --list

A mutant is compiled for float32 (and float16 where the file has kernels of its own for it) and
linked in front of the objects of the build directory, whose weak copies of the same kernels then
give way. The tests of the family run on it until the checker finds something. Needs the build
directory of an editable install (docs/developing.md) and the tests.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CUDA = ROOT / "csrc" / "cuda"
TABLE = ROOT / "docs" / "simt-mutations.md"
WAITS = re.compile(
    r"__syncthreads\(\)|__syncwarp\([^;]*?\)|__syncthreads_\w+\([^;]*?\)"
    r"|(?:simt::)?(?:cp_async_wait<[^>]*>\(\)|mbarrier_wait\([^;]*?\))"
)
SECONDS = 40  # of tests for one mutant

# What exercises a source file: test files, and an expression to choose among their tests. A file
# that is not listed takes the tests of its own name.
TESTS = {
    "activation": ("tests/test_activation.py", "prelu"),
    "batched_product": ("tests/test_conv_tiled.py", ""),
    "conv_depthwise": ("tests/test_conv_cuda.py", "depthwise"),
    "conv_direct": ("tests/test_conv_cuda.py", "direct"),
    "conv_fft": ("tests/test_conv_tiled.py", "fft"),
    "conv_implicit_gemm": ("tests/test_conv_cuda.py", "implicit_gemm"),
    "conv_im2col": ("tests/test_conv_cuda.py", "im2col"),
    "conv_winograd": ("tests/test_conv_tiled.py", "winograd"),
    "gemm": ("tests/test_gemm.py", ""),
    "im2col": ("tests/test_fold.py", ""),
    "nms": ("tests/test_roi.py", "nms"),
    "optimizer": ("tests/test_optim.py", ""),
    "permute": ("tests/test_resize.py", "shuffle"),
    "pool": ("tests/test_pooling.py", ""),
    "resample": ("tests/test_resize.py", ""),
    "roi": ("tests/test_roi.py", "roi"),
    "softmax": ("tests/test_softmax.py", ""),
}
# Files with kernels for 16-bit elements alone.
ALSO_FLOAT16 = {"gemm", "conv_im2col", "conv_implicit_gemm"}


class Mutant(NamedTuple):
    """A wait that is taken out."""

    path: Path
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(CUDA)}:{self.line} {self.text}"

    def source(self) -> str:
        """The file without it."""
        lines = self.path.read_text().splitlines(keepends=True)
        line = lines[self.line - 1]
        end = self.column + len(self.text)
        lines[self.line - 1] = line[: self.column] + "(void)0" + line[end:]
        return "".join(lines)


class Verdict(NamedTuple):
    """by: "checker", "numbers", "neither", or "no test" if nothing ran the line's file."""

    by: str
    how: str
    seconds: float


def mutants(names: list[str]) -> list[Mutant]:
    """Those of the named files, or of all."""
    found = []
    for path in sorted([*CUDA.rglob("*.cu"), *CUDA.rglob("*.h")]):
        if names and path.name not in names:
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            code = line.partition("//")[0]
            found += [Mutant(path, number, m.start(), m[0]) for m in WAITS.finditer(code)]
    return found


def users(path: Path) -> list[Path]:
    """The kernel files that a file is part of, through any number of headers."""
    if path.suffix == ".cu":
        return [path]
    name = f'"cuda/{path.relative_to(CUDA)}"'
    found: set[Path] = set()
    for other in [*CUDA.rglob("*.cu"), *CUDA.rglob("*.h")]:
        if f"#include {name}" in other.read_text():
            found.update(users(other))
    return sorted(found, key=lambda user: user.stat().st_size)


# Building


class Workshop:
    """A copy of csrc/cuda to mutate, and a copy of the package to put the library in."""

    def __init__(self, build: Path, folder: Path) -> None:
        self.build, self.folder = build, folder
        self.sources = folder / "csrc" / "cuda"
        self.package = folder / "python" / "lamina"
        shutil.copytree(CUDA, self.sources)
        self.package.mkdir(parents=True)
        for path in (ROOT / "python" / "lamina").iterdir():
            if not path.name.startswith(("_simt_check", "__pycache__")):
                (self.package / path.name).symlink_to(path)
        for name in ("_C", "_simt"):  # an editable install keeps them elsewhere
            origin = Path(importlib.util.find_spec(f"lamina.{name}").origin)  # type: ignore
            if not (self.package / origin.name).exists():
                (self.package / origin.name).symlink_to(origin)
        self.commands = json.loads((build / "compile_commands.json").read_text())
        target = next(build.rglob("_simt_check.*.so")).relative_to(build)
        listed = subprocess.check_output(["ninja", "-t", "commands", str(target)], cwd=build)
        link = listed.decode().splitlines()[-1]
        self.link = next(part for part in link.split(" && ") if " -shared " in part).split()

    def compile(self, source: Path, mutant: Mutant | None) -> Path:
        """The checking build's object of a kernel file, with the mutant if there is one."""
        if mutant:
            (self.sources / mutant.path.relative_to(CUDA)).write_text(mutant.source())
        types = ["float", *(["float16"] if source.stem in ALSO_FLOAT16 else [])]
        lines = " ".join(f"template void kernel<{t}>(const ops::Args<{t}>&);" for t in types)
        (self.sources / "instantiate.h").write_text(
            '#pragma once\n#include "cuda/device/numeric.h"\n'
            f"#define LAMINA_CUDA_INSTANTIATE(kernel, Args) {lines}\n"
        )
        commands = [
            entry["command"].split()
            for entry in self.commands
            if entry["file"].endswith(f"/{source.name}") and "check_kernels" in entry["command"]
        ]
        if not commands:
            raise RuntimeError(f"the build directory does not know {source.name}: build again")
        command = commands[0]
        target = self.folder / "mutant.o"
        command[command.index("-o") + 1] = str(target)
        command[command.index("-c") + 1] = str(self.sources / source.relative_to(CUDA))
        first = 1 + command[0].endswith("ccache")
        command[first:first] = [f"-I{self.sources.parent}", f"-I{ROOT / 'csrc'}"]
        try:
            _run([*command, "-w"], self.build)
        finally:
            if mutant:
                shutil.copy(mutant.path, self.sources / mutant.path.relative_to(CUDA))
        return target

    def make_library(self, mutant_object: Path) -> None:
        link = list(self.link)
        first = next(i for i, word in enumerate(link) if word.endswith(".o"))
        link.insert(first, str(mutant_object))
        at = link.index("-o") + 1
        link[at] = str(self.package / Path(link[at]).name)
        _run(
            [*link, "-Wl,--allow-multiple-definition"], self.build
        )  # kernels that are no templates

    def judge(self, stem: str) -> tuple[str, str]:
        """Runs the tests of a kernel file on the library: (by, how)."""
        where, expression = TESTS.get(stem, (f"tests/test_{stem}.py", ""))
        path = os.pathsep.join([str(self.package.parent), str(ROOT / "tests")])
        command = [sys.executable, __file__, "--judge", str(ROOT / where), expression]
        environment = {**os.environ, "PYTHONPATH": path, "LAMINA_TEST_BACKENDS": "simt_check"}
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                env=environment,
                cwd=self.folder,
                timeout=3 * SECONDS,
            )
        except subprocess.TimeoutExpired:
            return "numbers", "the tests do not end"
        verdict = [line for line in done.stdout.splitlines() if line.startswith("verdict ")]
        if not verdict:
            return "numbers", f"the tests end with status {done.returncode}: {done.stderr[-200:]}"
        by, _, how = verdict[-1].removeprefix("verdict ").partition(" ")
        return by, how


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(" ".join(command) + "\n" + done.stderr)


def try_mutant(workshop: Workshop, mutant: Mutant) -> Verdict:
    """The first kernel file of those it is part of whose tests notice decides."""
    start, verdict = time.perf_counter(), ("neither", "")
    for source in users(mutant.path):
        workshop.make_library(workshop.compile(source, mutant))
        by, how = workshop.judge(source.stem)
        if by == "checker" or (by == "numbers" and verdict[0] == "neither"):
            verdict = by, how
        if by == "checker":
            break
    return Verdict(*verdict, time.perf_counter() - start)


# Judging, in a process of its own


class Judge:
    """A pytest plugin that ends at the first finding and remembers failures without one."""

    def __init__(self) -> None:
        self.by, self.how, self.ran = "neither", "", 0
        self.start = time.perf_counter()

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when != "call":
            return
        from lamina import simt

        self.ran += 1
        found = simt.findings()
        if found:
            self.by, self.how = "checker", f"{found[0].kind}: {found[0].text}"
        elif report.failed and self.by == "neither":
            self.by, self.how = "numbers", report.nodeid.rpartition("::")[2]

    def pytest_runtest_teardown(self, item: Any) -> None:
        if self.by == "checker" or time.perf_counter() - self.start > SECONDS:
            item.session.shouldstop = self.by


def judge(where: str, expression: str) -> None:
    """Prints the verdict on the installed library."""
    # An editable install's finder would lead back to the library of the build directory.
    sys.meta_path[:] = [f for f in sys.meta_path if "Redirecting" not in type(f).__name__]
    import pytest

    library = importlib.util.find_spec("lamina._simt_check")
    assert library and Path.cwd().resolve() in Path(str(library.origin)).resolve().parents
    plugin = Judge()
    options = [
        "-q",
        "-p",
        "no:benchmark",
        "--rootdir",
        str(ROOT),
        "-c",
        str(ROOT / "pyproject.toml"),
    ]
    pytest.main([*options, where, *(["-k", expression] if expression else [])], plugins=[plugin])
    print(f"\nverdict {plugin.by if plugin.ran else 'numbers'} {plugin.how or 'no test ran'}")


# The table

HEAD = """# Barriers and waits of the CUDA kernels, taken out one at a time

Written by `python benchmarks/simt_mutations.py`: each line is removed, the kernel compiled for the
checking build, and the tests of its family run until something is found. *Checker*: a finding,
which names the accesses; *numbers*: only a wrong result; *neither*: the tests cannot tell.

"""


def row(mutant: Mutant, verdict: Verdict) -> str:
    how = verdict.how.replace("|", "\\|")
    place = f"{mutant.path.relative_to(CUDA)}:{mutant.line}"
    return f"| {place} | `{mutant.text}` | {verdict.by} | {how} |"


def kept_rows(files: set[Path]) -> list[str]:
    """Those of the page that are about other files."""
    names = {str(path.relative_to(CUDA)) for path in files}
    rows = TABLE.read_text().splitlines() if TABLE.exists() else []
    about = {r: r.removeprefix("| ").partition(":")[0] for r in rows if r.startswith("| ")}
    return [r for r, name in about.items() if name not in names and not r.startswith("| line |")]


def table(rows: list[str]) -> str:
    """Rows sorted by file and line, under their sums."""
    counts = {by: sum(f"` | {by} |" in r for r in rows) for by in ("checker", "numbers", "neither")}
    found = ", ".join(f"{count} by {by}" for by, count in counts.items())

    def order(r: str) -> tuple[str, int]:
        name, _, rest = r.removeprefix("| ").partition(":")
        return name, int(rest.split()[0])

    head = [
        f"Of {len(rows)} lines: {found}.\n",
        "| line | removed | noticed by | how |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *sorted(rows, key=order)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "files", nargs="*", help="names of files in csrc/cuda; all if none is given"
    )
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--list", action="store_true", help="print the lines and end")
    parser.add_argument("--judge", nargs=2, metavar=("TESTS", "EXPRESSION"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.judge:
        judge(*options.judge)
        return
    chosen = mutants(options.files)
    if options.list:
        print("\n".join(map(str, chosen)))
        return
    rows = kept_rows({mutant.path for mutant in chosen}) if options.files else []
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(options.build.resolve(), Path(folder))
        for mutant in chosen:
            verdict = try_mutant(workshop, mutant)
            rows.append(row(mutant, verdict))
            print(f"{mutant}: {verdict.by}, {verdict.how} ({verdict.seconds:.0f} s)", flush=True)
            TABLE.write_text(HEAD + table(rows))  # now: what is interrupted is not lost


if __name__ == "__main__":
    main()
