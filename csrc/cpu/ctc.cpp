// ctc: the loss of label sequences without an alignment (ops/ctc.h).
//
// Method        the forward variables alpha, and for the gradient the backward variables beta, a
//               row of states at a time: a state's neighbours are the same row one and two
//               elements on, and rows end in elements of log 0. dgrad computes alpha anew.
// Partitioning  a task a sequence.
// Numerics      logarithms, in double.
// Floor         arithmetic: two exponentials and a logarithm a state and step.
#include "ops/ctc.h"

#include "cpu/reduce.h"
#include "cpu/simd_math.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::CtcArgs;

static constexpr double kLogZero = -__builtin_inf();

// log(e^a + e^b + e^c)
LAMINA_INLINE Wide joined(Wide a, Wide b, Wide c) {
  const Wide high = a > b ? a : b, low = a > b ? b : a;
  const Wide top = high > c ? high : c, middle = high > c ? c : high;
  const Wide from = top == kLogZero ? Wide{} : top;
  return top + log<double>(1 + exp_nonpositive<double>(low - from) +
                           exp_nonpositive<double>(middle - from));
}

// The states of a sequence as rows of whole vectors.
template <class T>
class Rows {
 public:
  static constexpr int64_t kBorder = kWide < 2 ? 2 : kWide;  // of log 0, before and behind a row

  Rows(const CtcArgs<T>& args, int64_t i)
      : states_(args, i),
        steps_(args.lengths[i]),
        width_(ceil_div(states_.count, kWide) * kWide),
        log_p_(args.log_p + i * args.c),
        step_(args.n * args.c),
        label_(states_.count),
        skips_(stride()),
        emitted_(stride()) {
    fill(skips_.get(), kLogZero), fill(emitted_.get(), kLogZero);
    for (int64_t s = 0; s < states_.count; ++s) {
      label_[s] = states_.label(s);
      if (states_.skips(s)) skips_[kBorder + s] = 0;
    }
  }

  int64_t steps() const { return steps_; }
  int64_t states() const { return states_.count; }
  int64_t width() const { return width_; }
  int64_t stride() const { return kBorder + width_ + kBorder; }
  int64_t label(int64_t state) const { return label_[state]; }
  void fill(double* row, double value) const {
    for (int64_t s = 0; s < stride(); ++s) row[s] = value;
  }

  // log p of the states' labels at a step.
  const double* emit(int64_t step) const {
    double* const row = emitted_.get() + kBorder;
    for (int64_t s = 0; s < states_.count; ++s)
      row[s] = static_cast<double>(log_p_[step * step_ + label_[s]]);
    return row;
  }
  // log p(the steps so far end in the state), with the borders; `last` is that of the step before.
  void advance(int64_t step, const double* last, double* row) const {
    const double* const emitted = emit(step);
    fill(row, kLogZero);
    row += kBorder;
    if (step == 0) {
      for (int64_t s = 0; s < min_of<int64_t>(2, states_.count); ++s) row[s] = emitted[s];
      return;
    }
    last += kBorder;
    const double* const skips = skips_.get() + kBorder;
    for (int64_t s = 0; s < width_; s += kWide) {
      const Wide skipped = load(last + s - 2) + load(skips + s);
      store(row + s, joined(load(last + s), load(last + s - 1), skipped) + load(emitted + s));
    }
  }
  double loss(const double* last) const {
    if (steps_ == 0) return states_.count > 1 ? __builtin_inf() : 0;
    last += kBorder + states_.count - 1;
    const Wide zero = broadcast(kLogZero);
    return -joined(broadcast(last[0]), broadcast(last[-1]), zero)[0];
  }
  // log p(the steps after this one | the state) from `next`, that of the step after this plus what
  // its states emit, with the borders.
  void retreat(const double* next, double* row) const {
    next += kBorder, row += kBorder;
    const double* const skips = skips_.get() + kBorder;
    for (int64_t s = 0; s < width_; s += kWide) {
      const Wide skipped = load(next + s + 2) + load(skips + s + 2);
      store(row + s, joined(load(next + s), load(next + s + 1), skipped));
    }
  }

 private:
  ops::CtcStates<T> states_;
  int64_t steps_, width_;
  const T* log_p_;
  int64_t step_;
  Scratch<int64_t> label_;
  Scratch<double> skips_, emitted_;
};

template <class T>
void ctc_fprop_sequences(const CtcArgs<T>& args) {
  parallel_for(args.n, [&](int64_t i) {
    const Rows<T> rows(args, i);
    const Scratch<double> alpha(2 * rows.stride());
    const auto row = [&](int64_t step) { return alpha.get() + (step & 1) * rows.stride(); };
    for (int64_t step = 0; step < rows.steps(); ++step)
      rows.advance(step, row(step - 1), row(step));
    args.result[i] = static_cast<T>(rows.loss(row(rows.steps() - 1)));
  });
}

template <class T>
static void differentiate(const CtcArgs<T>& args, int64_t i) {
  const Rows<T> rows(args, i);
  const int64_t steps = rows.steps(), stride = rows.stride(), border = Rows<T>::kBorder;
  const Scratch<double> alpha(max_of<int64_t>(steps, 1) * stride);
  const auto before = [&](int64_t step) { return alpha.get() + step * stride; };
  for (int64_t step = 0; step < steps; ++step) rows.advance(step, before(step - 1), before(step));
  const double loss = rows.loss(before(steps - 1));
  const Scratch<double> beta(stride), next(stride), sums(args.c);
  rows.fill(beta.get(), kLogZero), rows.fill(next.get(), kLogZero);
  for (int64_t j = 0; j < args.c; ++j) sums[j] = 0;
  for (int64_t s = max_of<int64_t>(rows.states() - 2, 0); s < rows.states(); ++s)
    beta[border + s] = 0;
  for (int64_t step = steps - 1; step >= 0; --step) {
    if (step < steps - 1) rows.retreat(next.get(), beta.get());
    const double* const emitted = rows.emit(step);
    double* const given = before(step) + border;  // becomes p(state | labels)
    for (int64_t s = 0; s < rows.width(); s += kWide) {
      const Wide after = load(beta.get() + border + s);
      store(next.get() + border + s, after + load(emitted + s));
      store(given + s, exp<double>(load(given + s) + after + loss));
    }
    T* const gradient = args.result + (step * args.n + i) * args.c;
    for (int64_t s = 0; s < rows.states(); ++s) sums[rows.label(s)] -= given[s];
    for (int64_t s = 0; s < rows.states(); ++s)
      gradient[rows.label(s)] = static_cast<T>(sums[rows.label(s)]) * args.grad_y[i];
    for (int64_t s = 0; s < rows.states(); ++s) sums[rows.label(s)] = 0;
  }
}

template <class T>
void ctc_dgrad_sequences(const CtcArgs<T>& args) {
  parallel_for(args.n, [&](int64_t i) {
    for (int64_t step = 0; step < args.steps; ++step) {
      T* const gradient = args.result + (step * args.n + i) * args.c;
      for (int64_t j = 0; j < args.c; ++j) gradient[j] = 0;
    }
    if (!(args.grad_y[i] == 0)) differentiate(args, i);
  });
}

LAMINA_INSTANTIATE(ctc_fprop_sequences, CtcArgs)
LAMINA_INSTANTIATE(ctc_dgrad_sequences, CtcArgs)

LAMINA_CPU_NAMESPACE_END
