// conv, implicit GEMM: the matrix products of im2col, whose unrolled input exists only as the
// panels of a task.
//
//   fprop  y[k][o] = weight[k][c r] col[c r][o], positions o of all images
//   dgrad  fprop of grad_y with the filters turned by 180 degrees and k, c swapped
//
// A gradient at a stride or of few positions: cpu/conv_columns.h. A filter whose taps lie in the
// padding often: cpu/conv_parts.h. The weight gradient: conv_implicit_gemm_wgrad.cpp.
//
// Source        Chetlur et al. 2014 (cuDNN).
// Workspace     fprop and dgrad: the packed filters or, where positions are few, the packed input
//               (shared/implicit_gemm.h).
// Partitioning  blocks of the product of every group (cpu/gemm.h).
// Numerics      sums over (c, r) in runs of kBlockDepth, the runs in order.
// Floor         the FMA peak: a panel of 48 positions is packed once for up to 256 filters.
#include "cpu/activate.h"
#include "cpu/conv_columns.h"
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
                     T* workspace, ops::PackedFilters<T>* packed = nullptr) {
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
  // Block of depth by block of depth, so that a task reads its panels as they lie in memory.
  const int64_t row_panels = ceil_div(m, Tile::kRows);
  T* const all_filters = packed ? packed->data : plan.pack_input ? nullptr : workspace;
  const auto filter_place = [&](int64_t g, int64_t i, int64_t p, int64_t depth) {
    return all_filters + (g * k + p) * row_panels * Tile::kRows + i * depth;
  };
  parallel_for(!all_filters || (packed && packed->ready) ? 0 : s.groups * row_panels,
               [&](int64_t task) {
                 const int64_t g = task / row_panels, i = task % row_panels * Tile::kRows;
                 for (int64_t p = 0; p < k; p += Tile::kBlockDepth) {
                   const int64_t depth = min_of(Tile::kBlockDepth, k - p);
                   filters(g, i, min_of<int64_t>(Tile::kRows, m - i), p, depth,
                           filter_place(g, i, p, depth));
                 }
               });
  if (packed) packed->ready = true;
  const auto rows_of = [&](int64_t g, int64_t i, int64_t rows, int64_t p, int64_t depth,
                           T* panel) -> const T* {
    return all_filters ? filter_place(g, i, p, depth) : filters(g, i, rows, p, depth, panel);
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
    for (int64_t r = 0; r < rows; r += kRows)
      pack_panel<kRows>(args.weight + (g * m + i + r) * k + p, k, 1, rows - r, depth,
                        panel + r * depth, kRows);
    return panel;
  };
  if (in_parts(ConvPass::fprop, s)) {
    constexpr int64_t kRows = GemmTile<T>::kRows;
    const auto by_tap = [&](int64_t g, int64_t index, T* panel) {
      const int64_t inputs = s.c_per_group(), taps = s.kernel_size(), i = index * kRows;
      Scratch<T> by_channel(kRows * k);
      filters(g, i, min_of(kRows, m - i), 0, k, by_channel.get());
      panel += i * k;
      for (int64_t t = 0; t < taps; ++t)
        for (int64_t c = 0; c < inputs; ++c, panel += kRows)
          __builtin_memcpy(panel, &by_channel[(c * taps + t) * kRows], sizeof(T) * kRows);
    };
    return multiply_parts(args, ConvPass::fprop, args.x, ceil_div(m, kRows), by_tap);
  }
  multiply(
      s, args.x, filters,
      [&](int64_t g, int64_t i, int64_t rows, int64_t j, int64_t cols, const T* sums,
          int64_t step) { output.block(g * m + i, rows, j, cols, sums, step); },
      args.workspace);
}

// The filters of `rows` inputs for the gradient, which lie together for every output k in [begin,
// end): tap t of all inputs to place(k, t). Fetches those that lie `ahead` of them.
template <class T, class Place>
static void pack_taps(const T* weight, int64_t k_step, int64_t taps, int64_t rows, int64_t begin,
                      int64_t end, int64_t ahead, const Place& place) {
  constexpr int kRows = GemmTile<T>::kRows;
  if (kLanes<T> % kRows == 0 && 3 * taps > kLanes<T>) {
    // Squares: a vector is a tap of some outputs' inputs.
    constexpr int kTogether = kLanes<T> / kRows;
    for (int64_t k = begin; k < end; k += kTogether) {
      for (int64_t j = k; j < k + kTogether; ++j)
        prefetch_line(weight + j * k_step + ahead, rows * taps);
      for (int64_t t = 0; t < taps; t += kLanes<T>) {
        const Lanes<T> inside(0, taps - t);
        Vec<T> square[kLanes<T>];
#pragma GCC unroll 16
        for (int i = 0; i < kLanes<T>; ++i) {
          const int64_t j = k + i / kRows, row = i % kRows;
          square[i] =
              j < end && row < rows ? inside.load(weight + j * k_step + row * taps + t) : Vec<T>{};
        }
        transpose<T>(square);
        for (int64_t i = 0; i < min_of<int64_t>(kLanes<T>, taps - t); ++i)
          for (int64_t j = 0; j < min_of<int64_t>(kTogether, end - k); ++j)
            __builtin_memcpy(place(k + j, t + i),
                             reinterpret_cast<const T*>(&square[i]) + j * kRows, sizeof(T) * kRows);
      }
    }
    return;
  }
  for (int64_t k = begin; k < end; ++k) {
    prefetch_line(weight + k * k_step + ahead, rows * taps);
    for (int64_t t = 0; t < taps; ++t) {
      const T* source = weight + k * k_step + t;
      T* line = place(k, t);
      for (int64_t c = 0; c < kRows; ++c) line[c] = c < rows ? source[c * taps] : T(0);
    }
  }
}

