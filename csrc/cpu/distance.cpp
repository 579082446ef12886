// pdist, distances between all pairs of rows, and row_distance, between rows of two arrays
// (ops/distance.h).
//
// Method        pdist, fprop: blocks of kBlock rows, transposed once: vectors of the distances of
//               one row from its successors. dgrad: a row's gradient, column vectors at a time,
//               from all other rows; every pair is seen twice, and nothing is added by two threads.
//               row_distance: one pass over both rows; dgrad computes their difference anew.
// Partitioning  rows; of row_distance the lines of reduce.h, and stretches of elements.
// Numerics      in double, rounded once; differences and gradients of row_distance in T.
// Floor         pdist: n (n - 1) / 2 d subtractions and multiply-adds. row_distance: one read of
//               both arrays; dgrad: and one write of both gradients.
#include "ops/distance.h"

#include "cpu/reduce.h"
#include "cpu/simd_math.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::PdistArgs;
using ops::RowDistance;
using ops::RowDistanceArgs;

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

// ---- Rows of two arrays

template <class T>
inline constexpr int kParts = sizeof(double) / sizeof(T);  // vectors of doubles that a vector makes
template <class T>
LAMINA_INLINE void widen(Vec<T> v, Wide (&parts)[kParts<T>]) {
  if constexpr (sizeof(T) == 8) {
    parts[0] = v;
  } else {
    Narrow halves[2];
    __builtin_memcpy(halves, &v, sizeof v);
    parts[0] = widened(halves[0]), parts[1] = widened(halves[1]);
  }
}
template <class T>
LAMINA_INLINE Vec<T> rounded(const Wide (&parts)[kParts<T>]) {
  if constexpr (sizeof(T) == 8) {
    return parts[0];
  } else {
    const Narrow halves[2] = {narrowed(parts[0]), narrowed(parts[1])};
    Vec<T> v;
    __builtin_memcpy(&v, halves, sizeof v);
    return v;
  }
}

// size^p for p > 0 and sizes that are not negative.
LAMINA_INLINE Wide raised(Wide size, double p) {
  return exp<double>(p * log<double>(size));
}

template <RowDistance kind>
struct Rows {
  static constexpr int kSums = ops::is_cosine(kind) ? 3 : 1;

  // The sum with the element e of a difference.
  LAMINA_INLINE static Wide joined(Wide sum, Wide e, double p) {
    if constexpr (kind == RowDistance::absolute) return sum + absolute<double>(e);
    if constexpr (kind == RowDistance::euclidean) return sum + e * e;
    if constexpr (kind == RowDistance::power) return sum + raised(absolute<double>(e), p);
    return maximum<double>(sum, absolute<double>(e));
  }
  LAMINA_INLINE static Wide joined(Wide sum, Wide other) {
    return kind == RowDistance::largest ? maximum<double>(sum, other) : sum + other;
  }
  LAMINA_INLINE static double folded(Wide lanes) {
    if constexpr (kind != RowDistance::largest) return sum_lanes<double>(lanes);
    double most = 0;
    for (int i = 0; i < kWide; ++i)
      most = lanes[i] > most || lanes[i] != lanes[i] ? lanes[i] : most;
    return most;
  }
};

// e, and 0 behind the first `count` elements.
template <class T>
LAMINA_INLINE Vec<T> difference(const RowDistanceArgs<T>& args, int64_t at, int64_t count) {
  const Vec<T> e = load_first(args.a + at, count) - load_first(args.b + at, count) + T(args.eps);
  if (count >= kLanes<T>) return e;
  return lane_numbers<T>() < static_cast<LaneInteger<T>>(count) ? e : Vec<T>{};
}

// A row, or a part of it.
template <RowDistance kind, class T>
struct RowSums {
  const RowDistanceArgs<T>* args;
  Wide lanes[Rows<kind>::kSums] = {};

