// conv, gather_gemm: the gradient of the weights, where rows are short and channels many.
//
// Method        x and grad_y are laid out with the channels last. Tap by tap, the pairs of
// positions
//               that it joins (cpu/tap_pairs.h) add the outer product of a few channels of one,
//               broadcast, and vectors of channels of the other to sums in registers. Broadcast are
//               those of x, or of grad_y where fewer products are then wasted.
// Partitioning  group, block of broadcast channels, blocks of vectors; all images.
// Numerics      sums of up to kRunPairs pairs, added in order of images and positions.
// Floor         the FMA peak.
#include "cpu/gather_gemm.h"
#include "cpu/outer_sums.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ConvArgs;
using ops::ConvShape;

inline constexpr int64_t kRowBlock = 16;  // broadcast channels of a task

// Some images of the operands: values[position][kRowBlock] and vectors[position][Vectors].
template <class T>
struct OuterImages {
  const T *values, *vectors;
  int64_t value_step, vector_step;  // to the next image
  int64_t count;
};

// sums[row][vector], rows `step` apart, += values times vectors of the pairs of all images.
template <class T, int Vectors, bool Swapped>
[[gnu::noinline]] static void outer_tile(const PositionPair* pairs, int64_t count,
                                         OuterImages<T> images, T* sums, int64_t step) {
  constexpr int64_t kWidth = Vectors * kLanes<T>;
  Vec<T> sum[kTileRows][Vectors] = {};
  for (; images.count > 0; --images.count) {
    for (int64_t p = 0; p < count; ++p) {
      const PositionPair pair = pairs[p];
      const T* value = images.values + (Swapped ? pair.to : pair.from) * kRowBlock;
      const T* of = images.vectors + (Swapped ? pair.from : pair.to) * kWidth;
      Vec<T> factor[Vectors];
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) factor[j] = load(of + j * kLanes<T>);
#pragma GCC unroll 8
      for (int i = 0; i < kTileRows; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < Vectors; ++j) sum[i][j] += value[i] * factor[j];
    }
    images.values += images.value_step, images.vectors += images.vector_step;
  }
#pragma GCC unroll 8
  for (int i = 0; i < kTileRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) {
      T* place = sums + i * step + j * kLanes<T>;
      store(place, load(place) + sum[i][j]);
    }
}

// An operand whose channels are broadcast, or are vectors.
template <class T>
struct Side {
  const T* data;
  int64_t channels, positions;  // of a group; of an image

  LAMINA_INLINE const T* image(const ConvShape& s, int64_t n, int64_t g, int64_t channel) const {
    return data + ((n * s.groups + g) * channels + channel) * positions;
  }
};

// rows are the inputs and columns the outputs or, Swapped, the other way round.
template <class T, bool Swapped>
struct GatherGradient {
  const ConvArgs<T>& args;
  const ConvShape& s;
  const Side<T> rows, columns;
  const int64_t taps, positions;  // of an output plane
  const VectorBlocks blocks;
  int64_t row_blocks, block_parts, tap_parts;
  int64_t blocks_together, taps_together, images_together;
  const Scratch<T> vectors;            // [group][block][image][position][vectors]
  const Scratch<PositionPair> pairs;   // of an image: [tap][positions], of which
  const Scratch<int64_t> pair_counts;  // [tap]

  GatherGradient(const ConvArgs<T>& args, const Side<T>& rows, const Side<T>& columns)
      : args(args),
        s(args.shape),
        rows(rows),
        columns(columns),
        taps(s.kernel_size()),
        positions(s.out_size()),
        blocks(ceil_div(columns.channels, kLanes<T>)),
        vectors(s.groups * blocks.vectors * kLanes<T> * s.n * columns.positions),
        pairs(taps * positions),
        pair_counts(taps) {
    constexpr int64_t kChunk = 1 << 11;  // positions: what is broadcast stays within L2
    constexpr int64_t kSums = 1 << 17, kFewest = 8, kFewestTasks = 4;
    row_blocks = ceil_div(rows.channels, kRowBlock);
    const int64_t sums = blocks.vectors * kLanes<T> * kRowBlock * taps;
    const int64_t wanted = max_of(ceil_div(kFewest, s.groups * row_blocks), ceil_div(sums, kSums));
    blocks_together = ceil_div(blocks.count, min_of(wanted, blocks.count));
    block_parts = ceil_div(blocks.count, blocks_together);
    const int64_t few = ceil_div(kFewestTasks, s.groups * row_blocks * block_parts);
    taps_together = ceil_div(taps, min_of(few, taps));
    tap_parts = ceil_div(taps, taps_together);
    images_together = min_of(s.n, max_of<int64_t>(kChunk / max_of<int64_t>(rows.positions, 1), 1));
  }

