// conv, winograd and its kin (conv_winograd.cpp): the gradient of the weights.
//
//   dU[e][k][c] = sum over tiles t of (A dy A^T)[e][k][t] V[e][c][t], grad_weight = G^T dU G
//
// Method        The tiles are the depth of the products: V and A dy A^T are written as their packed
//               panels. Where all tiles are one block, a task multiplies all elements e of some
//               filters and transforms the sums back at once. Otherwise a task adds the products of
//               a block for one element to dU, so that what it reads stays in L2.
// Partitioning  the transforms: 16 tiles, 16 channels. The products: a panel of inputs and
//               kTaskRows outputs, or an element and twice as many outputs.
// Workspace     blocks of V and A dy A^T, and dU (shared/winograd_blocks.h).
// Numerics      sums in runs of kGradientRun tiles, the runs of a block in order, the blocks in
//               order.
// Floor         the products at the FMA peak; of several blocks, dU is read and written for each.
#include "cpu/winograd.h"
#include "ops/instantiate.h"
#include "shared/conv_phase.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ConvArgs;
using winograd::Blocks;
using winograd::kSkew;

inline constexpr int64_t kGradientRun = 64;  // products in registers at a stretch

// Lines [line, line + kLanes) of kLanes tiles, `elements` [line][e], into panels
// [e][line / wide][tile][wide], elements e_step apart, by transposing squares. The last panel is
// narrower: there are `lines` in all. Run divides the width of every panel.
template <class Tile, int Run, class T>
static void store_lines(const Vec<T> (&elements)[kLanes<T>][Tile::kElements], int64_t wide,
                        int64_t line, int64_t lines, int64_t tile, int64_t tiles, T* panels,
                        int64_t e_step) {
  for (int e = 0; e < Tile::kElements; ++e, panels += e_step) {
    Vec<T> square[kLanes<T>];
    for (int i = 0; i < kLanes<T>; ++i) square[i] = elements[i][e];
    transpose<T>(square);
    for (int first = 0; first < kLanes<T> && line + first < lines; first += Run) {
      const int64_t panel = (line + first) / wide * wide;
      const int64_t width = min_of(wide, lines - panel);
      T* place = panels + panel * tiles + tile * width + line + first - panel;
      for (int i = 0; i < kLanes<T>; ++i, place += width)
        __builtin_memcpy(place, reinterpret_cast<const T*>(&square[i]) + first, sizeof(T) * Run);
    }
  }
}

// panels[e][group][line / wide][tile][wide] of `lines` planes a group and tiles [begin, begin +
// count), zero padded to `padded` lines and `tiles` tiles. Rows (TileRows, OutputRows) transforms
// a line's planes_of(line).
template <class Tile, class Rows, int Run, class T, class PlanesOf>
static void transform_lines(const PlaneShape& s, const Blocks& blocks, int64_t wide, int64_t lines,
                            int64_t padded, int64_t begin, int64_t count, int64_t tiles,
                            const PlanesOf& planes_of, T* panels, int64_t e_step) {
  const int64_t chunks = ceil_div(padded, kLanes<T>);
  parallel_for(tiles / kLanes<T> * s.groups * chunks, [&](int64_t task) {
    const int64_t tile = task / (s.groups * chunks) * kLanes<T>, g = task / chunks % s.groups;
    const int64_t line = task % chunks * kLanes<T>;
    const TileRuns runs(blocks, begin + tile, min_of<int64_t>(count - tile, kLanes<T>));
    Vec<T> elements[kLanes<T>][Tile::kElements];
    Rows rows;
    const int64_t first = g * lines + line;
    for (int64_t i = 0; i < kLanes<T>; ++i)
      if (line + i < lines) {
        if (line + i + kAhead < lines) Rows::prefetch(s, runs, planes_of(first + i + kAhead));
        rows.fill(s, runs, planes_of(first + i));
        rows.across(0, elements[i]);
      } else {
        for (int e = 0; e < Tile::kElements; ++e) elements[i][e] = Vec<T>{};
      }
    store_lines<Tile, Run, T>(elements, wide, line, padded, tile, tiles,
                              panels + g * padded * tiles, e_step);
  });
}

