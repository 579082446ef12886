// The tile instructions of AMX: eight registers of 16 rows of 64 bytes. A tile holds 16x16 floats,
// 16 rows of 32 bfloat16 (left factor), or 16 pairs of rows of 16 bfloat16, the two of a pair side
// by side (right factor).
//
// AmxTiles is the unit, TileModel the same in C++ as the manual defines it (Intel 64 and IA-32
// Architectures Software Developer's Manual, TDPBF16PS): sums rounded to nearest even, subnormal
// numbers taken and given as zero, products of even and of odd elements summed apart.
//
// The instructions are spelled out because the intrinsics of GCC want literal tile numbers and do
// not say which memory they read. No compiler uses tiles by itself, so nothing else needs to know.
#pragma once

#include "cpu/simd.h"

LAMINA_CPU_NAMESPACE_BEGIN

inline constexpr int64_t kTileBytes = 1024;

#if defined(__x86_64__) && defined(__AVX512F__)
class AmxTiles {
 public:
  static constexpr bool kRounds = false;
  // Tiles keep their registers busy until they are released, at the end of the scope.
  AmxTiles() {
    struct Shape {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    };
    static constexpr Shape shape;
    asm volatile("ldtilecfg %0" : : "m"(shape));
  }
  ~AmxTiles() { asm volatile("tilerelease" : : : "memory"); }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;

  template <int TILE>
  LAMINA_INLINE void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(TILE));
  }
  template <int TILE>
  LAMINA_INLINE void load(const void* from, int64_t row_bytes) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2"
                 :
                 : "r"(from), "r"(row_bytes), "i"(TILE)
                 : "memory");
  }
  template <int TILE>
  LAMINA_INLINE void store(void* to, int64_t row_bytes) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)"
                 :
                 : "r"(to), "r"(row_bytes), "i"(TILE)
                 : "memory");
  }
  // SUM += A times B.
  template <int SUM, int A, int B>
  LAMINA_INLINE void multiply_add() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(SUM), "i"(A), "i"(B));
  }
};
#endif

class TileModel {
 public:
  static constexpr bool kRounds = false;

  template <int TILE>
  void zero() {
    for (auto& row : tiles_[TILE])
      for (uint32_t& word : row) word = 0;
  }
  template <int TILE>
  void load(const void* from, int64_t row_bytes) {
    for (int row = 0; row < 16; ++row)
      __builtin_memcpy(tiles_[TILE][row], static_cast<const char*>(from) + row * row_bytes, 64);
  }
  template <int TILE>
  void store(void* to, int64_t row_bytes) const {
    for (int row = 0; row < 16; ++row)
      __builtin_memcpy(static_cast<char*>(to) + row * row_bytes, tiles_[TILE][row], 64);
  }
  template <int SUM, int A, int B>
  void multiply_add() {
    dot(tiles_[SUM], tiles_[A], tiles_[B]);
  }

 private:
  using Tile = uint32_t[16][16];

  static float number(uint32_t bits) {  // subnormal ones are zero
    const uint32_t exponent = 0x7f800000, flushed = bits & exponent ? bits : bits & 0x80000000;
    float value;
    __builtin_memcpy(&value, &flushed, sizeof value);
    return value;
  }
  static uint32_t bits_of(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
  }
  static float flush(float value) { return number(bits_of(value)); }

  // A product of two bfloat16 has 16 bits: multiplying and adding rounds once, fused or not.
  [[gnu::noinline]] static void dot(Tile& sum, const Tile& a, const Tile& b) {
    for (int row = 0; row < 16; ++row) {
      float even[16] = {}, odd[16] = {};
      for (int pair = 0; pair < 16; ++pair) {
        const float first = number(a[row][pair] << 16), second = number(a[row][pair] & 0xffff0000);
        for (int column = 0; column < 16; ++column) {
          even[column] = flush(even[column] + first * number(b[pair][column] << 16));
          odd[column] = flush(odd[column] + second * number(b[pair][column] & 0xffff0000));
        }
      }
      for (int column = 0; column < 16; ++column)
        sum[row][column] =
            bits_of(flush(number(sum[row][column]) + flush(even[column] + odd[column])));
    }
  }

  Tile tiles_[8];
};

LAMINA_CPU_NAMESPACE_END
