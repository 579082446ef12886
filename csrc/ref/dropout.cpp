// dropout, reference: the formula of ops/dropout.h.
#include "ops/dropout.h"

#include "ops/instantiate.h"
#include "shared/philox.h"

namespace lamina::ref {

using ops::DropoutArgs;

template <class T>
void dropout_fprop_philox(const DropoutArgs<T>& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    const auto counter = args.offset + static_cast<uint64_t>(row / 4);
    const uint32_t word = philox::block(args.seed, counter).lane[row % 4];
    const bool keep = philox::uniform24(word) >= args.threshold;
    for (int64_t i = row * args.inner; i < (row + 1) * args.inner; ++i)
      args.result[i] = keep ? args.x[i] * args.scale + args.shift : args.x[i] * 0 + args.dropped;
  }
}

LAMINA_INSTANTIATE(dropout_fprop_philox, DropoutArgs)

}  // namespace lamina::ref
