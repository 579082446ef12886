// The state of one OS thread that runs blocks, shared by the runtime's own files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "simt/runtime.h"
#include "simt/simt.h"

extern "C" {
// What kernels see as const threadIdx, blockIdx, blockDim and gridDim.
extern __thread uint3 simt_threadIdx, simt_blockIdx;
extern __thread simt::ConstantDim simt_blockDim, simt_gridDim;
extern __thread unsigned long long simt_flops, simt_special;
}

namespace simt {

inline constexpr int kMaxThreads = 1024;  // of a block
inline constexpr int kMaxWarps = kMaxThreads / 32;
inline constexpr size_t kMaxShared = 227 * 1024;  // of a block, sm_90
inline constexpr size_t kSharedCapacity = 256 * 1024;

struct Fiber {
  void* saved;  // stack pointer while another fiber runs
  char* bottom;
  size_t size;
};

// A cp.async that has been issued; target null marks a commit.
struct AsyncCopy {
  char* target;
  const char* source;
  int bytes, source_bytes;
  uintptr_t pc;
};

struct Mbarrier {
  const void* address;
  int arrivals, pending;
  long bytes;  // still expected in this phase
  unsigned phase;
};

struct BulkCopy {
  char* target;
  const char* source;
  unsigned bytes;
  const void* barrier;
  uintptr_t pc;
  int thread;  // that issued it
  const char* file;
  int line;
};

// What a waiting lane has deposited.
struct Arrival {
  uint32_t mask;
  Collective kind;
  int lane_argument, width;
  uint64_t operand, result;
  void* fragments;
  const char* file;
  int line;
};

struct Worker {
  // Read by every memory hook, hence first.
  char* stack_bottom;
  size_t stack_size;
  char* shared;
  size_t shared_bytes;
  bool in_kernel;

  int warp, lane;  // that run now
  Schedule schedule;
  Fiber* current;
  Fiber main;
  const Launch* launch;
  int threads, warps;

  // Bit l of element w: lane l of warp w has not started, may run, exists, waits at the block's
  // barrier, in a collective, at an mbarrier.
  uint32_t unstarted[kMaxWarps], ready[kMaxWarps], live[kMaxWarps];
  uint32_t at_barrier[kMaxWarps], in_collective[kMaxWarps], at_mbarrier[kMaxWarps];
  uint32_t runnable_warps;

  int live_threads, arrived;  // at the block's barrier
  BarrierVote vote;
  int vote_sum, vote_result;
  const char* barrier_file;
  int barrier_line;

  Fiber* fiber_of[kMaxThreads];
  Arrival arrivals[kMaxThreads];
  uint3 thread_index[kMaxThreads];
  std::vector<Fiber*> fibers, free_fibers;
  std::vector<Mbarrier> mbarriers;
  std::vector<BulkCopy> bulk_copies;
  std::vector<AsyncCopy> async_copies[kMaxThreads];
  bool any_async;

  std::string error;  // set when the launch is abandoned
  uint64_t random;
  Counters counters;

  int thread() const { return warp * 32 + lane; }
};

Worker* this_worker();

// Suspends the current fiber until something makes it ready; reports a deadlock if nothing can.
void block_current(Worker& worker);
// Makes `thread` the running one without a switch: the caller continues on its own fiber.
void resume_here(Worker& worker, int thread);
void make_ready(Worker& worker, int warp, uint32_t lanes);
// Lands the oldest bulk copy in flight; false if there is none.
bool land_bulk_copy(Worker& worker);
// Called when a thread has left the kernel: may complete what the others wait for.
void finish_collectives(Worker& worker, int warp);

// Ends the launch with an Error, and is a finding of that kind; no destructors run on the fibers'
// stacks.
[[noreturn]] void abandon(Worker& worker, const char* kind, const std::string& text);
std::string describe_thread(const Worker& worker, int thread);
std::string location(const char* file, int line);

// What the checking build installs. All null in the fast one.
enum Access : unsigned {
  kRead = 0,
  kWrite = 1,
  kAtomic = 2,
  kPending = 4,  // the target of an asynchronous copy in flight
  kSilent = 8    // not a request of its own: the completion of a copy
};
struct CheckerHooks {
  void (*block_begin)(Worker&);
  void (*block_end)(Worker&);
  void (*launch_begin)(Worker&);
  void (*barrier)(Worker&);
  void (*syncwarp)(Worker&, int warp, uint32_t lanes);
  void (*converged)(Worker&, int warp);  // all live lanes of a warp have met
  void (*mbarrier_arrive)(Worker&, const void* barrier);
  void (*mbarrier_pass)(Worker&, const void* barrier);
  void (*access)(const void* address, unsigned bytes, unsigned kind, uintptr_t pc);
  void (*register_memory)(const void*, size_t, Contents, const char* name);
  void (*unregister_memory)(const void*);
  void (*host_wrote)(const void*, size_t);
  void (*report)(const char* kind, const std::string& key, const std::string& text);
  std::string (*kernel_name)(const Worker&);
};
extern CheckerHooks checker;

#define SIMT_CALLER reinterpret_cast<uintptr_t>(__builtin_return_address(0))

}  // namespace simt
