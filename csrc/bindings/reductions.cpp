#include "bindings/reductions.h"

#include <limits>
#include <map>

#include "bindings/call_arguments.h"
#include "bindings/calls.h"
#include "bindings/common.h"
#include "bindings/numpy_array.h"
#include "bindings/on_processor.h"
#include "bindings/strided_copy.h"

LAMINA_ARGS(ReduceArgs)
LAMINA_ARGS(ExtremeArgs)
LAMINA_ARGS(CumsumArgs)

namespace lamina::bindings {

bool Runs::read(const std::vector<py::ssize_t>& shape, const std::vector<bool>& reduced) {
  *this = {};
  int64_t* const runs[] = {&outer, &n, &inner, &m};
  int run = 0;
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    if (shape[axis] == 1) continue;
    while (((run & 1) != 0) != reduced[axis])
      if (++run > 3) return false;
    *runs[run] *= shape[axis];
  }
  if (inner == 1) m = n * m, n = 1;  // nothing lies between
  return true;
}

bool Runs::read_broadcast(const std::vector<py::ssize_t>& shape,
                          const std::vector<py::ssize_t>& operand) {
  std::vector<bool> reduced(shape.size(), true);
  const size_t missing = shape.size() - operand.size();
  for (size_t axis = missing; axis < shape.size(); ++axis)
    reduced[axis] = operand[axis - missing] != shape[axis];
  return read(shape, reduced);
}

namespace {

using ops::Reduction;

template <class T>
T* data_if(const std::optional<Array>& array, const char* name, int64_t elements) {
  return array ? checked_data<T>(*array, name, elements) : nullptr;
}

Reduction reduction_of(const std::string& kind) {
  static const std::map<std::string, Reduction> kinds = {
      {"sum", Reduction::sum},           {"squares", Reduction::squares},
      {"absolute", Reduction::absolute}, {"euclidean", Reduction::euclidean},
      {"product", Reduction::product},   {"logsumexp", Reduction::logsumexp},
      {"variance", Reduction::variance}, {"deviation", Reduction::deviation},
  };
  return kinds.at(kind);
}

Runs runs_of(const std::vector<py::ssize_t>& shape, const std::vector<bool>& reduced) {
  Runs runs;
  if (!runs.read(shape, reduced)) throw std::logic_error("internal: axes in too many runs");
  return runs;
}

// The elements of an array in C order, or with the gaps that the runs know of.
template <class T>
const T* elements(const Array& x, const Runs& runs) {
  const bool gaps = (runs.outer_distance | runs.n_distance | runs.inner_distance) != 0;
  return gaps ? static_cast<const T*>(x.data()) : checked_data<T>(x, "x", runs.size());
}

// centre: what variances leave for their gradients.
void reduce(Reduction kind, const Runs& runs, double divisor, const Array& x, const Array& y,
            const std::optional<Array>& centre) {
  if (runs.lines() == 0) return;
  visit_float(y, [&]<class T>(T) {
    ops::ReduceArgs<T> args;
    args.axes = runs, args.kind = kind, args.divisor = divisor;
    args.x = elements<T>(x, runs);
    args.centre = data_if<double>(centre, "centre", runs.lines());
    args.result = checked_data<T>(y, "y", runs.lines());
    run_on_processor("reduce", "fprop", args, runs.size());
  });
}

void reduce_gradient(Reduction kind, const Runs& runs, double divisor,
                     const std::optional<Array>& x, const std::optional<Array>& y,
                     const std::optional<Array>& centre, const Array& grad_y, const Array& grad_x) {
  if (runs.size() == 0) return;
  visit_float(grad_x, [&]<class T>(T) {
    ops::ReduceArgs<T> args;
    args.axes = runs, args.kind = kind, args.divisor = divisor;
    args.x = data_if<T>(x, "x", runs.size());
    args.y = data_if<T>(y, "y", runs.lines());
    args.centre = data_if<double>(centre, "centre", runs.lines());
    args.grad_y = checked_data<T>(grad_y, "grad_y", runs.lines());
    args.result = checked_data<T>(grad_x, "grad_x", runs.size());
    run_on_processor("reduce", "dgrad", args, runs.size());
  });
}

void extreme(bool smallest, const Runs& runs, const Array& x, const std::optional<Array>& y,
             const std::optional<Array>& indices) {
  if (runs.lines() == 0) return;
  visit_float(x, [&]<class T>(T) {
    ops::ExtremeArgs<T> args;
    args.axes = runs, args.smallest = smallest;
    args.x = elements<T>(x, runs);
    args.indices = data_if<int64_t>(indices, "indices", runs.lines());
    args.result = data_if<T>(y, "y", runs.lines());
    // Beside float32, vectors of the kernels count rows in 32 bits.
    const bool uncounted = indices && runs.m == 1 && runs.n > std::numeric_limits<int32_t>::max();
    run_on_processor("extreme", "fprop", args, runs.size(), uncounted);
  });
}

// y, for which x is there too, or indices.
void extreme_gradient(const Runs& runs, const std::optional<Array>& x,
                      const std::optional<Array>& y, const std::optional<Array>& indices,
                      const Array& grad_y, const Array& grad_x) {
  if (runs.size() == 0) return;
  visit_float(grad_x, [&]<class T>(T) {
    ops::ExtremeArgs<T> args;
    args.axes = runs;
    args.x = data_if<T>(x, "x", runs.size());
    args.y = data_if<T>(y, "y", runs.lines());
    args.indices = data_if<int64_t>(indices, "indices", runs.lines());
    args.grad_y = checked_data<T>(grad_y, "grad_y", runs.lines());
    args.result = checked_data<T>(grad_x, "grad_x", runs.size());
    run_on_processor("extreme", "dgrad", args, runs.size());
  });
}

void cumsum(const Array& x, const Array& y, int64_t outer, int64_t n, int64_t inner,
            bool reversed) {
  if (outer * n * inner == 0) return;
  visit_float(y, [&]<class T>(T) {
    const int64_t size = outer * n * inner;
    ops::CumsumArgs<T> args;
    args.outer = outer, args.n = n, args.inner = inner, args.reversed = reversed;
    args.x = checked_data<T>(x, "x", size);
    args.result = checked_data<T>(y, "y", size);
    run_on_processor("cumsum", "fprop", args, size);
  });
}

Array like(const Array& array, ElementType type) {
  Array made;
  made.load(new_array_or_throw(shape_of(array.object()), type));
  return made;
}

// The runs of an array that is not in C order: in the order of its memory.
class RunsOfMemory : public Runs {
 public:
  static constexpr int64_t kShortRun = 64;

