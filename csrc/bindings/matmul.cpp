// Products of matrices, vectors and batches of them, as Python's @ has them, by the kernels of
// gemm.
#include "bindings/calls.h"
#include "bindings/common.h"
#include "bindings/numpy_array.h"
#include "ops/gemm.h"

LAMINA_ARGS(GemmArgs)

namespace lamina::bindings {
namespace {

using Shape = std::vector<py::ssize_t>;

// y [batch, m, n] = a [batch, m, k] b [batch, k, n]; a and b may be stored with their last two axes
// swapped. Products with one b take all rows of a as one matrix; one a is read for every b.
struct Product {
  int64_t batch = 1, m = 1, n = 1, k = 1;
  bool a_swapped = false, b_swapped = false, a_repeats = false;
  Shape shape;  // of y

  // False for shapes that do not match or that need one operand many times.
  bool read(const Shape& a, const Shape& b) {
    if (a.empty() || b.empty()) return false;
    const bool a_vector = a.size() == 1, b_vector = b.size() == 1;
    k = a.back(), m = a_vector ? 1 : a[a.size() - 2], n = b_vector ? 1 : b.back();
    if (k != (b_vector ? b[0] : b[b.size() - 2])) return false;
    const Shape a_batch(a.begin(), a_vector ? a.begin() : a.end() - 2);
    const Shape b_batch(b.begin(), b_vector ? b.begin() : b.end() - 2);
    shape = a_batch;
    if (!a_vector) shape.push_back(m);
    if (!b_vector) shape.push_back(n);
    int64_t count = 1;
    for (py::ssize_t extent : a_batch) count *= extent;
    if (a_batch == b_batch) {
      batch = count;
    } else if (b_batch.empty() && !a_swapped) {
      m *= count;
    } else if (a_batch.empty()) {
      for (py::ssize_t extent : b_batch) batch *= extent;
      shape.insert(shape.begin(), b_batch.begin(), b_batch.end());
      a_repeats = true;
    } else {
      return false;
    }
    return batch * m * n * k > 0;
  }
};

struct Matrix {
  const Array& array;
  bool transposed;  // beside how the product has it
  bool repeats = false;
};

// c [batch, m, n] = op(a) [m, k] op(b) [k, n].
void multiply(const Matrix& a, const Matrix& b, const Array& c, int64_t batch, int64_t m, int64_t n,
              int64_t k) {
  if (n == 1 && m > 1 && batch == 1)  // a column: the product of a row and the transpose
    return multiply({b.array, false}, {a.array, !a.transposed}, c, 1, 1, m, k);
  // A vector is stored as its transpose is: as the kernels go along it.
  const bool a_swapped = a.transposed && m > 1 && k > 1;
  const bool b_swapped = k > 1 && (b.transposed || n == 1);
  visit_dtype(c, [&]<class T>(T) {
    ops::GemmArgs<T> args;
    args.batch = batch, args.m = m, args.n = n, args.k = k;
    args.trans_a = a_swapped, args.trans_b = b_swapped;
    args.a = input<T>(a.array, "a", (a.repeats ? 1 : batch) * m * k),
    args.b = input<T>(b.array, "b", batch * k * n);
    args.c = output<T>(c, "c", batch * m * n);
    args.lda = a_swapped ? m : k, args.ldb = b_swapped ? k : n, args.ldc = n;
    args.stride_a = a.repeats ? 0 : m * k, args.stride_b = k * n, args.stride_c = m * n;
    args.precision = ops::call_precision(sizeof(T));
    const py::gil_scoped_release release;
    ops::call_kernel(
        ops::plan_kernel("gemm", "fprop", nullptr, ops::precision_name(args.precision)), args);
  });
}

Call matmul_call(const Shape& y_shape, const Shape& a, const Shape& b, bool a_swapped,
                 bool b_swapped) {
  Product product;
  product.a_swapped = a_swapped, product.b_swapped = b_swapped;
  if (!product.read(a, b) || product.shape != y_shape)
    throw std::logic_error("internal: no product of these shapes");
  const auto [batch, m, n, k] = std::tuple(product.batch, product.m, product.n, product.k);
  const bool a_repeats = product.a_repeats;
  Call call;
  call.shape = y_shape;
  call.run = [=](const Operands& given, const Array& y, Extras&) {
    multiply({*given[0], a_swapped, a_repeats}, {*given[1], b_swapped}, y, batch, m, n, k);
  };
  call.gradient = [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
    if (gradients.wanted(0))
      multiply({grad_y, false}, {*kept.operands[1], !b_swapped}, gradients.make(0), batch, m, k, n);
    if (gradients.wanted(1))
      multiply({*kept.operands[0], !a_swapped, a_repeats}, {grad_y, false}, gradients.make(1),
               batch, k, n, m);
  };
  if (a_repeats) call.compiled = operand_bits(1);  // else a sum over the batch
  call.keeps_for[0] = operand_bits(1), call.keeps_for[1] = operand_bits(0);
  return call;
}

}  // namespace

LAMINA_BINDINGS(matmul) {
  module.def(
      "matmul_shape",
      [](const Shape& a, const Shape& b, bool a_swapped, bool b_swapped) -> py::object {
        Product product;
        product.a_swapped = a_swapped, product.b_swapped = b_swapped;
        if (!product.read(a, b)) return py::none();
        return py::tuple(py::cast(product.shape));
      },
      "The shape of a @ b, or None where the kernels do not multiply these", py::arg("a"),
      py::arg("b"), py::arg("a_swapped"), py::arg("b_swapped"));
  module.def(
      "matmul",
      [](const Array& a, const Array& b, const Array& y, const Shape& a_shape, const Shape& b_shape,
         bool a_swapped, bool b_swapped) {
        Product product;
        product.a_swapped = a_swapped, product.b_swapped = b_swapped;
        expect(product.read(a_shape, b_shape), "a", "does not match b");
        multiply({a, a_swapped, product.a_repeats}, {b, b_swapped}, y, product.batch, product.m,
                 product.n, product.k);
      },
      "y = a @ b of those shapes; a and b are stored with their last two axes swapped where said",
      py::arg("a"), py::arg("b"), py::arg("y"), py::arg("a_shape"), py::arg("b_shape"),
      py::arg("a_swapped"), py::arg("b_swapped"));
  module.def("matmul_call", &matmul_call, "operands: a, b; else as matmul", py::arg("shape"),
             py::arg("a_shape"), py::arg("b_shape"), py::arg("a_swapped"), py::arg("b_swapped"));
}

}  // namespace lamina::bindings
