// activation: y = f(x) element by element, and its gradient; prelu likewise.
//
// Method        a thread moves sixteen bytes of each array; f and f' are computed from x in float32
//               (double for float64), the kind is a branch that all threads take alike.
// Partitioning  256 threads, one vector each. prelu's weight gradient: a weight's elements in up to
//               kMaxParts parts, one block each, then one thread a weight adds the parts in order.
// Floor         one read and one write (gradient: two reads) of the tensor.
#include "cuda/device/activate.h"
#include "cuda/device/launch.h"
#include "cuda/device/reduce.h"
#include "cuda/device/vector.h"
#include "cuda/instantiate.h"
#include "ops/activation.h"

namespace lamina::cuda {

using ops::Activation;
using ops::ActivationArgs;
using ops::PreluArgs;

static constexpr int kThreads = 256;

// ---- activation

// result[i] = f(x[i] + other[i]), or grad_y[i] f'(x[i]) with `other` for grad_y.
template <class T, int N, bool GRADIENT>
__global__ void __launch_bounds__(kThreads)
    activation_kernel(Activation kind, Acc<T> a, Acc<T> b, const T* x, const T* other, T* result,
                      int64_t size) {
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (at >= size) return;
  const Vector<T, N> in = load<T, N>(x + at);
  Vector<T, N> more{};
  if (GRADIENT || other) more = load<T, N>(other + at);
  Vector<T, N> out{};
  switch (kind) {
#define LAMINA_CASE(name)                                                                          \
  case Activation::name:                                                                           \
    for (int i = 0; i < N; ++i) {                                                                  \
      const Acc<T> value = widen(in.element[i]), second = widen(more.element[i]);                  \
      out.element[i] = narrow<T>(GRADIENT ? Kind_##name::gradient(second, value, a, b)             \
                                          : Kind_##name::f(other ? value + second : value, a, b)); \
    }                                                                                              \
    break;
    LAMINA_ACTIVATIONS(LAMINA_CASE)
#undef LAMINA_CASE
  }
  store<T, N>(result + at, out);
}

template <class T, bool GRADIENT>
static void run_activation(const ActivationArgs<T>& args) {
  // The vectors first, then what is left of the last one.
  constexpr int kLanes = kWide<T>;
  const T* const other = GRADIENT ? args.grad_y : args.residual;
  const bool wide = is_wide(args.x, other, args.result);
  const int64_t whole = wide ? args.size / kLanes * kLanes : 0;
  const Acc<T> a(args.a), b(args.b);
  launch(activation_kernel<T, kLanes, GRADIENT>, grid_size(ceil_div(whole, kThreads * kLanes)),
         kThreads, 0, args.kind, a, b, args.x, other, args.result, whole);
  launch(activation_kernel<T, 1, GRADIENT>, grid_size(ceil_div(args.size - whole, kThreads)),
         kThreads, 0, args.kind, a, b, args.x + whole, other ? other + whole : nullptr,
         args.result + whole, args.size - whole);
}

template <class T>
void activation_fprop_elementwise(const ActivationArgs<T>& args) {
  run_activation<T, false>(args);
}

template <class T>
void activation_dgrad_elementwise(const ActivationArgs<T>& args) {
  run_activation<T, true>(args);
}

// ---- prelu

// result = in, times the weight of its channel where x is not positive; in is x or grad_y.
template <class T>
__global__ void __launch_bounds__(kThreads)
    prelu_kernel(const T* x, const T* in, const T* weight, T* result, int64_t size, int64_t c,
                 int64_t inner, bool one_weight) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= size) return;
  const Acc<T> slope = widen(weight[one_weight ? 0 : i / inner % c]), value = widen(in[i]);
  result[i] = narrow<T>(widen(x[i]) > Acc<T>(0) ? value : slope * value);
}

template <class T>
static void run_prelu(const PreluArgs<T>& args, const T* in) {
  const int64_t size = args.n * args.c * args.inner;
  launch(prelu_kernel<T>, grid_size(ceil_div(size, kThreads)), kThreads, 0, args.x, in, args.weight,
         args.result, size, args.c, args.inner, args.weights == 1);
}

template <class T>
void prelu_fprop_elementwise(const PreluArgs<T>& args) {
  run_prelu(args, args.x);
}

template <class T>
void prelu_dgrad_elementwise(const PreluArgs<T>& args) {
  run_prelu(args, args.grad_y);
}

// Partial sums of at least this many elements, in at most so many parts a weight.
static constexpr int64_t kMaxParts = 256;
static constexpr int64_t kPartElements = 64 * kThreads;

// partial[w][part] = sum of grad_y * x over the part of weight w's elements where x is not
// positive. Element e of weight w lies in sample e / span, at e % span of that sample's w-th
// stretch.
template <class T>
__global__ void __launch_bounds__(kThreads)
    prelu_partial_kernel(const T* x, const T* grad_y, Acc<T>* partial, int64_t elements,
                         int64_t span, int64_t weights, int64_t parts, int64_t part_size) {
  const int64_t weight = blockIdx.x / parts, part = blockIdx.x % parts;
  const int64_t end = min((part + 1) * part_size, elements);
  Acc<T> sum = 0;
  for (int64_t e = part * part_size + threadIdx.x; e < end; e += kThreads) {
    const int64_t i = (e / span * weights + weight) * span + e % span;
    const Acc<T> value = widen(x[i]);
    if (!(value > Acc<T>(0))) sum += value * widen(grad_y[i]);
  }
  sum = block_reduce<kThreads>(sum, Sum());
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    prelu_sum_kernel(const Acc<T>* partial, T* result, int64_t weights, int64_t parts) {
  const int64_t weight = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (weight >= weights) return;
  Acc<T> sum = 0;
  for (int64_t part = 0; part < parts; ++part) sum += partial[weight * parts + part];
  result[weight] = narrow<T>(sum);
}

template <class T>
void prelu_wgrad_elementwise(const PreluArgs<T>& args) {
  const bool one = args.weights == 1;
  const int64_t span = one ? args.n * args.c * args.inner : args.inner;
  const int64_t elements = one ? span : args.n * args.inner;
  const int64_t parts = max(int64_t{1}, min(kMaxParts, ceil_div(elements, kPartElements)));
  const Workspace partial(args.weights * parts * static_cast<int64_t>(sizeof(Acc<T>)));
  launch(prelu_partial_kernel<T>, grid_size(args.weights * parts), kThreads, 0, args.x, args.grad_y,
         partial.get<Acc<T>>(), elements, span, args.weights, parts, ceil_div(elements, parts));
  launch(prelu_sum_kernel<T>, grid_size(ceil_div(args.weights, kThreads)), kThreads, 0,
         partial.get<Acc<T>>(), args.result, args.weights, parts);
}

LAMINA_CUDA_INSTANTIATE(activation_fprop_elementwise, ActivationArgs)
LAMINA_CUDA_INSTANTIATE(activation_dgrad_elementwise, ActivationArgs)
LAMINA_CUDA_INSTANTIATE(prelu_fprop_elementwise, PreluArgs)
LAMINA_CUDA_INSTANTIATE(prelu_dgrad_elementwise, PreluArgs)
LAMINA_CUDA_INSTANTIATE(prelu_wgrad_elementwise, PreluArgs)

}  // namespace lamina::cuda
