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
#include "cpu/direct.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ConvArgs;
using ops::ConvShape;

inline constexpr int64_t kInputBlock = 16;       // input channels of a task
inline constexpr int64_t kBandPositions = 512;   // terms of a sum in registers
inline constexpr int64_t kBlockElements = 8192;  // of the copy of x: stays in L1

// sums[Segments * Run][kLanes] += grad_y times x: segment i's tap j meets position q of the band at
// x[i][q + j]. Rows of `columns` positions lie `pitch` apart in x, one behind the other in grad_y.
template <class T, int Segments, int Run>
[[gnu::noinline]] static void outer_sums(const T* const* x, const T* grad_y, int64_t rows,
                                         int64_t columns, int64_t pitch, T* sums) {
  Vec<T> sum[Segments][Run] = {};
  const T* source[Segments];
#pragma GCC unroll 16
  for (int i = 0; i < Segments; ++i) source[i] = x[i];
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t q = row * pitch; q < row * pitch + columns; ++q, grad_y += kLanes<T>) {
      // Hides that the next position shares factors: kept in registers they would cost more moves
      // than the products cost loads.
      __asm__("" : "+r"(q));
      const Vec<T> factor = load(grad_y);
#pragma GCC unroll 16
      for (int i = 0; i < Segments; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < Run; ++j) sum[i][j] += source[i][q + j] * factor;
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < Segments; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < Run; ++j) {
      T* place = sums + (i * Run + j) * kLanes<T>;
      store(place, load(place) + sum[i][j]);
    }
}

template <class T, int Segments, int Run>
static void all_segments(int64_t count, const T* const* x, const T* grad_y, int64_t rows,
                         int64_t columns, int64_t pitch, T* sums) {
  for (; count >= Segments; count -= Segments, x += Segments, sums += Segments * Run * kLanes<T>)
    outer_sums<T, Segments, Run>(x, grad_y, rows, columns, pitch, sums);
  if constexpr (Segments > 1)
    all_segments<T, Segments / 2, Run>(count, x, grad_y, rows, columns, pitch, sums);
}

// to[q][kLanes] = from[lane][q] of `lanes` planes plane_size apart; the other lanes are zero.
template <class T>
static void positions_first(const T* from, int64_t plane_size, int64_t lanes, int64_t positions,
                            T* to) {
  for (int64_t q = 0; q < positions; q += kLanes<T>) {
    Vec<T> square[kLanes<T>];
    for (int i = 0; i < kLanes<T>; ++i)
      square[i] = i < lanes ? load_first(from + i * plane_size + q, positions - q) : Vec<T>{};
    transpose<T>(square);
    for (int64_t i = 0; i < min_of<int64_t>(kLanes<T>, positions - q); ++i)
      store(to + (q + i) * kLanes<T>, square[i]);
  }
}

