"""Files of results, and the commands that make them again."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

# What decides how the libraries compute and is not among a command's arguments.
VARIABLES = (
    "LAMINA_ISA",
    "LAMINA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "MKL_ENABLE_INSTRUCTIONS",
)


def command(*program: str) -> str:
    """What was typed after `program`, behind the variables that were set."""
    settings = [f"{name}={os.environ[name]}" for name in VARIABLES if os.environ.get(name)]
    return shlex.join([*settings, *program, *sys.argv[1:]])


def write(path: Path, report: dict[str, Any]) -> None:
    """As JSON; what is there stays until the new file is whole."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(partial, path)
