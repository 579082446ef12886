// Gradients of max pools (ops/pool.h).
//
// Method        wide rows, two or three taps of stride 1 or 2: a vector of outputs is read once,
//               its neighbours come by permutes; vectors of inputs of one phase compare their
//               places with the indices of the windows that may hold them and add what is meant for
//               them. Only sums that wait for more windows are kept, in L1. Windows of 2 x 2 that
//               tile the plane need no sums (cpu/pool_gather.h). Others are scattered by the task
//               that owns their rows of the input.
// Partitioning  rows of the input (2 x 2: of the output), in groups of about kPoolTask elements.
// Numerics      sums in output order, whichever way.
// Floor         one read of grad_y and of the 8-byte indices, one write of grad_x.
#include "cpu/pool_fold.h"
#include "cpu/pool_gather.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

// The lanes of a vector of outputs that lie in a row.
template <class T>
struct InsideRow {
  static constexpr int kHalf = kLanes<double>;
  Lanes<T> grad;
  Lanes<double> index[2];

  InsideRow(int64_t o, int64_t out)
      : grad(-o, out - o),
        index{Lanes<double>(-o, out - o), Lanes<double>(-o - kHalf, out - o - kHalf)} {}
};

// A vector of outputs: what they pass on, and the places in the plane that take it.
template <class T>
struct Passed {
  Vec<T> grad = {};
  Mask<T> place = Mask<T>{} - 1;

  LAMINA_INLINE static Passed after(const Passed& a, const Passed& b, int lanes) {
    return {lanes_after<T>(a.grad, b.grad, lanes),
            __builtin_shuffle(a.place, b.place, lane_numbers<T>() + lanes)};
  }
};

// Vectors of a row of outputs, the first of which begins at `first` and may leave the row, as may
// the last. Beyond its ends there is no place.
template <class T>
class PassedRow {
 public:
  PassedRow(int64_t first, int64_t out)
      : first_(first),
        last_(first + (out - first) / kLanes<T> * kLanes<T>),
        out_(out),
        head_(first, out),
        tail_(last_, out) {}

  int64_t first() const { return first_; }
  LAMINA_INLINE Passed<T> load(const T* grad_y, const int64_t* index, int64_t o) const {
    for (int i = 0; i < kLanes<T>; i += kLanes<double>)
      __builtin_prefetch(index + o + i + kAhead / int64_t{sizeof *index});
    __builtin_prefetch(grad_y + o + kAhead / int64_t{sizeof *grad_y});
    if (o >= out_) return {};
    if (o >= 0 && o < last_)
      return {cpu::LAMINA_ISA::load(grad_y + o), lane_indices<T>(index + o, 0, kLanes<T>)};
    const InsideRow<T>& inside = o == first_ ? head_ : tail_;
    const double* at = reinterpret_cast<const double*>(index + o);
    const double nowhere = __builtin_bit_cast(double, int64_t{-1});
    const Vec<double> low = inside.index[0].load(at, nowhere);
    const Vec<T> grad = inside.grad.load(grad_y + o);
    if constexpr (sizeof(T) == 8) return {grad, reinterpret_cast<Mask<T>>(low)};
    const Vec<double> high = inside.index[1].load(at + kLanes<double>, nowhere);
    return {grad, lower_halves<T>(low, high)};
  }

 private:
  int64_t first_, last_, out_;
  InsideRow<T> head_, tail_;
};

// A row of the input below a row of windows. Its sums, vector by vector and in each the phases,
// begin with these windows or are taken up; they are kept for other windows or end as the result.
template <class T>
struct RowBelow {
  LaneInteger<T> place;
  bool begins, ends;
  T *sums, *result;
};
template <class T>
struct RowsBelow {
  int64_t count = 0;
  RowBelow<T> row[kMaxRows];

  // Of windows that lie as far from each other along the rows as along the columns, inside a block.
  static constexpr bool usual_begins(int stride, int taps, int r) { return r >= taps - stride; }
  static constexpr bool usual_ends(int stride, int, int r) { return r < stride; }
  bool usual(int stride, int taps) const {
    bool is = count == taps;
    for (int r = 0; r < taps && is; ++r)
      is = row[r].begins == usual_begins(stride, taps, r) &&
           row[r].ends == usual_ends(stride, taps, r);
    return is;
  }
};

