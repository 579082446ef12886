"""`lamina parity`: the same calls to torch and to lamina, results and gradients side by side.

Everything runs in float64. A call agrees if all results and gradients differ by at most BOUND of
the largest element: fewer than 1000 roundings at functions of slope below 10.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import lamina

from .. import functional, nn
from .parity_cases import DIFFERENT, FUNCTIONS, LAYERS, NOT_OFFERED, STRUCTURE, Call, Layer, Real

BOUND = 1e-11


class Entry(NamedTuple):
    """One line of the table."""

    name: str
    verdict: str  # "same", "different" or "not offered"
    agreeing: int
    calls: int
    note: str


def _arrays(values: Any) -> list[Any]:
    return list(values) if isinstance(values, tuple | list) else [values]


def _agree(ours: Any, theirs: Any) -> bool:
    """Arrays of one shape; floats within BOUND, integers equal."""
    if ours.shape != tuple(theirs.shape):
        return False
    if theirs.dtype.kind != "f":
        return bool((ours == theirs).all())
    scale = max(float(np.abs(theirs).max(initial=0)), 1.0)
    return bool(np.allclose(ours, theirs, rtol=0, atol=BOUND * scale, equal_nan=True))


def _inputs(values: Any, seed: int) -> list[tuple[Any, bool]]:
    """(value or array, whether it takes part in gradients)."""
    result = []
    for index, value in enumerate(values):
        if isinstance(value, Real):
            result.append((value.array(seed + index), value.gradient))
        else:
            result.append((value.copy() if isinstance(value, np.ndarray) else value, False))
    return result


def _sides(values: list[tuple[Any, bool]], torch: Any) -> tuple[list[Any], list[Any]]:
    """The values for lamina and for torch."""
    ours = [
        lamina.tensor(v, requires_grad=g) if isinstance(v, np.ndarray) else v for v, g in values
    ]
    theirs = [
        torch.tensor(v, requires_grad=g) if isinstance(v, np.ndarray) else v for v, g in values
    ]
    return ours, theirs


def _results_agree(ours: Any, theirs: Any, pairs: list[tuple[Any, Any]], torch: Any) -> bool:
    """Results, and the gradients of the pairs of leaves under one random gradient."""
    ours, theirs = _arrays(ours), _arrays(theirs)
    if len(ours) != len(theirs):
        return False
    good = True
    totals: list[Any] = [None, None]
    for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        array = other.detach().numpy()
        good &= _agree(mine.data, array)
        if other.requires_grad and good:
            weight = np.random.default_rng(100 + index).normal(size=array.shape)
            for side, term in enumerate((mine * weight, other * torch.tensor(weight))):
                total = term.sum()
                totals[side] = total if totals[side] is None else totals[side] + total
    if totals[1] is None or not good:
        return good
    for total in totals:
        total.backward()
    return all(
        _agree(mine.grad.data, other.grad.numpy())
        for mine, other in pairs
        if other.requires_grad and other.grad is not None
    )


def call_agrees(name: str, call: Call) -> bool:
    """Whether torch.nn.functional's and lamina's function agree on one call."""
    import torch

    values = _inputs([*call.args, *call.options.values()], seed=1)
    ours, theirs = _sides(values, torch)
    count = len(call.args)
    keys = list(call.options)
    mine = getattr(functional, name)(*ours[:count], **dict(zip(keys, ours[count:], strict=True)))
    other = getattr(torch.nn.functional, name)(
        *theirs[:count], **dict(zip(keys, theirs[count:], strict=True))
    )
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if isinstance(b, torch.Tensor)]
    return _results_agree(mine, other, pairs, torch)


def layer_agrees(name: str, layer: Layer) -> bool:
    """Whether the layers agree on repr, state, results, gradients and running statistics."""
    import torch

    options, torch_options = (
        {k: make(v) if isinstance(v, np.ndarray) else v for k, v in layer.options.items()}
        for make in (lamina.tensor, torch.tensor)
    )
    theirs = getattr(torch.nn, name)(*layer.arguments, **torch_options).double()
    ours = getattr(nn, name)(*layer.arguments, **options).double()
    state = theirs.state_dict()
    if repr(ours) != repr(theirs) or list(ours.state_dict()) != list(state):
        return False
    rng = np.random.default_rng(0)
    for value in state.values():
        if value.is_floating_point():
            value.copy_(torch.tensor(rng.uniform(0.3, 0.9, tuple(value.shape))))
    ours.load_state_dict({k: v.detach().numpy().copy() for k, v in state.items()})
    mine, other = _sides(_inputs(layer.inputs, seed=1), torch)
    pairs = list(zip(mine, other, strict=True))
    pairs += list(zip(ours.parameters(), theirs.parameters(), strict=True))
    if not _results_agree(ours(*mine), theirs(*other), pairs, torch):
        return False
    return all(_agree(ours.state_dict()[k], v.detach().numpy()) for k, v in state.items())


def _entry(name: str, offered: bool, agree: list[bool]) -> Entry:
    if not offered:
        return Entry(name, "not offered", 0, 0, NOT_OFFERED.get(name, ""))
    verdict = "different" if name in DIFFERENT else "same"
    return Entry(name, verdict, sum(agree), len(agree), DIFFERENT.get(name, ""))


def compare_functions() -> list[Entry]:
    """One entry for every public function of torch.nn.functional."""
    import torch

    space = torch.nn.functional
    names = [
        name
        for name in dir(space)
        if not name.startswith("_")
        and callable(getattr(space, name))
        and not inspect.isclass(getattr(space, name))
    ]
    return [
        _entry(
            name, hasattr(functional, name), [call_agrees(name, c) for c in FUNCTIONS.get(name, [])]
        )
        for name in names
    ]


def compare_layers() -> list[Entry]:
    """One entry for every class of torch.nn."""
    import torch

    names = [name for name in dir(torch.nn) if inspect.isclass(getattr(torch.nn, name))]
    return [
        _entry(name, hasattr(nn, name), [layer_agrees(name, c) for c in LAYERS.get(name, [])])
        for name in names
    ]


def problems(entries: list[Entry]) -> list[str]:
    """Calls that disagree, offered names without a call, gaps without a reason."""
    found = []
    for entry in entries:
        if entry.agreeing < entry.calls:
            found.append(f"{entry.name}: {entry.calls - entry.agreeing} calls disagree")
        if entry.verdict == "not offered" and not entry.note:
            found.append(f"{entry.name}: not offered, and no reason is given")
        exempt = entry.name in STRUCTURE or entry.name in DIFFERENT
        if entry.verdict != "not offered" and not entry.calls and not exempt:
            found.append(f"{entry.name}: offered but never called")
    return found


def _section(title: str, entries: list[Entry]) -> list[str]:
    offered = [e for e in entries if e.verdict != "not offered"]
    calls = sum(e.calls for e in entries)
    agreeing = sum(e.agreeing for e in entries)
    lines = [
        f"## {title}",
        "",
        f"{len(offered)} of {len(entries)} names offered; "
        f"{agreeing} of {calls} sampled calls agree.",
        "",
        "| name | verdict | calls that agree | note |",
        "|---|---|---|---|",
    ]
    for e in entries:
        count = f"{e.agreeing} of {e.calls}" if e.calls else ""
        note = e.note or ("compared by the tests" if e.name in STRUCTURE else "")
        lines.append(f"| `{e.name}` | {e.verdict} | {count} | {note} |")
    return [*lines, ""]


def write_table(path: Path) -> list[str]:
    """Writes the table as Markdown; returns the problems."""
    import torch

    functions, layers = compare_functions(), compare_layers()
    lines = [
        "# Lamina beside torch.nn.functional and torch.nn",
        "",
        f"Written by `lamina parity`, against torch {torch.__version__.split('+')[0]}: the same "
        "calls in float64, results and all gradients compared (bound 1e-11 of the largest element; "
        "layers also by repr, state_dict keys and running statistics).",
        "",
        *_section("torch.nn.functional", functions),
        *_section("torch.nn", layers),
    ]
    path.write_text("\n".join(lines))
    return problems([*functions, *layers])