// G^T dU G of up to kLanes neighbouring filters, or parts of filters, from number `filter` on:
// du[e][count], elements e_step apart.
template <class Tile, class T>
static void store_filter_gradients(const PlaneShape& s, const T* du, int64_t e_step, int64_t filter,
                                   int64_t count, T* grad_weight) {
  constexpr int kTaps = Tile::kTaps, kFilterRows = Tile::kFilterRows;
  constexpr int kFilterColumns = Tile::kFilterColumns;
  Vec<T> half_done[Tile::kInRows][kFilterColumns];
  for (int i = 0; i < Tile::kInRows; ++i) {
    Vec<T> line[Tile::kInColumns];
    for (int j = 0; j < Tile::kInColumns; ++j)
      line[j] = load_first(du + (i * Tile::kInColumns + j) * e_step, count);
    winograd::filter_gradient_line(line, half_done[i]);
  }
  constexpr int kSquares = (kTaps + kLanes<T> - 1) / kLanes<T>;
  Vec<T> taps[kSquares * kLanes<T>] = {};
  for (int j = 0; j < kFilterColumns; ++j) {
    Vec<T> column[Tile::kInRows], line[kFilterRows];
    for (int i = 0; i < Tile::kInRows; ++i) column[i] = half_done[i][j];
    winograd::filter_gradient_line(column, line);
    for (int i = 0; i < kFilterRows; ++i) taps[i * kFilterColumns + j] = line[i];
  }
  // Taps of a filter as vectors; the next filter covers the rest of a single one.
  for (int first = 0; first < kTaps; first += kLanes<T>) {
    Vec<T> square[kLanes<T>];
    for (int r = 0; r < kLanes<T>; ++r) square[r] = taps[first + r];
    transpose<T>(square);
    for (int64_t lane = 0; Tile::kOneAxis && lane < count; ++lane) {
      const int64_t part = (filter + lane) % s.parts * kTaps, tap = part + first;
      store_first(grad_weight + (filter + lane) / s.parts * s.taps + tap,
                  min_of<int64_t>(part + kTaps, s.taps) - tap, square[lane]);
    }
    for (int64_t lane = 0; !Tile::kOneAxis && lane < count; ++lane)
      store_first(grad_weight + (filter + lane) * kTaps + first,
                  kSquares == 1 && lane + 1 < count ? kLanes<T> : kTaps - first, square[lane]);
  }
}

// The transformed inputs v and output gradients z of a block of tiles, and where they lie:
// v[e][group][line / wide][tile][wide], z[e][group][output / kRows][tile][kRows].
template <class T>
struct GradientBlock {
  int64_t tiles, wide;                  // in whole vectors; inputs of a panel
  int64_t rows_padded, columns_padded;  // outputs and inputs of a group
  int64_t v_step, z_step;               // between elements
  const T *v, *z;

  // sums[row - k0][width] = the products of element e for outputs [k0, k1) and the panel of inputs
  // from c0 on, in runs: what a run takes of v stays in L1.
  template <int64_t Run>
  LAMINA_INLINE void multiply(int64_t e, int64_t g, int64_t k0, int64_t k1, int64_t c0,
                              T* sums) const {
    constexpr int kRows = GemmTile<T>::kRows;
    const int64_t width = min_of(wide, columns_padded - c0);
    const T* a = z + e * z_step + g * rows_padded * tiles;
    const T* b = v + e * v_step + (g * columns_padded + c0) * tiles;
    for (int64_t p = 0; p == 0 || p < tiles; p += Run)
      for (int64_t k = k0; k < k1; k += kRows)
        gemm_panels(min_of(Run, tiles - p), width, a + k * tiles + p * kRows, b + p * width,
                    sums + (k - k0) * width, width, p > 0);
  }
};

// grad_weight of all tiles, which are one block: the sums of a task are transformed back at once.
template <class Tile, class T>
static void finish_gradient(const PlaneShape& s, const GradientBlock<T>& block, T* grad_weight) {
  constexpr int kRows = GemmTile<T>::kRows;
  const int64_t outputs = s.k_per_group(), inputs = s.c_per_group();
  const int64_t col_panels = ceil_div(inputs, block.wide);
  int64_t task_rows = ceil_div(kTaskRows, kRows) * kRows;
  while (task_rows > kRows && s.groups * col_panels * ceil_div(outputs, task_rows) < kFewTasks)
    task_rows = ceil_div(task_rows / 2, kRows) * kRows;
  const int64_t row_tasks = ceil_div(outputs, task_rows);
  parallel_for(s.groups * col_panels * row_tasks, [&](int64_t task) {
    const int64_t g = task / row_tasks / col_panels,
                  c0 = task / row_tasks % col_panels * block.wide;
    const int64_t k0 = task % row_tasks * task_rows, k1 = min_of(outputs, k0 + task_rows);
    const int64_t width = min_of(block.wide, block.columns_padded - c0);
    const int64_t e_step = ceil_div(k1 - k0, kRows) * kRows * width + kSkew;
    Scratch<T> sums(Tile::kElements * e_step);
    for (int e = 0; e < Tile::kElements; ++e)
      block.template multiply<kGradientRun>(e, g, k0, k1, c0, &sums[e * e_step]);
    for (int64_t k = k0; k < k1; ++k)
      for (int64_t j = 0; j < min_of(width, inputs - c0); j += kLanes<T>)
        store_filter_gradients<Tile>(s, &sums[(k - k0) * width + j], e_step,
                                     (g * outputs + k) * inputs + c0 + j,
                                     min_of<int64_t>(kLanes<T>, inputs - c0 - j), grad_weight);
  });
}

