// Connectionist temporal classification, reference: the recursions state by state, in logarithms.
#include "ops/ctc.h"

#include <cmath>
#include <vector>

#include "ops/instantiate.h"

namespace lamina::ref {
namespace {

// log(exp(a) + exp(b))
double joined(double a, double b) {
  if (std::isinf(a) && a < 0) return b;
  return std::fmax(a, b) + std::log1p(std::exp(-std::fabs(a - b)));
}

using Table = std::vector<std::vector<double>>;  // [steps][states]

template <class T>
struct Sequence {
  const ops::CtcArgs<T>& args;
  int64_t i, steps;
  ops::CtcStates<T> states;

  Sequence(const ops::CtcArgs<T>& args, int64_t i)
      : args(args), i(i), steps(args.lengths[i]), states(args, i) {}

  int64_t place(int64_t step, int64_t state) const {
    return (step * args.n + i) * args.c + states.label(state);
  }
  double emitted(int64_t step, int64_t state) const { return args.log_p[place(step, state)]; }
  Table table() const {
    const std::vector<double> row(static_cast<size_t>(states.count), -INFINITY);
    return Table(static_cast<size_t>(steps), row);
  }

  // log p(the steps so far end in the state)
  Table before() const {
    Table alpha = table();
    for (int64_t t = 0; t < steps; ++t)
      for (int64_t s = 0; s < states.count; ++s) {
        double& value = alpha[size_t(t)][size_t(s)];
        if (t == 0) {
          if (s < 2) value = emitted(t, s);
          continue;
        }
        const std::vector<double>& last = alpha[size_t(t - 1)];
        value = last[size_t(s)];
        if (s >= 1) value = joined(value, last[size_t(s - 1)]);
        if (states.skips(s)) value = joined(value, last[size_t(s - 2)]);
        value += emitted(t, s);
      }
    return alpha;
  }
  // log p(the steps that follow | the state)
  Table after() const {
    Table beta = table();
    for (int64_t t = steps - 1; t >= 0; --t)
      for (int64_t s = 0; s < states.count; ++s) {
        double& value = beta[size_t(t)][size_t(s)];
        if (t == steps - 1) {
          if (s >= states.count - 2) value = 0;
          continue;
        }
        const auto next = [&](int64_t to) {
          return beta[size_t(t + 1)][size_t(to)] + emitted(t + 1, to);
        };
        value = next(s);
        if (s + 1 < states.count) value = joined(value, next(s + 1));
        if (s + 2 < states.count && states.skips(s + 2)) value = joined(value, next(s + 2));
      }
    return beta;
  }
  double loss(const Table& alpha) const {
    if (steps == 0) return states.count > 1 ? INFINITY : 0;
    const std::vector<double>& last = alpha.back();
    return -(states.count > 1 ? joined(last[last.size() - 2], last.back()) : last.back());
  }
};

}  // namespace

template <class T>
void ctc_fprop_sequences(const ops::CtcArgs<T>& args) {
  for (int64_t i = 0; i < args.n; ++i) {
    const Sequence<T> sequence(args, i);
    args.result[i] = static_cast<T>(sequence.loss(sequence.before()));
  }
}

template <class T>
void ctc_dgrad_sequences(const ops::CtcArgs<T>& args) {
  const int64_t size = args.steps * args.n * args.c;
  for (int64_t k = 0; k < size; ++k) args.result[k] = 0;
  std::vector<double> gradient(static_cast<size_t>(size));
  for (int64_t i = 0; i < args.n; ++i) {
    if (args.grad_y[i] == 0) continue;
    const Sequence<T> sequence(args, i);
    const Table alpha = sequence.before(), beta = sequence.after();
    const double loss = sequence.loss(alpha);
    for (int64_t t = 0; t < sequence.steps; ++t)
      for (int64_t s = 0; s < sequence.states.count; ++s) {
        const int64_t at = sequence.place(t, s);
        gradient[size_t(at)] -=
            std::exp(alpha[size_t(t)][size_t(s)] + beta[size_t(t)][size_t(s)] + loss);
        args.result[at] = static_cast<T>(gradient[size_t(at)]) * args.grad_y[i];
      }
  }
}

LAMINA_INSTANTIATE(ctc_fprop_sequences, CtcArgs)
LAMINA_INSTANTIATE(ctc_dgrad_sequences, CtcArgs)

}  // namespace lamina::ref
