// activation, reference: the formulas of ops/activation.h in double precision.
#include "ref/activation.h"

#include <cmath>

#include "ops/instantiate.h"
#include "ops/prelu_gradients.h"

namespace lamina::ref {
namespace {

using ops::Activation;

double sigmoid(double x) {
  return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x));
}
double softplus(double x) {
  return std::fmax(x, 0) + std::log1p(std::exp(-std::fabs(x)));
}
double normal_cdf(double x) {
  return 0.5 * std::erfc(-x / std::sqrt(2.0));
}
double normal_pdf(double x) {
  return std::exp(-0.5 * x * x) / std::sqrt(2 * M_PI);
}

}  // namespace

double activated(Activation kind, double x, double a, double b) {
  if (std::isnan(x)) return x;
  switch (kind) {
    case Activation::identity:
      return x;
    case Activation::relu:
      return x > 0 ? x : 0;
    case Activation::leaky_relu:
      return x > 0 ? x : a * x;
    case Activation::elu:
      return x > 0 ? x : a * std::expm1(x);
    case Activation::selu:
      return b * (x > 0 ? x : a * std::expm1(x));
    case Activation::celu:
      return x > 0 ? x : a * std::expm1(x / a);
    case Activation::gelu:
      return x == -INFINITY ? 0 : x * normal_cdf(x);
    case Activation::gelu_tanh:
      return x == -INFINITY
                 ? 0
                 : 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::silu:
      return x == -INFINITY ? 0 : x * sigmoid(x);
    case Activation::mish:
      return x == -INFINITY ? 0 : x * std::tanh(softplus(x));
    case Activation::softplus:
      return x * a > b ? x : softplus(a * x) / a;
    case Activation::softsign:
      return std::isinf(x) ? std::copysign(1.0, x) : x / (1 + std::fabs(x));
    case Activation::softshrink:
      return x > a ? x - a : x < -a ? x + a : 0;
    case Activation::hardshrink:
      return x > a || x < -a ? x : 0;
    case Activation::tanhshrink:
      return x - std::tanh(x);
    case Activation::hardtanh:
      return std::fmin(std::fmax(x, a), b);
    case Activation::hardsigmoid:
      return std::fmin(std::fmax(x + 3, 0), 6) / 6;
    case Activation::hardswish:
      return x <= -3 ? 0 : x >= 3 ? x : x * (x + 3) / 6;
    case Activation::threshold:
      return x > a ? x : b;
    case Activation::logsigmoid:
      return -softplus(-x);
    case Activation::sigmoid:
      return sigmoid(a * x);
    case Activation::tanh:
      return std::tanh(x);
    case Activation::step:
      return x > 0 ? 1 : 0;
  }
  return NAN;
}

namespace {

double derivative(Activation kind, double x, double a, double b) {
  switch (kind) {
    case Activation::identity:
      return 1;
    case Activation::relu:
      return x <= 0 ? 0 : 1;
    case Activation::leaky_relu:
      return x > 0 ? 1 : a;
    case Activation::elu:
      return x > 0 ? 1 : a * std::exp(x);
    case Activation::selu:
      return b * (x > 0 ? 1 : a * std::exp(x));
    case Activation::celu:
      return x > 0 ? 1 : std::exp(x / a);
    case Activation::gelu:
      return std::isinf(x) ? (x > 0) : normal_cdf(x) + x * normal_pdf(x);
    case Activation::gelu_tanh: {
      if (std::isinf(x)) return x > 0;
      const double t = std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x));
      const double inner = std::sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
      return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner;
    }
    case Activation::silu:
      return std::isinf(x) ? (x > 0) : sigmoid(x) * (1 + x * (1 - sigmoid(x)));
    case Activation::mish: {
      if (std::isinf(x)) return x > 0;
      const double t = std::tanh(softplus(x));
      return t + x * (1 - t * t) * sigmoid(x);
    }
    case Activation::softplus:
      return x * a > b ? 1 : sigmoid(a * x);
    case Activation::softsign:
      return 1 / ((1 + std::fabs(x)) * (1 + std::fabs(x)));
    case Activation::softshrink:
    case Activation::hardshrink:
      return x < -a || x > a ? 1 : 0;
    case Activation::tanhshrink:
      return std::tanh(x) * std::tanh(x);
    case Activation::hardtanh:
      return x > a && x < b ? 1 : 0;
    case Activation::hardsigmoid:
      return x > -3 && x < 3 ? 1.0 / 6 : 0;
    case Activation::hardswish:
      return x <= -3 ? 0 : x >= 3 ? 1 : x / 3 + 0.5;
    case Activation::threshold:
      return x <= a ? 0 : 1;
    case Activation::logsigmoid:
      return sigmoid(-x);
    case Activation::sigmoid:
      return a * sigmoid(a * x) * sigmoid(-a * x);
    case Activation::tanh:
      return 1 - std::tanh(x) * std::tanh(x);
    case Activation::step:
      return 0;
  }
  return NAN;
}

}  // namespace

