// Atomics on memory that blocks on several OS threads may share.
#include "simt/worker.h"

namespace simt {
namespace {

template <class T>
T combine(Atomic kind, T old, T value) {
  switch (kind) {
    case Atomic::add:
      return old + value;
    case Atomic::max:
      return old < value ? value : old;
    case Atomic::min:
      return value < old ? value : old;
    case Atomic::bit_or:
      if constexpr (std::is_integral_v<T>) return old | value;
      [[fallthrough]];
    case Atomic::exchange:
      break;
  }
  return value;
}

template <class Bits, class T>
T update(Atomic kind, T* p, T value, uintptr_t pc) {
  if (checker.access) checker.access(p, sizeof(T), kWrite | kAtomic, pc);
  Bits* bits = reinterpret_cast<Bits*>(p);
  Bits old = __atomic_load_n(bits, __ATOMIC_RELAXED), desired;
  do desired = bit_cast<Bits>(combine(kind, bit_cast<T>(old), value));
  while (
      !__atomic_compare_exchange_n(bits, &old, desired, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
  return bit_cast<T>(old);
}

template <class T>
T swap_if_equal(T* p, T expected, T desired, uintptr_t pc) {
  if (checker.access) checker.access(p, sizeof(T), kWrite | kAtomic, pc);
  __atomic_compare_exchange_n(p, &expected, desired, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
  return expected;
}

}  // namespace

#define SIMT_ATOMIC(T, Bits)                          \
  T atomic(Atomic kind, T* p, T value) {              \
    return update<Bits>(kind, p, value, SIMT_CALLER); \
  }
SIMT_ATOMIC(float, uint32_t)
SIMT_ATOMIC(double, uint64_t)
SIMT_ATOMIC(int, uint32_t)
SIMT_ATOMIC(unsigned, uint32_t)
SIMT_ATOMIC(unsigned long long, uint64_t)
#undef SIMT_ATOMIC

unsigned compare_and_swap(unsigned* p, unsigned expected, unsigned desired) {
  return swap_if_equal(p, expected, desired, SIMT_CALLER);
}
unsigned long long compare_and_swap(unsigned long long* p, unsigned long long expected,
                                    unsigned long long desired) {
  return swap_if_equal(p, expected, desired, SIMT_CALLER);
}

}  // namespace simt
