// softmax of the middle axis of [outer][axis][inner].
#pragma once

#include "bindings/common.h"

namespace lamina::bindings {

// y of x, or with grad_y the gradient of x from y.
void softmax(int64_t outer, int64_t axis, int64_t inner, bool log, const Array& source,
             const std::optional<Array>& grad_y, const Array& result);

}  // namespace lamina::bindings
