// conv, implicit_gemm_bf16x6, _bf16x3 and _bf16: the matrix products of cpu/conv_implicit_gemm.cpp
// on the tile unit of AMX (cpu/gemm_split.h). float64 has no such kernel and runs on cpu/gemm.h.
//
//   fprop  y[k][o] = weight[k][c r] col[c r][o], positions o of all images
//   dgrad  the same of grad_y, with the filters turned by 180 degrees and k, c swapped
//   wgrad  grad_weight[k][c r] = sum over the positions of grad_y[k][o] col[c r][o]^T
//
// Method        fprop and dgrad: one product for every part (shared/conv_parts.h).
// Workspace     the split filters of a part or, where positions are few, its split input; partial
//               sums of wgrad where weights are few (shared/implicit_gemm.h).
// Partitioning  blocks of the product of every group; wgrad also parts of the positions, whose sums
//               are added in order.
// Numerics      sums over (c, r), or positions, in runs of kBlockDepth, the runs in order.
// Floor         that of cpu/gemm_split.h; the unrolled input is packed and split once for up to 512
//               filters, and wgrad transposes and splits both operands for every block.
#include "cpu/add_parts.h"
#include "cpu/conv_parts.h"
#include "cpu/gemm_split.h"
#include "ops/instantiate.h"
#include "shared/implicit_gemm.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ConvArgs;
using ops::ConvPass;
using ops::ConvShape;

// Products of `pieces` bfloat16 pieces, see split_blocks.
template <class T, class Rows, class Columns, class RowLines, class ColumnLines, class Store>
static void split_products(int pieces, int64_t batch, int64_t m, int64_t n, int64_t k,
                           const Rows& rows_of, const Columns& columns_of,
                           [[maybe_unused]] const RowLines& row_lines,
                           [[maybe_unused]] const ColumnLines& column_lines, const Store& store,
                           [[maybe_unused]] const SplitShare& share = {}) {
  if constexpr (sizeof(T) == sizeof(float))
    split_blocks(pieces, batch, m, n, k, rows_of, columns_of, row_lines, column_lines, store,
                 share);
  else
    gemm_blocks<T>(batch, m, n, k, rows_of, columns_of, store);
}

// Whether columns of the unrolled input are positions of x.
static bool is_flat(const ConvShape& s) {
  for (int axis = 0; axis < 3; ++axis)
    if (s.kernel[axis] != 1 || s.stride[axis] != 1 || s.pad[axis] != 0 || s.in[axis] != s.out[axis])
      return false;
  return true;
}
static void join_axes(int64_t (&size)[3]) {
  size[2] *= size[1] * size[0], size[0] = size[1] = 1;
}

// Lines [count][step] of filters from (input, tap) p on: input_step and output_step lie between
// filters, and tap t is the tap[t]-th of `filter` values.
template <class T>
static void gather_taps(const T* weight, int64_t input_step, int64_t output_step, int64_t filter,
                        const int64_t* tap, int64_t taps, int64_t p, int64_t count, int64_t depth,
                        int64_t step, T* memory) {
  const bool fits = filter <= kLanes<T>;
  const Lanes<T> lanes(0, fits ? filter : 0);
  Mask<T> order{};
  for (int64_t t = 0; fits && t < taps; ++t) order[t] = static_cast<LaneInteger<T>>(tap[t]);
  const int64_t first_input = p / taps, first_tap = p % taps;
  const auto gather = [&](int64_t q, int64_t input, int64_t from, int64_t row) {
    const T* source = weight + input * input_step + row * output_step;
    T* line = memory + row * step + q;
    if (fits && from == 0)  // what the store leaves beyond the taps is overwritten, or not used
      return store(line, __builtin_shuffle(lanes.load(source), order));
    for (int64_t t = 0; t < min_of(taps - from, depth - q); ++t) line[t] = source[tap[from + t]];
  };
  const auto inputs = [&](const auto& body) {
    int64_t input = first_input, from = first_tap;
    for (int64_t q = 0; q < depth; q += taps - from, from = 0, ++input) body(q, input, from);
  };
  if (input_step < output_step) {
    for (int64_t row = 0; row < count; ++row)
      inputs([&](int64_t q, int64_t input, int64_t from) { gather(q, input, from, row); });
    return;
  }
  constexpr int64_t kAhead = 8;  // inputs by which their scattered filters are fetched
  inputs([&](int64_t q, int64_t input, int64_t from) {
    if (q + kAhead * taps < depth)
      prefetch_line(weight + (input + kAhead) * input_step, count * output_step);
    for (int64_t row = 0; row < count; ++row) gather(q, input, from, row);
  });
}

