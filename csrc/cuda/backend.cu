// The stream and the workspace of a call: the current CuPy stream and its memory pool on a GPU,
// the host's memory under simt.
#include "cuda/backend.h"

namespace lamina::cuda {

#ifdef __CUDACC__

static thread_local cudaStream_t stream_of_call = nullptr;
static Allocator allocator{};

void set_stream(cudaStream_t stream) {
  stream_of_call = stream;
}
void set_allocator(const Allocator& functions) {
  allocator = functions;
}

cudaStream_t current_stream() {
  return stream_of_call;
}
void* allocate(size_t bytes) {
  return allocator.allocate(bytes, stream_of_call);
}
void release(void* data) {
  allocator.release(data);
}

#else

cudaStream_t current_stream() {
  return nullptr;
}
void* allocate(size_t bytes) {
  return simt::allocate(bytes);
}
void release(void* data) {
  simt::release(data);
}

#endif

Workspace::Workspace(int64_t bytes)
    : data_(bytes > 0 ? allocate(static_cast<size_t>(bytes)) : nullptr) {}

Workspace::~Workspace() {
  if (data_) release(data_);
}

}  // namespace lamina::cuda
