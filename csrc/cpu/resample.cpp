// resample: a sparse matrix along one axis, or along each of two (ops/resample.h).
//
// Method        a row of results is a weighted sum of rows of x, whole vectors along the inner
//               axes. Along the innermost axis itself a vector of results picks each of its taps
//               from two vectors of x by a permute, where they lie that close together. Of planes,
//               few rows at a time: rows that become fewer are summed first and the sum resampled;
//               where they become more, what their sums need is resampled first.
// Partitioning  groups of rows, or of vectors, of about kTaskElements results; parts of planes.
// Numerics      sums in the order of the taps, of planes one axis after the other.
// Floor         one read of x for every tap whose row left the cache, one write of y.
#include "ops/resample.h"

#include <type_traits>

#include "core/threads.h"
#include "cpu/scratch.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ResampleArgs;
using ops::ResamplePlanesArgs;
using ops::ResampleTable;

inline constexpr int64_t kTaskElements = 16384, kStreamedTask = 8 * kTaskElements;

// result[width] = sum of Taps rows.
template <class T, int Taps>
static void sum_rows(const T* const* rows, const double* weight, int64_t width, T* result,
                     bool streamed) {
  const T* row[Taps];
  Vec<T> factor[Taps];
  for (int t = 0; t < Taps; ++t) row[t] = rows[t], factor[t] = broadcast(static_cast<T>(weight[t]));
  write_line(result, width, streamed, [&](int64_t i, int64_t count) {
    Vec<T> sum = {};
#pragma GCC unroll 4
    for (int t = 0; t < Taps; ++t) sum += factor[t] * load_first(row[t] + i, count);
    return sum;
  });
}

// result[width] = sum of the taps' rows at o, where row(index) is one of them.
template <class T, class Row>
static void weighted_rows(const ResampleTable& table, int64_t o, int64_t width, T* result,
                          bool streamed, const Row& row) {
  constexpr int64_t kMost = 4;
  const int64_t begin = table.begin[o], taps = table.begin[o + 1] - begin;
  const double* weight = table.weight + begin;
  const T* rows[kMost];
  for (int64_t t = 0; t < min_of(taps, kMost); ++t) rows[t] = row(table.index[begin + t]);
  switch (taps) {
    case 1:
      return sum_rows<T, 1>(rows, weight, width, result, streamed);
    case 2:
      return sum_rows<T, 2>(rows, weight, width, result, streamed);
    case 3:
      return sum_rows<T, 3>(rows, weight, width, result, streamed);
    case 4:
      return sum_rows<T, 4>(rows, weight, width, result, streamed);
    default:
      write_line(result, width, streamed, [&](int64_t i, int64_t count) {
        Vec<T> sum = {};
        for (int64_t t = 0; t < taps; ++t)
          sum += static_cast<T>(weight[t]) * load_first(row(table.index[begin + t]) + i, count);
        return sum;
      });
  }
}

// Along the innermost axis. Each vector of results picks its taps from one vector of x at `first`,
// or from two; or each tap from two of its own, where the taps of a vector lie further apart. Tap
// `tap` of a vector: elements `offset` after `first`, by `weight`; an offset of -1 is no tap.
// Arrays of [taps][vectors][lanes].
template <class T>
class LineTable {
 public:
  static constexpr int64_t kMostTaps = 16, kMostEntries = int64_t{1} << 22;

