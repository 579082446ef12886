// How the threads of a block share the lines of an array [outer][axis][inner]: line (o, i) holds
// the elements o * axis * inner + i + j * inner.
//
// A grid of several rows (blockIdx.y) cuts every line into parts of LineShape::part elements, of
// which a block handles one, from lines.begin to lines.end.
//
// A thread handles kSlots<T> elements of its line at a time, in registers: a line that fits into
// the slots of its threads is read once. Threads whose line does not exist take part in every
// reduction, with the fill values.
#pragma once

#include "cuda/device/launch.h"
#include "cuda/device/reduce.h"
#include "cuda/device/vector.h"

namespace lamina::cuda {

// 64 bytes of registers.
template <class T>
inline constexpr int kSlots = 64 / static_cast<int>(sizeof(Acc<T>));
template <class T>
using Slots = Acc<T>[kSlots<T>];

struct LineShape {
  int64_t outer, axis, inner;
  int64_t part = axis;
  int width_log2 = 0;      // for Columns
  int ranks_log2 = 0;      // for Rows
  bool backwards = false;  // the first block takes the last lines, which a cache may still hold

  __host__ __device__ constexpr int64_t parts() const {
    return part > 0 ? (axis + part - 1) / part : 1;
  }
  __device__ __forceinline__ unsigned block() const {
    return backwards ? gridDim.x - 1 - blockIdx.x : blockIdx.x;
  }
  // The same lines for a kernel that reads again what the one before has read.
  constexpr LineShape second_reading() const {
    LineShape shape = *this;
    shape.backwards = true;
    return shape;
  }
  __host__ __device__ constexpr int64_t lines() const { return outer * inner; }
};

// The larger; a NaN in b is passed over.
struct MaxPastNan {
  template <class A>
  __device__ __forceinline__ A operator()(A a, A b) const {
    return b > a ? b : a;
  }
};

// What the two ways below have in common: slot i of a thread is element first + at(i) of its line.
template <class Lines, int N>
struct LineAccess {
  // Elements from `first` on, at most those of all threads' slots.
  __device__ __forceinline__ int count(int64_t first) const {
    const Lines& lines = static_cast<const Lines&>(*this);
    return lines.valid ? static_cast<int>(min(lines.end - first, int64_t{0x7fffffff})) : 0;
  }
  // v[i] = x's element in slot i, `fill` beyond the line; x points to the line's first element.
  template <class T>
  __device__ __forceinline__ void load_slots(const T* x, int64_t first, Acc<T> fill,
                                             Slots<T>& v) const {
    const Lines& lines = static_cast<const Lines&>(*this);
    const int inside = count(first);
    const T* p = x + lines.offset(first);
#pragma unroll
    for (int i = 0; i < kSlots<T>; i += N, p += lines.stride()) {
      Vector<T, N> vector;
      if (lines.at(i) < inside) vector = load<T, N>(p);
#pragma unroll
      for (int e = 0; e < N; ++e) v[i + e] = lines.at(i) < inside ? widen(vector.element[e]) : fill;
    }
  }
  template <class T>
  __device__ __forceinline__ void store_slots(T* y, int64_t first, const Slots<T>& v) const {
    const Lines& lines = static_cast<const Lines&>(*this);
    const int inside = count(first);
    T* p = y + lines.offset(first);
#pragma unroll
    for (int i = 0; i < kSlots<T>; i += N, p += lines.stride()) {
      Vector<T, N> vector;
#pragma unroll
      for (int e = 0; e < N; ++e) vector.element[e] = narrow<T>(v[i + e]);
      if (lines.at(i) < inside) store<T, N>(p, vector);
    }
  }
  // Calls body(i, element) for every slot that holds an element.
  template <class T, class Body>
  __device__ __forceinline__ void for_each_slot(int64_t first, Body body) const {
    const Lines& lines = static_cast<const Lines&>(*this);
    const int inside = count(first);
#pragma unroll
    for (int i = 0; i < kSlots<T>; ++i)
      if (lines.at(i) < inside) body(i, first + lines.at(i));
  }
};

// inner == 1: 2^ranks_log2 neighbouring threads a line (8, 32, or a whole block of more), vectors
// of N elements; N > 1 only where N divides the axis and the arrays are aligned.
template <int N>
struct Rows : LineAccess<Rows<N>, N> {
  static constexpr int kThreads = 512;  // at most
  static constexpr int kThreadsOfWarps = 256;

