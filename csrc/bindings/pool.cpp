#include "ops/pool.h"

#include <array>

#include "bindings/common.h"

LAMINA_ARGS(PoolArgs)
LAMINA_ARGS(UnpoolArgs)

namespace lamina::bindings {
namespace {

// The tables of one axis; owns references to the arrays that PoolAxis points into.
class Windows {
 public:
  Windows(int64_t in, int64_t step, py::array start, py::array count, py::array divisor,
          py::array first, py::array last)
      : arrays_{start, count, divisor, first, last} {
    axis.in = in, axis.step = step, axis.out = start.size();
    axis.start = input<int64_t>(arrays_[0], "start", axis.out);
    axis.count = input<int64_t>(arrays_[1], "count", axis.out);
    axis.divisor = input<int64_t>(arrays_[2], "divisor", axis.out);
    axis.first = input<int64_t>(arrays_[3], "first", in);
    axis.last = input<int64_t>(arrays_[4], "last", in);
    for (int64_t o = 0; o < axis.out; ++o) {
      const int64_t end = axis.start[o] + (axis.count[o] - 1) * step;
      expect(axis.count[o] <= 0 || (axis.start[o] >= 0 && end < in), "start", "leaves the axis");
    }
    for (int64_t i = 0; i < in; ++i)
      expect(axis.first[i] >= 0 && axis.last[i] <= axis.out, "first", "leaves the output");
  }

  ops::PoolAxis axis;

 private:
  std::array<py::array, 5> arrays_;
};

void pool(const std::string& op, const std::string& pass, int64_t planes, const Windows& depth,
          const Windows& height, const Windows& width, const std::optional<py::array>& x,
          const std::optional<py::array>& grad_y, std::optional<py::array> index,
          py::array result) {
  visit_dtype(result, [&]<class T>(T) {
    ops::PoolArgs<T> args;
    args.planes = planes;
    args.axis[0] = depth.axis, args.axis[1] = height.axis, args.axis[2] = width.axis;
    const int64_t in = planes * args.in_size(), out = planes * args.out_size();
    const bool forward = pass == "fprop";
    expect((forward ? x : grad_y).has_value(), "x", "is missing");
    expect(op != "max_pool" || index.has_value(), "index", "is missing");
    args.x = optional_input<T>(x, "x", in);
    args.grad_y = optional_input<T>(grad_y, "grad_y", out);
    if (index)
      args.index = forward ? output<int64_t>(*index, "index", out)
                           : const_cast<int64_t*>(input<int64_t>(*index, "index", out));
    args.result = output<T>(result, "result", forward ? out : in);
    py::gil_scoped_release release;
    ops::run(op.c_str(), pass.c_str(), args);
  });
}

// Returns the first position whose index is outside the output plane, or -1.
int64_t max_unpool(const std::string& pass, int64_t planes, int64_t in_size, int64_t out_size,
                   const py::array& source, const py::array& index, py::array result) {
  int64_t bad = -1;
  visit_dtype(result, [&]<class T>(T) {
    const int64_t in = planes * in_size, out = planes * out_size;
    ops::UnpoolArgs<T> args{planes,
                            in_size,
                            out_size,
                            input<T>(source, "source", pass == "fprop" ? in : out),
                            input<int64_t>(index, "index", in),
                            output<T>(result, "result", pass == "fprop" ? out : in),
                            &bad};
    py::gil_scoped_release release;
    ops::run("max_unpool", pass.c_str(), args);
  });
  return bad;
}

}  // namespace

LAMINA_BINDINGS(pool) {
  py::class_<Windows>(module, "Windows")
      .def(py::init<int64_t, int64_t, py::array, py::array, py::array, py::array, py::array>(),
           py::arg("in_size"), py::arg("step"), py::arg("start"), py::arg("count"),
           py::arg("divisor"), py::arg("first"), py::arg("last"));
  module.def("pool", &pool, py::arg("op"), py::arg("pass_"), py::arg("planes"), py::arg("depth"),
             py::arg("height"), py::arg("width"), py::arg("x"), py::arg("grad_y"), py::arg("index"),
             py::arg("result"));
  module.def("max_unpool", &max_unpool, py::arg("pass_"), py::arg("planes"), py::arg("in_size"),
             py::arg("out_size"), py::arg("source"), py::arg("index"), py::arg("result"));
}

}  // namespace lamina::bindings
