"""One small call of every CUDA kernel, for compute-sanitizer: python benchmarks/gpu_smoke.py

The shapes and NumPy references are those of `lamina check`.
"""

from __future__ import annotations

import sys

import lamina
from lamina.bench.check import check_kernel


def main() -> int:
    lamina.cuda.require()
    failures = 0
    for kernel in lamina.kernels(backend="cuda"):
        error, bound = check_kernel(kernel)
        failures += error > bound
        print(f"{kernel}: error {error:.1e}, bound {bound:.1e}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
