// conv, depthwise: one input channel a group.
//
// Method        The sums of a tile of up to 8 rows by a vector of columns stay in registers. For
//               every column of taps the weights of up to 7 rows of taps are broadcast, and each
//               row of x is loaded once, shifted, for all output rows that it feeds. Edges are
//               masked loads: nothing is copied or padded. A row alone is summed in runs of up to
//               12 vectors of columns, which share the broadcasts; long filters find a copy of it
//               with zeros around instead of edges. Stride 2 takes every other column
//               of two loads; its input gradient computes both phases of the columns and
//               interleaves them in the store. A plane of a volume is the sum over the planes of x
//               that its taps along the depth meet. Other strides take the padded copy of direct.h.
//               Small planes of images slide (cpu/depthwise_slide.h).
// Partitioning  planes of the result, row classes (cpu/depthwise.h), bands of tiles.
// Numerics      an output sums its taps in order of depth, row chunks of 7, 5, 3, 2, 1 (of a row
//               alone, of 1), column, row.
// Floor         the larger of x and y once through the caches, and the products at the FMA peak.
#include "cpu/activate.h"
#include "cpu/depthwise.h"
#include "cpu/depthwise_slide.h"
#include "cpu/direct.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ConvArgs;
using ops::ConvShape;

template <class T>
struct DepthwisePass {
  const T *x, *weight, *bias;
  ops::Epilogue<T> epilogue;
  T* y;
  int64_t x_planes, planes;  // of x and y, in all
  int64_t channels, depth;   // of y
  int64_t sources;           // most planes of x per plane of y
  int64_t in[2], out[2];     // planes of x and y
  int64_t kernel[2];
};

// A plane of x that a plane of y sums over, and the taps along rows and columns that it meets.
template <class T>
struct PlaneSource {
  const T *x, *weight;
};

// One tile: `rows` are those of x for the first source, row_count of them a source.
template <class T>
struct DepthwiseTile {
  const T* const* rows;
  const PlaneSource<T>* source;
  int64_t row_count, sources;
  RowClass row;
  const ColumnClass* columns;  // by phase
  int64_t width;               // columns of x
  int64_t kernel_width;
  int64_t run;  // most vectors of a row alone at a stretch
};

// sum[B] (+)= the products of `kTaps` rows of taps and all columns of taps; weight is that of the
// first, place the column of x where it meets lane 0.
template <class T, int B, int ST, int kTaps>
[[gnu::noinline]] static void sum_taps(const T* const* rows, int64_t width, int64_t place,
                                       const ColumnClass& columns, const T* weight,
                                       int64_t filter_row, bool more, Vec<T>* sums) {
  Vec<T> sum[B];
#pragma GCC unroll 8
  for (int o = 0; o < B; ++o) sum[o] = more ? sums[o] : Vec<T>{};
  for (int64_t u = 0; u < columns.taps; ++u, place += columns.step, weight += columns.filter_step)
    with_loads<T, ST>(-place, width - place, [&](const auto& load_row) {
      Vec<T> factor[kTaps];
#pragma GCC unroll 8
      for (int r = 0; r < kTaps; ++r) factor[r] = broadcast(weight[r * filter_row]);
#pragma GCC unroll 32
      for (int i = 0; i < (B - 1) * ST + kTaps; ++i) {
        const Vec<T> line = load_row(rows[i] + place);
#pragma GCC unroll 8
        for (int o = 0; o < B; ++o)
          if (i - ST * o >= 0 && i - ST * o < kTaps) sum[o] += factor[i - ST * o] * line;
      }
    });
#pragma GCC unroll 8
  for (int o = 0; o < B; ++o) sums[o] = sum[o];
}

// sums[B] of a vector of columns from `column` on, of one phase, over all sources and taps.
template <class T, int B, int ST>
LAMINA_INLINE void sum_columns(const DepthwiseTile<T>& tile, const ColumnClass& columns,
                               int64_t column, Vec<T>* sums) {
  const int64_t filter_row = tile.kernel_width * tile.row.filter_step;
  if (tile.row.taps <= 0 || tile.sources == 0)  // nothing to sum
    for (int o = 0; o < B; ++o) sums[o] = Vec<T>{};
  for (int64_t source = 0; source < tile.sources; ++source)
    for (int64_t t = 0; t < tile.row.taps;) {
      const T* const* rows = tile.rows + source * tile.row_count + t;
      const T* weight = tile.source[source].weight + tile.row.filter * tile.kernel_width +
                        t * filter_row + columns.filter;
      t += with_tap_rows(tile.row.taps - t, [&](auto count) {
        sum_taps<T, B, ST, count.value>(rows, tile.width, columns.first + ST * column, columns,
                                        weight, filter_row, source + t > 0, sums);
      });
    }
}

