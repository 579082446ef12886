// Vectors of the instruction set this file is compiled for, on the compiler's vector extensions:
// one source gives 16-byte (baseline, NEON), 32-byte (AVX2) and 64-byte (AVX-512) code.
// a * b + c contracts to a fused multiply-add where the hardware has one.
#pragma once

#include <cstdint>
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#define LAMINA_CPU_NAMESPACE_BEGIN namespace lamina::cpu::LAMINA_ISA {
#define LAMINA_CPU_NAMESPACE_END }
#define LAMINA_INLINE [[gnu::always_inline]] inline

LAMINA_CPU_NAMESPACE_BEGIN

inline constexpr int kVectorBytes = LAMINA_VECTOR_BYTES;

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(LAMINA_VECTOR_BYTES)));
  typedef int32_t mask __attribute__((vector_size(LAMINA_VECTOR_BYTES)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(LAMINA_VECTOR_BYTES)));
  typedef int64_t mask __attribute__((vector_size(LAMINA_VECTOR_BYTES)));
};

template <class T>
using Vec = typename VectorOf<T>::type;  // kLanes<T> elements
template <class T>
using Mask = typename VectorOf<T>::mask;  // result of a comparison: -1 or 0 per lane
template <class T>
using LaneInteger = decltype(+Mask<T>{}[0]);  // the integer as wide as T
template <class T>
inline constexpr int kLanes = LAMINA_VECTOR_BYTES / static_cast<int>(sizeof(T));

template <class T>
LAMINA_INLINE T min_of(T a, T b) {
  return a < b ? a : b;
}
template <class T>
LAMINA_INLINE T max_of(T a, T b) {
  return a > b ? a : b;
}
LAMINA_INLINE int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

template <class T>
LAMINA_INLINE Vec<T> load(const T* p) {  // any alignment
  Vec<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
LAMINA_INLINE void store(T* p, Vec<T> v) {
  __builtin_memcpy(p, &v, sizeof v);
}
template <class T>
LAMINA_INLINE Vec<T> broadcast(T value) {
  return value - Vec<T>{};  // `Vec{} + value` would cost an addition: -0 + 0 is not -0
}

// 0, 1, 2, ...
template <class T>
LAMINA_INLINE Mask<T> lane_numbers() {
  Mask<T> lanes{};
  for (int i = 0; i < kLanes<T>; ++i) lanes[i] = i;
  return lanes;
}
// The lanes [from, to) of a vector, made once for many loads and stores: memory behind the other
// lanes is not touched.
template <class T>
class Lanes {
 public:
  Lanes() = default;
  LAMINA_INLINE Lanes(int64_t from, int64_t to) {
    from = from < 0 ? 0 : from, to = to > kLanes<T> ? kLanes<T> : to;
#if defined(__AVX512F__)
    mask_ = to <= from ? 0 : (~0u >> (32 - (to - from))) << from;
#elif defined(__AVX2__)
    const Mask<T> lane = lane_numbers<T>();
    mask_ =
        (lane >= static_cast<LaneInteger<T> >(from)) & (lane < static_cast<LaneInteger<T> >(to));
#else
    from_ = from, to_ = to;
#endif
  }

  // The other lanes read as zero.
  LAMINA_INLINE Vec<T> load(const T* p) const {
#if defined(__AVX2__) && !defined(__AVX512F__)
    if constexpr (sizeof(T) == 4)
      return (Vec<T>)_mm256_maskload_ps(p, (__m256i)mask_);
    else
      return (Vec<T>)_mm256_maskload_pd(p, (__m256i)mask_);
#else
    return load(p, T(0));
#endif
  }
  // The other lanes read as `fill`.
  LAMINA_INLINE Vec<T> load(const T* p, T fill) const {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4)
      return (Vec<T>)_mm512_mask_loadu_ps((__m512)broadcast(fill), __mmask16(mask_), p);
    else
      return (Vec<T>)_mm512_mask_loadu_pd((__m512d)broadcast(fill), __mmask8(mask_), p);
#elif defined(__AVX2__)
    return mask_ ? load(p) : broadcast(fill);
#else
    T lanes[kLanes<T>];
    for (int i = 0; i < kLanes<T>; ++i) lanes[i] = i >= from_ && i < to_ ? p[i] : fill;
    return cpu::LAMINA_ISA::load(lanes);
#endif
  }
  LAMINA_INLINE void store(T* p, Vec<T> v) const {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4)
      _mm512_mask_storeu_ps(p, __mmask16(mask_), (__m512)v);
    else
      _mm512_mask_storeu_pd(p, __mmask8(mask_), (__m512d)v);
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4)
      _mm256_maskstore_ps(p, (__m256i)mask_, (__m256)v);
    else
      _mm256_maskstore_pd(p, (__m256i)mask_, (__m256d)v);
