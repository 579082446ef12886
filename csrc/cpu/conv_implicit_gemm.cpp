// conv, implicit GEMM: the matrix products of im2col, whose unrolled input exists only as the
// panels that the product packs for itself.
//
//   fprop  y[k][o] = weight[k][c r] col[c r][o]
//   dgrad  each phase of grad_x (shared/conv_phase.h) as fprop of grad_y, stored at the stride
//   wgrad  grad_weight[k][c r] = sum over images of grad_y[k][o] col[c r][o]^T
//
// Source        Chetlur et al. 2014 (cuDNN).
// Workspace     none beyond the packed panels of a block.
// Partitioning  blocks of the product of every image and group (cpu/gemm.h).
// Numerics      as im2col; wgrad runs over all images in one sum, in order.
#include "cpu/gemm.h"
#include "cpu/im2col.h"
#include "ops/instantiate.h"
#include "shared/conv_phase.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ConvArgs;
using ops::ConvShape;

template <class T>
void conv_fprop_implicit_gemm(const ConvArgs<T>& args) {
  using Tile = GemmTile<T>;
  const ConvShape& s = args.shape;
  const int64_t m = s.k_per_group(), n = s.out_size(), k = s.c_per_group() * s.kernel_size();
  auto pack_a = [&](int64_t index, int64_t i, int64_t rows, int64_t p, int64_t depth, T* panel) {
    const T* weight = args.weight + (index % s.groups * m + i) * k + p;
    pack_panel<Tile::kRows>(weight, k, 1, rows, depth, panel);
  };
  auto pack_b = [&](int64_t index, int64_t j, int64_t cols, int64_t p, int64_t depth, T* panel) {
    const T* x =
        args.x + (index / s.groups * s.c + index % s.groups * s.c_per_group()) * s.in_size();
    for (int64_t row = 0; row < depth; ++row, panel += Tile::kCols) {
      im2col_row(s, x, p + row, j, j + cols, panel);
      for (int64_t column = cols; column < Tile::kCols; ++column) panel[column] = 0;
    }
  };
  auto write = [&](int64_t index, int64_t i, int64_t rows, int64_t j, int64_t cols, const T* tile,
                   int64_t p) {
    for (int64_t r = 0; r < rows; ++r) {
      T* y = args.result + (index * m + i + r) * n + j;
      const T bias = args.bias ? args.bias[index % s.groups * m + i + r] : T(0);
      for (int64_t c = 0; c < cols; ++c) y[c] = (p == 0 ? bias : y[c]) + tile[r * Tile::kCols + c];
    }
  };
  gemm_blocks<T>(s.n * s.groups, m, n, k, pack_a, pack_b, write);
}

// Positions [j, j + count) of the phase, flattened, as runs of one row: body(first, count, index of
// the first in a plane of grad_x).
template <class Body>
static void for_each_phase_run(const ConvShape& s, const ConvPhase& phase, int64_t j, int64_t count,
                               Body body) {
  const int64_t* out = phase.shape.out;
  for (int64_t done = 0; done < count;) {
    const int64_t at = j + done, run = min_of(out[2] - at % out[2], count - done);
    const int64_t i2 = at % out[2] * s.stride[2] + phase.offset[2];
    const int64_t i1 = at / out[2] % out[1] * s.stride[1] + phase.offset[1];
    const int64_t i0 = at / (out[2] * out[1]) * s.stride[0] + phase.offset[0];
    body(done, run, (i0 * s.in[1] + i1) * s.in[2] + i2);
    done += run;
  }
}

