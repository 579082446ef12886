// conv, gather_gemm: fprop and dgrad, where rows are short and channels many.
//
// Method        The channels are laid out behind each position, the filters as vectors of results
//               behind each tap. Tap by tap the pairs of positions that it joins (cpu/tap_pairs.h)
//               are multiplied, some at a time, and added to the results, which a unit keeps with
//               the channels last until the end: no product of padding, no copy of rows.
// Partitioning  group, run of rows of all images, blocks of result channels.
// Numerics      a sum runs over the channels of a tap, then the taps in order.
// Floor         the FMA peak; the filters stream from L2 once for a run.
#include "cpu/direct_pass.h"
#include "cpu/gather_gemm.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ConvArgs;
using ops::ConvShape;

// Steps from a tap of a run to the next, in x and in the filters.
struct RunSteps {
  int64_t count, x, weight;
};

// sums[pair.to] += x[pair.from] times the weights of `channels`, for kTileRows pairs and a run of
// taps.
template <class T, int Vectors>
[[gnu::noinline]] static void gather_tile(const T* x, int64_t width, const PositionPair* pairs,
                                          const T* weight, int64_t channels, RunSteps taps,
                                          T* sums) {
  constexpr int64_t kWidth = Vectors * kLanes<T>;
  Vec<T> sum[kTileRows][Vectors];
  const T* from[kTileRows];
#pragma GCC unroll 8
  for (int i = 0; i < kTileRows; ++i) {
    from[i] = x + pairs[i].from * width;
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) sum[i][j] = load(sums + pairs[i].to * kWidth + j * kLanes<T>);
  }
  for (; taps.count > 0; --taps.count, weight += taps.weight) {
    for (int64_t c = 0; c < channels; ++c) {
      Vec<T> factor[Vectors];
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) factor[j] = load(weight + c * kWidth + j * kLanes<T>);
#pragma GCC unroll 8
      for (int i = 0; i < kTileRows; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < Vectors; ++j) sum[i][j] += from[i][c] * factor[j];
    }
#pragma GCC unroll 8
    for (int i = 0; i < kTileRows; ++i) from[i] += taps.x;
  }
#pragma GCC unroll 8
  for (int i = 0; i < kTileRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) store(sums + pairs[i].to * kWidth + j * kLanes<T>, sum[i][j]);
}

// A convolution or the input gradient of one.
template <class T>
struct GatherGemm {
  const ConvArgs<T>& args;
  const ConvShape& s;
  const bool backward;
  const int64_t channels, results;   // of a group
  const int64_t taps, width;         // of a position's channels: whole vectors
  const int64_t from_size, to_size;  // positions of an image
  const VectorBlocks blocks;

  GatherGemm(const ConvArgs<T>& args, bool backward)
      : args(args),
        s(args.shape),
        backward(backward),
        channels(backward ? s.k_per_group() : s.c_per_group()),
        results(backward ? s.c_per_group() : s.k_per_group()),
        taps(s.kernel_size()),
        width(ceil_div(channels, kLanes<T>) * kLanes<T>),
        from_size(backward ? s.out_size() : s.in_size()),
        to_size(backward ? s.in_size() : s.out_size()),
        blocks(ceil_div(results, kLanes<T>)) {}

  int64_t filters_of_group() const { return blocks.vectors * kLanes<T> * taps * channels; }
  int64_t filters_before(int64_t block) const {
    return blocks.first(block) * kLanes<T> * taps * channels;
  }

  // Of a block of results, [tap][channel][vectors]; of some of its channels.
  void lay_block(int64_t g, int64_t block, int64_t channel, int64_t count, T* to) const {
    const int64_t lane = backward ? taps : channels * taps;
    const int64_t step = backward ? results * taps : taps;
    const int64_t k = blocks.first(block) * kLanes<T>, width = blocks.size(block) * kLanes<T>;
    const T* const from = args.weight + g * results * channels * taps + k * lane;
    const int64_t together = backward ? 1 : count;  // their taps follow one another
    for (const int64_t end = channel + count; channel < end; channel += together)
      lay_lines_last(
          from + channel * step, results - k, lane, together * taps, width,
          [&](int64_t i) { return to + (i % taps * channels + channel + i / taps) * width; });
  }
  // [group][block]
  void lay_filters(T* filters) const {
    constexpr int64_t kTogether = 16;
    const int64_t runs = ceil_div(channels, kTogether);
    parallel_for(s.groups * blocks.count * runs, [&](int64_t task) {
      const int64_t c = task % runs * kTogether, block = task / runs % blocks.count;
      const int64_t g = task / (runs * blocks.count);
      lay_block(g, block, c, min_of(kTogether, channels - c),
                filters + g * filters_of_group() + filters_before(block));
    });
  }

  // Results that a unit computes: positions of all images, blocks.
  struct Unit {
    int64_t g, begin, end, block, block_end;
  };
  // Where a unit keeps a block of its results, [position][vectors]; one position more takes what a
  // tile has beyond the last pair.
  int64_t sums_before(const Unit& unit, int64_t block) const {
    const int64_t vectors = blocks.first(block) - blocks.first(unit.block);
    return vectors * kLanes<T> * (unit.end - unit.begin + 1);
  }

