// The float functions of cpu/simd_math.h and cpu/activate.h at all 2^32 arguments, NaN, Inf and
// subnormal numbers among them, against the formulas in double by the C library (its vectors where
// it has them). One program an instruction set, some minutes each on two cores:
//
//   cmake --build build --target every_float && build/every_float_avx512 [STRIDE[,FAR] [NAME ...]]
//
// takes every STRIDE-th argument, and every FAR-th one below 2^-20 and from 2^9 on.
// Prints the largest error of each function in units in the last place of the exact result (2^-149
// for subnormal ones; Inf counts as 2^128), where it is, and fails if a bound is missed.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "cpu/activate.h"

namespace k = lamina::cpu::LAMINA_ISA;
using Vector = k::Vec<float>;
using Wide = k::Vec<double>;

// The C library on vectors: glibc's names say instruction set and lanes.
#if defined(__x86_64__) && defined(__GLIBC__) && __GLIBC_PREREQ(2, 35)
#if defined(__AVX512F__)
#define LAMINA_VECTOR_NAME(name) _ZGVeN8v_##name
#elif defined(__AVX2__)
#define LAMINA_VECTOR_NAME(name) _ZGVdN4v_##name
#else
#define LAMINA_VECTOR_NAME(name) _ZGVbN2v_##name
#endif
#define LAMINA_LIBRARY(name)                      \
  extern "C" Wide LAMINA_VECTOR_NAME(name)(Wide); \
  namespace library {                             \
  Wide name(Wide x) {                             \
    return LAMINA_VECTOR_NAME(name)(x);           \
  }                                               \
  }
#else
#define LAMINA_LIBRARY(name)                                            \
  namespace library {                                                   \
  Wide name(Wide x) {                                                   \
    for (int i = 0; i < k::kLanes<double>; ++i) x[i] = std::name(x[i]); \
    return x;                                                           \
  }                                                                     \
  }
#endif
LAMINA_LIBRARY(exp)
LAMINA_LIBRARY(expm1)
LAMINA_LIBRARY(log)
LAMINA_LIBRARY(log1p)
LAMINA_LIBRARY(tanh)
LAMINA_LIBRARY(erfc)

