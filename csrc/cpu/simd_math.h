// exp, expm1, log, log1p, tanh, the normal distribution on vectors, float and double, without
// branches.
//
// Method        exp and expm1 reduce x = n ln2 + r, |r| <= ln2 / 2, and sum a polynomial of
//               e^r - 1 (float: minimax, 2^-28; double: Taylor's, r^14/14! < 2^-57); 2^n is the
//               hardware's scaling or two factors, so that both ends of the range need no
//               selection. ln2 is split in two parts (Cody & Waite 1980), n ln2 loses nothing.
//               float: log, log1p and small tanh are minimax polynomials; double: the series of
//               2 atanh(s). The tail of the normal distribution is exp times a smooth function,
//               float: a polynomial in each of eight intervals, whose coefficients one permutation
//               of a register finds; double: a Chebyshev series.
// Numerics      float: within 2 units in the last place, what activate.h builds on them too (selu
//               and mish 2.25 without fused multiply-add); tests/every_float.cpp goes over all 2^32
//               arguments. Of a sum the smaller parts are added first.
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
  static constexpr float kExpMax = 89.0f, kExpMin = -110.0f;  // exp is Inf, and x exp(x) 0
  // (e^r - 1 - r) / r^2
  static constexpr float kExpSeries[] = {0.49999994f, 0.166665211f, 0.0416682661f, 0.00836867746f,
                                         0.00138207397f};
  // (log(1 + f) - f + f^2 / 2) / f^3, sqrt(1/2) <= 1 + f < sqrt(2)
  static constexpr float kLogSeries[] = {0.333333135f,  -0.250000089f, 0.200020716f,
                                         -0.166679889f, 0.142203599f,  -0.124062397f,
                                         0.118835375f,  -0.116700247f, 0.0674918965f};
  // log(1 + u) / u in powers of u - kLog1pCentre, 0 <= u <= 1
  static constexpr float kLog1pCentre = 0.47958985f;
  static constexpr float kLog1pSeries[] = {
      0.816874921f,   -0.294026107f, 0.136847138f,    -0.0707663298f, 0.0388053916f,
      -0.0220486913f, 0.0126250377f, -0.00766580785f, 0.00581002422f, -0.00321884314f};
  // (tanh(x) - x) / x^3 in powers of x^2, |x| < kTanhSmall
  static constexpr float kTanhSmall = 0.549f;
  static constexpr float kTanhSeries[] = {-0.333333164f, 0.133325443f, -0.0538475476f, 0.021050714f,
                                          -0.0062428494f};
  static constexpr float kTanhOne = 10.0f;     // tanh rounds to 1 from here on
  static constexpr float kNormalZero = 14.9f;  // x exp(-x^2/2) is 0 from here on
  static constexpr float kSmallestNormal = 1.17549435e-38f, kSubnormalScale = 16777216.0f;
  static constexpr int kSubnormalShift = 24;
};
template <>
struct Real<double> {
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int kMantissaBits = 52;
  static constexpr int64_t kExponentBias = 1023;
  static constexpr double kLn2High = 0.69314718036912381649, kLn2Low = 1.9082149292705877000e-10;
  static constexpr double kExpMax = 710.0, kExpMin = -760.0;
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
template <class T>
LAMINA_INLINE Vec<T> square_root(Vec<T> x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm512_maskz_sqrt_ps(__mmask16(-1), (__m512)x);
  else
    return (Vec<T>)_mm512_maskz_sqrt_pd(__mmask8(-1), (__m512d)x);
#else
  for (int i = 0; i < kLanes<T>; ++i)
    if constexpr (sizeof(T) == 4)
      x[i] = __builtin_sqrtf(x[i]);
    else
      x[i] = __builtin_sqrt(x[i]);
  return x;
#endif
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

// c[0] + c[1] x + c[2] x^2 + ...
template <class T, int Terms>
LAMINA_INLINE Vec<T> polynomial(const T (&c)[Terms], Vec<T> x) {
  Vec<T> sum = broadcast<T>(c[Terms - 1]);
#pragma GCC unroll 32
  for (int k = Terms - 2; k >= 0; --k) sum = sum * x + c[k];
  return sum;
}

#if defined(__FMA__)
// a b + c, rounded once, or nearly so where |c| < |a b|; the compiler fuses no other product.
template <class T>
LAMINA_INLINE Vec<T> fused(Vec<T> a, Vec<T> b, Vec<T> c) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
  else
    return (Vec<T>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#else
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
  else
    return (Vec<T>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#endif
}
// a b - product, for a product that is a b rounded, or near it.
template <class T>
LAMINA_INLINE Vec<T> product_error(Vec<T> a, Vec<T> b, Vec<T> product) {
  return fused<T>(a, b, -product);
}
#else
template <class T>  // Dekker 1971: the products of halves are exact
LAMINA_INLINE Vec<T> product_error(Vec<T> a, Vec<T> b, Vec<T> product) {
  constexpr auto kLowBits = (LaneInteger<T>{1} << (sizeof(T) == 4 ? 12 : 27)) - 1;
  const Vec<T> a_high = from_bits<T>(bits<T>(a) & ~(Mask<T>{} + kLowBits)), a_low = a - a_high;
  const Vec<T> b_high = from_bits<T>(bits<T>(b) & ~(Mask<T>{} + kLowBits)), b_low = b - b_high;
  return ((a_high * b_high - product) + (a_high * b_low + a_low * b_high)) + a_low * b_low;
}
template <class T>
LAMINA_INLINE Vec<T> fused(Vec<T> a, Vec<T> b, Vec<T> c) {
  const Vec<T> product = a * b;
  return product + (c + product_error<T>(a, b, product));
}
#endif

// table[i & 7] of each lane.
LAMINA_INLINE Vec<float> lookup(const float (&table)[8], Mask<float> i) {
#if defined(__AVX512F__)
  const __m512 twice = _mm512_maskz_broadcast_f32x8(__mmask16(-1), _mm256_loadu_ps(table));
  return (Vec<float>)_mm512_maskz_permutexvar_ps(__mmask16(-1), (__m512i)i, twice);
#elif defined(__AVX2__)
  return (Vec<float>)_mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)i);
#else
  const Mask<float> at = i & 7;
  return Vec<float>{table[at[0]], table[at[1]], table[at[2]], table[at[3]]};
#endif
}

// The whole number nearest to x / ln2.
template <class T>
LAMINA_INLINE Whole<T> halvings(Vec<T> x) {
  const Vec<T> shifted = x * T(1.44269504088896340736) + Real<T>::kRound;
  return {shifted - Real<T>::kRound, bits<T>(shifted) - bits<T>(broadcast<T>(Real<T>::kRound))};
}
// e^r - 1; r + r^2 (...), so that the leading term stays exact.
template <class T>
LAMINA_INLINE Vec<T> expm1_series(Vec<T> r) {
  return r + r * r * polynomial<T>(Real<T>::kExpSeries, r);
}
// x = n ln2 + r; returns e^r - 1 and n.
template <class T>
LAMINA_INLINE Vec<T> reduced_expm1(Vec<T> x, Whole<T>& n) {
  n = halvings<T>(x);
  return expm1_series<T>((x - n.value * Real<T>::kLn2High) - n.value * Real<T>::kLn2Low);
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

// 2^n (tail + (1 - 2^-n)): nothing is lost near zero, nothing but the result overflows.
template <class T>
LAMINA_INLINE Vec<T> expm1(Vec<T> x) {
  Whole<T> n;
  const Vec<T> tail = reduced_expm1<T>(limit<T>(x, -2 * Real<T>::kTanhOne, Real<T>::kExpMax), n);
  const Vec<T> inverse = scaled<T>(broadcast<T>(T(1)), {-n.value, -n.integer});
  const Vec<T> y = scaled<T>(tail + (T(1) - inverse), n);
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
  Vec<T> y;
  if constexpr (sizeof(T) == 4) {
    const Vec<T> square = f * f;
    y = f + (square * (f * polynomial<T>(Real<T>::kLogSeries, f) - T(0.5)) + e * Real<T>::kLn2Low);
  } else {
    y = twice_atanh<T>(f / (T(2) + f), Real<T>::kLogTerms) + e * Real<T>::kLn2Low;
  }
  y += e * Real<T>::kLn2High;
  const Vec<T> infinity = broadcast<T>(T(__builtin_inf()));
  const Vec<T> nan = broadcast<T>(T(__builtin_nan("")));
  return x != x ? x : x < T(0) ? nan : x == T(0) ? -infinity : x == infinity ? x : y;
}

// float: an odd series for small x, 1 - 2 / (e^2|x| + 1) for the others. double: m / (m + 2) with
// m = e^2|x| - 1.
template <class T>
LAMINA_INLINE Vec<T> tanh(Vec<T> x) {
  Whole<T> n;
  const Vec<T> z = at_most<T>(absolute<T>(x), Real<T>::kTanhOne);
  const Vec<T> tail = reduced_expm1<T>(z + z, n), scale = power_of_two<T>(n.integer);
  if constexpr (sizeof(T) == 4) {
    const Vec<T> square = x * x;
    const Vec<T> small = x + x * square * polynomial<T>(Real<T>::kTanhSeries, square);
    const Vec<T> large = T(1) - T(2) / (scale * tail + (scale + T(1)));
    return copy_sign<T>(z < Real<T>::kTanhSmall ? small : large, x);
  } else {
    const Vec<T> em1 = scale * tail + (scale - T(1));
    return copy_sign<T>(em1 / (em1 + T(2)), x);
  }
}

// a / (1 + e^-(x - excess)) for kExpMin <= x <= 4 kTanhOne: with x - excess = n ln2 - r it is
// 2^n a / (2^n + e^r), whose denominator does not overflow; e^r = 1 + tail, its smaller part first.
template <class T>
LAMINA_INLINE Vec<T> logistic(Vec<T> a, Vec<T> x, Vec<T> excess) {
  const Whole<T> n = halvings<T>(x);
  const Vec<T> tail =
      expm1_series<T>((n.value * Real<T>::kLn2High - x) + (n.value * Real<T>::kLn2Low + excess));
  const Vec<T> power = scaled<T>(broadcast<T>(T(1)), n);
  const Vec<T> denominator = at_least<T>(power, T(1)) + (at_most<T>(power, T(1)) + tail);
  return scaled<T>(a / denominator, n);
}
template <class T>
LAMINA_INLINE Vec<T> logistic(Vec<T> a, Vec<T> x) {
  return logistic<T>(a, x, broadcast<T>(T(-0.0)));  // adding -0 is no addition
}
template <class T>
LAMINA_INLINE Vec<T> sigmoid(Vec<T> x) {
  return logistic<T>(broadcast<T>(T(1)), limit<T>(x, Real<T>::kExpMin, 2 * Real<T>::kTanhOne));
}

// sigmoid(x) sigmoid(-x)
template <class T>
LAMINA_INLINE Vec<T> sigmoid_slope(Vec<T> x) {
  const Vec<T> e = exp_nonpositive<T>(-absolute<T>(x)), r = T(1) / (T(1) + e);
  return e * r * r;
}

// max(x, 0) + log(1 + u), u = e^-|x| = 2^n (1 + tail). float: u times a series, whose product with
// 1 + tail is rounded once.
template <class T>
LAMINA_INLINE Vec<T> softplus(Vec<T> x) {
  Whole<T> n;
  const Vec<T> tail = reduced_expm1<T>(at_least<T>(-absolute<T>(x), Real<T>::kExpMin), n);
  const Vec<T> u = scaled<T>(tail + T(1), n);
  Vec<T> log;
  if constexpr (sizeof(T) == 4) {
    const Vec<T> factor = polynomial<T>(Real<T>::kLog1pSeries, u - Real<T>::kLog1pCentre);
    log = scaled<T>(factor * tail + factor, n);
  } else {
    log = twice_atanh<T>(u / (T(2) + u), Real<T>::kLog1pTerms);
  }
  return (x > T(0) ? x : x != x ? x : Vec<T>{}) + log;
}

// double: exp(z^2) erfc(z) / t as a Chebyshev series in u = 2 t - 1, t = 2 / (2 + z), z >= 0
// (relative error 1e-15).
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
// float: Phi(-z) e^(z^2/2) of the normal distribution for z = kMillsCentres[i] + t is
// kMillsValues[i] + t (kMillsSeries[0][i] + kMillsSeries[1][i] t + ...) (2^-27.5). The centres are
// chosen such that the values lose 2^-35 only by rounding. The intervals begin at 1, 2, 3, 5, 7,
// 11, 0 and 1/2: the upper bits of 1 + z give i.
inline constexpr float kMillsCentres[8] = {1.49933243f, 2.49805546f, 4.00281715f,  6.00255585f,
                                           9.00872803f, 12.971983f,  0.250149012f, 0.749490023f};
inline constexpr float kMillsValues[8] = {0.205840945f,  0.141420081f, 0.0943506733f, 0.0647530854f,
                                          0.0437573418f, 0.030574549f, 0.413988084f,  0.300321102f};
inline constexpr float kMillsSeries[8][8] = {
    {-0.0903182775f, -0.0456670746f, -0.0212737862f, -0.0102582695f, -0.00474428851f,
     -0.00232975208f, -0.295383573f, -0.173854604f},
    {0.0352119207f, 0.0136705991f, 0.00459779752f, 0.00158862618f, 0.000508666562f, 0.000176522706f,
     0.170049101f, 0.0850094333f},
    {-0.0125079704f, -0.00383905484f, -0.000956565025f, -0.000240816342f, -5.39514076e-05f,
     -1.33006033e-05f, -0.0842817798f, -0.0367145874f},
    {0.00411440898f, 0.00102008972f, 0.000192225329f, 3.57745776e-05f, 5.66242397e-06f,
     9.96755603e-07f, 0.0372401662f, 0.0143689578f},
    {-0.00126738369f, -0.000258108368f, -3.73545226e-05f, -5.21485254e-06f, -5.86540637e-07f,
     -7.42811608e-08f, -0.0149980607f, -0.00515408721f},
    {0.000369922927f, 6.26393521e-05f, 7.06817627e-06f, 7.48081391e-07f, 6.02838384e-08f,
     5.48513279e-09f, 0.00561666302f, 0.00189641432f},
    {-0.000105284962f, -1.49031575e-05f, -1.39319582e-06f, -1.07404389e-07f, -6.74034872e-09f,
     -4.19096591e-10f, -0.00192146411f, -0.000896588259f},
    {2.5694424e-05f, 3.12127145e-06f, 2.46201836e-07f, 1.4020209e-08f, 6.86687762e-10f,
     3.3428163e-11f, 0.000370976079f, -0.00129070831f}};

// Phi(-z), or z Phi(-z), of the normal distribution, and e^(-z^2/2); 0 <= z <= kNormalZero, down to
// the underflow. z^2 in two parts, so that exp sees no rounded argument. float: the exact value, or
// z times it, is the last to be added. (Without a permutation, that is with 16-byte vectors, the
// lookups take twice the time of a series in 1 / (a z + b), which lost 2.3 units to its division.)
template <bool Times, class T>
LAMINA_INLINE Vec<T> normal_tail(Vec<T> z, Vec<T>& bell) {
  const Vec<T> half = T(0.5) * z, square = half * z;
  const Whole<T> n = halvings<T>(-square);
  const Vec<T> tail =
      expm1_series<T>((-square - n.value * Real<T>::kLn2High) -
                      (n.value * Real<T>::kLn2Low + product_error<T>(half, z, square)));
  bell = scaled<T>(tail + T(1), n);
  if constexpr (sizeof(T) == 4) {
    const Mask<T> i = bits<T>(z + T(1)) >> (Real<T>::kMantissaBits - 1);
    const Vec<T> t = z - lookup(kMillsCentres, i), value = lookup(kMillsValues, i);
    Vec<T> sum = lookup(kMillsSeries[7], i);
#pragma GCC unroll 8
    for (int k = 6; k >= 0; --k) sum = sum * t + lookup(kMillsSeries[k], i);
    const Vec<T> change = Times ? z * (sum * t) : sum * t;
    const Vec<T> whole = Times ? fused<T>(z, value, change) : value + change;
    const Vec<T> rest = fused<T>(whole, tail, change);
    return scaled<T>(Times ? fused<T>(z, value, rest) : value + rest, n);
  } else {
    const Vec<T> t = T(1) / (T(1) + z * T(0.35355339059327376)), u = T(2) * t - T(1);
    Vec<T> b = {}, after = {};  // Clenshaw's recurrence
#pragma GCC unroll 32
    for (int k = 24; k >= 1; --k) {
      const Vec<T> next = T(2) * u * b - after + T(kErfcSeries[k]);
      after = b, b = next;
    }
    const Vec<T> y = T(0.5) * t * bell * (u * b - after + T(kErfcSeries[0]));
    return Times ? z * y : y;
  }
}

LAMINA_CPU_NAMESPACE_END
