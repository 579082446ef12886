// Gradients of max and average pools (ops/pool.h).
//
// Method        maxima are scattered by the task that owns their rows of the input: an addition an
//               output is less than the vectors of a gather, which compare every tap.
//               Averages of stride 1 or 2: a vector of input columns of one phase gathers the
//               outputs that hold it. The divided rows of grad_y lie between guards, so that the
//               inner loop is loads and additions. Other averages spread the sums over the rows on
//               the columns of each output.
// Partitioning  rows of the input, in groups of about kPoolTask elements.
// Numerics      sums in output order (averages without a regular stride: down the rows first).
// Floor         one read of grad_y (and of the 8-byte indices) and one write of grad_x.
#include <cstdlib>

#include "cpu/pool_rows.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::PoolArgs;

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

// Divided rows of grad_y of a plane, each between `before` and `after` elements that add nothing.
template <class T>
class Staged {
 public:
  Staged(const PoolArgs<T>& args, int64_t before, int64_t after)
      : args_(args),
        before_(ceil_div(before, kLanes<T>) * kLanes<T>),
        width_(before_ + ceil_div(max_of(after, args.axis[2].out), kLanes<T>) * kLanes<T>),
        divisor_(args.axis[2].out) {
    for (int64_t o = 0; o < args.axis[2].out; ++o) divisor_[o] = T(args.axis[2].divisor[o]);
  }
  ~Staged() { std::free(grad_); }

  // Stages the rows of outputs over the input rows [begin, end).
  void stage(int64_t plane, int64_t begin, int64_t end) {
    const PoolAxis* axis = args_.axis;
    const int64_t in1 = axis[1].in, a = begin / in1, b = (end - 1) / in1;
    begin0_ = axis[0].first[a], begin1_ = a == b ? axis[1].first[begin % in1] : 0;
    const int64_t end0 = axis[0].last[b];
    const int64_t end1 = a == b ? axis[1].last[(end - 1) % in1] : axis[1].out;
    rows1_ = end1 - begin1_;
    reserve((end0 - begin0_) * rows1_ * width_);
    for (int64_t o0 = begin0_; o0 < end0; ++o0)
      for (int64_t o1 = begin1_; o1 < end1; ++o1) row(plane, o0, o1);
  }

  // Where output 0 of a staged row lies in `grad`.
  int64_t at(int64_t o0, int64_t o1) const {
    return ((o0 - begin0_) * rows1_ + o1 - begin1_) * width_ + before_;
  }
  const T* grad() const { return grad_; }

 private:
  void reserve(int64_t size) {
    if (size <= room_) return;
    std::free(grad_);
    const size_t bytes = (static_cast<size_t>(size) * sizeof(T) + 63) / 64 * 64;
    grad_ = static_cast<T*>(std::aligned_alloc(64, bytes));
    if (!grad_) __builtin_trap();
    room_ = size;
  }

  LAMINA_INLINE void row(int64_t plane, int64_t o0, int64_t o1) {
    const PoolAxis* axis = args_.axis;
    const int64_t out = axis[2].out, from = at(o0, o1);
    const int64_t source = plane * args_.out_size() + (o0 * axis[1].out + o1) * out;
    const T divide = T(axis[0].divisor[o0] * axis[1].divisor[o1]);
    for (int64_t o = -before_; o < width_ - before_; o += kLanes<T>) {
      Vec<T> grad = {};
      if (o >= 0 && o < out)
        grad = load_first(args_.grad_y + source + o, out - o) /
               (divide * load_first(&divisor_[o], out - o, T(1)));
      store(grad_ + from + o, grad);
    }
  }

  const PoolArgs<T>& args_;
  int64_t before_, width_;
  Scratch<T> divisor_;
  T* grad_ = nullptr;
  int64_t room_ = 0, begin0_ = 0, begin1_ = 0, rows1_ = 0;
};

// The input rows [begin, end) of a plane, whose rows of outputs are staged.
template <class T, int STRIDE>
static void gather_rows(const PoolArgs<T>& args, const Phases& phases, const Staged<T>& staged,
                        int64_t plane, int64_t begin, int64_t end) {
  const PoolAxis* axis = args.axis;
  const int64_t in = axis[2].in;
  for (int64_t row = begin; row < end; ++row) {
    int64_t from[STRIDE][kMaxCovering * RegularColumns::kMaxTaps], terms[STRIDE] = {};
    for_each_covering_row(axis, row / axis[1].in, row % axis[1].in, [&](int64_t o0, int64_t o1) {
      for (int phase = 0; phase < STRIDE; ++phase)
        for (int64_t t = 0; t < phases.count[phase]; ++t)
          from[phase][terms[phase]++] = staged.at(o0, o1) - phases.shift[phase][t];
    });
    T* grad_x = args.result + plane * args.in_size() + row * in;
    for (int64_t j = 0; STRIDE * j < in; j += kLanes<T>) {
      Vec<T> sum[STRIDE] = {};
#pragma GCC unroll 2
      for (int phase = 0; phase < STRIDE; ++phase)
        for (int64_t term = 0; term < terms[phase]; ++term)
          sum[phase] += load(staged.grad() + from[phase][term] + j);
      if constexpr (STRIDE == 1) {
        store_first(grad_x + j, in - j, sum[0]);
      } else {
        T* to = grad_x + 2 * j;
        const int64_t rest = in - 2 * j;
        store_first(to, rest, interleave<T, false>(sum[0], sum[1]));
        if (rest > kLanes<T>)
          store_first(to + kLanes<T>, rest - kLanes<T>, interleave<T, true>(sum[0], sum[1]));
      }
    }
  }
}