  int64_t begin, end, base, line;
  int rank, ranks_log2;
  bool valid;

  __device__ __forceinline__ explicit Rows(const LineShape& shape)
      : begin(blockIdx.y * shape.part),
        end(min(begin + shape.part, shape.axis)),
        line(int64_t{shape.block()} * (blockDim.x >> shape.ranks_log2) +
             (threadIdx.x >> shape.ranks_log2)),
        rank(static_cast<int>(threadIdx.x) & ((1 << shape.ranks_log2) - 1)),
        ranks_log2(shape.ranks_log2) {
    base = line * shape.axis;
    valid = line < shape.outer;
  }
  static int threads(const LineShape& shape) {
    return shape.ranks_log2 > 5 ? 1 << shape.ranks_log2 : kThreadsOfWarps;
  }
  static int64_t blocks(const LineShape& shape) {
    const int lines = threads(shape) >> shape.ranks_log2;
    return (shape.outer + lines - 1) / lines;
  }
  __device__ __forceinline__ int ranks() const { return 1 << ranks_log2; }
  __device__ __forceinline__ int64_t step() const { return 1; }
  // Of slot 0 in memory, and from one vector of slots to the next.
  __device__ __forceinline__ int64_t offset(int64_t first) const { return first + rank * N; }
  __device__ __forceinline__ int stride() const { return N << ranks_log2; }
  __device__ __forceinline__ int at(int slot) const {
    return ((slot / N << ranks_log2) + rank) * N + slot % N;
  }
  // Every thread of the line gets the reduction over the line's threads.
  template <class A, class Combine>
  __device__ __forceinline__ A reduce(A value, Combine combine) const {
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2)
      if (lane < ranks()) value = combine(value, __shfl_xor_sync(0xffffffffu, value, lane));
    if (ranks() <= 32) return value;
    __shared__ A partial[kThreads / 32];
    return combine_warps(value, ranks() / 32, partial, combine);
  }
};

// inner > 1: a block takes `width` = 2^width_log2 neighbouring lines and spreads each over
// kThreads / width threads; a warp reads along `inner`.
struct Columns : LineAccess<Columns, 1> {
  static constexpr int kThreads = 256, kThreadsLog2 = 8;

  int64_t begin, end, base, line, inner;
  int rank, width_log2, column;
  bool valid;

  // Half of the slots of a thread at least, but more threads a line where there are few lines.
  static constexpr int choose_width_log2(const LineShape& shape, int slots) {
    constexpr int64_t kManyThreads = int64_t{1} << 17;
    int ranks_log2 = 0;
    while (ranks_log2 < 3 && (shape.lines() << ranks_log2) < kManyThreads &&
           (int64_t{1} << ranks_log2) < shape.axis)
      ++ranks_log2;
    while (ranks_log2 < 3 && (int64_t{slots} / 2 << ranks_log2) < shape.axis) ++ranks_log2;
    int width_log2 = kThreadsLog2 - ranks_log2;
    while (width_log2 > 1 && int64_t{1} << (width_log2 - 1) >= shape.inner) --width_log2;
    return width_log2;
  }
  __host__ __device__ static constexpr int64_t tiles(const LineShape& shape) {
    return (shape.inner + (1 << shape.width_log2) - 1) >> shape.width_log2;
  }
  static int threads(const LineShape&) { return kThreads; }
  static int64_t blocks(const LineShape& shape) { return shape.outer * tiles(shape); }

