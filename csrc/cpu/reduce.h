// What reductions share: vectors of doubles made of elements, and the partition of lines and
// columns.
//
// Partitioning  a line [n][m] is cut in pieces of kPiece elements, whose partial results are joined
//               in order; columns (m == 1) are taken in tiles of neighbours, and rows in blocks
//               where there are few tiles. All of it follows from the shape.
#pragma once

#include "core/threads.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"
#include "ops/reduce.h"

LAMINA_CPU_NAMESPACE_BEGIN

inline constexpr int64_t kPiece = 65536;     // elements a task
inline constexpr int64_t kLongRun = 512;     // elements beside which a partial result is little
inline constexpr int64_t kJoined = 4096;     // partial results a task joins
inline constexpr int64_t kColumnTasks = 64;  // more are not worth their partial results

using Wide = Vec<double>;
inline constexpr int kWide = kLanes<double>;
typedef float Narrow __attribute__((vector_size(LAMINA_VECTOR_BYTES / 2)));

// GCC 12 converts half a vector at a time, and warns of the intrinsics without a mask.
LAMINA_INLINE Wide widened(Narrow v) {
#if defined(__AVX512F__)
  return (Wide)_mm512_maskz_cvtps_pd(__mmask8(-1), (__m256)v);
#elif defined(__AVX2__)
  return (Wide)_mm256_cvtps_pd((__m128)v);
#else
  return __builtin_convertvector(v, Wide);
#endif
}
LAMINA_INLINE Narrow narrowed(Wide v) {
#if defined(__AVX512F__)
  return (Narrow)_mm512_maskz_cvtpd_ps(__mmask8(-1), (__m512d)v);
#elif defined(__AVX2__)
  return (Narrow)_mm256_cvtpd_ps((__m256d)v);
#else
  return __builtin_convertvector(v, Narrow);
#endif
}
template <class T>
LAMINA_INLINE Wide load_wide(const T* p) {
  if constexpr (sizeof(T) == 8) {
    return load(p);
  } else {
    Narrow v;
    __builtin_memcpy(&v, p, sizeof v);
    return widened(v);
  }
}
// The first n of a vector's elements, all or none; the others are 0 and not read.
template <class T>
LAMINA_INLINE Wide load_wide(const T* p, int64_t n) {
  if (n >= kWide) return load_wide(p);
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return widened((Narrow)_mm256_maskz_loadu_ps(__mmask8((1u << max_of<int64_t>(n, 0)) - 1), p));
#endif
  if constexpr (sizeof(T) == 8) return load_first(p, n);
  T lanes[kWide] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return load_wide(lanes);
}
template <class T>
LAMINA_INLINE void store_wide(T* p, int64_t n, Wide v) {
  if constexpr (sizeof(T) == 8) {
    store_first(p, n, v);
  } else {
    const Narrow narrow = narrowed(v);
    if (n >= kWide)
      __builtin_memcpy(p, &narrow, sizeof narrow);
    else
      for (int64_t i = 0; i < n; ++i) p[i] = narrow[i];
  }
}
// Asks for what lies kPrefetchBytes behind p, once a cache line: element `place` of a whole number
// of lines. Streams that end with a page are slow to start again.
template <class T>
LAMINA_INLINE void fetch_ahead(const T* p, int place) {
  constexpr int kLine = 64 / sizeof(T);
  if (place % kLine == 0) __builtin_prefetch(p + kPrefetchBytes / sizeof(T));
}
LAMINA_INLINE Wide first_lanes(Wide v, int64_t n, double other) {
  return lane_numbers<double>() < n ? v : broadcast(other);
}

template <class State, class Finish>
static void join_parts(const State* parts, int64_t lines, int64_t pieces, const Finish& finish) {
  parallel_ranges(lines, ceil_div(kJoined, pieces), [&](int64_t line, int64_t end) {
    for (; line < end; ++line) {
      State state = parts[line * pieces];
      for (int64_t piece = 1; piece < pieces; ++piece) state.join(parts[line * pieces + piece]);
      finish(line, state);
    }
  });
}

// State: add(first element, its place in the line, count), join(the next piece's State).
// finish(line, state) of every line. Long runs are taken as they lie in memory, whatever their
// lines: a processor reads one stream.
template <class State, class T, class Finish>
static void reduce_lines(const ops::Axes& axes, const T* x, const State& start,
                         const Finish& finish) {
  const int64_t n = axes.n, m = axes.m, lines = axes.lines(), length = axes.length();
  if (length <= kPiece && (n == 1 || m < kLongRun)) {
    const int64_t grain = kPiece / max_of<int64_t>(length, 1);
    return parallel_ranges(lines, grain, [&](int64_t begin, int64_t end) {
      for (int64_t line = begin; line < end && n == 1; ++line) {
        State state = start;
        state.add(x + axes.at(line, 0), 0, m);
        finish(line, state);
      }
      constexpr int64_t kNeighbours = 8;  // lines whose runs follow each other in memory
      State states[kNeighbours];
      for (int64_t line = begin, count; line < end && n != 1; line += count) {
        const T* run = x + axes.at(line, 0);
        count = min_of(min_of(kNeighbours, end - line), axes.inner - line % axes.inner);
        for (int64_t i = 0; i < count; ++i) states[i] = start;
        for (int64_t row = 0; row < n; ++row, run += axes.n_step())
          for (int64_t i = 0; i < count; ++i)
            states[i].add(run + i * axes.inner_step(), row * m, m);
        for (int64_t i = 0; i < count; ++i) finish(line + i, states[i]);
      }
    });
  }
  if (m >= kLongRun) {
    const int64_t cuts = ceil_div(m, kPiece), pieces = n * cuts;  // of a run; of a line
    const Scratch<State> parts(lines * pieces);
    parallel_ranges(lines * pieces, max_of<int64_t>(kPiece / m, 1), [&](int64_t part, int64_t end) {
      int64_t run = part / cuts, cut = part % cuts;
      int64_t i = run % axes.inner, row = run / axes.inner % n, outer = run / axes.inner / n;
      for (; part < end; ++part) {
        const int64_t line = outer * axes.inner + i, from = cut * kPiece;
        const T* const first =
            x + outer * axes.outer_step() + row * axes.n_step() + i * axes.inner_step();
        State state = start;
        state.add(first + from, row * m + from, min_of(kPiece, m - from));
        parts[line * pieces + row * cuts + cut] = state;
        if (++cut < cuts) continue;
        cut = 0;
        if (++i < axes.inner) continue;
        i = 0;
        if (++row == n) row = 0, ++outer;
      }
    });
    return join_parts(parts.get(), lines, pieces, finish);
  }
  const int64_t rows = kPiece / m, pieces = ceil_div(n, rows);  // of a piece; of a line
  const Scratch<State> parts(lines * pieces);
  parallel_for(lines * pieces, [&](int64_t task) {
    const int64_t line = task / pieces, begin = task % pieces * rows;
    State state = start;
    for (int64_t row = begin, end = min_of(n, begin + rows); row < end; ++row)
      state.add(x + axes.at(line, row), row * m, m);
    parts[task] = state;
  });
  join_parts(parts.get(), lines, pieces, finish);
}

