#include "ops/loss.h"

#include <algorithm>
#include <atomic>

#include "bindings/calls.h"
#include "bindings/common.h"
#include "bindings/numpy_array.h"
#include "bindings/on_processor.h"
#include "core/threads.h"
#include "ops/ctc.h"

LAMINA_ARGS(LossArgs)
LAMINA_ARGS(CtcArgs)

namespace lamina::bindings {
namespace {

using ops::PointwiseLoss;

// A loss and its reduction: of `size` elements, over `divisor` if reduced.
struct Pointwise {
  PointwiseLoss kind = PointwiseLoss::absolute;
  double a, b;
  bool reduced;
  double divisor;

  Pointwise(const std::string& name, double a, double b, const std::string& reduction, int64_t size)
      : a(a), b(b), reduced(reduction != "none") {
    size_t i = 0;
    while (i < std::size(ops::kPointwiseLossNames) && name != ops::kPointwiseLossNames[i]) ++i;
    if (i == std::size(ops::kPointwiseLossNames))
      throw std::logic_error("internal: unknown loss " + name);
    kind = static_cast<PointwiseLoss>(i);
    divisor = reduction == "mean" ? static_cast<double>(size) : 1;
  }
  // The loss, or with grad_y the gradient of x or of t.
  void run(const Array& x, const Array& t, const Array* grad_y, bool of_target,
           const Array& result) const {
    visit_float(x, [&]<class T>(T) {
      ops::LossArgs<T> args;
      args.kind = kind, args.reduced = reduced, args.of_target = of_target;
      args.a = static_cast<ops::Scalar<T>>(a), args.b = static_cast<ops::Scalar<T>>(b);
      args.divisor = divisor, args.size = x.size();
      args.x = checked_data<T>(x, "x", args.size), args.t = checked_data<T>(t, "t", args.size);
      const int64_t losses = reduced ? 1 : args.size;
      if (grad_y) args.grad_y = checked_data<T>(*grad_y, "grad_y", losses);
      args.result = checked_data<T>(result, "result", grad_y ? args.size : losses);
      run_on_processor("loss", grad_y ? "dgrad" : "fprop", args, args.size);
    });
  }
};

template <class T, class Wrong>
bool holds_any(const Array& array, const Wrong& wrong) {
  constexpr int64_t kGrain = 65536;
  const int64_t size = array.size();
  const T* const values = checked_data<T>(array, "array", size);
  std::atomic<bool> any{false};
  parallel_ranges(size, kGrain, [&](int64_t begin, int64_t end) {
    int found = 0;
    for (int64_t i = begin; i < end; ++i) found |= wrong(values[i]);
    if (found) any = true;
  });
  return any;
}

// Whether all elements are 1 or -1.
bool holds_signs(const Array& t) {
  bool all = false;
  visit_float(
      t, [&]<class T>(T) { all = !holds_any<T>(t, [](T v) { return (v != 1) & (v != -1); }); });
  return all;
}

// Whether no element lies outside of 0 to 1.
bool holds_probabilities(const Array& x) {
  bool all = false;
  visit_float(x,
              [&]<class T>(T) { all = !holds_any<T>(x, [](T v) { return (v < 0) | (v > 1); }); });
  return all;
}

// Whether the operands are what Python lets through.
bool are_legal(PointwiseLoss kind, const Array& x, const Array& t) {
  switch (kind) {
    case PointwiseLoss::soft_margin:
    case PointwiseLoss::ranking:
      return holds_signs(t);
    case PointwiseLoss::probability:
      return holds_probabilities(x);
    default:
      return true;
  }
}

Call loss_call(std::vector<py::ssize_t> shape, const std::string& kind, double a, double b,
               const std::string& reduction, int64_t size) {
  const Pointwise loss(kind, a, b, reduction, size);
  Call call;
  call.shape = std::move(shape);
  call.run = [loss](const Operands& given, const Array& y, Extras&) {
    if (!are_legal(loss.kind, *given[0], *given[1]))
      throw std::invalid_argument("illegal operands");
    loss.run(*given[0], *given[1], nullptr, false, y);
  };
  call.gradient = [loss](const Kept& kept, const Array& grad_y, Gradients& gradients) {
    const Array &x = *kept.operands[0], &t = *kept.operands[1];
    const bool over = !loss.reduced && !(gradients.wanted(0) && gradients.wanted(1));
    for (int i : {0, 1})
      if (gradients.wanted(i))
        loss.run(x, t, &grad_y, i == 1, over ? gradients.make_over(i) : gradients.make(i));
  };
  call.keeps = operand_bits(0, 1);
  return call;
}

// The pairs of a row's labels, which are those before the first negative one, and its other
// classes.
template <class T>
class LabelPairs {
 public:
  explicit LabelPairs(int64_t c) : is_label_(size_t(c)), others_(size_t(c)), place_(size_t(c)) {}

