#include "ops/pool.h"

#include "bindings/calls.h"
#include "bindings/common.h"
#include "bindings/numpy_array.h"

LAMINA_ARGS(PoolArgs)
LAMINA_ARGS(UnpoolArgs)

namespace lamina::bindings {
namespace {

// The tables of one axis; owns references to the arrays that PoolAxis points into.
class Windows {
 public:
  Windows(int64_t in, int64_t step, const Array& start, const Array& count, const Array& divisor,
          const Array& first, const Array& last)
      : in_(in),
        step_(step),
        out_(start.size()),
        start_(start, "start", out_),
        count_(count, "count", out_),
        divisor_(divisor, "divisor", out_),
        first_(first, "first", in),
        last_(last, "last", in) {
    for (int64_t o = 0; o < out_; ++o) {
      const int64_t begin = start_.host()[o], windows = count_.host()[o];
      const bool inside = begin >= 0 && begin + (windows - 1) * step < in;
      expect(windows <= 0 || inside, "start", "leaves the axis");
    }
    for (int64_t i = 0; i < in; ++i)
      expect(first_.host()[i] >= 0 && last_.host()[i] <= out_, "first", "leaves the output");
  }

  // For the kernels of the current call.
  ops::PoolAxis axis() const {
    return {in_,           out_,        step_, start_.data(), count_.data(), divisor_.data(),
            first_.data(), last_.data()};
  }

 private:
  int64_t in_, step_, out_;
  Table<int64_t> start_, count_, divisor_, first_, last_;
};

void pool(const std::string& op, const std::string& pass, int64_t planes, const Windows& depth,
          const Windows& height, const Windows& width, const std::optional<Array>& x,
          const std::optional<Array>& grad_y, const std::optional<Array>& index,
          const Array& result) {
  visit_dtype(result, [&]<class T>(T) {
    ops::PoolArgs<T> args;
    args.planes = planes;
    args.axis[0] = depth.axis(), args.axis[1] = height.axis(), args.axis[2] = width.axis();
    const int64_t in = planes * args.in_size(), out = planes * args.out_size();
    const bool forward = pass == "fprop";
    expect((forward ? x : grad_y).has_value(), "x", "is missing");
    expect(forward || op != "max_pool" || index.has_value(), "index", "is missing");
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

// bad [1]: the first position whose index is outside the output plane, or -1.
void max_unpool(const std::string& pass, int64_t planes, int64_t in_size, int64_t out_size,
                const Array& source, const Array& index, const Array& result, const Array& bad) {
  visit_dtype(result, [&]<class T>(T) {
    const int64_t in = planes * in_size, out = planes * out_size;
    // in_out: an index that is bad leaves the result as it was.
    ops::UnpoolArgs<T> args{planes,
                            in_size,
                            out_size,
                            input<T>(source, "source", pass == "fprop" ? in : out),
                            input<int64_t>(index, "index", in),
                            in_out<T>(result, "result", pass == "fprop" ? out : in),
                            output<int64_t>(bad, "bad", 1)};
    py::gil_scoped_release release;
    ops::run("max_unpool", pass.c_str(), args);
  });
}

}  // namespace

LAMINA_BINDINGS(pool) {
  py::class_<Windows, std::shared_ptr<Windows>>(module, "Windows")
      .def(py::init<int64_t, int64_t, const Array&, const Array&, const Array&, const Array&,
                    const Array&>(),
           py::arg("in_size"), py::arg("step"), py::arg("start"), py::arg("count"),
           py::arg("divisor"), py::arg("first"), py::arg("last"));
  module.def("pool", &pool, py::arg("op"), py::arg("pass_"), py::arg("planes"), py::arg("depth"),
             py::arg("height"), py::arg("width"), py::arg("x"), py::arg("grad_y"), py::arg("index"),
             py::arg("result"));
  module.def(
      "pool_call",
      [](std::vector<py::ssize_t> shape, const std::string& op, int64_t planes,
         const std::shared_ptr<Windows>& depth, const std::shared_ptr<Windows>& height,
         const std::shared_ptr<Windows>& width) {
        const bool max = op == "max_pool";
        return Call{std::move(shape),
                    [=](const Operands& given, const Array& y, Extras& extras) {
                      std::optional<Array> index;  // the kernel notes where each maximum was
                      if (max && extras.wanted) {
                        extras[0] = new_vector(y.size(), ElementType::i64);
                        index = extras[0];
                      }
                      pool(op, "fprop", planes, *depth, *height, *width, given[0], {}, index, y);
                    },
                    [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
                      std::optional<Array> index;
                      if (max) index = kept.extras[0];
                      pool(op, "dgrad", planes, *depth, *height, *width, {}, grad_y, index,
                           gradients.make(0));
                    }};
      },
      "operands: x", py::arg("shape"), py::arg("op"), py::arg("planes"), py::arg("depth"),
      py::arg("height"), py::arg("width"));
  module.def("max_unpool", &max_unpool, py::arg("pass_"), py::arg("planes"), py::arg("in_size"),
             py::arg("out_size"), py::arg("source"), py::arg("index"), py::arg("result"),
             py::arg("bad"));
}

}  // namespace lamina::bindings
