// Sixteen bytes at a time: the widest load and store of a thread.
#pragma once

#include "cuda/device/numeric.h"

namespace lamina::cuda {

template <class T, int N>
struct alignas(N * sizeof(T)) Vector {
  T element[N];
};

// Elements of T in sixteen bytes.
template <class T>
inline constexpr int kWide = 16 / static_cast<int>(sizeof(T));

// A vector moves as one instruction: the compiler need not find that out. In the checking build it
// is one request of the memory counters.
template <class T, int N>
__device__ __forceinline__ Vector<T, N> load(const T* p) {
  constexpr int kBytes = N * static_cast<int>(sizeof(T));
  using Word = std::conditional_t<
      kBytes == 16, uint4,
      std::conditional_t<kBytes == 8, uint2, std::conditional_t<kBytes == 4, unsigned, T>>>;
  Vector<T, N> vector;
  const Word word = *reinterpret_cast<const Word*>(p);
  memcpy(&vector, &word, sizeof word);
  return vector;
}

template <class T, int N>
__device__ __forceinline__ void store(T* p, const Vector<T, N>& vector) {
  constexpr int kBytes = N * static_cast<int>(sizeof(T));
  using Word = std::conditional_t<
      kBytes == 16, uint4,
      std::conditional_t<kBytes == 8, uint2, std::conditional_t<kBytes == 4, unsigned, T>>>;
  Word word;
  memcpy(&word, &vector, sizeof word);
  *reinterpret_cast<Word*>(p) = word;
}

// Whether every pointer allows wide accesses (null does).
template <class... Pointers>
bool is_wide(const Pointers*... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

}  // namespace lamina::cuda
