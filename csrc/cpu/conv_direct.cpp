// conv, direct: the sum itself, blocked in registers over output channels and positions.
// See cpu/direct.h for the method; no workspace.
#include "cpu/direct.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ConvArgs;

// Sums in registers: 24 of 32 (AVX-512), 12 of 16 (AVX2), 8 of 16 (baseline).
inline constexpr int kOutputs = LAMINA_VECTOR_BYTES == 64 ? 8 : 4;
inline constexpr int kVectors = LAMINA_VECTOR_BYTES >= 32 ? 3 : 2;

template <class T>
void conv_fprop_direct(const ConvArgs<T>& args) {
  direct_fprop<T, kOutputs, kVectors>(args);
}
template <class T>
void conv_dgrad_direct(const ConvArgs<T>& args) {
  direct_dgrad<T, kOutputs, kVectors>(args);
}

LAMINA_INSTANTIATE(conv_fprop_direct, ConvArgs)
LAMINA_INSTANTIATE(conv_dgrad_direct, ConvArgs)

LAMINA_CPU_NAMESPACE_END
