// Gradients of max pools (ops/pool.h).
//
// Method        wide rows, two or three taps of stride 1 or 2: the sums of a block of rows lie in
// L1.
//               A vector of outputs is read once, its neighbours come by permutes; vectors of
//               inputs of one phase compare their places with the indices of the windows that may
//               hold them and add what is meant for them. Windows of 2 x 2 that tile the plane need
//               no sums (cpu/pool_gather.h). Others are scattered by the task that owns their rows
//               of the input.
// Partitioning  rows of the input (2 x 2: of the output), in groups of about kPoolTask elements.
// Numerics      sums in output order, whichever way.
// Floor         one read of grad_y and of the 8-byte indices, one write of grad_x.
#include "cpu/pool_fold.h"
#include "cpu/pool_gather.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

// A vector of outputs: what they pass on, and the places in the plane that take it.
template <class T>
struct Passed {
  Vec<T> grad;
  Mask<T> place;

  // Those from output `o` of a row on. Beyond its ends there is no place.
  LAMINA_INLINE static Passed of(const T* grad_y, const int64_t* index, int64_t o, int64_t out) {
    for (int i = 0; i < kLanes<T>; i += kLanes<double>)
      __builtin_prefetch(index + o + i + kAhead / int64_t{sizeof *index});
    __builtin_prefetch(grad_y + o + kAhead / int64_t{sizeof *grad_y});
    if (o >= 0 && o + kLanes<T> <= out)
      return {load(grad_y + o), lane_indices<T>(index + o, -o, kLanes<T>)};
    if (o >= out) return {Vec<T>{}, Mask<T>{} - 1};
    return {load_lanes(grad_y + o, -o, out - o), lane_indices<T>(index + o, -o, out - o)};
  }
  LAMINA_INLINE static Passed after(const Passed& a, const Passed& b, int lanes) {
    return {lanes_after<T>(a.grad, b.grad, lanes),
            __builtin_shuffle(a.place, b.place, lane_numbers<T>() + lanes)};
  }
};

// Rows of the input below a row of windows, and their sums: vector by vector, in each the phases.
template <class T>
struct RowsBelow {
  int64_t count = 0, row[kMaxRows];
  T* sums[kMaxRows];
};

// Adds what a row of windows passes on. ODD is the phase of a window's first column; ROWS are
// below, or 0 says as many as there are.
template <class T, int STRIDE, int TAPS, int ODD, int ROWS>
static void add_row(const T* grad_y, const int64_t* index, const RegularColumns& columns,
                    int64_t in, int64_t out, const RowsBelow<T>& below) {
  constexpr int kLast = (ODD + TAPS - 1) / STRIDE;  // outputs before the last that meets a column
  Mask<T> row[ROWS > 0 ? ROWS : 1], place = STRIDE * lane_numbers<T>();
  for (int r = 0; r < ROWS; ++r)
    row[r] = Mask<T>{} + static_cast<LaneInteger<T>>(below.row[r] * in);
  int64_t o = -(columns.base - ODD) / STRIDE - kLast;
  Passed<T> now = Passed<T>::of(grad_y, index, o, out);
  for (int64_t j = 0; j < in; j += STRIDE * kLanes<T>, place += STRIDE * kLanes<T>) {
    const Passed<T> next = Passed<T>::of(grad_y, index, o += kLanes<T>, out);
    Passed<T> passed[kLast + 1];
    passed[0] = now;
#pragma GCC unroll 4
    for (int k = 1; k <= kLast; ++k) passed[k] = Passed<T>::after(now, next, k);
    auto add = [&](T* to, Mask<T> first) __attribute__((always_inline)) {
      Vec<T> sum[STRIDE];
#pragma GCC unroll 2
      for (int phase = 0; phase < STRIDE; ++phase) sum[phase] = load(to + phase * kLanes<T>);
#pragma GCC unroll 4
      for (int t = TAPS - 1; t >= 0; --t) {
        const Passed<T>& from = passed[kLast - (ODD + t) / STRIDE];
        Vec<T>& own = sum[(ODD + t) % STRIDE];
        own = from.place == first + (ODD + t) % STRIDE ? own + from.grad : own;
      }
#pragma GCC unroll 2
      for (int phase = 0; phase < STRIDE; ++phase) store(to + phase * kLanes<T>, sum[phase]);
    };
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r) add(below.sums[r] + j, place + row[r]);
    for (int64_t r = 0; r < below.count && ROWS == 0; ++r)
      add(below.sums[r] + j, place + static_cast<LaneInteger<T>>(below.row[r] * in));
    now = next;
  }
}