#else
    T lanes[kLanes<T>];
    cpu::LAMINA_ISA::store(lanes, v);
    for (int64_t i = from_; i < to_; ++i) p[i] = lanes[i];
#endif
  }

 private:
#if defined(__AVX512F__)
  unsigned mask_;
#elif defined(__AVX2__)
  Mask<T> mask_;
#else
  int64_t from_, to_;
#endif
};
template <class T>
LAMINA_INLINE Vec<T> load_lanes(const T* p, int64_t from, int64_t to) {
  return Lanes<T>(from, to).load(p);
}
template <class T>
LAMINA_INLINE Vec<T> load_lanes(const T* p, int64_t from, int64_t to, T fill) {
  return Lanes<T>(from, to).load(p, fill);
}
template <class T>
LAMINA_INLINE void store_lanes(T* p, int64_t from, int64_t to, Vec<T> v) {
  Lanes<T>(from, to).store(p, v);
}
// First n elements.
template <class T>
LAMINA_INLINE Vec<T> load_first(const T* p, int64_t n) {
  return n >= kLanes<T> ? load(p) : load_lanes(p, 0, n);
}
template <class T>
LAMINA_INLINE Vec<T> load_first(const T* p, int64_t n, T fill) {
  return n >= kLanes<T> ? load(p) : load_lanes(p, 0, n, fill);
}
template <class T>
LAMINA_INLINE void store_first(T* p, int64_t n, Vec<T> v) {
  n >= kLanes<T> ? store(p, v) : store_lanes(p, 0, n, v);
}

// body(i, count) for the vectors of [0, size): all lanes, but for the last one.
template <class T, class Body>
LAMINA_INLINE void along_line(int64_t size, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes<T> <= size; i += kLanes<T>) body(i, int64_t{kLanes<T>});
  if (i < size) body(i, size - i);
}

// Results of which little is left in a cache when they are read: written past the caches, which
// saves reading them first.
inline constexpr int64_t kStreamedBytes = int64_t{20} << 20;
template <class T>
LAMINA_INLINE bool is_streamed(int64_t elements) {
  return elements * static_cast<int64_t>(sizeof(T)) >= kStreamedBytes;
}
// What a task has streamed is seen by others afterwards.
LAMINA_INLINE void finish_streams([[maybe_unused]] bool streamed) {
#if defined(__AVX512F__) || defined(__AVX2__)
  if (streamed) _mm_sfence();
#endif
}
// The first n elements; past the caches if `streamed` and they fill an aligned vector.
template <class T>
LAMINA_INLINE void store_result(T* p, int64_t n, Vec<T> v, [[maybe_unused]] bool streamed) {
#if defined(__AVX512F__)
  if (streamed && n >= kLanes<T> && reinterpret_cast<uintptr_t>(p) % kVectorBytes == 0)
    return _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)v);
#elif defined(__AVX2__)
  if (streamed && n >= kLanes<T> && reinterpret_cast<uintptr_t>(p) % kVectorBytes == 0)
    return _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)v);
