"""The command line.

`lamina train | bench | compare | bandwidth | check | parity | info | plan | simt`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(no_args_is_help=True, add_completion=False)
train_app = typer.Typer(no_args_is_help=True, help="Train a network on real data.")
app.add_typer(train_app, name="train")
# Tables need the room; what is not a terminal has no width of its own.
console = Console(width=None if Console().is_terminal else 120)


def _print_version(wanted: bool) -> None:
    if wanted:
        import lamina

        console.print(f"lamina {lamina.__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
) -> None:
    """Handwritten neural-network kernels."""


@train_app.command("digits")
def train_digits(
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 30,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Annotated[Path, typer.Option(help="Where weights and pictures go.")] = Path("runs/digits"),
) -> None:
    """A LeNet-style network on scikit-learn's handwritten digits."""
    from .train import train_digits as run

    try:
        result = run(console, epochs, batch_size, seed, out)
    except OSError as error:  # of the directory, which comes first, or of its files
        raise typer.BadParameter(f"--out: {error}") from None
    console.print(
        f"test accuracy [bold]{result.accuracy:.2%}[/bold] after {epochs} epochs in "
        f"{result.seconds:.1f} s; saved {result.weights} and {result.picture}"
    )


@app.command()
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Families, parts of layers' names, or all.", show_default="conv"),
    ] = None,
    layers: Annotated[str, typer.Option(help="Only layers whose name contains this.")] = "",
    pass_: Annotated[
        str, typer.Option("--pass", help="fprop, dgrad, wgrad (conv), train (others), or all.")
    ] = "fprop",
    batch: Annotated[int, typer.Option(min=1)] = 1,
    threads: Annotated[
        int, typer.Option(min=0, max=4096, help="Of lamina and its peer; 0: all.")
    ] = 0,
    seconds: Annotated[float, typer.Option(min=0.001, help="Time per kernel and layer.")] = 0.3,
    vs: Annotated[str, typer.Option(help="Compare with an installed peer: torch.")] = "",
    ref: Annotated[bool, typer.Option(help="Time the reference backend too (slow).")] = True,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the rows here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a roofline picture here.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Print families and layers.")] = False,
) -> None:
    """Time every algorithm and backend on named layers of known networks."""
    import lamina

    from . import measure
    from .layers import FAMILIES
    from .report import command, write

    if list_:
        for name, several in FAMILIES.items():
            console.print(f"[bold]{name}[/bold]  " + "  ".join(layer.name for layer in several))
        return
    if vs not in ("", "torch"):
        raise typer.BadParameter(f"unknown peer {vs!r}; so far: torch")
    _check_files(json_path, plot)
    if threads:
        lamina.set_num_threads(threads)
    if vs:
        _need_torch()
    try:
        jobs = measure.with_passes(measure.choose(names or ["conv"], layers), pass_)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    report = measure.bench(console, jobs, batch, seconds, bool(vs), ref)
    if json_path:
        write(json_path, {"commands": [command("lamina")]} | report)
    if plot:
        from .plot import roofline

        roofline(report, plot)
    if any(row["wrong"] for row in report["rows"]):
        raise typer.Exit(1)