  const T* vectors_of(int64_t g, int64_t block, int64_t n) const {
    const int64_t of_group = blocks.vectors * kLanes<T> * s.n * columns.positions;
    const int64_t before = blocks.first(block) * s.n + n * blocks.size(block);
    return vectors.get() + g * of_group + before * kLanes<T> * columns.positions;
  }
  void lay_vectors() const {
    constexpr int64_t kRun = 64;
    const int64_t runs = ceil_div(columns.positions, kRun);
    parallel_for(s.groups * blocks.count * s.n * runs, [&](int64_t task) {
      const int64_t first = task % runs * kRun, n = task / runs % s.n;
      const int64_t block = task / (runs * s.n) % blocks.count;
      const int64_t g = task / (runs * s.n * blocks.count), k = blocks.first(block) * kLanes<T>;
      const int64_t width = blocks.size(block) * kLanes<T>;
      T* const to = const_cast<T*>(vectors_of(g, block, n)) + first * width;
      lay_lines_last(columns.image(s, n, g, k) + first, columns.channels - k, columns.positions,
                     min_of(kRun, columns.positions - first), width,
                     [&](int64_t i) { return to + i * width; });
    });
  }
  void find_pairs() const {
    constexpr int64_t kTaskPairs = 1 << 13;
    const TapPairs met(s, false, false);
    const int64_t grain = ceil_div(kTaskPairs, max_of<int64_t>(positions, 1));
    parallel_ranges(taps, grain, [&](int64_t tap, int64_t end) {
      for (; tap < end; ++tap) {
        const int64_t row = tap / s.kernel[2];
        pair_counts[tap] =
            met.find(row / s.kernel[1], row % s.kernel[1], met.run(tap % s.kernel[2]), 0, positions,
                     &pairs[tap * positions]);
      }
    });
  }

  // What a task sums up: [block][row][tap][vectors].
  struct Task {
    int64_t g, row, row_count;  // broadcast channels
    int64_t tap, tap_end, block, block_end;
    int64_t row_step;  // in vectors of a block
  };

  template <int Vectors>
  LAMINA_INLINE void add_pairs(const Task& task, int64_t tap, const T* values, const T* of_block,
                               int64_t images, T* sums) const {
    constexpr int64_t kRunPairs = 512, kWidth = Vectors * kLanes<T>;
    const int64_t count = pair_counts[tap];
    const int64_t value_step = rows.positions * kRowBlock, vector_step = columns.positions * kWidth;
    const int64_t together = max_of<int64_t>(kRunPairs / max_of<int64_t>(count, 1), 1);
    for (int64_t n = 0; n < images; n += together)
      for (int64_t p = 0; p < count; p += kRunPairs)
        for (int64_t i = 0; i < task.row_count; i += kTileRows)
          outer_tile<T, Vectors, Swapped>(&pairs[tap * positions + p], min_of(kRunPairs, count - p),
                                          {values + n * value_step + i, of_block + n * vector_step,
                                           value_step, vector_step, min_of(together, images - n)},
                                          sums + i * task.row_step * kWidth,
                                          task.row_step * kWidth);
  }

