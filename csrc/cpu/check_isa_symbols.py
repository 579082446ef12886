"""Fail when an object compiled for one instruction set exports code that other objects may share.

usage: check_isa_symbols.py NM OBJECT...

Weak symbols (inline functions, templates) of equal name are merged at link time. In the objects
under csrc/cpu every one of them must therefore live in the namespace of its instruction set.
"""

import re
import subprocess
import sys

# Itanium mangling: <length><name>; the namespace is one of these three words.
_ISA_NAMESPACE = re.compile(r"8baseline|4avx2|6avx512")


def leaks(nm: str, path: str) -> list[str]:
    listing = subprocess.run([nm, path], capture_output=True, text=True, check=True).stdout
    found = []
    for line in listing.splitlines():
        *_, kind, name = line.split()
        if kind in "WVuT" and not _ISA_NAMESPACE.search(name):
            found.append(name)
    return found


def main(nm: str, *objects: str) -> int:
    bad = {path: names for path in objects if (names := leaks(nm, path))}
    for path, names in bad.items():
        print(f"{path}: symbols outside the instruction set's namespace: {', '.join(names)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