template <class T, int STRIDE>
static void gather(const PoolArgs<T>& args, const RegularColumns& columns) {
  const PoolAxis* axis = args.axis;
  const Phases phases(columns, axis[2].step);
  const int64_t vectors = ceil_div(ceil_div(axis[2].in, STRIDE), kLanes<T>);
  const int64_t rows = axis[0].in * axis[1].in;
  parallel_ranges(args.planes * rows, max_of<int64_t>(1, kPoolTask / axis[2].in),
                  [&](int64_t begin, int64_t end) {
                    Staged<T> staged(args, phases.largest, vectors * kLanes<T> - phases.smallest);
                    while (begin < end) {
                      const int64_t plane = begin / rows, first = begin % rows;
                      const int64_t last = min_of(rows, first + end - begin);
                      staged.stage(plane, first, last);
                      gather_rows<T, STRIDE>(args, phases, staged, plane, first, last);
                      begin += last - first;
                    }
                  });
}

// grad_x[index[o]] += grad_y[o] for the indices in [low, low + size); `count` is null where no
// window is empty.
template <class T>
static void scatter_row(const T* grad_y, const int64_t* index, const int64_t* count, int64_t out,
                        uint64_t low, uint64_t size, T* grad_x) {
  for (int64_t o = 0; o < out; ++o) {
    const uint64_t place = static_cast<uint64_t>(index[o]) - low;
    if (place < size && (!count || count[o] > 0)) grad_x[place] += grad_y[o];
  }
}

// Each task owns some rows of a plane and takes what its outputs' indices send there.
template <class T>
void max_pool_dgrad_windows(const PoolArgs<T>& args) {
  const PoolAxis* axis = args.axis;
  const int64_t in1 = axis[1].in, in2 = axis[2].in, rows = axis[0].in * in1;
  const int64_t own = max_of<int64_t>(1, 4 * kPoolTask / max_of<int64_t>(1, in2));
  const int64_t blocks = ceil_div(rows, own);
  const int64_t planes = max_of<int64_t>(1, kPoolTask / max_of<int64_t>(1, args.in_size()));
  const int64_t* count = nullptr;
  for (int64_t o = 0; o < axis[2].out; ++o)
    if (axis[2].count[o] == 0) count = axis[2].count;
  parallel_ranges(args.planes * blocks, planes, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      const int64_t plane = block / blocks, begin = block % blocks * own;
      const int64_t end = min_of(begin + own, rows), a = begin / in1, b = (end - 1) / in1;
      T* grad_x = args.result + plane * args.in_size() + begin * in2;
      __builtin_memset(grad_x, 0, static_cast<size_t>((end - begin) * in2) * sizeof(T));
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
  parallel_ranges(args.planes, ceil_div(kPoolTask, max_of<int64_t>(size, 1)),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t plane = begin; plane < end; ++plane) {
                      const Vec<T> value = broadcast<T>(args.grad_y[plane] / divide);
                      for (int64_t i = 0; i < size; i += kLanes<T>)
                        store_first(args.result + plane * size + i, size - i, value);
                    }
                  });
}

template <class T>
static void spread(const PoolArgs<T>& args) {
  const PoolAxis* axis = args.axis;
  for_each_row_group(args.planes, axis[0].in, axis[1].in, axis[2].in, [&](const auto& rows) {
    Scratch<T> sums(axis[2].out);
    rows([&](int64_t plane, int64_t i0, int64_t i1) {
      const T* grad_y = args.grad_y + plane * args.out_size();
      T* grad_x = args.result + plane * args.in_size() + (i0 * axis[1].in + i1) * axis[2].in;
      for (int64_t o = 0; o < axis[2].out; ++o) sums[o] = 0;
      for_each_covering_row(axis, i0, i1, [&](int64_t o0, int64_t o1) {
        const T* row = grad_y + (o0 * axis[1].out + o1) * axis[2].out;
        const T divide = T(axis[0].divisor[o0] * axis[1].divisor[o1]);
        for (int64_t o = 0; o < axis[2].out; ++o)
          sums[o] += row[o] / (divide * T(axis[2].divisor[o]));
      });
      // Windows that follow each other write; where they meet or overlap they add.
      int64_t written = 0;
      for (int64_t o = 0; o < axis[2].out; ++o) {
        const int64_t step = axis[2].step, begin = axis[2].start[o];
        const int64_t end = begin + (axis[2].count[o] - 1) * step + 1;
        const T value = sums[o];
        if (step == 1 && axis[2].count[o] > 0) {
          for (; written < begin; ++written) grad_x[written] = 0;
          for (int64_t i = begin; i < min_of(written, end); ++i) grad_x[i] += value;
          for (; written < end; ++written) grad_x[written] = value;
          continue;
        }
        for (; written < end; ++written) grad_x[written] = 0;
        for (int64_t i = begin; i < end; i += step) grad_x[i] += value;
      }
      for (; written < axis[2].in; ++written) grad_x[written] = 0;
    });
  });
}

template <class T>
void avg_pool_dgrad_windows(const PoolArgs<T>& args) {
  if (whole_plane(args.axis)) return fill_planes(args);
  const RegularColumns columns(args.axis[2]);
  const int64_t covering = most_covering(args.axis[0]) * most_covering(args.axis[1]);
  if (!columns.holds || covering > kMaxCovering) return spread(args);
  if (columns.stride == 1)
    gather<T, 1>(args, columns);
  else
    gather<T, 2>(args, columns);
}

LAMINA_INSTANTIATE(max_pool_dgrad_windows, PoolArgs)
LAMINA_INSTANTIATE(avg_pool_dgrad_windows, PoolArgs)

LAMINA_CPU_NAMESPACE_END