  void read(const T* x, const int64_t* target, int64_t c) {
    std::fill(is_label_.begin(), is_label_.end(), false);
    for (int64_t j = 0; j < c; ++j)
      if (target[j] < -1 || target[j] >= c)
        throw std::invalid_argument("multilabel_margin_loss: target " + std::to_string(target[j]) +
                                    " is no class");
    for (labels_ = 0; labels_ < c && target[labels_] >= 0; ++labels_)
      is_label_[size_t(target[labels_])] = true;
    count_ = 0;
    for (int64_t i = 0; i < c; ++i)
      if (!is_label_[size_t(i)]) others_[count_] = x[i], place_[count_++] = i;
  }
  int64_t labels() const { return labels_; }
  size_t others() const { return count_; }
  T other(size_t i) const { return others_[i]; }
  int64_t place(size_t i) const { return place_[i]; }

 private:
  std::vector<char> is_label_;
  std::vector<T> others_;
  std::vector<int64_t> place_;
  int64_t labels_ = 0;
  size_t count_ = 0;
};

// Sums over labels j and other classes i of max(0, 1 - x[j] + x[i]) / c of x [n][c], reduced, or
// with grad_y the gradient of x.
void multilabel_margin(const Array& x, const Array& target, const std::optional<Array>& grad_y,
                       const Array& result, int64_t c, const std::string& reduction) {
  visit_float(x, [&]<class T>(T) {
    const int64_t n = x.size() / c, rows = std::max<int64_t>(1, 4096 / c);
    const bool reduced = reduction != "none";
    const double divisor = reduction == "mean" ? static_cast<double>(n) : 1;
    const T* const values = checked_data<T>(x, "x", n * c);
    const int64_t* const targets = checked_data<int64_t>(target, "target", n * c);
    const T* const grads = grad_y ? checked_data<T>(*grad_y, "grad_y", reduced ? 1 : n) : nullptr;
    T* const out = checked_data<T>(result, "result", grad_y ? n * c : reduced ? 1 : n);
    std::vector<T> losses(grad_y ? 0 : size_t(n));
    parallel_ranges(n, rows, [&](int64_t begin, int64_t end) {
      LabelPairs<T> pairs(c);
      std::vector<double> sums(size_t(c), 0);
      std::vector<int> hits(size_t(c), 0);
      for (int64_t row = begin; row < end; ++row) {
        const T* const line = values + row * c;
        const int64_t* const labels = targets + row * c;
        pairs.read(line, labels, c);
        if (!grads) {
          std::fill_n(sums.begin(), pairs.others(), 0.0);
          for (int64_t j = 0; j < pairs.labels(); ++j) {
            const T margin = 1 - line[labels[j]];
            for (size_t i = 0; i < pairs.others(); ++i) {
              const T z = margin + pairs.other(i);
              sums[i] += z <= 0 ? T(0) : z;
            }
          }
          double sum = 0;
          for (size_t i = 0; i < pairs.others(); ++i) sum += sums[i];
          losses[size_t(row)] = static_cast<T>(sum) / T(c);
          continue;
        }
        const T g = grads[reduced ? 0 : row] / T(divisor) / T(c);
        T* const grad_x = out + row * c;
        std::fill_n(grad_x, c, T(0));
        std::fill_n(hits.begin(), pairs.others(), 0);
        for (int64_t j = 0; j < pairs.labels(); ++j) {
          const T margin = 1 - line[labels[j]];
          int all = 0;
          for (size_t i = 0; i < pairs.others(); ++i) {
            const int hit = margin + pairs.other(i) <= 0 ? 0 : 1;
            hits[i] += hit, all += hit;
          }
          if (all > 0) grad_x[labels[j]] -= g * T(all);
        }
        for (size_t i = 0; i < pairs.others(); ++i)
          if (hits[i] > 0) grad_x[pairs.place(i)] = g * T(hits[i]);
      }
    });
    if (grads) return;
    if (!reduced) return void(std::copy(losses.begin(), losses.end(), out));
    double sum = 0;
    for (const T loss : losses) sum += loss;
    *out = static_cast<T>(sum / divisor);
  });
}

Call multilabel_margin_call(std::vector<py::ssize_t> shape, int64_t c,
                            const std::string& reduction) {
  return {std::move(shape),
          [=](const Operands& given, const Array& y, Extras&) {
            multilabel_margin(*given[0], *given[1], {}, y, c, reduction);
          },
          [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
            multilabel_margin(*kept.operands[0], *kept.operands[1], grad_y, gradients.make(0), c,
                              reduction);
          },
          operand_bits(0, 1),
          {},
          operand_bits(0)};
}

// The losses [n] of log_p [steps][n][c], or with grad_y the gradient. Python has checked labels and
// lengths.
void ctc(const Array& log_p, const Array& labels, const Array& ends, const Array& lengths,
         int64_t c, int64_t blank, const std::optional<Array>& grad_y, const Array& result) {
  visit_float(log_p, [&]<class T>(T) {
    ops::CtcArgs<T> args;
    args.n = lengths.size(), args.c = c, args.blank = blank;
    if (args.n * c > 0) args.steps = log_p.size() / (args.n * c);
    const int64_t size = args.steps * args.n * c;
    args.log_p = checked_data<T>(log_p, "log_p", size);
    args.labels = checked_data<int64_t>(labels, "labels", labels.size());
    args.ends = checked_data<int64_t>(ends, "ends", args.n);
    args.lengths = checked_data<int64_t>(lengths, "lengths", args.n);
    if (grad_y) args.grad_y = checked_data<T>(*grad_y, "grad_y", args.n);
    args.result = checked_data<T>(result, "result", grad_y ? size : args.n);
    run_on_processor("ctc", grad_y ? "dgrad" : "fprop", args, size);
  });
}

}  // namespace

LAMINA_BINDINGS(loss) {
  module.def(
      "loss",
      [](const std::string& kind, double a, double b, const std::string& reduction, const Array& x,
         const Array& t, const std::optional<Array>& grad_y, bool of_target, const Array& result) {
        Pointwise(kind, a, b, reduction, x.size())
            .run(x, t, grad_y ? &*grad_y : nullptr, of_target, result);
      },
      "The loss, or with grad_y the gradient of x or of t", py::arg("kind"), py::arg("a"),
      py::arg("b"), py::arg("reduction"), py::arg("x"), py::arg("t"), py::arg("grad_y"),
      py::arg("of_target"), py::arg("result"));
  module.def("loss_call", &loss_call, "operands: x, t", py::arg("shape"), py::arg("kind"),
             py::arg("a"), py::arg("b"), py::arg("reduction"), py::arg("size"));
  module.def("multilabel_margin", &multilabel_margin, "The loss or, with grad_y, the gradient",
             py::arg("x"), py::arg("target"), py::arg("grad_y"), py::arg("result"), py::arg("c"),
             py::arg("reduction"));
  module.def("multilabel_margin_call", &multilabel_margin_call, "operands: x, target",
             py::arg("shape"), py::arg("c"), py::arg("reduction"));
  module.def("ctc", &ctc, "The losses or, with grad_y, the gradient", py::arg("log_p"),
             py::arg("labels"), py::arg("ends"), py::arg("lengths"), py::arg("c"), py::arg("blank"),
             py::arg("grad_y"), py::arg("result"));
  module.def("holds_signs", &holds_signs, "Whether all elements are 1 or -1", py::arg("t"));
}

}  // namespace lamina::bindings
