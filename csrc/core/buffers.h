// Recycled memory for results: pages that are already there cost nothing, fresh ones more than most
// kernels. A buffer belongs to one owner between take and give.
//
// Buffers given back wait for the next request of their size class (sizes differ by at most one
// eighth within a class). What waits is bounded by set_idle_limit; the one that waited longest goes
// back to the system first.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lamina {

// 64-byte aligned, uninitialised, at least `bytes`. Throws std::bad_alloc.
void* take_buffer(size_t bytes);
void give_buffer(void* buffer, size_t bytes) noexcept;  // `bytes` as they were asked for

int64_t idle_bytes();
int64_t idle_limit_by_default();  // an eighth of the memory but at most 1 GiB
int64_t idle_limit();             // LAMINA_IDLE_BYTES, or an eighth of the memory but at most 1 GiB
void set_idle_limit(int64_t bytes);

}  // namespace lamina
