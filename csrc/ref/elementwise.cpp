// Functions of elements, reference: the formulas of ops/elementwise.h.
#include "ops/elementwise.h"

#include <cmath>

#include "ops/instantiate.h"
#include "shared/floor_division.h"

namespace lamina::ref {

template <class T>
void elementwise_fprop_stretch(const ops::ElementwiseArgs<T>& args) {
  for (int64_t i = 0; i < args.size; ++i) {
    const T a = args.a[args.a_moves ? i : 0], b = args.b ? args.b[args.b_moves ? i : 0] : T(1);
    T& y = args.result[i];
    switch (args.kind) {
      case ops::Elementwise::sign:
        y = std::isnan(a) ? a : static_cast<T>((a > 0) - (a < 0));
        break;
      case ops::Elementwise::rsqrt:
        y = 1 / std::sqrt(a);
        break;
      case ops::Elementwise::cube:
        y = a * a * a;
        break;
      case ops::Elementwise::inverse_square:
        y = 1 / (a * a);
        break;
      case ops::Elementwise::floor_divide:
        y = floor_quotient(a, b);
        break;
      case ops::Elementwise::remainder:
        y = floor_remainder(a, b);
        break;
    }
  }
}

LAMINA_INSTANTIATE(elementwise_fprop_stretch, ElementwiseArgs)

}  // namespace lamina::ref