// sum[RUN] += the products of taps one column apart. A load that crosses cache lines costs two, so
// half of the vectors of x are not loaded anew for the next tap but move on by a lane.
template <class T, int RUN>
LAMINA_INLINE void sum_neighbours(const T* x, int64_t taps, const T* weight, int64_t filter_step,
                                  Vec<T>* sum) {
  constexpr int kMoved = RUN / 2 - 1;
  Vec<T> moved[kMoved + 1];
#pragma GCC unroll 8
  for (int i = 0; i <= kMoved; ++i) moved[i] = load(x + i * kLanes<T>);
  for (; taps > 0; --taps, weight += filter_step) {
    const Vec<T> factor = broadcast(*weight);
#pragma GCC unroll 16
    for (int i = kMoved + 1; i < RUN; ++i) sum[i] += factor * load(x + i * kLanes<T>);
    ++x;
#pragma GCC unroll 8
    for (int i = 0; i <= kMoved; ++i) {
      sum[i] += factor * moved[i];
      moved[i] = i < kMoved ? lanes_after<T>(moved[i], moved[i + 1], 1) : load(x + i * kLanes<T>);
    }
  }
}

// sums[RUN] of a row of results, vectors of columns from `column` on that share the factors.
template <class T, int RUN, int ST>
[[gnu::noinline]] static void sum_run(const DepthwiseTile<T>& tile, const ColumnClass& columns,
                                      int64_t column, Vec<T>* sums) {
  const int64_t filter_row = tile.kernel_width * tile.row.filter_step;
  constexpr int64_t kStep = ST * kLanes<T>;
  const int64_t first = columns.first + ST * column;
  const int64_t last = first + (columns.taps - 1) * columns.step + RUN * kStep;
  [[maybe_unused]] const bool neighbours = kVectorBytes == 64 && columns.step == 1 &&
                                           columns.taps > 2 && first >= 0 && last <= tile.width;
  Vec<T> sum[RUN] = {};
  for (int64_t source = 0; source < tile.sources; ++source)
    for (int64_t t = 0; t < tile.row.taps; ++t) {
      const T* const row = tile.rows[source * tile.row_count + t];
      const T* weight = tile.source[source].weight + tile.row.filter * tile.kernel_width +
                        t * filter_row + columns.filter;
      if constexpr (ST == 1)
        if (neighbours) {
          sum_neighbours<T, RUN>(row + first, columns.taps, weight, columns.filter_step, sum);
          continue;
        }
      int64_t place = first;
      for (int64_t u = 0; u < columns.taps;
           ++u, place += columns.step, weight += columns.filter_step) {
        const Vec<T> factor = broadcast(*weight);
        if (place >= 0 && place + RUN * kStep <= tile.width) {
#pragma GCC unroll 16
          for (int i = 0; i < RUN; ++i)
            sum[i] += factor * load_columns<T, ST>(row + place + i * kStep);
        } else {
#pragma GCC unroll 16
          for (int i = 0; i < RUN; ++i) {
            const int64_t at = place + i * kStep;
            if (at > -kStep && at < tile.width)
              sum[i] += factor * load_columns<T, ST>(row + at, -at, tile.width - at);
          }
        }
      }
    }
#pragma GCC unroll 16
  for (int i = 0; i < RUN; ++i) sums[i] = sum[i];
}

// Stores `rows` of the rows of a tile: what = place of its first element in y.
template <class T, int B, int P>
LAMINA_INLINE void store_tile(const DepthwisePass<T>& pass, Vec<T> (&sum)[P][B], int64_t rows,
                              int64_t place, int64_t row_step, int64_t columns, T bias) {
  for (int64_t o = 0; o < rows; ++o, place += row_step) {
    Vec<T> parts[P];
    if constexpr (P == 1)
      parts[0] = sum[0][o];
    else
      parts[0] = interleave<T, false>(sum[0][o], sum[1][o]),
      parts[1] = interleave<T, true>(sum[0][o], sum[1][o]);
#pragma GCC unroll 2
    for (int part = 0; part < P; ++part) {
      const int64_t at = place + part * kLanes<T>, left = columns - part * kLanes<T>;
      if (left <= 0) continue;
      Vec<T> value = parts[part] + bias;
      if (pass.epilogue.residual) value += load_first(pass.epilogue.residual + at, left);
      store_first(pass.y + at, left, activate(pass.epilogue, value));
    }
  }
}

