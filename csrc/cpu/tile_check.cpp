// Whether the tile unit does what its model does: one product of small integers, which are exact in
// any order. Kernels on the unit have been tested on the model only; where the two differ, float32
// stays with FMA.
#include "cpu/amx.h"

LAMINA_CPU_NAMESPACE_BEGIN

#if defined(__x86_64__) && defined(__AVX512F__)
struct TileProduct {
  alignas(64) uint16_t a[16][32], b[16][32];
  alignas(64) float sums[16][16];
};

// sums += a b, and again: a tile that is stored, loaded and added to.
template <class Unit>
static void multiply_twice(TileProduct& product) {
  Unit unit;
  unit.template zero<0>();
  for (int time = 0; time < 2; ++time) {
    unit.template load<1>(product.a, 64);
    unit.template load<2>(product.b, 64);
    unit.template multiply_add<0, 1, 2>();
    unit.template store<0>(product.sums, 64);
    unit.template load<0>(product.sums, 64);
  }
}

static uint16_t bfloat16_of(int value) {
  const float number = static_cast<float>(value);
  uint32_t bits;
  __builtin_memcpy(&bits, &number, sizeof bits);
  return static_cast<uint16_t>(bits >> 16);
}

bool tile_unit_agrees() {
  TileProduct expected, actual;
  for (int row = 0; row < 16; ++row)
    for (int column = 0; column < 32; ++column) {
      expected.a[row][column] = bfloat16_of((row * 5 + column * 3) % 17 - 8);
      expected.b[row][column] = bfloat16_of((row * 7 + column * 11) % 13 - 6);
    }
  actual = expected;
  multiply_twice<TileModel>(expected);
  multiply_twice<AmxTiles>(actual);
  return __builtin_memcmp(expected.sums, actual.sums, sizeof actual.sums) == 0;
}
#endif

LAMINA_CPU_NAMESPACE_END
