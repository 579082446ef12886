// Gradients of average pools (ops/pool.h).
//
// Method        stride 1 or 2: rows of grad_y are divided and staged between guards, all that a
// task
//               needs before any is used (no load waits for a store); each is summed across the
//               columns once, in vectors of one phase of the input's columns, and rows of the input
//               add the rows of sums that hold them. Windows of 2 x 2 that tile the plane need no
//               staging (cpu/pool_gather.h). Where all windows have one divisor, those that hold an
//               input are a window of outputs, folded as in the forward pass (cpu/pool_fold.h,
//               cpu/pool_lines.h).
//               Other averages spread the sums over the rows on the columns of each output: a few
//               by permutes, as the rows are written.
// Partitioning  rows of the input (2 x 2: of the output), in groups of about kPoolTask elements.
// Numerics      across the columns in output order, then down the rows; without a regular stride
//               down the rows first.
// Floor         one read of grad_y and one write of grad_x.
#include "cpu/pool_gather.h"
#include "cpu/pool_lines.h"
#include "cpu/pool_phases.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

inline constexpr int64_t kMaxCovering = 16;  // rows of outputs that hold one row of the input

static int64_t most_covering(const PoolAxis& axis) {
  int64_t most = 1;
  for (int64_t i = 0; i < axis.in; ++i) most = max_of(most, axis.last[i] - axis.first[i]);
  return most;
}

// Divided rows of grad_y, each between elements that add nothing.
template <class T>
class Staged {
 public:
  Staged(const PoolArgs<T>& args, const Phases& phases, int64_t width, int64_t rows)
      : args_(args),
        before_(ceil_div(phases.largest, kLanes<T>) * kLanes<T>),
        width_(before_ +
               ceil_div(max_of(width - phases.smallest, args.axis[2].out), kLanes<T>) * kLanes<T>),
        divisor_(args.axis[2].out),
        grad_(rows * width_) {
    for (int64_t o = 0; o < args.axis[2].out; ++o) divisor_[o] = T(args.axis[2].divisor[o]);
  }

  void stage(const Segment& s) const {
    for (int64_t o0 = s.begin0; o0 < s.end0; ++o0)
      for (int64_t o1 = s.begin1; o1 < s.end1; ++o1) stage_row(s.plane, o0, o1, row(s.row(o0, o1)));
  }

  // Output 0 of a staged row.
  T* row(int64_t row) const { return grad_.get() + row * width_ + before_; }

 private:
  LAMINA_INLINE void stage_row(int64_t plane, int64_t o0, int64_t o1, T* to) const {
    const PoolAxis* axis = args_.axis;
    const int64_t out = axis[2].out;
    const T* grad_y = args_.grad_y + plane * args_.out_size() + (o0 * axis[1].out + o1) * out;
    const T divide = T(axis[0].divisor[o0] * axis[1].divisor[o1]);
    for (int64_t o = -before_; o < 0; o += kLanes<T>) store(to + o, Vec<T>{});
    int64_t o = 0;
    for (; o < out; o += kLanes<T>)
      store<T>(to + o, load_first(grad_y + o, out - o) /
                           (divide * load_first(&divisor_[o], out - o, T(1))));
    for (; o < width_ - before_; o += kLanes<T>) store(to + o, Vec<T>{});
  }

  const PoolArgs<T>& args_;
  int64_t before_, width_;
  Scratch<T> divisor_, grad_;
};

// Staged rows of averages summed across the columns: a row as wide as the input's.
template <class T, int STRIDE>
static void sum_columns(const Phases& phases, const T* staged, T* sums, int64_t in) {
  for (int64_t j = 0; STRIDE * j < in; j += kLanes<T>) {
    Vec<T> sum[STRIDE] = {};
#pragma GCC unroll 2
    for (int phase = 0; phase < STRIDE; ++phase)
      for (int64_t t = 0; t < phases.count[phase]; ++t)
        sum[phase] += load(staged + j - phases.shift[phase][t]);
    if constexpr (STRIDE == 1)
      store(sums + j, sum[0]);
    else
      store_phases<T>(sums + 2 * j, 2 * kLanes<T>, sum[0], sum[STRIDE - 1]);
  }
}

