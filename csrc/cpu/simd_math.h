// exp, expm1, log, log1p, tanh, erfc on vectors, float and double, without branches.
//
// exp and expm1 reduce x = n ln2 + r, |r| <= ln2 / 2, and sum the Taylor series of e^r - 1 to its
// rounding error (r^8/8! < 2^-27, r^14/14! < 2^-57). log and log1p use the series of 2 atanh(s).
// ln2 is split in two parts (Cody & Waite 1980) so that n ln2 loses nothing.
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
  static constexpr float kExpMax = 88.7228394f, kExpMin = -103.972084f;
  static constexpr int kExpTerms = 7, kLogTerms = 6, kLog1pTerms = 9;
  static constexpr float kTanhOne = 10.0f;  // tanh rounds to 1 from here on
  static constexpr float kSmallestNormal = 1.17549435e-38f, kSubnormalScale = 16777216.0f;
  static constexpr int kSubnormalShift = 24;
};
template <>
struct Real<double> {
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int kMantissaBits = 52;
  static constexpr int64_t kExponentBias = 1023;
  static constexpr double kLn2High = 0.69314718036912381649, kLn2Low = 1.9082149292705877000e-10;
  static constexpr double kExpMax = 709.78271289338397, kExpMin = -745.13321910194122;
  static constexpr int kExpTerms = 13, kLogTerms = 11, kLog1pTerms = 18;
  static constexpr double kTanhOne = 20.0;
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

// x = n ln2 + r; returns e^r - 1 and n.
template <class T>
LAMINA_INLINE Vec<T> reduced_expm1(Vec<T> x, Mask<T>& n) {
  const Vec<T> shifted = x * T(1.44269504088896340736) + Real<T>::kRound;
  const Vec<T> whole = shifted - Real<T>::kRound;
  n = bits<T>(shifted) - bits<T>(broadcast<T>(Real<T>::kRound));
  const Vec<T> r = (x - whole * Real<T>::kLn2High) - whole * Real<T>::kLn2Low;
  // Horner on 1/2! + r/3! + ..., then r + r^2 (...), so that the leading term stays exact.
  Vec<T> sum = {};
  T factorial = 1;
  T inverse[Real<T>::kExpTerms + 1] = {};
#pragma GCC unroll 16
  for (int k = 1; k <= Real<T>::kExpTerms; ++k) {
    factorial *= T(k);
    inverse[k] = T(1) / factorial;
  }
#pragma GCC unroll 16
  for (int k = Real<T>::kExpTerms; k >= 2; --k) sum = sum * r + inverse[k];
  return r + r * r * sum;
}

template <class T>
LAMINA_INLINE Vec<T> exp(Vec<T> x) {
  const Vec<T> clamped = x > Real<T>::kExpMax   ? broadcast<T>(Real<T>::kExpMax)
                         : x < Real<T>::kExpMin ? broadcast<T>(Real<T>::kExpMin)
                                                : x;
  Mask<T> n;
  const Vec<T> tail = reduced_expm1<T>(clamped, n);
  // Two factors: 2^n itself leaves the normal range at both ends.
  const Mask<T> half = n >> 1;
  const Vec<T> y = (tail + T(1)) * power_of_two<T>(half) * power_of_two<T>(n - half);
  const Vec<T> infinity = broadcast<T>(T(__builtin_inf()));
  return x > Real<T>::kExpMax ? infinity : x < Real<T>::kExpMin ? Vec<T>{} : x != x ? x : y;
}

// x <= 0 loses nothing near zero; large x gives Inf.
template <class T>
LAMINA_INLINE Vec<T> expm1(Vec<T> x) {
  const Vec<T> clamped = x < T(-60) ? broadcast<T>(T(-60)) : x > T(60) ? broadcast<T>(T(60)) : x;
  Mask<T> n;
  const Vec<T> tail = reduced_expm1<T>(clamped, n);
  const Vec<T> scale = power_of_two<T>(n);
  const Vec<T> y = scale * tail + (scale - T(1));
  return x != x ? x : x > T(60) ? exp<T>(x) : x == T(0) ? x : y;
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
  const Vec<T> magnitude = absolute<T>(x);
  const Vec<T> limited =
      magnitude > Real<T>::kTanhOne ? broadcast<T>(Real<T>::kTanhOne) : magnitude;
  const Vec<T> em1 = expm1<T>(limited + limited);
  return x != x ? x : copy_sign<T>(em1 / (em1 + T(2)), x);
}

template <class T>
LAMINA_INLINE Vec<T> sigmoid(Vec<T> x) {
  const Vec<T> e = exp<T>(-absolute<T>(x));
  return (x < T(0) ? e : broadcast<T>(T(1))) / (T(1) + e);
}

template <class T>
LAMINA_INLINE Vec<T> softplus(Vec<T> x) {
  return (x > T(0) ? x : x != x ? x : Vec<T>{}) + log1p_unit<T>(exp<T>(-absolute<T>(x)));
}

// exp(z^2) erfc(z) / t as a Chebyshev series in 2 t - 1, t = 2 / (2 + z), z >= 0: the first 11
// terms for float, all for double (relative error 1.2e-8 and 1e-15).
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

// Relative accuracy of a few ulp down to the underflow of exp(-x^2).
template <class T>
LAMINA_INLINE Vec<T> erfc(Vec<T> x) {
  constexpr int kTerms = sizeof(T) == sizeof(float) ? 11 : 25;
  constexpr auto kLowBits = (decltype(Mask<T>{}[0] + 0){1} << (sizeof(T) == 4 ? 12 : 32)) - 1;
  const Vec<T> z = absolute<T>(x), t = T(2) / (T(2) + z);
  const Vec<T> twice = T(2) * (T(2) * t - T(1));
  Vec<T> b = {}, after = {};  // Clenshaw's recurrence
#pragma GCC unroll 32
  for (int k = kTerms - 1; k >= 1; --k) {
    const Vec<T> next = twice * b - after + T(kErfcSeries[k]);
    after = b, b = next;
  }
  const Vec<T> series = T(0.5) * twice * b - after + T(kErfcSeries[0]);
  // z^2 in two parts, the first of them exact, so that exp sees no rounded argument.
  const Vec<T> high = from_bits<T>(bits<T>(z) & ~(Mask<T>{} + kLowBits));
  const Vec<T> tail = exp<T>(-high * high) * exp<T>((high - z) * (high + z));
  const Vec<T> infinity = broadcast<T>(T(__builtin_inf()));
  const Vec<T> y = z == infinity ? Vec<T>{} : t * tail * series;
  return x != x ? x : x < T(0) ? T(2) - y : y;
}

LAMINA_CPU_NAMESPACE_END