// The tiles of a band of rows.
template <class T, int B, int ST, int P>
[[gnu::noinline]] static void depthwise_rows(const DepthwisePass<T>& pass,
                                             const DepthwiseTile<T>& tile, int64_t rows,
                                             int64_t place, T bias) {
  constexpr int64_t kColumns = P * kLanes<T>;
  for (int64_t column = 0; column < pass.out[1]; column += kColumns) {
    Vec<T> sum[P][B];
    for (int phase = 0; phase < P; ++phase)
      sum_columns<T, B, ST>(tile, tile.columns[phase], column / P, sum[phase]);
    store_tile<T, B, P>(pass, sum, rows, place + column, tile.row.y_step * pass.out[1],
                        pass.out[1] - column, bias);
  }
}

// RUN vectors of columns a phase of a row alone.
template <class T, int RUN, int ST, int P>
[[gnu::noinline]] static void depthwise_run(const DepthwisePass<T>& pass,
                                            const DepthwiseTile<T>& tile, int64_t column,
                                            int64_t place, T bias) {
  constexpr int64_t kColumns = P * kLanes<T>;
  Vec<T> run[P][RUN];
  for (int phase = 0; phase < P; ++phase)
    sum_run<T, RUN, ST>(tile, tile.columns[phase], column / P, run[phase]);
  for (int i = 0; i < RUN && column < pass.out[1]; ++i, column += kColumns) {
    Vec<T> sum[P][1];
    for (int phase = 0; phase < P; ++phase) sum[phase][0] = run[phase][i];
    store_tile<T, 1, P>(pass, sum, 1, place + column, 0, pass.out[1] - column, bias);
  }
}

// A row alone, in runs of even lengths, as equal as they come.
template <class T, int ST, int P>
[[gnu::noinline]] static void depthwise_row(const DepthwisePass<T>& pass,
                                            const DepthwiseTile<T>& tile, int64_t place, T bias) {
  constexpr int64_t kColumns = P * kLanes<T>;
  for (int64_t column = 0; column < pass.out[1];) {
    const int64_t left = ceil_div(pass.out[1] - column, kColumns);
    column += kColumns * with_run(ceil_div(left, ceil_div(left, tile.run)), [&](auto length) {
                depthwise_run<T, length.value, ST, P>(pass, tile, column, place, bias);
              });
  }
}

template <class T, int ST, int P>
LAMINA_INLINE void any_rows(int64_t block, const DepthwisePass<T>& pass,
                            const DepthwiseTile<T>& tile, int64_t rows, int64_t place, T bias) {
  if (block == 8) return depthwise_rows<T, 8, ST, P>(pass, tile, rows, place, bias);
  if (block == 7) return depthwise_rows<T, 7, ST, P>(pass, tile, rows, place, bias);
  if (block == 4) return depthwise_rows<T, 4, ST, P>(pass, tile, rows, place, bias);
  depthwise_row<T, ST, P>(pass, tile, place, bias);
}

