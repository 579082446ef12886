// pdist: distances between all pairs of rows (ops/pdist.h).
//
// Method        fprop: blocks of kBlock rows, transposed once: vectors of the distances of one row
//               from its successors. dgrad: a row's gradient, column vectors at a time, from all
//               other rows; every pair is seen twice, and nothing is added by two threads.
// Partitioning  rows.
// Numerics      in double, rounded once.
// Floor         n (n - 1) / 2 d subtractions and multiply-adds.
#include "ops/pdist.h"

#include "cpu/reduce.h"
#include "cpu/simd_math.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::PdistArgs;

static constexpr int64_t kVectors = 4, kBlock = kVectors * kWide;

template <bool Euclidean>
LAMINA_INLINE Wide term(Wide difference) {
  return Euclidean ? difference * difference : absolute<double>(difference);
}

// The distances of row i from the rows of the block, [d][kBlock].
template <bool Euclidean, class T>
LAMINA_INLINE void distances(const T* x, int64_t d, const double* block, Wide (&sum)[kVectors]) {
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) sum[v] = Wide{};
  for (int64_t k = 0; k < d; ++k) {
    const Wide own = broadcast(double(x[k]));
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
      sum[v] += term<Euclidean>(own - load(block + k * kBlock + v * kWide));
  }
  if constexpr (Euclidean)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sum[v] = square_root<double>(sum[v]);
}

template <bool Euclidean, class T>
static void distances(const PdistArgs<T>& args) {
  const int64_t n = args.n, d = args.d, blocks = ceil_div(n, kBlock);
  const Scratch<double> turned(blocks * kBlock * d);
  parallel_ranges(blocks, max_of<int64_t>(kPiece / 16 / (kBlock * d), 1),
                  [&](int64_t block, int64_t end) {
                    for (; block < end; ++block)
                      for (int64_t r = 0; r < kBlock; ++r) {
                        const int64_t row = min_of(block * kBlock + r, n - 1);
                        for (int64_t k = 0; k < d; ++k)
                          turned[(block * d + k) * kBlock + r] = double(args.x[row * d + k]);
                      }
                  });
  parallel_ranges(n - 1, max_of<int64_t>(2 * kPiece / (n * d), 1), [&](int64_t i, int64_t end) {
    for (; i < end; ++i) {
      T* const y = args.result + ops::pair_place(n, i, i + 1);
      for (int64_t first = (i + 1) / kBlock * kBlock; first < n; first += kBlock) {
        Wide sum[kVectors];
        distances<Euclidean>(args.x + i * d, d, turned.get() + first * d, sum);
        T lanes[kBlock];
        for (int v = 0; v < kVectors; ++v) store_wide(lanes + v * kWide, kWide, sum[v]);
        const int64_t from = max_of<int64_t>(i + 1 - first, 0), to = min_of(kBlock, n - first);
        for (int64_t j = from; j < to; ++j) y[first + j - i - 1] = lanes[j];
      }
    }
  });
}

template <class T>
void pdist_fprop_pairs(const PdistArgs<T>& args) {
  args.euclidean ? distances<true>(args) : distances<false>(args);
}

// The gradients of columns [k, k + count) of row i, from the factors of the pairs.
template <bool Euclidean, class T>
LAMINA_INLINE void row_gradient(const PdistArgs<T>& args, const double* factor, int64_t i,
                                int64_t k, int64_t count) {
  const int64_t n = args.n, d = args.d;
  const T* const x = args.x + k;
  Wide own[kVectors], sum[kVectors] = {};
  const auto columns = [=](int64_t row, int v) __attribute__((always_inline)) {
    return load_wide(x + row * d + v * kWide, count - v * kWide);
  };
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) own[v] = columns(i, v);
  const auto add = [&](int64_t j, double of_pair) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const Wide difference = own[v] - columns(j, v);
      if constexpr (Euclidean)
        sum[v] += of_pair * difference;
      else
        sum[v] += of_pair * (difference > 0.0   ? broadcast(1.0)
                             : difference < 0.0 ? broadcast(-1.0)
                                                : difference);
    }
  };
  for (int64_t j = 0; j < i; ++j) add(j, factor[ops::pair_place(n, j, i)]);
  for (int64_t j = i + 1; j < n; ++j) add(j, factor[ops::pair_place(n, i, j)]);
  for (int v = 0; v < kVectors; ++v)
    if (count > v * kWide)
      store_wide(args.result + i * d + k + v * kWide, count - v * kWide, sum[v]);
}

template <bool Euclidean, class T>
static void gradient(const PdistArgs<T>& args) {
  const int64_t n = args.n, d = args.d, pairs = n * (n - 1) / 2;
  const Scratch<double> factor(pairs);
  parallel_ranges(pairs, kPiece, [&](int64_t begin, int64_t end) {
    along_line<double>(end - begin, [&](int64_t i, int64_t count) {
      Wide g = load_wide(args.grad_y + begin + i, count);
      if constexpr (Euclidean) {
        const Wide y = load_wide(args.y + begin + i, count);
        g = y == 0.0 ? Wide{} : g / y;
      }
      store_first(&factor[begin + i], count, g);
    });
  });
  parallel_ranges(n, max_of<int64_t>(kPiece / (n * d), 1), [&](int64_t i, int64_t end) {
    for (; i < end; ++i)
      for (int64_t k = 0; k < d; k += kBlock)
        d - k >= kBlock ? row_gradient<Euclidean>(args, factor.get(), i, k, kBlock)
                        : row_gradient<Euclidean>(args, factor.get(), i, k, d - k);
  });
}

template <class T>
void pdist_dgrad_pairs(const PdistArgs<T>& args) {
  args.euclidean ? gradient<true>(args) : gradient<false>(args);
}

LAMINA_INSTANTIATE(pdist_fprop_pairs, PdistArgs)
LAMINA_INSTANTIATE(pdist_dgrad_pairs, PdistArgs)

LAMINA_CPU_NAMESPACE_END
