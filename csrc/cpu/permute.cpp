// permute: y = x with its axes in another order (ops/permute.h).
//
// Method        rows of the result are copied where they are runs of x, and the next one is
//               fetched; long ones of a large result go past the caches.
//               Where R runs of x meet element by element in a run of the result (pixel_shuffle),
//               or the other way round (pixel_unshuffle), R rows are taken together: perfect
//               shuffles for 2 and 4, in the order of the longer runs, past the caches where
//               their vectors are whole lines of memory. Other rows are read at one stride.
// Partitioning  groups of rows of about kTaskElements elements.
// Floor         one read and one write of the tensor.
#include "ops/permute.h"

#include "core/threads.h"
#include "cpu/simd.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::PermuteArgs;

inline constexpr int64_t kTaskElements = 16384;
inline constexpr int64_t kLongRow = 1024;  // elements: the lines shared with neighbours are few

// Axes, outermost first: sizes, and strides in x and in the result.
struct Axes {
  int count = 0;
  int64_t size[ops::kPermuteAxes], from[ops::kPermuteAxes], to[ops::kPermuteAxes];

  void remove(int axis) {
    --count;
    for (; axis < count; ++axis)
      size[axis] = size[axis + 1], from[axis] = from[axis + 1], to[axis] = to[axis + 1];
  }
  // In the order of memory of x.
  void follow_source() {
    const auto swap = [](int64_t* numbers, int axis) {
      const int64_t outer = numbers[axis - 1];
      numbers[axis - 1] = numbers[axis], numbers[axis] = outer;
    };
    for (int i = 1; i < count; ++i)
      for (int axis = i; axis > 0 && from[axis] > from[axis - 1]; --axis)
        swap(size, axis), swap(from, axis), swap(to, axis);
  }
  int64_t rows() const {
    int64_t rows = 1;
    for (int axis = 0; axis < count; ++axis) rows *= size[axis];
    return rows;
  }
};

// Calls body(offset in x, offset in the result) for every place on the axes, in groups of tasks.
template <class Body>
LAMINA_INLINE void for_each_place(const Axes& axes, int64_t work, bool streamed, const Body& body) {
  parallel_ranges(
      axes.rows(), max_of<int64_t>(kTaskElements / work, 1), [&](int64_t begin, int64_t end) {
        int64_t place[ops::kPermuteAxes], from = 0, to = 0, rest = begin;
        for (int axis = axes.count - 1; axis >= 0; --axis) {
          place[axis] = rest % axes.size[axis], rest /= axes.size[axis];
          from += place[axis] * axes.from[axis], to += place[axis] * axes.to[axis];
        }
        for (int64_t row = begin; row < end; ++row) {
          body(from, to);
          for (int axis = axes.count - 1; axis >= 0; --axis) {
            from += axes.from[axis], to += axes.to[axis];
            if (++place[axis] < axes.size[axis]) break;
            place[axis] = 0;
            from -= axes.size[axis] * axes.from[axis], to -= axes.size[axis] * axes.to[axis];
          }
        }
        finish_streams(streamed);
      });
}

// y[i * count + k] = x[k * distance + i]
template <class T>
static void interleave_runs(const T* x, int64_t distance, int64_t count, int64_t size, T* y,
                            bool streamed) {
  constexpr int64_t kWhole = kLanes<T>;
  int64_t i = 0;
  if (count == 2)
    for (; i + kLanes<T> <= size; i += kLanes<T>) {
      const Vec<T> a = load(x + i), b = load(x + distance + i);
      store_result(y + 2 * i, kWhole, interleave<T, false>(a, b), streamed);
      store_result(y + 2 * i + kWhole, kWhole, interleave<T, true>(a, b), streamed);
    }
  if (count == 4)
    for (; i + kLanes<T> <= size; i += kLanes<T>) {
      const Vec<T> a = load(x + i), b = load(x + distance + i);
      const Vec<T> c = load(x + 2 * distance + i), d = load(x + 3 * distance + i);
      const Vec<T> ac[2] = {interleave<T, false>(a, c), interleave<T, true>(a, c)};
      const Vec<T> bd[2] = {interleave<T, false>(b, d), interleave<T, true>(b, d)};
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        T* to = y + 4 * i + 2 * half * kLanes<T>;
        store_result(to, kWhole, interleave<T, false>(ac[half], bd[half]), streamed);
        store_result(to + kWhole, kWhole, interleave<T, true>(ac[half], bd[half]), streamed);
      }
    }
  for (; i < size; ++i)
    for (int64_t k = 0; k < count; ++k) y[i * count + k] = x[k * distance + i];
}