// fprop or dgrad of x, which has `inputs` channels a group, to `outputs`.
template <class T>
static void convolve(const ConvArgs<T>& args, int pieces, ConvPass pass, const T* x) {
  using Tile = GemmTile<T>;
  const ConvShape& s = args.shape;
  const bool forward = pass == ConvPass::fprop;
  const int64_t m = forward ? s.k_per_group() : s.c_per_group();
  const int64_t inputs = forward ? s.c_per_group() : s.k_per_group(), filter = s.kernel_size();
  const int64_t output_step = forward ? inputs * filter : filter;  // in the weights
  const int64_t input_step = forward ? filter : m * filter;
  for_each_part(pass, s, [&](const ConvPart& part) {
    ConvPart stored = part;
    int64_t size[3] = {1, 1, 1};  // of a plane of the result
    bool whole = true;
    for (int axis = 0; axis < 3; ++axis) {
      size[axis] = forward ? s.out[axis] : s.in[axis];
      whole &= part.shape.out[axis] == size[axis];
    }
    if (whole) join_axes(stored.shape.out), join_axes(size);
    ConvShape shape = part.shape;
    const bool flat = is_flat(shape);
    if (flat) join_axes(shape.in), join_axes(shape.out);
    const ImplicitGemm plan(shape);
    const int64_t taps = shape.kernel_size();
    Scratch<int64_t> tap(taps);  // of the filter
    for (int64_t t = 0; t < taps; ++t) {
      const int64_t t2 = t % shape.kernel[2], t1 = t / shape.kernel[2] % shape.kernel[1];
      const int64_t t0 = t / (shape.kernel[2] * shape.kernel[1]);
      tap[t] = (part.tap(0, t0) * s.kernel[1] + part.tap(1, t1)) * s.kernel[2] + part.tap(2, t2);
    }
    const auto rows_of = [&](int64_t g, int64_t i, int64_t rows, int64_t p, int64_t depth,
                             T* panel) -> const T* {
      constexpr int kRows = Tile::kRows;
      const T* weight = args.weight + g * m * inputs * filter + i * output_step;
      if (taps == 1 || (forward && taps == filter)) {
        const bool one = taps == 1;
        pack_panel<kRows>(one ? weight + p * input_step + tap[0] : weight + p, output_step,
                          one ? input_step : 1, rows, depth, panel, kRows);
        return panel;
      }
      T* line = panel;
      for (int64_t q = p; q < p + depth; ++q, line += kRows) {
        const T* source = weight + q / taps * input_step + tap[q % taps];
        for (int64_t c = 0; c < kRows; ++c) line[c] = c < rows ? source[c * output_step] : T(0);
      }
      return panel;
    };
    const auto row_lines = [&](int64_t g, int64_t i, int64_t count, int64_t p, int64_t depth,
                               T* memory) -> FactorLines<T> {
      const T* weight = args.weight + g * m * inputs * filter + i * output_step;
      if (forward && taps == filter) return {weight + p, output_step, depth};
      if (filter == 1) return {weight + p * input_step, input_step, depth, true};
      if (!memory) return {};
      const int64_t step = whole_vectors<T>(depth) + kLanes<T>;
      gather_taps(weight, input_step, output_step, filter, tap.get(), taps, p, count, depth, step,
                  memory);
      return {memory, step, depth};
    };
    const auto columns_of = [&](int64_t g, int64_t j, int64_t cols, int64_t p, int64_t depth,
                                T* panels) -> const T* {
      const T* group = x + g * inputs * shape.in_size();
      const Im2colRuns<T, Tile::kBlockCols, Tile::kCols> runs(
          shape, group, s.groups * inputs * shape.in_size(), j, cols);
      runs.pack(p, depth, panels);
      return panels;
    };
    const auto column_lines = [&](int64_t g, int64_t j, int64_t cols, int64_t p, int64_t depth,
                                  T*) -> FactorLines<T> {
      const int64_t plane = shape.in_size(), image = j / plane, at = j % plane;
      if (!flat) return {};
      if (at + cols > plane) return {nullptr, 0, 0, false, kSplitSide};
      return {x + ((image * s.groups + g) * inputs + p) * plane + at, plane, depth, true};
    };
    const auto store = [&](int64_t g, int64_t i, int64_t rows, int64_t j, int64_t cols,
                           const T* sums, int64_t step) {
      store_part(args, stored, size, s.groups * m, g * m + i, rows, j, cols, sums, step);
    };
    SplitShare share;
    (plan.pack_input ? share.columns : share.rows).words = args.workspace;
    if (args.packed) share.rows = {args.packed->data, !plan.pack_input, args.packed->ready};
    split_products<T>(pieces, s.groups, m, plan.positions, plan.depth, rows_of, columns_of,
                      row_lines, column_lines, store, share);
  });
  if (args.packed) args.packed->ready = true;
}

