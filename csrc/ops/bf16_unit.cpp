#include "ops/bf16_unit.h"

#include <cstdlib>
#include <string>

#include "ops/registry.h"

#ifdef LAMINA_HAVE_AVX512
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace lamina::cpu::avx512 {
bool tile_unit_agrees();  // with its model (cpu/tile_check.cpp)
}
#endif

namespace lamina::ops {
namespace {

#ifdef LAMINA_HAVE_AVX512
// The processor has the unit, the system saves its registers, and this process may use them.
bool has_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kXsave = 1u << 27, kBf16 = 1u << 22, kTile = 1u << 24;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & kXsave)) return false;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & kBf16) || !(d & kTile)) return false;
  unsigned low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  constexpr unsigned kTileState = 3u << 17;
  if ((low & kTileState) != kTileState) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // of arch_prctl, Linux 5.16
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

// Vectors of bfloat16, on top of what the kernels for AVX-512 need.
bool has_avx512_bf16() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kAvx512Bf16 = 1u << 5;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & kAvx512Bf16);
}
#endif

Bf16Unit detect_unit() {
  const char* text = std::getenv("LAMINA_ISA");
  const std::string name = text ? text : "";
  if (name == "amx-model") return Bf16Unit::model;
  if (!name.empty() && name != "amx" && name != "avx512-bf16") return Bf16Unit::none;
#ifdef LAMINA_HAVE_AVX512
  if (isa() != Isa::avx512) return Bf16Unit::none;
  if (name != "avx512-bf16" && has_amx() && cpu::avx512::tile_unit_agrees()) return Bf16Unit::tiles;
  if (has_avx512_bf16()) return Bf16Unit::vectors;
#endif
  return Bf16Unit::none;
}

}  // namespace

Bf16Unit bf16_unit() {
  static const Bf16Unit chosen = detect_unit();
  return chosen;
}

const char* bf16_unit_name() {
  static const char* const names[] = {"", "amx-model", "avx512-bf16", "amx"};
  return names[static_cast<int>(bf16_unit())];
}

int gemm_pieces(const GemmArgs<float>& args) {
  constexpr int64_t kTile = 32;
  const int pieces = 3 - static_cast<int>(args.precision);
  if (pieces > most_pieces() || args.n < kTile || args.k < 1) return 0;  // mostly padding
  // Few rows of a linear layer: to split its weight costs what packing it does.
  const bool linear = args.trans_b && !args.trans_a;
  if (linear && bf16_unit() == Bf16Unit::vectors && args.m < kTile)
    return args.m > kFewDots ? pieces : 0;
  if (args.m < kTile) return 0;
  const auto m = static_cast<double>(args.m), n = static_cast<double>(args.n);
  const double split = m + n * static_cast<double>((args.m + 511) / 512);
  return (1 - split_product_macs(pieces)) * m * n > split_element_macs(pieces) * split ? pieces : 0;
}

}  // namespace lamina::ops
