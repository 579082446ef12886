// Losses element by element, reference: the formulas of ops/loss.h.
#include "ops/loss.h"

#include <cmath>

#include "ops/instantiate.h"

namespace lamina::ref {
namespace {

using ops::PointwiseLoss;

struct Value {
  double loss, by_x, by_t;
};

double softplus(double x) {
  return std::isnan(x) ? x : std::fmax(x, 0) + std::log1p(std::exp(-std::fabs(x)));
}
double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

double limited_log(double log) {
  return log < -100 ? -100 : log;
}

Value evaluated(PointwiseLoss kind, double x, double t, double a, double b) {
  const double difference = x - t, d = std::fabs(difference), z = a - t * x;
  const double sign = difference > 0 ? 1 : difference < 0 ? -1 : difference;
  const auto of_difference = [](double loss, double slope) { return Value{loss, slope, -slope}; };
  const double slope_of_labels = (1 - t) * sigmoid(x) - t * sigmoid(-x);
  switch (kind) {
    case PointwiseLoss::absolute:
      return of_difference(d, sign);
    case PointwiseLoss::squared:
      return of_difference(d * d, 2 * difference);
    case PointwiseLoss::smooth_l1:
      return d < a ? of_difference(d * d * b, 2 * difference * b) : of_difference(d - a / 2, sign);
    case PointwiseLoss::huber:
      return d < a ? of_difference(d * d / 2, difference)
                   : of_difference(a * (d - a / 2), a * sign);
    case PointwiseLoss::logits:
      return {(1 - t) * x + softplus(-x), slope_of_labels, -x};
    case PointwiseLoss::soft_labels:
      return {t * softplus(-x) + (1 - t) * softplus(x), slope_of_labels, -x};
    case PointwiseLoss::probability: {
      const double log_x = limited_log(std::log(x)), log_rest = limited_log(std::log1p(-x));
      const double spread = x * (1 - x) < 1e-12 ? 1e-12 : x * (1 - x);
      return {(t - 1) * log_rest - t * log_x, difference / spread, log_rest - log_x};
    }
    case PointwiseLoss::soft_margin:
      return {softplus(-t * x), -t * sigmoid(-t * x), -x * sigmoid(-t * x)};
    case PointwiseLoss::ranking:
      return {z < 0 ? 0 : z, z >= 0 ? -t : 0, z >= 0 ? -x : 0};
  }
  return {};
}

}  // namespace

template <class T>
void loss_fprop_pointwise(const ops::LossArgs<T>& args) {
  double sum = 0;
  for (int64_t i = 0; i < args.size; ++i) {
    const T loss = static_cast<T>(evaluated(args.kind, args.x[i], args.t[i], args.a, args.b).loss);
    sum += loss;
    if (!args.reduced) args.result[i] = loss;
  }
  if (args.reduced) *args.result = static_cast<T>(sum / args.divisor);
}

template <class T>
void loss_dgrad_pointwise(const ops::LossArgs<T>& args) {
  const double one = args.reduced ? *args.grad_y / args.divisor : 0;
  for (int64_t i = 0; i < args.size; ++i) {
    const Value value = evaluated(args.kind, args.x[i], args.t[i], args.a, args.b);
    const double g = args.reduced ? one : static_cast<double>(args.grad_y[i]);
    const double slope = args.of_target ? value.by_t : value.by_x;
    const bool constant = args.kind == PointwiseLoss::ranking && slope == 0;
    args.result[i] = constant ? T(0) : static_cast<T>(g * slope);
  }
}

LAMINA_INSTANTIATE(loss_fprop_pointwise, LossArgs)
LAMINA_INSTANTIATE(loss_dgrad_pointwise, LossArgs)

}  // namespace lamina::ref
