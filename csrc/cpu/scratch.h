// Cache-line aligned temporary memory for one kernel call; freed at the end of the scope.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "cpu/simd.h"

LAMINA_CPU_NAMESPACE_BEGIN

template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count) {
    const int64_t bytes = (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    data_ = static_cast<T*>(std::aligned_alloc(64, static_cast<size_t>(bytes ? bytes : 64)));
    if (!data_) __builtin_trap();  // plans bound scratch to megabytes before a kernel runs
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* get() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  T* data_;
};

LAMINA_CPU_NAMESPACE_END