template <class T>
void activation_fprop_elementwise(const ops::ActivationArgs<T>& args) {
  for (int64_t i = 0; i < args.size; ++i) {
    const double x = args.x[i] + (args.residual ? static_cast<double>(args.residual[i]) : 0);
    args.result[i] = static_cast<T>(activated(args.kind, x, args.a, args.b));
  }
}

template <class T>
void activation_dgrad_elementwise(const ops::ActivationArgs<T>& args) {
  for (int64_t i = 0; i < args.size; ++i) {
    const double slope = derivative(args.kind, args.x[i], args.a, args.b);
    const bool constant = slope == 0 && has_constant_part(args.kind);
    args.result[i] = static_cast<T>(constant ? 0 : args.grad_y[i] * slope);
  }
}

template <class T>
void prelu_fprop_elementwise(const ops::PreluArgs<T>& args) {
  for (int64_t i = 0; i < args.n * args.c * args.inner; ++i) {
    const T slope = args.weight[i / args.inner % args.c % args.weights];
    args.result[i] = args.x[i] > 0 ? args.x[i] : slope * args.x[i];
  }
}

template <class T>
void prelu_dgrad_elementwise(const ops::PreluArgs<T>& args) {
  for (int64_t i = 0; i < args.n * args.c * args.inner; ++i) {
    const T slope = args.weight[i / args.inner % args.c % args.weights];
    args.result[i] = args.x[i] > 0 ? args.grad_y[i] : slope * args.grad_y[i];
  }
}

template <class T>
void prelu_wgrad_elementwise(const ops::PreluArgs<T>& args) {
  for (int64_t w = 0; w < args.weights; ++w) {
    double sum = 0;
    for (int64_t i = 0; i < args.n * args.c * args.inner; ++i)
      if (i / args.inner % args.c % args.weights == w && !(args.x[i] > 0))
        sum += static_cast<double>(args.x[i]) * args.grad_y[i];
    args.result[w] = static_cast<T>(sum);
  }
}

template <class T>
void prelu_gradients_elementwise(const ops::PreluGradientArgs<T>& args) {
  prelu_dgrad_elementwise<T>(args);
  ops::PreluArgs<T> of_weight = args;
  of_weight.result = args.grad_weight;
  prelu_wgrad_elementwise<T>(of_weight);
}

template <class T>
void glu_fprop_halves(const ops::GluArgs<T>& args) {
  for (int64_t i = 0; i < args.outer * args.inner; ++i) {
    const int64_t at = i / args.inner * args.inner + i;
    const double gate = activated(ops::Activation::sigmoid, args.x[at + args.inner], 1, 0);
    args.result[i] = static_cast<T>(args.x[at] * gate);
  }
}

template <class T>
void glu_dgrad_halves(const ops::GluArgs<T>& args) {
  for (int64_t i = 0; i < args.outer * args.inner; ++i) {
    const int64_t at = i / args.inner * args.inner + i;
    const double g = args.grad_y[i], b = args.x[at + args.inner];
    args.result[at] = static_cast<T>(g * activated(ops::Activation::sigmoid, b, 1, 0));
    args.result[at + args.inner] =
        static_cast<T>(g * args.x[at] * derivative(ops::Activation::sigmoid, b, 1, 0));
  }
}

LAMINA_INSTANTIATE(activation_fprop_elementwise, ActivationArgs)
LAMINA_INSTANTIATE(activation_dgrad_elementwise, ActivationArgs)
LAMINA_INSTANTIATE(prelu_fprop_elementwise, PreluArgs)
LAMINA_INSTANTIATE(prelu_dgrad_elementwise, PreluArgs)
LAMINA_INSTANTIATE(prelu_wgrad_elementwise, PreluArgs)
LAMINA_INSTANTIATE(prelu_gradients_elementwise, PreluGradientArgs)
LAMINA_INSTANTIATE(glu_fprop_halves, GluArgs)
LAMINA_INSTANTIATE(glu_dgrad_halves, GluArgs)

}  // namespace lamina::ref