  LAMINA_INLINE void add(const T* a, int64_t, int64_t size) {
    Wide sums[kParts<T>][Rows<kind>::kSums] = {};
    const int64_t first = a - args->a;
    along_line<T>(size, [&](int64_t i, int64_t count) {
      Wide x[kParts<T>], y[kParts<T>];
      if constexpr (ops::is_cosine(kind)) {
        widen<T>(load_first(a + i, count), x);
        widen<T>(load_first(args->b + first + i, count), y);
      } else {
        widen<T>(difference(*args, first + i, count), x);
      }
#pragma GCC unroll 2
      for (int part = 0; part < kParts<T>; ++part)
        if constexpr (ops::is_cosine(kind)) {
          sums[part][0] += x[part] * y[part];
          sums[part][1] += x[part] * x[part];
          sums[part][2] += y[part] * y[part];
        } else {
          sums[part][0] = Rows<kind>::joined(sums[part][0], x[part], args->p);
        }
    });
    for (const auto& part : sums) join(part);
  }
  LAMINA_INLINE void join(const RowSums& next) { join(next.lanes); }
  LAMINA_INLINE void join(const Wide (&next)[Rows<kind>::kSums]) {
#pragma GCC unroll 3
    for (int i = 0; i < Rows<kind>::kSums; ++i) lanes[i] = Rows<kind>::joined(lanes[i], next[i]);
  }
};

// What a product of two rows is divided by for either, from its sum of squares.
template <RowDistance kind>
LAMINA_INLINE double divisor(double squares, double eps) {
  const double shifted = __builtin_sqrt(squares + eps), root = __builtin_sqrt(squares);
  return kind == RowDistance::shifted ? shifted : root < eps ? eps : root;
}

template <RowDistance kind, class T>
static void row_distances(const RowDistanceArgs<T>& args) {
  reduce_lines({args.rows, 1, 1, args.d}, args.a, RowSums<kind, T>{&args},
               [&](int64_t row, const RowSums<kind, T>& sums) {
                 double value = Rows<kind>::folded(sums.lanes[0]);
                 if constexpr (ops::is_cosine(kind)) {
                   double *const a = args.squares + row, *const b = a + args.rows;
                   *a = sum_lanes<double>(sums.lanes[1]), *b = sum_lanes<double>(sums.lanes[2]);
                   value /= divisor<kind>(*a, args.eps) * divisor<kind>(*b, args.eps);
                 }
                 if (kind == RowDistance::euclidean) value = __builtin_sqrt(value);
                 if (kind == RowDistance::power) value = raised(broadcast(value), 1 / args.p)[0];
                 args.y[row] = static_cast<T>(value);
               });
}

// of_row(row) is a function that makes vectors of the gradients, of a row's elements at a place.
template <class T, class Row>
LAMINA_INLINE void write_gradients(const RowDistanceArgs<T>& args, const Row& of_row) {
  const bool streamed = is_streamed<T>(args.rows * args.d);
  for_each_stretch(args.rows * args.d, args.d, [&](int64_t row, int64_t from, int64_t to) {
    const auto gradients = of_row(row);
    const int64_t first = row * args.d + from;
    along_line<T>(to - from, [&](int64_t i, int64_t count) {
      Vec<T> of_a, of_b;
      gradients(first + i, count, of_a, of_b);
      if (args.grad_a) store_result<T>(args.grad_a + first + i, count, of_a, streamed);
      if (args.grad_b) store_result<T>(args.grad_b + first + i, count, of_b, streamed);
    });
    finish_streams(streamed);
  });
}

template <class T>
LAMINA_INLINE Vec<T> signed_as(Vec<T> size, Vec<T> e) {
  return e > T(0) ? size : e < T(0) ? -size : e;
}

// grad_a = slope(e, factor_of(row), y of the row)
template <class T, class Factor, class Slope>
LAMINA_INLINE void difference_gradients(const RowDistanceArgs<T>& args, const Factor& factor_of,
                                        const Slope& slope) {
  write_gradients(args, [&](int64_t row) {
    const T factor = factor_of(row), y = args.y ? args.y[row] : T(0);
    return [=, &args](int64_t at, int64_t count, Vec<T>& of_a, Vec<T>& of_b) {
      of_a = slope(difference(args, at, count), factor, y);
      of_b = -of_a;
    };
  });
}

template <RowDistance kind, class T>
static void cosine_gradients(const RowDistanceArgs<T>& args) {
  write_gradients(args, [&](int64_t row) {
    const double g = args.grad_y[row], eps = args.eps;
    const double squares[] = {args.squares[row], args.squares[args.rows + row]};
    T own[2];
    for (int i = 0; i < 2; ++i) {
      const bool moves = squares[i] > 0 && __builtin_sqrt(squares[i]) >= eps;
      const double by_own = kind == RowDistance::shifted ? squares[i] + eps : squares[i];
      own[i] = kind == RowDistance::shifted || moves ? T(g * args.y[row] / by_own) : T(0);
    }
    const T across = T(g / (divisor<kind>(squares[0], eps) * divisor<kind>(squares[1], eps)));
    const T own_a = own[0], own_b = own[1];
    return [=, &args](int64_t at, int64_t count, Vec<T>& of_a, Vec<T>& of_b) {
      const Vec<T> a = load_first(args.a + at, count), b = load_first(args.b + at, count);
      of_a = across * b - own_a * a, of_b = across * a - own_b * b;
    };
  });
}

