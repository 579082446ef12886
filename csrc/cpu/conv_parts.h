// The implicit GEMM of a convolution in parts (shared/conv_parts.h).
//
// Method        All filters are packed once, if they are not yet, [panel][tap][channel][kRows]. A
// task takes a block of
//               output positions of a part and adds up the products of one tap after the other,
//               each with the channels as its depth. Positions that a stride separates are stored
//               at it.
// Partitioning  part, block of positions, block of output channels.
// Numerics      sums over the channels of a tap in runs of kBlockDepth, the runs and taps in order.
// Floor         the FMA peak for the products of taps inside the input.
#pragma once

#include "cpu/activate.h"
#include "cpu/gemm.h"
#include "cpu/im2col.h"
#include "shared/conv_parts.h"

LAMINA_CPU_NAMESPACE_BEGIN

// Stores rows of sums, as epilogue(sums + bias), at positions [j, j + cols) of a part of all
// images.
template <class T>
static void store_part(const ops::ConvArgs<T>& args, const ConvPart& part, const int64_t (&size)[3],
                       int64_t channels, int64_t channel, int64_t rows, int64_t j, int64_t cols,
                       const T* sums, int64_t step) {
  const int64_t* out = part.shape.out;
  const int64_t spacing = part.stride[2], plane = size[0] * size[1] * size[2];
  for (int64_t r = 0; r < rows; ++r, sums += step) {
    const Vec<T> bias = broadcast(args.bias ? args.bias[channel + r] : T(0));
    int64_t o2 = j % out[2], o1 = j / out[2] % out[1], o0 = j / (out[2] * out[1]) % out[0];
    int64_t image = j / part.shape.out_size();
    for (int64_t done = 0; done < cols;) {  // runs within a row
      const int64_t count = min_of(out[2] - o2, cols - done);
      const int64_t i0 = part.offset[0] + o0 * part.stride[0];
      const int64_t i1 = part.offset[1] + o1 * part.stride[1];
      const int64_t place =
          (((image * channels + channel + r) * size[0] + i0) * size[1] + i1) * size[2] +
          part.offset[2] + o2 * spacing;
      for (int64_t at = 0; at < count; at += kLanes<T>) {
        Vec<T> sum = load_first(sums + done + at, count - at) + bias;
        const int64_t to = place + at * spacing;
        for (int64_t line = 0; line < spacing; ++line)  // of the channel after the next one
          __builtin_prefetch(args.result + to + 2 * plane + line * kLanes<T>, 1);
        if (args.epilogue.residual)
          sum += load_spaced(args.epilogue.residual + to, spacing, 0, count - at);
        store_spaced(args.result + to, spacing, count - at, activate(args.epilogue, sum));
      }
      done += count, o2 += count;
      if (o2 < out[2]) continue;
      o2 = 0;
      if (++o1 < out[1]) continue;
      o1 = 0;
      if (++o0 == out[0]) o0 = 0, ++image;
    }
  }
}

// A part and how its product is cut into tasks.
struct PartTasks {
  ConvPart part;
  int64_t positions, blocks_n, first;  // of all images; blocks of them; tasks before
};

