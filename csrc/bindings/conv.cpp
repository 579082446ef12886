#include "ops/conv.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "bindings/activation.h"
#include "bindings/calls.h"
#include "bindings/conv_autotune.h"
#include "bindings/filter_store.h"
#include "ops/conv_plan.h"
#include "ops/epilogue_call.h"

LAMINA_ARGS(ConvArgs)

namespace lamina::bindings {
namespace {

using ops::ConvArgs;
using ops::ConvPass;
using ops::ConvShape;
using Triple = std::array<int64_t, 3>;
using Operand = std::optional<Array>;

// Along an axis where the filter stands still the results are the input's positions.
bool still(const ConvShape& s, int axis) {
  return s.kernel[axis] == 1 && s.stride[axis] == 1 && s.pad[axis] == 0 &&
         s.out[axis] == s.in[axis];
}
// A volume as an image where the filter stands still along two neighbouring axes, which are one
// then: rows of planes for filters of one column, of (time, 1, 1), have no short ends. Of a filter
// of one tap rows stay as they are if they are long: kernels share out rows. Nor is it worth while
// where the filter strides over planes: those of the gradient's phases do well.
ConvShape in_fewer_axes(ConvShape s) {
  constexpr int64_t kLong = 64;
  const bool rows_stay = still(s, 0) && still(s, 1) && s.in[2] >= kLong;
  const int axis = still(s, 2) && !rows_stay ? 1 : 0;
  if (s.in[0] == 1 || s.stride[0] > 1 || !still(s, axis) || !still(s, axis + 1)) return s;
  s.in[axis + 1] *= s.in[axis], s.out[axis + 1] *= s.out[axis];
  for (int64_t* const of : {s.in, s.kernel, s.out, s.stride, s.pad, s.dilation}) {
    if (axis > 0) of[1] = of[0];
    of[0] = of == s.pad ? 0 : 1;
  }
  s.dilation[axis + 1] = 1;
  return s;
}

ConvShape make_shape(int64_t n, int64_t c, int64_t k, int64_t groups, const Triple& in,
                     const Triple& kernel, const Triple& out, const Triple& stride,
                     const Triple& pad, const Triple& dilation) {
  ConvShape shape;
  shape.n = n, shape.c = c, shape.k = k, shape.groups = groups;
  for (int axis = 0; axis < 3; ++axis) {
    shape.in[axis] = in[axis], shape.kernel[axis] = kernel[axis], shape.out[axis] = out[axis];
    shape.stride[axis] = stride[axis], shape.pad[axis] = pad[axis];
    shape.dilation[axis] = dilation[axis];
  }
  return in_fewer_axes(shape);
}

ConvPass pass_of(const std::string& name) {
  for (ConvPass pass : {ConvPass::fprop, ConvPass::dgrad, ConvPass::wgrad, ConvPass::bgrad})
    if (name == ops::pass_name(pass)) return pass;
  throw std::logic_error("internal: unknown convolution pass " + name);
}

// Called with (question, [(algorithm, seconds), ...]) after a measurement. Never destroyed: at exit
// the interpreter may be gone first.
py::object& measured_callback() {
  static py::object& callback = *new py::object(py::none());
  return callback;
}

template <class T>
void autotune(const std::string& op, ConvPass pass, const ConvArgs<T>& args,
              int64_t workspace_limit, int64_t result_elems) {
  ops::ConvTimes times;
  {
    py::gil_scoped_release release;
    times = measure_conv(op, pass, args, workspace_limit, result_elems);
  }
  const std::string question = ops::conv_question(pass, args.shape, workspace_limit, sizeof(T));
  ops::note_measured_conv(question, times);
  if (!measured_callback().is_none()) measured_callback()(question, times);
}

template <class T>
void run_conv(const std::string& op, ConvPass pass, ConvArgs<T> args, const std::string& algo,
              int64_t workspace_limit, int64_t result_elems, FilterStore* filters) {
  const auto choose = [&]() -> const ops::Kernel& {
    return ops::choose_conv(op.c_str(), pass, args.shape, algo, workspace_limit, sizeof(T));
  };
  const ops::Kernel* kernel = &choose();
  if (wants_measuring(algo)) {
    autotune(op, pass, args, workspace_limit, result_elems);
    kernel = &choose();
  }
  ops::PackedFilters<T> packed;
  if (filters != nullptr) packed = filters->find<T>(conv_packed_layout(*kernel, pass, args.shape));
  if (packed.data != nullptr) args.packed = &packed;
  const ops::CallWorkspace workspace(*kernel, ops::last_plan().workspace_bytes);
  args.workspace = static_cast<T*>(workspace.get());
  {
    py::gil_scoped_release release;
    ops::call_with_epilogue(*kernel, args, args.result, result_elems);
  }
  if (filters != nullptr) filters->keep(packed);
}

void conv(const std::string& op, const std::string& pass_text, const ConvShape& shape,
          const Operand& x, const Operand& weight, const Operand& bias, const Operand& grad_y,
          const Array& result, const std::string& algo, int64_t workspace_limit,
          const ActivationName& activation, const Operand& residual) {
  const ConvPass pass = pass_of(pass_text);
  visit_dtype(result, [&]<class T>(T) {
    ConvArgs<T> args;
    args.shape = shape;
    const int64_t sizes[] = {shape.y_elems(), shape.x_elems(), shape.weight_elems(), shape.k};
    const int64_t result_elems = sizes[static_cast<int>(pass)];
    args.result = output<T>(result, "result", result_elems);
    args.x = optional_input<T>(x, "x", shape.x_elems());
    args.weight = optional_input<T>(weight, "weight", shape.weight_elems());
    args.bias = optional_input<T>(bias, "bias", pass == ConvPass::dgrad ? shape.c : shape.k);
    args.grad_y = optional_input<T>(grad_y, "grad_y", shape.y_elems());
    args.epilogue = epilogue<T>(activation, residual, result_elems);
    args.precision = ops::call_precision(sizeof(T));
    FilterStore* const filters = weight && workspace_limit < 0 ? weight->filters() : nullptr;
    run_conv(op, pass, args, algo, workspace_limit, result_elems, filters);
  });
}

// The forward algorithm where it can run this pass too, else "auto".
std::string gradient_algorithm(const std::string& op, ConvPass pass, const ConvShape& shape,
                               const std::string& algo, int64_t workspace_limit,
                               size_t element_bytes) {
  if (algo == "auto" || pass == ConvPass::bgrad) return "auto";
  try {
    ops::choose_conv(op.c_str(), pass, shape, algo, workspace_limit,
                     static_cast<int64_t>(element_bytes));
  } catch (const std::invalid_argument&) {
    return "auto";
  }
  return algo;
}

// Of any convolution whose result is this one's input: all that the gradient of a transposed
// convolution's bias depends on.
ConvShape resulting_in_input(const ConvShape& shape) {
  ConvShape other;
  other.n = shape.n, other.k = shape.c;
  std::copy_n(shape.in, 3, other.out);
  return other;
}

// A convolution, or the transpose of that of `shape`: its input gradient with the roles renamed.
Call conv_call(std::vector<py::ssize_t> y_shape, const std::string& op, bool transposed,
               const ConvShape& shape, const std::string& algo, int64_t workspace_limit,
               const ActivationName& activation, bool y_tells) {
  Call call{std::move(y_shape), [=](const Operands& given, const Array& y, Extras&) {
              conv(op, transposed ? "dgrad" : "fprop", shape, transposed ? Operand{} : given[0],
                   given[1], given[2], transposed ? given[0] : Operand{}, y, algo, workspace_limit,
                   activation, given[3]);
            }};
  call.packs = 1;
  if (!y_tells) return call;
  call.keeps = operand_bits(0, 1) | (activation == kNoActivation ? 0 : kResult);
  call.gradient = [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
    const Array grad = gradient_of_argument(activation, kept.result, grad_y);
    const auto pass = [&](ConvPass pass, const ConvShape& s, const Operand& x,
                          const Operand& weight, const Operand& y, int operand) {
      if (!gradients.wanted(operand)) return;
      const std::string chosen =
          gradient_algorithm(op, pass, s, algo, workspace_limit, grad.bytes() / grad.size());
      // Kernels of the CPU round their sums before they add, as an addition afterwards would.
      const bool adds = operand == 0 && !grad_y.on_gpu() &&
                        std::strcmp(ops::find_kernel("conv", "dgrad").backend, "cpu") == 0;
      conv(op, ops::pass_name(pass), s, x, weight, {}, y, gradients.make(operand), chosen,
           workspace_limit, kNoActivation, adds ? gradients.take_arrived() : Operand{});
    };
    const Operand &x = kept.operands[0], &weight = kept.operands[1];
    if (transposed) {
      pass(ConvPass::fprop, shape, grad, weight, {}, 0);
      pass(ConvPass::wgrad, shape, grad, {}, x, 1);
      pass(ConvPass::bgrad, resulting_in_input(shape), {}, {}, grad, 2);
    } else {
      pass(ConvPass::dgrad, shape, {}, weight, grad, 0);
      pass(ConvPass::wgrad, shape, x, {}, grad, 1);
      pass(ConvPass::bgrad, shape, {}, {}, grad, 2);
    }
    if (gradients.wanted(3)) gradients.share(3, grad);
  };
  return call;
}

// x [n][c][in] to col [n][c * kernel][out], or the gradient of col to that of x.
void im2col(const std::string& pass, const ConvShape& shape, const Array& source,
            const Array& result) {
  visit_dtype(result, [&]<class T>(T) {
    const int64_t col = shape.n * shape.c * shape.kernel_size() * shape.out_size();
    const bool forward = pass == "fprop";
    ConvArgs<T> args;
    args.shape = shape;
    (forward ? args.x : args.grad_y) = input<T>(source, "source", forward ? shape.x_elems() : col);
    args.result = output<T>(result, "result", forward ? col : shape.x_elems());
    py::gil_scoped_release release;
    ops::run("im2col", pass.c_str(), args);
  });
}

}  // namespace

LAMINA_BINDINGS(conv) {
  py::class_<ConvShape>(module, "ConvShape")
      .def(py::init(&make_shape), py::arg("n"), py::arg("c"), py::arg("k"), py::arg("groups"),
           py::arg("in_size"), py::arg("kernel"), py::arg("out_size"), py::arg("stride"),
           py::arg("pad"), py::arg("dilation"))
      .def_property_readonly("macs", &ConvShape::macs)
      .def_property_readonly("resulting_in_input", &resulting_in_input,
                             "For bgrad of the transposed convolution");
  module.def("conv", &conv, py::arg("op"), py::arg("pass_"), py::arg("shape"), py::arg("x"),
             py::arg("weight"), py::arg("bias"), py::arg("grad_y"), py::arg("result"),
             py::arg("algo") = "auto", py::arg("workspace_limit") = -1,
             py::arg("activation") = kNoActivation, py::arg("residual") = py::none());
  module.def("conv_call", &conv_call,
             "operands: x, weight, bias, residual; y_tells: the activation's derivative follows "
             "from y",
             py::arg("y_shape"), py::arg("op"), py::arg("transposed"), py::arg("shape"),
             py::arg("algo"), py::arg("workspace_limit"), py::arg("activation"),
             py::arg("y_tells"));
  module.def("im2col", &im2col, py::arg("pass_"), py::arg("shape"), py::arg("source"),
             py::arg("result"));
  module.def(
      "conv_plan",
      [](const std::string& op, const std::string& pass, const ConvShape& shape,
         const std::string& algo, int64_t workspace_limit, int64_t element_bytes) {
        ops::choose_conv(op.c_str(), pass_of(pass), shape, algo, workspace_limit, element_bytes);
      },
      "Chooses without running; the choice and the refusals are in last_plan()", py::arg("op"),
      py::arg("pass_"), py::arg("shape"), py::arg("algo") = "auto", py::arg("workspace_limit") = -1,
      py::arg("element_bytes") = 4);
  module.def(
      "conv_candidates",
      [](const std::string& pass, const ConvShape& shape, int64_t element_bytes) {
        std::vector<std::string> names;
        for (const auto& candidate :
             ops::conv_candidates("conv", pass_of(pass), shape, -1, element_bytes))
          names.push_back(candidate.kernel->algo);
        return names;
      },
      "The algorithms that auto may take, the cheapest first", py::arg("pass_"), py::arg("shape"),
      py::arg("element_bytes") = 4);
  module.def(
      "set_autotuning",
      [](bool on, py::object callback) {
        measured_callback() = std::move(callback);
        ops::set_autotuning(on);
      },
      "callback(question, [(algorithm, seconds), ...]) or None is called after a measurement",
      py::arg("on"), py::arg("callback") = py::none());
  module.def("autotuning", &ops::autotuning);
  module.def("note_measured_conv", &ops::note_measured_conv, py::arg("question"), py::arg("times"));
  module.def("forget_measured_conv", &ops::forget_measured_conv);
  module.def(
      "conv_cost",
      [](const std::string& algo, const std::string& pass, const ConvShape& shape) {
        return ops::conv_cost(algo, pass_of(pass), shape);
      },
      py::arg("algo"), py::arg("pass_"), py::arg("shape"));
}

}  // namespace lamina::bindings
