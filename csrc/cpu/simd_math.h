// exp, expm1, log, log1p, tanh, the normal distribution on vectors, float and double, without
// branches.
//
// exp and expm1 reduce x = n ln2 + r, |r| <= ln2 / 2, and sum a polynomial of e^r - 1 to its
// rounding error (float: interpolated at Chebyshev's points, 2^-26; double: Taylor's, r^14/14! <
// 2^-57); 2^n is the hardware's scaling or two factors, so that both ends of the range need no
// selection. log and log1p use the series of 2 atanh(s). ln2 is split in two parts (Cody & Waite
// 1980) so that n ln2 loses nothing.
#pragma once

#include "cpu/simd.h"

LAMINA_CPU_NAMESPACE_BEGIN

template <class T>
struct Real;
template <>
struct Real<float> {
  static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  static constexpr int kMantissaBits = 23;
  static constexpr int32_t kExponentBias = 127;
  static constexpr float kLn2High = 0.693145751953125f, kLn2Low = 1.42860682030941723212e-6f;
  static constexpr float kExpMax = 89.0f, kExpMin = -105.0f;  // exp is Inf or 0
  // (e^r - 1 - r) / r^2
  static constexpr float kExpSeries[] = {0.5f, 0.166665734f, 0.0416665502f, 0.00836376702f,
                                         0.00139269181f};
  static constexpr int kLogTerms = 6, kLog1pTerms = 7;
  static constexpr float kTanhOne = 10.0f;     // tanh rounds to 1 from here on
  static constexpr float kNormalZero = 16.0f;  // exp(-x^2/2) is 0 from here on
  static constexpr float kSmallestNormal = 1.17549435e-38f, kSubnormalScale = 16777216.0f;
  static constexpr int kSubnormalShift = 24;
};
template <>
struct Real<double> {
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int kMantissaBits = 52;
  static constexpr int64_t kExponentBias = 1023;
  static constexpr double kLn2High = 0.69314718036912381649, kLn2Low = 1.9082149292705877000e-10;
  static constexpr double kExpMax = 710.0, kExpMin = -746.0;
  static constexpr double kExpSeries[] = {
      1.0 / 2,     1.0 / 6,      1.0 / 24,      1.0 / 120,      1.0 / 720,       1.0 / 5040,
      1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
  static constexpr int kLogTerms = 11, kLog1pTerms = 18;
  static constexpr double kTanhOne = 20.0, kNormalZero = 40.0;
  static constexpr double kSmallestNormal = 2.2250738585072014e-308;
  static constexpr double kSubnormalScale = 18014398509481984.0;
  static constexpr int kSubnormalShift = 54;
};

template <class T>
LAMINA_INLINE Mask<T> bits(Vec<T> v) {
  return reinterpret_cast<Mask<T>>(v);
}
template <class T>
LAMINA_INLINE Vec<T> from_bits(Mask<T> m) {
  return reinterpret_cast<Vec<T>>(m);
}
template <class T>
LAMINA_INLINE Vec<T> absolute(Vec<T> v) {
  return from_bits<T>(bits<T>(v) & ~bits<T>(broadcast<T>(T(-0.0))));
}
template <class T>
LAMINA_INLINE Vec<T> copy_sign(Vec<T> magnitude, Vec<T> sign) {
  const Mask<T> sign_bit = bits<T>(broadcast<T>(T(-0.0)));
  return from_bits<T>((bits<T>(magnitude) & ~sign_bit) | (bits<T>(sign) & sign_bit));
}
// 2^n for a whole n in the normal range.
template <class T>
LAMINA_INLINE Vec<T> power_of_two(Mask<T> n) {
  return from_bits<T>((n + Real<T>::kExponentBias) << Real<T>::kMantissaBits);
}

// x cut to [low, oo), (-oo, high], [low, high]; NaN stays. (The instructions return their second
// operand where one is NaN; GCC 12 warns without a mask.)
template <class T>
LAMINA_INLINE Vec<T> at_least(Vec<T> x, T low) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm512_maskz_max_ps(__mmask16(-1), (__m512)broadcast(low), (__m512)x);
  else
    return (Vec<T>)_mm512_maskz_max_pd(__mmask8(-1), (__m512d)broadcast(low), (__m512d)x);
#else
  return x < low ? broadcast(low) : x;
#endif
}
template <class T>
LAMINA_INLINE Vec<T> at_most(Vec<T> x, T high) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm512_maskz_min_ps(__mmask16(-1), (__m512)broadcast(high), (__m512)x);
  else
    return (Vec<T>)_mm512_maskz_min_pd(__mmask8(-1), (__m512d)broadcast(high), (__m512d)x);
#else
  return x > high ? broadcast(high) : x;
#endif
}

template <class T>
LAMINA_INLINE Vec<T> limit(Vec<T> x, T low, T high) {
  return at_most<T>(at_least<T>(x, low), high);
}

// A whole number, as a vector and as integers.
template <class T>
struct Whole {
  Vec<T> value;
  Mask<T> integer;
};

