// Gradients of max and average pools (ops/pool.h).
//
// Method        maxima are scattered by the task that owns their rows of the input: an addition an
//               output is less than the vectors of a gather, which compare every tap.
//               Averages of stride 1 or 2: rows of grad_y are divided and staged between guards,
//               all that a task needs before any is used (no load waits for a store); each is
//               summed across the columns once, in vectors of one phase of the input's columns, and
//               rows of the input add the rows of sums that hold them. Windows of 2 x 2 that tile
//               the plane, max and average, need no staging: an output meets its four inputs in
//               registers. Where all windows have one divisor, those that hold an input are a
//               window of outputs, folded as in the forward pass (cpu/pool_fold.h). Other averages
//               spread the sums over the rows on the columns of each output.
// Partitioning  rows of the input (2 x 2: of the output), in groups of about kPoolTask elements.
// Numerics      sums in output order (averages: across the columns, then down the rows; without a
//               regular stride down the rows first).
// Floor         one read of grad_y (and of the 8-byte indices) and one write of grad_x.
#include "cpu/pool_fold.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

inline constexpr int64_t kMaxCovering = 16;  // rows of outputs that hold one row of the input

static int64_t most_covering(const PoolAxis& axis) {
  int64_t most = 1;
  for (int64_t i = 0; i < axis.in; ++i) most = max_of(most, axis.last[i] - axis.first[i]);
  return most;
}

// Input columns STRIDE * j + phase lie in the windows of outputs j - shift for the phase's shifts.
struct Phases {
  int64_t count[2] = {0, 0}, shift[2][RegularColumns::kMaxTaps];
  int64_t smallest = 0, largest = 0;

  Phases(const RegularColumns& columns, int64_t step) {
    for (int64_t t = columns.taps - 1; t >= 0; --t) {
      const int64_t column = columns.base + t * step, phase = column & (columns.stride - 1);
      const int64_t own = (column - phase) / columns.stride;
      shift[phase][count[phase]++] = own;
      smallest = min_of(smallest, own), largest = max_of(largest, own);
    }
  }
};

// The rows of outputs over a run of input rows of one plane, as a task stages them.
struct Segment {
  int64_t plane, begin, end;           // rows of the input
  int64_t begin0, end0, begin1, end1;  // rows of outputs over them
  int64_t staged;                      // rows staged before

  int64_t rows1() const { return end1 - begin1; }
  int64_t count() const { return (end0 - begin0) * rows1(); }
  int64_t row(int64_t o0, int64_t o1) const {
    return staged + (o0 - begin0) * rows1() + o1 - begin1;
  }
};

// Calls body(segment) for the planes that hold the input rows [begin, end) of all planes.
template <class Body>
LAMINA_INLINE int64_t for_each_segment(const PoolAxis* axis, int64_t begin, int64_t end,
                                       const Body& body) {
  const int64_t in1 = axis[1].in, rows = axis[0].in * in1;
  int64_t staged = 0;
  while (begin < end) {
    Segment s;
    s.plane = begin / rows, s.begin = begin % rows, s.end = min_of(rows, s.begin + end - begin);
    const int64_t a = s.begin / in1, b = (s.end - 1) / in1;
    s.begin0 = axis[0].first[a], s.end0 = axis[0].last[b];
    s.begin1 = a == b ? axis[1].first[s.begin % in1] : 0;
    s.end1 = a == b ? axis[1].last[(s.end - 1) % in1] : axis[1].out;
    s.staged = staged;
    body(s);
    staged += s.count();
    begin += s.end - s.begin;
  }
  return staged;
}

// What was put together in a cache.
template <class T>
static void copy_past_caches(const T* from, int64_t size, T* to) {
  write_line(to, size, true, [&](int64_t i, int64_t count) { return load_first(from + i, count); });
  finish_streams(true);
}

