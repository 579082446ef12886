// Counter-based random numbers: Philox 4x32-10 (Salmon et al. 2011). Word i of a stream (seed,
// offset) is lane i % 4 of the 64-bit counter i / 4 + offset; the same on every backend.
#pragma once

#include <cstdint>

namespace lamina::philox {

struct Words {
  uint32_t lane[4];
};

[[gnu::always_inline]] constexpr Words block(uint64_t seed, uint64_t counter) {
  uint32_t c0 = static_cast<uint32_t>(counter), c1 = static_cast<uint32_t>(counter >> 32);
  uint32_t c2 = 0, c3 = 0;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c0, p1 = uint64_t{0xCD9E8D57} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0, c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1, c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9, k1 += 0xBB67AE85;
  }
  return {{c0, c1, c2, c3}};
}

// The upper 24 bits of a word: uniform in [0, 2^24).
[[gnu::always_inline]] constexpr int64_t uniform24(uint32_t word) {
  return word >> 8;
}

}  // namespace lamina::philox
