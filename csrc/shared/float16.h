// The 16-bit floats as storage: kernels load them, compute in float32 and round once on the way
// back, to nearest, ties to even. NaN stays NaN.
#pragma once

#include <bit>
#include <cstdint>

namespace lamina {

// float, also where the checking build of the CUDA kernels puts its counting type in float's place.
using PlainFloat = decltype(0.0f);

struct float16 {  // IEEE 754 binary16
  uint16_t bits;

  float16() = default;
  explicit constexpr float16(PlainFloat x) : bits(round(std::bit_cast<uint32_t>(x))) {}
  explicit constexpr operator PlainFloat() const {
    const uint32_t sign = uint32_t{bits} >> 15 << 31, exponent = bits >> 10 & 31u;
    const uint32_t mantissa = bits & 1023u;
    if (exponent == 31) return std::bit_cast<PlainFloat>(sign | 0x7f800000u | mantissa << 13);
    if (exponent) return std::bit_cast<PlainFloat>(sign | (exponent + 112) << 23 | mantissa << 13);
    return std::bit_cast<PlainFloat>(
        sign | std::bit_cast<uint32_t>(static_cast<PlainFloat>(mantissa) * 0x1p-24f));
  }

 private:
  static constexpr uint16_t round(uint32_t x) {
    const uint32_t sign = x >> 31 << 15, magnitude = x & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
    if (magnitude >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65536 and more
    if (magnitude < 0x33000000u) return static_cast<uint16_t>(sign);             // below 2^-25
    // The mantissa with its leading one, shifted to units of the result's last place.
    const uint32_t exponent = magnitude >> 23, full = (magnitude & 0x7fffffu) | 0x800000u;
    const uint32_t shift = exponent < 113 ? 126 - exponent : 13;
    const uint32_t kept = full >> shift, rest = full & ((1u << shift) - 1),
                   half = 1u << (shift - 1);
    const uint32_t up = rest > half || (rest == half && (kept & 1u)) ? 1 : 0;
    const uint32_t base = exponent < 113 ? 0 : (exponent - 113) << 10;
    return static_cast<uint16_t>(sign | (base + kept + up));
  }
};

struct bfloat16 {  // the upper half of a float32
  uint16_t bits;

  bfloat16() = default;
  explicit constexpr bfloat16(PlainFloat x) : bits(round(std::bit_cast<uint32_t>(x))) {}
  explicit constexpr operator PlainFloat() const {
    return std::bit_cast<PlainFloat>(uint32_t{bits} << 16);
  }

 private:
  static constexpr uint16_t round(uint32_t x) {
    if ((x & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(x >> 16 | 0x40u);
    return static_cast<uint16_t>((x + 0x7fffu + (x >> 16 & 1u)) >> 16);
  }
};

}  // namespace lamina
