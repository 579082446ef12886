// conv, direct: the gradient of the weights.
//
// Method        With enough output channels a group, a vector holds kLanes of them: grad_y is
//               transposed, and each position multiplies its vector with up to 28 values of a
//               padded copy of x (cpu/phase_plane.h), one for each sum in registers. Neighbouring
//               taps of a row share a pointer. Fewer output channels take dot products over
//               vectors of positions (direct.h).
// Partitioning  group, block of output channels, block of input channels; all images.
// Numerics      a sum runs over the positions of a band of an image, then the bands in order.
// Floor         the products at the FMA peak; every one loads its factor from L1.
#include "cpu/direct_wgrad.h"
#include "cpu/outer_sums.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ConvArgs;
using ops::ConvShape;

inline constexpr int64_t kBandPositions = 512;   // terms of a sum in registers
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
  const int64_t c_blocks = ceil_div(channels, kInputBlock), k_blocks = ceil_div(lanes, kLanes<T>);
  const int64_t lines = s.kernel[0] * s.kernel[1], slots = lines * cut.slots();  // of a channel
  const int64_t line_segments = cut.remainders * cut.pieces;
  const PhasePlane least(s, 1);
  const int64_t row_elements =
      max_of<int64_t>(min_of(channels, kInputBlock), 1) * least.size / least.height;
  const int64_t fit = min_of(kBlockElements / row_elements - least.height + 1,
                             kBandPositions / max_of<int64_t>(s.out[2], 1));
  const int64_t bands = ceil_div(s.out[1], max_of(fit, least.height));
  const int64_t band = bands ? ceil_div(s.out[1], bands) : 0;
  Scratch<int64_t> slot_of(taps);
  for (int64_t i = 0; i < taps; ++i)
    slot_of[i] = i / s.kernel[2] * cut.slots() + cut.slot(i % s.kernel[2]);
  parallel_for(s.groups * k_blocks * c_blocks, [&](int64_t task) {
    const int64_t c0 = task % c_blocks * kInputBlock, k0 = task / c_blocks % k_blocks * kLanes<T>;
    const int64_t g = task / (c_blocks * k_blocks);
    const int64_t c_count = min_of(channels - c0, kInputBlock);
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
          for (int64_t i = 0; i < slack; ++i) x[c_count * plane.size + i] = 0;
          for (int64_t c = 0; c < c_count; ++c)
            fill_phase_plane(s, plane, args.x + (n * s.c + g * channels + c0 + c) * s.in_size(), o0,
                             row, MetPlanes(s), &x[c * plane.size]);
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
          all_segments<T, Most, Run>(segments, pointers.get(), grad_y.get(), rows, s.out[2],
                                     plane.pitch, sums.get());
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

template <class T>
void conv_wgrad_direct(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  constexpr bool kWide = kVectorBytes == 64;  // 32 registers
  const bool full = 2 * s.k_per_group() >= kLanes<T>;
  const bool neighbours = s.dilation[2] == greatest_divisor(s.stride[2], s.dilation[2]);
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
