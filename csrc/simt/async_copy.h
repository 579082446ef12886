// Asynchronous copies from global to shared memory: cp.async (sm_80), and mbarriers with bulk
// copies (sm_90). On the CPU a copy is as late as the hardware may make it: the target is poisoned
// when the copy is issued and filled only at the wait, so a missing wait fails on every run.
#pragma once

namespace simt {
#ifdef __CUDACC__

__device__ __forceinline__ unsigned shared_address(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

// Copies src_bytes (at most BYTES) and fills the rest of the BYTES with zeros; both ends aligned to
// BYTES.
template <int BYTES>
__device__ __forceinline__ void cp_async(void* shared, const void* global, int src_bytes = BYTES) {
  static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16);
#if __CUDA_ARCH__ >= 800
  if constexpr (BYTES == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(src_bytes)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)),
                 "l"(global), "n"(BYTES), "r"(src_bytes)
                 : "memory");
#else
  __trap();
#endif
}
__device__ __forceinline__ void cp_async_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Waits until at most KEEP of this thread's committed groups are in flight.
template <int KEEP>
__device__ __forceinline__ void cp_async_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(KEEP) : "memory");
#endif
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
__device__ __forceinline__ void mbarrier_init(uint64_t*, int) {
  __trap();
}
__device__ __forceinline__ void mbarrier_arrive(uint64_t*) {
  __trap();
}
__device__ __forceinline__ void mbarrier_arrive_expect(uint64_t*, unsigned) {
  __trap();
}
__device__ __forceinline__ void mbarrier_wait(uint64_t*, unsigned) {
  __trap();
}
__device__ __forceinline__ void bulk_copy(void*, const void*, unsigned, uint64_t*) {
  __trap();
}
#else
__device__ __forceinline__ void mbarrier_init(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(arrivals)
               : "memory");
}
__device__ __forceinline__ void mbarrier_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
               : "memory");
}
// Arrives and adds `bytes` to what the phase waits for.
__device__ __forceinline__ void mbarrier_arrive_expect(uint64_t* barrier, unsigned bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
}
// Waits for the end of the phase of that parity (0 for the first).
__device__ __forceinline__ void mbarrier_wait(uint64_t* barrier, unsigned parity) {
  unsigned done;
  do
    asm volatile(
        "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, "
        "p; }"
        : "=r"(done)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
  while (!done);
}
// One thread copies `bytes`, all three multiples of 16; `barrier` counts them when they have
// landed.
__device__ __forceinline__ void bulk_copy(void* shared, const void* global, unsigned bytes,
                                          uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
}
#endif

#else

void issue_cp_async(void* shared, const void* global, int bytes, int src_bytes, const char* file,
                    int line);
void commit_cp_async();
void wait_cp_async(int keep);
void init_mbarrier(void* barrier, int arrivals);
void arrive_mbarrier(void* barrier, unsigned bytes, const char* file, int line);
void wait_mbarrier(void* barrier, unsigned parity, const char* file, int line);
void issue_bulk_copy(void* shared, const void* global, unsigned bytes, void* barrier,
                     const char* file, int line);

template <int BYTES>
SIMT_INLINE void cp_async(void* shared, const void* global, int src_bytes = BYTES, SIMT_HERE) {
  static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16);
  issue_cp_async(shared, global, BYTES, src_bytes, file, line);
}
SIMT_INLINE void cp_async_commit() {
  commit_cp_async();
}
template <int KEEP>
SIMT_INLINE void cp_async_wait() {
  wait_cp_async(KEEP);
}
SIMT_INLINE void mbarrier_init(uint64_t* barrier, int arrivals) {
  init_mbarrier(barrier, arrivals);
}
SIMT_INLINE void mbarrier_arrive(uint64_t* barrier, SIMT_HERE) {
  arrive_mbarrier(barrier, 0, file, line);
}
SIMT_INLINE void mbarrier_arrive_expect(uint64_t* barrier, unsigned bytes, SIMT_HERE) {
  arrive_mbarrier(barrier, bytes, file, line);
}
SIMT_INLINE void mbarrier_wait(uint64_t* barrier, unsigned parity, SIMT_HERE) {
  wait_mbarrier(barrier, parity, file, line);
}
SIMT_INLINE void bulk_copy(void* shared, const void* global, unsigned bytes, uint64_t* barrier,
                           SIMT_HERE) {
  issue_bulk_copy(shared, global, bytes, barrier, file, line);
}

#endif
}  // namespace simt
