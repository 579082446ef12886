"""Prints the README's table of speeds from reports of `lamina compare` and functions.py.

--write updates it.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
REPORT = RESULTS / "epyc-zen5-compare-2threads.json"
FUNCTIONS = RESULTS / "epyc-zen5-functions.json"
BEGIN, END = "<!-- speed -->\n", "<!-- /speed -->\n"
FAMILIES = {
    "suite": "convolution layers of known networks",
    "held_out": "convolution layers that no rule was fitted to",
    "lines": "convolution along one axis: audio, text",
    "volumes": "convolution of volumes: video, medical images",
    "drawn": "convolutions put together at random",
    "drawn_lines": "such convolutions along one axis",
    "drawn_volumes": "such convolutions of volumes",
    "networks": "whole networks",
    "networks_fused": "whole networks fused for inference, both libraries",
    "pool": "pooling",
    "norm": "normalisation",
    "activation": "activations",
    "softmax": "softmax and log-softmax",
    "resize": "resizing and shuffling",
    "unfold": "im2col and col2im",
}


def table(report: dict[str, Any]) -> str:
    """One row a family: PyTorch's time over Lamina's, the geometric mean and the least ratio."""
    found = {(row["family"], row["pass"], row["peer"]): row for row in report["summary"]}
    lines = ["| | layers | forward | forward and backward |", "|---|---|---|---|"]
    for family, title in FAMILIES.items():
        peer = "torch.fused" if family == "networks_fused" else "torch"
        rows = [found.get((family, pass_, peer)) for pass_ in ("fprop", "train")]
        cells = [row and f"{row['geomean']:.2f} ({row['worst']:.2f})" for row in rows]
        if rows[0]:
            lines.append(f"| {title} | {rows[0]['layers']} | {cells[0]} | {cells[1] or ''} |")
    return "\n".join(lines) + "\n"


def functions_line(report: dict[str, Any]) -> str:
    """The row of benchmarks/functions.py, which names the way back in its calls."""
    rows = report["threads"]["2"]
    back = [row["ratio"] for row in rows if row["name"].endswith(" and back")]
    forward = [row["ratio"] for row in rows if not row["name"].endswith(" and back")]
    cells = [
        f"{math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f} ({min(ratios):.2f})"
        for ratios in (forward, back)
    ]
    return f"| functions, losses, arithmetic | {len(forward)} | {' | '.join(cells)} |\n"


def main() -> None:
    text = table(json.loads(REPORT.read_text())) + functions_line(json.loads(FUNCTIONS.read_text()))
    if "--write" not in sys.argv:
        print(text, end="")
        return
    readme = ROOT / "README.md"
    head, _, rest = readme.read_text().partition(BEGIN)
    readme.write_text(head + BEGIN + text + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
