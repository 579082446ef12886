// optimizer_step: the update of a parameter and its states in one pass (ops/optimizer.h).
//
// Method        a thread moves sixteen bytes of each array and applies the rule to the elements in
//               float32 (double for float64).
// Partitioning  256 threads, one vector each; the last vector's rest, and arrays that do not begin
//               at sixteen bytes, element by element.
// Floor         one read and one write of the parameter and of each state, one read of the
// gradient.
#include "cuda/device/launch.h"
#include "cuda/device/vector.h"
#include "cuda/instantiate.h"
#include "ops/optimizer.h"
#include "shared/optimizer_rules.h"

namespace lamina::cuda {

using ops::Optimizer;
using ops::OptimizerArgs;

static constexpr int kThreads = 256;

struct Root {
  template <class A>
  __device__ __forceinline__ static A of(A x) {
    return sqrt(x);
  }
};

template <class T>
struct OptimizerStep {
  T* param;
  const T* grad;
  T* state[ops::kMaxOptimizerStates];
  Acc<T> decay, keep, coefficient[ops::kMaxOptimizerCoefficients];
};

// Elements [at, at + N) of one thread.
template <class Rule, int STATES, int N, class T>
__device__ __forceinline__ void update_vector(const OptimizerStep<T>& step, int64_t at) {
  using A = Acc<T>;
  Vector<T, N> param = load<T, N>(step.param + at), state[STATES > 0 ? STATES : 1];
  const Vector<T, N> grad = load<T, N>(step.grad + at);
#pragma unroll
  for (int k = 0; k < STATES; ++k) state[k] = load<T, N>(step.state[k] + at);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    A p = widen(param.element[i]), s[STATES > 0 ? STATES : 1] = {};
#pragma unroll
    for (int k = 0; k < STATES; ++k) s[k] = widen(state[k].element[i]);
    optimizer::step<Rule, Root>(p, widen(grad.element[i]), s, step.decay, step.keep,
                                step.coefficient);
    param.element[i] = narrow<T>(p);
#pragma unroll
    for (int k = 0; k < STATES; ++k) state[k].element[i] = narrow<T>(s[k]);
  }
  store<T, N>(step.param + at, param);
#pragma unroll
  for (int k = 0; k < STATES; ++k) store<T, N>(step.state[k] + at, state[k]);
}

template <class T, class Rule, int STATES>
__global__ void __launch_bounds__(kThreads)
    optimizer_kernel(const __grid_constant__ OptimizerStep<T> step, int64_t size, bool wide) {
  constexpr int kLanes = kWide<T>;
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kLanes;
  if (wide && at + kLanes <= size) {
    update_vector<Rule, STATES, kLanes>(step, at);
  } else {
    for (int i = 0; i < kLanes && at + i < size; ++i) update_vector<Rule, STATES, 1>(step, at + i);
  }
}

template <class Rule, int STATES, class T>
static void run_optimizer(const OptimizerArgs<T>& args) {
  OptimizerStep<T> step{};
  step.param = args.param, step.grad = args.grad;
  for (int k = 0; k < STATES; ++k) step.state[k] = args.state[k];
  step.decay = Acc<T>(args.decay), step.keep = Acc<T>(args.keep);
  for (int i = 0; i < ops::kMaxOptimizerCoefficients; ++i)
    step.coefficient[i] = Acc<T>(args.coefficient[i]);
  const bool wide = is_wide(step.param, step.grad, step.state[0], step.state[1], step.state[2]);
  launch(optimizer_kernel<T, Rule, STATES>, grid_size(ceil_div(args.size, kThreads * kWide<T>)),
         kThreads, 0, step, args.size, wide);
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

LAMINA_CUDA_INSTANTIATE(optimizer_step_fprop_elementwise, OptimizerArgs)

}  // namespace lamina::cuda
