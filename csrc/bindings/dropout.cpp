#include "ops/dropout.h"

#include "bindings/common.h"

LAMINA_ARGS(DropoutArgs)

namespace lamina::bindings {

LAMINA_BINDINGS(dropout) {
  module.def(
      "dropout",
      [](const Array& x, const Array& result, int64_t rows, int64_t inner, uint64_t seed,
         uint64_t offset, int64_t threshold, double scale, double shift, double dropped) {
        visit_dtype(x, [&]<class T>(T) {
          const ops::DropoutArgs<T> args{rows,
                                         inner,
                                         seed,
                                         offset,
                                         threshold,
                                         static_cast<ops::Scalar<T>>(scale),
                                         static_cast<ops::Scalar<T>>(shift),
                                         static_cast<ops::Scalar<T>>(dropped),
                                         input<T>(x, "x", rows * inner),
                                         output<T>(result, "result", rows * inner)};
          py::gil_scoped_release release;
          ops::run("dropout", "fprop", args);
        });
      },
      py::arg("x"), py::arg("result"), py::arg("rows"), py::arg("inner"), py::arg("seed"),
      py::arg("offset"), py::arg("threshold"), py::arg("scale"), py::arg("shift"),
      py::arg("dropped"));
}

}  // namespace lamina::bindings