  __device__ __forceinline__ explicit Columns(const LineShape& shape)
      : begin(blockIdx.y * shape.part),
        end(min(begin + shape.part, shape.axis)),
        inner(shape.inner),
        rank(static_cast<int>(threadIdx.x) >> shape.width_log2),
        width_log2(shape.width_log2),
        column(static_cast<int>(threadIdx.x) & ((1 << width_log2) - 1)) {
    const unsigned per_outer = static_cast<unsigned>(tiles(shape));  // 32 bits, as blockIdx
    const int64_t outer = shape.block() / per_outer;
    const int64_t i = (int64_t{shape.block() % per_outer} << width_log2) + column;
    base = outer * shape.axis * inner + i;
    line = outer * inner + i;
    valid = i < inner;
  }
  __device__ __forceinline__ int ranks() const { return kThreads >> width_log2; }
  __device__ __forceinline__ int64_t step() const { return inner; }
  __device__ __forceinline__ int64_t offset(int64_t first) const { return (first + rank) * inner; }
  __device__ __forceinline__ int64_t stride() const { return ranks() * inner; }
  __device__ __forceinline__ int at(int slot) const { return slot * ranks() + rank; }

  template <class A, class Combine>
  __device__ __forceinline__ A reduce(A value, Combine combine) const {
    if (ranks() == 1) return value;
    __shared__ A cell[kThreads];
    __syncthreads();  // the previous call's readers have finished
    cell[threadIdx.x] = value;
    for (int half = ranks() / 2; half > 0; half /= 2) {
      __syncthreads();
      if (rank < half)
        cell[threadIdx.x] = combine(cell[threadIdx.x], cell[threadIdx.x + (half << width_log2)]);
    }
    __syncthreads();
    return cell[column];
  }
};

template <class Lines>
dim3 line_grid(const LineShape& shape) {
  return dim3(grid_size(Lines::blocks(shape)), static_cast<unsigned>(shape.parts()));
}

// Elements of the longest line with inner == 1 that is read once.
static constexpr int kBlockRanks = 512;
template <class T>
inline constexpr int64_t kLineInRegisters = kBlockRanks * kSlots<T>;

// Calls body.template operator()<Lines, ONE>(shape) with the way that suits the shape: ONE where a
// line fits into the slots of its threads. `wide`: vectors are possible.
template <class T, class Body>
void visit_lines(LineShape shape, bool wide, Body body) {
  if (shape.inner != 1) {
    shape.width_log2 = Columns::choose_width_log2(shape, kSlots<T>);
    if (shape.axis <= (Columns::kThreads >> shape.width_log2) * kSlots<T>)
      body.template operator()<Columns, true>(shape);
    else
      body.template operator()<Columns, false>(shape);
    return;
  }
  shape.ranks_log2 = shape.axis <= 16                ? 3
                     : shape.axis <= 32 * kSlots<T>  ? 5
                     : shape.axis <= 128 * kSlots<T> ? 7
                                                     : 9;
  static_assert(kBlockRanks == 1 << 9);
  wide = wide && shape.axis > 16;
  if (shape.axis <= kLineInRegisters<T>) {
    if (wide)
      body.template operator()<Rows<kWide<T>>, true>(shape);
    else
      body.template operator()<Rows<1>, true>(shape);
  } else {
    if (wide)
      body.template operator()<Rows<kWide<T>>, false>(shape);
    else
      body.template operator()<Rows<1>, false>(shape);
  }
}

// Cuts the lines into parts, whole loads of all slots, until there are blocks for a large GPU.
inline void choose_parts(LineShape& shape, int64_t blocks, int64_t load) {
  constexpr int64_t kBlocks = 2048;
  const int64_t wanted = blocks ? ceil_div(kBlocks, blocks) : 1;
  shape.part = max(ceil_div(ceil_div(shape.axis, wanted), load), int64_t{1}) * load;
}

// The same for sums along the lines and for what needs no neighbours: calls
// body.template operator()<Lines>(shape).
template <class T, class Body>
void visit_parts(LineShape shape, bool wide, Body body) {
  if (shape.inner != 1) {
    shape.width_log2 = Columns::choose_width_log2(shape, kSlots<T>);
    choose_parts(shape, Columns::blocks(shape),
                 (Columns::kThreads >> shape.width_log2) * kSlots<T>);
    body.template operator()<Columns>(shape);
    return;
  }
  shape.ranks_log2 = 5;
  if (shape.axis > 32 * kSlots<T>) {
    shape.ranks_log2 = 7;
    choose_parts(shape, shape.outer, 128 * kSlots<T>);
  }
  if (wide)
    body.template operator()<Rows<kWide<T>>>(shape);
  else
    body.template operator()<Rows<1>>(shape);
}

}  // namespace lamina::cuda