  explicit LineTable(const ResampleTable& table)
      : in_(table.in),
        vectors_(ceil_div(table.out, kLanes<T>)),
        taps_(most_taps(table)),
        holds_(in_ > 0 && taps_ <= kMostTaps && taps_ * vectors_ * kLanes<T> <= kMostEntries),
        first_(holds_ ? taps_ * vectors_ : 0),
        offset_(holds_ ? taps_ * vectors_ * kLanes<T> : 0),
        weight_(holds_ ? taps_ * vectors_ * kLanes<T> : 0) {
    if (!holds_) return;
    int64_t width = 0;  // of the widest vector's elements of x
    for (int64_t vector = 0; vector < vectors_; ++vector) {
      Span own{table.in, 0};
      for (int64_t tap = 0; tap < taps_; ++tap) {
        const Span span = span_of(table, tap, vector * kLanes<T>);
        holds_ = holds_ && span.last - span.first < 2 * kLanes<T>;
        own = {min_of(own.first, span.first), max_of(own.last, span.last)};
      }
      width = max_of(width, own.last - own.first);
      first_[vector] = own.first;
    }
    reach_ = width < kLanes<T> ? 1 : width < 2 * kLanes<T> ? 2 : kOwn;
    for (int64_t i = 0; holds_ && i < taps_ * vectors_; ++i)
      fill(table, i, i / vectors_, i % vectors_ * kLanes<T>);
  }

  bool holds() const { return holds_; }  // false where a tap's elements lie too far apart
  int64_t vectors() const { return vectors_; }

  // body(result), where result(x, vector) is a vector of results from a line of x.
  template <class Body>
  LAMINA_INLINE void visit(const Body& body) const {
    if (in_ < min_of(reach_, 2) * kLanes<T>)
      body([&](const T* x, int64_t vector) { return result<kOwn, false>(x, vector); });
    else if (reach_ == 1)
      body([&](const T* x, int64_t vector) { return result<1, true>(x, vector); });
    else if (reach_ == 2)
      body([&](const T* x, int64_t vector) { return result<2, true>(x, vector); });
    else
      body([&](const T* x, int64_t vector) { return result<kOwn, true>(x, vector); });
  }

 private:
  static constexpr int kOwn = 3;  // each tap from vectors of its own

  // Whole: no vector leaves the line.
  template <int Reach, bool Whole>
  LAMINA_INLINE Vec<T> result(const T* x, int64_t vector) const {
    const auto part = [&](int64_t at) {
      return Whole ? load(x + at) : load_first(x + at, in_ - at);
    };
    Vec<T> low{}, high{}, sum{};
    if constexpr (Reach != kOwn) low = part(first_[vector]);
    if constexpr (Reach == 2) high = part(first_[vector] + kLanes<T>);
    for (int64_t tap = 0; tap < taps_; ++tap) {
      const int64_t i = tap * vectors_ + vector;
      if constexpr (Reach == kOwn) low = part(first_[i]), high = part(first_[i] + kLanes<T>);
      Mask<T> offset;
      __builtin_memcpy(&offset, &offset_[i * kLanes<T>], sizeof offset);
      const Vec<T> value =
          Reach == 1 ? __builtin_shuffle(low, offset) : __builtin_shuffle(low, high, offset);
      sum += load(&weight_[i * kLanes<T>]) * (offset < 0 ? Vec<T>{} : value);
    }
    return sum;
  }

  static int64_t most_taps(const ResampleTable& table) {
    int64_t most = 0;
    for (int64_t o = 0; o < table.out; ++o)
      most = max_of(most, table.begin[o + 1] - table.begin[o]);
    return most;
  }

  struct Span {
    int64_t first, last;
  };
  // What the vector of results at o wants of x for a tap.
  static Span span_of(const ResampleTable& table, int64_t tap, int64_t o) {
    Span span{table.in, 0};
    for (int64_t lane = 0; lane < kLanes<T> && o + lane < table.out; ++lane) {
      const int64_t t = table.begin[o + lane] + tap;
      if (t >= table.begin[o + lane + 1]) continue;
      span = {min_of(span.first, table.index[t]), max_of(span.last, table.index[t])};
    }
    return span;
  }