// Filters [i, i + rows) of a group for the gradient, inputs and outputs swapped and turned by 180
// degrees, as a panel [depth][kRows] from depth p on.
template <class T>
static void pack_backward(const ConvArgs<T>& args, int64_t g, int64_t i, int64_t rows, int64_t p,
                          int64_t depth, T* panel) {
  constexpr int kRows = GemmTile<T>::kRows;
  const ConvShape& s = args.shape;
  const int64_t taps = s.kernel_size(), m = s.c_per_group();
  const T* weight = args.weight + (g * s.k_per_group() * m + i) * taps;
  if (taps == 1) return pack_panel<kRows>(weight + p * m, 1, m, rows, depth, panel, kRows);
  const auto some_taps = [&](int64_t from, int64_t to) {  // of one output
    for (; from < to; ++from) {
      const T* source = weight + from / taps * m * taps + (taps - 1 - from % taps);
      T* line = panel + (from - p) * kRows;
      for (int64_t c = 0; c < kRows; ++c) line[c] = c < rows ? source[c * taps] : T(0);
    }
  };
  const int64_t end = p + depth, first = min_of(ceil_div(p, taps) * taps, end);
  const int64_t last = max_of(end / taps * taps, first);
  constexpr int64_t kAhead = 16;  // outputs
  some_taps(p, first);
  pack_taps(weight, m * taps, taps, rows, first / taps, last / taps, kAhead * m * taps,
            [&](int64_t k, int64_t t) { return panel + (k * taps + taps - 1 - t - p) * kRows; });
  some_taps(last, end);
}

template <class T>
void conv_dgrad_implicit_gemm(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  if (in_columns(s)) return gradient_from_columns(args);
  if (in_parts(ConvPass::dgrad, s)) {
    const int64_t taps = s.kernel_size(), m = s.c_per_group(), outputs = s.k_per_group();
    constexpr int64_t kRows = GemmTile<T>::kRows;
    constexpr int64_t kSome = 32;  // outputs of a task, whose filters are turned over within L1
    const auto by_tap = [&](int64_t g, int64_t index, T* panel) {
      const int64_t first = index * kSome, count = min_of(kSome, outputs - first);
      Scratch<T> some(kSome * taps * kRows);
      const auto place = [&](int64_t k, int64_t t) {
        return &some[((k - first) * taps + t) * kRows];
      };
      for (int64_t i = 0; i < m; i += kRows, panel += kRows * outputs * taps) {
        const int64_t rows = min_of(kRows, m - i);
        if (taps == 1) {
          pack_backward(args, g, i, rows, first, count, panel + first * kRows);
          continue;
        }
        pack_taps(args.weight + (g * outputs * m + i) * taps, m * taps, taps, rows, first,
                  first + count, kRows * taps, place);
        for (int64_t t = 0; t < taps; ++t)
          for (int64_t k = first; k < first + count; ++k)
            __builtin_memcpy(panel + (t * outputs + k) * kRows, place(k, t), sizeof(T) * kRows);
      }
    };
    return multiply_parts(args, ConvPass::dgrad, args.grad_y, ceil_div(outputs, kSome), by_tap);
  }
  const auto filters = [&](int64_t g, int64_t i, int64_t rows, int64_t p, int64_t depth,
                           T* panel) -> const T* {
    constexpr int64_t kRows = GemmTile<T>::kRows;
    // Panels share the cache lines of a single tap.
    const int64_t chunk = s.kernel_size() == 1 && rows > kRows ? 16 : depth;
    for (int64_t q = 0; q < depth; q += chunk)
      for (int64_t r = 0; r < rows; r += kRows)
        pack_backward(args, g, i + r, min_of(kRows, rows - r), p + q, min_of(chunk, depth - q),
                      panel + r * depth + q * kRows);
    return panel;
  };
  const ConvStore<T> output{args, s.c, s.in_size()};
  multiply(
      conv_phase(s, 0).shape, args.grad_y, filters,
      [&](int64_t g, int64_t i, int64_t rows, int64_t j, int64_t cols, const T* sums,
          int64_t step) { output.block(g * s.c_per_group() + i, rows, j, cols, sums, step); },
      args.workspace, args.packed);
}

LAMINA_INSTANTIATE(conv_fprop_implicit_gemm, ConvArgs)
LAMINA_INSTANTIATE(conv_dgrad_implicit_gemm, ConvArgs)

LAMINA_CPU_NAMESPACE_END
