"""The compiled test programs, once for a session."""

from __future__ import annotations

import pytest

from . import build


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """The programs by name: "fast", "ucontext" and "check"."""
    if build.compiler() is None:
        pytest.skip("needs a C++ compiler and the source tree")
    return build.build(tmp_path_factory.mktemp("simt"))