@app.command()
def compare(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="suite, held_out, tiny, memory, a family, or all.", show_default="suite"
        ),
    ] = None,
    layers: Annotated[str, typer.Option(help="Only rows whose name (vgg2_1_b8) has this.")] = "",
    pass_: Annotated[
        str, typer.Option("--pass", help="fprop, dgrad, wgrad, train, several of them, or all.")
    ] = "all",
    batch: Annotated[int, typer.Option(min=0, help="Only this batch; 0: all.")] = 0,
    threads: Annotated[int, typer.Option(min=0, max=4096, help="Of every library; 0: all.")] = 0,
    seconds: Annotated[float, typer.Option(min=0.001, help="Time per row.")] = 1.0,
    peers: Annotated[
        str,
        typer.Option(
            help="By comma, of torch, torch.default, torch.channels_last, torch.medium, "
            "torch.autocast, onnxruntime, lamina.highest."
        ),
    ] = "torch",
    precision: Annotated[
        str, typer.Option(help="Of Lamina: highest, high or medium (set_float32_precision).")
    ] = "highest",
    algorithms: Annotated[
        bool, typer.Option("--algorithms", help="Time every algorithm of convolution too.")
    ] = False,
    allocator: Annotated[
        str, typer.Option(help="keep: malloc keeps freed memory; default: as it comes.")
    ] = "keep",
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write the rows here; a file there is continued.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a picture of the ratios here.")] = None,
) -> None:
    """Time Lamina beside PyTorch, as a user calls both, on layers of known networks."""
    import lamina

    from . import compare
    from .peers import load_peers
    from .report import command

    if allocator not in ("keep", "default"):
        raise typer.BadParameter(f"--allocator must be keep or default, got {allocator!r}")
    _check_files(json_path, plot)
    if threads:
        lamina.set_num_threads(threads)
    passes = [word for word in pass_.replace(",", " ").split() if word]
    try:
        chosen = compare.subjects(names or ["suite"], passes, layers, batch)
        several = load_peers(peers.replace(",", " ").split(), algorithms)
        report = compare.run(
            console, chosen, several, seconds, allocator, json_path, command("lamina"), precision
        )
        if plot:
            from .plot import ratios

            ratios(report, plot)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except ImportError as error:
        raise typer.BadParameter(f"{error.name} is not installed here") from None
    if any(row.get("wrong") for row in report["rows"]):
        raise typer.Exit(1)


@app.command()
def bandwidth(
    part: Annotated[str, typer.Argument(help="Only kernels whose name contains this.")] = "",
    threads: Annotated[int, typer.Option(min=0, max=4096, help="0: all.")] = 0,
    seconds: Annotated[float, typer.Option(min=0.0, help="Time per kernel.")] = 0.3,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the rows here.")] = None,
) -> None:
    """Time what memory bounds, on tensors beyond the caches, beside copies."""
    import lamina

    from . import bandwidth
    from .report import command, write

    _check_files(json_path)
    if threads:
        lamina.set_num_threads(threads)
    try:
        report = bandwidth.run(console, part, seconds)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if json_path:
        write(json_path, {"commands": [command("lamina")]} | report)


def _check_files(*paths: Path | None) -> None:
    """Says now, not after minutes of measuring, that a file cannot be written."""
    for path in paths:
        if path is None:
            continue
        if not path.parent.is_dir():
            raise typer.BadParameter(f"{path.parent} is not a directory; create it first")
        if path.is_dir():
            raise typer.BadParameter(f"{path} is a directory; name a file in it")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise typer.BadParameter(f"{path} cannot be written; name another file")


def _need_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError:
        raise typer.BadParameter("PyTorch is not installed here") from None


@app.command()
def check() -> None:
    """Run every kernel on small shapes and compare it with NumPy in float64."""
    from .check import run_checks

    failures = run_checks(console)
    if failures:
        raise typer.Exit(1)


@app.command()
def parity(
    out: Annotated[Path, typer.Option(help="Where the table goes.")] = Path("torch-parity.md"),
) -> None:
    """Compare every name of torch.nn.functional and torch.nn, call by call (needs torch)."""
    _need_torch()
    _check_files(out)
    from .parity import write_table

    found = write_table(out)
    for problem in found:
        console.print(f"[red]{problem}[/red]")
    console.print(f"wrote {out}")
    if found:
        raise typer.Exit(1)


@app.command()
def info() -> None:
    """This installation and machine."""
    import platform

    import numpy

    import lamina

    from .. import _C

    table = Table(show_header=False, box=None)
    for name, value in {
        "lamina": lamina.__version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "machine": f"{platform.machine()}, {lamina.get_num_threads()} threads",
        "instruction set": f"{lamina.isa()} (compiled: {', '.join(_C.compiled_isas())})",
        "bfloat16 unit": _C.bf16_unit() or "none",
        "backends": ", ".join(lamina.backends()),
        "kernels": str(len(lamina.kernels())),
        "GPU": _gpu(),
    }.items():
        table.add_row(name, value)
    console.print(table)


