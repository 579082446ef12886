// Which engine multiplies an element type, or Tf32, and on how many threads.
#pragma once

#include "cuda/device/gemm_fma.h"
#include "cuda/device/gemm_mma.h"
#include "ops/precision.h"

namespace lamina::cuda {

// Tiles of SIDE x SIDE: 128 or 64. The directions of the operands matter to the tensor cores only.
template <class T, int SIDE, bool A_ALONG_LINES, bool B_ALONG_LINES>
struct EngineOf {
  using Type = FmaEngine<T, SIDE, SIDE, 16, 8, SIDE == 128 ? 8 : 4>;
};
template <int SIDE, bool A_ALONG_LINES, bool B_ALONG_LINES>
struct EngineOf<float16, SIDE, A_ALONG_LINES, B_ALONG_LINES> {
  using Type = MmaEngine<float16, SIDE, SIDE, SIDE / 2, 32, A_ALONG_LINES, B_ALONG_LINES>;
};
template <int SIDE, bool A_ALONG_LINES, bool B_ALONG_LINES>
struct EngineOf<bfloat16, SIDE, A_ALONG_LINES, B_ALONG_LINES> {
  using Type = MmaEngine<bfloat16, SIDE, SIDE, SIDE / 2, 32, A_ALONG_LINES, B_ALONG_LINES>;
};
// float operands on the tensor cores.
struct Tf32 {};
template <int SIDE, bool A_ALONG_LINES, bool B_ALONG_LINES>
struct EngineOf<Tf32, SIDE, A_ALONG_LINES, B_ALONG_LINES> {
  using Type = MmaEngine<float, SIDE, SIDE, SIDE / 2, 32, A_ALONG_LINES, B_ALONG_LINES>;
};

// Calls body(E{}) with what EngineOf takes for a call: T, or Tf32 where the call allows it.
template <class T, class Body>
void with_engine(ops::Float32Precision precision, Body body) {
  if constexpr (std::is_same_v<T, float>)
    if (precision != ops::Float32Precision::highest) return body(Tf32{});
  body(T{});
}

template <class T, int SIDE>
inline constexpr int kGemmThreads = EngineOf<T, SIDE, false, false>::Type::kThreads;
// Blocks on a multiprocessor that fill its registers: 128 a thread, 256 for double.
template <class T, int SIDE>
inline constexpr int kGemmBlocks =
    (sizeof(T) == sizeof(double) ? 256 : 512) / kGemmThreads<T, SIDE>;

}  // namespace lamina::cuda
