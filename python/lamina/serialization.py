"""Named arrays in safetensors files: readable by every framework, and never by running code."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import is_array, to_numpy
from .tensor import Tensor

__all__ = ["load", "save"]


def save(state: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes {name: Tensor or array}, for example `module.state_dict()`, to a safetensors file.

    The file appears whole or not at all: an older one of that name survives a failure. Raises
    TypeError for anything but named arrays, OSError where the file cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    if not isinstance(state, Mapping):
        raise TypeError(f"save: state must map names to arrays, got {type(state).__name__}")
    arrays = {}
    for name, value in state.items():
        if not isinstance(name, str):
            raise TypeError(f"save: names must be strings, got {name!r}")
        array = value.data if isinstance(value, Tensor) else value
        if not is_array(array):
            raise TypeError(
                f"save: {name} must be a Tensor or an array, got {type(value).__name__}"
            )
        plain = to_numpy(array)
        arrays[name] = np.require(plain, plain.dtype.newbyteorder("="), "C")
    content = to_bytes(arrays)
    target = Path(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def load(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by name, for `module.load_state_dict`.

    Raises FileNotFoundError, and ValueError for a file that is damaged or of another format.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    content = Path(path).read_bytes()
    try:
        return from_bytes(content)
    except SafetensorError as error:
        raise ValueError(
            f"load: {os.fspath(path)} is not a whole safetensors file ({error})"
        ) from error