template <class T, int Segments, int Run>
static void outer_wgrad(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  const int64_t channels = s.c_per_group(), lanes = s.k_per_group(), taps = s.kernel_size();
  const int64_t c_blocks = ceil_div(channels, kInputBlock), k_blocks = ceil_div(lanes, kLanes<T>);
  const int64_t fit = kBlockElements / (max_of<int64_t>(min_of(channels, kInputBlock), 1) *
                                        PhasePlane(s, 1).size / PhasePlane(s, 1).height) -
                      PhasePlane(s, 1).height + 1;
  const int64_t most = min_of(fit, kBandPositions / max_of<int64_t>(s.out[2], 1));
  const int64_t bands = ceil_div(s.out[1], max_of<int64_t>(most, 1));
  const int64_t band = bands ? ceil_div(s.out[1], bands) : 0;
  parallel_for(s.groups * k_blocks * c_blocks, [&](int64_t task) {
    const int64_t c0 = task % c_blocks * kInputBlock, k0 = task / c_blocks % k_blocks * kLanes<T>;
    const int64_t g = task / (c_blocks * k_blocks);
    const int64_t c_count = min_of(channels - c0, kInputBlock);
    const int64_t k_count = min_of<int64_t>(lanes - k0, kLanes<T>);
    const int64_t lines = taps / Run, segments = c_count * lines;  // of taps
    const int64_t all = ceil_div(c_count * taps, kLanes<T>);
    const PhasePlane largest(s, band);
    Scratch<T> x(c_count * largest.size), grad_y(band * s.out[2] * kLanes<T>);
    Scratch<T> sums(all * kLanes<T> * kLanes<T>);
    Scratch<const T*> pointers(segments);
    for (int64_t i = 0; i < all * kLanes<T> * kLanes<T>; ++i) sums[i] = 0;
    for (int64_t n = 0; n < s.n; ++n)
      for (int64_t o0 = 0; o0 < s.out[0]; ++o0)
        for (int64_t row = 0; row < s.out[1]; row += band) {
          const int64_t rows = min_of(band, s.out[1] - row);
          const PhasePlane plane(s, rows);
          for (int64_t c = 0; c < c_count; ++c)
            fill_phase_plane(s, plane, args.x + (n * s.c + g * channels + c0 + c) * s.in_size(), o0,
                             row, &x[c * plane.size]);
          positions_first(args.grad_y + (n * s.k + g * lanes + k0) * s.out_size() +
                              (o0 * s.out[1] + row) * s.out[2],
                          s.out_size(), k_count, rows * s.out[2], grad_y.get());
          for (int64_t r = 0; r < lines; ++r) {
            const T* line = &x[plane.offset(s, r / s.kernel[1], r % s.kernel[1], 0)];
            for (int64_t c = 0; c < c_count; ++c) pointers[c * lines + r] = line + c * plane.size;
          }
          all_segments<T, Segments, Run>(segments, pointers.get(), grad_y.get(), rows, s.out[2],
                                         plane.pitch, sums.get());
        }
    for (int64_t i = 0; i < c_count * taps; i += kLanes<T>) {
      Vec<T> square[kLanes<T>];
      for (int j = 0; j < kLanes<T>; ++j) square[j] = load(&sums[(i + j) * kLanes<T>]);
      transpose<T>(square);
      const int64_t count = min_of<int64_t>(kLanes<T>, c_count * taps - i);
      T* const first = args.result + ((g * lanes + k0) * channels + c0) * taps + i;
      Vec<T> finite = {};  // zero, or NaN
      for (int64_t k = 0; k < k_count; ++k) {
        store_first(first + k * channels * taps, count, square[k]);
        finite += square[k] - square[k];
      }
      if (sum_lanes<T>(finite) == T(0)) continue;
      for (int64_t k = 0; k < k_count; ++k)
        for (int64_t j = 0; j < count; ++j) {
          T& value = first[k * channels * taps + j];
          if (!(value - value == T(0)))
            value = exact_weight_gradient(args, g * lanes + k0 + k, c0 + (i + j) / taps,
                                          (i + j) % taps);
        }
    }
  });
}

template <class T>
void conv_wgrad_direct(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  constexpr bool kWide = kVectorBytes == 64;  // 32 registers
  const bool full = 2 * s.k_per_group() >= kLanes<T>;
  if (full && s.stride[2] == 1 && s.dilation[2] == 1) {
    if (s.kernel[2] == 3) return outer_wgrad<T, kWide ? 8 : 4, 3>(args);
    if (s.kernel[2] == 5) return outer_wgrad<T, kWide ? 4 : 2, 5>(args);
    if (s.kernel[2] == 7) return outer_wgrad<T, kWide ? 4 : 1, 7>(args);
  }
  direct_wgrad<T, 4, 3>(args);
}

LAMINA_INSTANTIATE(conv_wgrad_direct, ConvArgs)

LAMINA_CPU_NAMESPACE_END
