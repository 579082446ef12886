// conv, direct: the gradient of the weights.
//
// Method        With enough output channels a group, a vector holds kLanes of them: grad_y is
//               transposed, and each position multiplies its vector with up to 28 values of a
//               padded copy of x (cpu/phase_plane.h), one for each sum in registers. Neighbouring
//               taps of a row share a pointer. Fewer output channels take dot products over
//               vectors of positions (direct_wgrad.h). So do filters along the depth alone, whose
//               planes are read where they lie.
// Partitioning  group, block of output channels, block of input channels; all images.
// Numerics      a sum runs over the positions of a band of an image, then the bands in order;
//               sums of dot products lane by lane.
// Floor         the products at the FMA peak; every one loads its factor from L1.
#include "cpu/direct_wgrad.h"
#include "cpu/outer_sums.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ConvArgs;
using ops::ConvShape;

inline constexpr int64_t kBandPositions = 512;  // terms of a sum in registers
inline constexpr int64_t kFewTasks = 4;
inline constexpr int64_t kBlockElements = 8192;  // of the copy of x: stays in L1

// The taps of a row of the filter that follow one another in the copy, in segments of Run.
struct Segments {
  int64_t period, remainders, pieces;  // see PhasePlane; segments of a remainder
  int64_t run;                         // taps of a segment; some are beyond the last

  LAMINA_INLINE explicit Segments(const ConvShape& s)
      : period(PhasePlane::period(s, 2)), remainders(min_of(s.kernel[2], period)) {
    constexpr int64_t kLongest = 7;
    const int64_t taps = ceil_div(s.kernel[2], remainders);
    pieces = ceil_div(taps, kLongest);
    run = ceil_div(taps, pieces);
  }
  LAMINA_INLINE int64_t slots() const { return remainders * pieces * run; }
  LAMINA_INLINE int64_t slot(int64_t tap) const {
    return tap % period * pieces * run + tap / period;
  }
};

