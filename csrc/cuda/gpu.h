// What the extension module sets on a GPU: the stream of this thread's calls and where workspace
// comes from. Streams are void here, for files that nvcc does not compile.
#pragma once

#include <cstddef>

namespace lamina::cuda {

void set_stream(void* stream);

// Memory of the current stream's pool.
struct Allocator {
  void* (*allocate)(size_t bytes);
  void (*release)(void* data);
};
void set_allocator(const Allocator& functions);

}  // namespace lamina::cuda
