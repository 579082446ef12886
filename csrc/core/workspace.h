// Temporary memory of one kernel call, recycled: fresh pages cost more to touch than most kernels
// take to run.
#pragma once

#include <cstdint>

#include "core/buffers.h"

namespace lamina {

class Workspace {
 public:
  // 64-byte aligned, uninitialised, at least `bytes`; null for none. Throws std::bad_alloc.
  explicit Workspace(int64_t bytes) : bytes_(static_cast<size_t>(bytes)) {
    if (bytes != 0) data_ = take_buffer(bytes_);
  }
  ~Workspace() {
    if (data_ != nullptr) give_buffer(data_, bytes_);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  void* get() const { return data_; }

 private:
  size_t bytes_;
  void* data_ = nullptr;
};

}  // namespace lamina
