#include "core/arena.h"

#include <algorithm>

#include "core/buffers.h"

namespace lamina {
namespace {

constexpr size_t kMostKept = size_t{64} << 20;

class Arena {
 public:
  ~Arena() {
    if (size_ != 0) give_buffer(base_, size_);
  }

  void* take(size_t bytes) {
    bytes = rounded(bytes);
    if (taken_ == 0 && wanted_ > size_) grow();
    const bool inside = bytes <= size_ - used_;
    void* const memory = inside ? base_ + used_ : take_buffer(bytes);
    if (inside) used_ += bytes;
    ++taken_;  // where there was no memory, nothing is taken
    depth_ += bytes;
    wanted_ = std::max(wanted_, std::min(depth_, kMostKept));
    return memory;
  }

  void give(void* memory, size_t bytes) {
    bytes = rounded(bytes);
    --taken_, depth_ -= bytes;
    char* const begin = static_cast<char*>(memory);
    const bool inside = begin >= base_ && begin < base_ + size_;
    if (!inside)
      give_buffer(memory, bytes);
    else if (begin + bytes == base_ + used_)
      used_ -= bytes;
    if (taken_ == 0) used_ = 0;
  }

 private:
  static size_t rounded(size_t bytes) { return (std::max<size_t>(bytes, 1) + 63) / 64 * 64; }

  void grow() {
    if (size_ != 0) give_buffer(base_, size_);
    const size_t size = wanted_;
    size_ = wanted_ = 0;  // without so much memory, the next call asks for what it needs
    base_ = static_cast<char*>(take_buffer(size));
    size_ = wanted_ = size;
  }

  char* base_ = nullptr;
  size_t size_ = 0, used_ = 0;
  size_t depth_ = 0;   // of all that is taken, also from elsewhere
  size_t wanted_ = 0;  // the largest depth so far
  int taken_ = 0;
};

Arena& arena() {
  thread_local Arena own;
  return own;
}

}  // namespace

void* take_scratch(size_t bytes) {
  return arena().take(bytes);
}
void give_scratch(void* memory, size_t bytes) noexcept {
  arena().give(memory, bytes);
}

}  // namespace lamina
