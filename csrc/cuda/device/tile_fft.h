// Fourier transforms of real tiles in shared memory by a block of threads.
//
// Source    Cooley & Tukey 1965 in two steps of radix 4 or 8 a side (16 = 4 4, 32 = 4 8, 64 = 8 8),
//           in place; frequencies stay in the order the steps leave them in.
// Packing   two rows of a tile are the parts of one complex row. Rows first; then the halves of
//           their transforms (the rest are conjugates) are told apart and take the place of the
//           pair: column j of the even row at j, of the odd row at width - j. The real columns 0
//           and width / 2 are the parts of one complex column, in the place of column 0. A tile of
//           height 1 is the real part of one complex row.
#pragma once

#include "cuda/device/complex.h"
#include "cuda/device/launch.h"

namespace lamina::cuda {

// How a side is taken apart: frequency k1 + first * k2 ends at k1 * second + k2.
struct FftSide {
  int log_size, log_first;

  __host__ __device__ constexpr explicit FftSide(int log)
      : log_size(log),
        log_first(log == 6   ? 3
                  : log == 0 ? 0
                             : 2) {}
  __host__ __device__ constexpr int size() const { return 1 << log_size; }
  __host__ __device__ constexpr int first() const { return 1 << log_first; }
  __host__ __device__ constexpr int log_second() const { return log_size - log_first; }
  __host__ __device__ constexpr int second() const { return 1 << log_second(); }
  __host__ __device__ constexpr int place(int k) const {
    return ((k & (first() - 1)) << log_second()) + (k >> log_first);
  }
};

// The complex elements of a block's tiles in shared memory.
struct FftLayout {
  FftSide height, width;
  int log_tiles;  // tiles of a block

  __host__ __device__ constexpr int log_rows() const {
    return height.log_size ? height.log_size - 1 : 0;
  }
  // Lanes walk along rows, along columns, or along tiles. The gaps in a row and the odd sizes send
  // them to different banks: found by trying all small ones, at most 1.6 wavefronts for one.
  __host__ __device__ static constexpr int column(int place) { return place + 4 * (place >> 4); }
  __host__ __device__ constexpr int pitch() const {
    return column(width.size() - 1) + (height.log_size == 6 ? 2 : 3);
  }
  __host__ __device__ constexpr int tile_pitch() const { return (pitch() << log_rows()) + 1; }
  __host__ __device__ constexpr int elements() const { return tile_pitch() << log_tiles; }

  // Row h (of the even and odd rows) of column j < width / 2 once the rows are told apart.
  __host__ __device__ constexpr int at(int h, int j) const {
    const int source = h & 1 ? (j ? width.size() - j : width.size() / 2) : j;
    return (h >> 1) * pitch() + column(width.place(source));
  }
  __host__ __device__ constexpr int frequency(int ky, int kx) const {
    return at(height.place(ky), kx);
  }
};

inline constexpr int kFftThreads = 256;
inline constexpr int kRoots = 64;

template <class A>
struct TileFft {
  FftLayout layout;
  Complex<A>* tiles;  // shared, layout.elements()
  Complex<A>* roots;  // shared, exp(-2 pi i k / 64)

  // Before the first transform; a barrier must follow.
  __device__ __forceinline__ void fill_roots() const {
    constexpr int kQuarter = kRoots / 4;
    static constexpr double kCosines[kQuarter + 1] = {1.0,
                                                      0.9951847266721969,
                                                      0.9807852804032304,
                                                      0.9569403357322088,
                                                      0.9238795325112867,
                                                      0.881921264348355,
                                                      0.8314696123025452,
                                                      0.773010453362737,
                                                      0.7071067811865476,
                                                      0.6343932841636455,
                                                      0.5555702330196023,
                                                      0.4713967368259978,
                                                      0.38268343236508984,
                                                      0.29028467725446233,
                                                      0.19509032201612833,
                                                      0.09801714032956077,
                                                      0};
    if (threadIdx.x < kQuarter) {
      const A c(kCosines[threadIdx.x]), s(kCosines[kQuarter - threadIdx.x]);
      Complex<A>* const root = roots + threadIdx.x;
      root[0] = {c, -s}, root[kQuarter] = {-s, -c};
      root[2 * kQuarter] = {-c, s}, root[3 * kQuarter] = {s, c};
    }
  }

  // One step of radix RADIX on the elements at(0), at(1), ...; then element i turns by i * turn
  // sixty-fourths.
  template <int RADIX, bool INVERSE, class At>
  __device__ __forceinline__ void step(const At& at, int turn) const {
    Complex<A> x[RADIX];
#pragma unroll
    for (int i = 0; i < RADIX; ++i) x[i] = tiles[at(i)];
    fourier<INVERSE>(x);
    turn_all<RADIX, INVERSE>(x, turn);
#pragma unroll
    for (int i = 0; i < RADIX; ++i) tiles[at(i)] = x[i];
  }
  template <int RADIX, bool INVERSE>
  __device__ __forceinline__ void turn_all(Complex<A> (&x)[RADIX], int turn) const {
    if (turn == 0) return;
#pragma unroll
    for (int i = 1; i < RADIX; ++i) {
      const Complex<A> root = roots[i * turn];
      x[i] = x[i] * (INVERSE ? conj(root) : root);
    }
  }

