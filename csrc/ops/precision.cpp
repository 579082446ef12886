#include "ops/precision.h"

#include <atomic>
#include <cstdlib>
#include <iterator>

#include "core/check.h"

namespace lamina::ops {
namespace {

std::atomic<Float32Precision>& setting() {
  static std::atomic<Float32Precision> precision{[] {
    const char* text = std::getenv("LAMINA_FLOAT32_PRECISION");
    return text && *text ? precision_of(text) : Float32Precision::highest;
  }()};
  return precision;
}

}  // namespace

Float32Precision float32_precision() {
  return setting().load(std::memory_order_relaxed);
}

void set_float32_precision(Float32Precision precision) {
  setting().store(precision, std::memory_order_relaxed);
}

Float32Precision precision_of(const std::string& name) {
  for (size_t i = 0; i < std::size(kPrecisionNames); ++i)
    if (name == kPrecisionNames[i]) return static_cast<Float32Precision>(i);
  throw std::invalid_argument(message("set_float32_precision",
                                      "precision must be 'highest', 'high' or 'medium', got '",
                                      name, "' (or LAMINA_FLOAT32_PRECISION)"));
}

}  // namespace lamina::ops