// du[e][group][output][input], padded, = or += (add) the sums of a block. A task has one element:
// its tiles are read a few times only.
template <class Tile, class T>
static void add_gradient(const PlaneShape& s, const GradientBlock<T>& block, bool add, T* du,
                         int64_t du_step) {
  constexpr int kRows = GemmTile<T>::kRows;
  const int64_t most = ceil_div(2 * kTaskRows, kRows) * kRows;
  const int64_t outputs = s.k_per_group(), row_tasks = ceil_div(outputs, most);
  parallel_for(Tile::kElements * s.groups * row_tasks, [&](int64_t task) {
    const int64_t e = task / (s.groups * row_tasks), g = task / row_tasks % s.groups;
    const int64_t k0 = task % row_tasks * most, k1 = min_of(outputs, k0 + most);
    Scratch<T> sums(most * block.wide);
    for (int64_t c0 = 0; c0 < block.columns_padded; c0 += block.wide) {
      const int64_t width = min_of(block.wide, block.columns_padded - c0);
      block.template multiply<kGradientRun>(e, g, k0, k1, c0, sums.get());
      T* place = du + e * du_step + (g * block.rows_padded + k0) * block.columns_padded + c0;
      for (int64_t k = 0; k < k1 - k0; ++k, place += block.columns_padded)
        for (int64_t j = 0; j < width; j += kLanes<T>) {
          const Vec<T> sum = load(&sums[k * width + j]);
          store(place + j, add ? load(place + j) + sum : sum);
        }
    }
  });
}

template <class Tile, class T>
static void weight_gradient(const ConvArgs<T>& args) {
  constexpr int kRows = GemmTile<T>::kRows, kCols = GemmTile<T>::kCols;
  constexpr int kRowRun = static_cast<int>(greatest_divisor(kRows, kLanes<T>));
  const PlaneShape s = plane_shape<Tile>(args.shape);
  const Blocks blocks(s, Tile::kOutRows, Tile::kOutColumns);
  const int64_t outputs = s.k_per_group(), inputs = s.c_per_group();
  GradientBlock<T> block;
  block.rows_padded = ceil_div(outputs, kRows) * kRows;
  block.columns_padded = whole_vectors<T>(inputs);
  const int64_t vectors = block.columns_padded / kLanes<T>;  // in panels of about the same width
  block.wide = ceil_div(vectors, ceil_div(inputs, kCols)) * kLanes<T>;
  block.v_step = s.groups * block.columns_padded * blocks.block + kSkew;
  block.z_step = s.groups * block.rows_padded * blocks.block + kSkew;
  const int64_t du_step = s.groups * block.rows_padded * block.columns_padded + kSkew;
  T *v = args.workspace, *z = v + blocks.input_elements, *du = z + blocks.output_gradient_elements;
  block.v = v, block.z = z;
  const bool at_once = blocks.all <= blocks.block;
  for (int64_t begin = 0; begin == 0 || begin < blocks.all; begin += blocks.block) {
    const int64_t count = min_of(blocks.block, blocks.all - begin);
    block.tiles = whole_vectors<T>(count);
    transform_lines<Tile, TileRows<Tile, T>, kLanes<T>>(
        s, blocks, block.wide, inputs, block.columns_padded, begin, count, block.tiles,
        [&](int64_t c) { return input_planes(s, args.x, c); }, v, block.v_step);
    transform_lines<Tile, OutputRows<Tile, T>, kRowRun>(
        s, blocks, kRows, outputs, block.rows_padded, begin, count, block.tiles,
        [&](int64_t k) { return output_planes(s, args.grad_y, k); }, z, block.z_step);
    if (at_once) return finish_gradient<Tile>(s, block, args.result);
    add_gradient<Tile>(s, block, begin > 0, du, du_step);
  }
  parallel_for(s.k, [&](int64_t k) {
    const T* row = du + (k / outputs * block.rows_padded + k % outputs) * block.columns_padded;
    for (int64_t c = 0; c < inputs; c += kLanes<T>)
      store_filter_gradients<Tile>(s, row + c, du_step, k * inputs + c,
                                   min_of<int64_t>(kLanes<T>, inputs - c), args.result);
  });
}

#define LAMINA_WINOGRAD(algo, ...)                    \
  template <class T>                                  \
  void conv_wgrad_##algo(const ConvArgs<T>& args) {   \
    weight_gradient<WinogradTile<__VA_ARGS__>>(args); \
  }                                                   \
  LAMINA_INSTANTIATE(conv_wgrad_##algo, ConvArgs)

LAMINA_WINOGRAD(winograd, 2, 2)
LAMINA_WINOGRAD(winograd2x4, 2, 4)
LAMINA_WINOGRAD(winograd4, 4, 4)
LAMINA_WINOGRAD(winograd5x5, 2, 2, 5)

template <class T>
void conv_wgrad_winograd1d(const ConvArgs<T>& args) {
  with_line_tile(args.shape, [&](auto tile) { weight_gradient<decltype(tile)>(args); });
}
LAMINA_INSTANTIATE(conv_wgrad_winograd1d, ConvArgs)

LAMINA_CPU_NAMESPACE_END
