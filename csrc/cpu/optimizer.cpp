// optimizer_step: the update of a parameter and its states in one pass (ops/optimizer.h).
//
// Method        the rules are plain arithmetic without calls, which the compiler vectorises.
// Partitioning  kTaskElements elements.
// Floor         one read and one write of the parameter and of each state, one read of the
// gradient.
#include "ops/optimizer.h"

#include "core/threads.h"
#include "cpu/simd.h"
#include "ops/instantiate.h"
#include "shared/optimizer_rules.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::Optimizer;
using ops::OptimizerArgs;

inline constexpr int64_t kTaskElements = 16384;

struct Root {
  [[gnu::always_inline]] static float of(float x) { return __builtin_sqrtf(x); }
  [[gnu::always_inline]] static double of(double x) { return __builtin_sqrt(x); }
};

template <class Rule, int STATES, class T>
static void run_optimizer(const OptimizerArgs<T>& args) {
  parallel_ranges(args.size, kTaskElements, [&](int64_t begin, int64_t end) {
    T c[ops::kMaxOptimizerCoefficients];
    for (int i = 0; i < ops::kMaxOptimizerCoefficients; ++i) c[i] = args.coefficient[i];
    const T decay = args.decay, keep = args.keep;
    T *param = args.param, *s0 = args.state[0], *s1 = args.state[1], *s2 = args.state[2];
    const T* grad = args.grad;
    // An element depends on its own index alone, even where arrays coincide.
#pragma GCC ivdep
    for (int64_t i = begin; i < end; ++i) {
      T p = param[i], s[3] = {};
      if constexpr (STATES > 0) s[0] = s0[i];
      if constexpr (STATES > 1) s[1] = s1[i];
      if constexpr (STATES > 2) s[2] = s2[i];
      optimizer::step<Rule, Root>(p, grad[i], s, decay, keep, c);
      param[i] = p;
      if constexpr (STATES > 0) s0[i] = s[0];
      if constexpr (STATES > 1) s1[i] = s[1];
      if constexpr (STATES > 2) s2[i] = s[2];
    }
  });
}

template <class T>
void optimizer_step_fprop_elementwise(const OptimizerArgs<T>& args) {
  switch (args.kind) {
#define LAMINA_CASE(kind, states) \
  case Optimizer::kind:           \
    return run_optimizer<optimizer::Rule_##kind, states>(args);
    LAMINA_OPTIMIZERS(LAMINA_CASE)
#undef LAMINA_CASE
  }
}

LAMINA_INSTANTIATE(optimizer_step_fprop_elementwise, OptimizerArgs)

LAMINA_CPU_NAMESPACE_END
