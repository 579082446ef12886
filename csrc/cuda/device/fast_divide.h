// Division by a number known on the host, as a multiplication (Granlund & Montgomery 1994).
#pragma once

#include "simt/simt.h"

namespace lamina::cuda {

// quotient = n / divisor, for n and divisor from 1 (n from 0) to 2^31 - 1.
struct FastDivisor {
  unsigned divisor = 1, multiplier = 0, shift = 0;

  FastDivisor() = default;
  constexpr explicit FastDivisor(int64_t value) : divisor(static_cast<unsigned>(value)) {
    while ((uint64_t{1} << (shift + 1)) < divisor) ++shift;  // 2^(shift + 1) >= divisor
    const uint64_t power = uint64_t{1} << (32 + shift);
    multiplier = static_cast<unsigned>((power + divisor - 1) / divisor);
  }
  __device__ __forceinline__ int divide(int n) const {
    const auto number = static_cast<unsigned>(n);
    return static_cast<int>(divisor == 1 ? number : __umulhi(number, multiplier) >> shift);
  }
  // n / divisor, and n becomes the remainder.
  __device__ __forceinline__ int split(int& n) const {
    const int quotient = divide(n);
    n -= quotient * static_cast<int>(divisor);
    return quotient;
  }
};

}  // namespace lamina::cuda