// y 2^n; n itself may leave the range of exponents at both ends.
template <class T>
LAMINA_INLINE Vec<T> scaled(Vec<T> y, const Whole<T>& n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm512_maskz_scalef_ps(__mmask16(-1), (__m512)y, (__m512)n.value);
  else
    return (Vec<T>)_mm512_maskz_scalef_pd(__mmask8(-1), (__m512d)y, (__m512d)n.value);
#else
  const Mask<T> half = n.integer >> 1;
  return y * power_of_two<T>(half) * power_of_two<T>(n.integer - half);
#endif
}

// x = n ln2 + r; returns e^r - 1 and n.
template <class T>
LAMINA_INLINE Vec<T> reduced_expm1(Vec<T> x, Whole<T>& n) {
  const Vec<T> shifted = x * T(1.44269504088896340736) + Real<T>::kRound;
  n.value = shifted - Real<T>::kRound;
  n.integer = bits<T>(shifted) - bits<T>(broadcast<T>(Real<T>::kRound));
  const Vec<T> r = (x - n.value * Real<T>::kLn2High) - n.value * Real<T>::kLn2Low;
  // Horner, then r + r^2 (...), so that the leading term stays exact.
  constexpr int kTerms = sizeof(Real<T>::kExpSeries) / sizeof(T);
  Vec<T> sum = broadcast<T>(Real<T>::kExpSeries[kTerms - 1]);
#pragma GCC unroll 16
  for (int k = kTerms - 2; k >= 0; --k) sum = sum * r + Real<T>::kExpSeries[k];
  return r + r * r * sum;
}

template <class T>
LAMINA_INLINE Vec<T> exp(Vec<T> x) {
  Whole<T> n;
  const Vec<T> tail = reduced_expm1<T>(limit<T>(x, Real<T>::kExpMin, Real<T>::kExpMax), n);
  return scaled<T>(tail + T(1), n);
}

// x <= 0
template <class T>
LAMINA_INLINE Vec<T> exp_nonpositive(Vec<T> x) {
  Whole<T> n;
  const Vec<T> tail = reduced_expm1<T>(at_least<T>(x, Real<T>::kExpMin), n);
  return scaled<T>(tail + T(1), n);
}

// x <= 0 loses nothing near zero; large x gives Inf.
template <class T>
LAMINA_INLINE Vec<T> expm1(Vec<T> x) {
  Whole<T> n;
  const Vec<T> tail = reduced_expm1<T>(limit<T>(x, Real<T>::kExpMin, Real<T>::kExpMax), n);
  const Vec<T> y = scaled<T>(tail, n) + (scaled<T>(broadcast<T>(T(1)), n) - T(1));
  return x == T(0) ? x : y;
}

template <class T>
LAMINA_INLINE Vec<T> twice_atanh(Vec<T> s, int terms) {
  const Vec<T> square = s * s;
  Vec<T> sum = {};
#pragma GCC unroll 20
  for (int k = terms; k >= 1; --k) sum = sum * square + T(2) / T(2 * k + 1);
  return T(2) * s + s * square * sum;
}

template <class T>
LAMINA_INLINE Vec<T> log(Vec<T> x) {
  const Mask<T> subnormal = x < Real<T>::kSmallestNormal;
  const Vec<T> scaled = subnormal ? x * Real<T>::kSubnormalScale : x;
  // Shifted so that the mantissa lies in [sqrt(1/2), sqrt(2)).
  const Mask<T> offset = bits<T>(broadcast<T>(T(0.70710678118654752)));
  const Mask<T> exponent = (bits<T>(scaled) - offset) >> Real<T>::kMantissaBits;
  const Vec<T> mantissa = from_bits<T>(bits<T>(scaled) - (exponent << Real<T>::kMantissaBits));
  const Mask<T> shift = subnormal & Real<T>::kSubnormalShift;
  const Vec<T> e = __builtin_convertvector(exponent - shift, Vec<T>);
  const Vec<T> f = mantissa - T(1);
  const Vec<T> y = e * Real<T>::kLn2High +
                   (twice_atanh<T>(f / (T(2) + f), Real<T>::kLogTerms) + e * Real<T>::kLn2Low);
  const Vec<T> infinity = broadcast<T>(T(__builtin_inf()));
  const Vec<T> nan = broadcast<T>(T(__builtin_nan("")));
  return x != x ? x : x < T(0) ? nan : x == T(0) ? -infinity : x == infinity ? x : y;
}

// log(1 + u) for 0 <= u <= 1.
template <class T>
LAMINA_INLINE Vec<T> log1p_unit(Vec<T> u) {
  return twice_atanh<T>(u / (T(2) + u), Real<T>::kLog1pTerms);
}

template <class T>
LAMINA_INLINE Vec<T> tanh(Vec<T> x) {
  Whole<T> n;
  const Vec<T> tail =
      reduced_expm1<T>(limit<T>(T(2) * absolute<T>(x), T(0), 2 * Real<T>::kTanhOne), n);
  const Vec<T> scale = power_of_two<T>(n.integer), em1 = scale * tail + (scale - T(1));
  return copy_sign<T>(em1 / (em1 + T(2)), x);
}

