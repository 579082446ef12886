"""Prints the README's table of kernels from the registry; --write updates README.md in place."""

from __future__ import annotations

import sys
from pathlib import Path

import lamina


def table() -> str:
    """One row per op and algorithm, one column per backend; cells list the passes."""
    backends = ("ref", "cpu", "simt")
    rows: dict[tuple[str, str], dict[str, list[str]]] = {}
    for kernel in lamina.kernels():
        cells = rows.setdefault((kernel.op, kernel.algo), {})
        cells.setdefault(kernel.backend, []).append(kernel.pass_)
    lines = ["| op | algorithm | ref | cpu | cuda, simt |", "|---" * (2 + len(backends)) + "|"]
    for (op, algo), cells in sorted(rows.items()):
        columns = [", ".join(cells.get(backend, [])) for backend in backends]
        lines.append(f"| {op} | {algo} | {' | '.join(columns)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    if "--write" not in sys.argv:
        print(table(), end="")
        return
    readme = Path(__file__).parent.parent / "README.md"
    head, _, rest = readme.read_text().partition("<!-- kernels -->\n")
    _, _, tail = rest.partition("<!-- /kernels -->\n")
    readme.write_text(f"{head}<!-- kernels -->\n{table()}<!-- /kernels -->\n{tail}")


if __name__ == "__main__":
    main()
