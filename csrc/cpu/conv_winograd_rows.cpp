// conv, winograd4x1: F(4, 3) along the rows of the image, the sum itself along its columns; for the
// few channels of a group, whose two-axis tiles cost more to transform than to multiply. Stride 1
// and filters of 3 rows, of any width and column dilation.
//
//   M[e][k][q] = sum over c, s of U[e][k][c][s] V[e][c][q + s]: 6 products for the 12 of a direct
//   sum, U = G g, V = B^T d along the rows, y = A^T M
//
// Source        Winograd 1980; the points as in shared/winograd.h.
// Method        A block is 4 rows of y. V holds the 6 elements of a block as zero-padded rows, the
//               blocks of a band (or of several small images) one behind the other: the transforms
//               work on vectors of neighbouring columns and shuffle nothing, and a tap is a shift.
//               The products keep up to 8 output channels times 3 vectors of positions in registers
//               and broadcast U. dgrad is fprop of grad_y with the filters turned. wgrad multiplies
//               V with the transposed A dy as direct does (cpu/outer_sums.h), then G^T dU.
// Partitioning  group, images, band of blocks: V and M of a task stay within kTaskBytes; wgrad:
//               group, block of output channels, block of input channels, over all images.
// Workspace     U: [group][e][16 outputs][c][s]; none for wgrad.
// Numerics      sums over (c, s) in runs of kRun terms, the runs in order: rms error as
// winograd2x4.
//               Inf or NaN reaches the 4 rows of its block.
// Floor         half the products of a direct sum at the FMA peak, rows rounded up to 4, rows of
//               positions to the padded width.
#include "core/threads.h"
#include "cpu/activate.h"
#include "cpu/filters.h"
#include "cpu/outer_sums.h"
#include "cpu/scratch.h"
#include "ops/instantiate.h"
#include "shared/conv_phase.h"
#include "shared/winograd.h"
#include "shared/winograd_rows.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ConvArgs;
using ops::ConvShape;
using winograd::kRowsLanes;

inline constexpr int kRows = 4, kElements = 6;     // of a block
inline constexpr int64_t kTaskBytes = 128 * 1024;  // of V and M
inline constexpr int64_t kRun = 64;                // terms summed in registers at a stretch
inline constexpr int64_t kSkew = 16;               // elements of V lie out of each other's sets

// How a convolution is cut into tasks.
struct RowBlocks {
  int64_t pitch;                 // positions of a block: a row of y and what its taps reach
  int64_t blocks;                // of an image
  int64_t band, bands;           // blocks of a task, tasks of an image
  int64_t images, image_ranges;  // of a task, and tasks of all images
  int64_t tasks;

  template <class T>
  LAMINA_INLINE static RowBlocks of(const ConvShape& s) {
    RowBlocks b{};
    b.pitch = s.out[2] + (s.kernel[2] - 1) * s.dilation[2];
    b.blocks = ceil_div(s.out[1], kRows);
    const int64_t bytes = kElements * (s.c_per_group() + s.k_per_group()) * sizeof(T);
    const int64_t fit = max_of<int64_t>(kTaskBytes / bytes / b.pitch, 1);  // blocks
    b.bands = ceil_div(b.blocks, min_of(fit, b.blocks));
    b.band = ceil_div(b.blocks, b.bands);
    b.bands = ceil_div(b.blocks, b.band);
    b.images = b.bands > 1 ? 1 : min_of(s.n, max_of<int64_t>(fit / b.blocks, 1));
    b.image_ranges = ceil_div(s.n, b.images);
    b.images = ceil_div(s.n, b.image_ranges);
    b.tasks = s.groups * b.image_ranges * b.bands;
    return b;
  }
};