// class_of(i) is row class i of `classes`, the first of them the largest; sources_of(channel plane,
// depth, to) writes the sources of a plane of y and gives their number.
template <int ST, int P, class T, class Classes, class Sources>
static void depthwise_planes(const DepthwisePass<T>& pass, int64_t classes, const Classes& class_of,
                             const ColumnClass* columns, const Sources& sources_of) {
  if (pass.planes * pass.out[0] * pass.out[1] == 0) return;
  const RowClass largest = class_of(0);
  const int64_t block = rows_per_tile(largest.count);
  const int64_t products = block * pass.out[1] * pass.kernel[0] * pass.kernel[1] * pass.sources;
  const int64_t tile_work = max_of<int64_t>(products, 1);
  const int64_t blocks = ceil_div(largest.count, block);
  const int64_t band = min_of(blocks, max_of<int64_t>(kDepthwiseTask / tile_work, 1));
  const int64_t bands = ceil_div(blocks, band);
  const int64_t grain = max_of<int64_t>(kDepthwiseTask / (tile_work * band), 1);
  const int64_t row_count = (block - 1) * ST + pass.kernel[0];
  const int64_t in_size = pass.in[0] * pass.in[1], out_size = pass.out[0] * pass.out[1];
  const T* const x_end = pass.x + pass.x_planes * in_size;
  const T* const y_end = pass.y + pass.planes * out_size;
  // The taps of a long filter would meet the edges of a row alone in most of its runs.
  const bool framed = block == 1 && columns[0].taps >= kFramedTaps;
  const RowFrame frame =
      framed ? row_frame<T, ST, P>(columns, pass.in[1], pass.out[1]) : RowFrame{};
  const int64_t width = framed ? frame.width : pass.in[1];
  ColumnClass placed[P];
  for (int phase = 0; phase < P; ++phase)
    placed[phase] = columns[phase], placed[phase].first += frame.lead;
  parallel_ranges(pass.planes * classes * bands, grain, [&](int64_t begin, int64_t end) {
    Scratch<const T*> pointers(row_count * pass.sources);
    Scratch<PlaneSource<T>> source(pass.sources);
    const int64_t copies = framed ? row_count * pass.sources * width : 0;
    Scratch<T> zeros(width + copies);  // rows outside the planes, then the framed rows
    for (int64_t i = 0; i < width + copies; ++i) zeros[i] = 0;
    int64_t plane = begin / (classes * bands), index = begin / bands % classes;
    int64_t volume = plane / pass.depth, o0 = plane % pass.depth;
    int64_t k = volume % pass.channels, which = begin % bands;
    DepthwiseTile<T> tile = {pointers.get(),
                             source.get(),
                             row_count,
                             sources_of(volume, o0, source.get()),
                             class_of(index),
                             placed,
                             width,
                             pass.kernel[1],
                             framed ? kMostRun : kEdgedRun};
    for (int64_t unit = begin; unit < end; ++unit) {
      const RowClass& row = tile.row;
      const int64_t first = which * band * block, last = min_of(row.count, first + band * block);
      const int64_t x_step = ST * row.x_step * pass.in[1], y_step = row.y_step * pass.out[1];
      const T* const newest = tile.sources ? source[tile.sources - 1].x : x_end;
      for (int64_t j = first; j < last; j += block) {
        const int64_t place = plane * out_size + row.y_first * pass.out[1] + j * y_step;
        const int64_t rows = min_of(block, last - j);
        prefetch_ahead(pass.y + place, rows * y_step, y_end);
        prefetch_ahead(newest + j * x_step, rows * x_step, x_end);
        for (int64_t i = 0; i < tile.sources; ++i)
          find_rows(row, j, row_count, ST, source[i].x, pass.in, zeros.get(),
                    &pointers[i * row_count]);
        if (framed)
          for (int64_t i = 0; i < tile.sources * row_count; ++i)
            if (pointers[i] != zeros.get()) {
              T* const copy = &zeros[(i + 1) * width];
              __builtin_memcpy(copy + frame.lead, pointers[i], sizeof(T) * frame.columns);
              pointers[i] = copy;
            }
        any_rows<T, ST, P>(block, pass, tile, rows, place, pass.bias ? pass.bias[k] : T(0));
      }
      if (++which < bands) continue;
      which = 0;
      if (++index == classes) {
        index = 0, ++plane;
        if (++o0 == pass.depth) {
          o0 = 0, ++volume;
          if (++k == pass.channels) k = 0;
        }
        if (unit + 1 < end) tile.sources = sources_of(volume, o0, source.get());
      }
      if (classes > 1) tile.row = class_of(index);
    }
  });
}

// Small planes; s is the shape of a convolution of x with filters from tap to tap weight_step
// apart.
template <class T>
static void slide_small_planes(const ConvArgs<T>& args, const ConvShape& s, const T* x,
                               const T* weight, int64_t weight_step) {
  const SlidePass<T> pass = {x,
                             weight,
                             args.bias,
                             args.epilogue,
                             args.result,
                             s.n * s.k,
                             s.k,
                             s.k_per_group(),
                             weight_step,
                             {s.in[1], s.in[2]},
                             {s.out[1], s.out[2]},
                             {s.pad[1], s.pad[2]},
                             s.dilation[2]};
  if (s.kernel[1] == 3) return slide_all_planes<T, 3>(pass);
  if constexpr (kVectorBytes == 64) slide_all_planes<T, 5>(pass);
}

