// The extension module lamina._cuda: the CUDA kernels on GPUs. It needs no GPU to be imported;
// join_registry() makes its kernels the backend "cuda".
#include <cuda_runtime.h>
#include <pybind11/pybind11.h>

#include <mutex>
#include <unordered_map>

#include "cuda/gpu.h"
#include "cuda/kernel_table.h"

namespace lamina::bindings {
namespace {

namespace py = pybind11;

void require(cudaError_t status, const char* what) {
  if (status != cudaSuccess)
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

// ---- workspace: memory objects of the array library, kept until the kernel is enqueued. Its pool
// gives a block back to the same stream only, so no later user can be early.

std::mutex mutex;
std::unordered_map<void*, py::object>& live() {
  static auto* objects = new std::unordered_map<void*, py::object>();  // outlives the interpreter
  return *objects;
}
py::object& allocator() {
  static auto* function = new py::object();
  return *function;
}

void* allocate(size_t bytes) {
  const py::gil_scoped_acquire gil;
  if (!allocator()) throw std::runtime_error("lamina: no allocator of device memory is set");
  py::object memory = allocator()(bytes);
  void* data = reinterpret_cast<void*>(memory.attr("ptr").cast<uintptr_t>());
  const std::lock_guard<std::mutex> lock(mutex);
  live()[data] = std::move(memory);
  return data;
}

void release(void* data) {
  if (!Py_IsInitialized()) return;
  const py::gil_scoped_acquire gil;
  py::object memory;
  const std::lock_guard<std::mutex> lock(mutex);
  if (const auto found = live().find(data); found != live().end()) {
    memory = std::move(found->second);
    live().erase(found);
  }
}

// ---- the call's stream and device, and NumPy arrays staged through the GPU

thread_local cudaStream_t stream_of_call = nullptr;

void select(void* stream, int device) {
  int current = 0;
  require(cudaGetDevice(&current), "cudaGetDevice");
  if (current != device) require(cudaSetDevice(device), "cudaSetDevice");
  stream_of_call = static_cast<cudaStream_t>(stream);
  cuda::set_stream(stream);
}

void* upload(const ops::CallMemory& memory) {
  void* copy = allocate(memory.bytes);
  require(cudaMemcpyAsync(copy, memory.data, memory.bytes, cudaMemcpyHostToDevice, stream_of_call),
          "copy to the GPU");
  require(cudaStreamSynchronize(stream_of_call), "copy to the GPU");
  return copy;
}

void download(const ops::CallMemory& memory, const void* copy) {
  require(cudaMemcpyAsync(const_cast<void*>(memory.data), copy, memory.bytes,
                          cudaMemcpyDeviceToHost, stream_of_call),
          "copy from the GPU");
  require(cudaStreamSynchronize(stream_of_call), "copy from the GPU");
}

int device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

void join_registry() {
  static const std::vector<ops::Kernel> kernels = cuda::kernel_table("cuda");
  static ops::Backend backend{"cuda", kernels.data(), kernels.size(), allocate, release};
  backend.select = select;
  backend.upload = upload;
  backend.download = download;
  cuda::set_allocator({allocate, release});
  py::module_::import("lamina._C").attr("register_backend")(py::capsule(&backend));
}

}  // namespace

PYBIND11_MODULE(_cuda, module, py::mod_gil_not_used()) {
  module.doc() = "The CUDA kernels on GPUs. Use lamina.functional with CuPy arrays instead.";
  module.def("join_registry", &join_registry);
  module.def("device_count", &device_count, "GPUs that this process can use; 0 without a driver");
  module.def("architectures", [] { return LAMINA_CUDA_ARCHITECTURES; });
  module.def("runtime_version", [] { return CUDART_VERSION; });
  module.def(
      "set_allocator", [](py::object function) { allocator() = std::move(function); },
      "function(bytes) returns an object whose .ptr is device memory", py::arg("function"));
  // As _simt: threads belong to the CPU's backends.
  module.def("set_num_threads", [](int) {}, py::arg("count"));
}

}  // namespace lamina::bindings
