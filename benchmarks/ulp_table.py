"""The table of the vector functions' largest errors, in units in the last place.

tests/every_float.cpp measures them, one program an instruction set. Prints the table of
docs/developing.md with the columns measured anew; --write puts it there. --check takes fewer
arguments, seconds, and fails if an error is larger than the table says.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "developing.md"
BEGIN, END = "<!-- ulp -->\n", "<!-- /ulp -->\n"
ISAS = {"avx512": "AVX-512", "avx2": "AVX2", "baseline": "baseline"}
# STRIDE,FAR of every_float: all floats from 2^-20 to 2^9, every 61st of the others; few of them.
MOST, FEW = "1,61", "997"
SLACK = 0.05  # of the few, those below 2^-20 and from 2^9 on may be others


class Measured(NamedTuple):
    """Of one function: error and bound, in units in the last place."""

    error: float
    bound: str


def measure(program: Path, arguments: str) -> dict[str, Measured]:
    """What the program finds. Raises SystemExit if it is not built or misses a bound."""
    if not program.exists():
        raise SystemExit(f"ulp_table: no {program}: cmake --build {program.parent} -t every_float")
    done = subprocess.run([str(program), arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"ulp_table: {program.name} {arguments} fails:\n{done.stdout}{done.stderr}"
        )
    lines = re.findall(r"^(\w+) +([\d.]+) ulp \(bound ([\d.]+)\)", done.stdout, re.MULTILINE)
    return {name: Measured(float(error), bound) for name, error, bound in lines}


def read() -> dict[str, dict[str, str]]:
    """The page's table, as cells by function and column."""
    _, _, rest = PAGE.read_text().partition(BEGIN)
    header, _, *rows = rest.partition(END)[0].strip().splitlines()
    titles = _cells(header)[1:]
    return {row[0]: dict(zip(titles, row[1:], strict=True)) for row in map(_cells, rows)}


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def updated(cells: dict[str, dict[str, str]], found: dict[str, dict[str, Measured]]) -> str:
    """The table with the columns of `found`, by instruction set, in the place of their old ones."""
    names = next(iter(found.values()))
    rows = {name: dict(cells.get(name, {})) for name in names}
    for isa, errors in found.items():
        for name, (error, bound) in errors.items():
            shared, _, own = rows[name].get("bound", "").partition(", baseline ")
            if isa == "baseline":
                own = bound
            else:
                shared = bound
            differ = shared and own not in ("", shared)
            text = f"{shared}, baseline {own}" if differ else shared or own
            rows[name] |= {"bound": text, ISAS[isa]: f"{error:.2f}"}
    columns = ["bound", *ISAS.values()]
    lines = ["| function | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(row.get(column, "") for column in columns) + " |")
    return "\n".join(lines) + "\n"


def stale(cells: dict[str, dict[str, str]], found: dict[str, dict[str, Measured]]) -> list[str]:
    """What the table says otherwise."""
    problems = []
    for isa, errors in found.items():
        for name, (error, bound) in errors.items():
            row = cells.get(name)
            if row is None:
                problems.append(f"{name} has no row")
                continue
            shared, _, own = row["bound"].partition(", baseline ")
            if bound != (own or shared if isa == "baseline" else shared):
                problems.append(f"{name}, {isa}: bound {bound}, the table has {row['bound']}")
            if error > float(row[ISAS[isa]]) + SLACK:
                problems.append(f"{name}, {isa}: {error:.2f}, the table has {row[ISAS[isa]]}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="where every_float is")
    parser.add_argument("--isa", nargs="+", choices=ISAS, default=list(ISAS), help="columns")
    parser.add_argument("--write", action="store_true", help="update docs/developing.md")
    parser.add_argument("--check", action="store_true", help="fail if the page says otherwise")
    options = parser.parse_args()
    arguments = FEW if options.check else MOST
    found = {isa: measure(options.build / f"every_float_{isa}", arguments) for isa in options.isa}
    if options.check:
        problems = stale(read(), found)
        print("\n".join(f"ulp_table: {problem}" for problem in problems), end="\n" * bool(problems))
        return bool(problems)
    text = updated(read(), found)
    if not options.write:
        print(text, end="")
        return 0
    head, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(head + BEGIN + text + END + rest.partition(END)[2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