template <class T>
void conv_fprop_depthwise(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  if (slides(s)) return slide_small_planes(args, s, args.x, args.weight, 1);
  if (!regular_rows(s)) return direct_fprop<T, 1, 6>(args);
  const DepthwisePass<T> pass = {args.x,
                                 args.weight,
                                 args.bias,
                                 args.epilogue,
                                 args.result,
                                 s.n * s.c * s.in[0],
                                 s.n * s.k * s.out[0],
                                 s.k,
                                 s.out[0],
                                 s.kernel[0],
                                 {s.in[1], s.in[2]},
                                 {s.out[1], s.out[2]},
                                 {s.kernel[1], s.kernel[2]}};
  const auto class_of = [&](int64_t index) { return row_class(s, index); };
  const ColumnClass columns = column_class(s);
  const int64_t shared = s.k_per_group(), plane = s.in[1] * s.in[2];
  const auto sources_of = [&](int64_t volume, int64_t o0, PlaneSource<T>* to) {
    const T* const x = args.x + (shared == 1 ? volume : volume / shared) * s.in[0] * plane;
    const T* weight = args.weight + volume % s.k * s.kernel_size();
    int64_t count = 0, i0 = o0 * s.stride[0] - s.pad[0];
    for (int64_t t = 0; t < s.kernel[0]; ++t, i0 += s.dilation[0]) {
      if (i0 >= 0 && i0 < s.in[0]) to[count++] = {x + i0 * plane, weight};
      weight += s.kernel[1] * s.kernel[2];
    }
    return count;
  };
  if (s.stride[2] == 1)
    depthwise_planes<1, 1>(pass, row_classes(s), class_of, &columns, sources_of);
  else
    depthwise_planes<2, 1>(pass, row_classes(s), class_of, &columns, sources_of);
}

template <class T>
void conv_dgrad_depthwise(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  if (slides(s) && s.k_per_group() == 1)
    return slide_small_planes(args, conv_phase(s, 0).shape, args.grad_y,
                              args.weight + s.kernel_size() - 1, -1);
  if (s.stride[2] > 2) return direct_dgrad<T, 1, 6>(args);
  const int64_t filters = s.k_per_group(), plane = s.out[1] * s.out[2];
  const DepthwisePass<T> pass = {args.grad_y,
                                 args.weight,
                                 args.bias,
                                 args.epilogue,
                                 args.result,
                                 s.n * s.k * s.out[0],
                                 s.n * s.c * s.in[0],
                                 s.c,
                                 s.in[0],
                                 filters * s.kernel[0],
                                 {s.out[1], s.out[2]},
                                 {s.in[1], s.in[2]},
                                 {s.kernel[1], s.kernel[2]}};
  const auto sources_of = [&](int64_t volume, int64_t i0, PlaneSource<T>* to) {
    const T* grad_y = args.grad_y + volume * filters * s.out[0] * plane;
    const T* weight = args.weight + volume % s.c * filters * s.kernel_size();
    int64_t count = 0;
    for (int64_t k = 0; k < filters; ++k, grad_y += s.out[0] * plane)
      for (int64_t t = 0; t < s.kernel[0]; ++t, weight += s.kernel[1] * s.kernel[2]) {
        const int64_t at = i0 + s.pad[0] - t * s.dilation[0];
        if (at < 0 || at >= s.out[0] * s.stride[0] || at % s.stride[0] != 0) continue;
        to[count++] = {grad_y + at / s.stride[0] * plane, weight};
      }
    return count;
  };
  const int64_t spread = s.dilation[1] / greatest_divisor(s.stride[1], s.dilation[1]);
  const int64_t spreads = min_of(spread, ceil_div(s.in[1], s.stride[1]));
  const auto class_of = [&](int64_t index) {
    const ConvPhase phase = conv_phase(s, index / spreads * s.stride[2]);
    RowClass row = row_class(phase.shape, index % spreads);
    row.y_first = phase.offset[1] + row.y_first * s.stride[1], row.y_step *= s.stride[1];
    row.filter = phase.first[1], row.filter_step = -phase.step[1];
    return row;
  };
  ColumnClass columns[2];
  for (int64_t index = 0; index < s.stride[2]; ++index) {
    const ConvPhase phase = conv_phase(s, index);
    columns[index] = column_class(phase.shape);
    columns[index].filter = phase.first[2], columns[index].filter_step = -phase.step[2];
  }
  if (s.stride[2] == 1)
    depthwise_planes<1, 1>(pass, s.stride[1] * spreads, class_of, columns, sources_of);
  else
    depthwise_planes<1, 2>(pass, s.stride[1] * spreads, class_of, columns, sources_of);
}

LAMINA_INSTANTIATE(conv_fprop_depthwise, ConvArgs)
LAMINA_INSTANTIATE(conv_dgrad_depthwise, ConvArgs)

LAMINA_CPU_NAMESPACE_END
