// conv, implicit GEMM: the matrix products of im2col, whose unrolled input exists only as the
// panels of a task.
//
//   fprop  y[k][o] = weight[k][c r] col[c r][o], positions o of all images
//   dgrad  each phase of grad_x (shared/conv_phase.h) as fprop of grad_y, stored at the stride
//
// The weight gradient: conv_implicit_gemm_wgrad.cpp.
//
// Source        Chetlur et al. 2014 (cuDNN).
// Workspace     fprop and dgrad: the packed filters or, where positions are few, the packed input
//               (shared/implicit_gemm.h).
// Partitioning  blocks of the product of every group (cpu/gemm.h).
// Numerics      sums over (c, r) in runs of kBlockDepth, the runs in order.
// Floor         the FMA peak: a panel of 48 positions is packed once for up to 256 filters.
#include "cpu/activate.h"
#include "cpu/gemm.h"
#include "cpu/im2col.h"
#include "ops/instantiate.h"
#include "shared/conv_phase.h"
#include "shared/implicit_gemm.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ConvArgs;
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
  // Every `stride`-th element.
  LAMINA_INLINE void strided(int64_t place, int64_t stride, int64_t count, T bias,
                             const T* sums) const {
    for (int64_t j = 0; j < count; j += kLanes<T>) {
      const int64_t some = min_of<int64_t>(kLanes<T>, count - j);
      T lanes[kLanes<T>] = {};
      if (args.epilogue.residual)
        for (int64_t i = 0; i < some; ++i)
          lanes[i] = args.epilogue.residual[place + (j + i) * stride];
      store(lanes, activate(args.epilogue, load_first(sums + j, some) + bias + load(lanes)));
      for (int64_t i = 0; i < some; ++i) args.result[place + (j + i) * stride] = lanes[i];
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
  void block(const ConvShape& s, const ConvPhase& phase, int64_t channel, int64_t rows, int64_t j,
             int64_t cols, const T* sums, int64_t step) const {
    const int64_t* out = phase.shape.out;
    for (int64_t done = 0; done < cols;) {  // runs within a row of the phase
      const int64_t at = j + done, count = min_of(out[2] - at % out[2], cols - done);
      const int64_t image = at / phase.shape.out_size(), o = at % phase.shape.out_size();
      const int64_t i2 = o % out[2] * s.stride[2] + phase.offset[2];
      const int64_t i1 = o / out[2] % out[1] * s.stride[1] + phase.offset[1];
      const int64_t i0 = o / (out[2] * out[1]) * s.stride[0] + phase.offset[0];
      for (int64_t r = 0; r < rows; ++r)
        strided((image * channels + channel + r) * plane + (i0 * s.in[1] + i1) * s.in[2] + i2,
                s.stride[2], count, args.bias ? args.bias[channel + r] : T(0),
                sums + r * step + done);
      done += count;
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
                     T* workspace) {
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
  if (plan.pack_input) {
    const int64_t panels = ceil_div(n, Tile::kCols), blocks = ceil_div(k, Tile::kBlockDepth);
    const int64_t width = whole_vectors<T>(n);
    const auto place = [&](int64_t g, int64_t j, int64_t p, int64_t depth) {
      return workspace + (g * k + p) * width + j * depth;
    };
    parallel_for(s.groups * panels * blocks, [&](int64_t task) {
      const int64_t g = task / blocks / panels, j = task / blocks % panels * Tile::kCols;
      const int64_t p = task % blocks * Tile::kBlockDepth;
      const int64_t depth = min_of(Tile::kBlockDepth, k - p);
      pack_input(g, j, min_of<int64_t>(Tile::kCols, n - j), p, depth, place(g, j, p, depth));
    });
    gemm_blocks<T>(
        s.groups, m, n, k, filters,
        [&](int64_t g, int64_t j, int64_t, int64_t p, int64_t depth, T*) -> const T* {
          return place(g, j, p, depth);
        },
        store);
  } else {
    const int64_t panels = ceil_div(m, Tile::kRows), panel_size = Tile::kRows * k;
    parallel_for(s.groups * panels, [&](int64_t task) {
      const int64_t i = task % panels * Tile::kRows;
      filters(task / panels, i, min_of<int64_t>(Tile::kRows, m - i), 0, k,
              workspace + task * panel_size);
    });
    gemm_blocks<T>(
        s.groups, m, n, k,
        [&](int64_t g, int64_t i, int64_t, int64_t p, int64_t, T*) -> const T* {
          return workspace + (g * panels + i / Tile::kRows) * panel_size + p * Tile::kRows;
        },
        pack_input, store, PlanesAhead<T>{s, x});
  }
}

template <class T>
void conv_fprop_implicit_gemm(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  const int64_t m = s.k_per_group(), k = s.c_per_group() * s.kernel_size();
  const ConvStore<T> output{args, s.k, s.out_size()};
  multiply(
      s, args.x,
      [&](int64_t g, int64_t i, int64_t rows, int64_t p, int64_t depth, T* panel) -> const T* {
        constexpr int kRows = GemmTile<T>::kRows;
        pack_panel<kRows>(args.weight + (g * m + i) * k + p, k, 1, rows, depth, panel, kRows);
        return panel;
      },
      [&](int64_t g, int64_t i, int64_t rows, int64_t j, int64_t cols, const T* sums,
          int64_t step) { output.block(g * m + i, rows, j, cols, sums, step); },
      args.workspace);
}

template <class T>
void conv_dgrad_implicit_gemm(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  constexpr int64_t kAhead = 8;  // outputs by which their scattered filters are prefetched
  const int64_t filter = s.kernel_size();
  const ConvStore<T> output{args, s.c, s.in_size()};
  for (int64_t which = 0; which < conv_phases(s); ++which) {
    const ConvPhase phase = conv_phase(s, which);
    const int64_t* kernel = phase.shape.kernel;
    const int64_t taps = phase.shape.kernel_size(), m = s.c_per_group();
    Scratch<int64_t> tap(taps);  // of the filter
    for (int64_t t = 0; t < taps; ++t)
      tap[t] = (phase.tap(0, t / (kernel[1] * kernel[2])) * s.kernel[1] +
                phase.tap(1, t / kernel[2] % kernel[1])) *
                   s.kernel[2] +
               phase.tap(2, t % kernel[2]);
    multiply(
        phase.shape, args.grad_y,
        [&](int64_t g, int64_t i, int64_t rows, int64_t p, int64_t depth, T* panel) -> const T* {
          constexpr int kRows = GemmTile<T>::kRows;
          const T* weight = args.weight + g * s.k_per_group() * m * filter + i * filter;
          if (filter == 1) {
            pack_panel<kRows>(weight + p * m, 1, m, rows, depth, panel, kRows);
            return panel;
          }
          T* line = panel;
          int64_t k = taps > 0 ? p / taps : 0, t = taps > 0 ? p % taps : 0;
          for (int64_t q = 0; q < depth; ++q, line += kRows) {
            const T* source = weight + k * m * filter + tap[t];
            if (t == 0 && k + kAhead < s.k_per_group())
              prefetch_line(weight + (k + kAhead) * m * filter, rows * filter);
            if (rows == kRows)
#pragma GCC unroll 8
              for (int64_t c = 0; c < kRows; ++c) line[c] = source[c * filter];
            else
              for (int64_t c = 0; c < kRows; ++c) line[c] = c < rows ? source[c * filter] : T(0);
            if (++t == taps) t = 0, ++k;
          }
          return panel;
        },
        [&](int64_t g, int64_t i, int64_t rows, int64_t j, int64_t cols, const T* sums,
            int64_t step) {
          if (conv_phases(s) == 1)
            output.block(g * m + i, rows, j, cols, sums, step);
          else
            output.block(s, phase, g * m + i, rows, j, cols, sums, step);
        },
        args.workspace);
  }
}

LAMINA_INSTANTIATE(conv_fprop_implicit_gemm, ConvArgs)
LAMINA_INSTANTIATE(conv_dgrad_implicit_gemm, ConvArgs)

LAMINA_CPU_NAMESPACE_END