  void fill(const ResampleTable& table, int64_t i, int64_t tap, int64_t o) {
    int64_t first = reach_ == kOwn ? span_of(table, tap, o).first : first_[i % vectors_];
    // The last vectors of x are whole, too.
    first = max_of<int64_t>(min_of(first, in_ - min_of(reach_, 2) * kLanes<T>), 0);
    first_[i] = first;
    for (int64_t lane = 0; lane < kLanes<T>; ++lane) {
      const bool real =
          o + lane < table.out && table.begin[o + lane] + tap < table.begin[o + lane + 1];
      const int64_t t = real ? table.begin[o + lane] + tap : 0;
      offset_[i * kLanes<T> + lane] =
          real ? static_cast<LaneInteger<T>>(table.index[t] - first) : -1;
      weight_[i * kLanes<T> + lane] = real ? static_cast<T>(table.weight[t]) : T(0);
    }
  }

  int64_t in_, vectors_, taps_;
  bool holds_;
  int reach_ = kOwn;  // vectors of x a vector of results picks from
  Scratch<int64_t> first_;
  Scratch<LaneInteger<T>> offset_;
  Scratch<T> weight_;
};

// Whether a large result in rows of so many elements goes past the caches: rows of whole vectors.
template <class T>
static bool goes_past(int64_t elements, int64_t row) {
  return is_streamed<T>(elements) && row % kLanes<T> == 0;
}

// inner == 1; false where taps lie too far apart.
template <class T>
static bool resample_lines(const ResampleArgs<T>& args) {
  const LineTable<T> table(args);
  if (!table.holds()) return false;
  const int64_t vectors = table.vectors();
  const bool streamed = goes_past<T>(args.outer * args.out, args.out);
  parallel_ranges(args.outer * vectors, kTaskElements / kLanes<T>, [&](int64_t begin, int64_t end) {
    table.visit([&](const auto& result) {
      int64_t line = begin / vectors, vector = begin % vectors;
      for (int64_t i = begin; i < end; ++i) {
        store_result(args.result + line * args.out + vector * kLanes<T>,
                     args.out - vector * kLanes<T>, result(args.x + line * args.in, vector),
                     streamed);
        if (++vector == vectors) vector = 0, ++line;
      }
    });
    finish_streams(streamed);
  });
  return true;
}

template <class T>
void resample_fprop_axis(const ResampleArgs<T>& args) {
  if (args.inner == 1 && args.out > 0 && resample_lines(args)) return;
  const int64_t grain = max_of<int64_t>(kTaskElements / max_of<int64_t>(args.inner, 1), 1);
  const bool streamed = goes_past<T>(args.outer * args.out * args.inner, args.inner);
  parallel_ranges(args.outer * args.out, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T* x = args.x + i / args.out * args.in * args.inner;
      weighted_rows(args, i % args.out, args.inner, args.result + i * args.inner, streamed,
                    [&](int64_t index) { return x + index * args.inner; });
    }
    finish_streams(streamed);
  });
}

template <class T>
static const T* end_of_x(const ResamplePlanesArgs<T>& args) {
  return args.x + args.outer * args.rows.in * args.columns.in;
}

// A line of x to a line of results, by the table where it holds.
template <class T>
static void resample_line(const ResampleTable& columns, const LineTable<T>& table, const T* x,
                          T* result, bool streamed) {
  if (table.holds())
    return table.visit([&](const auto& vector_at) {
      int64_t rest = columns.out;
      for (int64_t vector = 0; vector < table.vectors(); ++vector, rest -= kLanes<T>)
        store_result(result + vector * kLanes<T>, rest, vector_at(x, vector), streamed);
    });
  for (int64_t p = 0; p < columns.out; ++p) {
    T sum = 0;
    for (int64_t t = columns.begin[p]; t < columns.begin[p + 1]; ++t)
      sum += static_cast<T>(columns.weight[t]) * x[columns.index[t]];
    result[p] = sum;
  }
}

