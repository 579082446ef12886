// resample: a sparse matrix along one axis (ops/resample.h).
//
// Method        a row of results is a weighted sum of rows of x, whole vectors along the inner
//               axes. Along the innermost axis itself a vector of results picks each of its taps
//               from two vectors of x by a permute, where they lie that close together.
// Partitioning  groups of rows, or of vectors, of about kTaskElements results.
// Numerics      sums in the order of the taps.
// Floor         one read of x for every tap whose row left the cache, one write of y.
#include "ops/resample.h"

#include "core/threads.h"
#include "cpu/scratch.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ResampleArgs;

inline constexpr int64_t kTaskElements = 16384;

// result[width] = sum of the taps' rows of x, each `width` long.
template <class T>
static void weighted_rows(const ResampleArgs<T>& args, const T* x, int64_t o, T* result,
                          bool streamed) {
  const int64_t begin = args.begin[o], end = args.begin[o + 1], width = args.inner;
  for (int64_t i = 0; i < width; i += kLanes<T>) {
    Vec<T> sum = {};
    for (int64_t t = begin; t < end; ++t)
      sum += static_cast<T>(args.weight[t]) * load_first(x + args.index[t] * width + i, width - i);
    store_result(result + i, width - i, sum, streamed);
  }
}

// Tap `tap` of a vector of results: elements `offset` after `first`, by `weight`; an offset of -1
// is no tap. Tables of [taps][vectors][lanes].
template <class T>
class LineTable {
 public:
  static constexpr int64_t kMostTaps = 16, kMostEntries = int64_t{1} << 22;

  explicit LineTable(const ResampleArgs<T>& args)
      : vectors_(ceil_div(args.out, kLanes<T>)),
        taps_(most_taps(args)),
        holds_(taps_ <= kMostTaps && taps_ * vectors_ * kLanes<T> <= kMostEntries),
        first_(holds_ ? taps_ * vectors_ : 0),
        offset_(holds_ ? taps_ * vectors_ * kLanes<T> : 0),
        weight_(holds_ ? taps_ * vectors_ * kLanes<T> : 0) {
    for (int64_t i = 0; holds_ && i < taps_ * vectors_; ++i)
      fill(args, i, i / vectors_, i % vectors_ * kLanes<T>);
  }

  bool holds() const { return holds_; }
  int64_t vectors() const { return vectors_; }

  LAMINA_INLINE Vec<T> result(const T* x, int64_t in, int64_t vector) const {
    Vec<T> sum = {};
    for (int64_t tap = 0; tap < taps_; ++tap) {
      const int64_t i = tap * vectors_ + vector, first = first_[i];
      Mask<T> offset;
      __builtin_memcpy(&offset, &offset_[i * kLanes<T>], sizeof offset);
      const Vec<T> low = load_first(x + first, in - first);
      const Vec<T> high = load_first(x + first + kLanes<T>, in - first - kLanes<T>);
      const Vec<T> value = __builtin_shuffle(low, high, offset);
      sum += load(&weight_[i * kLanes<T>]) * (offset < 0 ? Vec<T>{} : value);
    }
    return sum;
  }

 private:
  static int64_t most_taps(const ResampleArgs<T>& args) {
    int64_t most = 0;
    for (int64_t o = 0; o < args.out; ++o) most = max_of(most, args.begin[o + 1] - args.begin[o]);
    return most;
  }

  void fill(const ResampleArgs<T>& args, int64_t i, int64_t tap, int64_t o) {
    int64_t first = args.in, last = 0;
    for (int64_t lane = 0; lane < kLanes<T> && o + lane < args.out; ++lane) {
      if (args.begin[o + lane] + tap >= args.begin[o + lane + 1]) continue;
      const int64_t index = args.index[args.begin[o + lane] + tap];
      first = min_of(first, index), last = max_of(last, index);
    }
    first_[i] = min_of(first, last);
    holds_ = holds_ && last - first < 2 * kLanes<T>;
    for (int64_t lane = 0; lane < kLanes<T>; ++lane) {
      const bool real =
          o + lane < args.out && args.begin[o + lane] + tap < args.begin[o + lane + 1];
      const int64_t t = real ? args.begin[o + lane] + tap : 0;
      offset_[i * kLanes<T> + lane] =
          real ? static_cast<LaneInteger<T>>(args.index[t] - first_[i]) : -1;
      weight_[i * kLanes<T> + lane] = real ? static_cast<T>(args.weight[t]) : T(0);
    }
  }

  int64_t vectors_, taps_;
  bool holds_;
  Scratch<int64_t> first_;
  Scratch<LaneInteger<T>> offset_;
  Scratch<T> weight_;
};

// Whether a large result in rows of so many elements goes past the caches: rows of whole vectors.
template <class T>
static bool goes_past(const ResampleArgs<T>& args, int64_t row) {
  return is_streamed<T>(args.outer * args.out * args.inner) && row % kLanes<T> == 0;
}

// inner == 1; false where taps lie too far apart.
template <class T>
static bool resample_lines(const ResampleArgs<T>& args) {
  const LineTable<T> table(args);
  if (!table.holds()) return false;
  const int64_t vectors = table.vectors();
  const bool streamed = goes_past(args, args.out);
  parallel_ranges(args.outer * vectors, kTaskElements / kLanes<T>, [&](int64_t begin, int64_t end) {
    int64_t line = begin / vectors, vector = begin % vectors;
    for (int64_t i = begin; i < end; ++i) {
      store_result(args.result + line * args.out + vector * kLanes<T>,
                   args.out - vector * kLanes<T>,
                   table.result(args.x + line * args.in, args.in, vector), streamed);
      if (++vector == vectors) vector = 0, ++line;
    }
    finish_streams(streamed);
  });
  return true;
}

template <class T>
void resample_fprop_axis(const ResampleArgs<T>& args) {
  if (args.inner == 1 && args.out > 0 && args.in > 0 && resample_lines(args)) return;
  const int64_t grain = max_of<int64_t>(kTaskElements / max_of<int64_t>(args.inner, 1), 1);
  const bool streamed = goes_past(args, args.inner);
  parallel_ranges(args.outer * args.out, grain, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row)
      weighted_rows(args, args.x + row / args.out * args.in * args.inner, row % args.out,
                    args.result + row * args.inner, streamed);
    finish_streams(streamed);
  });
}

LAMINA_INSTANTIATE(resample_fprop_axis, ResampleArgs)

LAMINA_CPU_NAMESPACE_END
