// Temporary memory of the kernels on this thread, kept between calls: a stack that grows to what
// its largest call wanted.
#pragma once

#include <cstddef>

namespace lamina {

// 64-byte aligned, uninitialised. Given back on the same thread, best in reverse order: memory
// below what is still taken is used again only when all is back. Throws std::bad_alloc.
void* take_scratch(size_t bytes);
void give_scratch(void* memory, size_t bytes) noexcept;

}  // namespace lamina