#endif
  store_first(p, n, v);
}
// result[i] = value(i, count) for all vectors of a line.
template <class T, class Value>
LAMINA_INLINE void write_line(T* result, int64_t size, bool streamed, const Value& value) {
  auto part = [&](int64_t i, int64_t count) { store_first(result + i, count, value(i, count)); };
  int64_t i = 0;
#if defined(__AVX512F__) || defined(__AVX2__)
  if (streamed) {
    const int64_t place = reinterpret_cast<intptr_t>(result) / static_cast<int64_t>(sizeof(T));
    i = min_of<int64_t>(-place & (kLanes<T> - 1), size);
    if (i > 0) part(0, i);
    for (; i + kLanes<T> <= size; i += kLanes<T>) {
      const Vec<T> v = value(i, int64_t{kLanes<T>});
#if defined(__AVX512F__)
      _mm512_stream_si512(reinterpret_cast<__m512i*>(result + i), (__m512i)v);
#else
      _mm256_stream_si256(reinterpret_cast<__m256i*>(result + i), (__m256i)v);
#endif
    }
  }
#endif
  (void)streamed;
  for (; i + 2 * kLanes<T> <= size; i += 2 * kLanes<T>) {
    const Vec<T> low = value(i, int64_t{kLanes<T>});
    const Vec<T> high = value(i + kLanes<T>, int64_t{kLanes<T>});
    store(result + i, low), store(result + i + kLanes<T>, high);
  }
  for (; i + kLanes<T> <= size; i += kLanes<T>) store(result + i, value(i, int64_t{kLanes<T>}));
  if (i < size) part(i, size - i);
}

// Asks for the elements [p, p + count).
template <class T>
LAMINA_INLINE void prefetch_line(const T* p, int64_t count) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t i = 0; i < count + kLine - 1; i += kLine) __builtin_prefetch(p + i);
}

// Fetches `count` elements kPrefetchBytes behind p. Rows of a tile are too short, and too many at a
// time, for the hardware.
inline constexpr int64_t kPrefetchBytes = 4096;
template <class T>
LAMINA_INLINE void prefetch_ahead(const T* p, int64_t count, const T* end) {
  constexpr int64_t kLine = 64 / sizeof(T);
  p += kPrefetchBytes / static_cast<int64_t>(sizeof(T));
  for (const T* last = p + (count < end - p ? count : end - p); p < last; p += kLine)
    __builtin_prefetch(p);
}

// The elements at places `at` of an array of elements as wide as T.
template <class T>
LAMINA_INLINE Vec<T> gather(const void* p, Mask<T> at) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm512_mask_i32gather_ps(_mm512_setzero_ps(), __mmask16(-1), (__m512i)at, p, 4);
  else
    return (Vec<T>)_mm512_mask_i64gather_pd(_mm512_setzero_pd(), __mmask8(-1), (__m512i)at, p, 8);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm256_i32gather_ps(static_cast<const float*>(p), (__m256i)at, 4);
  else
    return (Vec<T>)_mm256_i64gather_pd(static_cast<const double*>(p), (__m256i)at, 8);
#else
  Vec<T> v;
  for (int i = 0; i < kLanes<T>; ++i)
    __builtin_memcpy(reinterpret_cast<char*>(&v) + i * sizeof(T),
                     static_cast<const char*>(p) + at[i] * sizeof(T), sizeof(T));
  return v;
#endif
}

template <class V, class M>
LAMINA_INLINE V select(M mask, V yes, V no) {
  return mask ? yes : no;
}
template <class T>
LAMINA_INLINE bool any_lane(Mask<T> mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
  return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#else
  bool any = false;
  for (int i = 0; i < kLanes<T>; ++i) any |= mask[i] != 0;
  return any;
#endif
}

// b where they are equal, or either is NaN.
template <class T>
LAMINA_INLINE Vec<T> larger(Vec<T> a, Vec<T> b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm512_mask_max_ps((__m512)a, __mmask16(-1), (__m512)a, (__m512)b);
  else
    return (Vec<T>)_mm512_mask_max_pd((__m512d)a, __mmask8(-1), (__m512d)a, (__m512d)b);
#else
  return a > b ? a : b;
#endif
}

// NaN in either operand gives NaN.
template <class T>
LAMINA_INLINE Vec<T> maximum(Vec<T> a, Vec<T> b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {  // max gives b where either is NaN
    const __m512 x = (__m512)a;
    return (Vec<T>)_mm512_mask_max_ps(x, _mm512_cmp_ps_mask(x, x, _CMP_ORD_Q), x, (__m512)b);
  }
#endif
  return (a > b) | (a != a) ? a : b;
}

