// extreme: the largest or smallest element and its index (ops/reduce.h).
//
// Method        a line: its blocks' extremes by eight vectors side by side, and the index is looked
//               for in the first block that has the extreme alone. The lanes of short lines
//               without indices are compared a vector of lines at a time. Columns: rows one by
//               one, four for each pass over the extremes; indices are those of rows in a block.
// Numerics      NaN wins, the first one of a line: nothing takes its place.
// Floor         one read of the tensor; dgrad with indices: one write; without: two reads, one
//               write.
#include "cpu/reduce.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::Axes;
using ops::ExtremeArgs;

static constexpr int64_t kBlock = 2048;

template <bool Smallest, class T>
static constexpr T kNoElement = Smallest ? T(__builtin_inf()) : -T(__builtin_inf());

// Where v takes the place of `best`: it is beyond it or NaN, and `best` is not.
template <bool Smallest, class T>
LAMINA_INLINE bool takes(T v, T best) {
  return !(Smallest ? v >= best : v <= best) && best == best;
}
// yes where v takes the place of best, else no.
template <bool Smallest, class T, class V>
LAMINA_INLINE V taken(Vec<T> v, Vec<T> best, V yes, V no) {
#if defined(__AVX512F__)
  constexpr int kBeyond = Smallest ? _CMP_NGE_UQ : _CMP_NLE_UQ;
  if constexpr (sizeof(T) == 4) {
    const __mmask16 known = _mm512_cmp_ps_mask((__m512)best, (__m512)best, _CMP_ORD_Q);
    const __mmask16 mask = _mm512_mask_cmp_ps_mask(known, (__m512)v, (__m512)best, kBeyond);
    return (V)_mm512_mask_mov_epi32((__m512i)no, mask, (__m512i)yes);
  } else {
    const __mmask8 known = _mm512_cmp_pd_mask((__m512d)best, (__m512d)best, _CMP_ORD_Q);
    const __mmask8 mask = _mm512_mask_cmp_pd_mask(known, (__m512d)v, (__m512d)best, kBeyond);
    return (V)_mm512_mask_mov_epi64((__m512i)no, mask, (__m512i)yes);
  }
#else
  const Mask<T> beyond = Smallest ? v < best : v > best;
  return (beyond | (v != v)) & (best == best) ? yes : no;
#endif
}
// The extreme of both, NaN if one is.
template <bool Smallest, class T>
LAMINA_INLINE Vec<T> extreme_of(Vec<T> v, Vec<T> best) {
#if defined(__AVX512F__)  // the instructions give their second operand where one is NaN
  if constexpr (sizeof(T) == 4) {
    const __m512 a = (__m512)best, b = (__m512)v;
    const __mmask16 known = _mm512_cmp_ps_mask(a, a, _CMP_ORD_Q);
    return (Vec<T>)(Smallest ? _mm512_mask_min_ps(a, known, a, b)
                             : _mm512_mask_max_ps(a, known, a, b));
  } else {
    const __m512d a = (__m512d)best, b = (__m512d)v;
    const __mmask8 known = _mm512_cmp_pd_mask(a, a, _CMP_ORD_Q);
    return (Vec<T>)(Smallest ? _mm512_mask_min_pd(a, known, a, b)
                             : _mm512_mask_max_pd(a, known, a, b));
  }
#else
  return taken<Smallest, T>(v, best, v, best);
#endif
}

template <bool Smallest, class T, int WIDTH = kLanes<T> / 2>
LAMINA_INLINE T extreme_lane(Vec<T> v) {
  v = extreme_of<Smallest, T>(v, lanes_ahead<T, WIDTH>(v));
  if constexpr (WIDTH == 1)
    return v[0];
  else
    return extreme_lane<Smallest, T, WIDTH / 2>(v);
}