// The input rows of a segment from the rows of sums that hold them, one after the other.
template <class T>
static void add_rows(const PoolArgs<T>& args, const T* sums, int64_t width, const Segment& segment,
                     T* grad_x) {
  const PoolAxis* axis = args.axis;
  const int64_t in = axis[2].in;
  int64_t i0 = segment.begin / axis[1].in, i1 = segment.begin % axis[1].in;
  for (int64_t row = segment.begin; row < segment.end; ++row) {
    const T* from[kMaxCovering];
    int64_t rows = 0;
    for_each_covering_row(axis, i0, i1, [&](int64_t o0, int64_t o1) {
      from[rows++] = sums + segment.row(o0, o1) * width;
    });
    for (int64_t j = 0; j < in; j += kLanes<T>) {
      Vec<T> sum = {};
      for (int64_t r = 0; r < rows; ++r) sum += load(from[r] + j);
      store_first(grad_x + j, in - j, sum);
    }
    grad_x += in;
    if (++i1 == axis[1].in) i1 = 0, ++i0;
  }
}

template <class T, int STRIDE>
static void gather(const PoolArgs<T>& args, const RegularColumns& columns) {
  const PoolAxis* axis = args.axis;
  const Phases phases(columns, axis[2].step);
  const int64_t in = axis[2].in, rows = axis[0].in * axis[1].in;
  const int64_t vectors = ceil_div(ceil_div(in, STRIDE), kLanes<T>);
  const int64_t grain = rows_of_block(rows, in);
  const bool streamed = is_streamed<T>(args.planes * args.in_size());
  parallel_blocks(args.planes * rows, grain, streamed, [&](int64_t begin, int64_t end) {
    const int64_t count = for_each_segment(axis, begin, end, [](const Segment&) {});
    const Staged<T> staged(args, phases, vectors * kLanes<T>, count);
    for_each_segment(axis, begin, end, [&](const Segment& s) { staged.stage(s); });
    const int64_t width = STRIDE * vectors * kLanes<T>;
    Scratch<T> sums(count * width);
    for (int64_t r = 0; r < count; ++r)
      sum_columns<T, STRIDE>(phases, staged.row(r), &sums[r * width], in);
    Scratch<T> lines(streamed ? (end - begin) * in : 0);
    T* const to = streamed ? lines.get() : args.result + begin * in;
    for_each_segment(axis, begin, end, [&](const Segment& s) {
      add_rows(args, sums.get(), width, s, to + (s.plane * rows + s.begin - begin) * in);
    });
    if (streamed) copy_past_caches(lines.get(), (end - begin) * in, args.result + begin * in);
  });
}

// One window of the whole plane.
static bool whole_plane(const PoolAxis* axis) {
  for (int a = 0; a < 3; ++a)
    if (axis[a].out != 1 || axis[a].count[0] != axis[a].in) return false;
  return true;
}
template <class T>
static void fill_planes(const PoolArgs<T>& args) {
  const int64_t size = args.in_size();
  const T divide = T(args.axis[0].divisor[0] * args.axis[1].divisor[0] * args.axis[2].divisor[0]);
  const bool streamed = is_streamed<T>(args.planes * size);
  const int64_t task = streamed ? kMostBlocks * kPoolTask : kPoolTask;
  parallel_ranges(
      args.planes, ceil_div(task, max_of<int64_t>(size, 1)), [&](int64_t begin, int64_t end) {
        int64_t next = begin,
                rest = 0;  // the plane after the one at hand, and what this still takes
        T value = 0;
        auto step = [&] { value = args.grad_y[next++] / divide, rest += size; };
        write_line(args.result + begin * size, (end - begin) * size, streamed,
                   [&](int64_t, int64_t count) {
                     while (rest <= 0) step();
                     Vec<T> v = broadcast(value);
                     while (rest < count) {  // planes end within the vector
                       const Mask<T> own = lane_numbers<T>() < static_cast<LaneInteger<T>>(rest);
                       step();
                       v = own ? v : broadcast(value);
                     }
                     rest -= count;
                     return v;
                   });
        finish_streams(streamed);
      });
}