// u[e][outputs / 16][c][s][16] of a group.
template <class T>
static void transform_row_filters(const ConvShape& s, const Filters<T>& filters, int64_t g, T* u) {
  const int64_t outputs = s.k_per_group(), inputs = s.c_per_group(), width = s.kernel[2];
  const int64_t taps = 3 * width, parts = ceil_div(outputs, kRowsLanes);
  const int64_t u_step = parts * inputs * width * kRowsLanes;
  Scratch<T> lines(ceil_div(taps, kLanes<T>) * kLanes<T> * kLanes<T>);
  for (int64_t part = 0; part < parts * kRowsLanes; part += kLanes<T>)
    for (int64_t c = 0; c < inputs; ++c) {
      for (int64_t t = 0; t < taps; t += kLanes<T>) {
        Vec<T> square[kLanes<T>] = {};
        for (int64_t i = 0; i < min_of<int64_t>(kLanes<T>, outputs - part); ++i)
          square[i] = load_first(filters.at(s, g * outputs + part + i, c) + t, taps - t);
        transpose<T>(square);
        for (int64_t i = 0; i < kLanes<T>; ++i) store(&lines[(t + i) * kLanes<T>], square[i]);
      }
      T* place = u + ((part / kRowsLanes * inputs + c) * width) * kRowsLanes + part % kRowsLanes;
      for (int64_t tap = 0; tap < width; ++tap, place += kRowsLanes) {
        Vec<T> line[3], elements[kElements];
        for (int64_t r = 0; r < 3; ++r) {
          const int64_t t = r * width + tap;
          line[r] = load(&lines[(filters.turned ? taps - 1 - t : t) * kLanes<T>]);
        }
        winograd::filter_line(line, elements);
        for (int e = 0; e < kElements; ++e) store(place + e * u_step, elements[e]);
      }
    }
}

// v[block][e][pitch] of `blocks` blocks, the first of which starts at row `row` of the padded
// plane x; elements are v_step apart. Fetches what follows of x, and the rows of y.
template <class T>
[[gnu::noinline]] static void transform_blocks(const ConvShape& s, const T* x, const T* zeros,
                                               int64_t row, int64_t blocks, int64_t pitch, T* v,
                                               int64_t v_step, const T* x_end, const T* y) {
  const int64_t height = s.in[1], width = s.in[2], pad = s.pad[2];
  row -= s.pad[1];
  for (; blocks > 0; --blocks, row += kRows, v += pitch) {
    const T* lines[kElements];
    for (int i = 0; i < kElements; ++i)
      lines[i] = (row + i >= 0 && row + i < height ? x + (row + i) * width : zeros) - pad;
    if (row >= 0) prefetch_ahead(x + row * width, kRows * width, x_end);
    if (y) prefetch_line(y, kRows * s.out[2]), y += kRows * s.out[2];
    for (int64_t column = 0; column < pitch; column += kLanes<T>) {
      const Lanes<T> inside(pad - column, width + pad - column);
      Vec<T> line[kElements], elements[kElements];
#pragma GCC unroll 6
      for (int i = 0; i < kElements; ++i) line[i] = inside.load(lines[i] + column);
      winograd::input_line(line, elements);
#pragma GCC unroll 6
      for (int e = 0; e < kElements; ++e) store(v + e * v_step + column, elements[e]);
    }
  }
}