template <class T, int Most, int Run>
static void outer_wgrad(const ConvArgs<T>& args, const Segments& cut) {
  const ConvShape& s = args.shape;
  const int64_t channels = s.c_per_group(), lanes = s.k_per_group(), taps = s.kernel_size();
  const int64_t k_blocks = ceil_div(lanes, kLanes<T>);
  // Fewer inputs where tasks are few: each transposes grad_y.
  int64_t c_block = kInputBlock;
  while (c_block > 4 && s.groups * k_blocks * ceil_div(channels, c_block) < kFewTasks) c_block /= 2;
  const int64_t c_blocks = ceil_div(channels, c_block);
  const int64_t lines = s.kernel[0] * s.kernel[1], slots = lines * cut.slots();  // of a channel
  const int64_t line_segments = cut.remainders * cut.pieces;
  const PhasePlane least(s, 1);
  const int64_t row_elements =
      max_of<int64_t>(min_of(channels, c_block), 1) * least.size / least.height;
  const int64_t fit = min_of(kBlockElements / row_elements - least.height + 1,
                             kBandPositions / max_of<int64_t>(s.out[2], 1));
  const int64_t bands = ceil_div(s.out[1], max_of(fit, least.height));
  const int64_t band = bands ? ceil_div(s.out[1], bands) : 0;
  Scratch<int64_t> slot_of(taps);
  for (int64_t i = 0; i < taps; ++i)
    slot_of[i] = i / s.kernel[2] * cut.slots() + cut.slot(i % s.kernel[2]);
  parallel_for(s.groups * k_blocks * c_blocks, [&](int64_t task) {
    const int64_t c0 = task % c_blocks * c_block, k0 = task / c_blocks % k_blocks * kLanes<T>;
    const int64_t g = task / (c_blocks * k_blocks);
    const int64_t c_count = min_of(channels - c0, c_block);
    const int64_t k_count = min_of<int64_t>(lanes - k0, kLanes<T>);
    const int64_t segments = c_count * lines * line_segments;
    const PhasePlane largest(s, band);
    const int64_t slack = Run + kLanes<T>;  // read beyond the last row, for taps nobody stores
    Scratch<T> x(c_count * largest.size + slack), grad_y(band * s.out[2] * kLanes<T>);
    Scratch<T> sums(c_count * slots * kLanes<T>);
    Scratch<const T*> pointers(segments);
    for (int64_t i = 0; i < c_count * slots * kLanes<T>; ++i) sums[i] = 0;
    for (int64_t n = 0; n < s.n; ++n)
      for (int64_t o0 = 0; o0 < s.out[0]; ++o0)
        for (int64_t row = 0; row < s.out[1]; row += band) {
          const int64_t rows = min_of(band, s.out[1] - row);
          const PhasePlane plane(s, rows);
          const MetTaps met(s, 0, o0);
          for (int64_t i = 0; i < slack; ++i) x[c_count * plane.size + i] = 0;
          for (int64_t c = 0; c < c_count; ++c)
            fill_phase_plane(s, plane, args.x + (n * s.c + g * channels + c0 + c) * s.in_size(), o0,
                             row, met, &x[c * plane.size]);
          positions_first(args.grad_y + (n * s.k + g * lanes + k0) * s.out_size() +
                              (o0 * s.out[1] + row) * s.out[2],
                          s.out_size(), k_count, rows * s.out[2], grad_y.get());
          for (int64_t line = 0; line < lines; ++line)
            for (int64_t i = 0; i < line_segments; ++i) {
              const T* first =
                  &x[plane.offset(s, line / s.kernel[1], line % s.kernel[1], i / cut.pieces) +
                     i % cut.pieces * Run];
              for (int64_t c = 0; c < c_count; ++c)
                pointers[(c * lines + line) * line_segments + i] = first + c * plane.size;
            }
          if (bands == 1 && n + 1 < s.n) {  // the next image
            const int64_t in = s.c * s.in_size(), out = s.k * s.out_size();
            fetch_into_l2(args.x + (n * s.c + g * channels + c0) * s.in_size() + in,
                          c_count * s.in_size());
            fetch_into_l2(args.grad_y + (n * s.k + g * lanes + k0) * s.out_size() + out,
                          k_count * s.out_size());
          }
          const auto sum_up = [&](int64_t first, int64_t count) {
            all_segments<T, Most, Run>(count, &pointers[first], grad_y.get(), rows, s.out[2],
                                       plane.pitch, &sums[first * Run * kLanes<T>]);
          };
          if (met.count() == s.kernel[0]) {
            sum_up(0, segments);
            continue;
          }
          const int64_t of_plane = s.kernel[1] * line_segments;
          for (int64_t c = 0; c < c_count; ++c)
            sum_up((c * s.kernel[0] + met.first) * of_plane, met.count() * of_plane);
        }
    int64_t c = 0, tap = 0;
    for (int64_t i = 0; i < c_count * taps; i += kLanes<T>) {
      const int64_t count = min_of<int64_t>(kLanes<T>, c_count * taps - i);
      const int64_t first_c = c, first_tap = tap;
      Vec<T> square[kLanes<T>];
      for (int j = 0; j < kLanes<T>; ++j) {
        if (j >= count) {
          square[j] = Vec<T>{};
          continue;
        }
        square[j] = load(&sums[(c * slots + slot_of[tap]) * kLanes<T>]);
        if (++tap == taps) tap = 0, ++c;
      }
      T* const first = args.result + ((g * lanes + k0) * channels + c0) * taps + i;
      if (store_taps<T>(square, count, k_count, first, channels * taps)) continue;
      for (int64_t k = 0; k < k_count; ++k)
        for (int64_t j = 0; j < count; ++j) {
          T& value = first[k * channels * taps + j];
          if (!(value - value == T(0)))
            value = exact_weight_gradient(args, g * lanes + k0 + k,
                                          c0 + first_c + (first_tap + j) / taps,
                                          (first_tap + j) % taps);
        }
    }
  });
}

// sums[Outputs][Taps][kLanes] += grad_y times x, vector by vector of `count` positions.
template <class T, int Outputs, int Taps>
[[gnu::noinline]] static void add_dots(const T* const (&grad_y)[Outputs], const T* const (&x)[Taps],
                                       int64_t count, T* sums) {
  Vec<T> sum[Outputs][Taps] = {};
  const auto add = [&](const auto& load_at) {
    Vec<T> line[Taps];
#pragma GCC unroll 8
    for (int j = 0; j < Taps; ++j) line[j] = load_at(x[j]);
#pragma GCC unroll 8
    for (int i = 0; i < Outputs; ++i) {
      const Vec<T> factor = load_at(grad_y[i]);
#pragma GCC unroll 8
      for (int j = 0; j < Taps; ++j) sum[i][j] += factor * line[j];
    }
  };
  int64_t q = 0;
  for (; q + kLanes<T> <= count; q += kLanes<T>) add([&](const T* p) { return load(p + q); });
  if (q < count) add([&](const T* p) { return load_first(p + q, count - q); });
#pragma GCC unroll 8
  for (int i = 0; i < Outputs; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < Taps; ++j) {
      T* place = sums + (i * Taps + j) * kLanes<T>;
      store(place, load(place) + sum[i][j]);
    }
}

// Whether taps differ in the plane of x alone, whose positions are those of grad_y.
static bool along_depth(const ConvShape& s) {
  bool flat = s.kernel[0] > 1;
  for (int axis = 1; axis < 3; ++axis)
    flat &=
        s.kernel[axis] == 1 && s.stride[axis] == 1 && s.pad[axis] == 0 && s.in[axis] == s.out[axis];
  return flat;
}

