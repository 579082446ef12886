// The second factor of many products, filters above all, as a kernel packs or transforms it before
// it multiplies: kept between calls where they are the same (bindings/filter_store.h).
#pragma once

namespace lamina::ops {

// Memory in the layout of one kernel. A kernel that is given some packs all filters there and says
// so, unless they are `ready`; the products and their order are the same as without it.
template <class T>
struct PackedFilters {
  T* data = nullptr;
  bool ready = false;
};

}  // namespace lamina::ops
