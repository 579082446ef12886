#include "core/buffers.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <mutex>
#include <new>

namespace lamina {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr int kClasses = 8 * 64;

// Eight classes an octave: the leading three bits below the first one count, the rest round up.
struct SizeClass {
  int index;
  size_t bytes;
};
SizeClass size_class(size_t bytes) {
  bytes = std::max<size_t>(bytes, 1024);
  const int octave = std::bit_width(bytes - 1) - 1;
  const size_t step = size_t{1} << (octave - 3);
  const size_t steps = (bytes + step - 1) / step;
  return {octave * 8 + static_cast<int>(steps - 8), steps * step};
}

void* allocate(size_t bytes) {
  const bool huge = bytes >= 2 * kHugePage;
  const size_t alignment = huge ? kHugePage : 64;
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, rounded);
  if (memory == nullptr) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
  if (huge) madvise(memory, rounded, MADV_HUGEPAGE);  // a wish: its failure changes nothing
#endif
  return memory;
}

int64_t first_limit() {
  if (const char* text = std::getenv("LAMINA_IDLE_BYTES"); text && *text)
    return std::max<int64_t>(std::atoll(text), 0);
  return idle_limit_by_default();
}

// An idle buffer holds its own links: in the stack of its class, and in the order of waiting.
struct Idle {
  Idle *below, *above;
  Idle *older, *newer;
  SizeClass size;
};

class Buffers {
 public:
  void* take(SizeClass size) {
    const std::lock_guard<std::mutex> lock(mutex_);
    Idle* const top = top_[size.index];
    if (top != nullptr) unlink(top);
    return top;
  }

  void give(void* buffer, SizeClass size) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (static_cast<int64_t>(size.bytes) > limit_) return std::free(buffer);
    Idle*& top = top_[size.index];
    Idle* const idle = new (buffer) Idle{top, nullptr, newest_, nullptr, size};
    if (top != nullptr) top->above = idle;
    (newest_ != nullptr ? newest_->newer : oldest_) = idle;
    top = newest_ = idle;
    bytes_ += static_cast<int64_t>(size.bytes);
    shrink();
  }

  int64_t bytes() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return bytes_;
  }
  int64_t limit() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return limit_;
  }
  void set_limit(int64_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    limit_ = bytes;
    shrink();
  }

  std::mutex& mutex() { return mutex_; }

 private:
  void shrink() {
    while (bytes_ > limit_) {
      Idle* const oldest = oldest_;
      unlink(oldest);
      std::free(oldest);
    }
  }

  void unlink(Idle* idle) {
    if (idle->below != nullptr) idle->below->above = idle->above;
    (idle->above != nullptr ? idle->above->below : top_[idle->size.index]) = idle->below;
    (idle->older != nullptr ? idle->older->newer : oldest_) = idle->newer;
    (idle->newer != nullptr ? idle->newer->older : newest_) = idle->older;
    bytes_ -= static_cast<int64_t>(idle->size.bytes);
  }

  std::mutex mutex_;
  Idle* top_[kClasses] = {};
  Idle *oldest_ = nullptr, *newest_ = nullptr;
  int64_t bytes_ = 0, limit_ = first_limit();
};

// Never destroyed: arrays may die after static destructors ran. A fork waits for the lock, so that
// the child finds the lists whole.
Buffers& buffers() {
  static Buffers* const all = [] {
    static Buffers* const made = new Buffers;
    pthread_atfork([] { made->mutex().lock(); }, [] { made->mutex().unlock(); },
                   [] { made->mutex().unlock(); });
    return made;
  }();
  return *all;
}

}  // namespace

void* take_buffer(size_t bytes) {
  const SizeClass size = size_class(bytes);
  void* const buffer = buffers().take(size);
  return buffer != nullptr ? buffer : allocate(size.bytes);
}

void give_buffer(void* buffer, size_t bytes) noexcept {
  buffers().give(buffer, size_class(bytes));
}

int64_t idle_limit_by_default() {
  const int64_t memory = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  return std::min<int64_t>(memory / 8, int64_t{1} << 30);
}
int64_t idle_bytes() {
  return buffers().bytes();
}
int64_t idle_limit() {
  return buffers().limit();
}
void set_idle_limit(int64_t bytes) {
  buffers().set_limit(bytes);
}

}  // namespace lamina