template <class T>
static void depth_wgrad(const ConvArgs<T>& args) {
  constexpr int64_t kChannels = 4, kOutputs = 4, kTaps = 3, kTile = kOutputs * kTaps * kLanes<T>;
  const ConvShape& s = args.shape;
  const int64_t channels = s.c_per_group(), lanes = s.k_per_group(), taps = s.kernel[0];
  const int64_t c_blocks = ceil_div(channels, kChannels), area = s.in[1] * s.in[2];
  const int64_t k_tiles = ceil_div(lanes, kOutputs), tap_tiles = ceil_div(taps, kTaps);
  parallel_for(s.groups * c_blocks, [&](int64_t task) {
    const int64_t g = task / c_blocks, c0 = task % c_blocks * kChannels;
    const int64_t c_count = min_of(channels - c0, kChannels);
    Scratch<T> sums(c_count * tap_tiles * k_tiles * kTile), zeros(kBandPositions);
    for (int64_t i = 0; i < c_count * tap_tiles * k_tiles * kTile; ++i) sums[i] = 0;
    for (int64_t i = 0; i < kBandPositions; ++i) zeros[i] = 0;
    for (int64_t n = 0; n < s.n; ++n)
      for (int64_t o0 = 0; o0 < s.out[0]; ++o0)
        for (int64_t at = 0; at < area; at += kBandPositions) {
          const T* x = args.x + (n * s.c + g * channels + c0) * s.in_size() + at;
          const T* grad_y = args.grad_y + (n * s.k + g * lanes) * s.out_size() + o0 * area + at;
          T* tile = sums.get();
          for (int64_t c = 0; c < c_count; ++c)
            for (int64_t t = 0; t < taps; t += kTaps) {
              const T* source[kTaps];
              for (int64_t j = 0; j < kTaps; ++j) {
                const int64_t i0 = o0 * s.stride[0] - s.pad[0] + (t + j) * s.dilation[0];
                const bool met = t + j < taps && i0 >= 0 && i0 < s.in[0];
                if (met)
                  prefetch_line(x + c * s.in_size() + i0 * area + kBandPositions, kBandPositions);
                source[j] = met ? x + c * s.in_size() + i0 * area : zeros.get();
              }
              for (int64_t k = 0; k < lanes; k += kOutputs, tile += kTile) {
                const T* factor[kOutputs];
                for (int64_t i = 0; i < kOutputs; ++i)  // the last one again and again
                  factor[i] = grad_y + min_of(k + i, lanes - 1) * s.out_size();
                add_dots<T, kOutputs, kTaps>(factor, source, min_of(area - at, kBandPositions),
                                             tile);
              }
            }
        }
    for (int64_t k = 0; k < lanes; ++k)
      for (int64_t c = 0; c < c_count; ++c)
        for (int64_t r = 0; r < taps; ++r) {
          const int64_t tile = (c * tap_tiles + r / kTaps) * k_tiles + k / kOutputs;
          const int64_t place = k % kOutputs * kTaps + r % kTaps;
          T value = sum_lanes<T>(load(&sums[tile * kTile + place * kLanes<T>]));
          if (!(value - value == T(0)))
            value = exact_weight_gradient(args, g * lanes + k, c0 + c, r);
          args.result[((g * lanes + k) * channels + c0 + c) * taps + r] = value;
        }
  });
}

template <class T>
void conv_wgrad_direct(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  constexpr bool kWide = kVectorBytes == 64;  // 32 registers
  const bool full = 2 * s.k_per_group() >= kLanes<T>;
  const bool neighbours = s.dilation[2] == greatest_divisor(s.stride[2], s.dilation[2]);
  if (along_depth(s)) return depth_wgrad(args);
  if (!full || !neighbours || s.kernel[2] == 0) return direct_wgrad<T, 4, 3>(args);
  const Segments cut(s);
  if (cut.run == 2) return outer_wgrad<T, kWide ? 8 : 4, 2>(args, cut);
  if (cut.run == 3) return outer_wgrad<T, kWide ? 8 : 4, 3>(args, cut);
  if (cut.run == 4) return outer_wgrad<T, kWide ? 6 : 2, 4>(args, cut);
  if (cut.run == 5) return outer_wgrad<T, kWide ? 4 : 2, 5>(args, cut);
  if (cut.run == 6) return outer_wgrad<T, kWide ? 4 : 2, 6>(args, cut);
  if (cut.run == 7) return outer_wgrad<T, kWide ? 4 : 1, 7>(args, cut);
  direct_wgrad<T, 4, 3>(args);
}

LAMINA_INSTANTIATE(conv_wgrad_direct, ConvArgs)

LAMINA_CPU_NAMESPACE_END
