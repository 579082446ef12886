// elementwise: functions of one or two elements that NumPy has no fast loops for.
#pragma once

#include <cstdint>

namespace lamina::ops {

// sign          -1, 0 or 1; NaN of NaN
// rsqrt         1 / sqrt(a)
// cube, inverse_square  a a a, 1 / (a a)
// floor_divide  a / b rounded down, and
// remainder     what is left, which has the sign of b, as NumPy has them (shared/floor_division.h)
enum class Elementwise { sign, rsqrt, cube, inverse_square, floor_divide, remainder };

// result[i] = f(a[i], b[i]); an operand that does not move is one number.
template <class T>
struct ElementwiseArgs {
  Elementwise kind = Elementwise::sign;
  int64_t size = 0;
  bool a_moves = true, b_moves = true;
  const T* a = nullptr;
  const T* b = nullptr;  // null for functions of one element
  T* result = nullptr;
};

}  // namespace lamina::ops
