// conv, implicit GEMM: the matrix products of im2col, whose unrolled input exists only as the
// panels of a task.
//
//   fprop  y[k][o] = weight[k][c r] col[c r][o], positions o of all images
//   dgrad  fprop of grad_y with the filters turned by 180 degrees and k, c swapped
//
// A gradient at a stride, or a filter whose taps lie in the padding often: cpu/conv_parts.h. The
// weight gradient: conv_implicit_gemm_wgrad.cpp.
//
// Source        Chetlur et al. 2014 (cuDNN).
// Workspace     fprop and dgrad: the packed filters or, where positions are few, the packed input
//               (shared/implicit_gemm.h). Packed filters may be kept between calls.
// Partitioning  blocks of the product of every group (cpu/gemm.h).
// Numerics      sums over (c, r) in runs of kBlockDepth, the runs in order.
// Floor         the FMA peak: a panel of 48 positions is packed once for up to 256 filters.
#include "cpu/activate.h"
#include "cpu/conv_parts.h"
#include "cpu/gemm.h"
#include "cpu/im2col.h"
#include "ops/instantiate.h"
#include "shared/implicit_gemm.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ConvArgs;
using ops::ConvPass;
using ops::ConvShape;

// Stores rows of sums, as epilogue(sums + bias), at positions [j, j + cols) of all images: element
// (channel, o) of an image lies at its place in `result`.
template <class T>
struct ConvStore {
  const ConvArgs<T>& args;
  int64_t channels, plane;  // of an image; elements of a plane

  // `count` neighbours.
  LAMINA_INLINE void run(int64_t place, int64_t count, T bias, const T* sums) const {
    for (int64_t j = 0; j < count; j += kLanes<T>) {
      Vec<T> sum = load_first(sums + j, count - j) + bias;
      if (args.epilogue.residual) sum += load_first(args.epilogue.residual + place + j, count - j);
      store_first(args.result + place + j, count - j, activate(args.epilogue, sum));
    }
  }

  void block(int64_t channel, int64_t rows, int64_t j, int64_t cols, const T* sums,
             int64_t step) const {
    for (int64_t r = 0; r < rows; ++r, sums += step) {
      const T bias = args.bias ? args.bias[channel + r] : T(0);
      for (int64_t done = 0; done < cols;) {
        const int64_t image = (j + done) / plane, o = (j + done) % plane;
        const int64_t count = min_of(plane - o, cols - done);
        run((image * channels + channel + r) * plane + o, count, bias, sums + done);
        done += count;
      }
    }
  }
};

// Where the rows of the unrolled input lie that later products take (cpu/gemm.h): planes of x, if
// filters have one tap. Others use a channel for many rows; packing fetches those itself.
template <class T>
struct PlanesAhead {
  const ConvShape& s;
  const T* x;

  Ahead<T> operator()(int64_t g, int64_t j, int64_t cols, int64_t p, int64_t line) const {
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
    if (s.kernel_size() != 1 || g >= s.groups) return {};
    const int64_t width = s.stride[2] * s.out[2], image = j / s.out_size(), o = j % s.out_size();
    int64_t at = 0;                              // in the plane
    if (s.stride[1] == 1 && width == s.in[2]) {  // rows follow each other
      if (line * kLine >= cols + kLine) return {};
      at = o + line * kLine;
    } else {
      const int64_t per_row = ceil_div(width, kLine), row = o / s.out[2] + line / per_row;
      if (line >= per_row * (ceil_div(cols, s.out[2]) + 1)) return {};
      at = row * s.stride[1] * s.in[2] + line % per_row * kLine;
    }
    return {x + ((image * s.groups + g) * s.c_per_group() + p) * s.in_size() + at, s.in_size()};
  }
};