// Adds what a row of windows passes on. ODD is the phase of a window's first column.
template <class T, int STRIDE, int TAPS, int ODD, bool USUAL>
static void add_row(const T* grad_y, const int64_t* index, const PassedRow<T>& outputs, int64_t in,
                    const RowsBelow<T>& below, bool streamed) {
  constexpr int kLast = (ODD + TAPS - 1) / STRIDE;  // outputs before the last that meets a column
  int64_t o = outputs.first();
  Mask<T> place = STRIDE * lane_numbers<T>();
  Passed<T> now = outputs.load(grad_y, index, o);
  for (int64_t j = 0; j < in; j += STRIDE * kLanes<T>, place += STRIDE * kLanes<T>) {
    const Passed<T> next = outputs.load(grad_y, index, o += kLanes<T>);
    Passed<T> passed[kLast + 1];
    passed[0] = now;
#pragma GCC unroll 4
    for (int k = 1; k <= kLast; ++k) passed[k] = Passed<T>::after(now, next, k);
    auto add = [&](const RowBelow<T>& row, bool begins, bool ends) __attribute__((always_inline)) {
      const Mask<T> first = place + row.place;
      Vec<T> sum[STRIDE] = {};
#pragma GCC unroll 2
      for (int phase = 0; phase < STRIDE; ++phase)
        if (!begins) sum[phase] = load(row.sums + j + phase * kLanes<T>);
#pragma GCC unroll 4
      for (int t = TAPS - 1; t >= 0; --t) {
        const Passed<T>& from = passed[kLast - (ODD + t) / STRIDE];
        Vec<T>& own = sum[(ODD + t) % STRIDE];
        own = from.place == first + (ODD + t) % STRIDE ? own + from.grad : own;
      }
#pragma GCC unroll 2
      for (int phase = 0; phase < STRIDE && !ends; ++phase)
        store(row.sums + j + phase * kLanes<T>, sum[phase]);
      if (!ends) return;
      if constexpr (STRIDE == 1)
        store_result(row.result + j, in - j, sum[0], streamed);
      else
        store_phases(row.result + j, in - j, sum[0], sum[STRIDE - 1], streamed);
    };
    if constexpr (USUAL) {
#pragma GCC unroll 4
      for (int r = 0; r < TAPS; ++r)
        add(below.row[r], below.usual_begins(STRIDE, TAPS, r), below.usual_ends(STRIDE, TAPS, r));
    } else {
      for (int64_t r = 0; r < below.count; ++r)
        add(below.row[r], below.row[r].begins, below.row[r].ends);
    }
    now = next;
  }
}

// Whether o is the first output along an axis that holds i, and the last.
static bool first_holds(const PoolAxis& axis, int64_t o, int64_t i) {
  for (int64_t other = axis.first[i]; other < o; ++other)
    if (holds_input(axis, other, i)) return false;
  return true;
}
static bool last_holds(const PoolAxis& axis, int64_t o, int64_t i) {
  for (int64_t other = o + 1; other < axis.last[i]; ++other)
    if (holds_input(axis, other, i)) return false;
  return true;
}

// The rows from `segment.begin` on: their sums lie `width` apart.
template <class T, int STRIDE, int TAPS, int ODD>
static void add_segment(const PoolArgs<T>& args, const PassedRow<T>& outputs,
                        const Segment& segment, int64_t width, T* sums, T* result, bool streamed) {
  const PoolAxis* axis = args.axis;
  const int64_t in1 = axis[1].in, in = axis[2].in;
  for (int64_t row = segment.begin; row < segment.end; ++row) {
    bool held = false;
    for_each_covering_row(axis, row / in1, row % in1, [&](int64_t, int64_t) { held = true; });
    if (!held)
      __builtin_memset(result + (row - segment.begin) * in, 0, static_cast<size_t>(in) * sizeof(T));
  }
  for (int64_t o0 = segment.begin0; o0 < segment.end0; ++o0)
    for (int64_t o1 = segment.begin1; o1 < segment.end1; ++o1) {
      RowsBelow<T> below;
      for (int64_t t0 = 0; t0 < axis[0].count[o0]; ++t0)
        for (int64_t t1 = 0; t1 < axis[1].count[o1]; ++t1) {
          const int64_t i0 = axis[0].start[o0] + t0 * axis[0].step;
          const int64_t i1 = axis[1].start[o1] + t1 * axis[1].step, row = i0 * in1 + i1;
          if (row < segment.begin || row >= segment.end) continue;
          below.row[below.count++] = {static_cast<LaneInteger<T>>(row * in),
                                      first_holds(axis[0], o0, i0) && first_holds(axis[1], o1, i1),
                                      last_holds(axis[0], o0, i0) && last_holds(axis[1], o1, i1),
                                      sums + (row - segment.begin) * width,
                                      result + (row - segment.begin) * in};
        }
      const int64_t from = segment.plane * args.out_size() + (o0 * axis[1].out + o1) * axis[2].out;
      const auto add = below.usual(STRIDE, TAPS) ? add_row<T, STRIDE, TAPS, ODD, true>
                                                 : add_row<T, STRIDE, TAPS, ODD, false>;
      add(args.grad_y + from, args.index + from, outputs, in, below, streamed);
    }
}

