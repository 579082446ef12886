#include "ops/call.h"

#include <exception>
#include <string>
#include <vector>

#include "core/threads.h"
#include "ops/registry.h"

namespace lamina::ops {
namespace {

struct StagedArray {
  CallMemory memory;
  void* copy;
};

// Less memory than this is done before a second thread has begun.
constexpr size_t kSmallCall = size_t{32} << 10;

struct Call {
  const Backend* backend = nullptr;  // null between calls
  size_t bytes = 0;                  // of all its arrays
  int device = 0;
  bool open = false, on_gpu = false, staging = false;
  std::vector<CallMemory> memory;  // only for a backend that watches it
  std::vector<StagedArray> staged;
};

Call& this_call() {
  thread_local Call call;
  return call;
}

}  // namespace

const std::string* call_backend() {
  static const std::string cuda = "cuda";
  return this_call().on_gpu ? &cuda : nullptr;
}

CallScope::CallScope(bool on_gpu, void* stream, int device) {
  Call& call = this_call();
  call.on_gpu = on_gpu;
  call.backend = find_backend(current_backend().c_str());
  call.device = device;
  call.memory.clear();
  call.bytes = 0;
  call.open = true;
  if (on_gpu && !call.backend) {
    call.open = call.on_gpu = false;
    throw std::runtime_error(
        "lamina: arrays on a GPU need the cuda backend, which is not available here; see "
        "lamina.cuda.is_available()");
  }
  call.staging = !on_gpu && call.backend && call.backend->upload;
  if (!call.backend || !call.backend->select) return;
  try {
    call.backend->select(stream, device);
  } catch (...) {
    call = {};  // no destructor will: the next call of this thread starts afresh
    throw;
  }
}

void CallScope::finish() {
  const Call& call = this_call();
  for (const StagedArray& array : call.staged)
    if (array.memory.written) call.backend->download(array.memory, array.copy);
}

CallScope::~CallScope() {
  Call& call = this_call();
  for (const StagedArray& array : call.staged) call.backend->release(array.copy);
  call.staged.clear();
  call.open = call.on_gpu = call.staging = false;
  call.backend = nullptr;
}

void* call_array(const CallMemory& memory, bool on_gpu) {
  Call& call = this_call();
  void* data = const_cast<void*>(memory.data);
  if (on_gpu != call.on_gpu)
    throw std::logic_error(std::string("internal: array '") + memory.name +
                           "' is on another device than the result");
  call.bytes += memory.bytes;
  if (call.backend && call.backend->begin_call) call.memory.push_back(memory);
  if (!call.staging || memory.bytes == 0) return data;
  for (StagedArray& array : call.staged) {
    if (array.memory.data != memory.data || array.memory.bytes != memory.bytes) continue;
    array.memory.written |= memory.written;
    return array.copy;
  }
  call.staged.push_back({memory, call.backend->upload(memory)});
  return call.staged.back().copy;
}

const void* call_table(const CallMemory& memory, TableCopies& copies) {
  const Call& call = this_call();
  if (!call.backend || !call.backend->upload || memory.bytes == 0) return call_array(memory, false);
  void*& copy = copies[call.device];
  if (!copy) copy = call.backend->upload(memory);
  return copy;
}

void forget_table(TableCopies& copies) {
  if (const Backend* backend = copies.empty() ? nullptr : find_backend("cuda"))
    for (const auto& [device, copy] : copies) backend->release(copy);
  copies.clear();
}

WatchedCall::WatchedCall() {
  const Call& call = this_call();
  small_ = call.open && call.bytes < kSmallCall;
  if (small_) was_alone_ = set_alone(true);
  if (call.backend && call.backend->begin_call)
    call.backend->begin_call(call.memory.data(), call.memory.size());
}

WatchedCall::~WatchedCall() {
  const Call& call = this_call();
  if (small_) set_alone(was_alone_);
  if (call.backend && call.backend->end_call)
    call.backend->end_call(call.memory.data(), call.memory.size());
}

}  // namespace lamina::ops