// Of a line, lane by lane.
template <bool Smallest, class T>
LAMINA_INLINE Vec<T> line_extremes(const T* x, int64_t size) {
  constexpr int kChains = 8;
  Vec<T> found = broadcast(kNoElement<Smallest, T>), other = found;
  int64_t i = 0;
  if (size >= kChains * kLanes<T>) {
    Vec<T> best[kChains];
#pragma GCC unroll 8
    for (Vec<T>& one : best) one = found;
    for (; i + kChains * kLanes<T> <= size; i += kChains * kLanes<T>)
#pragma GCC unroll 8
      for (int c = 0; c < kChains; ++c) {
        fetch_ahead(x + i + c * kLanes<T>, c * kLanes<T>);
        best[c] = extreme_of<Smallest, T>(load(x + i + c * kLanes<T>), best[c]);
      }
#pragma GCC unroll 3
    for (int half = kChains / 2; half > 0; half /= 2)
#pragma GCC unroll 4
      for (int c = 0; c < half; ++c) best[c] = extreme_of<Smallest, T>(best[c], best[c + half]);
    found = best[0];
  }
  for (; i + 2 * kLanes<T> <= size; i += 2 * kLanes<T>) {
    found = extreme_of<Smallest, T>(load(x + i), found);
    other = extreme_of<Smallest, T>(load(x + i + kLanes<T>), other);
  }
  for (; i < size; i += kLanes<T>)
    found = extreme_of<Smallest, T>(load_first(x + i, size - i, kNoElement<Smallest, T>), found);
  return extreme_of<Smallest, T>(found, other);
}

// Of short lines: side by side unless their vectors are chains enough.
template <bool Smallest, class T>
LAMINA_INLINE void short_extremes(const T* const (&x)[kLanes<T>], int64_t size,
                                  Vec<T> (&found)[kLanes<T>]) {
  constexpr T kNone = kNoElement<Smallest, T>;
  if (size >= 8 * kLanes<T>) {
    for (int k = 0; k < kLanes<T>; ++k) found[k] = line_extremes<Smallest>(x[k], size);
    return;
  }
#pragma GCC unroll 16
  for (Vec<T>& one : found) one = broadcast(kNone);
  int64_t i = 0;
  for (; i + kLanes<T> <= size; i += kLanes<T>)
#pragma GCC unroll 16
    for (int k = 0; k < kLanes<T>; ++k)
      found[k] = extreme_of<Smallest, T>(load(x[k] + i), found[k]);
  if (i < size)
#pragma GCC unroll 16
    for (int k = 0; k < kLanes<T>; ++k)
      found[k] = extreme_of<Smallest, T>(load_lanes(x[k] + i, 0, size - i, kNone), found[k]);
}

// The first element that equals the value, or is NaN if the value is; there is one.
template <class T>
static int64_t first_of(const T* x, int64_t size, T value) {
  const auto same = [=](auto v) { return value == value ? v == value : v != v; };
  constexpr int64_t kSteps = 4 * kLanes<T>;
  int64_t i = 0;
  for (; i + kSteps <= size; i += kSteps) {
    Mask<T> any{};
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const Vec<T> v = load(x + i + c * kLanes<T>);
      any |= value == value ? v == value : v != v;
    }
    LaneInteger<T> found = 0;
    for (int lane = 0; lane < kLanes<T>; ++lane) found |= any[lane];
    if (found != 0) break;
  }
  while (!same(x[i])) ++i;
  return i;
}

template <bool Smallest, class T>
struct Extreme {
  T value = kNoElement<Smallest, T>;
  int64_t at = -1, size = 0;  // the block that has it

  void add(const T* x, int64_t place, int64_t count) {
    for (int64_t begin = 0; begin < count; begin += kBlock) {
      Extreme block;
      block.at = place + begin, block.size = min_of(kBlock, count - begin);
      block.value = extreme_lane<Smallest, T>(line_extremes<Smallest>(x + begin, block.size));
      join(block);
    }
  }
  LAMINA_INLINE void join(const Extreme& next) {
    if (at < 0 || takes<Smallest>(next.value, value)) *this = next;
  }
};

template <bool Smallest, bool Indexed, class T>
struct ExtremeColumns {
  static constexpr int64_t kWidth = 1024;
  alignas(64) T value[kWidth];
  alignas(64)
      LaneInteger<T> index[Indexed ? kWidth : kLanes<T>];  // from the first row of the block
  int64_t first;