// Short lines, `Lines` at a time: body(their first elements, the first line, count), the last one
// again in the place of lines that are not there. All are folded in the same order.
inline constexpr int64_t kShortLine = 1024;
LAMINA_INLINE bool in_short_lines(const ops::Axes& axes) {
  return axes.n == 1 && axes.m <= kShortLine;
}
template <int Lines, class T, class Body>
LAMINA_INLINE void for_short_lines(const ops::Axes& axes, const T* x, int64_t elements,
                                   const Body& body) {
  const int64_t grain = ceil_div(elements, max_of<int64_t>(axes.m, kLanes<T>) * Lines) * Lines;
  parallel_ranges(axes.lines(), grain, [&](int64_t line, int64_t end) {
    const int64_t step = axes.inner == 1 ? axes.outer_step() : axes.inner_step();
    const int64_t turn = axes.outer_step() - axes.inner * step;
    const T* next = x + axes.at(line, 0);
    for (int64_t i = line % axes.inner; line < end; line += Lines) {
      const T* first[Lines];
      const int64_t count = min_of<int64_t>(Lines, end - line);
      for (int64_t k = 0; k < count; ++k) {
        first[k] = next, next += step;
        if (++i == axes.inner) i = 0, next += turn;
      }
      for (int64_t k = count; k < Lines; ++k) first[k] = first[count - 1];
      body(first, line, count);
    }
  });
}

// Columns: kWidth of them; start(count), add(x, rows, first row, distance of rows, count), join(the
// next block's, count). finish(line of the first column, count, columns).
template <class Columns, class T, class Finish>
static void reduce_columns(const ops::Axes& axes, const T* x, const Finish& finish) {
  const int64_t n = axes.n, inner = axes.inner, width = min_of(inner, Columns::kWidth);
  const int64_t tiles = ceil_div(inner, width), places = axes.outer * tiles;
  const int64_t most = min_of(ceil_div(n * width, kPiece), ceil_div(kColumnTasks, places));
  const int64_t rows = max_of<int64_t>(ceil_div(n, max_of<int64_t>(most, 1)), 1);
  const int64_t blocks = max_of<int64_t>(ceil_div(n, rows), 1);
  const auto add_block = [&](Columns& columns, int64_t place, int64_t block) {
    const int64_t column = place % tiles * width, outer = place / tiles, row = block * rows;
    const int64_t count = min_of(width, inner - column);
    columns.start(count);
    columns.add(x + outer * axes.outer_step() + row * axes.n_step() + column, min_of(rows, n - row),
                row, axes.n_step(), count);
  };
  const auto finish_place = [&](const Columns& columns, int64_t place) {
    const int64_t column = place % tiles * width;
    finish(place / tiles * inner + column, min_of(width, inner - column), columns);
  };
  if (blocks == 1)
    return parallel_ranges(places, max_of<int64_t>(kPiece / max_of<int64_t>(n * width, 1), 1),
                           [&](int64_t begin, int64_t end) {
                             const Scratch<Columns> columns(1);
                             for (int64_t place = begin; place < end; ++place) {
                               add_block(columns[0], place, 0);
                               finish_place(columns[0], place);
                             }
                           });
  const Scratch<Columns> parts(places * blocks);
  parallel_for(places * blocks,
               [&](int64_t task) { add_block(parts[task], task / blocks, task % blocks); });
  parallel_for(places, [&](int64_t place) {
    Columns& columns = parts[place * blocks];
    const int64_t count = min_of(width, inner - place % tiles * width);
    for (int64_t block = 1; block < blocks; ++block)
      columns.join(parts[place * blocks + block], count);
    finish_place(columns, place);
  });
}

template <class T>
LAMINA_INLINE bool in_columns(const T& args) {
  return args.axes.m == 1 && args.axes.n > 1;
}

// Calls body(run, from, to) for the runs of `length` elements that `total` elements consist of, cut
// where tasks begin.
template <class Body>
LAMINA_INLINE void for_each_stretch(int64_t total, int64_t length, const Body& body) {
  parallel_ranges(total, kPiece, [&](int64_t begin, int64_t end) {
    int64_t run = begin / length, from = begin - run * length;
    for (int64_t i = begin; i < end; i += length - from, ++run, from = 0)
      body(run, from, min_of(length, from + end - i));
  });
}

LAMINA_CPU_NAMESPACE_END
