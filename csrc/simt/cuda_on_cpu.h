// g++'s half of simt.h: CUDA's kernel vocabulary on the CPU.
//
// Whatever must see more than one thread lives in the runtime's own files, which are never
// instrumented; the functions here are always inlined, so that reports name the kernel's line.
#pragma once

#include <math.h>  // the overloads of exp, log, ... for float in the global namespace, as in CUDA

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#define SIMT_INLINE inline __attribute__((always_inline))
// Default arguments that name the caller's line, for reports.
#define SIMT_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

#ifdef SIMT_CHECK
#include "simt/counted_float.h"
#endif

// ---- qualifiers. __noinline__ stays undefined: libstdc++ spells __attribute__((__noinline__)).
#define __global__
#define __device__
#define __host__
#define __forceinline__ SIMT_INLINE
#define __launch_bounds__(...)
#define __grid_constant__
#define __constant__ static
#define __align__(n) __attribute__((aligned(n)))
// In a function thread_local implies static: one copy for each OS thread, which runs one block at a
// time and never hands a running block on.
#define __shared__ thread_local

namespace simt {
#ifdef SIMT_CHECK
using f32 = counted_float;
#else
using f32 = float;
#endif

template <class To, class From>
SIMT_INLINE To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}
}  // namespace simt

// ---- vector types
struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_size = 1, unsigned y_size = 1, unsigned z_size = 1)
      : x(x_size), y(y_size), z(z_size) {}
};
#define SIMT_VECTOR_TYPES(T, name)                                  \
  struct alignas(2 * sizeof(T)) name##2 {                           \
    T x, y;                                                         \
  };                                                                \
  struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) name##4 { \
    T x, y, z, w;                                                   \
  };                                                                \
  SIMT_INLINE name##2 make_##name##2(T x, T y) {                    \
    return {x, y};                                                  \
  }                                                                 \
  SIMT_INLINE name##4 make_##name##4(T x, T y, T z, T w) {          \
    return {x, y, z, w};                                            \
  }
SIMT_VECTOR_TYPES(simt::f32, float)
SIMT_VECTOR_TYPES(double, double)
SIMT_VECTOR_TYPES(int, int)
SIMT_VECTOR_TYPES(unsigned, uint)
#undef SIMT_VECTOR_TYPES

// ---- built-in variables: constant within a fiber, so a compiler may keep them in registers across
// barriers, and reads of const objects are not instrumented (only of types without a constructor).
// __thread, because an extern thread_local is reached through a wrapper function on every use.
namespace simt {
struct ConstantDim {
  unsigned x, y, z;
  operator dim3() const { return {x, y, z}; }
};
}  // namespace simt
extern __thread const uint3 threadIdx __asm__("simt_threadIdx");
extern __thread const uint3 blockIdx __asm__("simt_blockIdx");
extern __thread const simt::ConstantDim blockDim __asm__("simt_blockDim");
extern __thread const simt::ConstantDim gridDim __asm__("simt_gridDim");
inline constexpr int warpSize = 32;

// ---- entry points of the runtime
namespace simt {

enum class Collective : uint8_t {
  syncwarp,
  shuffle,
  shuffle_up,
  shuffle_down,
  shuffle_xor,
  ballot,
  any,
  all,
  reduce_add,
  reduce_max,
  reduce_min,
  match_any,
  mma_tf32,
  mma_f16,
  mma_bf16,
  ldmatrix,
  ldmatrix_trans
};
enum class BarrierVote : uint8_t { none, count, all, any };

int barrier(BarrierVote vote, int predicate, const char* file, int line);
// Deposits this lane's operand and returns its result once every lane of `mask` has arrived.
uint64_t collective(Collective kind, unsigned mask, uint64_t operand, int lane_argument, int width,
                    void* fragments, const char* file, int line);
unsigned active_lanes();
void* dynamic_shared();
[[noreturn]] void fail(const char* what, const char* file, int line);

enum class Atomic : uint8_t { add, max, min, exchange, bit_or };
float atomic(Atomic kind, float* p, float value);
double atomic(Atomic kind, double* p, double value);
int atomic(Atomic kind, int* p, int value);
unsigned atomic(Atomic kind, unsigned* p, unsigned value);
unsigned long long atomic(Atomic kind, unsigned long long* p, unsigned long long value);
unsigned compare_and_swap(unsigned* p, unsigned expected, unsigned desired);
unsigned long long compare_and_swap(unsigned long long* p, unsigned long long expected,
                                    unsigned long long desired);

}  // namespace simt