  // The steps of the rows, lanes along rows. ACROSS: the step whose elements lie `second` apart.
  template <int RADIX, bool INVERSE, bool ACROSS>
  __device__ __forceinline__ void rows() const {
    const FftSide side = layout.width;
    const int log_rows = layout.log_rows(), log_lines = log_rows + layout.log_tiles;
    const int stride = ACROSS ? side.second() : 1;
    const int others = ACROSS ? side.second() : side.first();
    for (int i = threadIdx.x; i < others << log_lines; i += kFftThreads) {
      const int row = i & ((1 << log_rows) - 1),
                tile = (i >> log_rows) & ((1 << layout.log_tiles) - 1);
      const int other = i >> log_lines;
      const int base = tile * layout.tile_pitch() + row * layout.pitch();
      const int first = ACROSS ? other : other << side.log_second();
      const bool turns = ACROSS != INVERSE;  // between the two steps
      step<RADIX, INVERSE>([&](int j) { return base + layout.column(first + j * stride); },
                           turns ? other << (6 - side.log_size) : 0);
    }
    __syncthreads();
  }

  // Calls body(tile's first element, column, i) for the columns of all tiles, lanes along columns.
  template <class Body>
  __device__ __forceinline__ void for_columns(int count, const Body& body) const {
    const FftSide side = layout.width;
    const int log_half = side.log_size - 1, log_part = side.log_second() - 1;
    for (int i = threadIdx.x; i < count << (log_half + layout.log_tiles); i += kFftThreads) {
      // Neighbouring lanes take neighbouring places, not neighbouring frequencies.
      const int place = i & ((1 << log_half) - 1);
      const int column = (place >> log_part) + ((place & ((1 << log_part) - 1)) << side.log_first);
      const int tile = (i >> log_half) & ((1 << layout.log_tiles) - 1);
      body(tile * layout.tile_pitch(), column, i >> (log_half + layout.log_tiles));
    }
    __syncthreads();
  }

  // The step of the columns whose elements are neighbours.
  template <int RADIX, bool INVERSE>
  __device__ __forceinline__ void columns() const {
    const FftSide side = layout.height;
    for_columns(side.first(), [&](int base, int column, int k1) {
      step<RADIX, INVERSE>(
          [&](int j) { return base + layout.at((k1 << side.log_second()) + j, column); },
          INVERSE ? k1 << (6 - side.log_size) : 0);
    });
  }

  // The other step, for two neighbouring rows at once: forward it tells them apart first, inverse
  // it puts them together afterwards.
  template <int RADIX, bool INVERSE>
  __device__ __forceinline__ void paired_columns() const {
    const FftSide side = layout.height;
    for_columns(side.second() / 2, [&](int base, int column, int m) {
      Complex<A> even[RADIX], odd[RADIX];
#pragma unroll
      for (int i = 0; i < RADIX; ++i) {
        const int h = (i << side.log_second()) + 2 * m;
        const Complex<A> a = tiles[base + layout.at(h, column)];
        const Complex<A> b = tiles[base + layout.at(h + 1, column)];
        if (INVERSE) {
          even[i] = a, odd[i] = b;
        } else if (column == 0) {
          even[i] = {a.re, b.re}, odd[i] = {a.im, b.im};
        } else {  // halves of a + conj(b) and (a - conj(b)) / i
          even[i] = {A(0.5) * (a.re + b.re), A(0.5) * (a.im - b.im)};
          odd[i] = {A(0.5) * (a.im + b.im), A(0.5) * (b.re - a.re)};
        }
      }
      fourier<INVERSE>(even), fourier<INVERSE>(odd);
      if (!INVERSE) {
        turn_all<RADIX, false>(even, 2 * m << (6 - side.log_size));
        turn_all<RADIX, false>(odd, (2 * m + 1) << (6 - side.log_size));
      }
#pragma unroll
      for (int i = 0; i < RADIX; ++i) {
        const int h = (i << side.log_second()) + 2 * m;
        Complex<A> a = even[i], b = odd[i];
        if (INVERSE && column == 0) {
          a = {even[i].re, odd[i].re}, b = {even[i].im, odd[i].im};
        } else if (INVERSE) {  // even + i odd, conj(even) + i conj(odd)
          a = {even[i].re - odd[i].im, even[i].im + odd[i].re};
          b = {even[i].re + odd[i].im, odd[i].re - even[i].im};
        }
        tiles[base + layout.at(h, column)] = a;
        tiles[base + layout.at(h + 1, column)] = b;
      }
    });
  }

  // Pairs of rows to frequencies. All threads of the block call it, after a barrier; it ends with
  // one.
  __device__ __forceinline__ void forward() const {
    layout.width.first() == 8 ? rows<8, false, true>() : rows<4, false, true>();
    layout.width.second() == 8 ? rows<8, false, false>() : rows<4, false, false>();
    if (layout.height.log_size == 0) return;
    layout.height.first() == 8 ? paired_columns<8, false>() : paired_columns<4, false>();
    layout.height.second() == 8 ? columns<8, false>() : columns<4, false>();
  }
  // Frequencies to pairs of rows, times height * width.
  __device__ __forceinline__ void inverse() const {
    if (layout.height.log_size) {
      layout.height.second() == 8 ? columns<8, true>() : columns<4, true>();
      layout.height.first() == 8 ? paired_columns<8, true>() : paired_columns<4, true>();
    }
    layout.width.second() == 8 ? rows<8, true, false>() : rows<4, true, false>();
    layout.width.first() == 8 ? rows<8, true, true>() : rows<4, true, true>();
  }
};

}  // namespace lamina::cuda
