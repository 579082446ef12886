#include "ops/rnn.h"

#include "bindings/common.h"

LAMINA_ARGS(LstmCellArgs)
LAMINA_ARGS(GruCellArgs)

namespace lamina::bindings {
namespace {

using Optional = std::optional<Array>;

void lstm_cell_fprop(int64_t n, int64_t hidden, bool coupled, const Array& c,
                     const Optional& peephole, const Array& gates, const Array& new_c,
                     const Array& h) {
  visit_dtype(c, [&]<class T>(T) {
    ops::LstmCellArgs<T> args;
    args.n = n, args.hidden = hidden, args.coupled = coupled;
    args.c = input<T>(c, "c", n * hidden);
    args.peephole = optional_input<T>(peephole, "peephole", (coupled ? 2 : 3) * hidden);
    args.gates = in_out<T>(gates, "gates", n * args.gate_count() * hidden);
    args.new_c = output<T>(new_c, "new_c", n * hidden), args.h = output<T>(h, "h", n * hidden);
    py::gil_scoped_release release;
    ops::run("lstm_cell", "fprop", args);
  });
}

void lstm_cell_dgrad(int64_t n, int64_t hidden, bool coupled, const Array& c,
                     const Optional& peephole, const Array& gates, const Array& new_c,
                     const Array& grad_h, const Array& grad_new_c, const Array& grad_gates,
                     const Array& grad_c, const Optional& grad_peephole) {
  visit_dtype(c, [&]<class T>(T) {
    const int64_t rows = coupled ? 2 : 3;
    ops::LstmCellArgs<T> args;
    args.n = n, args.hidden = hidden, args.coupled = coupled;
    args.c = input<T>(c, "c", n * hidden);
    args.peephole = optional_input<T>(peephole, "peephole", rows * hidden);
    args.gates = const_cast<T*>(input<T>(gates, "gates", n * args.gate_count() * hidden));
    args.new_c = const_cast<T*>(input<T>(new_c, "new_c", n * hidden));
    args.grad_h = input<T>(grad_h, "grad_h", n * hidden);
    args.grad_new_c = input<T>(grad_new_c, "grad_new_c", n * hidden);
    args.grad_gates = output<T>(grad_gates, "grad_gates", n * args.gate_count() * hidden);
    args.grad_c = output<T>(grad_c, "grad_c", n * hidden);
    args.grad_peephole = optional_output<T>(grad_peephole, "grad_peephole", rows * hidden);
    py::gil_scoped_release release;
    ops::run("lstm_cell", "dgrad", args);
  });
}

void gru_cell_fprop(int64_t n, int64_t hidden, const Array& h, const Array& gates, const Array& b,
                    const Array& new_h) {
  visit_dtype(h, [&]<class T>(T) {
    ops::GruCellArgs<T> args;
    args.n = n, args.hidden = hidden;
    args.h = input<T>(h, "h", n * hidden), args.b = input<T>(b, "b", n * 3 * hidden);
    args.gates = in_out<T>(gates, "gates", n * 3 * hidden);
    args.new_h = output<T>(new_h, "new_h", n * hidden);
    py::gil_scoped_release release;
    ops::run("gru_cell", "fprop", args);
  });
}

void gru_cell_dgrad(int64_t n, int64_t hidden, const Array& h, const Array& gates, const Array& b,
                    const Array& grad_new_h, const Array& grad_a, const Array& grad_b,
                    const Array& grad_h) {
  visit_dtype(h, [&]<class T>(T) {
    ops::GruCellArgs<T> args;
    args.n = n, args.hidden = hidden;
    args.h = input<T>(h, "h", n * hidden), args.b = input<T>(b, "b", n * 3 * hidden);
    args.gates = const_cast<T*>(input<T>(gates, "gates", n * 3 * hidden));
    args.grad_new_h = input<T>(grad_new_h, "grad_new_h", n * hidden);
    args.grad_a = output<T>(grad_a, "grad_a", n * 3 * hidden);
    args.grad_b = output<T>(grad_b, "grad_b", n * 3 * hidden);
    args.grad_h = output<T>(grad_h, "grad_h", n * hidden);
    py::gil_scoped_release release;
    ops::run("gru_cell", "dgrad", args);
  });
}

}  // namespace

LAMINA_BINDINGS(rnn) {
  module.def("lstm_cell_fprop", &lstm_cell_fprop, py::arg("n"), py::arg("hidden"),
             py::arg("coupled"), py::arg("c"), py::arg("peephole"), py::arg("gates"),
             py::arg("new_c"), py::arg("h"));
  module.def("lstm_cell_dgrad", &lstm_cell_dgrad, py::arg("n"), py::arg("hidden"),
             py::arg("coupled"), py::arg("c"), py::arg("peephole"), py::arg("gates"),
             py::arg("new_c"), py::arg("grad_h"), py::arg("grad_new_c"), py::arg("grad_gates"),
             py::arg("grad_c"), py::arg("grad_peephole"));
  module.def("gru_cell_fprop", &gru_cell_fprop, py::arg("n"), py::arg("hidden"), py::arg("h"),
             py::arg("gates"), py::arg("b"), py::arg("new_h"));
  module.def("gru_cell_dgrad", &gru_cell_dgrad, py::arg("n"), py::arg("hidden"), py::arg("h"),
             py::arg("gates"), py::arg("b"), py::arg("grad_new_h"), py::arg("grad_a"),
             py::arg("grad_b"), py::arg("grad_h"));
}

}  // namespace lamina::bindings