  void start(int64_t) {}
  void add(const T* x, int64_t rows, int64_t row, int64_t distance, int64_t count) {
    first = row;
    for (int64_t j = 0; j < count; j += kLanes<T>) {
      store(value + j, load_first(x + j, count - j));
      if constexpr (Indexed) store_index(j, Mask<T>{});
    }
    int64_t r = 1;
    for (; r + 4 <= rows; r += 4) add_rows<4>(x + r * distance, r, distance, count);
    for (; r < rows; ++r) add_rows<1>(x + r * distance, r, distance, count);
  }
  LAMINA_INLINE void store_index(int64_t j, Mask<T> v) {
    __builtin_memcpy(index + j, &v, sizeof v);
  }
  template <int Rows>
  LAMINA_INLINE void add_rows(const T* x, int64_t first_row, int64_t distance, int64_t count) {
    const auto step = [&](int64_t j, const auto& at) {
      Vec<T> best = load(value + j);
      Mask<T> rows{};
      if constexpr (Indexed) __builtin_memcpy(&rows, index + j, sizeof rows);
#pragma GCC unroll 4
      for (int r = 0; r < Rows; ++r) {
        const Vec<T> v = at(x + r * distance + j);
        if constexpr (Indexed) {
          const Mask<T> row = Mask<T>{} + static_cast<LaneInteger<T>>(first_row + r);
          rows = taken<Smallest, T>(v, best, row, rows);
        }
        best = extreme_of<Smallest, T>(v, best);
      }
      store(value + j, best);
      if constexpr (Indexed) store_index(j, rows);
    };
    int64_t j = 0;
    for (; j + kLanes<T> <= count; j += kLanes<T>) step(j, [](const T* p) { return load(p); });
    if (j < count) step(j, [&](const T* p) { return load_first(p, count - j); });
  }
  void join(const ExtremeColumns& next, int64_t count) {
    const auto distance = static_cast<LaneInteger<T>>(next.first - first);
    for (int64_t j = 0; j < count; ++j)
      if (takes<Smallest>(next.value[j], value[j])) {
        value[j] = next.value[j];
        if constexpr (Indexed) index[j] = distance + next.index[j];
      }
  }
};

template <bool Smallest, class T>
static void extreme(const ExtremeArgs<T>& args) {
  if (in_short_lines(args.axes) && !args.indices)
    return for_short_lines<kLanes<T>>(
        args.axes, args.x, kPiece, [&](const auto& x, int64_t line, int64_t count) {
          Vec<T> found[kLanes<T>];
          short_extremes<Smallest>(x, args.axes.m, found);
          store_first(args.result + line, count, fold_each<T>(found, [](Vec<T> a, Vec<T> b) {
                        return extreme_of<Smallest, T>(a, b);
                      }));
        });
  if (!in_columns(args))
    return reduce_lines(args.axes, args.x, Extreme<Smallest, T>(),
                        [&](int64_t line, const Extreme<Smallest, T>& found) {
                          if (args.result) args.result[line] = found.value;
                          if (args.indices)
                            args.indices[line] =
                                found.at + first_of(args.x + args.axes.at(line, 0) + found.at,
                                                    found.size, found.value);
                        });
  const auto finish = [&](int64_t line, int64_t count, const auto& columns) {
    for (int64_t j = 0; args.result && j < count; ++j) args.result[line + j] = columns.value[j];
    for (int64_t j = 0; args.indices && j < count; ++j)
      args.indices[line + j] = columns.first + columns.index[j];
  };
  if (args.indices)
    reduce_columns<ExtremeColumns<Smallest, true, T>>(args.axes, args.x, finish);
  else
    reduce_columns<ExtremeColumns<Smallest, false, T>>(args.axes, args.x, finish);
}

template <class T>
void extreme_fprop_runs(const ExtremeArgs<T>& args) {
  args.smallest ? extreme<true>(args) : extreme<false>(args);
}

// ---- Gradients

