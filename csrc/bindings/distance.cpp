#include "ops/distance.h"

#include <algorithm>

#include "bindings/calls.h"
#include "bindings/common.h"
#include "bindings/numpy_array.h"
#include "bindings/on_processor.h"

LAMINA_ARGS(PdistArgs)
LAMINA_ARGS(RowDistanceArgs)

namespace lamina::bindings {
namespace {

// y of x [n, d]; with grad_y the gradient of x.
void pdist(bool euclidean, int64_t n, int64_t d, const Array& x, const std::optional<Array>& y,
           const std::optional<Array>& grad_y, const Array& result) {
  visit_float(result, [&]<class T>(T) {
    const int64_t pairs = n * (n - 1) / 2;
    ops::PdistArgs<T> args;
    args.n = n, args.d = d, args.euclidean = euclidean;
    args.x = checked_data<T>(x, "x", n * d);
    if (y) args.y = checked_data<T>(*y, "y", pairs);
    if (grad_y) args.grad_y = checked_data<T>(*grad_y, "grad_y", pairs);
    args.result = checked_data<T>(result, "result", grad_y ? n * d : pairs);
    expect(n > 1 && d > 0 && (!grad_y || !euclidean || y), "x", "has no pairs, or y is missing");
    const OnProcessor processor;
    const py::gil_scoped_release release;
    ops::run("pdist", grad_y ? "dgrad" : "fprop", args);
  });
}

using ops::RowDistance;

// Distances of rows, and what they are called with.
struct Rows {
  RowDistance kind = RowDistance::euclidean;
  double p, eps;
  int64_t rows, d;

  Rows(const std::string& name, double p, double eps, int64_t rows, int64_t d)
      : p(p), eps(eps), rows(rows), d(d) {
    const std::string names[] = {"absolute", "euclidean", "power", "largest", "cosine", "shifted"};
    const auto* const found = std::find(std::begin(names), std::end(names), name);
    expect(found != std::end(names) && rows > 0 && d > 0, "a", "has no such distance");
    kind = static_cast<RowDistance>(found - std::begin(names));
  }

  template <class T>
  ops::RowDistanceArgs<T> args(const Array& a, const Array& b, const std::optional<Array>& y,
                               const std::optional<Array>& squares) const {
    ops::RowDistanceArgs<T> args;
    args.kind = kind, args.p = p, args.eps = eps, args.rows = rows, args.d = d;
    args.a = checked_data<T>(a, "a", rows * d), args.b = checked_data<T>(b, "b", rows * d);
    if (y) args.y = checked_data<T>(*y, "y", rows);
    if (squares) args.squares = checked_data<double>(*squares, "squares", 2 * rows);
    expect(y || kind == RowDistance::absolute, "y", "is missing");
    expect(squares || !ops::is_cosine(kind), "squares", "is missing");
    return args;
  }
  void run(const Array& a, const Array& b, const Array& y,
           const std::optional<Array>& squares) const {
    visit_float(y, [&]<class T>(T) {
      run_on_processor("row_distance", "fprop", args<T>(a, b, y, squares), rows * d);
    });
  }
  void differentiate(const Array& a, const Array& b, const std::optional<Array>& y,
                     const std::optional<Array>& squares, const Array& grad_y,
                     const std::optional<Array>& grad_a, const std::optional<Array>& grad_b) const {
    visit_float(grad_y, [&]<class T>(T) {
      auto all = args<T>(a, b, y, squares);
      all.grad_y = checked_data<T>(grad_y, "grad_y", rows);
      if (grad_a) all.grad_a = checked_data<T>(*grad_a, "grad_a", rows * d);
      if (grad_b) all.grad_b = checked_data<T>(*grad_b, "grad_b", rows * d);
      run_on_processor("row_distance", "dgrad", all, rows * d);
    });
  }
};

Call row_distance_call(std::vector<py::ssize_t> shape, const std::string& kind, double p,
                       double eps, int64_t rows, int64_t d) {
  const Rows all(kind, p, eps, rows, d);
  const bool cosine = ops::is_cosine(all.kind);
  Call call;
  call.shape = std::move(shape);
  call.run = [=](const Operands& given, const Array& y, Extras& extras) {
    std::optional<Array> squares;
    if (cosine) squares = extras[0] = new_vector(2 * rows, ElementType::f64);
    all.run(*given[0], *given[1], y, squares);
  };
  call.gradient = [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
    std::optional<Array> y, squares, of_a, of_b;
    if (all.kind != RowDistance::absolute) y = kept.result;
    if (cosine) squares = kept.extras[0];
    if (gradients.wanted(0)) of_a = gradients.make(0);
    if (gradients.wanted(1)) of_b = gradients.make(1);
    all.differentiate(*kept.operands[0], *kept.operands[1], y, squares, grad_y, of_a, of_b);
  };
  call.keeps = operand_bits(0, 1) | (all.kind == RowDistance::absolute ? 0 : kResult);
  return call;
}

}  // namespace

LAMINA_BINDINGS(distance) {
  module.def("pdist", &pdist, py::arg("euclidean"), py::arg("n"), py::arg("d"), py::arg("x"),
             py::arg("y"), py::arg("grad_y"), py::arg("result"));
  module.def(
      "pdist_call",
      [](std::vector<py::ssize_t> shape, bool euclidean, int64_t n, int64_t d) {
        Call call;
        call.shape = std::move(shape);
        call.run = [=](const Operands& given, const Array& y, Extras&) {
          pdist(euclidean, n, d, *given[0], {}, {}, y);
        };
        call.gradient = [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
          std::optional<Array> y;
          if (euclidean) y = kept.result;
          pdist(euclidean, n, d, *kept.operands[0], y, grad_y, gradients.make(0));
        };
        call.keeps = operand_bits(0) | (euclidean ? kResult : 0);
        return call;
      },
      "operands: x [n, d]", py::arg("shape"), py::arg("euclidean"), py::arg("n"), py::arg("d"));
  using Optional = std::optional<Array>;
  module.def(
      "row_distance",
      [](const std::string& kind, double p, double eps, int64_t rows, int64_t d, const Array& a,
         const Array& b, const Array& y,
         const Optional& squares) { Rows(kind, p, eps, rows, d).run(a, b, y, squares); },
      "kind: of csrc/ops/distance.h", py::arg("kind"), py::arg("p"), py::arg("eps"),
      py::arg("rows"), py::arg("d"), py::arg("a"), py::arg("b"), py::arg("y"), py::arg("squares"));
  module.def(
      "row_distance_gradients",
      [](const std::string& kind, double p, double eps, int64_t rows, int64_t d, const Array& a,
         const Array& b, const Optional& y, const Optional& squares, const Array& grad_y,
         const Optional& grad_a, const Optional& grad_b) {
        Rows(kind, p, eps, rows, d).differentiate(a, b, y, squares, grad_y, grad_a, grad_b);
      },
      py::arg("kind"), py::arg("p"), py::arg("eps"), py::arg("rows"), py::arg("d"), py::arg("a"),
      py::arg("b"), py::arg("y"), py::arg("squares"), py::arg("grad_y"), py::arg("grad_a"),
      py::arg("grad_b"));
  module.def("row_distance_call", &row_distance_call, "operands: a, b", py::arg("shape"),
             py::arg("kind"), py::arg("p"), py::arg("eps"), py::arg("rows"), py::arg("d"));
}

}  // namespace lamina::bindings
