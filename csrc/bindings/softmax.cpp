#include "ops/softmax.h"

#include "bindings/calls.h"
#include "bindings/common.h"
#include "bindings/numpy_array.h"

LAMINA_ARGS(SoftmaxArgs)
LAMINA_ARGS(CrossEntropyArgs)

namespace lamina::bindings {
namespace {

void softmax(int64_t outer, int64_t axis, int64_t inner, bool log, const Array& source,
             const std::optional<Array>& grad_y, const Array& result) {
  visit_dtype(result, [&]<class T>(T) {
    const int64_t size = outer * axis * inner;
    ops::SoftmaxArgs<T> args;
    args.outer = outer, args.axis = axis, args.inner = inner, args.log = log;
    (grad_y ? args.y : args.x) = input<T>(source, "source", size);
    args.grad_y = optional_input<T>(grad_y, "grad_y", size);
    args.result = output<T>(result, "result", size);
    py::gil_scoped_release release;
    ops::run("softmax", grad_y ? "dgrad" : "fprop", args);
  });
}

// bad [1], -1 before, becomes the first position with a target outside the classes, if there is
// one.
void cross_entropy(const Array& x, const Array& target, const std::optional<Array>& weight,
                   const std::optional<Array>& grad_loss, const Array& result, int64_t n, int64_t c,
                   int64_t inner, int64_t ignore_index, double label_smoothing, const Array& bad) {
  visit_dtype(result, [&]<class T>(T) {
    ops::CrossEntropyArgs<T> args;
    args.n = n, args.c = c, args.inner = inner, args.ignore_index = ignore_index;
    args.label_smoothing = static_cast<ops::Scalar<T>>(label_smoothing);
    args.x = input<T>(x, "x", n * c * inner);
    args.target = input<int64_t>(target, "target", n * inner);
    args.weight = optional_input<T>(weight, "weight", c);
    args.grad_loss = optional_input<T>(grad_loss, "grad_loss", n * inner);
    // Left as it is by a bad target; dgrad sees targets that fprop has passed.
    args.result = grad_loss ? output<T>(result, "result", n * c * inner)
                            : in_out<T>(result, "result", n * inner);
    args.bad = in_out<int64_t>(bad, "bad", 1);
    py::gil_scoped_release release;
    ops::run("cross_entropy", grad_loss ? "dgrad" : "fprop", args);
  });
}

// total [] = the sum of the losses; mean: over that of the weights of the targets that count, which
// is what `divisor` [1] becomes. Sums in double, in order.
void reduce_loss(const Array& loss, const Array& target, const std::optional<Array>& weight,
                 int64_t ignore_index, bool mean, const Array& total, const Array& divisor) {
  const auto reduce = [&]<class T>(T) {
    const int64_t size = loss.size(), classes = weight ? weight->size() : 0;
    const T* const losses = checked_data<T>(loss, "loss", size);
    const int64_t* const targets = checked_data<int64_t>(target, "target", size);
    const T* const weights = weight ? checked_data<T>(*weight, "weight", classes) : nullptr;
    double sum = 0, share = 0;
    for (int64_t i = 0; i < size; ++i) {
      sum += losses[i];
      if (targets[i] != ignore_index) share += weights == nullptr ? 1 : weights[targets[i]];
    }
    *checked_data<T>(divisor, "divisor", 1) = static_cast<T>(mean ? share : 1);
    // No target that counts: NaN, as in PyTorch.
    *checked_data<T>(total, "total", 1) = static_cast<T>(mean ? sum / share : sum);
  };
  loss.type() == ElementType::f64 ? reduce(double{}) : reduce(float{});
}

// The gradient of each loss from that of their sum or mean.
Array spread(const Array& grad, const Array& divisor, py::ssize_t size) {
  const Array result = new_vector(size, grad.type());
  const auto fill = [&]<class T>(T) {
    T* const values = checked_data<T>(result, "grad_loss", size);
    const T share = *checked_data<T>(grad, "grad", 1) / *checked_data<T>(divisor, "divisor", 1);
    std::fill(values, values + size, share);
  };
  grad.type() == ElementType::f64 ? fill(double{}) : fill(float{});
  return result;
}

Array no_position() {
  const Array bad = new_vector(1, ElementType::i64);
  *static_cast<int64_t*>(bad.data()) = -1;
  return bad;
}

void refuse_position(const Array& bad) {
  const int64_t position = *static_cast<const int64_t*>(bad.data());
  if (position >= 0)
    throw std::invalid_argument("cross_entropy: target " + std::to_string(position) +
                                " is no class; it was written after forward");
}

Call cross_entropy_call(std::vector<py::ssize_t> shape, int64_t n, int64_t c, int64_t inner,
                        int64_t ignore_index, double label_smoothing,
                        const std::string& reduction) {
  const bool reduced = reduction != "none", mean = reduction == "mean";
  return {std::move(shape),
          [=](const Operands& given, const Array& y, Extras& extras) {
            const Array loss = reduced ? new_vector(n * inner, y.type()) : y, bad = no_position();
            cross_entropy(*given[0], *given[1], given[2], {}, loss, n, c, inner, ignore_index,
                          label_smoothing, bad);
            refuse_position(bad);
            if (!reduced) return;
            extras[0] = new_vector(1, y.type());
            reduce_loss(loss, *given[1], given[2], ignore_index, mean, y, extras[0]);
          },
          [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
            const Array grad = reduced ? spread(grad_y, kept.extras[0], n * inner) : grad_y;
            const Array bad = no_position();
            cross_entropy(*kept.operands[0], *kept.operands[1], kept.operands[2], grad,
                          gradients.make(0), n, c, inner, ignore_index, label_smoothing, bad);
            refuse_position(bad);
          },
          operand_bits(0, 1, 2),
          {},
          operand_bits(0)};
}

}  // namespace

LAMINA_BINDINGS(softmax) {
  module.def("softmax", &softmax, py::arg("outer"), py::arg("axis"), py::arg("inner"),
             py::arg("log"), py::arg("source"), py::arg("grad_y"), py::arg("result"));
  module.def(
      "softmax_call",
      [](std::vector<py::ssize_t> shape, int64_t outer, int64_t axis, int64_t inner, bool log) {
        return Call{std::move(shape),
                    [=](const Operands& given, const Array& y, Extras&) {
                      softmax(outer, axis, inner, log, *given[0], {}, y);
                    },
                    [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
                      softmax(outer, axis, inner, log, kept.result, grad_y, gradients.make(0));
                    },
                    kResult};
      },
      "operands: x", py::arg("shape"), py::arg("outer"), py::arg("axis"), py::arg("inner"),
      py::arg("log"));
  module.def("cross_entropy", &cross_entropy, py::arg("x"), py::arg("target"), py::arg("weight"),
             py::arg("grad_loss"), py::arg("result"), py::arg("n"), py::arg("c"), py::arg("inner"),
             py::arg("ignore_index"), py::arg("label_smoothing"), py::arg("bad"));
  module.def("reduce_loss", &reduce_loss, py::arg("loss"), py::arg("target"), py::arg("weight"),
             py::arg("ignore_index"), py::arg("mean"), py::arg("total"), py::arg("divisor"));
  module.def("cross_entropy_call", &cross_entropy_call, "operands: x, target, weight",
             py::arg("shape"), py::arg("n"), py::arg("c"), py::arg("inner"),
             py::arg("ignore_index"), py::arg("label_smoothing"), py::arg("reduction"));
}

}  // namespace lamina::bindings
