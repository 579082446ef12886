#include "ops/resample.h"

#include <vector>

#include "bindings/calls.h"
#include "bindings/common.h"
#include "ops/permute.h"

LAMINA_ARGS(ResampleArgs)
LAMINA_ARGS(ResamplePlanesArgs)
LAMINA_ARGS(PermuteArgs)

namespace lamina::bindings {
namespace {

// A checked table from `in` to `out` positions; owns references to its arrays.
class Taps {
 public:
  Taps(int64_t in_size, const Array& begin, const Array& index, const Array& weight)
      : in(in_size),
        out(begin.size() - 1),
        begin_(begin, "begin", out + 1),
        index_(index, "index", begin_.host()[out]),
        weight_(weight, "weight", begin_.host()[out]) {
    const int64_t* first = begin_.host();
    expect(first[0] == 0, "begin", "does not start at 0");
    for (int64_t o = 0; o < out; ++o) expect(first[o] <= first[o + 1], "begin", "decreases");
    for (int64_t t = 0; t < first[out]; ++t)
      expect(index_.host()[t] >= 0 && index_.host()[t] < in, "index", "leaves the axis");
  }

  void resample(int64_t outer, int64_t inner, const Array& x, const Array& result) const {
    visit_dtype(x, [&]<class T>(T) {
      const ops::ResampleArgs<T> args{table(), outer, inner, input<T>(x, "x", outer * in * inner),
                                      output<T>(result, "result", outer * out * inner)};
      py::gil_scoped_release release;
      ops::run("resample", "fprop", args);
    });
  }

  // This table along the last axis but one, `columns` along the last one.
  void resample_planes(const Taps& columns, int64_t outer, const Array& x,
                       const Array& result) const {
    visit_dtype(x, [&]<class T>(T) {
      const ops::ResamplePlanesArgs<T> args{outer, table(), columns.table(),
                                            input<T>(x, "x", outer * in * columns.in),
                                            output<T>(result, "result", outer * out * columns.out)};
      py::gil_scoped_release release;
      ops::run("resample_planes", "fprop", args);
    });
  }

  const int64_t in, out;

 private:
  ops::ResampleTable table() const {
    return {in, out, begin_.data(), index_.data(), weight_.data()};
  }

  Table<int64_t> begin_, index_;
  Table<double> weight_;
};

// result = x [shape] with its axes in the order `axes`.
void permute(const Array& x, const std::vector<int64_t>& shape, const std::vector<int64_t>& axes,
             const Array& result) {
  const int rank = static_cast<int>(shape.size());
  expect(rank <= ops::kPermuteAxes && axes.size() == shape.size(), "x", "has too many axes");
  visit_dtype(x, [&]<class T>(T) {
    std::vector<int64_t> stride(shape.size());
    int64_t elements = 1;
    for (int axis = rank - 1; axis >= 0; --axis) stride[axis] = elements, elements *= shape[axis];
    ops::PermuteArgs<T> args;
    for (int axis = 0; axis < ops::kPermuteAxes; ++axis) {
      const int from = axis - (ops::kPermuteAxes - rank);
      args.size[axis] = from < 0 ? 1 : shape.at(axes[from]);
      args.stride[axis] = from < 0 ? 0 : stride.at(axes[from]);
    }
    args.x = input<T>(x, "x", elements), args.result = output<T>(result, "result", elements);
    py::gil_scoped_release release;
    ops::run("permute", "fprop", args);
  });
}

Call permute_call(std::vector<py::ssize_t> result, const std::vector<int64_t>& shape,
                  const std::vector<int64_t>& axes) {
  std::vector<int64_t> turned(axes.size()), back(axes.size());
  for (size_t axis = 0; axis < axes.size(); ++axis) {
    const auto from = static_cast<size_t>(axes[axis]);
    turned[axis] = shape.at(from), back.at(from) = static_cast<int64_t>(axis);
  }
  return {
      std::move(result),
      [=](const Operands& given, const Array& y, Extras&) { permute(*given[0], shape, axes, y); },
      [=](const Kept&, const Array& grad_y, Gradients& gradients) {
        permute(grad_y, turned, back, gradients.make(0));
      }};
}

}  // namespace

LAMINA_BINDINGS(resample) {
  py::class_<Taps>(module, "Taps")
      .def(py::init<int64_t, const Array&, const Array&, const Array&>(), py::arg("in_size"),
           py::arg("begin"), py::arg("index"), py::arg("weight"))
      .def_readonly("in_size", &Taps::in)
      .def_readonly("out_size", &Taps::out)
      .def("resample", &Taps::resample, py::arg("outer"), py::arg("inner"), py::arg("x"),
           py::arg("result"))
      .def("resample_planes", &Taps::resample_planes, py::arg("columns"), py::arg("outer"),
           py::arg("x"), py::arg("result"));
  module.def("permute", &permute, py::arg("x"), py::arg("shape"), py::arg("axes"),
             py::arg("result"));
  module.def("permute_call", &permute_call, "operands: x, seen as `x_shape`", py::arg("shape"),
             py::arg("x_shape"), py::arg("axes"));
}

}  // namespace lamina::bindings
