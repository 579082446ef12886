// optimizer_step, reference: the rules element by element, in double precision.
#include "ops/optimizer.h"

#include <cmath>

#include "ops/instantiate.h"
#include "shared/optimizer_rules.h"

namespace lamina::ref {

using ops::Optimizer;
using ops::OptimizerArgs;

namespace {

struct Root {
  static double of(double x) { return std::sqrt(x); }
};

template <class Rule, int STATES, class T>
void run(const OptimizerArgs<T>& args) {
  double c[ops::kMaxOptimizerCoefficients];
  for (int i = 0; i < ops::kMaxOptimizerCoefficients; ++i) c[i] = args.coefficient[i];
  for (int64_t i = 0; i < args.size; ++i) {
    double p = args.param[i], s[ops::kMaxOptimizerStates] = {};
    for (int k = 0; k < STATES; ++k) s[k] = args.state[k][i];
    optimizer::step<Rule, Root>(p, static_cast<double>(args.grad[i]), s,
                                static_cast<double>(args.decay), static_cast<double>(args.keep), c);
    args.param[i] = static_cast<T>(p);
    for (int k = 0; k < STATES; ++k) args.state[k][i] = static_cast<T>(s[k]);
  }
}

}  // namespace

template <class T>
void optimizer_step_fprop_elementwise(const OptimizerArgs<T>& args) {
  switch (args.kind) {
#define LAMINA_CASE(kind, states) \
  case Optimizer::kind:           \
    return run<optimizer::Rule_##kind, states>(args);
    LAMINA_OPTIMIZERS(LAMINA_CASE)
#undef LAMINA_CASE
  }
}

LAMINA_INSTANTIATE(optimizer_step_fprop_elementwise, OptimizerArgs)

}  // namespace lamina::ref
