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
  const int64_t channels, results;  // of a group
  const int64_t taps, width;        // of a position's channels: whole vectors
  const int64_t from_size;
  const int64_t* const to;  // extents of the results
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
        to(backward ? s.in : s.out),
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

  void run() const {
    constexpr int64_t kRunPositions = 256, kChannels = 128;
    constexpr int64_t kFewest = 8, kFewestPositions = 16;  // units; positions of one
    const int64_t of_image = to[0] * to[1] * to[2], all = s.n * of_image;
    if (all * results * s.groups == 0) return;
    const Scratch<T> lines(s.groups * s.n * from_size * width);
    lay_channels_last(backward ? args.grad_y : args.x, s.n, s.groups, channels, from_size, width,
                      lines.get());
    const TapPairs met(s, backward, true);
    // Few units are cut by blocks of results first: runs of positions share the filters.
    const int64_t least =
        min_of(ceil_div(kFewest, s.groups * blocks.count), all / kFewestPositions);
    const int64_t run_count = max_of(ceil_div(all, kRunPositions), least);
    const int64_t run = ceil_div(all, run_count);
    // The filters of a block that one unit reads are laid out by it and stay within L2.
    const bool own = run_count == 1 && !args.packed;
    const Scratch<T> all_filters(own || args.packed ? 0 : s.groups * filters_of_group());
    T* const filters = args.packed ? args.packed->data : all_filters.get();
    if (!own && !(args.packed && args.packed->ready)) lay_filters(filters);
    if (args.packed) args.packed->ready = true;
    const int64_t few = own ? blocks.count : ceil_div(kFewest, s.groups * run_count);
    const int64_t together = ceil_div(blocks.count, min_of(few, blocks.count));  // blocks
    const int64_t parts = ceil_div(blocks.count, together);
    DirectPass<T> pass{};
    pass.epilogue = args.epilogue, pass.y = args.result, pass.y_step[2] = 1;
    parallel_for(s.groups * parts * run_count, [&](int64_t unit) {
      const int64_t begin = unit % run_count * run, part = unit / run_count % parts;
      const int64_t g = unit / (run_count * parts), end = min_of(all, begin + run);
      const int64_t first = part * together, last = min_of(blocks.count, first + together);
      const int64_t positions = end - begin, room = positions + 1;
      if (positions <= 0) return;
      const int64_t v0 = blocks.first(first);
      const int64_t elements = (blocks.first(last) - v0) * kLanes<T> * room;
      Scratch<T> sums(elements);
      Scratch<PositionPair> pairs(positions + kTileRows);
      const Scratch<T> own_filters(own ? filters_before(first + 1) - filters_before(first) : 0);
      if (own) lay_block(g, first, 0, channels, own_filters.get());
      for (int64_t i = 0; i < elements; i += kLanes<T>) store(&sums[i], Vec<T>{});
      const T* const x = lines.get() + g * s.n * from_size * width;
      for (int64_t row = 0; row < s.kernel[0] * s.kernel[1]; ++row)
        for (int64_t e = 0; e < met.runs(); ++e) {
          const JoinedTaps& run_taps = met.run(e);
          const int64_t count =
              met.find(row / s.kernel[1], row % s.kernel[1], run_taps, begin, end, pairs.get());
          if (count == 0) continue;
          for (int64_t i = 0; i < kTileRows;
               ++i)  // of the last tile, to a place behind the results
            pairs[count + i] = TapPairs::pair(pairs[count - 1].from, positions);
          for (int64_t block = first; block < last; ++block)
            with_vectors(blocks.size(block), [&](auto vectors) {
              const int64_t v = blocks.first(block), of_tap = channels * vectors * kLanes<T>;
              const T* const weight =
                  (own ? own_filters.get()
                       : filters + g * filters_of_group() + filters_before(block)) +
                  (row * s.kernel[2] + run_taps.tap) * of_tap;
              const RunSteps steps = {run_taps.count, met.from_step() * width,
                                      met.tap_step() * of_tap};
              T* const to = &sums[(v - v0) * kLanes<T> * room];
              for (int64_t c = 0; c < channels; c += kChannels)
                for (int64_t i = 0; i < count; i += kTileRows)
                  gather_tile<T, vectors>(x + c, width, &pairs[i], weight + c * vectors * kLanes<T>,
                                          min_of(kChannels, channels - c), steps, to);
            });
        }
      for (int64_t block = first; block < last; ++block) {
        const int64_t v = blocks.first(block), k = v * kLanes<T>,
                      of_position = blocks.size(block) * kLanes<T>;
        const T* from = &sums[(v - v0) * kLanes<T> * room];
        const T* bias = args.bias ? args.bias + g * results + k : nullptr;
        for (int64_t at = begin; at < end;) {
          const int64_t image = at / of_image;
          const int64_t count = min_of((image + 1) * of_image, end) - at;
          T* const y =
              args.result + ((image * s.groups + g) * results + k) * of_image + at % of_image;
          store_outputs(pass, from, of_position, count, bias, results - k, of_image, y);
          at += count, from += count * of_position;
        }
      }
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