// A vector of indices; those beyond `count` name no place.
template <class T>
LAMINA_INLINE Mask<T> lane_indices(const int64_t* index, int64_t count) {
  const double nowhere = __builtin_bit_cast(double, int64_t{-1});
  const double* from = reinterpret_cast<const double*>(index);
  const Vec<double> low = load_first(from, count, nowhere);
  if constexpr (sizeof(T) == 8) return reinterpret_cast<Mask<T>>(low);
  const Vec<double> high = load_first(from + kLanes<double>, count - kLanes<double>, nowhere);
  return reinterpret_cast<Mask<T>>(  // the lower halves
      every_other<T, false>(reinterpret_cast<Vec<T>>(low), reinterpret_cast<Vec<T>>(high)));
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

// Two phases of a row side by side.
template <class T>
LAMINA_INLINE void store_phases(T* to, int64_t count, Vec<T> even, Vec<T> odd,
                                bool streamed = false) {
  store_result(to, count, interleave<T, false>(even, odd), streamed);
  if (count > kLanes<T>)
    store_result(to + kLanes<T>, count - kLanes<T>, interleave<T, true>(even, odd), streamed);
}

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
  // Whole planes where they are small.
  const int64_t some = max_of<int64_t>(1, kPoolTask / in);
  const int64_t grain = some > rows ? some / rows * rows : some;
  const bool streamed = is_streamed<T>(args.planes * args.in_size());
  parallel_ranges(args.planes * rows, grain, [&](int64_t begin, int64_t end) {
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

// Windows of two columns that follow each other from the first on, and rows of windows that do not
// overlap.
static bool pairs_tile(const PoolAxis* axis, const RegularColumns& columns) {
  if (!columns.holds || columns.stride != 2 || columns.taps != 2 || columns.base != 0) return false;
  if (axis[2].step != 1 || 2 * axis[2].out > axis[2].in) return false;
  if (axis[0].out < 1 || axis[1].out < 1) return false;
  for (int a = 0; a < 2; ++a)
    for (int64_t o = 0; o < axis[a].out; ++o) {
      const int64_t next = o + 1 < axis[a].out ? axis[a].start[o + 1] : axis[a].in;
      if (axis[a].step != 1 || axis[a].start[o] + axis[a].count[o] > next) return false;
    }
  return true;
}

// Calls body(row of the input, whether the window of (o0, o1) holds it) from that window's first
// row to the next window's; those before the first window are the first one's.
template <class Body>
LAMINA_INLINE void for_each_own_row(const PoolAxis* axis, int64_t o0, int64_t o1,
                                    const Body& body) {
  int64_t begin[2], end[2];
  for (int a = 0; a < 2; ++a) {
    const int64_t o = a == 0 ? o0 : o1;
    begin[a] = o > 0 ? axis[a].start[o] : 0;
    end[a] = o + 1 < axis[a].out ? axis[a].start[o + 1] : axis[a].in;
  }
  for (int64_t i0 = begin[0]; i0 < end[0]; ++i0)
    for (int64_t i1 = begin[1]; i1 < end[1]; ++i1)
      body(i0 * axis[1].in + i1, holds_input(axis[0], o0, i0) && holds_input(axis[1], o1, i1));
}

template <class T, bool MAX>
static void gather_pairs(const PoolArgs<T>& args) {
  const PoolAxis* axis = args.axis;
  const int64_t in = axis[2].in, out = axis[2].out;
  const bool streamed = is_streamed<T>(args.planes * args.in_size());
  for_each_row_group(args.planes, axis[0].out, axis[1].out, 2 * in, [&](const auto& rows) {
    Scratch<T> divisor(MAX ? 0 : out);
    for (int64_t o = 0; o < out && !MAX; ++o) divisor[o] = T(axis[2].divisor[o]);
    rows([&](int64_t plane, int64_t o0, int64_t o1) {
      T* grad_x = args.result + plane * args.in_size();
      const int64_t from = plane * args.out_size() + (o0 * axis[1].out + o1) * out;
      const T divide = MAX ? T(1) : T(axis[0].divisor[o0] * axis[1].divisor[o1]);
      for (int64_t o = 0; 2 * o < in; o += kLanes<T>) {
        Vec<T> grad = load_first(args.grad_y + from + o, out - o);
        Mask<T> index = {};
        if constexpr (MAX)
          index = lane_indices<T>(args.index + from + o, out - o);
        else
          grad /= divide * load_first(&divisor[o], out - o, T(1));
        for_each_own_row(axis, o0, o1, [&](int64_t row, bool inside) {
          Vec<T> even = {}, odd = {};
          if (inside && MAX) {
            const Mask<T> place =
                2 * lane_numbers<T>() + static_cast<LaneInteger<T>>(row * in + 2 * o);
            even = index == place ? grad : even, odd = index == place + 1 ? grad : odd;
          } else if (inside) {
            even = odd = grad;
          }
          store_phases(grad_x + row * in + 2 * o, in - 2 * o, even, odd, streamed);
        });
      }
    });
    finish_streams(streamed);
  });
}

// grad_x[index[o]] += grad_y[o] for the indices in [low, low + size); `count` is null where no
// window is empty. A few are loaded before any is added: nothing tells the compiler that the
// additions do not change them.
template <class T>
static void scatter_row(const T* grad_y, const int64_t* index, const int64_t* count, int64_t out,
                        uint64_t low, uint64_t size, T* grad_x) {
  constexpr int kFew = 8;
  int64_t o = 0;
  for (; o + kFew <= out && !count; o += kFew) {
    uint64_t place[kFew];
    T grad[kFew];
#pragma GCC unroll 8
    for (int k = 0; k < kFew; ++k)
      place[k] = static_cast<uint64_t>(index[o + k]) - low, grad[k] = grad_y[o + k];
#pragma GCC unroll 8
    for (int k = 0; k < kFew; ++k)
      if (place[k] < size) grad_x[place[k]] += grad[k];
  }
  for (; o < out; ++o) {
    const uint64_t place = static_cast<uint64_t>(index[o]) - low;
    if (place < size && (!count || count[o] > 0)) grad_x[place] += grad_y[o];
  }
}

// Each task owns some rows of a plane and takes what its outputs' indices send there.
template <class T>
static void scatter(const PoolArgs<T>& args) {
  const PoolAxis* axis = args.axis;
  const int64_t in1 = axis[1].in, in2 = axis[2].in, rows = axis[0].in * in1;
  const int64_t own = max_of<int64_t>(1, 4 * kPoolTask / max_of<int64_t>(1, in2));
  const int64_t blocks = ceil_div(rows, own);
  const int64_t planes = max_of<int64_t>(1, kPoolTask / max_of<int64_t>(1, args.in_size()));
  const int64_t* count = nullptr;
  bool filled = true;  // no window is empty
  for (int a = 0; a < 3; ++a)
    for (int64_t o = 0; o < axis[a].out; ++o)
      if (axis[a].count[o] == 0) filled = false, count = a == 2 ? axis[2].count : nullptr;
  const bool streamed = is_streamed<T>(args.planes * args.in_size());
  parallel_ranges(args.planes * blocks, planes, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      const int64_t plane = block / blocks, begin = block % blocks * own;
      const int64_t end = min_of(begin + own, rows), a = begin / in1, b = (end - 1) / in1;
      T* grad_x = args.result + plane * args.in_size() + begin * in2;
      const bool whole = filled && blocks == 1, buffered = whole && streamed;
      Scratch<T> buffer(buffered ? args.in_size() : 0);
      T* to = buffered ? buffer.get() : grad_x;
      __builtin_memset(to, 0, static_cast<size_t>((end - begin) * in2) * sizeof(T));
      if (whole) {
        const int64_t at = plane * args.out_size();
        scatter_row(args.grad_y + at, args.index + at, count, args.out_size(), 0,
                    static_cast<uint64_t>(args.in_size()), to);
        if (buffered) copy_past_caches(to, args.in_size(), grad_x);
        continue;
      }
      const int64_t o1_begin = a == b ? axis[1].first[begin % in1] : 0;
      const int64_t o1_end = a == b ? axis[1].last[(end - 1) % in1] : axis[1].out;
      for (int64_t o0 = axis[0].first[a]; o0 < axis[0].last[b]; ++o0)
        for (int64_t o1 = o1_begin; o1 < o1_end; ++o1) {
          if (axis[0].count[o0] == 0 || axis[1].count[o1] == 0) continue;
          const int64_t at = plane * args.out_size() + (o0 * axis[1].out + o1) * axis[2].out;
          scatter_row(args.grad_y + at, args.index + at, count, axis[2].out,
                      static_cast<uint64_t>(begin * in2),
                      static_cast<uint64_t>((end - begin) * in2), grad_x);
        }
    }
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
  const int64_t grain = ceil_div(kPoolTask, max_of<int64_t>(size, 1));
  const bool streamed = is_streamed<T>(args.planes * size) && size <= kPoolTask;
  parallel_ranges(args.planes, grain, [&](int64_t begin, int64_t end) {
    Scratch<T> lines(streamed ? (end - begin) * size : 0);
    T* to = streamed ? lines.get() : args.result + begin * size;
    for (int64_t plane = begin; plane < end; ++plane, to += size) {
      const Vec<T> value = broadcast<T>(args.grad_y[plane] / divide);
      along_line<T>(size, [&](int64_t i, int64_t count) { store_first(to + i, count, value); });
    }
    if (streamed) copy_past_caches(lines.get(), (end - begin) * size, args.result + begin * size);
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

// A plane and the outputs over one of its rows.
struct Covering {
  int64_t plane, first0, last0, first1, last1;
  bool operator==(const Covering&) const = default;
};

template <class T>
static void spread(const PoolArgs<T>& args) {
  const PoolAxis* axis = args.axis;
  const int64_t in = axis[2].in, out = axis[2].out;
  const bool streamed = is_streamed<T>(args.planes * args.in_size());
  for_each_row_group(args.planes, axis[0].in, axis[1].in, in, [&](const auto& rows) {
    // Of a result past the caches: the task's rows.
    Scratch<T> lines(streamed ? max_of<int64_t>(kPoolTask, in) + kLanes<T> : 0);
    T *start = nullptr, *line = lines.get();
    Scratch<T> sums(out), divisor(out), spread(in + kLanes<T>);
    for (int64_t o = 0; o < out; ++o) divisor[o] = T(axis[2].divisor[o]);
    const bool runs = axis[0].step == 1 && axis[1].step == 1;
    Covering held{-1, 0, 0, 0, 0};  // whose columns are spread
    rows([&](int64_t plane, int64_t i0, int64_t i1) {
      const Covering holds{plane, axis[0].first[i0], axis[0].last[i0], axis[1].first[i1],
                           axis[1].last[i1]};
      const bool again = runs && held == holds;
      T* grad_x = args.result + plane * args.in_size() + (i0 * axis[1].in + i1) * in;
      if (!again) {
        const T* grad_y = args.grad_y + plane * args.out_size();
        for (int64_t o = 0; o < out; ++o) sums[o] = 0;
        for_each_covering_row(axis, i0, i1, [&](int64_t o0, int64_t o1) {
          const T* row = grad_y + (o0 * axis[1].out + o1) * out;
          const T divide = T(axis[0].divisor[o0] * axis[1].divisor[o1]);
          for (int64_t o = 0; o < out; ++o) sums[o] += row[o] / (divide * divisor[o]);
        });
        spread_columns(axis[2], sums.get(), spread.get());
        held = holds;
      }
      if (!start) start = grad_x;
      if (streamed) {  // what goes beyond the row is written again
        for (int64_t i = 0; i < in; i += kLanes<T>) store(line + i, load(&spread[i]));
        line += in;
      } else {
        along_line<T>(in, [&](int64_t i, int64_t count) {
          store_first(grad_x + i, count, load(&spread[i]));
        });
      }
    });
    if (streamed) copy_past_caches(lines.get(), line - lines.get(), start);
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
  covering.planes = args.planes, covering.x = args.grad_y, covering.result = args.result;
  for (int a = 0; a < 3; ++a) {
    if (axis[a].step != 1 || axis[a].out < 1) return false;
    for (int64_t o = 0; o < axis[a].out; ++o)
      if (axis[a].divisor[o] != axis[a].divisor[0]) return false;
    covering.axis[a].in = axis[a].out, covering.axis[a].out = axis[a].in;
    covering.axis[a].start = axis[a].first, covering.axis[a].count = count;
    for (int64_t i = 0; i < axis[a].in; ++i) *count++ = axis[a].last[i] - axis[a].first[i];
  }
  const T divide = T(axis[0].divisor[0] * axis[1].divisor[0] * axis[2].divisor[0]);
  return fold_windows<T, Sum<T>>(
      covering, RegularColumns(covering.axis[2]),
      [&](Vec<T> sum, int64_t, int64_t, int64_t) { return sum / divide; });
}

template <class T>
void max_pool_dgrad_windows(const PoolArgs<T>& args) {
  const bool wide = args.axis[2].out >= kLanes<T>;
  if (wide && small_plane(args) && pairs_tile(args.axis, RegularColumns(args.axis[2])))
    gather_pairs<T, true>(args);
  else
    scatter(args);
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
  else if (!columns.holds || covering > kMaxCovering)
    spread(args);
  else if (columns.stride == 1)
    gather<T, 1>(args, columns);
  else
    gather<T, 2>(args, columns);
}

LAMINA_INSTANTIATE(max_pool_dgrad_windows, PoolArgs)
LAMINA_INSTANTIATE(avg_pool_dgrad_windows, PoolArgs)

LAMINA_CPU_NAMESPACE_END