  RunsOfMemory(const Array& x, const std::vector<bool>& reduced)
      : order_(memory_order(x.object())), shape_(shape_of(x.object())), reduced_(reduced) {
    holds_ = read(x);
  }

  bool holds() const { return holds_; }
  // Whether lines consist of runs that are short to begin anew: a copy is less work.
  bool broken() const { return m > 1 && m < kShortRun && n > 1; }
  // Whether the axes that are reduced, or the others, lie in their own order.
  bool in_order(bool reduced) const {
    int last = -1;
    for (const int axis : order_) {
      if (reduced_[at(axis)] != reduced || shape_[at(axis)] == 1) continue;
      if (axis < last) return false;
      last = axis;
    }
    return true;
  }
  // Calls body(result) with y, or with what is copied to y then.
  template <class Body>
  void write(const Array& y, const Body& body) const {
    if (in_order(false)) return body(y);
    Array lying;
    lying.load(new_array_or_throw({y.size()}, y.type()));
    body(lying);
    std::vector<py::ssize_t> extents, from, to, step(shape_.size());
    py::ssize_t distance = static_cast<py::ssize_t>(y.bytes()) / y.size();
    for (size_t i = order_.size(); i-- > 0;) {
      const size_t axis = at(order_[i]);
      if (reduced_[axis] || shape_[axis] == 1) continue;
      step[axis] = distance, distance *= shape_[axis];
    }
    for (size_t axis = 0; axis < shape_.size(); ++axis) {
      if (step[axis] == 0) continue;
      distance /= shape_[axis];
      extents.push_back(shape_[axis]), from.push_back(step[axis]), to.push_back(distance);
    }
    const auto view = [&](const Array& array, const std::vector<py::ssize_t>& strides) {
      return view_of(array.object(), static_cast<int>(extents.size()), extents.data(),
                     strides.data(), static_cast<char*>(array.data()));
    };
    copy_strided(view(lying, from).ptr(), view(y, to).ptr());
  }

 private:
  // Axes that follow each other without a gap.
  struct Level {
    bool reduced;
    int64_t extent, step;
  };

  static size_t at(int axis) { return static_cast<size_t>(axis); }