// Adds the sum of each output to the columns of its window; `row` has room for a vector more.
template <class T>
static void spread_columns(const PoolAxis& axis, const T* sums, T* row) {
  int64_t written = 0;
  auto write = [&](int64_t end, T value) {  // what it writes beyond `end` is written again
    for (; written < end; written += kLanes<T>) store(row + written, broadcast(value));
    written = end;
  };
  for (int64_t o = 0; o < axis.out; ++o) {
    if (axis.count[o] == 0) continue;
    const int64_t begin = axis.start[o], end = begin + (axis.count[o] - 1) * axis.step + 1;
    if (written < begin) write(begin, T(0));
    if (axis.step == 1) {
      for (int64_t i = begin; i < min_of(written, end); ++i) row[i] += sums[o];
      if (written < end) write(end, sums[o]);
    } else {
      if (written < end) write(end, T(0));
      for (int64_t i = begin; i < end; i += axis.step) row[i] += sums[o];
    }
  }
  if (written < axis.in) write(axis.in, T(0));
}

// How many rows from `row` on, up to `end`, the same windows hold.
static int64_t rows_alike(const PoolAxis* axis, int64_t row, int64_t end) {
  if (axis[0].step != 1 || axis[1].step != 1) return 1;
  const int64_t i1 = row % axis[1].in;
  int64_t same = 1;
  while (row + same < end && i1 + same < axis[1].in &&
         axis[1].first[i1 + same] == axis[1].first[i1] &&
         axis[1].last[i1 + same] == axis[1].last[i1])
    ++same;
  return same;
}

// A plane and the outputs over one of its rows.
struct Covering {
  int64_t plane, first0, last0, first1, last1;
  bool operator==(const Covering&) const = default;
};

// Writes `rows` rows, each the first `width` elements of `row`, behind which they begin again.
template <class T>
static void repeat_row(const T* row, int64_t width, int64_t rows, T* to) {
  const int64_t size = rows * width;
  int64_t column = 0;
  along_line<T>(size, [&](int64_t i, int64_t count) {
    store_first(to + i, count, load(row + column));
    for (column += kLanes<T>; column >= width;) column -= width;
  });
}

template <class T>
static void spread(const PoolArgs<T>& args) {
  const PoolAxis* axis = args.axis;
  const int64_t in1 = axis[1].in, in = axis[2].in, out = axis[2].out;
  const int64_t grain = rows_together(in);
  const bool streamed = is_streamed<T>(args.planes * args.in_size());
  const bool runs = axis[0].step == 1 && axis[1].step == 1;
  const int64_t items = args.planes * axis[0].in * in1;
  parallel_blocks(items, grain, streamed, [&](int64_t begin, int64_t end) {
    Scratch<T> lines(streamed ? (end - begin) * in : 0);  // of a result past the caches
    Scratch<T> sums(out), divisor(out), spread(in + kLanes<T>);
    for (int64_t o = 0; o < out; ++o) divisor[o] = T(axis[2].divisor[o]);
    T* to = streamed ? lines.get() : args.result + begin * in;
    Covering held{-1, 0, 0, 0, 0};  // whose columns are spread
    for (int64_t row = begin, same = 1; row < end; row += same, to += same * in) {
      const int64_t plane = row / in1 / axis[0].in, i0 = row / in1 % axis[0].in, i1 = row % in1;
      const Covering holds{plane, axis[0].first[i0], axis[0].last[i0], axis[1].first[i1],
                           axis[1].last[i1]};
      same = rows_alike(axis, row, end);
      if (!runs || held != holds) {
        const T* grad_y = args.grad_y + plane * args.out_size();
        for (int64_t o = 0; o < out; ++o) sums[o] = 0;
        for_each_covering_row(axis, i0, i1, [&](int64_t o0, int64_t o1) {
          const T* from = grad_y + (o0 * axis[1].out + o1) * out;
          const T divide = T(axis[0].divisor[o0] * axis[1].divisor[o1]);
          along_line<T>(out, [&](int64_t o, int64_t count) {
            const Vec<T> share =
                load_first(from + o, count) / (divide * load_first(&divisor[o], count, T(1)));
            store_first<T>(&sums[o], count, load_first(&sums[o], count) + share);
          });
        });
        spread_columns(axis[2], sums.get(), spread.get());
        for (int64_t i = 0; i < kLanes<T>; ++i) spread[in + i] = spread[i];
        held = holds;
      }
      repeat_row(spread.get(), in, same, to);
    }
    if (streamed) copy_past_caches(lines.get(), (end - begin) * in, args.result + begin * in);
  });
}

