// Cache-line aligned temporary memory of a task, from its thread's arena until the end of the
// scope.
#pragma once

#include <cstdint>

#include "core/arena.h"
#include "cpu/simd.h"

LAMINA_CPU_NAMESPACE_BEGIN

template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : bytes_(static_cast<size_t>(count) * sizeof(T)),
        data_(static_cast<T*>(take_scratch(bytes_))) {}
  ~Scratch() { give_scratch(data_, bytes_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* get() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  size_t bytes_;
  T* data_;
};

LAMINA_CPU_NAMESPACE_END
