#!/usr/bin/env bash
# On a machine with a CUDA GPU, nvcc, CuPy and PyTorch, without a network, in under 8 minutes: builds
# for its architecture, runs the tests on the cuda backend, compute-sanitizer on small cases, and the
# layers of `lamina bench` beside PyTorch. Results: benchmarks/results/<device>.json
#
#   bash benchmarks/gpu.sh            everything
#   bash benchmarks/gpu.sh build      one or several of: build test sanitize bench
set -euo pipefail
cd "$(dirname "$0")/.."

steps=${*:-build test sanitize bench}
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
device=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1 | tr 'A-Z ' 'a-z-')
case $capability in 90 | 10? | 12?) architecture=${capability}a-real ;; *) architecture=$capability-real ;; esac

for step in $steps; do
  echo "== $step"
  SECONDS=0
  case $step in
    build)
      CMAKE_BUILD_PARALLEL_LEVEL=$(nproc) pip install --quiet --no-build-isolation --no-deps . \
        -C cmake.define.LAMINA_CUDA=ON -C cmake.define.LAMINA_CUDA_ARCHITECTURES="$architecture"
      (cd / && python -c "import lamina; lamina.cuda.require(); print(lamina.cuda.architectures())")
      ;;
    test) LAMINA_TEST_BACKENDS=cuda timeout 240 pytest -q --maxfail=30 tests || status=1 ;;
    sanitize)
      for tool in memcheck racecheck; do
        LAMINA_TEST_BACKENDS=cuda timeout 100 compute-sanitizer --tool "$tool" --error-exitcode 9 \
          --target-processes all python benchmarks/gpu_smoke.py | tail -15 || status=1
      done
      ;;
    bench) timeout 200 python benchmarks/gpu.py --json "benchmarks/results/$device.json" || status=1 ;;
    *) echo "unknown step: $step" && exit 2 ;;
  esac
  echo "== $step took $SECONDS s"
done
exit "${status:-0}"
