"""Writes python/lamina/_C.pyi from the compiled module: python csrc/bindings/make_stub.py

Needs pybind11-stubgen and ruff. Arguments are what callers pass, int and float, not what pybind11
would convert.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

STUB = Path(__file__).parents[2] / "python" / "lamina" / "_C.pyi"
_INT = r"typing\.SupportsInt \| typing\.SupportsIndex"
_SIMPLER = (
    (
        rf'typing\.Annotated\[collections\.abc\.Sequence\[{_INT}\], "FixedSize\(\d\)"\]',
        "Sequence[int]",
    ),
    (rf"collections\.abc\.Sequence\[{_INT}\]", "Sequence[int]"),
    (r"collections\.abc\.Sequence\[", "Sequence["),
    (_INT, "int"),
    (r"typing\.SupportsFloat \| typing\.SupportsIndex", "float"),
    (r"numpy\.ndarray", "NDArray"),
    (r"typing_extensions\.CapsuleType", "Any"),
    (r"^import typing_extensions\n", ""),
    (r"^import collections\.abc\nimport numpy\nimport typing\n", ""),
    (r"^__all__.*\n", ""),
    (r"typing\.", ""),
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        generate = [sys.executable, "-m", "pybind11_stubgen", "lamina._C", "-o", folder]
        subprocess.run(generate, check=True)
        text = (Path(folder) / "lamina" / "_C.pyi").read_text()
    for pattern, simpler in _SIMPLER:
        text = re.sub(pattern, simpler, text, flags=re.MULTILINE)
    head = "from __future__ import annotations\n"
    imports = (
        "\nfrom collections.abc import Sequence\nfrom typing import Any\n\n"
        "import numpy as np\n\nNDArray = np.ndarray[Any, Any]\n"
    )
    STUB.write_text(text.replace(head, head + imports))
    subprocess.run(["ruff", "format", "-q", str(STUB)], check=True)


if __name__ == "__main__":
    main()
