"""The roofline picture of a benchmark report."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np


def roofline(report: dict[str, Any], path: Path) -> None:
    """Measured GFLOP/s over arithmetic intensity, under this machine's ceilings."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    peak, bandwidth = report["roofline"]["gflops"], report["roofline"]["gbytes"]
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    intensity = np.geomspace(0.05, 2000, 200)
    axes.loglog(intensity, np.minimum(peak, intensity * bandwidth), color="black", label="ceiling")
    counted = [row for row in report["rows"] if row["gflops"]]  # a copy has no place on this plane
    kernels = sorted({row["kernel"] for row in counted})
    for marker, kernel in zip(cycle("osD^vP*X"), kernels, strict=False):
        rows = [row for row in counted if row["kernel"] == kernel]
        axes.loglog(
            [row["intensity"] for row in rows],
            [row["gflops"] for row in rows],
            marker,
            label=kernel,
            alpha=0.8,
        )
    axes.set_xlabel("FLOP per byte moved at least")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(f"Layers, {report['threads']} threads, {report['isa']}")
    axes.legend()
    figure.savefig(path, dpi=120)
