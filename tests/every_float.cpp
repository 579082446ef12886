// The float functions of cpu/simd_math.h and cpu/activate.h at all 2^32 arguments, NaN, Inf and
// subnormal numbers among them, against the formulas in double. One program an instruction set,
// some minutes each on two cores:
//
//   cmake --build build --target every_float && build/every_float_avx512 [STRIDE [NAME ...]]
//
// Prints the largest error of each function in units in the last place of the exact result (2^-149
// for subnormal ones; Inf counts as 2^128), where it is, and fails if a bound is missed.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "cpu/activate.h"

namespace {

namespace k = lamina::cpu::LAMINA_ISA;
using Vector = k::Vec<float>;

struct Function {
  const char* name;
  double bound;
  Vector (*kernel)(Vector);
  double (*exact)(double);
  float low = -std::numeric_limits<float>::infinity();
  float high = std::numeric_limits<float>::infinity();
};

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}
double softplus(double x) {
  return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
}
double normal_cdf(double x) {
  return 0.5 * std::erfc(-x / std::sqrt(2.0));
}
// x times a gate that tends to 0 faster than x to -Inf.
double gated(double x, double gate) {
  return x < -1e4 ? -0.0 : x * gate;
}
double mish(double x) {
  const double w = std::exp(std::min(x, 40.0)), m = w * (w + 2);
  return gated(x, m / (m + 2));
}

#define LAMINA_AT(call) [](Vector x) -> Vector { return call; }
const Function kFunctions[] = {
    {"exp", 1.25, LAMINA_AT(k::exp<float>(x)), std::exp},
    {"exp_nonpositive", 1.25, LAMINA_AT(k::exp_nonpositive<float>(x)), std::exp, -INFINITY, 0},
    {"expm1", 1.5, LAMINA_AT(k::expm1<float>(x)), std::expm1},
    {"log", 1, LAMINA_AT(k::log<float>(x)), std::log},
    {"normal_tail", 2.5,
     [](Vector x) {
       Vector bell;
       return k::normal_tail<false, float>(x, bell);
     },
     [](double x) { return normal_cdf(-x); }, 0, 16},
    {"bell", 1.25,
     [](Vector x) {
       Vector bell;
       k::normal_tail<false, float>(x, bell);
       return bell;
     },
     [](double x) { return std::exp(-0.5 * x * x); }, 0, 16},
    {"tanh", 2, LAMINA_AT(k::tanh<float>(x)), std::tanh},
    {"sigmoid", 2, LAMINA_AT(k::sigmoid<float>(x)), sigmoid},
    {"silu", 2, LAMINA_AT(k::Kind_silu::f<float>(x, 1, 0)),
     [](double x) { return gated(x, sigmoid(x)); }},
    {"softplus", 2, LAMINA_AT(k::softplus<float>(x)), softplus},
    {"logsigmoid", 2, LAMINA_AT(k::Kind_logsigmoid::f<float>(x, 1, 0)),
     [](double x) { return -softplus(-x); }},
    {"elu", 1, LAMINA_AT(k::Kind_elu::f<float>(x, 1, 0)),
     [](double x) { return x > 0 ? x : std::expm1(x); }},
    {"gelu", 2.25, LAMINA_AT(k::gelu<float>(x)), [](double x) { return gated(x, normal_cdf(x)); }},
    {"gelu_tanh", 2, LAMINA_AT(k::gelu_tanh<float>(x)),
     [](double x) {
       return gated(x, sigmoid(2 * 0.79788456080286535588 * (x + 0.044715 * x * x * x)));
     }},
    {"mish", 2.5, LAMINA_AT(k::mish<float>(x)), mish},
};
#undef LAMINA_AT

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

// The arguments first, first + stride, ... below 2^32, as bits.
Worst worst_from(const Function& function, uint64_t first, uint64_t end, uint64_t stride) {
  Worst worst;
  for (uint64_t block = first; block < end; block += stride * k::kLanes<float>) {
    Vector x = {};
    int count = 0;
    for (uint64_t i = block; i < end && count < k::kLanes<float>; i += stride)
      x[count++] = std::bit_cast<float>(static_cast<uint32_t>(i));
    const Vector y = function.kernel(x);
    for (int lane = 0; lane < count; ++lane) {
      if (x[lane] < function.low || x[lane] > function.high) continue;
      const double exact = function.exact(x[lane]), e = error(y[lane], exact);
      if (!(e <= worst.error)) worst = {e, x[lane], y[lane], exact};
    }
  }
  return worst;
}

Worst worst_of(const Function& function, uint64_t stride) {
  constexpr uint64_t kAll = uint64_t{1} << 32;
  const uint64_t part = stride << 18;
  std::atomic<uint64_t> next = 0;
  std::mutex lock;
  Worst worst;
  std::vector<std::thread> threads(std::max(1u, std::thread::hardware_concurrency()));
  for (std::thread& thread : threads)
    thread = std::thread([&] {
      for (uint64_t first; (first = next.fetch_add(part)) < kAll;) {
        const Worst own = worst_from(function, first, std::min(first + part, kAll), stride);
        const std::lock_guard guard(lock);
        if (own.error > worst.error) worst = own;
      }
    });
  for (std::thread& thread : threads) thread.join();
  return worst;
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t stride = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1;
  if (stride == 0) return std::fprintf(stderr, "every_float: STRIDE must be at least 1\n"), 2;
  const std::vector<std::string> names(argv + std::min(argc, 2), argv + argc);
  bool kept = true;
  for (const Function& function : kFunctions) {
    if (!names.empty() && std::find(names.begin(), names.end(), function.name) == names.end())
      continue;
    const Worst worst = worst_of(function, stride);
    const bool fine = worst.error <= function.bound;
    kept = kept && fine;
    std::printf("%-16s %7.3f ulp (bound %g)%s  x = %a (%.9g) got %.9g for %.12g\n", function.name,
                worst.error, function.bound, fine ? "" : " MISSED", worst.x, worst.x, worst.got,
                worst.exact);
    std::fflush(stdout);
  }
  return kept ? 0 : 1;
}
