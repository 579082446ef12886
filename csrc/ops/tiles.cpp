#include "ops/tiles.h"

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

Tiles detect_tiles() {
  const char* text = std::getenv("LAMINA_ISA");
  const std::string name = text ? text : "";
  if (name == "amx-model") return Tiles::model;
  if (!name.empty() && name != "amx") return Tiles::none;
#ifdef LAMINA_HAVE_AVX512
  if (isa() == Isa::avx512 && has_amx() && cpu::avx512::tile_unit_agrees()) return Tiles::amx;
#endif
  return Tiles::none;
}

}  // namespace

Tiles tiles() {
  static const Tiles chosen = detect_tiles();
  return chosen;
}

const char* tiles_name() {
  static const char* const names[] = {"", "amx-model", "amx"};
  return names[static_cast<int>(tiles())];
}

}  // namespace lamina::ops