// How much each of a row's largest differences gets: its gradient over their number.
template <class T>
static void share_of_largest(const RowDistanceArgs<T>& args, T* share) {
  parallel_ranges(args.rows, max_of<int64_t>(kPiece / args.d, 1), [&](int64_t row, int64_t end) {
    for (; row < end; ++row) {
      Vec<T> count = {};
      along_line<T>(args.d, [&](int64_t i, int64_t some) {
        const Vec<T> e = absolute<T>(difference(args, row * args.d + i, some));
        const Mask<T> counts = (e == args.y[row]) & (lane_numbers<T>() < LaneInteger<T>(some));
        count += counts ? broadcast(T(1)) : Vec<T>{};
      });
      share[row] = args.grad_y[row] / sum_lanes<T>(count);
    }
  });
}

template <RowDistance kind, class T>
static void row_gradients(const RowDistanceArgs<T>& args) {
  if constexpr (ops::is_cosine(kind)) return cosine_gradients<kind>(args);
  const auto own = [&](int64_t row) { return args.grad_y[row]; };
  if constexpr (kind == RowDistance::absolute)
    difference_gradients(args, own,
                         [](Vec<T> e, T g, T) { return signed_as<T>(broadcast(T(1)), e) * g; });
  if constexpr (kind == RowDistance::euclidean)
    difference_gradients(
        args,
        [&](int64_t row) { return args.y[row] == T(0) ? T(0) : args.grad_y[row] / args.y[row]; },
        [](Vec<T> e, T factor, T) { return factor * e; });
  if constexpr (kind == RowDistance::power)
    difference_gradients(args, own, [p = args.p](Vec<T> e, T g, T y) {
      Wide sizes[kParts<T>];
      widen<T>(absolute<T>(e), sizes);
      for (Wide& size : sizes) size = raised(size / double(y), p - 1);
      const Vec<T> slope = signed_as<T>(rounded<T>(sizes), e) * g;
      return (e == T(0)) | (y == T(0)) ? Vec<T>{} : slope;
    });
  if constexpr (kind == RowDistance::largest) {
    const Scratch<T> share(args.rows);
    share_of_largest(args, share.get());
    difference_gradients(
        args, [&](int64_t row) { return share[row]; },
        [](Vec<T> e, T part, T y) {
          return (absolute<T>(e) == y) | (e != e) ? signed_as<T>(broadcast(part), e) : Vec<T>{};
        });
  }
}

// body(Kind()), where Kind::kValue is the kind.
template <RowDistance kind>
struct RowKind {
  static constexpr RowDistance kValue = kind;
};
template <class Body>
static void with_kind(RowDistance kind, const Body& body) {
  switch (kind) {
    case RowDistance::absolute:
      return body(RowKind<RowDistance::absolute>());
    case RowDistance::euclidean:
      return body(RowKind<RowDistance::euclidean>());
    case RowDistance::power:
      return body(RowKind<RowDistance::power>());
    case RowDistance::largest:
      return body(RowKind<RowDistance::largest>());
    case RowDistance::cosine:
      return body(RowKind<RowDistance::cosine>());
    case RowDistance::shifted:
      return body(RowKind<RowDistance::shifted>());
  }
}

template <class T>
void row_distance_fprop_rows(const RowDistanceArgs<T>& args) {
  with_kind(args.kind, [&](auto kind) { row_distances<decltype(kind)::kValue>(args); });
}

template <class T>
void row_distance_dgrad_rows(const RowDistanceArgs<T>& args) {
  with_kind(args.kind, [&](auto kind) { row_gradients<decltype(kind)::kValue>(args); });
}

LAMINA_INSTANTIATE(pdist_fprop_pairs, PdistArgs)
LAMINA_INSTANTIATE(pdist_dgrad_pairs, PdistArgs)
LAMINA_INSTANTIATE(row_distance_fprop_rows, RowDistanceArgs)
LAMINA_INSTANTIATE(row_distance_dgrad_rows, RowDistanceArgs)

LAMINA_CPU_NAMESPACE_END