// The sums of a row, one vector of them, on the columns of their windows by permutes.
template <class T>
class FewColumns {
 public:
  static constexpr int64_t kMostTaps = 4, kManyPlanes = 8;  // worth a table

  FewColumns(const PoolAxis& axis, int64_t planes)
      : taps_(most_covering(axis)),
        width_(axis.in + 2 * kLanes<T>),
        holds_(axis.out < kLanes<T> && taps_ <= kMostTaps && planes >= kManyPlanes),
        from_(holds_ ? taps_ * width_ : 0) {
    if (!holds_) return;
    LaneInteger<T>* const from = &from_[kLanes<T>];
    for (int64_t i = 0; i < axis.in; ++i) {
      int64_t t = 0;
      for (int64_t o = axis.first[i]; o < axis.last[i]; ++o)
        if (holds_input(axis, o, i)) from[t++ * width_ + i] = static_cast<LaneInteger<T>>(o);
      for (; t < taps_; ++t) from[t * width_ + i] = static_cast<LaneInteger<T>>(axis.out);
    }
    for (int64_t t = 0; t < taps_; ++t) {
      LaneInteger<T>* const row = from + t * width_;
      for (int64_t i = 0; i < kLanes<T>; ++i) row[axis.in + i] = row[i];
      for (int64_t i = -kLanes<T>; i < 0; ++i) row[i] = 0;  // lanes of the rows before
    }
  }

  bool holds() const { return holds_; }
  LAMINA_INLINE Vec<T> spread(Vec<T> sums, int64_t column) const {
    const LaneInteger<T>* from = &from_[kLanes<T> + column];
    Vec<T> v = of(sums, from);
    for (int64_t t = 1; t < taps_; ++t) v += of(sums, from + t * width_);
    return v;
  }

 private:
  LAMINA_INLINE static Vec<T> of(Vec<T> sums, const LaneInteger<T>* from) {
    Mask<T> lanes;
    __builtin_memcpy(&lanes, from, sizeof lanes);
    return __builtin_shuffle(sums, lanes);
  }

  int64_t taps_, width_;
  bool holds_;
  Scratch<LaneInteger<T>> from_;  // outputs; behind the last, sums are zero
};

// The divided sums of a row, and how many rows from it on have the same.
template <class T>
struct RowSums {
  Vec<T> sums;
  int64_t rows;

  [[gnu::noinline]] static RowSums of(const PoolArgs<T>& args, Vec<T> divisor, int64_t row,
                                      int64_t end) {
    const PoolAxis* axis = args.axis;
    const int64_t in1 = axis[1].in, out = axis[2].out;
    const Lanes<T> inside(0, out);
    const T* grad_y = args.grad_y + row / in1 / axis[0].in * args.out_size();
    Vec<T> sums = {};
    for_each_covering_row(axis, row / in1 % axis[0].in, row % in1, [&](int64_t o0, int64_t o1) {
      sums += inside.load(grad_y + (o0 * axis[1].out + o1) * out) /
              (T(axis[0].divisor[o0] * axis[1].divisor[o1]) * divisor);
    });
    return {sums, rows_alike(axis, row, end)};
  }
};