  void run(const Task& task) const {
    const int64_t value_step = rows.positions * kRowBlock, v0 = blocks.first(task.block);
    const int64_t of_vector = kRowBlock * task.row_step * kLanes<T>;
    const int64_t elements = (blocks.first(task.block_end) - v0) * of_vector;
    Scratch<T> values(images_together * value_step), sums(elements);
    for (int64_t i = 0; i < elements; i += kLanes<T>) store(&sums[i], Vec<T>{});
    for (int64_t n = 0; n < s.n; n += images_together) {
      const int64_t images = min_of(images_together, s.n - n);
      for (int64_t i = 0; i < images; ++i)
        lay_lines_last(rows.image(s, n + i, task.g, task.row), task.row_count, rows.positions,
                       rows.positions, kRowBlock,
                       [&](int64_t q) { return &values[i * value_step + q * kRowBlock]; });
      for (int64_t tap = task.tap; tap < task.tap_end; ++tap)
        for (int64_t block = task.block; block < task.block_end; ++block)
          with_vectors(blocks.size(block), [&](auto size) {
            T* const to = &sums[(blocks.first(block) - v0) * of_vector];
            add_pairs<size>(task, tap, values.get(), vectors_of(task.g, block, n), images,
                            to + (tap - task.tap) * size * kLanes<T>);
          });
    }
    for (int64_t block = task.block; block < task.block_end; ++block)
      store_block(task, block, &sums[(blocks.first(block) - v0) * of_vector]);
  }

  void store_block(const Task& task, int64_t block, const T* sums) const {
    // Steps in the result: channels that are vectors, channels that were broadcast.
    const int64_t lane = Swapped ? taps : rows.channels * taps;
    const int64_t row = Swapped ? columns.channels * taps : taps;
    // Taps that follow one another, of all rows at once where the rows do too.
    const bool joined = row == task.row_step;
    const int64_t count = joined ? task.row_count * taps : task.row_step;
    const int64_t width = blocks.size(block) * kLanes<T>;
    T* const first =
        args.result + task.g * rows.channels * columns.channels * taps + task.row * row + task.tap;
    for (int64_t j = 0; j < width; j += kLanes<T>) {
      const int64_t k = blocks.first(block) * kLanes<T> + j;
      for (int64_t i = 0; i < (joined ? 1 : task.row_count); ++i)
        for (int64_t q = 0; q < count; q += kLanes<T>) {
          const int64_t some = min_of<int64_t>(count - q, kLanes<T>);
          Vec<T> square[kLanes<T>];
#pragma GCC unroll 16
          for (int l = 0; l < kLanes<T>; ++l)
            square[l] = l < some ? load(sums + (i * task.row_step + q + l) * width + j) : Vec<T>{};
          store_taps<T>(square, some, min_of<int64_t>(columns.channels - k, kLanes<T>),
                        first + k * lane + i * row + q, lane);
        }
    }
  }

  void run() const {
    lay_vectors();
    find_pairs();
    parallel_for(s.groups * row_blocks * block_parts * tap_parts, [&](int64_t index) {
      const int64_t tap = index % tap_parts * taps_together;
      const int64_t block = index / tap_parts % block_parts * blocks_together;
      const int64_t row = index / (tap_parts * block_parts) % row_blocks * kRowBlock;
      const int64_t tap_end = min_of(taps, tap + taps_together);
      run({index / (tap_parts * block_parts * row_blocks), row,
           min_of(kRowBlock, rows.channels - row), tap, tap_end, block,
           min_of(blocks.count, block + blocks_together), tap_end - tap});
    });
  }
};

template <class T>
void conv_wgrad_gather_gemm(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  const Side<T> x = {args.x, s.c_per_group(), s.in_size()};
  const Side<T> grad_y = {args.grad_y, s.k_per_group(), s.out_size()};
  if (x.channels * grad_y.channels * s.kernel_size() == 0) return;
  const auto products = [](int64_t rows, int64_t columns) {
    return ceil_div(rows, kTileRows) * kTileRows * ceil_div(columns, kLanes<T>) * kLanes<T>;
  };
  if (products(x.channels, grad_y.channels) <= products(grad_y.channels, x.channels))
    GatherGradient<T, false>(args, x, grad_y).run();
  else
    GatherGradient<T, true>(args, grad_y, x).run();
}

LAMINA_INSTANTIATE(conv_wgrad_gather_gemm, ConvArgs)

LAMINA_CPU_NAMESPACE_END
