// The stream and the workspace of a call: the current CuPy stream and its memory pool on a GPU,
// the host's memory under simt.
#include "cuda/backend.h"
#include "cuda/gpu.h"

namespace lamina::cuda {

#ifdef __CUDACC__

static thread_local cudaStream_t stream_of_call = nullptr;
static Allocator allocator{};

void set_stream(void* stream) {
  stream_of_call = static_cast<cudaStream_t>(stream);
}
void set_allocator(const Allocator& functions) {
  allocator = functions;
}

cudaStream_t current_stream() {
  return stream_of_call;
}
static void* allocate(size_t bytes) {
  return allocator.allocate(bytes);
}
static void release(void* data) {
  allocator.release(data);
}

#else

cudaStream_t current_stream() {
  return nullptr;
}
static void* allocate(size_t bytes) {
  return simt::allocate(bytes);
}
static void release(void* data) {
  simt::release(data);
}

#endif

Workspace::Workspace(int64_t bytes)
    : data_(bytes > 0 ? allocate(static_cast<size_t>(bytes)) : nullptr) {}

Workspace::~Workspace() {
  if (data_) release(data_);
}

}  // namespace lamina::cuda