// ---- barriers and warp operations
SIMT_INLINE void __syncthreads(SIMT_HERE) {
  simt::barrier(simt::BarrierVote::none, 0, file, line);
}
SIMT_INLINE int __syncthreads_count(int predicate, SIMT_HERE) {
  return simt::barrier(simt::BarrierVote::count, predicate, file, line);
}
SIMT_INLINE int __syncthreads_and(int predicate, SIMT_HERE) {
  return simt::barrier(simt::BarrierVote::all, predicate, file, line);
}
SIMT_INLINE int __syncthreads_or(int predicate, SIMT_HERE) {
  return simt::barrier(simt::BarrierVote::any, predicate, file, line);
}
SIMT_INLINE void __syncwarp(unsigned mask = 0xffffffffu, SIMT_HERE) {
  simt::collective(simt::Collective::syncwarp, mask, 0, 0, 32, nullptr, file, line);
}
SIMT_INLINE unsigned __activemask() {
  return simt::active_lanes();
}
SIMT_INLINE void __threadfence() {}
SIMT_INLINE void __threadfence_block() {}

namespace simt {
template <class T>
SIMT_INLINE T shuffled(Collective kind, unsigned mask, T value, int lane, int width,
                       const char* file, int line) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  return bit_cast<T>(static_cast<Bits>(
      collective(kind, mask, bit_cast<Bits>(value), lane, width, nullptr, file, line)));
}
}  // namespace simt
template <class T>
SIMT_INLINE T __shfl_sync(unsigned mask, T value, int lane, int width = 32, SIMT_HERE) {
  return simt::shuffled(simt::Collective::shuffle, mask, value, lane, width, file, line);
}
template <class T>
SIMT_INLINE T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_HERE) {
  return simt::shuffled(simt::Collective::shuffle_up, mask, value, static_cast<int>(delta), width,
                        file, line);
}
template <class T>
SIMT_INLINE T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_HERE) {
  return simt::shuffled(simt::Collective::shuffle_down, mask, value, static_cast<int>(delta), width,
                        file, line);
}
template <class T>
SIMT_INLINE T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, SIMT_HERE) {
  return simt::shuffled(simt::Collective::shuffle_xor, mask, value, lane_mask, width, file, line);
}
#define SIMT_WARP_FUNCTION(Result, name, kind)                                              \
  SIMT_INLINE Result name(unsigned mask, unsigned value, SIMT_HERE) {                       \
    return static_cast<Result>(                                                             \
        simt::collective(simt::Collective::kind, mask, value, 0, 32, nullptr, file, line)); \
  }
SIMT_WARP_FUNCTION(unsigned, __match_any_sync, match_any)
SIMT_WARP_FUNCTION(unsigned, __reduce_add_sync, reduce_add)
SIMT_WARP_FUNCTION(unsigned, __reduce_max_sync, reduce_max)
SIMT_WARP_FUNCTION(unsigned, __reduce_min_sync, reduce_min)
#undef SIMT_WARP_FUNCTION
#define SIMT_VOTE(Result, name, kind)                                                            \
  SIMT_INLINE Result name(unsigned mask, int predicate, SIMT_HERE) {                             \
    return static_cast<Result>(simt::collective(simt::Collective::kind, mask, predicate != 0, 0, \
                                                32, nullptr, file, line));                       \
  }
SIMT_VOTE(unsigned, __ballot_sync, ballot)
SIMT_VOTE(int, __any_sync, any)
SIMT_VOTE(int, __all_sync, all)
#undef SIMT_VOTE

// ---- atomics: out of line, or the instrumentation would turn them into its own calls
template <class T, class U>
SIMT_INLINE T atomicAdd(T* p, U value) {
  return simt::atomic(simt::Atomic::add, p, T(value));
}
template <class T, class U>
SIMT_INLINE T atomicMax(T* p, U value) {
  static_assert(std::is_integral_v<T>, "CUDA has none for floating-point numbers");
  return simt::atomic(simt::Atomic::max, p, T(value));
}
template <class T, class U>
SIMT_INLINE T atomicMin(T* p, U value) {
  static_assert(std::is_integral_v<T>, "CUDA has none for floating-point numbers");
  return simt::atomic(simt::Atomic::min, p, T(value));
}
template <class T, class U>
SIMT_INLINE T atomicExch(T* p, U value) {
  static_assert(!std::is_same_v<T, double>, "CUDA has none for double");
  return simt::atomic(simt::Atomic::exchange, p, T(value));
}
template <class T, class U>
SIMT_INLINE T atomicOr(T* p, U value) {
  static_assert(std::is_integral_v<T>, "CUDA has none for floating-point numbers");
  return simt::atomic(simt::Atomic::bit_or, p, T(value));
}
template <class T>
SIMT_INLINE T atomicCAS(T* p, T expected, T desired) {
  return simt::compare_and_swap(p, expected, desired);
}
#ifdef SIMT_CHECK
SIMT_INLINE simt::f32 atomicAdd(simt::f32* p, simt::f32 value) {
  SIMT_COUNT(simt_flops, 1);
  return simt::atomic(simt::Atomic::add, &p->value, value.value);
}
SIMT_INLINE simt::f32 atomicExch(simt::f32* p, simt::f32 value) {
  return simt::atomic(simt::Atomic::exchange, &p->value, value.value);
}
#endif

