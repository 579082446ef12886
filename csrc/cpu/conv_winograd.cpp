// conv, winograd: F(2x2, 3x3), 16 products for 36; winograd2x4: F(2x4, 3x3), 24 for 72; winograd4:
// F(4x4, 3x3), 36 for 144; winograd5x5: F(2x2, 5x5), 36 for 100; winograd1d: F(4, 3) or F(3, 4)
// along filters of one row or column, 6 for 12, with longer ones in parts. Stride 1.
//
//   fprop  M[e][k][t] = sum over c of U[e][k][c] V[e][c][t] for the elements e of a tile t,
//          U = G g G^T, V = B^T d B, y = A^T M A
//   dgrad  fprop of grad_y with the filters turned by 180 degrees and k, c swapped
//
// The weight gradient: conv_winograd_wgrad.cpp.
//
// Source        Lavin & Gray 2016; different tile lengths along the two axes keep the rounding of
//               the longer one to one axis.
// Method        V is written as the packed panels of the product. A task takes a group of tiles:
//               it transforms their inputs into L2, multiplies kTaskRows output channels at a time
//               for all e, and transforms those back at once, while M is in L2. Where the tiles are
//               few or the filters many, the inputs of a chunk of tiles are transformed for all
//               tasks, and a task takes some filters.
//               Dilation splits a plane into phases, each a dense convolution
//               (shared/winograd_blocks.h): tiles are read and stored at that step. Taps of a third
//               axis, and the parts of a filter, lengthen the sum over c: an input plane is
//               transformed once for each of them.
// Workspace     U, which may be kept between calls, or V where the tiles are few
//               (shared/winograd_blocks.h).
// Numerics      sums in runs, the runs in order: rms error as of a direct sum for
//               F(2x2), twice that for F(2x4), one axis and 5x5 filters, four times for F(4x4). Inf
//               or NaN reaches every output of the tiles it lies in. F(2x2) is exact on small
//               integers.
// Floor         the products at the FMA peak: 2.25, 3, 4 and 2.8 times the direct sum's speed.
#include "cpu/activate.h"
#include "cpu/winograd.h"
#include "ops/instantiate.h"
#include "shared/conv_phase.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ConvArgs;
using winograd::Groups;
using winograd::kSkew;
using winograd::Tiles;

inline constexpr int64_t kChunk = 16;            // channels of a task of transform_inputs
inline constexpr int64_t kOwnFilters = 1 << 18;  // elements of the filters of a task

// Products summed in registers at a stretch: fewer, where the transforms back enlarge their
// rounding and other algorithms do not sum over all positions.
template <class Tile>
inline constexpr int64_t kRun = Tile::kFilterRows == 5 ? 32 : 64;

// c[kRows][width] = a b in runs of Run.
template <int64_t Run, class T>
static void multiply_panels(int64_t depth, int64_t width, const T* a, const T* b, T* c,
                            int64_t c_step) {
  for (int64_t p = 0; p == 0 || p < depth; p += Run)
    gemm_panels(min_of(Run, depth - p), width, a + p * GemmTile<T>::kRows, b + p * width, c, c_step,
                p > 0);
}

// Tiles of a panel where `width` of them, whole vectors, are cut into panels of about the same
// width.
template <class T>
LAMINA_INLINE int64_t panel_width(int64_t width) {
  const int64_t panels = ceil_div(width, int64_t{GemmTile<T>::kCols});
  return ceil_div(width / kLanes<T>, max_of<int64_t>(panels, 1)) * kLanes<T>;
}

// v[e][tile panel][channel][tile] of a group of tiles and channels [c0, c1), elements v_step
// apart.
template <class Tile, class T>
static void transform_inputs(const PlaneShape& s, const TileRuns& runs, int64_t width, int64_t c0,
                             int64_t c1, const T* x, T* v, int64_t v_step) {
  const int64_t wide = panel_width<T>(width);
  TileRows<Tile, T> rows;
  for (int64_t c = c0; c < c1; ++c) {
    if (c + kAhead < c1) rows.prefetch(s, runs, input_planes(s, x, c + kAhead));
    rows.fill(s, runs, input_planes(s, x, c));
    for (int64_t tile = 0; tile < width; tile += kLanes<T>) {
      const int64_t panel = tile / wide * wide;
      T* place = v + panel * s.c + c * min_of(width - panel, wide) + tile - panel;
      Vec<T> elements[Tile::kElements];
      rows.across(tile, elements);
      for (int e = 0; e < Tile::kElements; ++e) store(place + e * v_step, elements[e]);
    }
  }
}