namespace {

struct Function {
  const char* name;
  double bound;
  Vector (*kernel)(Vector);
  Wide (*exact)(Wide);
  float low = -std::numeric_limits<float>::infinity();
  float high = std::numeric_limits<float>::infinity();
};

Wide least(Wide x, double high) {
  return x > high ? Wide{} + high : x;
}
Wide magnitude(Wide x) {
  return x < 0 ? -x : x;
}
Wide sigmoid(Wide x) {
  return 1 / (1 + library::exp(-x));
}
Wide softplus(Wide x) {
  return (x < 0 ? Wide{} : x) + library::log1p(library::exp(-magnitude(x)));
}
Wide normal_cdf(Wide x) {
  return 0.5 * library::erfc(x * -0.70710678118654752440);
}
// x times a gate that tends to 0 faster than x to -Inf.
Wide gated(Wide x, Wide gate) {
  return x < -1e4 ? Wide{} : x * gate;
}
Wide mish(Wide x) {
  const Wide w = library::exp(least(x, 40)), m = w * (w + 2);
  return gated(x, m / (m + 2));
}
Wide elu(Wide x, double a) {
  return x > 0 ? x : a * library::expm1(least(x, 1));
}
#if defined(__FMA__)
constexpr double kMost = 2;
#else
constexpr double kMost = 2.25;  // products are rounded before they are added
#endif
constexpr float kSeluA = 1.6732632423543772f, kSeluB = 1.0507009873554805f;

#define LAMINA_AT(call) [](Vector x) -> Vector { return call; }
#define LAMINA_EXACT(call) [](Wide x) -> Wide { return call; }
#define LAMINA_KIND(kind, a, b) LAMINA_AT((k::Kind_##kind::f<float>(x, a, b)))
const Function kFunctions[] = {
    {"exp", 1.25, LAMINA_AT(k::exp<float>(x)), library::exp},
    {"exp_nonpositive", 1.25, LAMINA_AT(k::exp_nonpositive<float>(x)), library::exp, -INFINITY, 0},
    {"expm1", 1.75, LAMINA_AT(k::expm1<float>(x)), library::expm1},
    {"log", 1, LAMINA_AT(k::log<float>(x)), library::log},
    {"normal_tail", 2,
     [](Vector x) {
       Vector bell;
       return k::normal_tail<false, float>(x, bell);
     },
     LAMINA_EXACT(normal_cdf(-x)), 0, k::Real<float>::kNormalZero},
    {"bell", 1.25,
     [](Vector x) {
       Vector bell;
       k::normal_tail<false, float>(x, bell);
       return bell;
     },
     LAMINA_EXACT(library::exp(-0.5 * x * x)), 0, k::Real<float>::kNormalZero},
    {"tanh", 2, LAMINA_AT(k::tanh<float>(x)), library::tanh},
    {"sigmoid", 2, LAMINA_AT(k::sigmoid<float>(x)), sigmoid},
    {"silu", 2, LAMINA_KIND(silu, 1, 0), LAMINA_EXACT(gated(x, sigmoid(x)))},
    {"softplus", 2, LAMINA_AT(k::softplus<float>(x)), softplus},
    {"logsigmoid", 2, LAMINA_KIND(logsigmoid, 1, 0), LAMINA_EXACT(-softplus(-x))},
    {"elu", 1, LAMINA_KIND(elu, 1, 0), LAMINA_EXACT(elu(x, 1))},
    {"selu", kMost, LAMINA_KIND(selu, kSeluA, kSeluB), LAMINA_EXACT(kSeluB * elu(x, kSeluA))},
    {"gelu", 2, LAMINA_AT(k::gelu<float>(x)), LAMINA_EXACT(gated(x, normal_cdf(x)))},
    {"gelu_tanh", 2, LAMINA_AT(k::gelu_tanh<float>(x)),
     LAMINA_EXACT(gated(x, sigmoid(2 * 0.79788456080286535588 * (x + 0.044715 * x * x * x))))},
    {"mish", kMost, LAMINA_AT(k::mish<float>(x)), mish},
    {"softsign", 1.5, LAMINA_KIND(softsign, 1, 0),
     LAMINA_EXACT(x - x != 0 ? x < 0   ? Wide{} - 1
                               : x > 0 ? Wide{} + 1
                                       : x
                             : x / (1 + magnitude(x)))},
    {"hardsigmoid", 1.5, LAMINA_KIND(hardsigmoid, 1, 0),
     LAMINA_EXACT(k::limit<double>(x + 3, 0, 6) / 6)},
    {"hardswish", 2, LAMINA_KIND(hardswish, 1, 0),
     LAMINA_EXACT(x < -3 ? Wide{} : x * (least(x, 3) + 3) / 6)},
};
#undef LAMINA_AT
#undef LAMINA_EXACT
#undef LAMINA_KIND

// Of the floats about a value.
double unit(double value) {
  const int exponent = std::clamp(std::ilogb(value), -126, 127);
  return std::ldexp(1.0, exponent - 23);
}

double error(float got, double exact) {
  if (std::isnan(exact) || std::isnan(got))
    return std::isnan(exact) && std::isnan(got) ? 0 : INFINITY;
  const double most = std::ldexp(1.0, 128), value = std::clamp<double>(got, -most, most);
  exact = std::clamp(exact, -most, most);
  return value == exact ? 0 : std::abs(value - exact) / unit(exact);
}

struct Worst {
  double error = 0;
  float x = 0, got = 0;
  double exact = 0;
};

// No less than the errors of the lanes; NaN where it cannot tell.
Wide errors(Wide got, Wide exact) {
  const double most = std::ldexp(1.0, 128);
  exact = k::limit<double>(exact, -most, most);
  const k::Mask<double> exponent = (k::bits<double>(exact) >> 52) & 0x7ff;
  const k::Mask<double> low = k::Mask<double>{} + 897, high = k::Mask<double>{} + 1150;
  const k::Mask<double> kept = exponent < low ? low : exponent > high ? high : exponent;
  return magnitude(k::limit<double>(got, -most, most) - exact) *
         k::from_bits<double>((2069 - kept) << 52);
}

// The arguments first, first + stride, ... below 2^32, as bits, where they are worse than `worst`.
Worst worst_from(const Function& function, uint64_t first, uint64_t end, uint64_t stride,
                 Worst worst) {
  typedef float Half __attribute__((vector_size(LAMINA_VECTOR_BYTES / 2)));
  for (uint64_t block = first; block < end; block += stride * k::kLanes<float>) {
    uint32_t pattern[k::kLanes<float>];
    for (int lane = 0; lane < k::kLanes<float>; ++lane)  // the last one again behind the end
      pattern[lane] = static_cast<uint32_t>(
          std::min(block + lane * stride, first + (end - 1 - first) / stride * stride));
    Vector x;
    std::memcpy(&x, pattern, sizeof x);
    x = k::limit<float>(x, function.low, function.high);
    const Vector y = function.kernel(x);
    Half xs[2], ys[2];
    std::memcpy(xs, &x, sizeof x), std::memcpy(ys, &y, sizeof y);
    for (int half = 0; half < 2; ++half) {
      const Wide exact = function.exact(__builtin_convertvector(xs[half], Wide));
      const Wide estimates = errors(__builtin_convertvector(ys[half], Wide), exact);
      const k::Mask<double> within = estimates <= worst.error;
      int64_t all = -1;
      for (int lane = 0; lane < k::kLanes<double>; ++lane) all &= within[lane];
      if (all) continue;
      for (int lane = 0; lane < k::kLanes<double>; ++lane) {
        const double e = error(ys[half][lane], exact[lane]);
        if (!(e <= worst.error)) worst = {e, xs[half][lane], ys[half][lane], exact[lane]};
      }
    }
  }
  return worst;
}

// Every stride-th argument of those from 2^-20 to 2^9 and of their negatives, every far-th of
// others.
Worst worst_of(const Function& function, uint64_t stride, uint64_t far) {
  constexpr uint64_t kAll = uint64_t{1} << 32;
  const uint64_t part = stride << 18;
  std::atomic<uint64_t> next = 0;
  std::mutex lock;
  Worst worst;
  std::vector<std::thread> threads(std::max(1u, std::thread::hardware_concurrency()));
  for (std::thread& thread : threads)
    thread = std::thread([&] {
      Worst own;
      for (uint64_t first; (first = next.fetch_add(part)) < kAll;) {
        const uint64_t exponent = (first >> 23) & 255;
        const bool near = exponent >= 127 - 20 && exponent < 127 + 9;
        own = worst_from(function, first, std::min(first + part, kAll), near ? stride : far, own);
        const std::lock_guard guard(lock);
        if (own.error > worst.error) worst = own;
        own = worst;
      }
    });
  for (std::thread& thread : threads) thread.join();
  return worst;
}

}  // namespace

int main(int argc, char** argv) {
  char* rest = nullptr;
  const uint64_t stride = argc > 1 ? std::strtoull(argv[1], &rest, 10) : 1;
  const uint64_t far = rest && *rest == ',' ? std::strtoull(rest + 1, nullptr, 10) : stride;
  if (stride == 0 || far == 0)
    return std::fprintf(stderr, "every_float: STRIDE and FAR must be at least 1\n"), 2;
  const std::vector<std::string> names(argv + std::min(argc, 2), argv + argc);
  bool kept = true;
  for (const Function& function : kFunctions) {
    if (!names.empty() && std::find(names.begin(), names.end(), function.name) == names.end())
      continue;
    const Worst worst = worst_of(function, stride, far);
    const bool fine = worst.error <= function.bound;
    kept = kept && fine;
    std::printf("%-16s %7.3f ulp (bound %g)%s  x = %a (%.9g) got %.9g for %.12g\n", function.name,
                worst.error, function.bound, fine ? "" : " MISSED", worst.x, worst.x, worst.got,
                worst.exact);
    std::fflush(stdout);
  }
  return kept ? 0 : 1;
}