// a's lanes WIDTH further on come to each lane.
template <class T, int WIDTH>
LAMINA_INLINE Vec<T> lanes_ahead(Vec<T> a) {
  Mask<T> order{};
  for (int i = 0; i < kLanes<T>; ++i) order[i] = (i + WIDTH) % kLanes<T>;
  return __builtin_shuffle(a, order);
}
// Elements n, n + 1, ... of a followed by b.
template <class T>
LAMINA_INLINE Vec<T> lanes_after(Vec<T> a, Vec<T> b, int n) {
  return __builtin_shuffle(a, b, lane_numbers<T>() + n);
}
// Sum over lanes in a fixed tree order.
template <class T, int WIDTH = kLanes<T> / 2>
LAMINA_INLINE T sum_lanes(Vec<T> v) {
  v += lanes_ahead<T, WIDTH>(v);
  if constexpr (WIDTH == 1)
    return v[0];
  else
    return sum_lanes<T, WIDTH / 2>(v);
}

// The lower (or upper) halves of a and b, interleaved.
template <class T, bool Upper>
LAMINA_INLINE Vec<T> interleave(Vec<T> a, Vec<T> b) {
  Mask<T> order{};
  for (int i = 0; i < kLanes<T>; ++i)
    order[i] = (Upper ? kLanes<T> / 2 : 0) + i / 2 + (i % 2) * kLanes<T>;
  return __builtin_shuffle(a, b, order);
}
// Elements 0, 2, 4, ... (or 1, 3, 5, ...) of a followed by b.
template <class T, bool Odd>
LAMINA_INLINE Vec<T> every_other(Vec<T> a, Vec<T> b) {
  Mask<T> order{};
  for (int i = 0; i < kLanes<T>; ++i) order[i] = 2 * i + Odd;
  return __builtin_shuffle(a, b, order);
}
// Elements 0, Step, 2 * Step, ... of Step vectors, the k-th of which is part(k).
template <class T, int Step, class Part, int Parts = Step>
LAMINA_INLINE Vec<T> every_nth(const Part& part) {
  if constexpr (Parts == 1) {
    return part(0);
  } else {
    constexpr int kLast = Parts - 1;
    Mask<T> order{};
    bool any = false;
    for (int i = 0; i < kLanes<T>; ++i) {
      const int at = i * Step, of = at / kLanes<T>;
      order[i] = of == kLast ? kLanes<T> + at % kLanes<T> : of == 0 && kLast == 1 ? at : i;
      any |= of == kLast;
    }
    const Vec<T> before = every_nth<T, Step, Part, kLast>(part);
    return any || kLast == 1 ? __builtin_shuffle(before, part(kLast), order) : before;
  }
}
// out[i][t] = element t * Step + i of the Step vectors in.
template <class T, int Step>
LAMINA_INLINE void split_columns(const Vec<T> (&in)[Step], Vec<T> (&out)[Step]) {
  static_assert(Step >= 1 && Step <= 4);
  if constexpr (Step == 1) {
    out[0] = in[0];
  } else if constexpr (Step == 3) {
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      Mask<T> from_two{}, from_all{};  // elements of the first two vectors, and of the third
      for (int t = 0; t < kLanes<T>; ++t) {
        const int at = 3 * t + i;
        from_two[t] = at < 2 * kLanes<T> ? at : 0,
        from_all[t] = at < 2 * kLanes<T> ? t : at - kLanes<T>;
      }
      out[i] = __builtin_shuffle(__builtin_shuffle(in[0], in[1], from_two), in[2], from_all);
    }
  } else if constexpr (Step == 2) {
    out[0] = every_other<T, false>(in[0], in[1]), out[1] = every_other<T, true>(in[0], in[1]);
  } else {
    const Vec<T> even[2] = {every_other<T, false>(in[0], in[1]),
                            every_other<T, false>(in[2], in[3])};
    const Vec<T> odd[2] = {every_other<T, true>(in[0], in[1]), every_other<T, true>(in[2], in[3])};
    out[0] = every_other<T, false>(even[0], even[1]);
    out[1] = every_other<T, false>(odd[0], odd[1]);
    out[2] = every_other<T, true>(even[0], even[1]);
    out[3] = every_other<T, true>(odd[0], odd[1]);
  }
}
// Lanes [from, to) of p[0], p[step], p[2 * step], ...; the others are zero and not read.
template <class T>
LAMINA_INLINE Vec<T> load_spaced(const T* p, int64_t step, int64_t from, int64_t to) {
  from = from < 0 ? 0 : from, to = to > kLanes<T> ? kLanes<T> : to;
  const int64_t begin = from * step, end = (to - 1) * step + 1;
  const auto part = [&](int i) {
    return load_lanes(p + i * kLanes<T>, begin - i * kLanes<T>, end - i * kLanes<T>);
  };
  if (step == 1) return part(0);
  if (step == 2) return every_other<T, false>(part(0), part(1));
  if (step == 4)
    return every_other<T, false>(every_other<T, false>(part(0), part(1)),
                                 every_other<T, false>(part(2), part(3)));
  T lanes[kLanes<T>] = {};
  for (int64_t i = from; i < to; ++i) lanes[i] = p[i * step];
  return load(lanes);
}
// The first n lanes to p[0], p[step], ...; what lies between is left alone.
template <class T>
LAMINA_INLINE void store_spaced(T* p, int64_t step, int64_t n, Vec<T> v) {
  if (step == 1) return store_first(p, n, v);
  n = n > kLanes<T> ? kLanes<T> : n;
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    if (step == 2) {
      const unsigned mask = n <= 0 ? 0 : 0x55555555u & (~0u >> (33 - 2 * n));
      _mm512_mask_storeu_ps(p, __mmask16(mask), (__m512)interleave<T, false>(v, v));
      _mm512_mask_storeu_ps(p + 16, __mmask16(mask >> 16), (__m512)interleave<T, true>(v, v));
      return;
    }
#endif
  T lanes[kLanes<T>];
  store(lanes, v);
  for (int64_t i = 0; i < n; ++i) p[i * step] = lanes[i];
}

