// dropout: y = keep ? x * scale + shift : x * 0 + dropped, with the Philox stream of the CPU.
//
// Method        a thread draws one block of four words and serves the four rows (elements, in plain
//               dropout) that they decide: nothing is stored but the result.
// Partitioning  256 threads; rows of many elements go to a block each.
// Floor         one read and one write of the tensor.
#include "cuda/device/launch.h"
#include "cuda/device/vector.h"
#include "cuda/instantiate.h"
#include "ops/dropout.h"
#include "shared/philox.h"

namespace lamina::cuda {

using ops::DropoutArgs;

static constexpr int kThreads = 256;
static constexpr int kWords = 4;  // of a Philox block

template <class T>
struct DropoutRule {
  uint64_t seed, offset;
  int64_t threshold;
  Acc<T> scale, shift, dropped;

  __device__ __forceinline__ philox::Words words(int64_t block) const {
    return philox::block(seed, offset + static_cast<uint64_t>(block));
  }
  __device__ __forceinline__ T apply(T x, uint32_t word) const {
    const Acc<T> value = widen(x);
    const bool keep = philox::uniform24(word) >= threshold;
    return narrow<T>(keep ? value * scale + shift : value * Acc<T>(0) + dropped);
  }
};

// Rows of one element: thread i serves elements 4 i to 4 i + 3.
template <class T, bool WIDE>
__global__ void __launch_bounds__(kThreads)
    dropout_kernel(DropoutRule<T> rule, const T* x, T* result, int64_t size) {
  const int64_t block = int64_t{blockIdx.x} * kThreads + threadIdx.x, at = block * kWords;
  if (at >= size) return;
  const philox::Words words = rule.words(block);
  if (WIDE && at + kWords <= size) {
    Vector<T, kWords> vector = load<T, kWords>(x + at);
    for (int i = 0; i < kWords; ++i)
      vector.element[i] = rule.apply(vector.element[i], words.lane[i]);
    store<T, kWords>(result + at, vector);
  } else {
    for (int i = 0; i < kWords && at + i < size; ++i)
      result[at + i] = rule.apply(x[at + i], words.lane[i]);
  }
}

// Rows of `inner` elements, one block a row.
template <class T>
__global__ void __launch_bounds__(kThreads)
    dropout_rows_kernel(DropoutRule<T> rule, const T* x, T* result, int64_t inner) {
  const int64_t row = blockIdx.x;
  const uint32_t word = rule.words(row / kWords).lane[row % kWords];
  for (int64_t i = threadIdx.x; i < inner; i += kThreads)
    result[row * inner + i] = rule.apply(x[row * inner + i], word);
}

template <class T>
void dropout_fprop_philox(const DropoutArgs<T>& args) {
  const DropoutRule<T> rule{args.seed,          args.offset,        args.threshold,
                            Acc<T>(args.scale), Acc<T>(args.shift), Acc<T>(args.dropped)};
  if (args.inner == 1) {
    const unsigned grid = grid_size(ceil_div(args.rows, kThreads * kWords));
    // Four doubles are two accesses of sixteen bytes.
    const bool wide = sizeof(T) < sizeof(double) && is_wide(args.x, args.result);
    launch(wide ? dropout_kernel<T, sizeof(T) < sizeof(double)> : dropout_kernel<T, false>, grid,
           kThreads, 0, rule, args.x, args.result, args.rows);
  } else if (args.inner > 0) {
    launch(dropout_rows_kernel<T>, grid_size(args.rows), kThreads, 0, rule, args.x, args.result,
           args.inner);
  }
}

LAMINA_CUDA_INSTANTIATE(dropout_fprop_philox, DropoutArgs)

}  // namespace lamina::cuda