// Rows one after the other as one line.
template <class T>
static void spread_few(const PoolArgs<T>& args, const FewColumns<T>& columns) {
  const PoolAxis* axis = args.axis;
  const int64_t in = axis[2].in;
  const int64_t grain = rows_together(in);
  const bool streamed = is_streamed<T>(args.planes * args.in_size());
  T divisors[kLanes<T>];
  for (int64_t o = 0; o < kLanes<T>; ++o) divisors[o] = T(o < axis[2].out ? axis[2].divisor[o] : 1);
  const int64_t items = args.planes * axis[0].in * axis[1].in;
  parallel_blocks(items, grain, streamed, [&](int64_t begin, int64_t end) {
    const Vec<T> divisor = load(divisors);
    Vec<T> sums = {};
    int64_t row = begin, column = 0, rest = 0;  // elements of the rows at hand
    write_line(args.result + begin * in, (end - begin) * in, streamed,
               [&](int64_t, int64_t count) __attribute__((always_inline)) {
                 Vec<T> v = columns.spread(sums, column);
                 while (rest < count) {  // other windows' rows begin within the vector
                   const Mask<T> own = lane_numbers<T>() < static_cast<LaneInteger<T>>(rest);
                   column = -rest;
                   const auto next = RowSums<T>::of(args, divisor, row, end);
                   sums = next.sums, row += next.rows, rest += next.rows * in;
                   v = own ? v : columns.spread(sums, column);
                 }
                 rest -= count;
                 for (column += count; column >= in;) column -= in;
                 return v;
               });
  });
}

// The sum over the windows that hold an input, divided: where all have one divisor, and taps that
// follow each other, so that these windows do too. False for others.
template <class T>
static bool fold_covering(const PoolArgs<T>& args) {
  const PoolAxis* axis = args.axis;
  Scratch<int64_t> counts(axis[0].in + axis[1].in + axis[2].in);
  int64_t* count = counts.get();
  PoolArgs<T> covering;
  if (!one_divisor(axis)) return false;
  covering.planes = args.planes, covering.x = args.grad_y, covering.result = args.result;
  for (int a = 0; a < 3; ++a) {
    if (axis[a].step != 1 || axis[a].out < 1) return false;
    covering.axis[a].in = axis[a].out, covering.axis[a].out = axis[a].in;
    covering.axis[a].start = axis[a].first, covering.axis[a].count = count;
    for (int64_t i = 0; i < axis[a].in; ++i) *count++ = axis[a].last[i] - axis[a].first[i];
  }
  const T divide = T(axis[0].divisor[0] * axis[1].divisor[0] * axis[2].divisor[0]);
  const RegularColumns columns(covering.axis[2]);
  const auto average = [&](Vec<T> sum, auto...) { return sum / divide; };
  return fold_lines<T, Sum<T>>(covering, columns, average) ||
         fold_windows<T, Sum<T>>(covering, columns, average) ||
         fold_phases<T, Sum<T>>(covering, columns, average);
}

template <class T>
void avg_pool_dgrad_windows(const PoolArgs<T>& args) {
  const RegularColumns columns(args.axis[2]);
  const int64_t covering = most_covering(args.axis[0]) * most_covering(args.axis[1]);
  if (whole_plane(args.axis))
    fill_planes(args);
  else if (pairs_tile(args.axis, columns))
    gather_pairs<T, false>(args);
  else if (fold_covering(args))
    return;
  else if (!columns.holds || covering > kMaxCovering) {
    const FewColumns<T> few(args.axis[2], args.planes);
    few.holds() ? spread_few(args, few) : spread(args);
  } else if (columns.stride == 1)
    gather<T, 1>(args, columns);
  else
    gather<T, 2>(args, columns);
}

LAMINA_INSTANTIATE(avg_pool_dgrad_windows, PoolArgs)

LAMINA_CPU_NAMESPACE_END