// What the products become: activation(sums + bias[channel] + residual) in y.
template <class T>
struct Output {
  const T* bias;  // or null
  ops::Epilogue<T> epilogue;
  T* y;
};

// One output channel in a group of tiles: m[e][width] transformed back.
template <class Tile, class T>
static void transform_outputs(const PlaneShape& s, const TileRuns& runs, int64_t width, const T* m,
                              const Output<T>& output, int64_t channel) {
  constexpr int kStep = Tile::kOutColumns;
  const T bias = output.bias ? output.bias[channel] : T(0);
  alignas(64) T rows[Tile::kOutRows][Groups::kWide * kStep];
  for (int64_t tile = 0; tile < width; tile += kLanes<T>) {
    Vec<T> half_done[Tile::kOutRows][Tile::kInColumns];
    for (int j = 0; j < Tile::kInColumns; ++j) {
      Vec<T> column[Tile::kInRows], line[Tile::kOutRows];
      for (int i = 0; i < Tile::kInRows; ++i)
        column[i] = load(m + (i * Tile::kInColumns + j) * width + tile);
      winograd::output_line(column, line);
      for (int i = 0; i < Tile::kOutRows; ++i) half_done[i][j] = line[i];
    }
    for (int i = 0; i < Tile::kOutRows; ++i) {
      Vec<T> columns[kStep], joined[kStep];
      winograd::output_line(half_done[i], columns);
      for (int j = 0; j < kStep; ++j) columns[j] += bias;
      join_columns<T, kStep>(columns, joined);
      for (int j = 0; j < kStep; ++j) store(rows[i] + tile * kStep + j * kLanes<T>, joined[j]);
    }
  }
  for (int index = 0; index < runs.count; ++index) {
    const TileRun& run = runs.run[index];
    for (int i = 0; i < Tile::kOutRows && run.o1 + i * s.dilation[1] < s.out[1]; ++i) {
      const int64_t plane = (run.image * s.k + channel) * s.depth_out + run.o0;
      const int64_t place = plane * s.out_size() + (run.o1 + i * s.dilation[1]) * s.out[2] + run.o2;
      const T* source = rows[i] + run.first * kStep;
      const T* residual = output.epilogue.residual;
      with_column_step(s, [&](auto step) {
        const int64_t columns = min_of(run.count * kStep, ceil_div(s.out[2] - run.o2, step));
        for (int64_t at = 0; at < columns; at += kLanes<T>) {
          const int64_t to = place + at * step;
          Vec<T> sum = load_first(source + at, columns - at);
          if (residual) sum += load_spaced(residual + to, step, 0, columns - at);
          store_spaced(output.y + to, step, columns - at, activate(output.epilogue, sum));
        }
      });
    }
  }
}

// The outputs of `count` row panels of filters from panel p of channel group g on, in a group of
// tiles: u [e][row panel][input][kRows], elements u_step apart, times v.
template <class Tile, class T>
static void multiply_tiles(const PlaneShape& s, const TileRuns& runs, int64_t width, int64_t g,
                           int64_t p, int64_t count, const T* u, int64_t u_step, const T* v,
                           int64_t v_step, const Output<T>& output) {
  constexpr int kRows = GemmTile<T>::kRows;
  const int64_t outputs = s.k_per_group(), inputs = s.c_per_group();
  const int64_t wide = panel_width<T>(width), m_step = Tile::kElements * width;
  Scratch<T> m(count * kRows * m_step);
  for (int e = 0; e < Tile::kElements; ++e)
    for (int64_t panel = 0; panel < width; panel += wide) {
      const int64_t columns = min_of(width - panel, wide);
      for (int64_t i = 0; i < count; ++i)
        multiply_panels<kRun<Tile>>(inputs, columns, u + e * u_step + i * kRows * inputs,
                                    v + e * v_step + panel * s.c + g * inputs * columns,
                                    &m[i * kRows * m_step + e * width + panel], m_step);
    }
  for (int64_t i = 0; i < min_of(count * kRows, outputs - p * kRows); ++i)
    transform_outputs<Tile>(s, runs, width, &m[i * m_step], output, g * outputs + p * kRows + i);
}