// m[Lanes][Vectors], lanes m_step apart, of one element: u[c][s][16], v[c][v_channel].
template <class T, int Lanes, int Vectors>
[[gnu::noinline]] static void multiply_rows(const ConvShape& s, const T* u, const T* v,
                                            int64_t v_channel, T* m, int64_t m_step) {
  const int64_t inputs = s.c_per_group(), width = s.kernel[2], spread = s.dilation[2];
  const int64_t run = max_of<int64_t>(kRun / width, 1);
  for (int64_t begin = 0; begin == 0 || begin < inputs; begin += run) {
    Vec<T> sum[Lanes][Vectors] = {};
    for (int64_t c = begin; c < min_of(begin + run, inputs); ++c, v += v_channel) {
      const T* source = v;
      for (int64_t tap = 0; tap < width; ++tap, source += spread, u += kRowsLanes) {
        Vec<T> line[Vectors];
#pragma GCC unroll 8
        for (int j = 0; j < Vectors; ++j) line[j] = load(source + j * kLanes<T>);
#pragma GCC unroll 8
        for (int i = 0; i < Lanes; ++i)
#pragma GCC unroll 8
          for (int j = 0; j < Vectors; ++j) sum[i][j] += u[i] * line[j];
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < Lanes; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < Vectors; ++j) {
        T* place = m + i * m_step + j * kLanes<T>;
        store(place, begin == 0 ? sum[i][j] : load(place) + sum[i][j]);
      }
  }
}

// Some lanes and `vectors` vectors; returns how many lanes.
template <class T, int Lanes>
static int64_t multiply_lanes(const ConvShape& s, int64_t lanes, int64_t vectors, const T* u,
                              const T* v, int64_t v_channel, T* m, int64_t m_step) {
  if constexpr (Lanes > 1)
    if (lanes < Lanes)
      return multiply_lanes<T, Lanes / 2>(s, lanes, vectors, u, v, v_channel, m, m_step);
  if (vectors == 1) return multiply_rows<T, Lanes, 1>(s, u, v, v_channel, m, m_step), Lanes;
  if constexpr (kVectorBytes >= 32)
    if (vectors == 3) return multiply_rows<T, Lanes, 3>(s, u, v, v_channel, m, m_step), Lanes;
  return multiply_rows<T, Lanes, 2>(s, u, v, v_channel, m, m_step), Lanes;
}

// Stores the `rows` rows of y from `place` on, whose blocks are m[e][block][pitch], elements m_step
// apart.
template <class T, bool Plain>
[[gnu::noinline]] static void store_blocks(const ops::Epilogue<T>& epilogue, const T* m,
                                           int64_t m_step, int64_t pitch, int64_t rows,
                                           int64_t width, T bias, T* y, int64_t place) {
  for (; rows > 0; rows -= kRows, m += pitch, place += kRows * width)
    for (int64_t column = 0; column < width; column += kLanes<T>) {
      const Lanes<T> inside(0, width - column);
      Vec<T> elements[kElements], line[kRows];
#pragma GCC unroll 6
      for (int e = 0; e < kElements; ++e) elements[e] = load(m + e * m_step + column);
      winograd::output_line(elements, line);
#pragma GCC unroll 4
      for (int i = 0; i < kRows; ++i) {
        if (i >= rows) break;
        const int64_t at = place + i * width + column;
        Vec<T> sum = line[i] + bias;
        if constexpr (!Plain) {
          if (epilogue.residual) sum += inside.load(epilogue.residual + at);
          sum = activate(epilogue, sum);
        }
        inside.store(y + at, sum);
      }
    }
}

template <class T>
static void convolve_rows(const ConvShape& s, const T* x, const Filters<T>& filters,
                          const ConvArgs<T>& args) {
  constexpr int kMostLanes = kVectorBytes == 64 ? 8 : 4, kMostVectors = kVectorBytes >= 32 ? 3 : 2;
  const int64_t outputs = s.k_per_group(), inputs = s.c_per_group();
  const int64_t parts = ceil_div(outputs, kRowsLanes);
  const int64_t part_size = inputs * s.kernel[2] * kRowsLanes,
                u_group = kElements * parts * part_size;
  parallel_for(s.groups, [&](int64_t g) {
    transform_row_filters(s, filters, g, args.workspace + g * u_group);
  });
  const RowBlocks cut = RowBlocks::of<T>(s);
  const bool plain = !args.epilogue.residual && args.epilogue.kind == ops::Activation::identity;
  parallel_for(cut.tasks, [&](int64_t task) {
    const int64_t band = task % cut.bands, g = task / cut.bands % s.groups;
    const int64_t n0 = task / (s.groups * cut.bands) * cut.images;
    const int64_t images = min_of(cut.images, s.n - n0);
    const int64_t block0 = band * cut.band, blocks = min_of(cut.band, cut.blocks - block0);
    const int64_t positions = images * blocks * cut.pitch;
    const int64_t vectors = ceil_div(positions, kLanes<T>), m_step = vectors * kLanes<T>;
    constexpr int64_t kSlack = (kMostVectors + 1) * kLanes<T>;
    const int64_t beyond = kSlack + (s.kernel[2] - 1) * s.dilation[2];
    const int64_t v_step = inputs * positions + beyond + kSkew;
    Scratch<T> v(kElements * v_step), m(kElements * outputs * m_step + kSlack), zeros(s.in[2]);
    for (int64_t i = 0; i < s.in[2]; ++i) zeros[i] = 0;
    const int64_t row0 = block0 * kRows, rows = min_of(s.out[1] - row0, blocks * kRows);
    for (int64_t c = 0; c < inputs; ++c)
      for (int64_t image = 0; image < images; ++image) {
        const int64_t channel = (n0 + image) * s.c + g * inputs + c;
        const T* y =
            args.result + ((n0 + image) * s.k + g * outputs + c) * s.out_size() + row0 * s.out[2];
        transform_blocks(s, x + channel * s.in_size(), zeros.get(), row0, blocks, cut.pitch,
                         &v[c * positions + image * blocks * cut.pitch], v_step,
                         x + s.n * s.c * s.in_size(), c < outputs ? y : nullptr);
      }
    const int64_t chunks = ceil_div(vectors, kMostVectors);
    for (int e = 0; e < kElements; ++e) {
      T* element = &v[e * v_step];
      for (int64_t i = 0; i < beyond; ++i) element[inputs * positions + i] = 0;
      for (int64_t k = 0; k < outputs;) {
        const int64_t lanes = min_of<int64_t>(outputs - k, kMostLanes);
        const T* u = args.workspace + g * u_group + (e * parts + k / kRowsLanes) * part_size +
                     k % kRowsLanes;
        int64_t done = 0;
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
          const int64_t first = chunk * vectors / chunks, end = (chunk + 1) * vectors / chunks;
          done = multiply_lanes<T, kMostLanes>(
              s, lanes, end - first, u, element + first * kLanes<T>, positions,
              &m[(k * kElements + e) * m_step + first * kLanes<T>], kElements * m_step);
        }
        k += done;
      }
    }
    for (int64_t k = 0; k < outputs; ++k)
      for (int64_t image = 0; image < images; ++image) {
        const int64_t channel = g * outputs + k;
        const int64_t place = ((n0 + image) * s.k + channel) * s.out_size() + row0 * s.out[2];
        const T* const source = &m[k * kElements * m_step + image * blocks * cut.pitch];
        const T bias = args.bias ? args.bias[channel] : T(0);
        if (plain)
          store_blocks<T, true>(args.epilogue, source, m_step, cut.pitch, rows, s.out[2], bias,
                                args.result, place);
        else
          store_blocks<T, false>(args.epilogue, source, m_step, cut.pitch, rows, s.out[2], bias,
                                 args.result, place);
      }
  });
}