// pack(group, task, panels) is a task of pack_tasks that pack the filters of a group as
// [panel][tap][channel][kRows]; x is the input of the products, of `inputs` channels a group.
template <class T, class Pack>
static void multiply_parts(const ops::ConvArgs<T>& args, ops::ConvPass pass, const T* x,
                           int64_t pack_tasks, const Pack& pack) {
  using Tile = GemmTile<T>;
  constexpr int kRows = Tile::kRows;
  constexpr int64_t kFewTasks = 8;
  const ops::ConvShape& s = args.shape;
  const bool forward = pass == ops::ConvPass::fprop;
  const int64_t m = forward ? s.k_per_group() : s.c_per_group();
  const int64_t inputs = forward ? s.c_per_group() : s.k_per_group();
  const int64_t taps = s.kernel_size(), panels = ceil_div(m, kRows);
  const int64_t panel_size = kRows * inputs * taps;
  T* const packed = args.packed ? args.packed->data : args.workspace;
  parallel_for(args.packed && args.packed->ready ? 0 : s.groups * pack_tasks, [&](int64_t task) {
    const int64_t g = task / pack_tasks;
    pack(g, task % pack_tasks, packed + g * panels * panel_size);
  });
  if (args.packed) args.packed->ready = true;
  const int64_t count = count_parts(pass, s);
  Scratch<PartTasks> parts(count);
  int64_t tasks = 0, rows_of_block = min_of(Tile::kBlockRows, panels * kRows);
  int64_t cols_of_block = Tile::kBlockCols;
  const auto cut = [&] {
    int64_t index = 0;
    tasks = 0;
    for_each_part(pass, s, [&](const ConvPart& part) {
      PartTasks& entry = parts[index++];
      entry.part = part, entry.positions = part.shape.n * part.shape.out_size();
      entry.blocks_n = ceil_div(entry.positions, cols_of_block), entry.first = tasks;
      tasks += s.groups * entry.blocks_n * ceil_div(m, rows_of_block);
    });
  };
  cut();
  while (tasks < kFewTasks && (cols_of_block > Tile::kBlockCols / 2 || rows_of_block > 4 * kRows)) {
    if (cols_of_block > Tile::kBlockCols / 2)
      cols_of_block = Tile::kBlockCols / 2;
    else
      rows_of_block = ceil_div(rows_of_block / 2, kRows) * kRows;
    cut();
  }
  const int64_t channels = inputs * (forward ? s.in_size() : s.out_size());
  parallel_for(tasks, [&](int64_t task) {
    int64_t which = 0;
    while (which + 1 < count && parts[which + 1].first <= task) ++which;
    const ConvPart& part = parts[which].part;
    const ops::ConvShape& shape = part.shape;
    const int64_t blocks_n = parts[which].blocks_n, blocks_m = ceil_div(m, rows_of_block);
    const int64_t inside = task - parts[which].first, g = inside / (blocks_n * blocks_m);
    // Blocks of about the same width.
    const int64_t all = ceil_div(parts[which].positions, Tile::kCols), block = inside % blocks_n;
    const int64_t j0 = all * block / blocks_n * Tile::kCols;
    const int64_t j1 = min_of(all * (block + 1) / blocks_n * Tile::kCols, parts[which].positions);
    const int64_t i0 = inside / blocks_n % blocks_m * rows_of_block,
                  i1 = min_of(m, i0 + rows_of_block);
    const int64_t cols = j1 - j0, step = whole_vectors<T>(cols);
    const int64_t most = max_of<int64_t>(min_of(Tile::kBlockDepth, inputs), 1);
    Scratch<T> sums(ceil_div(i1 - i0, kRows) * kRows * step), b_panels(step * most);
    const Im2colRuns<T, Tile::kBlockCols, Tile::kCols> runs(shape, x + g * channels,
                                                            s.groups * channels, j0, cols);
    bool add = false;
    const auto add_products = [&](const int64_t (&r)[3], int64_t c, int64_t depth) {
      const int64_t tap =
          (part.tap(0, r[0]) * s.kernel[1] + part.tap(1, r[1])) * s.kernel[2] + part.tap(2, r[2]);
      runs.pack_tap(r, c, depth, b_panels.get());
      const T* filters = packed + (g * panels + i0 / kRows) * panel_size;
      filters += (tap * inputs + c) * kRows;
      for (int64_t i = 0; i < i1 - i0; i += kRows, filters += panel_size)
        for (int64_t j = 0; j < step; j += Tile::kCols) {
          // A part of the next panel of filters.
          const int64_t from = depth * j / step * kRows,
                        to = depth * (j + Tile::kCols) / step * kRows;
          if (i + kRows < i1 - i0)
            prefetch_line(filters + panel_size + from, min_of(to, depth * kRows) - from);
          gemm_panels(depth, min_of<int64_t>(Tile::kCols, step - j), filters, &b_panels[j * depth],
                      &sums[i * step + j], step, add);
        }
      add = true;
    };
    int64_t r[3];
    for (r[0] = 0; r[0] < shape.kernel[0]; ++r[0])
      for (r[1] = 0; r[1] < shape.kernel[1]; ++r[1])
        for (r[2] = 0; r[2] < shape.kernel[2]; ++r[2])
          for (int64_t c = 0; c < inputs; c += Tile::kBlockDepth)
            add_products(r, c, min_of(inputs - c, Tile::kBlockDepth));
    for (int64_t i = 0; !add && i < (i1 - i0) * step; i += kLanes<T>) store(&sums[i], Vec<T>{});
    store_part(args, part, forward ? s.out : s.in, s.groups * m, g * m + i0, i1 - i0, j0, cols,
               sums.get(), step);
  });
}

LAMINA_CPU_NAMESPACE_END