// Row panels [p, p + count) of the filters of channel group g.
template <class Tile, class T>
static void transform_panels(const PlaneShape& s, const Filters<T>& filters, int64_t g, int64_t p,
                             int64_t count, T* u, int64_t u_step) {
  constexpr int kRows = GemmTile<T>::kRows;
  for (int64_t k = p * kRows; k < (p + count) * kRows; k += kRows, u += kRows * s.c_per_group())
    transform_filters<Tile>(s, filters, g, k, min_of<int64_t>(kRows, s.k_per_group() - k), u,
                            u_step);
}

// All filters, transformed: u[e][row panel of all groups][input][kRows], elements u_step apart.
template <class T>
struct Transformed {
  const T* u = nullptr;  // null: tasks transform their own
  int64_t u_step = 0;

  const T* panel(const PlaneShape& s, int64_t panel) const {
    return u + panel * GemmTile<T>::kRows * s.c_per_group();
  }
};

template <class Tile, class T>
static Transformed<T> transform_all(const PlaneShape& s, const Filters<T>& filters,
                                    ops::PackedFilters<T>& packed) {
  constexpr int kRows = GemmTile<T>::kRows;
  const int64_t panels = ceil_div(s.k_per_group(), kRows), panel_size = kRows * s.c_per_group();
  const int64_t u_step = s.groups * panels * panel_size + kSkew;
  parallel_for(packed.ready ? 0 : s.groups * panels, [&](int64_t task) {
    transform_panels<Tile>(s, filters, task / panels, task % panels, 1,
                           packed.data + task * panel_size, u_step);
  });
  packed.ready = true;
  return {packed.data, u_step};
}

template <class Tile, class T>
static void convolve_by_tile(const PlaneShape& s, const Groups& groups, const T* x,
                             const Transformed<T>& filters, const Output<T>& output) {
  constexpr int kRows = GemmTile<T>::kRows;
  const int64_t panels = ceil_div(s.k_per_group(), kRows);
  const int64_t v_step = s.c * groups.tiles + kSkew;
  parallel_for(groups.count(), [&](int64_t task) {
    const int64_t begin = task * groups.tiles, tiles = min_of(groups.tiles, groups.all - begin);
    const int64_t width = whole_vectors<T>(tiles);
    const TileRuns runs(groups, begin, tiles);
    Scratch<T> v(Tile::kElements * v_step);
    transform_inputs<Tile>(s, runs, width, 0, s.c, x, v.get(), v_step);
    for (int64_t g = 0; g < s.groups; ++g)
      for (int64_t p = 0; p < panels; p += kTaskRows / kRows)
        multiply_tiles<Tile>(s, runs, width, g, p, min_of(kTaskRows / kRows, panels - p),
                             filters.panel(s, g * panels + p), filters.u_step, v.get(), v_step,
                             output);
  });
}

template <class Tile, class T>
static void convolve_by_filter(const PlaneShape& s, const Groups& groups, int64_t begin, const T* x,
                               const Filters<T>& filters, const Transformed<T>& transformed,
                               const Output<T>& output, T* v) {
  constexpr int kRows = GemmTile<T>::kRows;
  const int64_t chunks = ceil_div(s.c, kChunk), v_step = s.c * groups.chunk * groups.tiles + kSkew;
  const int64_t end = min_of(begin + groups.chunk, groups.count());
  const auto tiles_of = [&](int64_t group) {
    return min_of(groups.tiles, groups.all - group * groups.tiles);
  };
  parallel_for((end - begin) * chunks, [&](int64_t task) {
    const int64_t group = begin + task / chunks, c = task % chunks * kChunk;
    const TileRuns runs(groups, group * groups.tiles, tiles_of(group));
    transform_inputs<Tile>(s, runs, whole_vectors<T>(tiles_of(group)), c, min_of(s.c, c + kChunk),
                           x, v + (group - begin) * groups.tiles * s.c, v_step);
  });
  const int64_t panels = ceil_div(s.k_per_group(), kRows), panel_size = kRows * s.c_per_group();
  int64_t some = max_of<int64_t>(kOwnFilters / max_of<int64_t>(Tile::kElements * panel_size, 1), 1);
  some = min_of(some, kTaskRows / kRows);
  while (some > 1 && s.groups * ceil_div(panels, some) < kFewTasks) some = ceil_div(some, 2);
  const int64_t parts = ceil_div(panels, some);
  parallel_for(s.groups * parts, [&](int64_t task) {
    const int64_t g = task / parts, p = task % parts * some, count = min_of(some, panels - p);
    const bool own = !transformed.u;
    const int64_t u_step = own ? count * panel_size + kSkew : transformed.u_step;
    Scratch<T> own_u(own ? Tile::kElements * u_step : 0);
    if (own) transform_panels<Tile>(s, filters, g, p, count, own_u.get(), u_step);
    const T* const u = own ? own_u.get() : transformed.panel(s, g * panels + p);
    for (int64_t group = begin; group < end; ++group)
      multiply_tiles<Tile>(s, TileRuns(groups, group * groups.tiles, tiles_of(group)),
                           whole_vectors<T>(tiles_of(group)), g, p, count, u, u_step,
                           v + (group - begin) * groups.tiles * s.c, v_step, output);
  });
}