  bool read(const Array& x) {
    std::vector<Level> levels;
    const auto item = static_cast<int64_t>(x.bytes()) / x.size();
    for (const int axis : order_) {
      const int64_t extent = shape_[at(axis)], bytes = fields(x.object()).strides[axis];
      const bool is_reduced = reduced_[at(axis)];
      if (extent == 1) continue;
      if (bytes <= 0 || bytes % item != 0) return false;
      const int64_t step = bytes / item;
      if (!levels.empty() && levels.back().reduced == is_reduced &&
          levels.back().step == extent * step)
        levels.back().extent *= extent, levels.back().step = step;
      else
        levels.push_back({is_reduced, extent, step});
    }
    if (levels.empty() || levels.back().step != 1) return false;
    const auto take = [&](bool is_reduced, int64_t& extent, int64_t& step) {
      if (levels.empty() || levels.back().reduced != is_reduced) return;
      extent = levels.back().extent, step = levels.back().step;
      levels.pop_back();
    };
    int64_t one = 1;
    take(true, m, one);
    take(false, inner, inner_distance);
    take(true, n, n_distance);
    take(false, outer, outer_distance);
    if (n == 1 && outer == 1) std::swap(inner, outer), std::swap(inner_distance, outer_distance);
    if (outer == 1) outer_distance = 1;  // as of runs that are not in C order
    return levels.empty() && length() > 1;
  }

  std::vector<int> order_;
  std::vector<py::ssize_t> shape_;
  const std::vector<bool>& reduced_;
  bool holds_;
};

Call reduce_call(std::vector<py::ssize_t> shape, const std::string& kind_name,
                 const std::vector<py::ssize_t>& x_shape, const std::vector<bool>& reduced,
                 double divisor) {
  const Runs runs = runs_of(x_shape, reduced);
  const Reduction kind = reduction_of(kind_name);
  const bool centred =
      kind == Reduction::variance || kind == Reduction::deviation || kind == Reduction::product;
  const bool of_result =
      kind == Reduction::euclidean || kind == Reduction::deviation || kind == Reduction::logsumexp;
  const bool in_parts = kind == Reduction::variance || kind == Reduction::deviation ||
                        kind == Reduction::logsumexp;  // which every run joins
  Call call;
  call.shape = std::move(shape);
  call.run = [=](const Operands& given, const Array& y, Extras& extras) {
    std::optional<Array> centre;
    if (centred && extras.wanted) centre = extras[0] = like(y, ElementType::f64);
    reduce(kind, runs, divisor, *given[0], y, centre);
  };
  call.run_uncopied = [=](const Array& x, const Array& y) {
    const RunsOfMemory lying(x, reduced);
    if (!lying.holds() || (in_parts && lying.broken())) return false;
    lying.write(y, [&](const Array& to) { reduce(kind, lying, divisor, x, to, {}); });
    return true;
  };
  call.copies = true;
  call.gradient = [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
    std::optional<Array> y, centre;
    if (of_result) y = kept.result;
    if (centred) centre = kept.extras[0];
    reduce_gradient(kind, runs, divisor, kept.operands[0], y, centre, grad_y, gradients.make(0));
  };
  call.keeps = (kind == Reduction::sum ? 0 : operand_bits(0)) | (of_result ? kResult : 0);
  return call;
}

// op: amax, amin, max, min, argmax, argmin
Call extreme_call(std::vector<py::ssize_t> shape, const std::string& op,
                  const std::vector<py::ssize_t>& x_shape, const std::vector<bool>& reduced) {
  const Runs runs = runs_of(x_shape, reduced);
  const bool smallest = op.ends_with("min");
  Call call;
  call.shape = std::move(shape);
  call.copies = true;
  if (op == "amax" || op == "amin") {
    call.run = [=](const Operands& given, const Array& y, Extras&) {
      extreme(smallest, runs, *given[0], y, {});
    };
    call.run_uncopied = [=](const Array& x, const Array& y) {
      const RunsOfMemory lying(x, reduced);
      if (!lying.holds() || lying.broken()) return false;
      lying.write(y, [&](const Array& to) { extreme(smallest, lying, x, to, {}); });
      return true;
    };
    call.gradient = [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
      extreme_gradient(runs, kept.operands[0], kept.result, {}, grad_y, gradients.make(0));
    };
    call.keeps = operand_bits(0) | kResult;
  } else if (op == "max" || op == "min") {
    call.second = true;
    call.run = [=](const Operands& given, const Array& y, Extras& extras) {
      extras[0] = like(y, ElementType::i64);
      extreme(smallest, runs, *given[0], y, extras[0]);
    };
    call.gradient = [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
      extreme_gradient(runs, {}, {}, kept.extras[0], grad_y, gradients.make(0));
    };
  } else {
    call.constant = true;
    call.run = [=](const Operands& given, const Array& y, Extras&) {
      extreme(smallest, runs, *given[0], {}, y);
    };
    call.run_uncopied = [=](const Array& x, const Array& y) {
      // Indices count along one run of axes; columns are found sooner than in short lines.
      const RunsOfMemory lying(x, reduced);
      const bool lines = lying.m > 1 && lying.m < RunsOfMemory::kShortRun && runs.m == 1;
      if (!lying.holds() || !lying.in_order(true) || (lying.n > 1 && lying.m > 1) || lines)
        return false;
      lying.write(y, [&](const Array& to) { extreme(smallest, lying, x, {}, to); });
      return true;
    };
  }
  return call;
}

Call cumsum_call(std::vector<py::ssize_t> shape, int64_t outer, int64_t n, int64_t inner) {
  return {std::move(shape),
          [=](const Operands& given, const Array& y, Extras&) {
            cumsum(*given[0], y, outer, n, inner, false);
          },
          [=](const Kept&, const Array& grad_y, Gradients& gradients) {
            cumsum(grad_y, gradients.make(0), outer, n, inner, true);
          }};
}

}  // namespace

