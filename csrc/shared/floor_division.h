// Divisions rounded down and their remainders, as Python and NumPy have them.
#pragma once

namespace lamina {

[[gnu::always_inline]] inline float remainder_to_zero(float a, float b) {
  return __builtin_fmodf(a, b);
}
[[gnu::always_inline]] inline double remainder_to_zero(double a, double b) {
  return __builtin_fmod(a, b);
}

// b times the fraction of a / b above the whole number below it.
template <class T>
[[gnu::always_inline]] inline T floor_remainder(T a, T b) {
  const T rest = remainder_to_zero(a, b);
  if (rest == T(0)) return b < T(0) ? T(-0.0) : T(0);
  return (b < T(0)) != (rest < T(0)) ? rest + b : rest;
}

// That whole number.
template <class T>
[[gnu::always_inline]] inline T floor_quotient(T a, T b) {
  if (b == T(0)) return a / b;
  const T rest = remainder_to_zero(a, b);
  T quotient = (a - rest) / b;
  if (rest != T(0) && (b < T(0)) != (rest < T(0))) quotient -= T(1);
  if (quotient == T(0)) return static_cast<T>(__builtin_copysign(0.0, static_cast<double>(a / b)));
  const T down = __builtin_floor(quotient);
  return quotient - down > T(0.5) ? down + T(1) : down;
}

}  // namespace lamina