#if defined(__AVX2__) && !defined(__AVX512F__)
// A square of 8 floats, within the halves of the vectors first: one of three rounds crosses them.
LAMINA_INLINE void transpose_square(Vec<float> (&lines)[8]) {
  using V = __m256;
  V pair[8], four[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    pair[i] = _mm256_unpacklo_ps((V)lines[i], (V)lines[i + 1]);
    pair[i + 1] = _mm256_unpackhi_ps((V)lines[i], (V)lines[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 4) {
    four[i] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0x44);
    four[i + 1] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0xee);
    four[i + 2] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0x44);
    four[i + 3] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    lines[i] = (Vec<float>)_mm256_permute2f128_ps(four[i], four[i + 4], 0x20);
    lines[i + 4] = (Vec<float>)_mm256_permute2f128_ps(four[i], four[i + 4], 0x31);
  }
}
#endif
// The lanes of each vector joined: lane i is that of vector i.
template <class T, int Half = kLanes<T> / 2, class Join>
LAMINA_INLINE Vec<T> fold_each(Vec<T>* lines, const Join& join) {
#pragma GCC unroll 8
  for (int i = 0; i < Half; ++i)
    lines[i] = join(interleave<T, false>(lines[i], lines[i + Half]),
                    interleave<T, true>(lines[i], lines[i + Half]));
  if constexpr (Half == 1)
    return lines[0];
  else
    return fold_each<T, Half / 2>(lines, join);
}
// The lines' elements column by column, one behind the other: log2(Count) rounds of perfect
// shuffles. As many lines as lanes: square[i][j] becomes square[j][i].
template <class T, int Count>
LAMINA_INLINE void transpose(Vec<T> (&lines)[Count]) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  if constexpr (sizeof(T) == 4 && Count == 8) return transpose_square(lines);
#endif
  for (int round = 1; round < Count; round *= 2) {
    Vec<T> next[Count];
#pragma GCC unroll 8
    for (int i = 0; i < Count / 2; ++i) {
      next[2 * i] = interleave<T, false>(lines[i], lines[i + Count / 2]);
      next[2 * i + 1] = interleave<T, true>(lines[i], lines[i + Count / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < Count; ++i) lines[i] = next[i];
  }
}

LAMINA_CPU_NAMESPACE_END
