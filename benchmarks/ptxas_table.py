"""What the compiler gives every CUDA kernel: registers, shared memory, spills, occupancy.

    python benchmarks/ptxas_table.py                    # prints the table for sm_90a
    python benchmarks/ptxas_table.py --arch sm_80       # another architecture
    python benchmarks/ptxas_table.py --write            # docs/ptxas.md, for sm_90a
    python benchmarks/ptxas_table.py --check            # exit status 1 if a kernel spills registers

Needs nvcc and ptxas, no GPU. Shared memory is what a kernel declares; what its launch adds is not
known here, so the occupancy is an upper bound for kernels with dynamic shared memory.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
WARPS, REGISTERS, SHARED, BLOCKS = 64, 65536, 227 * 1024, 32  # of a multiprocessor, sm_90
RESERVED_SHARED = 1024  # of every block


class Resources(NamedTuple):
    """Of one instantiation of a kernel."""

    kernel: str
    threads: int  # the most of a block, from __launch_bounds__
    registers: int
    shared: int
    stack: int
    spills: int  # bytes stored and loaded

    @property
    def occupancy(self) -> float:
        """Warps that fit on a multiprocessor, of those it can hold."""
        warps = (self.threads + 31) // 32
        registers = (self.registers * 32 + 255) // 256 * 256 * warps
        blocks = min(
            WARPS // warps,
            REGISTERS // max(registers, 1),
            SHARED // (self.shared + RESERVED_SHARED),
            BLOCKS,
        )
        return blocks * warps / WARPS


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def _readable(names: list[str]) -> list[str]:
    """Demangled, without return type, parameters and namespaces: `pool_kernel<float, 4>`."""
    result = []
    for line in _run("c++filt", *names).splitlines():
        line = line.replace("(anonymous namespace)", "")
        line = re.sub(r"\((int|bool|lamina::\w+(::\w+)*)\)", "", line)  # casts of constants
        depth = 0
        for end, character in enumerate(line):
            depth += {"<": 1, ">": -1}.get(character, 0)
            if character == "(" and depth == 0:
                line = line[:end]
                break
        result.append(re.sub(r"\b\w+::", "", line.removeprefix("void ")).lstrip(":"))
    return result


def resources(source: Path, arch: str) -> list[Resources]:
    """Compiles one file to PTX, which knows the bounds of a block, and that to machine code."""
    with tempfile.TemporaryDirectory() as folder:
        ptx = Path(folder) / "kernels.ptx"
        virtual = arch.replace("sm_", "compute_")
        options = ("-std=c++20", "-O3", "--expt-relaxed-constexpr", f"-I{ROOT / 'csrc'}")
        _run("nvcc", *options, f"-arch={virtual}", "-ptx", "-o", str(ptx), str(source))
        text = ptx.read_text()
        if ".entry" not in text:
            return []
        report = _run("ptxas", "-v", f"-arch={arch}", "-o", os.devnull, str(ptx))
    threads = {
        name: int(bound)
        for name, bound in re.findall(r"\.entry (\w+)\([^{]*?\.maxntid (\d+)", text)
    }
    found = []
    for name, body in re.findall(
        r"Compiling entry function '(\w+)'(.*?)(?=Compiling entry|\Z)", report, re.DOTALL
    ):

        def number(pattern: str, body: str = body) -> int:
            return sum(map(int, re.findall(pattern, body)))

        found.append(
            Resources(
                name,
                threads.get(name, 1024),
                number(r"Used (\d+) registers"),
                number(r"(\d+) bytes smem"),
                number(r"(\d+) bytes stack frame"),
                number(r"(\d+) bytes spill"),
            )
        )
    names = _readable([entry.kernel for entry in found])
    return [entry._replace(kernel=name) for entry, name in zip(found, names, strict=True)]


def table(arch: str, found: dict[str, list[Resources]]) -> str:
    """One row per kernel template and file; ranges are over its instantiations."""

    def span(values: list[int]) -> str:
        low, high = min(values), max(values)
        return str(low) if low == high else f"{low} to {high}"

    lines = [
        f"# Resources of the CUDA kernels on {arch}",
        "",
        "Made by `python benchmarks/ptxas_table.py --write`. Ranges are over the instances of a",
        "kernel; occupancy is the smallest, in warps of the 64 of a multiprocessor.",
        "",
        "| file | kernel | instances | threads | registers | shared | spills | occupancy |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for stem, entries in sorted(found.items()):
        groups: dict[str, list[Resources]] = defaultdict(list)
        for entry in entries:
            groups[entry.kernel.partition("<")[0]].append(entry)
        for kernel, group in sorted(groups.items()):
            lines.append(
                f"| {stem} | {kernel} | {len(group)} | {span([e.threads for e in group])} | "
                f"{span([e.registers for e in group])} | {span([e.shared for e in group])} | "
                f"{sum(e.spills for e in group)} | {min(e.occupancy for e in group):.0%} |"
            )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="sm_90a")
    parser.add_argument("--write", action="store_true", help="write docs/ptxas.md")
    parser.add_argument("--check", action="store_true", help="fail if a kernel spills registers")
    options = parser.parse_args()
    sources = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda source: resources(source, options.arch), sources)
        found = {s.stem: entries for s, entries in zip(sources, results, strict=True) if entries}
    text = table(options.arch, found)
    if options.write:
        (ROOT / "docs" / "ptxas.md").write_text(text)
    else:
        print(text, end="")
    spilling = [e for entries in found.values() for e in entries if e.spills]
    for entry in spilling:
        print(f"spills {entry.spills} bytes: {entry.kernel}", file=sys.stderr)
    return 1 if options.check and spilling else 0


if __name__ == "__main__":
    sys.exit(main())
