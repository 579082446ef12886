// How exactly float32 convolutions and matrix products are computed; other types are not affected.
//
//   highest  float32 products and sums; on tiles of AMX products of three bfloat16 pieces, which
//            hold the 24 bits of an operand
//   high     products of operands rounded to 11 bits (tf32) with float32 sums on tensor cores, of
//            two pieces (16 bits) on tiles, and algorithms that round a little more, such as
//            F(4x4, 3x3)
//   medium   also products of operands rounded to 8 bits (bfloat16) with float32 sums
#pragma once

#include <string>

namespace lamina::ops {

enum class Float32Precision { highest, high, medium };
inline constexpr const char* kPrecisionNames[] = {"highest", "high", "medium"};

// One setting a process: LAMINA_FLOAT32_PRECISION, else highest, until it is set.
Float32Precision float32_precision();
void set_float32_precision(Float32Precision precision);

// What a call on elements of this size may use.
inline Float32Precision call_precision(size_t element_bytes) {
  return element_bytes == sizeof(float) ? float32_precision() : Float32Precision::highest;
}
inline const char* precision_name(Float32Precision precision) {
  return kPrecisionNames[static_cast<int>(precision)];
}
Float32Precision precision_of(const std::string& name);  // ValueError for an unknown one

}  // namespace lamina::ops
