// What the checking build finds and counts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace simt {

// kind: race-shared, race-global, uninitialised, pending-copy, read-only, unwritten, early-exit,
// inactive-lane; and, with the launch abandoned, out-of-bounds, misaligned, undefined.
struct Finding {
  std::string kind, kernel, text;
  unsigned long long count;
};
std::vector<Finding> findings();

// The requests that one line of source makes. A request is one instruction of one warp.
struct Requests {
  std::string kernel, file;
  int line = 0;
  std::string caller;  // file:line in the kernel of a helper in another file
  bool shared = false, write = false, atomic = false;
  unsigned long long requests = 0, lanes = 0, bytes = 0;
  unsigned long long sectors = 0, ideal_sectors = 0;        // global memory, 32 bytes each
  unsigned long long wavefronts = 0, ideal_wavefronts = 0;  // shared memory, 32 banks of 4 bytes
};
std::vector<Requests> requests();

void clear_check();  // both of them

}  // namespace simt