def _gpu() -> str:
    from lamina import cuda

    if not cuda.is_built():
        return "no kernels: nvcc was not found at the build"
    compiled = f"compiled: {', '.join(cuda.architectures())}"
    return f"{cuda.device_count()} available ({compiled})"


@app.command()
def plan(
    x: Annotated[str, typer.Argument(help="Input shape, e.g. 1x64x56x56.")],
    weight: Annotated[str, typer.Argument(help="Filter shape, e.g. 64x64x3x3.")],
    stride: Annotated[int, typer.Option(min=1)] = 1,
    padding: Annotated[int, typer.Option(min=0)] = 0,
    dilation: Annotated[int, typer.Option(min=1)] = 1,
    groups: Annotated[int, typer.Option(min=1)] = 1,
    backend: Annotated[str, typer.Option(help="cpu; simt chooses as cuda does.")] = "cpu",
) -> None:
    """Which kernel a convolution gets in each pass, and why not the others."""
    import lamina

    from .plan import explain

    try:
        with lamina.backend(backend):
            console.print(explain(x, weight, stride, padding, dilation, groups))
    except (ValueError, RuntimeError) as error:  # RuntimeError: no GPU, or no kernels for one
        raise typer.BadParameter(str(error)) from None


@app.command("simt")
def simt_(
    names: Annotated[
        list[str] | None, typer.Argument(help="Families, operations or parts of layers' names.")
    ] = None,
    pass_: Annotated[
        str, typer.Option("--pass", help="fprop, dgrad, wgrad (conv), train (others), or all.")
    ] = "all",
    algo: Annotated[str, typer.Option(help="Only this algorithm.")] = "",
    dtype: Annotated[str, typer.Option(help="float16, float32 or float64.")] = "float32",
    schedule: Annotated[str, typer.Option(help="forward, reverse or random.")] = "forward",
    seed: Annotated[int, typer.Option(min=0, help="Of the random schedule.")] = 1,
    x: Annotated[str, typer.Option(help="Input shape of a convolution, e.g. 1x8x14x14.")] = "",
    weight: Annotated[str, typer.Option(help="Its filter shape, e.g. 16x8x3x3.")] = "",
    stride: Annotated[int, typer.Option(min=1)] = 1,
    padding: Annotated[int, typer.Option(min=0)] = 0,
    dilation: Annotated[int, typer.Option(min=1)] = 1,
    groups: Annotated[int, typer.Option(min=1)] = 1,
    lines: Annotated[bool, typer.Option(help="A row for each source line.")] = True,
) -> None:
    """Run CUDA kernels on the CPU, watched: races, bad accesses, and what each line costs."""
    import lamina

    from .. import simt as watching
    from . import simt

    if "simt_check" not in lamina.backends():
        raise typer.BadParameter("this installation has no checking build of the CUDA kernels")
    if pass_ not in simt.PASSES:
        raise typer.BadParameter(f"--pass must be one of {', '.join(simt.PASSES)}, got {pass_!r}")
    if dtype not in ("float16", "float32", "float64"):
        raise typer.BadParameter(f"--dtype must be float16, float32 or float64, got {dtype!r}")
    failures = 0
    try:
        with watching.schedule(schedule, seed):
            if bool(x) != bool(weight):
                raise ValueError(f"--x and --weight go together, got {x!r}, {weight!r}")
            if x or weight:
                options = stride, padding, dilation, groups
                subjects = simt.shape_subjects(x, weight, *options, pass_, algo, dtype)
            else:
                subjects = simt.choose(names or ["conv"], pass_, algo, dtype)
            for subject in subjects:
                watched = simt.watch(subject)
                simt.show(console, watched, lines)
                failures += not watched.clean
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    console.print(f"{len(subjects) - failures} of {len(subjects)} calls without a finding")
    if failures:
        raise typer.Exit(1)
