// The unit that multiplies bfloat16 with float32 sums, for the kernels called *_bf16*: they round
// float32 to it, or split it into several bfloat16 pieces.
//
//   tiles    AMX (Intel processors from Sapphire Rapids on): up to three pieces
//   vectors  AVX512-BF16 (Intel from Cooper Lake, AMD from Zen 4 on), at twice the rate of FMA: one
//            piece only, because the three products of two pieces would take longer than FMA
//   model    the instructions of AMX in plain C++ (cpu/amx.h), for tests on any processor
#pragma once

#include "ops/gemm.h"

namespace lamina::ops {

enum class Bf16Unit { none, model, vectors, tiles };

// Asks processor and kernel once. LAMINA_ISA: "amx" and no word take the best there is,
// "avx512-bf16" vectors and "amx-model" the model; any other word leaves bfloat16 alone.
Bf16Unit bf16_unit();
const char* bf16_unit_name();  // "", "amx-model", "avx512-bf16", "amx"

// Pieces of an operand that the unit is used with.
inline int most_pieces() {
  const Bf16Unit unit = bf16_unit();
  return unit == Bf16Unit::none ? 0 : unit == Bf16Unit::vectors ? 1 : 3;
}

// Costs in multiply-adds of the FMA kernels, on the unit that is there: of a product in `pieces`
// pieces, and of an operand's element that is split and laid out, on top of packing it.
//
// Those of tiles are not measured by this project: an earlier study of AMX on two Sapphire Rapids
// cores reached 600 (six products), 1050 (three) and some 2000 GFLOP/s (one) beside 400 of FMA.
inline double split_product_macs(int pieces) {
  if (bf16_unit() == Bf16Unit::vectors) return 0.5;
  return pieces == 3 ? 0.67 : pieces == 2 ? 0.38 : 0.2;
}
inline double split_element_macs(int pieces) {
  return bf16_unit() == Bf16Unit::vectors ? 8 : 10 + 8 * pieces;
}

// Pieces of the factors of a matrix product; 0: float32 itself is as fast.
int gemm_pieces(const GemmArgs<float>& args);

}  // namespace lamina::ops
