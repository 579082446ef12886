// A float that counts its arithmetic: the checking build compiles kernels with it in place of
// float.
//
// Additions, multiplications, divisions, comparisons by fmin and fmax count one operation, a fused
// multiply-add two; exp, log and their like count one "special" operation each.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

extern "C" {
extern __thread unsigned long long simt_flops, simt_special;
}

namespace simt {

// The update is hidden in assembly from the compiler's instrumentation of memory accesses.
#if defined(__x86_64__)
#define SIMT_COUNT(counter, n) \
  asm volatile("addq %1, %0" : "+m"(counter) : "er"((unsigned long long)(n)) : "cc")
#else
void count_operations(unsigned long long* counter, unsigned long long n);
#define SIMT_COUNT(counter, n) ::simt::count_operations(&(counter), n)
#endif

struct counted_float {
  float value;

  counted_float() = default;
  template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>>
  SIMT_INLINE constexpr counted_float(T x) : value(static_cast<float>(x)) {}
  template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>>
  SIMT_INLINE constexpr explicit operator T() const {
    return static_cast<T>(value);
  }
  SIMT_INLINE constexpr counted_float operator-() const { return counted_float(-value); }
  SIMT_INLINE constexpr counted_float operator+() const { return *this; }

#define SIMT_ARITHMETIC(op)                                                                  \
  friend SIMT_INLINE constexpr counted_float operator op(counted_float a, counted_float b) { \
    if (!__builtin_is_constant_evaluated()) SIMT_COUNT(simt_flops, 1);                       \
    return counted_float(a.value op b.value);                                                \
  }                                                                                          \
  SIMT_INLINE constexpr counted_float& operator op## = (counted_float b) {                   \
    return *this = *this op b;                                                               \
  }
  SIMT_ARITHMETIC(+)
  SIMT_ARITHMETIC(-)
  SIMT_ARITHMETIC(*)
  SIMT_ARITHMETIC(/)
#undef SIMT_ARITHMETIC
#define SIMT_COMPARISON(op)                                                         \
  friend SIMT_INLINE constexpr bool operator op(counted_float a, counted_float b) { \
    return a.value op b.value;                                                      \
  }
  // clang-format off
  SIMT_COMPARISON(<) SIMT_COMPARISON(>) SIMT_COMPARISON(<=) SIMT_COMPARISON(>=)
  SIMT_COMPARISON(==) SIMT_COMPARISON(!=)
  // clang-format on
#undef SIMT_COMPARISON
};

#define SIMT_SPECIAL(name)                          \
  SIMT_INLINE counted_float name(counted_float x) { \
    SIMT_COUNT(simt_special, 1);                    \
    return counted_float(std::name(x.value));       \
  }
// clang-format off
SIMT_SPECIAL(exp) SIMT_SPECIAL(expm1) SIMT_SPECIAL(log) SIMT_SPECIAL(log1p) SIMT_SPECIAL(tanh)
SIMT_SPECIAL(sqrt) SIMT_SPECIAL(erf) SIMT_SPECIAL(erfc) SIMT_SPECIAL(sin) SIMT_SPECIAL(cos)
#undef SIMT_SPECIAL
    // clang-format on

    SIMT_INLINE counted_float pow(counted_float x, counted_float y) {
  SIMT_COUNT(simt_special, 2);
  return counted_float(std::pow(x.value, y.value));
}
SIMT_INLINE counted_float rsqrt(counted_float x) {
  SIMT_COUNT(simt_special, 1);
  return counted_float(1.0f / std::sqrt(x.value));
}
SIMT_INLINE counted_float fma(counted_float a, counted_float b, counted_float c) {
  SIMT_COUNT(simt_flops, 2);
  return counted_float(std::fma(a.value, b.value, c.value));
}
SIMT_INLINE counted_float fmax(counted_float a, counted_float b) {
  SIMT_COUNT(simt_flops, 1);
  return counted_float(std::fmax(a.value, b.value));
}
SIMT_INLINE counted_float fmin(counted_float a, counted_float b) {
  SIMT_COUNT(simt_flops, 1);
  return counted_float(std::fmin(a.value, b.value));
}
SIMT_INLINE counted_float fabs(counted_float x) {
  return counted_float(std::fabs(x.value));
}
SIMT_INLINE counted_float floor(counted_float x) {
  return counted_float(std::floor(x.value));
}
SIMT_INLINE counted_float ceil(counted_float x) {
  return counted_float(std::ceil(x.value));
}
SIMT_INLINE counted_float copysign(counted_float x, counted_float sign) {
  return counted_float(std::copysign(x.value, sign.value));
}
SIMT_INLINE bool isnan(counted_float x) {
  return x.value != x.value;
}
SIMT_INLINE bool isinf(counted_float x) {
  return std::isinf(x.value);
}

}  // namespace simt

template <>
class std::numeric_limits<simt::counted_float> : public std::numeric_limits<float> {};