template <class T, int STRIDE, int TAPS, int ODD>
static void gather(const PoolArgs<T>& args, const RegularColumns& columns) {
  const PoolAxis* axis = args.axis;
  const int64_t in = axis[2].in, rows = axis[0].in * axis[1].in;
  const int64_t width = ceil_div(in, STRIDE * kLanes<T>) * STRIDE * kLanes<T>;
  const bool streamed = is_streamed<T>(args.planes * args.in_size());
  const bool buffered = streamed && in % kLanes<T> != 0;
  const PassedRow<T> outputs(-(columns.base - ODD) / STRIDE - (ODD + TAPS - 1) / STRIDE,
                             axis[2].out);
  parallel_blocks(
      args.planes * rows, rows_of_block(rows, in), streamed, [&](int64_t begin, int64_t end) {
        const int64_t size = (end - begin) * in;
        Scratch<T> sums((end - begin) * width), lines(buffered ? size : 0);
        T* const to = buffered ? lines.get() : args.result + begin * in;
        for_each_segment(axis, begin, end, [&](const Segment& s) {
          const int64_t row = s.plane * rows + s.begin - begin;
          add_segment<T, STRIDE, TAPS, ODD>(args, outputs, s, width, sums.get() + row * width,
                                            to + row * in, streamed && !buffered);
        });
        if (buffered) copy_past_caches(lines.get(), size, args.result + begin * in);
      });
}

// Wide rows, two or three taps of stride 1 or 2. False for others: additions one by one are less
// than vectors that compare every tap where windows have many, or rows end soon.
template <class T>
static bool gather_maxima(const PoolArgs<T>& args, const RegularColumns& columns) {
  const PoolAxis* axis = args.axis;
  if (axis[2].in < 4 * kLanes<T> || !columns.holds || columns.base > 0) return false;
  if (!small_plane(args) || !few_rows(args)) return false;
  int64_t taps = columns.taps;
  for (int a = 0; a < 2; ++a) {
    int64_t most = 0;
    for (int64_t o = 0; o < axis[a].out; ++o) most = max_of(most, axis[a].count[o]);
    taps *= most;
  }
  if (taps > kLanes<T>) return false;
  bool done = false;
  with_constants(columns, axis[2].step, [&](auto stride, auto few) {
    if constexpr (few > 0) {
      if (stride == 2 && (columns.base & 1))
        gather<T, stride, few, stride - 1>(args, columns);
      else
        gather<T, stride, few, 0>(args, columns);
      done = true;
    }
  });
  return done;
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
  parallel_blocks(args.planes * blocks, planes, streamed, [&](int64_t first, int64_t last) {
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

template <class T>
void max_pool_dgrad_windows(const PoolArgs<T>& args) {
  const RegularColumns columns(args.axis[2]);
  const bool wide = args.axis[2].out >= kLanes<T>;
  if (wide && small_plane(args) && pairs_tile(args.axis, columns))
    gather_pairs<T, true>(args);
  else if (!gather_maxima(args, columns))
    scatter(args);
}

LAMINA_INSTANTIATE(max_pool_dgrad_windows, PoolArgs)

LAMINA_CPU_NAMESPACE_END