// ---- weight gradient

// z[block * width + column][e][kLanes]: A dy of the blocks of `rows` rows of `lanes` planes of
// grad_y, plane_size apart; elements are z_step apart.
template <class T>
static void transform_gradients(const T* grad_y, int64_t plane_size, int64_t lanes, int64_t rows,
                                int64_t width, T* z, int64_t z_step) {
  for (; rows > 0; rows -= kRows, grad_y += kRows * width, z += width * kLanes<T>)
    for (int64_t column = 0; column < width; column += kLanes<T>) {
      const Lanes<T> inside(0, width - column);
      Vec<T> square[kElements][kLanes<T>];
      for (int64_t k = 0; k < kLanes<T>; ++k) {
        Vec<T> line[kRows], elements[kElements];
#pragma GCC unroll 4
        for (int i = 0; i < kRows; ++i)
          line[i] = k < lanes && i < rows
                        ? inside.load(grad_y + k * plane_size + i * width + column)
                        : Vec<T>{};
        winograd::output_gradient_line(line, elements);
        for (int e = 0; e < kElements; ++e) square[e][k] = elements[e];
      }
      for (int e = 0; e < kElements; ++e) {
        transpose<T>(square[e]);
        for (int64_t i = 0; i < min_of<int64_t>(kLanes<T>, width - column); ++i)
          store(z + e * z_step + (column + i) * kLanes<T>, square[e][i]);
      }
    }
}