// grad_x = grad_y at the indices; what was written over them since is no place outside the line.
template <class T>
static void give(const ExtremeArgs<T>& args) {
  const Axes& axes = args.axes;
  const int64_t size = axes.size(), length = axes.length(), lines = axes.lines();
  const bool streamed = is_streamed<T>(size);
  parallel_ranges(size, kPiece, [&](int64_t begin, int64_t end) {
    write_line(args.result + begin, end - begin, streamed,
               [](int64_t, int64_t) { return Vec<T>{}; });
    finish_streams(streamed);
  });
  const int64_t inner = in_columns(args) ? axes.inner : 1;
  parallel_ranges(lines, kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      const uint64_t index = static_cast<uint64_t>(args.indices[line]);
      if (index >= static_cast<uint64_t>(length)) continue;
      const int64_t row = line / inner * length + static_cast<int64_t>(index);
      args.result[row * inner + line % inner] = args.grad_y[line];
    }
  });
}

// The elements of a line, or of lines side by side, that equal y share grad_y.
template <class T>
static void share(const ExtremeArgs<T>& args) {
  const Axes& axes = args.axes;
  const bool columns = in_columns(args);
  const int64_t n = axes.n, inner = axes.inner, m = axes.m;
  const auto same = [](Vec<T> v, Vec<T> y) { return (v == y) | ((v != v) & (y != y)); };
  if (!columns)
    return parallel_ranges(
        axes.lines(), max_of<int64_t>(kPiece / (n * m), 1), [&](int64_t begin, int64_t end) {
          for (int64_t line = begin; line < end; ++line) {
            const Vec<T> y = broadcast(args.y[line]);
            int64_t equal = 0;
            for (int64_t row = 0; row < n; ++row) {
              const T* const x = args.x + axes.at(line, row);
              for (int64_t i = 0; i < m; i += kBlock) {
                Mask<T> found{};
                along_line<T>(min_of(kBlock, m - i), [&](int64_t j, int64_t count) {
                  const Mask<T> lanes = lane_numbers<T>() < static_cast<LaneInteger<T>>(count);
                  found -= same(load_first(x + i + j, count), y) & lanes;
                });
                for (int lane = 0; lane < kLanes<T>; ++lane) equal += found[lane];
              }
            }
            const Vec<T> part = broadcast(args.grad_y[line] / static_cast<T>(equal));
            for (int64_t row = 0; row < n; ++row) {
              const int64_t at = axes.at(line, row);
              write_line(args.result + at, m, false, [&](int64_t i, int64_t count) {
                return same(load_first(args.x + at + i, count), y) ? part : Vec<T>{};
              });
            }
          }
        });
  constexpr int64_t kWidth = 256;
  const int64_t tiles = ceil_div(inner, kWidth);
  parallel_ranges(
      axes.outer * tiles, max_of<int64_t>(kPiece / (n * min_of(inner, kWidth)), 1),
      [&](int64_t begin, int64_t end) {
        for (int64_t place = begin; place < end; ++place) {
          const int64_t outer = place / tiles, column = place % tiles * kWidth;
          const int64_t count = min_of(kWidth, inner - column), line = outer * inner + column;
          const int64_t at = outer * n * inner + column;
          alignas(64) T part[kWidth] = {};
          for (int64_t row = 0; row < n; ++row)
            along_line<T>(count, [&](int64_t j, int64_t some) {
              const Vec<T> one = broadcast(T(1));
              const Vec<T> v = load_first(args.x + at + row * inner + j, some);
              store(part + j, load(part + j) +
                                  (same(v, load_first(args.y + line + j, some)) ? one : Vec<T>{}));
            });
          for (int64_t j = 0; j < count; ++j) part[j] = args.grad_y[line + j] / part[j];
          for (int64_t row = 0; row < n; ++row)
            along_line<T>(count, [&](int64_t j, int64_t some) {
              const Vec<T> v = load_first(args.x + at + row * inner + j, some);
              const Vec<T> y = load_first(args.y + line + j, some);
              store_first(args.result + at + row * inner + j, some,
                          same(v, y) ? load(part + j) : Vec<T>{});
            });
        }
      });
}

template <class T>
void extreme_dgrad_runs(const ExtremeArgs<T>& args) {
  args.indices ? give(args) : share(args);
}

LAMINA_INSTANTIATE(extreme_fprop_runs, ExtremeArgs)
LAMINA_INSTANTIATE(extreme_dgrad_runs, ExtremeArgs)

LAMINA_CPU_NAMESPACE_END
