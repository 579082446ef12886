// The host's side of the runtime: schedules, memory the kernels may touch, and what was counted.
#pragma once

#include <cstddef>
#include <cstdint>

namespace simt {

// The order in which the threads of a block run between two points where they wait. A correct
// kernel gives the same bits under each.
enum class Schedule { forward, reverse, random };

struct Options {
  Schedule schedule = Schedule::forward;
  uint64_t seed = 1;  // of Schedule::random
  int threads = 1;    // OS threads that share the blocks of a launch; the checking build uses one
};
Options& options();

struct Counters {
  unsigned long long launches, blocks, switches, barriers, collectives, flops, special, mma_flops;
};
Counters counters();
void reset_counters();

// Memory from the host that kernels may touch; without checks these calls do nothing.
enum class Contents { input, output, in_out };  // may be read; starts undefined; both
void register_memory(const void* data, size_t bytes, Contents contents, const char* name);
void unregister_memory(const void* data);

// Temporary device memory, 256-byte aligned and filled with NaN.
void* allocate(size_t bytes);
void release(void* data);

}  // namespace simt
