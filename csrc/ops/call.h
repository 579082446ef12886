// Where a call runs and which arrays it touches: known to the bindings, asked by the registry.
#pragma once

#include <cstddef>
#include <map>
#include <string>

namespace lamina::ops {

// An array of a call.
struct CallMemory {
  const void* data;
  size_t bytes;
  bool read, written;
  const char* name;
};

// One call of this thread. On a GPU the backend is "cuda", whatever was chosen for NumPy arrays.
class CallScope {
 public:
  CallScope(bool on_gpu, void* stream, int device);
  ~CallScope();
  void finish();  // copies staged results back; throws what the device reports
  CallScope(const CallScope&) = delete;
  CallScope& operator=(const CallScope&) = delete;
};

// "cuda" during a call on a GPU, else null.
const std::string* call_backend();

// The address of an array for the kernels of the current call. NumPy arrays in a call of the
// backend "cuda" are copied to the GPU, and back at the end. Throws for arrays on two devices.
void* call_array(const CallMemory& memory, bool on_gpu);

// Copies of a table on GPUs, by device; made by the first call that needs one.
using TableCopies = std::map<int, void*>;
const void* call_table(const CallMemory& memory, TableCopies& copies);
void forget_table(TableCopies& copies);

}  // namespace lamina::ops