// ---- arithmetic. The GPU's fast versions round differently: tests allow for both.
SIMT_INLINE int __popc(unsigned x) {
  return __builtin_popcount(x);
}
SIMT_INLINE int __clz(int x) {
  return x ? __builtin_clz(static_cast<unsigned>(x)) : 32;
}
SIMT_INLINE int __ffs(int x) {
  return __builtin_ffs(x);
}
SIMT_INLINE unsigned __brev(unsigned x) {
  x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
  x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
  x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
  return __builtin_bswap32(x);
}
SIMT_INLINE unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}
SIMT_INLINE unsigned __float_as_uint(simt::f32 x) {
  return simt::bit_cast<unsigned>(x);
}
SIMT_INLINE simt::f32 __uint_as_float(unsigned x) {
  return simt::bit_cast<simt::f32>(x);
}
SIMT_INLINE int __float_as_int(simt::f32 x) {
  return simt::bit_cast<int>(x);
}
SIMT_INLINE simt::f32 __int_as_float(int x) {
  return simt::bit_cast<simt::f32>(x);
}
#ifndef SIMT_CHECK
SIMT_INLINE float rsqrt(float x) {
  return 1.0f / std::sqrt(x);
}
#endif
SIMT_INLINE double rsqrt(double x) {
  return 1.0 / std::sqrt(x);
}
// Cache hints are plain accesses here.
template <class T>
SIMT_INLINE T __ldg(const T* p) {
  return *p;
}
template <class T>
SIMT_INLINE T __ldcs(const T* p) {
  return *p;
}
template <class T>
SIMT_INLINE void __stcs(T* p, T value) {
  *p = value;
}
template <class T>
SIMT_INLINE T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
SIMT_INLINE T max(T a, T b) {
  return a < b ? b : a;
}

#undef assert
#define assert(condition) \
  ((condition) ? (void)0 : simt::fail("assertion failed: " #condition, __FILE__, __LINE__))

#define SIMT_DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(simt::dynamic_shared())

// ---- host side
using cudaStream_t = void*;

namespace simt {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Launch {
  void* kernel;  // its address, for reports
  dim3 grid, block;
  size_t shared_bytes;
  void (*run_thread)(const void* context);
  const void* context;
};
void run(const Launch& launch);

template <class To, class From>
SIMT_INLINE To convert_argument(From&& from) {
  if constexpr (std::is_convertible_v<From&&, To>)
    return static_cast<To>(from);
  else
    return reinterpret_cast<To>(from);  // float* to counted_float*
}

template <class Kernel, class Arguments>
struct Call {
  Kernel kernel;
  Arguments arguments;

  // The reads of the arguments are not accesses of the kernel.
  template <size_t... I>
  __attribute__((no_sanitize_thread)) void expand(std::index_sequence<I...>) const {
    kernel(std::get<I>(arguments)...);
  }
  __attribute__((no_sanitize_thread)) static void run_thread(const void* context) {
    static_cast<const Call*>(context)->expand(
        std::make_index_sequence<std::tuple_size_v<Arguments>>{});
  }
};

// Runs kernel<<<grid, block, shared_bytes>>>(arguments...) to its end. Throws Error for a bad
// configuration and for anything that stops a kernel.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t,
            Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments), "wrong number of kernel arguments");
  using Values = std::tuple<std::decay_t<Parameters>...>;
  using ThisCall = Call<void (*)(Parameters...), Values>;
  const ThisCall call{kernel,
                      Values(convert_argument<Parameters>(std::forward<Arguments>(arguments))...)};
  run({reinterpret_cast<void*>(kernel), grid, block, shared_bytes, &ThisCall::run_thread, &call});
}

void fill_zero(void* target, size_t bytes, cudaStream_t stream);

}  // namespace simt