template <class T>
LAMINA_INLINE Vec<T> sigmoid(Vec<T> x) {
  const Vec<T> e = exp_nonpositive<T>(-absolute<T>(x));
  return (x < T(0) ? e : broadcast<T>(T(1))) / (T(1) + e);
}

// sigmoid(x) sigmoid(-x)
template <class T>
LAMINA_INLINE Vec<T> sigmoid_slope(Vec<T> x) {
  const Vec<T> e = exp_nonpositive<T>(-absolute<T>(x)), r = T(1) / (T(1) + e);
  return e * r * r;
}

template <class T>
LAMINA_INLINE Vec<T> softplus(Vec<T> x) {
  return (x > T(0) ? x
          : x != x ? x
                   : Vec<T>{}) +
         log1p_unit<T>(exp_nonpositive<T>(-absolute<T>(x)));
}

// exp(z^2) erfc(z) / t as a Chebyshev series in u = 2 t - 1, t = 2 / (2 + z), z >= 0 (relative
// error 1e-15), and its first 11 terms as powers of u (1.2e-8).
inline constexpr double kErfcSeries[25] = {
    0.57703373861646869677,     0.35543692127050046411,     0.065095158828784568379,
    0.0036711423958385611069,   -0.0011128447433545068573,  -0.00016075829915196702902,
    0.000032780315739990773355, 5.442441647160383603e-6,    -1.5154665568758345897e-6,
    -1.4297608036045656813e-7,  8.2346086940395772489e-8,   -1.2962834780375107961e-9,
    -4.1547227033395090438e-9,  6.3470675798751358389e-10,  1.4320744543870751703e-10,
    -6.1603273075850180514e-11, 2.0607437367351342887e-12,  3.5718023794014071603e-12,
    -8.5878873556627352298e-13, -6.147306943889744984e-14,  7.4367426654001562627e-14,
    -1.3236745528535959855e-14, -1.8581972517784931211e-15, 9.174048820945458955e-16,
    5.7778650411785933054e-16,
};
inline constexpr int kErfcFloatTerms = 11;
inline constexpr float kErfcPowers[kErfcFloatTerms] = {
    0.510791357f,     0.343580319f,     0.139735734f,    0.0182216694f,
    -0.0107516262f,   -0.00324345192f,  0.00152915716f,  0.000430670488f,
    -0.000299382711f, -3.66018766e-05f, 4.21611965e-05f,
};

// a a = product + error, the product rounded.
template <class T>
LAMINA_INLINE Vec<T> square_error(Vec<T> a, Vec<T> product) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm512_fmsub_ps((__m512)a, (__m512)a, (__m512)product);
  else
    return (Vec<T>)_mm512_fmsub_pd((__m512d)a, (__m512d)a, (__m512d)product);
#elif defined(__FMA__)
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm256_fmsub_ps((__m256)a, (__m256)a, (__m256)product);
  else
    return (Vec<T>)_mm256_fmsub_pd((__m256d)a, (__m256d)a, (__m256d)product);
#else  // Dekker 1971: the squares of both halves and their mixed product are exact
  constexpr auto kLowBits = (LaneInteger<T>{1} << (sizeof(T) == 4 ? 12 : 27)) - 1;
  const Vec<T> high = from_bits<T>(bits<T>(a) & ~(Mask<T>{} + kLowBits)), low = a - high;
  return ((high * high - product) + T(2) * high * low) + low * low;
#endif
}

// Phi(-z) of the normal distribution, 0 <= z <= kNormalZero, and exp(-z^2/2), to a few ulp down to
// the underflow: z^2 in two parts, so that exp sees no rounded argument.
template <class T>
LAMINA_INLINE Vec<T> normal_tail(Vec<T> z, Vec<T>& bell) {
  const Vec<T> square = z * z, error = square_error<T>(z, square);
  const Vec<T> e = exp_nonpositive<T>(T(-0.5) * square);
  bell = e - e * (T(0.5) * error);
  const Vec<T> t = T(1) / (T(1) + z * T(0.35355339059327376)), u = T(2) * t - T(1);
  Vec<T> series;
  if constexpr (sizeof(T) == 4) {
    series = broadcast<T>(T(kErfcPowers[kErfcFloatTerms - 1]));
#pragma GCC unroll 16
    for (int k = kErfcFloatTerms - 2; k >= 0; --k) series = series * u + T(kErfcPowers[k]);
  } else {
    Vec<T> b = {}, after = {};  // Clenshaw's recurrence
#pragma GCC unroll 32
    for (int k = 24; k >= 1; --k) {
      const Vec<T> next = T(2) * u * b - after + T(kErfcSeries[k]);
      after = b, b = next;
    }
    series = u * b - after + T(kErfcSeries[0]);
  }
  return T(0.5) * t * bell * series;
}

LAMINA_CPU_NAMESPACE_END
