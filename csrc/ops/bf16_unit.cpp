#include "ops/bf16_unit.h"

#include <cstdlib>
#include <string>

#include "ops/registry.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#ifdef LAMINA_HAVE_AVX512
namespace lamina::cpu::avx512 {
bool tile_unit_agrees();  // with its model (cpu/tile_check.cpp)
}
#endif

namespace lamina::ops {
namespace {

// The processor has the unit, the system saves its registers, and this process may use them.
bool has_amx() {
#if defined(__x86_64__)
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
#else
  return false;
#endif
}

// Vectors of bfloat16, on top of what the kernels for AVX-512 need.
bool has_avx512_bf16() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kAvx512Bf16 = 1u << 5;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & kAvx512Bf16);
#else
  return false;
#endif
}

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

}  // namespace lamina::ops
