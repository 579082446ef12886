"""`lamina plan`: the choice of a convolution's kernels, explained."""

from __future__ import annotations

from rich.table import Table

import lamina

from .. import _C
from ..functional import conv


def parse_shape(name: str, text: str) -> tuple[int, ...]:
    """ "1x64x56x56" as a tuple. Raises ValueError for anything else."""
    try:
        shape = tuple(int(word) for word in text.lower().split("x"))
    except ValueError:
        shape = ()
    if not 3 <= len(shape) <= 5 or min(shape) < 1:
        raise ValueError(f"plan: {name} must be 3 to 5 sizes such as 1x64x56x56, got {text!r}")
    return shape


def parse_geometry(
    x_text: str, weight_text: str, stride: int, padding: int, dilation: int, groups: int
) -> tuple[tuple[int, ...], tuple[int, ...], conv.Geometry]:
    """Shapes of x and weight, and how they meet. Raises ValueError if they do not fit."""
    x, weight = parse_shape("x", x_text), parse_shape("weight", weight_text)
    if len(x) != len(weight):
        raise ValueError(f"plan: x and weight must have equal ranks, got {x_text}, {weight_text}")
    if x[1] != weight[1] * groups or weight[0] % groups:
        raise ValueError(
            f"plan: x has {x[1]} channels but weight expects {weight[1] * groups}, and groups "
            f"must divide {weight[0]}"
        )
    n = len(x) - 2
    geometry = conv.Geometry(
        f"conv{n}d",
        (stride,) * n,
        ((padding, padding),) * n,
        (dilation,) * n,
        groups,
        "auto",
        -1,
    )
    return x, weight, geometry


def explain(
    x_text: str, weight_text: str, stride: int, padding: int, dilation: int, groups: int
) -> Table:
    """A table of pass, algorithm, workspace and refusals."""
    x, weight, geometry = parse_geometry(x_text, weight_text, stride, padding, dilation, groups)
    shape = conv.conv_shape(geometry, x, weight)
    table = Table("pass", "algorithm", "workspace", "refused, and why")
    for pass_ in ("fprop", "dgrad", "wgrad", "bgrad"):
        _C.conv_plan(geometry.op, pass_, shape)
        plan = lamina.last_plan()
        table.add_row(
            pass_,
            plan.algo,
            f"{plan.workspace_bytes / 2**20:.2f} MiB",
            "\n".join(f"{algo}: {reason}" for algo, reason in plan.refusals),
        )
    return table