// y[k * distance + i] = x[i * count + k]
template <class T>
static void part_runs(const T* x, int64_t distance, int64_t count, int64_t size, T* y,
                      bool streamed) {
  constexpr int64_t kAhead = kPrefetchBytes / static_cast<int64_t>(sizeof(T));
  constexpr int64_t kWhole = kLanes<T>;
  int64_t i = 0;
  if (count == 2)
    for (; i + kLanes<T> <= size; i += kLanes<T>) {
      prefetch_line(x + 2 * i + kAhead, 2 * kLanes<T>);
      const Vec<T> a = load(x + 2 * i), b = load(x + 2 * i + kLanes<T>);
      store_result(y + i, kWhole, every_other<T, false>(a, b), streamed);
      store_result(y + distance + i, kWhole, every_other<T, true>(a, b), streamed);
    }
  if (count == 4)
    for (; i + kLanes<T> <= size; i += kLanes<T>) {
      const T* from = x + 4 * i;
      const Vec<T> a = load(from), b = load(from + kLanes<T>);
      const Vec<T> c = load(from + 2 * kLanes<T>), d = load(from + 3 * kLanes<T>);
      const Vec<T> even[2] = {every_other<T, false>(a, b), every_other<T, false>(c, d)};
      const Vec<T> odd[2] = {every_other<T, true>(a, b), every_other<T, true>(c, d)};
      store_result(y + i, kWhole, every_other<T, false>(even[0], even[1]), streamed);
      store_result(y + distance + i, kWhole, every_other<T, false>(odd[0], odd[1]), streamed);
      store_result(y + 2 * distance + i, kWhole, every_other<T, true>(even[0], even[1]), streamed);
      store_result(y + 3 * distance + i, kWhole, every_other<T, true>(odd[0], odd[1]), streamed);
    }
  for (; i < size; ++i)
    for (int64_t k = 0; k < count; ++k) y[k * distance + i] = x[i * count + k];
}

template <class T>
void permute_fprop_copy(const PermuteArgs<T>& args) {
  Axes axes;
  int64_t width = 1;
  for (int axis = ops::kPermuteAxes - 1; axis >= 0; width *= args.size[axis--]) {
    if (args.size[axis] == 1) continue;
    for (int later = axes.count++; later > 0; --later)
      axes.size[later] = axes.size[later - 1], axes.from[later] = axes.from[later - 1],
      axes.to[later] = axes.to[later - 1];
    axes.size[0] = args.size[axis], axes.from[0] = args.stride[axis], axes.to[0] = width;
  }
  if (width == 0) return;
  if (axes.count == 0) {
    args.result[0] = args.x[0];
    return;
  }
  const int last = axes.count - 1;
  const int64_t size = axes.size[last], step = axes.from[last];
  const T* x = args.x;
  T* y = args.result;
  int along = -1;  // the axis along which x lies in a run
  for (int axis = 0; axis < last; ++axis)
    if (axes.from[axis] == 1) along = axis;
  const bool large = is_streamed<T>(axes.rows());
  if (step == 1) {
    axes.remove(last);
    const int64_t next = axes.count > 0 ? axes.from[axes.count - 1] : 0;  // most often
    const bool streamed = large && size >= kLongRow;
    for_each_place(axes, size, streamed, [&](int64_t from, int64_t to) {
      if (streamed)
        return write_line(y + to, size, true, [&](int64_t i, int64_t count) {
          return load_first(x + from + i, count);
        });
      along_line<T>(size, [&](int64_t i, int64_t count) {
        __builtin_prefetch(x + from + next + i);
        store_first(y + to + i, count, load_first(x + from + i, count));
      });
    });
  } else if (along >= 0 && along == last - 1 && axes.size[along] >= size) {
    const int64_t run = axes.size[along];
    axes.remove(last), axes.remove(along);
    const bool streamed = large && run * size % kLanes<T> == 0;
    for_each_place(axes, run * size, streamed, [&](int64_t from, int64_t to) {
      interleave_runs(x + from, step, size, run, y + to, streamed);
    });
  } else if (along >= 0 && step == axes.size[along]) {
    const int64_t count = axes.size[along], distance = axes.to[along];
    axes.remove(last), axes.remove(along);
    axes.follow_source();  // long rows of x, one behind the other
    const bool streamed = large && size % kLanes<T> == 0;
    for_each_place(axes, count * size, streamed, [&](int64_t from, int64_t to) {
      part_runs(x + from, distance, count, size, y + to, streamed);
    });
  } else {
    axes.remove(last);
    for_each_place(axes, size, false, [&](int64_t from, int64_t to) {
      for (int64_t i = 0; i < size; ++i) y[to + i] = x[from + i * step];
    });
  }
}

LAMINA_INSTANTIATE(permute_fprop_copy, PermuteArgs)

LAMINA_CPU_NAMESPACE_END
