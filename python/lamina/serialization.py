"""Named arrays in safetensors files: readable by every framework, and never by running code."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np

from .arrays import is_array, to_numpy
from .tensor import Tensor

__all__ = ["load", "load_metadata", "save"]

# The file's names of dtypes; BF16 is the upper half of a float32.
_DTYPES = {
    **{f"F{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
    **{f"I{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"U{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    "BOOL": np.dtype(np.bool_),
    "BF16": np.dtype("<u2"),
}

StrPath = str | os.PathLike[str]


def save(
    state: Mapping[str, Any], path: StrPath, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes {name: Tensor or array}, for example `module.state_dict()`, to a safetensors file.

    `metadata`, strings by name, comes back from `load_metadata`. The file appears whole or not at
    all: an older one of that name survives a failure.

    Raises TypeError for anything but named arrays of real numbers, OSError where the file cannot
    be written.
    """
    from safetensors.numpy import save as to_bytes

    content = to_bytes(_arrays(state), metadata=_strings(metadata))
    target = os.path.realpath(_checked("save", path))  # a link stays one
    # Beside the target, as only a file of the same file system can replace it in one step.
    temporary = f"{target}.{secrets.token_hex(4)}.part"
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # or a crash could leave the new name on an empty file
        os.replace(temporary, target)
    except BaseException as error:
        if os.path.exists(temporary):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename == temporary:
            text = f"save: path must name a file that can be written ({error.strerror}), got path"
            raise type(error)(error.errno, text, os.fspath(path)) from None
        raise


def load(path: StrPath) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by name, for `module.load_state_dict`.

    bfloat16 comes as float32, which holds the same values.

    Raises FileNotFoundError, and ValueError for a file that is damaged or of another format.
    """
    from safetensors import deserialize

    arrays = {}
    for name, entry in _parsed(path, deserialize):
        if entry["dtype"] not in _DTYPES:
            raise ValueError(
                f"load: arrays must be of dtypes {', '.join(_DTYPES)}, got {entry['dtype']} for "
                f"{name!r} in {os.fspath(path)}"
            )
        array = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
        if entry["dtype"] == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        arrays[name] = array if array.flags.writeable else array.copy()
    return arrays


def load_metadata(path: StrPath) -> dict[str, str]:
    """The metadata of a safetensors file, {} without any. Raises as `load` does."""
    from safetensors import deserialize

    def header(content: bytes) -> dict[str, Any]:
        deserialize(content)  # checks the whole file
        # An 8-byte length, then JSON: https://github.com/huggingface/safetensors#format
        return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])

    return _parsed(path, header).get("__metadata__", {})


def _parsed(path: StrPath, parse: Any) -> Any:
    from safetensors import SafetensorError

    try:
        with open(_checked("load", path), "rb") as file:
            content = file.read()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            error.errno, "load: path must name an existing file, got path", os.fspath(path)
        ) from None
    try:
        return parse(content)
    except SafetensorError as error:
        raise ValueError(
            f"load: path must name a whole safetensors file, got path={os.fspath(path)} ({error})"
        ) from error


def _checked(op: str, path: Any) -> StrPath:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{op}: path must be a string or a path, got {type(path).__name__}")
    return path


def _arrays(state: Any) -> dict[str, np.ndarray]:
    """Contiguous little-endian arrays by name. TypeError for anything else."""
    if not isinstance(state, Mapping):
        raise TypeError(
            f"save: state must map names to arrays, got {type(state).__name__}; "
            "use module.state_dict()"
        )
    arrays = {}
    for name, value in state.items():
        if not isinstance(name, str):
            raise TypeError(f"save: names must be strings, got {name!r}")
        if name == "__metadata__":
            raise ValueError("save: names must not be '__metadata__'; use metadata=")
        array = value.data if isinstance(value, Tensor) else value
        if not is_array(array):
            raise TypeError(
                f"save: {name} must be a Tensor or an array, got {type(value).__name__}; "
                "save nested states one by one"
            )
        little = array.dtype.newbyteorder("<")
        if little not in _DTYPES.values():
            raise TypeError(
                f"save: {name} must hold real numbers of at most 8 bytes, got "
                f"{name}.dtype={array.dtype}; convert it with .astype"
            )
        arrays[name] = np.require(to_numpy(array), little, "C")
    return arrays


def _strings(metadata: Any) -> dict[str, str] | None:
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping) or not all(
        isinstance(text, str) for item in metadata.items() for text in item
    ):
        raise TypeError(f"save: metadata must map strings to strings, got metadata={metadata!r}")
    return dict(metadata)