template <class T>
void conv_dgrad_implicit_gemm(const ConvArgs<T>& args) {
  using Tile = GemmTile<T>;
  const ConvShape& s = args.shape;
  for (int64_t which = 0; which < conv_phases(s); ++which) {
    const ConvPhase phase = conv_phase(s, which);
    const int64_t taps = phase.shape.kernel_size(), filter = s.kernel_size();
    const int64_t m = s.c_per_group(), n = phase.shape.out_size(), k = s.k_per_group() * taps;
    auto pack_a = [&](int64_t index, int64_t i, int64_t rows, int64_t p, int64_t depth, T* panel) {
      const int64_t group = index % s.groups * s.k_per_group();
      const int64_t* kernel = phase.shape.kernel;
      for (int64_t q = p; q < p + depth; ++q, panel += Tile::kRows) {
        const int64_t t = q % taps;
        const int64_t r0 = phase.tap(0, t / (kernel[1] * kernel[2]));
        const int64_t r1 = phase.tap(1, t / kernel[2] % kernel[1]);
        const int64_t r = (r0 * s.kernel[1] + r1) * s.kernel[2] + phase.tap(2, t % kernel[2]);
        const T* weight = args.weight + ((group + q / taps) * m + i) * filter + r;
        for (int64_t c = 0; c < Tile::kRows; ++c) panel[c] = c < rows ? weight[c * filter] : T(0);
      }
    };
    auto pack_b = [&](int64_t index, int64_t j, int64_t cols, int64_t p, int64_t depth, T* panel) {
      const T* grad_y = args.grad_y + index * s.k_per_group() * s.out_size();
      for (int64_t row = 0; row < depth; ++row, panel += Tile::kCols) {
        im2col_row(phase.shape, grad_y, p + row, j, j + cols, panel);
        for (int64_t column = cols; column < Tile::kCols; ++column) panel[column] = 0;
      }
    };
    auto write = [&](int64_t index, int64_t i, int64_t rows, int64_t j, int64_t cols, const T* tile,
                     int64_t p) {
      for_each_phase_run(s, phase, j, cols, [&](int64_t first, int64_t run, int64_t at) {
        for (int64_t r = 0; r < rows; ++r) {
          T* grad_x = args.result + (index * m + i + r) * s.in_size() + at;
          const T* sums = tile + r * Tile::kCols + first;
          const T bias = args.bias ? args.bias[index % s.groups * m + i + r] : T(0);
          for (int64_t c = 0; c < run; ++c) {
            T& value = grad_x[c * s.stride[2]];
            value = (p == 0 ? bias : value) + sums[c];
          }
        }
      });
    };
    gemm_blocks<T>(s.n * s.groups, m, n, k, pack_a, pack_b, write);
  }
}

template <class T>
void conv_wgrad_implicit_gemm(const ConvArgs<T>& args) {
  using Tile = GemmTile<T>;
  const ConvShape& s = args.shape;
  const int64_t m = s.k_per_group(), n = s.c_per_group() * s.kernel_size(), out = s.out_size();
  // The summed index runs over (image, o): a run of it may cross images.
  auto for_each_run = [&](int64_t p, int64_t depth, auto body) {
    for (int64_t done = 0; done < depth;) {
      const int64_t image = (p + done) / out, o = (p + done) % out;
      const int64_t count = min_of(out - o, depth - done);
      body(image, o, count, done);
      done += count;
    }
  };
  auto pack_a = [&](int64_t g, int64_t i, int64_t rows, int64_t p, int64_t depth, T* panel) {
    for_each_run(p, depth, [&](int64_t image, int64_t o, int64_t count, int64_t done) {
      const T* grad_y = args.grad_y + (image * s.k + g * m + i) * out + o;
      pack_panel<Tile::kRows>(grad_y, out, 1, rows, count, panel + done * Tile::kRows);
    });
  };
  auto pack_b = [&](int64_t g, int64_t j, int64_t cols, int64_t p, int64_t depth, T* panel) {
    Scratch<T> row(depth);
    for (int64_t column = 0; column < Tile::kCols; ++column) {
      if (column < cols)
        for_each_run(p, depth, [&](int64_t image, int64_t o, int64_t count, int64_t done) {
          const T* x = args.x + (image * s.c + g * s.c_per_group()) * s.in_size();
          im2col_row(s, x, j + column, o, o + count, row.get() + done);
        });
      for (int64_t q = 0; q < depth; ++q)
        panel[q * Tile::kCols + column] = column < cols ? row[q] : T(0);
    }
  };
  auto write = [&](int64_t g, int64_t i, int64_t rows, int64_t j, int64_t cols, const T* tile,
                   int64_t p) {
    for (int64_t r = 0; r < rows; ++r) {
      T* grad_weight = args.result + (g * m + i + r) * n + j;
      for (int64_t c = 0; c < cols; ++c)
        grad_weight[c] = (p == 0 ? T(0) : grad_weight[c]) + tile[r * Tile::kCols + c];
    }
  };
  gemm_blocks<T>(s.groups, m, n, s.n * out, pack_a, pack_b, write);
}

LAMINA_INSTANTIATE(conv_fprop_implicit_gemm, ConvArgs)
LAMINA_INSTANTIATE(conv_dgrad_implicit_gemm, ConvArgs)
LAMINA_INSTANTIATE(conv_wgrad_implicit_gemm, ConvArgs)

LAMINA_CPU_NAMESPACE_END