void sum_runs(const Runs& runs, const Array& x, const Array& sums) {
  reduce(Reduction::sum, runs, 1, x, sums, {});
}

LAMINA_BINDINGS(reductions) {
  using Shape = std::vector<py::ssize_t>;
  using Reduced = std::vector<bool>;
  using Optional = std::optional<Array>;
  module.def(
      "in_runs",
      [](const Shape& shape, const Reduced& reduced) { return Runs().read(shape, reduced); },
      "Whether the reduced axes form at most two runs that the kernels take", py::arg("shape"),
      py::arg("reduced"));
  module.def(
      "reduce",
      [](const std::string& kind, const Array& x, const Array& y, const Optional& centre,
         const Shape& shape, const Reduced& reduced, double divisor) {
        reduce(reduction_of(kind), runs_of(shape, reduced), divisor, x, y, centre);
      },
      "y of x [shape] over the reduced axes, which are in_runs", py::arg("kind"), py::arg("x"),
      py::arg("y"), py::arg("centre"), py::arg("shape"), py::arg("reduced"), py::arg("divisor"));
  module.def(
      "reduce_gradient",
      [](const std::string& kind, const Optional& x, const Optional& y, const Optional& centre,
         const Array& grad_y, const Array& grad_x, const Shape& shape, const Reduced& reduced,
         double divisor) {
        reduce_gradient(reduction_of(kind), runs_of(shape, reduced), divisor, x, y, centre, grad_y,
                        grad_x);
      },
      py::arg("kind"), py::arg("x"), py::arg("y"), py::arg("centre"), py::arg("grad_y"),
      py::arg("grad_x"), py::arg("shape"), py::arg("reduced"), py::arg("divisor"));
  module.def(
      "extreme",
      [](bool smallest, const Array& x, const Optional& y, const Optional& indices,
         const Shape& shape,
         const Reduced& reduced) { extreme(smallest, runs_of(shape, reduced), x, y, indices); },
      "y, the first indices, or both; indices of adjacent axes only", py::arg("smallest"),
      py::arg("x"), py::arg("y"), py::arg("indices"), py::arg("shape"), py::arg("reduced"));
  module.def(
      "extreme_gradient",
      [](const Optional& x, const Optional& y, const Optional& indices, const Array& grad_y,
         const Array& grad_x, const Shape& shape, const Reduced& reduced) {
        extreme_gradient(runs_of(shape, reduced), x, y, indices, grad_y, grad_x);
      },
      "From x and y, or from indices", py::arg("x"), py::arg("y"), py::arg("indices"),
      py::arg("grad_y"), py::arg("grad_x"), py::arg("shape"), py::arg("reduced"));
  module.def("cumsum", &cumsum, "Running sums along n of x [outer, n, inner]", py::arg("x"),
             py::arg("y"), py::arg("outer"), py::arg("n"), py::arg("inner"), py::arg("reversed"));
  module.def("reduce_call", &reduce_call, "operands: x", py::arg("shape"), py::arg("kind"),
             py::arg("x_shape"), py::arg("reduced"), py::arg("divisor"));
  module.def("extreme_call", &extreme_call, "operands: x", py::arg("shape"), py::arg("op"),
             py::arg("x_shape"), py::arg("reduced"));
  module.def("cumsum_call", &cumsum_call, "operands: x", py::arg("shape"), py::arg("outer"),
             py::arg("n"), py::arg("inner"));
}

}  // namespace lamina::bindings
