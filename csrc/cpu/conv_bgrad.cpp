// conv, bias gradient: grad_bias[k] = sum over n and the output positions of grad_y[n,k,:].
//
// Partitioning  one task per channel; rows of n in order, lanes summed in a fixed tree.
// Floor         reads grad_y once: bytes over bandwidth.
#include "core/threads.h"
#include "cpu/simd.h"
#include "ops/conv.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ConvArgs;

template <class T>
static T sum_row(const T* row, int64_t size) {
  Vec<T> sums[4] = {};  // four chains hide the latency of the additions
  int64_t i = 0;
  for (; i + 4 * kLanes<T> <= size; i += 4 * kLanes<T>)
    for (int j = 0; j < 4; ++j) sums[j] += load(row + i + j * kLanes<T>);
  T tail = 0;
  for (; i < size; ++i) tail += row[i];
  return sum_lanes<T>((sums[0] + sums[1]) + (sums[2] + sums[3])) + tail;
}

template <class T>
void conv_bgrad_direct(const ConvArgs<T>& args) {
  const auto& s = args.shape;
  const int64_t size = s.out_size();
  parallel_for(s.k, [&](int64_t k) {
    T sum = 0;
    for (int64_t n = 0; n < s.n; ++n) sum += sum_row(args.grad_y + (n * s.k + k) * size, size);
    args.result[k] = sum;
  });
}

LAMINA_INSTANTIATE(conv_bgrad_direct, ConvArgs)

LAMINA_CPU_NAMESPACE_END