// Panels [position][kCols] of positions [p, p + depth) and columns (c, r) from j on: rows of the
// unrolled input, transposed.
template <class T>
static void pack_positions(const ConvShape& s, const T* x, int64_t j, int64_t cols, int64_t p,
                           int64_t depth, int64_t panel_depth, T* panels) {
  constexpr int kDepth = GemmTile<T>::kBlockDepth, kCols = GemmTile<T>::kCols;
  const Im2colRuns<T, kDepth, kDepth> runs(s, x, s.c * s.in_size(), p, depth);
  alignas(64) T rows[kLanes<T> * kDepth];
  for (int64_t first = 0; first < cols; first += kLanes<T>) {
    const int64_t some = min_of<int64_t>(kLanes<T>, cols - first), panel = first / kCols * kCols;
    const int64_t width = min_of<int64_t>(kCols, whole_vectors<T>(cols - panel));
    runs.pack(j + first, some, rows);
    pack_panel<kLanes<T>>(rows, whole_vectors<T>(depth), 1, some, depth,
                          panels + panel * panel_depth + first - panel, width);
  }
}

template <class T>
static void weight_gradient(const ConvArgs<T>& args, int pieces) {
  using Tile = GemmTile<T>;
  const ConvShape& s = args.shape;
  const int64_t m = s.k_per_group(), n = s.c_per_group() * s.kernel_size(), out = s.out_size();
  const SplitGradient plan(s);
  const int64_t weights = s.groups * m * n;
  // The batch of products is (part, group): part q sums the positions from q * plan.positions on.
  const auto first_of = [&](int64_t index) { return index / s.groups * plan.positions; };
  const auto rows_of = [&](int64_t index, int64_t i, int64_t rows, int64_t p, int64_t depth,
                           T* panel) -> const T* {
    const int64_t g = index % s.groups, end = min_of(s.n * out, first_of(index) + p + depth);
    T* line = panel;
    for (int64_t at = first_of(index) + p; at < end;) {  // runs within an image
      const int64_t image = at / out, o = at % out, count = min_of(out - o, end - at);
      pack_panel<Tile::kRows>(args.grad_y + (image * s.k + g * m + i) * out + o, out, 1, rows,
                              count, line, Tile::kRows);
      at += count, line += count * Tile::kRows;
    }
    for (; line < panel + depth * Tile::kRows; ++line) *line = 0;  // the last part is shorter
    return panel;
  };
  const auto columns_of = [&](int64_t index, int64_t j, int64_t cols, int64_t p, int64_t depth,
                              T* panels) -> const T* {
    const T* x = args.x + index % s.groups * s.c_per_group() * s.in_size();
    const int64_t first = first_of(index) + p;
    const int64_t some = max_of<int64_t>(min_of(depth, s.n * out - first), 0);
    if (some < depth)  // the last part is shorter
      for (int64_t q = 0; q < depth * whole_vectors<T>(cols); ++q) panels[q] = 0;
    if (some > 0) pack_positions(s, x, j, cols, first, some, depth, panels);
    return panels;
  };
  const auto row_lines = [&](int64_t index, int64_t i, int64_t count, int64_t p, int64_t depth,
                             T* memory) -> FactorLines<T> {
    const int64_t at = first_of(index) + p, end = min_of(s.n * out, at + depth);
    const T* grad_y = args.grad_y + (index % s.groups * m + i) * out;
    if (at / out == (end - 1) / out)
      return {grad_y + at / out * s.k * out + at % out, out, end - at};
    if (!memory) return {};
    for (int64_t row = 0; row < count; ++row, grad_y += out)
      for (int64_t q = at; q < end;) {  // runs within an image
        const int64_t some = min_of(out - q % out, end - q);
        __builtin_memcpy(memory + row * depth + q - at, grad_y + q / out * s.k * out + q % out,
                         sizeof(T) * some);
        q += some;
      }
    return {memory, depth, end - at};
  };
  const bool flat = is_flat(s);
  const auto column_lines = [&](int64_t index, int64_t j, int64_t cols, int64_t p, int64_t depth,
                                T* memory) -> FactorLines<T> {
    constexpr int kDepth = Tile::kBlockDepth;
    const T* x = args.x + index % s.groups * s.c_per_group() * s.in_size();
    const int64_t first = first_of(index) + p, some = min_of(depth, s.n * out - first);
    if (flat && some > 0 && first / out == (first + some - 1) / out)
      return {x + (first / out * s.c + j) * out + first % out, out, some};
    if (!memory) return {};
    if (some > 0)
      Im2colRuns<T, kDepth, kDepth>(s, x, s.c * s.in_size(), first, some).pack(j, cols, memory);
    return {memory, whole_vectors<T>(max_of<int64_t>(some, 0)), some};
  };
  T* sums_of_parts = plan.parts > 1 ? args.workspace : args.result;
  const auto store_block = [&](int64_t index, int64_t i, int64_t rows, int64_t j, int64_t cols,
                               const T* sums, int64_t step) {
    T* place = sums_of_parts + index / s.groups * weights + (index % s.groups * m + i) * n + j;
    for (int64_t r = 0; r < rows; ++r, place += n, sums += step)
      for (int64_t q = 0; q < cols; q += kLanes<T>)
        store_first(place + q, cols - q, load(sums + q));
  };
  const int64_t products = plan.parts * s.groups;
  split_products<T>(pieces, products, m, n, plan.positions, rows_of, columns_of, row_lines,
                    column_lines, store_block);
  if (plan.parts > 1) add_parts<T>(sums_of_parts, plan.parts, weights, args.result);
}

#define LAMINA_SPLIT_CONV(algo, pieces)                   \
  template <class T>                                      \
  void conv_fprop_##algo(const ConvArgs<T>& args) {       \
    convolve(args, pieces, ConvPass::fprop, args.x);      \
  }                                                       \
  template <class T>                                      \
  void conv_dgrad_##algo(const ConvArgs<T>& args) {       \
    convolve(args, pieces, ConvPass::dgrad, args.grad_y); \
  }                                                       \
  template <class T>                                      \
  void conv_wgrad_##algo(const ConvArgs<T>& args) {       \
    weight_gradient(args, pieces);                        \
  }                                                       \
  LAMINA_INSTANTIATE(conv_fprop_##algo, ConvArgs)         \
  LAMINA_INSTANTIATE(conv_dgrad_##algo, ConvArgs)         \
  LAMINA_INSTANTIATE(conv_wgrad_##algo, ConvArgs)
LAMINA_SPLIT_CONV(implicit_gemm_bf16x6, 3)
LAMINA_SPLIT_CONV(implicit_gemm_bf16x3, 2)
LAMINA_SPLIT_CONV(implicit_gemm_bf16, 1)

LAMINA_CPU_NAMESPACE_END
