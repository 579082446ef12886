// Blocks of conv `direct` on a CPU, on which kernels and planner agree.
#pragma once

#include <cstdint>

namespace lamina {

inline constexpr int64_t kBandElements = 1 << 16;  // of the padded copy of a band: stays within L2
inline constexpr int64_t kInputBlock = 16;         // input channels of a task of weight gradients

}  // namespace lamina