// store(group, i, rows, j, cols, sums, step) gets filters(group, i, rows, p, depth, panel) times
// the unrolled x.
template <class T, class Filters, class Store>
static void multiply(const ConvShape& s, const T* x, const Filters& filters, const Store& store,
                     const ConvArgs<T>& args) {
  using Tile = GemmTile<T>;
  const ImplicitGemm plan(s);
  const int64_t m = s.k_per_group(), n = plan.positions, k = plan.depth;
  const int64_t channels = s.c_per_group() * s.in_size(), image_step = s.c * s.in_size();
  const auto pack_input = [&](int64_t g, int64_t j, int64_t cols, int64_t p, int64_t depth,
                              T* panels) -> const T* {
    const Im2colRuns<T, Tile::kBlockCols, Tile::kCols> runs(s, x + g * channels, image_step, j,
                                                            cols);
    runs.pack(p, depth, panels);
    return panels;
  };
  // All filters are packed at once where they are kept, or where positions are many: block of depth
  // by block of depth, so that a task reads its panels as they lie in memory.
  const int64_t filter_panels = ceil_div(m, Tile::kRows), group_size = filter_panels * Tile::kRows;
  T* const packed = args.packed ? args.packed->data : plan.pack_input ? nullptr : args.workspace;
  const auto filter_place = [&](int64_t g, int64_t i, int64_t p, int64_t depth) {
    return packed + (g * k + p) * group_size + i * depth;
  };
  if (packed && !(args.packed && args.packed->ready)) {
    parallel_for(s.groups * filter_panels, [&](int64_t task) {
      const int64_t g = task / filter_panels, i = task % filter_panels * Tile::kRows;
      for (int64_t p = 0; p < k; p += Tile::kBlockDepth) {
        const int64_t depth = min_of(Tile::kBlockDepth, k - p);
        filters(g, i, min_of<int64_t>(Tile::kRows, m - i), p, depth, filter_place(g, i, p, depth));
      }
    });
    if (args.packed) args.packed->ready = true;
  }
  const auto rows_of = [&](int64_t g, int64_t i, int64_t rows, int64_t p, int64_t depth,
                           T* panel) -> const T* {
    return packed ? filter_place(g, i, p, depth) : filters(g, i, rows, p, depth, panel);
  };
  if (plan.pack_input) {
    const int64_t panels = ceil_div(n, Tile::kCols), blocks = ceil_div(k, Tile::kBlockDepth);
    const int64_t width = whole_vectors<T>(n);
    const auto place = [&](int64_t g, int64_t j, int64_t p, int64_t depth) {
      return args.workspace + (g * k + p) * width + j * depth;
    };
    parallel_for(s.groups * panels * blocks, [&](int64_t task) {
      const int64_t g = task / blocks / panels, j = task / blocks % panels * Tile::kCols;
      const int64_t p = task % blocks * Tile::kBlockDepth;
      const int64_t depth = min_of(Tile::kBlockDepth, k - p);
      pack_input(g, j, min_of<int64_t>(Tile::kCols, n - j), p, depth, place(g, j, p, depth));
    });
    const auto ahead_of = [&](int64_t g, int64_t, int64_t, int64_t p, int64_t line) -> Ahead<T> {
      constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
      const int64_t depth = min_of(Tile::kBlockDepth, k - p), at = line * depth * kLine;
      if (g >= s.groups || at >= depth * width) return {};
      return {place(g, 0, p, depth) + at, kLine};
    };
    gemm_blocks<T>(
        s.groups, m, n, k, rows_of,
        [&](int64_t g, int64_t j, int64_t, int64_t p, int64_t depth, T*) -> const T* {
          return place(g, j, p, depth);
        },
        store, ahead_of, true);
  } else {
    gemm_blocks<T>(s.groups, m, n, k, rows_of, pack_input, store, PlanesAhead<T>{s, x});
  }
}

template <class T>
void conv_fprop_implicit_gemm(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  const int64_t m = s.k_per_group(), k = s.c_per_group() * s.kernel_size();
  const ConvStore<T> output{args, s.k, s.out_size()};
  const auto filters = [&](int64_t g, int64_t i, int64_t rows, int64_t p, int64_t depth,
                           T* panel) -> const T* {
    constexpr int kRows = GemmTile<T>::kRows;
    pack_panel<kRows>(args.weight + (g * m + i) * k + p, k, 1, rows, depth, panel, kRows);
    return panel;
  };
  if (in_parts(ConvPass::fprop, s)) return multiply_parts(args, ConvPass::fprop, args.x, filters);
  multiply(
      s, args.x, filters,
      [&](int64_t g, int64_t i, int64_t rows, int64_t j, int64_t cols, const T* sums,
          int64_t step) { output.block(g * m + i, rows, j, cols, sums, step); },
      args);
}

// Filters [i, i + rows) of a group for the gradient, inputs and outputs swapped, as [depth][kRows]
// from depth p on; a filter's taps in their order or turned by 180 degrees.
template <class T>
static void pack_backward(const ConvArgs<T>& args, bool turned, int64_t g, int64_t i, int64_t rows,
                          int64_t p, int64_t depth, T* panel) {
  constexpr int kRows = GemmTile<T>::kRows;
  constexpr int64_t kAhead = 8;  // outputs by which their scattered filters are prefetched
  const ConvShape& s = args.shape;
  const int64_t taps = s.kernel_size(), m = s.c_per_group(), outputs = s.k_per_group();
  const T* weight = args.weight + (g * outputs * m + i) * taps;
  if (taps == 1) return pack_panel<kRows>(weight + p * m, 1, m, rows, depth, panel, kRows);
  int64_t k = p / taps, t = p % taps;
  for (int64_t q = 0; q < depth; ++q, panel += kRows) {
    const T* source = weight + k * m * taps + (turned ? taps - 1 - t : t);
    if (t == 0 && k + kAhead < outputs)
      prefetch_line(weight + (k + kAhead) * m * taps, rows * taps);
    if (rows == kRows)
#pragma GCC unroll 8
      for (int64_t c = 0; c < kRows; ++c) panel[c] = source[c * taps];
    else
      for (int64_t c = 0; c < kRows; ++c) panel[c] = c < rows ? source[c * taps] : T(0);
    if (++t == taps) t = 0, ++k;
  }
}

template <class T>
void conv_dgrad_implicit_gemm(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  const bool parts = in_parts(ConvPass::dgrad, s);
  const auto filters = [&](int64_t g, int64_t i, int64_t rows, int64_t p, int64_t depth,
                           T* panel) -> const T* {
    pack_backward(args, !parts, g, i, rows, p, depth, panel);
    return panel;
  };
  if (parts) return multiply_parts(args, ConvPass::dgrad, args.grad_y, filters);
  const ConvStore<T> output{args, s.c, s.in_size()};
  multiply(
      conv_phase(s, 0).shape, args.grad_y, filters,
      [&](int64_t g, int64_t i, int64_t rows, int64_t j, int64_t cols, const T* sums,
          int64_t step) { output.block(g * s.c_per_group() + i, rows, j, cols, sums, step); },
      args);
}

LAMINA_INSTANTIATE(conv_fprop_implicit_gemm, ConvArgs)
LAMINA_INSTANTIATE(conv_dgrad_implicit_gemm, ConvArgs)

LAMINA_CPU_NAMESPACE_END
