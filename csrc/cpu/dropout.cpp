// dropout from a counter-based generator (ops/dropout.h).
//
// Method        blocks of 4 words from independent counters, so that the compiler vectorises across
//               counters; factors and shifts of a group of rows first, then the elements.
// Partitioning  groups of about kTaskElements elements.
// Floor         one read and one write of the tensor; the words cost about 10 products for 4 rows.
#include "ops/dropout.h"

#include "core/threads.h"
#include "cpu/simd.h"
#include "ops/instantiate.h"
#include "shared/philox.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::DropoutArgs;

inline constexpr int64_t kTaskElements = 16384, kGroup = 256;  // kGroup rows, a multiple of 4

// factor and shift of rows [row, row + kGroup); row is a multiple of 4.
template <class T>
static void draw(const DropoutArgs<T>& args, int64_t row, T* factor, T* shift) {
  uint32_t words[4][kGroup / 4];
  for (int64_t j = 0; j < kGroup / 4; ++j) {
    const philox::Words block =
        philox::block(args.seed, args.offset + static_cast<uint64_t>(row / 4 + j));
    for (int lane = 0; lane < 4; ++lane) words[lane][j] = block.lane[lane];
  }
  for (int64_t j = 0; j < kGroup; ++j) {
    const bool keep = philox::uniform24(words[j % 4][j / 4]) >= args.threshold;
    factor[j] = keep ? args.scale : T(0), shift[j] = keep ? args.shift : args.dropped;
  }
}

template <class T>
void dropout_fprop_philox(const DropoutArgs<T>& args) {
  const int64_t groups =
      max_of<int64_t>(kTaskElements / (kGroup * max_of<int64_t>(args.inner, 1)), 1);
  parallel_ranges(args.rows, groups * kGroup, [&](int64_t begin, int64_t end) {
    alignas(64) T factor[kGroup], shift[kGroup];
    for (int64_t row = begin; row < end; row += kGroup) {
      draw(args, row, factor, shift);
      const int64_t count = min_of(kGroup, end - row);
      const T* x = args.x + row * args.inner;
      T* y = args.result + row * args.inner;
      if (args.inner == 1) {
        for (int64_t j = 0; j < count; ++j) y[j] = x[j] * factor[j] + shift[j];
        continue;
      }
      for (int64_t j = 0; j < count; ++j, x += args.inner, y += args.inner)
        for (int64_t i = 0; i < args.inner; ++i) y[i] = x[i] * factor[j] + shift[j];
    }
  });
}

LAMINA_INSTANTIATE(dropout_fprop_philox, DropoutArgs)

LAMINA_CPU_NAMESPACE_END
