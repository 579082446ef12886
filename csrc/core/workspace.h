// Temporary memory for kernels, kept by each thread between calls: fresh pages cost more to touch
// than most kernels take to run.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

namespace lamina {

class Workspace {
 public:
  // 64-byte aligned, uninitialised, at least `bytes`; null for none. Throws std::bad_alloc.
  explicit Workspace(int64_t bytes) : kept_(bytes <= kKept) {
    if (bytes == 0) return;
    Block& block = thread_block();
    if (!kept_ || block.bytes < bytes) {
      const int64_t rounded = (bytes + 63) / 64 * 64;
      void* data = std::aligned_alloc(64, static_cast<size_t>(rounded));
      if (data == nullptr) throw std::bad_alloc();
      if (!kept_) {
        data_ = data;
        return;
      }
      std::free(block.data);
      block.data = data, block.bytes = rounded;
    }
    data_ = block.data;
  }
  ~Workspace() {
    if (!kept_) std::free(data_);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  void* get() const { return data_; }

 private:
  static constexpr int64_t kKept = int64_t{64} << 20;  // what a thread keeps at most

  struct Block {
    void* data = nullptr;
    int64_t bytes = 0;
    ~Block() { std::free(data); }
  };
  static Block& thread_block() {
    thread_local Block block;
    return block;
  }

  bool kept_;
  void* data_ = nullptr;
};

}  // namespace lamina
