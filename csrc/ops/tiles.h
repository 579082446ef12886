// The tile unit of AMX (Intel processors from Sapphire Rapids on): products of matrices of bfloat16
// with float32 sums. Kernels called *_bf16* split float32 into bfloat16 pieces for it.
#pragma once

namespace lamina::ops {

// model: the instructions in plain C++ (cpu/amx.h), for tests on any processor.
enum class Tiles { none, model, amx };

// Asks processor and kernel once. LAMINA_ISA=amx-model takes the model; any other word than "amx"
// leaves the unit alone.
Tiles tiles();
const char* tiles_name();  // "", "amx-model", "amx"

// Multiply-adds of the FMA kernels that one of `pieces` pieces takes the time of, where the tile
// unit is there. Not measured by this project: an earlier study of AMX on two Sapphire Rapids cores
// reached 600 (six products), 1050 (three) and some 2000 GFLOP/s (one) beside 400 of FMA.
constexpr double tile_macs(int pieces) {
  return pieces == 3 ? 0.67 : pieces == 2 ? 0.38 : 0.2;
}
// The same for an operand's element that is split and laid out, on top of packing it.
constexpr double split_macs(int pieces) {
  return 10 + 8 * pieces;
}

}  // namespace lamina::ops