  // filters[block] of the unit's group.
  template <class Filters>
  void compute(const Unit& unit, const TapPairs& met, const T* x, const Filters& filters) const {
    constexpr int64_t kChannels = 128;
    const int64_t positions = unit.end - unit.begin, elements = sums_before(unit, unit.block_end);
    Scratch<T> sums(elements);
    Scratch<PositionPair> pairs(positions + kTileRows);
    for (int64_t i = 0; i < elements; i += kLanes<T>) store(&sums[i], Vec<T>{});
    for (int64_t row = 0; row < s.kernel[0] * s.kernel[1]; ++row)
      for (int64_t e = 0; e < met.runs(); ++e) {
        const JoinedTaps& joined = met.run(e);
        const int64_t count = met.find(row / s.kernel[1], row % s.kernel[1], joined, unit.begin,
                                       unit.end, pairs.get());
        if (count == 0) continue;
        for (int64_t i = 0; i < kTileRows; ++i)
          pairs[count + i] = TapPairs::pair(pairs[count - 1].from, positions);
        for (int64_t block = unit.block; block < unit.block_end; ++block)
          with_vectors(blocks.size(block), [&](auto vectors) {
            constexpr int64_t kWidth = vectors * kLanes<T>;
            const int64_t of_tap = channels * kWidth;
            const T* const weight = filters(block) + (row * s.kernel[2] + joined.tap) * of_tap;
            const RunSteps steps = {joined.count, met.from_step() * width, met.tap_step() * of_tap};
            T* const to = &sums[sums_before(unit, block)];
            for (int64_t c = 0; c < channels; c += kChannels)
              for (int64_t i = 0; i < count; i += kTileRows)
                gather_tile<T, vectors>(x + c, width, &pairs[i], weight + c * kWidth,
                                        min_of(kChannels, channels - c), steps, to);
          });
      }
    for (int64_t block = unit.block; block < unit.block_end; ++block)
      store_block(unit, block, &sums[sums_before(unit, block)]);
  }

  void store_block(const Unit& unit, int64_t block, const T* sums) const {
    DirectPass<T> pass{};
    pass.epilogue = args.epilogue, pass.y = args.result, pass.y_step[2] = 1;
    const int64_t k = blocks.first(block) * kLanes<T>, of_position = blocks.size(block) * kLanes<T>;
    const T* const bias = args.bias ? args.bias + unit.g * results + k : nullptr;
    for (int64_t at = unit.begin; at < unit.end;) {  // of an image
      const int64_t image = at / to_size, end = min_of((image + 1) * to_size, unit.end);
      T* const y =
          args.result + ((image * s.groups + unit.g) * results + k) * to_size + at % to_size;
      store_outputs(pass, sums, of_position, end - at, bias, results - k, to_size, y);
      sums += (end - at) * of_position, at = end;
    }
  }

  void run() const {
    constexpr int64_t kRunPositions = 256;
    constexpr int64_t kFewest = 8, kFewestPositions = 16;  // units; positions of one
    const int64_t all = s.n * to_size;
    if (all * results * s.groups == 0) return;
    const Scratch<T> lines(s.groups * s.n * from_size * width);
    lay_channels_last(backward ? args.grad_y : args.x, s.n, s.groups, channels, from_size, width,
                      lines.get());
    const TapPairs met(s, backward, true);
    // Few units are cut by blocks of results first: runs of positions share the filters.
    const int64_t least =
        min_of(ceil_div(kFewest, s.groups * blocks.count), all / kFewestPositions);
    const int64_t run = ceil_div(all, max_of(ceil_div(all, kRunPositions), least));
    const int64_t runs = ceil_div(all, run);
    // The filters of a block that one unit reads are laid out by it and stay within L2.
    const bool own = runs == 1 && !args.packed;
    const Scratch<T> all_filters(own || args.packed ? 0 : s.groups * filters_of_group());
    T* const filters = args.packed ? args.packed->data : all_filters.get();
    if (!own && !(args.packed && args.packed->ready)) lay_filters(filters);
    if (args.packed) args.packed->ready = true;
    const int64_t few = own ? blocks.count : ceil_div(kFewest, s.groups * runs);
    const int64_t together = ceil_div(blocks.count, min_of(few, blocks.count));  // blocks
    const int64_t parts = ceil_div(blocks.count, together);
    parallel_for(s.groups * parts * runs, [&](int64_t index) {
      const int64_t begin = index % runs * run, block = index / runs % parts * together;
      const int64_t g = index / (runs * parts);
      const Unit unit = {g, begin, min_of(all, begin + run), block,
                         min_of(blocks.count, block + together)};
      const T* const x = lines.get() + g * s.n * from_size * width;
      const Scratch<T> own_filters(own ? filters_before(block + 1) - filters_before(block) : 0);
      if (own) lay_block(g, block, 0, channels, own_filters.get());
      compute(unit, met, x, [&](int64_t b) {
        return own ? own_filters.get() : filters + g * filters_of_group() + filters_before(b);
      });
    });
  }
};

template <class T>
void conv_fprop_gather_gemm(const ConvArgs<T>& args) {
  GatherGemm<T>(args, false).run();
}
template <class T>
void conv_dgrad_gather_gemm(const ConvArgs<T>& args) {
  GatherGemm<T>(args, true).run();
}

LAMINA_INSTANTIATE(conv_fprop_gather_gemm, ConvArgs)
LAMINA_INSTANTIATE(conv_dgrad_gather_gemm, ConvArgs)

LAMINA_CPU_NAMESPACE_END
