"""Pictures of benchmark reports."""

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


# Grey and two colours that stand out on white and on black.
_GREY, _FASTER, _SLOWER = "#808080", "#2f8fdd", "#dd6b2f"


def ratios(report: dict[str, Any], path: Path, peer: str = "torch") -> None:
    """A dot for each layer, a line for each family and pass: a peer's time over Lamina's.

    The background is transparent. Raises ValueError for a report without that peer.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    lines = [row for row in report["summary"] if row["peer"] == peer]
    if not lines:
        raise ValueError(f"plot: the report has no times of {peer}")
    figure = Figure(figsize=(9, 1.2 + 0.42 * len(lines)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    spread = np.random.default_rng(0)
    for height, line in enumerate(reversed(lines)):
        found = np.array(
            [
                row["ratio"][peer]
                for row in report["rows"]
                if (row["family"], row["pass"]) == (line["family"], line["pass"])
                and peer in row["ratio"]
            ]
        )
        colours = np.where(found >= 1, _FASTER, _SLOWER)
        at = height + spread.uniform(-0.22, 0.22, len(found))
        axes.scatter(found, at, s=16, c=colours, alpha=0.7, linewidths=0)
        axes.plot([line["geomean"]] * 2, [height - 0.36, height + 0.36], color=_GREY, lw=2)
        label = f"{line['geomean']:.2f}x"
        axes.annotate(
            label, (1.01, height), xycoords=("axes fraction", "data"), va="center", color=_GREY
        )
    axes.axvline(1, color=_GREY, lw=0.8, ls="--")
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    ticks = [tick for tick in (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64) if low <= tick <= high]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", bottom=False)
    names = [f"{line['family']} {line['pass']} ({line['layers']})" for line in reversed(lines)]
    axes.set_yticks(range(len(lines)), names)
    axes.tick_params(colors=_GREY)
    for side in axes.spines.values():
        side.set_color(_GREY)
    threads = f"{report['threads']} thread{'s' if report['threads'] > 1 else ''}"
    axes.set_title(
        f"Time of {peer} over Lamina's, {threads}, {report['isa']}; bars: geometric means",
        color=_GREY,
        fontsize=10,
    )
    figure.savefig(path, dpi=120)