// Resampled rows of a plane, made when the first result wants them, for results [begin, end).
template <class T>
class ResampledRows {
 public:
  ResampledRows(const ResamplePlanesArgs<T>& args, const LineTable<T>& table, const T* plane,
                int64_t begin, int64_t end)
      : args_(args),
        table_(table),
        plane_(plane),
        span_(span_of(args.rows, begin, end)),
        rows_(span_.count * args.columns.out),
        made_(span_.count) {
    for (int64_t i = 0; i < span_.count; ++i) made_[i] = false;
  }

  const T* at(int64_t row) const {
    const int64_t i = row - span_.first;
    T* const result = &rows_[i * args_.columns.out];
    if (made_[i]) return result;
    const T* x = plane_ + row * args_.columns.in;
    prefetch_ahead(x, args_.columns.in, end_of_x(args_));
    resample_line(args_.columns, table_, x, result, false);
    made_[i] = true;
    return result;
  }

 private:
  struct Span {
    int64_t first, count;
  };
  static Span span_of(const ResampleTable& rows, int64_t begin, int64_t end) {
    int64_t first = rows.in, last = -1;
    for (int64_t t = rows.begin[begin]; t < rows.begin[end]; ++t)
      first = min_of(first, rows.index[t]), last = max_of(last, rows.index[t]);
    return {first, max_of<int64_t>(last - first + 1, 0)};
  }

  const ResamplePlanesArgs<T>& args_;
  const LineTable<T>& table_;
  const T* plane_;
  Span span_;
  Scratch<T> rows_;
  Scratch<bool> made_;
};

template <class T>
void resample_planes_fprop_axes(const ResamplePlanesArgs<T>& args) {
  const ResampleTable &rows = args.rows, &columns = args.columns;
  if (args.outer == 0 || rows.out == 0 || columns.out == 0) return;
  const LineTable<T> table(columns);
  const bool streamed = goes_past<T>(args.outer * rows.out * columns.out, columns.out);
  const int64_t parts = ceil_div(rows.out * columns.out, kTaskElements);
  const int64_t some = ceil_div(rows.out, min_of(parts, rows.out));  // rows of a part
  const int64_t parts_of_plane = ceil_div(rows.out, some);
  const int64_t elements = streamed ? kStreamedTask : kTaskElements;
  const int64_t grain = max_of<int64_t>(elements / (some * columns.out), 1);
  parallel_ranges(args.outer * parts_of_plane, grain, [&](int64_t first, int64_t last) {
    Scratch<T> sum(columns.in);
    for (int64_t part = first; part < last; ++part) {
      const int64_t plane = part / parts_of_plane, begin = part % parts_of_plane * some;
      const int64_t end = min_of(begin + some, rows.out);
      const T* x = args.x + plane * rows.in * columns.in;
      T* result = args.result + (plane * rows.out + begin) * columns.out;
      if (rows.out <= rows.in) {
        const T* reached = x;
        for (int64_t o = begin; o < end; ++o, result += columns.out) {
          if (rows.begin[o] < rows.begin[o + 1]) {
            const T* last = x + (rows.index[rows.begin[o + 1] - 1] + 1) * columns.in;
            prefetch_ahead(reached, max_of<int64_t>(last - reached, 0), end_of_x(args));
            reached = last;
          }
          weighted_rows(rows, o, columns.in, sum.get(), false,
                        [&](int64_t index) { return x + index * columns.in; });
          resample_line(columns, table, sum.get(), result, streamed);
        }
        continue;
      }
      const ResampledRows<T> resampled(args, table, x, begin, end);
      for (int64_t o = begin; o < end; ++o, result += columns.out)
        weighted_rows(rows, o, columns.out, result, streamed,
                      [&](int64_t index) { return resampled.at(index); });
    }
    finish_streams(streamed);
  });
}

LAMINA_INSTANTIATE(resample_fprop_axis, ResampleArgs)
LAMINA_INSTANTIATE(resample_planes_fprop_axes, ResamplePlanesArgs)

LAMINA_CPU_NAMESPACE_END
