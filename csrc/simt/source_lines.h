// From an address in the code to the line it was compiled from.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace simt {

struct SourceLine {
  std::string function, file;  // the kernel; the file without its folders
  int line = 0;
  std::string caller;  // file:line in the kernel, if that is in another file

  std::string text() const {
    const std::string own = file + ":" + std::to_string(line);
    return caller.empty() ? own : own + " from " + caller;
  }
};

// The innermost of the inlined calls that lies outside the runtime's own headers; where binutils'
// addr2line is missing, an offset in the library.
SourceLine source_line(uintptr_t pc);
void resolve(const std::vector<uintptr_t>& pcs);  // many at once, for source_line to find
std::string function_name(const void* function);

}  // namespace simt