template <class Tile, class T>
static void convolve(const PlaneShape& s, const T* x, const Filters<T>& filters,
                     const ConvArgs<T>& args) {
  const Groups groups(s, Tile::kOutRows, Tile::kOutColumns);
  const Output<T> output = {args.bias, args.epilogue, args.result};
  ops::PackedFilters<T> once = {args.workspace};
  Transformed<T> transformed;
  if (args.packed || !groups.by_filter)
    transformed = transform_all<Tile>(s, filters, args.packed ? *args.packed : once);
  if (!groups.by_filter) return convolve_by_tile<Tile>(s, groups, x, transformed, output);
  for (int64_t begin = 0; begin < groups.count(); begin += groups.chunk)
    convolve_by_filter<Tile>(s, groups, begin, x, filters, transformed, output, args.workspace);
}

template <class Tile, class T>
static void forward(const ConvArgs<T>& args) {
  const PlaneShape s = plane_shape<Tile>(args.shape);
  Filters<T> filters = forward_filters(args);
  filters.channel = s.taps, filters.parts = s.parts;
  convolve<Tile>(s, args.x, filters, args);
}
template <class Tile, class T>
static void backward(const ConvArgs<T>& args) {
  const PlaneShape s = plane_shape<Tile>(conv_phase(args.shape, 0).shape);
  Filters<T> filters = backward_filters(args);
  filters.planes = s.depth_taps, filters.plane = s.taps, filters.parts = s.parts;
  convolve<Tile>(s, args.grad_y, filters, args);
}

#define LAMINA_WINOGRAD(algo, ...)                  \
  template <class T>                                \
  void conv_fprop_##algo(const ConvArgs<T>& args) { \
    forward<WinogradTile<__VA_ARGS__>>(args);       \
  }                                                 \
  template <class T>                                \
  void conv_dgrad_##algo(const ConvArgs<T>& args) { \
    backward<WinogradTile<__VA_ARGS__>>(args);      \
  }                                                 \
  LAMINA_INSTANTIATE(conv_fprop_##algo, ConvArgs)   \
  LAMINA_INSTANTIATE(conv_dgrad_##algo, ConvArgs)

LAMINA_WINOGRAD(winograd, 2, 2)
LAMINA_WINOGRAD(winograd2x4, 2, 4)
LAMINA_WINOGRAD(winograd4, 4, 4)
LAMINA_WINOGRAD(winograd5x5, 2, 2, 5)

template <class T>
void conv_fprop_winograd1d(const ConvArgs<T>& args) {
  with_line_tile(args.shape, [&](auto tile) { forward<decltype(tile)>(args); });
}
template <class T>
void conv_dgrad_winograd1d(const ConvArgs<T>& args) {
  with_line_tile(args.shape, [&](auto tile) { backward<decltype(tile)>(args); });
}
LAMINA_INSTANTIATE(conv_fprop_winograd1d, ConvArgs)
LAMINA_INSTANTIATE(conv_dgrad_winograd1d, ConvArgs)

LAMINA_CPU_NAMESPACE_END
