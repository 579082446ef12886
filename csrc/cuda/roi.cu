// RoI pool and RoI align, forward and backward (ops/roi.h); nms is in nms.cu.
//
// Method        first the bins of every box, axis by axis: spans or lists of weights for the
//               forward pass; for the gradient which bins hold a position. A thread then serves one
//               bin of a box in channel after channel, or gathers the gradient of one pixel in
//               eight channels from the boxes that reach its tile: no atomics.
// Partitioning  forward: device/plane_grid.h for bins and channels, boxes in the grid's third axis.
//               backward: tiles of 8 x 32 pixels, groups of channels, images.
// Numerics      sums in the order of rows, then columns (RoI align: by four columns); gradients in
//               the order of boxes and bins.
// Floor         the bins' pixels of x and y; the planes of grad_x and, from the caches, what
//               reaches each pixel.
#include "cuda/device/plane_grid.h"
#include "cuda/instantiate.h"
#include "ops/roi.h"
#include "shared/roi.h"

namespace lamina::cuda {

using ops::RoiArgs;
using roi::Span;

static constexpr int kThreads = PlaneGrid<int, 1>::kThreads;
static constexpr int64_t kMostBoxes = 65535;  // of one launch: the grid's limit

// ---- boxes

// *bad = the first box whose image is outside the batch or that is not finite, as an unsigned
// number; all ones is -1. Nothing else runs if there is one.
__global__ void no_bad_box_kernel(unsigned long long* bad) {
  *bad = ~0ull;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    bad_box_kernel(const RoiArgs<T> args, unsigned long long* bad) {
  const int64_t box = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (box >= args.boxes) return;
  const T* roi = args.rois + box * 5;
  const double image = static_cast<double>(widen(roi[0]));
  bool good = image >= 0 && image < static_cast<double>(args.n);
  for (int i = 1; i < 5; ++i) {
    const double corner = static_cast<double>(widen(roi[i]));
    good &= corner - corner == 0;  // finite
  }
  if (!good) atomicMin(bad, static_cast<unsigned long long>(box));
}

template <class T>
static void find_bad_box(const RoiArgs<T>& args) {
  auto* bad = reinterpret_cast<unsigned long long*>(args.bad);
  launch(no_bad_box_kernel, 1, 1, 0, bad);
  launch(bad_box_kernel<T>, grid_size(ceil_div(args.boxes, kThreads)), kThreads, 0, args, bad);
}

template <class T>
__device__ __forceinline__ int64_t image_of(const RoiArgs<T>& args, int64_t box) {
  return static_cast<int64_t>(widen(args.rois[box * 5]));
}

// One axis of a box.
struct BoxAxis {
  double low, high;
  int64_t bins, size;

  template <class T>
  __device__ __forceinline__ BoxAxis(const RoiArgs<T>& args, int64_t box, bool rows)
      : low(static_cast<double>(widen(args.rois[box * 5 + (rows ? 2 : 1)]))),
        high(static_cast<double>(widen(args.rois[box * 5 + (rows ? 4 : 3)]))),
        bins(rows ? args.bins_h : args.bins_w),
        size(rows ? args.h : args.w) {}
};

// Splits the threads of a grid over boxes and, of each, `rows` entries of its rows' axis and
// `columns` of its columns'.
struct Entry {
  int64_t box, index;  // along the axis
  bool rows;

  __device__ __forceinline__ Entry(int64_t row_entries, int64_t column_entries) {
    const int64_t at = int64_t{blockIdx.x} * kThreads + threadIdx.x;
    box = at / (row_entries + column_entries);
    index = at - box * (row_entries + column_entries);
    rows = index < row_entries;
    if (!rows) index -= row_entries;
  }
};

// ---- forward

// spans [box][bins_h + bins_w]: what each bin covers along its axis.
template <class T>
__global__ void __launch_bounds__(kThreads) span_kernel(const RoiArgs<T> args, Span* spans) {
  const Entry entry(args.bins_h, args.bins_w);
  if (entry.box >= args.boxes || *args.bad >= 0) return;
  const BoxAxis axis(args, entry.box, entry.rows);
  spans[entry.box * (args.bins_h + args.bins_w) + (entry.rows ? 0 : args.bins_h) + entry.index] =
      roi::pool_span(axis.low, axis.high, args.scale, axis.bins, entry.index, axis.size);
}

static constexpr int kAtOnce = 4;
using BinGrid = PlaneGrid<int64_t, kAtOnce>;

template <class T>
__global__ void __launch_bounds__(kThreads, sizeof(T) == sizeof(double) ? 2 : 3)
    roi_pool_kernel(const RoiArgs<T> args, const BinGrid grid, const Span* spans) {
  PlaneWalk walk(grid);
  if (!walk.any() || *args.bad >= 0) return;
  const int64_t box = blockIdx.z, p = walk.position / args.bins_w;
  spans += box * (args.bins_h + args.bins_w);
  const Span rows = spans[p], columns = spans[args.bins_h + walk.position - p * args.bins_w];
  const int64_t image = image_of(args, box) * args.c;
  for (; walk.more(); walk.next()) {
    const T* x[kAtOnce];
    Acc<T> largest[kAtOnce];
    int64_t best[kAtOnce];
    for (int k = 0; k < kAtOnce; ++k) {
      x[k] = args.x + (image + walk.plane(k)) * args.plane();
      largest[k] = 0, best[k] = -1;
    }
    for (int64_t i = rows.begin; i < rows.end; ++i)
      for (int64_t at = i * args.w + columns.begin; at < i * args.w + columns.end; ++at)
        for (int k = 0; k < kAtOnce; ++k) {
          const Acc<T> value = widen(x[k][at]);
          // `!(value <= largest)` holds for a larger value and for the first NaN.
          const bool better = best[k] < 0 || (!(value <= largest[k]) && largest[k] == largest[k]);
          largest[k] = better ? value : largest[k], best[k] = better ? at : best[k];
        }
    for (int k = 0; k < kAtOnce; ++k) {
      if (!walk.has(k)) continue;
      const int64_t o = (box * args.c + walk.plane(k)) * args.bins() + walk.position;
      args.result[o] = narrow<T>(largest[k]);
      args.index[o] = best[k];
    }
  }
}

// A position along an axis and its weight in the mean, without padding.
template <class A>
struct Tap {
  using Position = std::conditional_t<sizeof(A) == 8, int64_t, int>;
  A weight;
  Position position;
};

// The taps of all bins of the boxes: `room` of them a bin, `count` used.
template <class A>
struct RoiTaps {
  Tap<A>* taps;
  int* count;  // [box][bins_h + bins_w]
  int64_t row_room, column_room, bins_h, bins_w;

  constexpr int64_t taps_of_box() const { return bins_h * row_room + bins_w * column_room; }
  constexpr int64_t first_tap(int64_t box, bool rows, int64_t bin) const {
    return box * taps_of_box() + (rows ? bin * row_room : bins_h * row_room + bin * column_room);
  }
  constexpr int64_t first_count(int64_t box, bool rows, int64_t bin) const {
    return box * (bins_h + bins_w) + (rows ? 0 : bins_h) + bin;
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    tap_kernel(const RoiArgs<T> args, const RoiTaps<Acc<T>> table) {
  const Entry entry(args.bins_h, args.bins_w);
  if (entry.box >= args.boxes || *args.bad >= 0) return;
  const BoxAxis axis(args, entry.box, entry.rows);
  Tap<Acc<T>>* taps = table.taps + table.first_tap(entry.box, entry.rows, entry.index);
  int count = 0;
  const roi::AlignBin bin = roi::align_bin(axis.low, axis.high, args.scale, args.sampling_ratio,
                                           args.aligned, axis.bins, entry.index, axis.size);
  roi::for_each_align_weight<Acc<T>>(bin, axis.size, [&](int64_t position, Acc<T> weight) {
    taps[count++] = {weight, static_cast<typename Tap<Acc<T>>::Position>(position)};
  });
  table.count[table.first_count(entry.box, entry.rows, entry.index)] = count;
}

// Columns whose taps a thread keeps for all rows: those of two samples a bin.
static constexpr int kColumns = 4;

template <class T>
__global__ void __launch_bounds__(kThreads, sizeof(T) == sizeof(double) ? 2 : 3)
    roi_align_kernel(const RoiArgs<T> args, const BinGrid grid, const RoiTaps<Acc<T>> table) {
  PlaneWalk walk(grid);
  if (!walk.any() || *args.bad >= 0) return;
  const int64_t box = blockIdx.z, p = walk.position / args.bins_w;
  const int64_t q = walk.position - p * args.bins_w;
  const Tap<Acc<T>>* rows = table.taps + table.first_tap(box, true, p);
  const Tap<Acc<T>>* columns = table.taps + table.first_tap(box, false, q);
  const int row_count = table.count[table.first_count(box, true, p)];
  const int column_count = table.count[table.first_count(box, false, q)];
  const int64_t image = image_of(args, box) * args.c;
  for (; walk.more(); walk.next()) {
    const T* x[kAtOnce];
    Acc<T> sum[kAtOnce];
    for (int k = 0; k < kAtOnce; ++k) {
      x[k] = args.x + (image + walk.plane(k)) * args.plane();
      sum[k] = 0;
    }
    for (int j0 = 0; j0 < column_count; j0 += kColumns) {
      Tap<Acc<T>> column[kColumns];
      for (int j = 0; j < kColumns; ++j) column[j] = columns[min(j0 + j, column_count - 1)];
      for (int i = 0; i < row_count; ++i) {
        const Tap<Acc<T>> row = rows[i];
        const int64_t start = int64_t{row.position} * args.w;
        for (int k = 0; k < kAtOnce; ++k) {
          Acc<T> line = 0;
          for (int j = 0; j < kColumns; ++j) {
            const Acc<T> value =
                j0 + j < column_count ? widen(x[k][start + column[j].position]) : Acc<T>(0);
            line += column[j].weight * value;
          }
          sum[k] += row.weight * line;
        }
      }
    }
    for (int k = 0; k < kAtOnce; ++k)
      if (walk.has(k))
        args.result[(box * args.c + walk.plane(k)) * args.bins() + walk.position] =
            narrow<T>(sum[k]);
  }
}

// ---- backward

// The bins that hold a position, [first, last) along their axis.
struct BinRange {
  int first, last;
};

// ranges [box][h + w].
template <class T>
__global__ void __launch_bounds__(kThreads)
    pool_range_kernel(const RoiArgs<T> args, BinRange* ranges) {
  const Entry entry(args.h, args.w);
  if (entry.box >= args.boxes || *args.bad >= 0) return;
  const BoxAxis axis(args, entry.box, entry.rows);
  const Span bins = roi::pool_bins_at(axis.low, axis.high, args.scale, axis.bins, entry.index);
  ranges[entry.box * (args.h + args.w) + (entry.rows ? 0 : args.h) + entry.index] = {
      static_cast<int>(bins.begin), static_cast<int>(bins.end)};
}

// weights [box][bins_h * h + bins_w * w], 0 before: the bins' weights for every position.
template <class T>
__global__ void __launch_bounds__(kThreads)
    align_weight_kernel(const RoiArgs<T> args, Acc<T>* weights) {
  const Entry entry(args.bins_h, args.bins_w);
  if (entry.box >= args.boxes || *args.bad >= 0) return;
  const BoxAxis axis(args, entry.box, entry.rows);
  weights += entry.box * (args.bins_h * args.h + args.bins_w * args.w);
  weights += (entry.rows ? 0 : args.bins_h * args.h) + entry.index * axis.size;
  const roi::AlignBin bin = roi::align_bin(axis.low, axis.high, args.scale, args.sampling_ratio,
                                           args.aligned, axis.bins, entry.index, axis.size);
  roi::for_each_align_weight<Acc<T>>(
      bin, axis.size, [&](int64_t position, Acc<T> weight) { weights[position] = weight; });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    align_range_kernel(const RoiArgs<T> args, const Acc<T>* weights, BinRange* ranges) {
  const Entry entry(args.h, args.w);
  if (entry.box >= args.boxes || *args.bad >= 0) return;
  const int64_t bins = entry.rows ? args.bins_h : args.bins_w;
  const int64_t size = entry.rows ? args.h : args.w;
  weights += entry.box * (args.bins_h * args.h + args.bins_w * args.w);
  weights += (entry.rows ? 0 : args.bins_h * args.h) + entry.index;
  BinRange range{0, 0};
  for (int bin = 0; bin < bins; ++bin)
    if (weights[bin * size] != Acc<T>(0)) {
      if (range.last == 0) range.first = bin;
      range.last = bin + 1;
    }
  ranges[entry.box * (args.h + args.w) + (entry.rows ? 0 : args.h) + entry.index] = range;
}

static constexpr int kTileRows = 8, kTileColumns = 32, kChannels = 8;
static_assert(kTileRows * kTileColumns == kThreads);

// What one bin gives to one pixel, channel by channel, is the only difference of the two gradients.
template <class T>
struct PoolShare {
  const int64_t* index;

  struct OfBin {
    int64_t pixel;
    // o: the bin in grad_y.
    __device__ __forceinline__ Acc<T> operator()(const PoolShare& share, Acc<T> grad,
                                                 int64_t o) const {
      return share.index[o] == pixel ? grad : Acc<T>(0);
    }
  };
  __device__ __forceinline__ OfBin of_bin(const RoiArgs<T>& args, int64_t, int64_t, int64_t,
                                          int64_t i, int64_t j) const {
    return {i * args.w + j};
  }
};

template <class T>
struct AlignShare {
  const Acc<T>* weights;

  struct OfBin {
    Acc<T> row, column;
    __device__ __forceinline__ Acc<T> operator()(const AlignShare&, Acc<T> grad, int64_t) const {
      return row * grad * column;
    }
  };
  __device__ __forceinline__ OfBin of_bin(const RoiArgs<T>& args, int64_t box, int64_t p, int64_t q,
                                          int64_t i, int64_t j) const {
    const Acc<T>* rows = weights + box * (args.bins_h * args.h + args.bins_w * args.w);
    const Acc<T>* columns = rows + args.bins_h * args.h;
    return {rows[p * args.h + i], columns[q * args.w + j]};
  }
};

// Whether a box may reach positions [begin, end) along an axis: a bound, the ranges are exact.
__device__ __forceinline__ bool may_reach(const BoxAxis& axis, double scale, int64_t begin,
                                          int64_t end) {
  const double a = axis.low * scale, b = axis.high * scale;
  return min(a, b) - 2 < static_cast<double>(end) && max(a, b) + 3 > static_cast<double>(begin);
}

template <class T, class Share>
__global__ void __launch_bounds__(kThreads, sizeof(T) == sizeof(double) ? 2 : 3)
    roi_gradient_kernel(const RoiArgs<T> args, const Share share, const BinRange* ranges,
                        int64_t tiles_h, int64_t tiles_w, int64_t groups) {
  __shared__ int list[kThreads];  // of this round's boxes that may reach the tile, in order
  __shared__ int found[kThreads / 32];
  if (*args.bad >= 0) return;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int64_t rest = blockIdx.x;
  const int64_t j0 = rest % tiles_w * kTileColumns;
  rest /= tiles_w;
  const int64_t i0 = rest % tiles_h * kTileRows;
  rest /= tiles_h;
  const int64_t c0 = rest % groups * kChannels, n = rest / groups;
  const int64_t i = i0 + warp, j = j0 + lane;  // a warp serves a row of the tile
  const bool inside = i < args.h && j < args.w;
  const int channels = static_cast<int>(min(args.c - c0, int64_t{kChannels}));

  Acc<T> sum[kChannels];
  for (int k = 0; k < kChannels; ++k) sum[k] = 0;
  for (int64_t first = 0; first < args.boxes; first += kThreads) {
    // Of this round, the boxes that matter.
    const int64_t candidate = first + threadIdx.x;
    const bool hit = candidate < args.boxes && image_of(args, candidate) == n &&
                     may_reach(BoxAxis(args, candidate, true), args.scale, i0, i0 + kTileRows) &&
                     may_reach(BoxAxis(args, candidate, false), args.scale, j0, j0 + kTileColumns);
    const unsigned hits = __ballot_sync(0xffffffffu, hit);
    if (lane == 0) found[warp] = __popc(hits);
    __syncthreads();  // also: the last round's list has been read
    int before = 0, count = 0;
    for (int w = 0; w < kThreads / 32; ++w) {
      if (w < warp) before += found[w];
      count += found[w];
    }
    if (hit) list[before + __popc(hits & ((1u << lane) - 1))] = static_cast<int>(threadIdx.x);
    __syncthreads();

    for (int at = 0; at < count && inside; ++at) {
      const int64_t box = first + list[at];
      const BinRange* of_box = ranges + box * (args.h + args.w);
      const BinRange rows = of_box[i], columns = of_box[args.h + j];
      const int64_t o0 = (box * args.c + c0) * args.bins();
      for (int64_t p = rows.first; p < rows.last; ++p)
        for (int64_t q = columns.first; q < columns.last; ++q) {
          const auto of_bin = share.of_bin(args, box, p, q, i, j);
          const int64_t o = o0 + p * args.bins_w + q;
#pragma unroll
          for (int k = 0; k < kChannels; ++k)
            if (k < channels) {
              const int64_t channel = o + k * args.bins();
              sum[k] += of_bin(share, widen(args.grad_y[channel]), channel);
            }
        }
    }
  }
  T* grad_x = args.result + ((n * args.c + c0) * args.h + i) * args.w + j;
#pragma unroll
  for (int k = 0; k < kChannels; ++k)
    if (inside && k < channels) grad_x[k * args.plane()] = narrow<T>(sum[k]);
}

// ---- launches

template <class T>
static unsigned entries(const RoiArgs<T>& args, int64_t of_box) {
  return grid_size(ceil_div(args.boxes * of_box, kThreads));
}

// Calls body(part) for groups of at most `most` boxes.
template <class T, class Body>
static void for_each_group(const RoiArgs<T>& args, int64_t most, const Body& body) {
  for (int64_t first = 0; first < args.boxes; first += most) {
    RoiArgs<T> part = args;
    part.boxes = min(most, args.boxes - first);
    part.rois = args.rois + first * 5;
    part.result = args.result + first * args.c * args.bins();
    if (args.index) part.index = args.index + first * args.c * args.bins();
    body(part);
  }
}

template <class T>
static dim3 bin_grid_size(const RoiArgs<T>& args, const BinGrid& grid) {
  dim3 size = grid.size();
  size.z = static_cast<unsigned>(args.boxes);
  return size;
}

template <class T>
void roi_pool_fprop_bins(const RoiArgs<T>& args) {
  find_bad_box(args);
  const int64_t bins = args.bins_h + args.bins_w, most = min(kMostBoxes, args.boxes);
  const Workspace spans(most * bins * int64_t{sizeof(Span)});
  for_each_group(args, most, [&](const RoiArgs<T>& part) {
    const BinGrid grid(part.bins(), part.c);
    launch(span_kernel<T>, entries(part, bins), kThreads, 0, part, spans.get<Span>());
    launch(roi_pool_kernel<T>, bin_grid_size(part, grid), kThreads, 0, part, grid,
           spans.get<Span>());
  });
}

template <class T>
void roi_align_fprop_bins(const RoiArgs<T>& args) {
  constexpr int64_t kTableBytes = int64_t{64} << 20;
  find_bad_box(args);
  if (max(args.h, args.w) > INT32_MAX)
    throw simt::Error("roi_align: a map of 2^31 rows or columns and more");
  // A sample has at most two taps.
  const auto room = [&](int64_t size) {
    return args.sampling_ratio > 0 ? min(size, 2 * args.sampling_ratio) : size;
  };
  RoiTaps<Acc<T>> table{nullptr, nullptr, room(args.h), room(args.w), args.bins_h, args.bins_w};
  const int64_t bins = args.bins_h + args.bins_w;
  const int64_t box_bytes = table.taps_of_box() * int64_t{sizeof(Tap<Acc<T>>)};
  const int64_t most = min(min(kMostBoxes, args.boxes), max(kTableBytes / box_bytes, int64_t{1}));
  const Workspace taps(most * box_bytes), counts(most * bins * int64_t{sizeof(int)});
  table.taps = taps.get<Tap<Acc<T>>>(), table.count = counts.get<int>();
  for_each_group(args, most, [&](const RoiArgs<T>& part) {
    const BinGrid grid(part.bins(), part.c);
    launch(tap_kernel<T>, entries(part, bins), kThreads, 0, part, table);
    launch(roi_align_kernel<T>, bin_grid_size(part, grid), kThreads, 0, part, grid, table);
  });
}

template <class T, class Share>
static void gather(const RoiArgs<T>& args, const Share& share, const BinRange* ranges) {
  const int64_t tiles_h = ceil_div(args.h, kTileRows), tiles_w = ceil_div(args.w, kTileColumns);
  const int64_t groups = ceil_div(args.c, kChannels);
  launch(roi_gradient_kernel<T, Share>, grid_size(tiles_h * tiles_w * groups * args.n), kThreads, 0,
         args, share, ranges, tiles_h, tiles_w, groups);
}

template <class T>
void roi_pool_dgrad_bins(const RoiArgs<T>& args) {
  find_bad_box(args);
  const Workspace ranges(args.boxes * (args.h + args.w) * int64_t{sizeof(BinRange)});
  launch(pool_range_kernel<T>, entries(args, args.h + args.w), kThreads, 0, args,
         ranges.get<BinRange>());
  gather(args, PoolShare<T>{args.index}, ranges.get<BinRange>());
}

template <class T>
void roi_align_dgrad_bins(const RoiArgs<T>& args) {
  find_bad_box(args);
  const Workspace ranges(args.boxes * (args.h + args.w) * int64_t{sizeof(BinRange)});
  const int64_t bytes =
      args.boxes * (args.bins_h * args.h + args.bins_w * args.w) * int64_t{sizeof(Acc<T>)};
  const Workspace workspace(bytes);
  Acc<T>* weights = workspace.get<Acc<T>>();
  if (bytes > 0) simt::fill_zero(weights, static_cast<size_t>(bytes), current_stream());
  launch(align_weight_kernel<T>, entries(args, args.bins_h + args.bins_w), kThreads, 0, args,
         weights);
  launch(align_range_kernel<T>, entries(args, args.h + args.w), kThreads, 0, args, weights,
         ranges.get<BinRange>());
  gather(args, AlignShare<T>{weights}, ranges.get<BinRange>());
}

LAMINA_CUDA_INSTANTIATE(roi_pool_fprop_bins, RoiArgs)
LAMINA_CUDA_INSTANTIATE(roi_pool_dgrad_bins, RoiArgs)
LAMINA_CUDA_INSTANTIATE(roi_align_fprop_bins, RoiArgs)
LAMINA_CUDA_INSTANTIATE(roi_align_dgrad_bins, RoiArgs)

}  // namespace lamina::cuda
