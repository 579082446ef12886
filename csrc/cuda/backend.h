// What a call has besides its arguments: the stream it runs on and where workspace comes from.
#pragma once

#include "simt/simt.h"

namespace lamina::cuda {

cudaStream_t current_stream();

// Temporary device memory until the end of the scope, 256-byte aligned and undefined. It comes from
// the memory pool of the stream, so no launch waits for it; null for no bytes.
class Workspace {
 public:
  explicit Workspace(int64_t bytes);
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  template <class T>
  T* get() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_;
};

}  // namespace lamina::cuda