template <class T, int Most, int Run>
static void outer_rows(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  const int64_t channels = s.c_per_group(), lanes = s.k_per_group(), width = s.out[2];
  const int64_t k_blocks = ceil_div(lanes, kLanes<T>);
  // Fewer inputs of a single task: others transform grad_y, too.
  int64_t c_block = kInputBlock;
  while (c_block > 4 && s.groups * k_blocks * ceil_div(channels, c_block) == 1) c_block /= 2;
  const int64_t c_blocks = ceil_div(channels, c_block);
  const int64_t pitch = width + Run - 1, blocks = ceil_div(s.out[1], kRows);
  const int64_t elements = min_of(channels, c_block) * pitch + width * kLanes<T>;
  const int64_t fit = kTaskBytes / (kElements * static_cast<int64_t>(sizeof(T)) * elements + 1);
  const int64_t bands = ceil_div(blocks, max_of<int64_t>(fit, 1));
  const int64_t band = bands ? ceil_div(blocks, bands) : 0;
  parallel_for(s.groups * k_blocks * c_blocks, [&](int64_t task) {
    const int64_t c0 = task % c_blocks * c_block, k0 = task / c_blocks % k_blocks * kLanes<T>;
    const int64_t g = task / (c_blocks * k_blocks);
    const int64_t c_count = min_of(channels - c0, c_block);
    const int64_t k_count = min_of<int64_t>(lanes - k0, kLanes<T>);
    const int64_t v_step = c_count * band * pitch + kLanes<T> + kSkew;
    const int64_t z_step = band * width * kLanes<T>, sums_step = c_count * Run * kLanes<T>;
    Scratch<T> v(kElements * v_step), z(kElements * z_step), sums(kElements * sums_step);
    Scratch<T> zeros(s.in[2]);
    Scratch<const T*> lines(c_count);
    for (int64_t i = 0; i < s.in[2]; ++i) zeros[i] = 0;
    for (int64_t i = 0; i < kElements * sums_step; ++i) sums[i] = 0;
    for (int64_t n = 0; n < s.n; ++n)
      for (int64_t block = 0; block < blocks; block += band) {
        const int64_t count = min_of(band, blocks - block), row = block * kRows;
        for (int64_t c = 0; c < c_count; ++c)
          transform_blocks<T>(s, args.x + (n * s.c + g * channels + c0 + c) * s.in_size(),
                              zeros.get(), row, count, pitch, &v[c * count * pitch], v_step,
                              args.x + s.n * s.c * s.in_size(), nullptr);
        transform_gradients(args.grad_y + (n * s.k + g * lanes + k0) * s.out_size() + row * width,
                            s.out_size(), k_count, min_of(s.out[1] - row, count * kRows), width,
                            z.get(), z_step);
        if (bands == 1 && n + 1 < s.n)  // the next image
          fetch_into_l2(args.grad_y + ((n + 1) * s.k + g * lanes + k0) * s.out_size(),
                        k_count * s.out_size());
        for (int e = 0; e < kElements; ++e) {
          for (int64_t c = 0; c < c_count; ++c) lines[c] = &v[e * v_step + c * count * pitch];
          all_segments<T, Most, Run>(c_count, lines.get(), &z[e * z_step], count, width, pitch,
                                     &sums[e * sums_step]);
        }
      }
    const int64_t taps = c_count * 3 * Run, room = ceil_div(taps, kLanes<T>) * kLanes<T>;
    Scratch<T> filters(room * kLanes<T>);
    for (int64_t i = taps * kLanes<T>; i < room * kLanes<T>; ++i) filters[i] = 0;
    for (int64_t i = 0; i < c_count * Run; ++i) {
      Vec<T> du[kElements], line[3];
      for (int e = 0; e < kElements; ++e) du[e] = load(&sums[e * sums_step + i * kLanes<T>]);
      winograd::filter_gradient_line(du, line);
      for (int r = 0; r < 3; ++r)
        store(&filters[((i / Run * 3 + r) * Run + i % Run) * kLanes<T>], line[r]);
    }
    for (int64_t i = 0; i < taps; i += kLanes<T>) {
      Vec<T> square[kLanes<T>];
      for (int j = 0; j < kLanes<T>; ++j) square[j] = load(&filters[(i + j) * kLanes<T>]);
      store_taps<T>(square, min_of<int64_t>(kLanes<T>, taps - i), k_count,
                    args.result + ((g * lanes + k0) * channels + c0) * 3 * Run + i,
                    channels * 3 * Run);
    }
  });
}

template <class T>
void conv_fprop_winograd4x1(const ConvArgs<T>& args) {
  convolve_rows(args.shape, args.x, forward_filters(args), args);
}
template <class T>
void conv_dgrad_winograd4x1(const ConvArgs<T>& args) {
  convolve_rows(conv_phase(args.shape, 0).shape, args.grad_y, backward_filters(args), args);
}

template <class T>
void conv_wgrad_winograd4x1(const ConvArgs<T>& args) {
  constexpr bool kWide = kVectorBytes == 64;  // 32 registers
  switch (args.shape.kernel[2]) {
    case 1:
      return outer_rows<T, 8, 1>(args);
    case 2:
      return outer_rows<T, kWide ? 8 : 4, 2>(args);
    case 3:
      return outer_rows<T, kWide ? 8 : 4, 3>(args);
    case 4:
      return outer_rows<T, kWide ? 6 : 2, 4>(args);
    case 5:
      return outer_rows<T, kWide ? 4 : 2, 5>(args);
  }
}

LAMINA_INSTANTIATE(conv_fprop_winograd4x1, ConvArgs)
LAMINA_INSTANTIATE(conv_dgrad_winograd4x1, ConvArgs)
LAMINA_INSTANTIATE(conv_wgrad_winograd4x1, ConvArgs)

LAMINA_CPU_NAMESPACE_END
