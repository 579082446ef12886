// Warp-wide matrix instructions: mma.sync and ldmatrix, with the fragment layouts of the PTX ISA
// (section "Matrix multiply-accumulate"). Lane l holds, with g = l / 4 and t = l % 4:
//   D, C [16][8]  rows g, g + 8; columns 2t, 2t + 1
//   A    [16][8]  tf32: rows g, g + 8; columns t, t + 4
//   A    [16][16] 16-bit: rows g, g + 8; columns 2t, 2t + 1, 2t + 8, 2t + 9
//   B    [8][8]   tf32: rows t, t + 4; column g          B [16][8] 16-bit: rows 2t.., column g
#pragma once

namespace simt {
#ifdef __CUDACC__

// Round to the nearest tf32 (10 bits of mantissa), ties away from zero.
__device__ __forceinline__ uint32_t to_tf32(float x) {
  uint32_t bits;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
#else
  bits = __float_as_uint(x);
#endif
  return bits;
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define SIMT_MMA_BODY(shape, type) __trap()
#else
#define SIMT_MMA_BODY(shape, type)                                                            \
  asm volatile("mma.sync.aligned." shape ".row.col.f32." type "." type                        \
               ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"               \
               : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])                               \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), \
                 "f"(c[1]), "f"(c[2]), "f"(c[3]))
#endif
#define SIMT_MMA(name, shape, type, kind)                                             \
  __device__ __forceinline__ void name(float (&d)[4], const uint32_t (&a)[4],         \
                                       const uint32_t (&b)[2], const float (&c)[4]) { \
    SIMT_MMA_BODY(shape, type);                                                       \
  }

// Four 8x8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
#if __CUDA_ARCH__ >= 750
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
#endif
}
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
#if __CUDA_ARCH__ >= 750
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
#endif
}

#else

struct MmaFragments {
  float* d;
  const uint32_t *a, *b;
  const float* c;
};
struct MatrixRows {
  uint32_t* registers[4];
  const void* row;
};

SIMT_INLINE uint32_t to_tf32(f32 x) {
  const uint32_t bits = bit_cast<uint32_t>(x);
  const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  return finite ? (bits + 0x1000u) & ~0x1fffu : bits;
}

#define SIMT_MMA(name, shape, type, kind)                                                         \
  SIMT_INLINE void name(f32(&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],               \
                        const f32(&c)[4], SIMT_HERE) {                                            \
    MmaFragments fragments{reinterpret_cast<float*>(d), a, b, reinterpret_cast<const float*>(c)}; \
    collective(Collective::kind, 0xffffffffu, 0, 0, 32, &fragments, file, line);                  \
  }
#define SIMT_LDMATRIX(name, kind)                                           \
  SIMT_INLINE void name(uint32_t (&r)[4], const void* row, SIMT_HERE) {     \
    MatrixRows rows{{&r[0], &r[1], &r[2], &r[3]}, row};                     \
    collective(Collective::kind, 0xffffffffu, 0, 0, 32, &rows, file, line); \
  }
SIMT_LDMATRIX(ldmatrix_x4, ldmatrix)
SIMT_LDMATRIX(ldmatrix_x4_trans, ldmatrix_trans)
#undef SIMT_LDMATRIX

#endif

// d = a b + c; d and c may be the same registers.
SIMT_MMA(mma_m16n8k8_tf32, "m16n8k8", "tf32", mma_tf32)
SIMT_MMA(mma_m16n8k16_f16, "m16n8k16", "f16", mma_f16)
SIMT_MMA(mma_m16n8k16_bf16, "m16n8k16", "bf16", mma_bf16)
#undef SIMT_MMA

}  // namespace simt
