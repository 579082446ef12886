// The type of a kernel's scalar parameters and of its arithmetic: double for double, else float.
#pragma once

#include <type_traits>

namespace lamina::ops {

template <class T>
using Scalar = std::conditional_t<sizeof(T) == sizeof(double), double, float>;

}  // namespace lamina::ops