template <class T, int STRIDE, int TAPS, int ODD>
static void add_segment(const PoolArgs<T>& args, const RegularColumns& columns,
                        const Segment& segment, int64_t width, T* sums) {
  const PoolAxis* axis = args.axis;
  for (int64_t o0 = segment.begin0; o0 < segment.end0; ++o0)
    for (int64_t o1 = segment.begin1; o1 < segment.end1; ++o1) {
      RowsBelow<T> below;
      for (int64_t t0 = 0; t0 < axis[0].count[o0]; ++t0) {
        int64_t row = (axis[0].start[o0] + t0 * axis[0].step) * axis[1].in + axis[1].start[o1];
        for (int64_t t1 = 0; t1 < axis[1].count[o1]; ++t1, row += axis[1].step) {
          if (row < segment.begin || row >= segment.end) continue;
          below.row[below.count] = row;
          below.sums[below.count++] = sums + (row - segment.begin) * width;
        }
      }
      const int64_t from = segment.plane * args.out_size() + (o0 * axis[1].out + o1) * axis[2].out;
      const auto add = below.count == TAPS ? add_row<T, STRIDE, TAPS, ODD, TAPS>
                                           : add_row<T, STRIDE, TAPS, ODD, 0>;
      add(args.grad_y + from, args.index + from, columns, axis[2].in, axis[2].out, below);
    }
}

template <class T, int STRIDE, int TAPS, int ODD>
static void gather(const PoolArgs<T>& args, const RegularColumns& columns) {
  const PoolAxis* axis = args.axis;
  const int64_t in = axis[2].in, rows = axis[0].in * axis[1].in;
  const int64_t width = ceil_div(in, STRIDE * kLanes<T>) * STRIDE * kLanes<T>;
  const bool streamed = is_streamed<T>(args.planes * args.in_size());
  const bool aligned = in % kLanes<T> == 0;
  parallel_blocks(
      args.planes * rows, rows_of_block(rows, in), streamed, [&](int64_t begin, int64_t end) {
        const int64_t size = (end - begin) * in;
        Scratch<T> sums((end - begin) * width), lines(streamed && !aligned ? size : 0);
        __builtin_memset(sums.get(), 0, static_cast<size_t>((end - begin) * width) * sizeof(T));
        for_each_segment(axis, begin, end, [&](const Segment& s) {
          add_segment<T, STRIDE, TAPS, ODD>(
              args, columns, s, width, sums.get() + (s.plane * rows + s.begin - begin) * width);
        });
        T* to = streamed && !aligned ? lines.get() : args.result + begin * in;
        const T* from = sums.get();
        for (int64_t row = begin; row < end; ++row, to += in, from += width)
          for (int64_t j = 0; j < in; j += STRIDE * kLanes<T>) {
            if constexpr (STRIDE == 1)
              store_result(to + j, in - j, load(from + j), streamed && aligned);
            else
              store_phases(to + j, in - j, load(from + j), load(from + j + kLanes<T>),
                           streamed && aligned);
          }
        if (streamed && !aligned) copy_past_caches(lines.get(), size, args.result + begin * in);
      });
}

// Wide rows, two or three taps of stride 1 or 2. False for others: additions one by one are less
// than vectors that compare every tap where windows have many, or rows end soon.
template <class T>
static bool gather_maxima(const PoolArgs<T>& args, const RegularColumns& columns) {
  const PoolAxis* axis = args.axis;
  if (axis[2].in < 4 * kLanes<T> || !columns.holds) return false;
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
