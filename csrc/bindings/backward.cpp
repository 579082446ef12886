// Backward: walks the recorded graph from its results to the leaves, each source after all that
// it was an argument of.
//
// Order      that of a depth-first search along the edges as they were given, reversed: it follows
//            from the shape of the graph alone, and so does the order of every sum.
// Sums       a gradient array may be shared (an addition hands one to both arguments): only arrays
//            that nobody else holds are added to in place. A convolution's gradient of its input
//            adds what has arrived there while it stores.
#include <algorithm>
#include <cstring>

#include "bindings/calls.h"
#include "bindings/common.h"
#include "bindings/elementwise.h"
#include "bindings/graph.h"
#include "bindings/numpy_array.h"
#include "bindings/strided_copy.h"

namespace lamina::bindings {
namespace {

constexpr int kNone = -1;

struct Names {
  PyObject* backward = PyUnicode_InternFromString("backward");
  PyObject* gradients_are_new = PyUnicode_InternFromString("gradients_are_new");
};
const Names& names() {
  static const Names& interned = *new Names;
  return interned;
}
py::object attribute(py::handle object, PyObject* name) {
  return stolen(PyObject_GetAttr(object.ptr(), name));
}

// A Node or a leaf Tensor.
struct Source {
  py::object object;
  bool leaf;
  int first_sum;   // one for each output
  int first_edge;  // in Walk::targets_
};

// The gradient of one output, as far as it has arrived; what was asked for stays in `result`.
struct Sum {
  py::object gradient, result;
  bool owned = false;  // nobody else holds the array
  bool wanted = false;
};

// What a walk begins with.
struct Root {
  py::object edge;  // tuple (source, output index)
  py::object gradient;
};

// From the address of a source to its number: open addressing, a power of two of places.
class Numbers {
 public:
  // The number of the source, which is `next` if it is new.
  int find_or_add(const PyObject* source, int next) {
    if (2 * (used_ + 1) > places_.size()) grow();
    Place& place = place_of(source);
    if (place.source == nullptr) place = {source, next}, ++used_;
    return place.number;
  }

 private:
  struct Place {
    const PyObject* source = nullptr;
    int number = kNone;
  };
  Place& place_of(const PyObject* source) {
    const size_t mask = places_.size() - 1;
    size_t i = (reinterpret_cast<uintptr_t>(source) >> 4) * 0x9E3779B97F4A7C15U >> 20 & mask;
    while (places_[i].source != nullptr && places_[i].source != source) i = (i + 1) & mask;
    return places_[i];
  }
  void grow() {
    std::vector<Place> before(2 * places_.size());
    before.swap(places_);
    for (const Place& place : before)
      if (place.source != nullptr) place_of(place.source) = place;
  }

  std::vector<Place> places_{64};
  size_t used_ = 0;
};

bool same_kind(PyObject* a, PyObject* b) {
  const auto &x = fields(a), &y = fields(b);
  return x.nd == y.nd && std::equal(x.dimensions, x.dimensions + x.nd, y.dimensions) &&
         element_type_of(a) == element_type_of(b);
}

py::object copy_of(PyObject* array) {
  Array source, target;
  source.load(array), target.load(new_like(array));
  std::memcpy(target.data(), source.data(), source.bytes());
  return py::reinterpret_borrow<py::object>(target.object());
}

// Whether only the order of the elements keeps kernels from reading them.
bool is_strided(PyObject* array) {
  if (!is_plain_array(array) || !is_aligned(array)) return false;
  const ElementType type = element_type_of(array);
  return type == ElementType::f32 || type == ElementType::f64;
}

// Whether the loops of elementwise.h can add b to a.
bool addable(PyObject* a, PyObject* b) {
  return is_plain_array(a) && is_plain_array(b) && is_ready(a) && is_ready(b) && same_kind(a, b);
}

class Walk {
 public:
  Walk(const std::vector<Root>& roots, bool retain) : retain_(retain) {
    for (const Root& root : roots) search(PyTuple_GET_ITEM(root.edge.ptr(), 0));
    for (const Root& root : roots) add(*sum_of(root.edge.ptr()), root.gradient, false);
  }

  // Adds to the .grad of every leaf.
  void run() {
    for (size_t i = order_.size(); i-- > 0;)
      sources_[order_[i]].leaf ? finish_leaf(order_[i]) : pass_on(order_[i]);
  }

  // The gradients for the edges, null where none arrived; no .grad changes.
  std::vector<py::object> run_for(const std::vector<py::object>& edges) {
    finds_ = true;
    for (const py::object& edge : edges)
      if (Sum* const sum = sum_of(edge.ptr())) sum->wanted = true;
    run();
    std::vector<py::object> found;
    for (const py::object& edge : edges) {
      const Sum* const sum = sum_of(edge.ptr());
      found.push_back(sum != nullptr ? sum->result : py::object());
    }
    return found;
  }

 private:
  static PyObject* node_slot(py::handle node, NodeSlot slot) { return graph.node.get(node, slot); }

  // Null where the walk does not come by.
  Sum* sum_of(PyObject* edge) {
    const int number = numbers_.find_or_add(PyTuple_GET_ITEM(edge, 0), kNone);
    if (number == kNone) return nullptr;
    return &sums_[sources_[number].first_sum + PyLong_AsLong(PyTuple_GET_ITEM(edge, 1))];
  }

  // The number of the source; `added` says whether it is new.
  int number_of(PyObject* object, bool& added) {
    const auto next = static_cast<int>(sources_.size());
    const int number = numbers_.find_or_add(object, next);
    added = number == next;
    if (!added) return number;
    const bool leaf = !graph.node.holds(object);
    sources_.push_back({py::reinterpret_borrow<py::object>(object), leaf,
                        static_cast<int>(sums_.size()), static_cast<int>(targets_.size())});
    const auto size_of = [&](NodeSlot slot) {
      return leaf ? 0 : static_cast<size_t>(PyTuple_GET_SIZE(node_slot(object, slot)));
    };
    sums_.resize(sums_.size() + (leaf ? 1 : size_of(NodeSlot::outputs)));
    targets_.resize(targets_.size() + size_of(NodeSlot::edges), kNone);
    return number;
  }

  // Appends what is reached and was not before to order_, arguments first. Iterative: any depth.
  void search(PyObject* root) {
    struct Step {
      int number;
      Py_ssize_t next;
    };
    bool added;
    const int first = number_of(root, added);
    if (!added) return;
    std::vector<Step> stack{{first, 0}};
    while (!stack.empty()) {
      Step& step = stack.back();
      const int number = step.number;
      added = false;
      if (!sources_[number].leaf) {
        PyObject* const edges = node_slot(sources_[number].object, NodeSlot::edges);
        while (!added && step.next < PyTuple_GET_SIZE(edges)) {
          PyObject* const edge = PyTuple_GET_ITEM(edges, step.next);
          if (edge != Py_None) {
            const int target = number_of(PyTuple_GET_ITEM(edge, 0), added);
            targets_[sources_[number].first_edge + step.next] = target;
            if (added) {
              ++step.next;
              stack.push_back({target, 0});
              break;
            }
          }
          ++step.next;
        }
      }
      if (added) continue;
      order_.push_back(number);
      stack.pop_back();
    }
  }

  void add(Sum& sum, py::object gradient, bool is_new) {
    if (!sum.gradient) {
      sum.gradient = std::move(gradient), sum.owned = is_new;
      return;
    }
    if (addable(sum.gradient.ptr(), gradient.ptr())) {
      if (sum.owned) return add_arrays(sum.gradient.ptr(), gradient.ptr(), sum.gradient.ptr());
      py::object total = is_new ? gradient : new_like(gradient.ptr());
      add_arrays(sum.gradient.ptr(), gradient.ptr(), total.ptr());
      sum.gradient = std::move(total), sum.owned = true;
      return;
    }
    quiet_.begin();
    py::object total = sum.owned ? stolen(PyNumber_InPlaceAdd(sum.gradient.ptr(), gradient.ptr()))
                                 : graph_attribute("_added")(sum.gradient, gradient);
    sum.gradient = std::move(total), sum.owned = true;
  }

  // The finished sum, after the hooks; null where no gradient arrived.
  py::object take(int number, int index, PyObject* hooks) {
    Sum& sum = sums_[sources_[number].first_sum + index];
    py::object gradient = std::move(sum.gradient);
    if (gradient && hooks != nullptr && hooks != Py_None && PyDict_GET_SIZE(hooks) != 0) {
      quiet_.begin();
      gradient = graph_attribute("_after_hooks")(gradient, py::handle(hooks));
    }
    if (sum.wanted) sum.result = gradient;
    return gradient;
  }

  void finish_leaf(int number) {
    const py::object leaf = sources_[number].object;
    PyObject* const hooks = graph.tensor.get(leaf, TensorSlot::hooks);
    const bool hooked = hooks != Py_None && PyDict_GET_SIZE(hooks) != 0;
    bool owned = sums_[sources_[number].first_sum].owned && !hooked;
    py::object gradient = take(number, 0, hooks);
    if (!gradient || finds_) return;
    PyObject* const before = graph.tensor.get(leaf, TensorSlot::grad);
    if (before == Py_None && is_strided(gradient.ptr()) && !is_ready(gradient.ptr()))
      gradient = in_c_order(gradient.ptr()), owned = true;
    const bool plain = is_plain_array(gradient.ptr());
    if (before == Py_None && plain && is_ready(gradient.ptr())) {
      if (!owned) gradient = copy_of(gradient.ptr());
      graph.tensor.set(leaf, TensorSlot::grad, wrap(gradient.release().ptr()));
    } else if (before != Py_None && plain && addable(array_shown_by(before), gradient.ptr()) &&
               is_writeable(array_shown_by(before))) {
      const auto sum = py::reinterpret_borrow<py::object>(array_in(before));
      add_arrays(sum.ptr(), gradient.ptr(), sum.ptr());
    } else {
      quiet_.begin();
      leaf.attr("_accumulate")(gradient, owned);
    }
  }

  void pass_on(int number) {
    const py::object node = sources_[number].object;
    const Py_ssize_t outputs = PyTuple_GET_SIZE(node_slot(node, NodeSlot::outputs));
    std::vector<py::object> arrived;
    bool any = false, owned = false;  // nobody else holds the first
    for (Py_ssize_t i = 0; i < outputs; ++i) {
      PyObject* hooks = node_slot(node, NodeSlot::hooks);
      if (hooks != Py_None) hooks = PyDict_GetItem(hooks, stolen(PyLong_FromSsize_t(i)).ptr());
      if (i == 0)
        owned = sums_[sources_[number].first_sum].owned &&
                !sums_[sources_[number].first_sum].wanted &&
                (hooks == nullptr || hooks == Py_None || PyDict_GET_SIZE(hooks) == 0);
      arrived.push_back(take(number, static_cast<int>(i), hooks));
      any |= static_cast<bool>(arrived.back());
    }
    if (!any) return;
    check(node);
    const py::object context = py::reinterpret_borrow<py::object>(node_slot(node, NodeSlot::ctx));
    if (is_recorded_call(context.ptr()))
      run_recorded(number, node, context.ptr(), arrived[0], owned);
    else
      run_function(number, node, context, arrived);
    if (!retain_ && saves(context.ptr())) graph.node.set(node, NodeSlot::ctx, Py_None);
  }

  static bool saves(PyObject* context) {
    if (is_recorded_call(context)) return keeps_arrays(context);
    return PyTuple_GET_SIZE(graph.context.get(context, ContextSlot::saved)) != 0;
  }

  // Python has the words for a graph that was freed or an array that was written.
  static void check(const py::object& node) {
    PyObject* const versions = node_slot(node, NodeSlot::versions);
    bool good = node_slot(node, NodeSlot::ctx) != Py_None;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(versions); i += 2) {
      PyObject* const now = graph.version.get(PyTuple_GET_ITEM(versions, i), VersionSlot::count);
      PyObject* const then = PyTuple_GET_ITEM(versions, i + 1);
      good = good && (now == then || PyObject_RichCompareBool(now, then, Py_EQ) == 1);
    }
    if (!good) node.attr("refuse")();
  }

  // Only the first output of a recorded call has a gradient; `owned`: nobody else holds it.
  void run_recorded(int number, const py::object& node, PyObject* context,
                    const py::object& arrived, bool owned) {
    py::object grad_y = arrived;
    if (!is_plain_array(grad_y.ptr()) || !is_ready(grad_y.ptr()))
      owned = is_strided(grad_y.ptr()),
      grad_y = owned ? in_c_order(grad_y.ptr()) : graph_attribute("_as_kernels_read")(grad_y);
    PyObject* const edges = node_slot(node, NodeSlot::edges);
    Sum* const sum = sum_behind(number, edges, 0);
    PyObject* before = sum != nullptr ? sum->gradient.ptr() : nullptr;
    PyObject* gradients[kMaxOperands];
    const unsigned shared = differentiate(context, grad_y.ptr(), owned, before, gradients);
    if (sum != nullptr && before == nullptr) sum->gradient = {};
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(edges); ++i) {
      if (gradients[i] == nullptr) continue;
      py::object gradient = py::reinterpret_steal<py::object>(gradients[i]);
      send(number, edges, i, std::move(gradient), (shared >> i & 1) == 0);
    }
  }

  void run_function(int number, const py::object& node, const py::object& context,
                    const std::vector<py::object>& arrived) {
    const py::handle function = node_slot(node, NodeSlot::function);
    std::vector<py::object> filled = arrived;
    PyObject* const outputs = node_slot(node, NodeSlot::outputs);
    std::vector<PyObject*> stack{context.ptr()};
    for (size_t i = 0; i < filled.size(); ++i) {
      PyObject* const output = PyTuple_GET_ITEM(outputs, static_cast<Py_ssize_t>(i));
      if (!filled[i])
        filled[i] = PyTuple_GET_ITEM(output, 2) == Py_True
                        ? graph_attribute("_zeros")(py::handle(output))
                        : py::none();
      stack.push_back(filled[i].ptr());
    }
    quiet_.begin();
    const py::object backward = attribute(function, names().backward);
    py::object results =
        stolen(PyObject_Vectorcall(backward.ptr(), stack.data(), stack.size(), nullptr));
    PyObject* const edges = node_slot(node, NodeSlot::edges);
    if (!PyTuple_Check(results.ptr())) results = py::make_tuple(results);
    if (PyTuple_GET_SIZE(results.ptr()) != PyTuple_GET_SIZE(edges))
      node.attr("refuse_results")(PyTuple_GET_SIZE(results.ptr()));
    const bool are_new = attribute(function, names().gradients_are_new).is(py::bool_(true));
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(edges); ++i) {
      py::object gradient = py::reinterpret_borrow<py::object>(PyTuple_GET_ITEM(results.ptr(), i));
      if (PyTuple_GET_ITEM(edges, i) == Py_None || gradient.is_none()) continue;
      gradient = fitting(function, PyTuple_GET_ITEM(edges, i), std::move(gradient));
      bool is_new = are_new;
      for (const py::object& given : arrived) is_new = is_new && !gradient.is(given);
      send(number, edges, i, std::move(gradient), is_new);
    }
  }

  // The gradient in the shape and dtype of what it belongs to.
  static py::object fitting(py::handle function, PyObject* edge, py::object gradient) {
    PyObject* const source = PyTuple_GET_ITEM(edge, 0);
    if (is_plain_array(gradient.ptr())) {
      if (!graph.node.holds(source)) {
        if (is_plain_array(array_shown_by(source)) &&
            element_type_of(gradient.ptr()) != ElementType::other &&
            same_kind(array_shown_by(source), gradient.ptr()))
          return gradient;
      } else {
        const Py_ssize_t index = PyLong_AsSsize_t(PyTuple_GET_ITEM(edge, 1));
        PyObject* const output = PyTuple_GET_ITEM(node_slot(source, NodeSlot::outputs), index);
        if (fields(gradient.ptr()).descr == PyTuple_GET_ITEM(output, 1) &&
            has_shape(gradient.ptr(), PyTuple_GET_ITEM(output, 0)))
          return gradient;
      }
    }
    return graph_attribute("_fitting")(function, py::handle(edge), gradient);
  }

  static bool has_shape(PyObject* array, PyObject* shape) {
    const auto& proxy = fields(array);
    if (PyTuple_GET_SIZE(shape) != proxy.nd) return false;
    for (int axis = 0; axis < proxy.nd; ++axis)
      if (PyLong_AsSsize_t(PyTuple_GET_ITEM(shape, axis)) != proxy.dimensions[axis]) return false;
    return true;
  }

  static int target_output(PyObject* edges, Py_ssize_t i) {
    return static_cast<int>(PyLong_AsLong(PyTuple_GET_ITEM(PyTuple_GET_ITEM(edges, i), 1)));
  }
  // Where the gradient of an operand goes; null where nobody wants it.
  Sum* sum_behind(int number, PyObject* edges, Py_ssize_t i) {
    if (PyTuple_GET_ITEM(edges, i) == Py_None) return nullptr;
    const int target = targets_[sources_[number].first_edge + i];
    return &sums_[sources_[target].first_sum + target_output(edges, i)];
  }
  void send(int number, PyObject* edges, Py_ssize_t i, py::object gradient, bool is_new) {
    add(*sum_behind(number, edges, i), std::move(gradient), is_new);
  }

  bool retain_, finds_ = false;
  Quiet quiet_;
  Numbers numbers_;
  std::vector<Source> sources_;
  std::vector<int> targets_, order_;
  std::vector<Sum> sums_;
};

// Records nothing while it lives.
class NoGrad {
 public:
  NoGrad() : before_(grad_enabled) { grad_enabled = false; }
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;
  ~NoGrad() { grad_enabled = before_; }

 private:
  bool before_;
};

// The gradient that a backward from the tensor starts with; null where Python has to look at it.
py::object seed_of(PyObject* tensor, PyObject* gradient) {
  PyObject* const array = array_shown_by(tensor);
  if (!requires_grad(tensor) || !is_plain_array(array) || !is_ready(array)) return {};
  if (gradient != Py_None) {
    PyObject* const given = is_tensor(gradient) ? array_in(gradient) : gradient;
    if (!is_plain_array(given) || !same_kind(array, given)) return {};
    return py::reinterpret_borrow<py::object>(given);
  }
  Array ones;
  ones.load(new_like(array));
  if (ones.size() != 1) return {};
  if (ones.type() == ElementType::f64)
    *static_cast<double*>(ones.data()) = 1;
  else
    *static_cast<float*>(ones.data()) = 1;
  return py::reinterpret_borrow<py::object>(ones.object());
}

py::object edge_of(py::handle tensor) {
  return py::reinterpret_steal<py::object>(new_edge(tensor));
}

}  // namespace

LAMINA_BINDINGS(backward) {
  module.def(
      "backward",
      [](py::handle op, const py::tuple& tensors, const py::tuple& gradients, py::handle inputs,
         bool retain_graph) -> py::object {
        std::vector<Root> roots;
        for (size_t i = 0; i < tensors.size(); ++i) {
          const py::handle tensor = PyTuple_GET_ITEM(tensors.ptr(), i);
          const py::handle gradient = PyTuple_GET_ITEM(gradients.ptr(), i);
          py::object seed = seed_of(tensor.ptr(), gradient.ptr());
          if (!seed) seed = graph_attribute("_seed")(op, tensor, gradient);
          roots.push_back({edge_of(tensor), std::move(seed)});
        }
        const NoGrad no_grad;
        Walk walk(roots, retain_graph);
        if (inputs.is_none()) return walk.run(), py::none();
        std::vector<py::object> edges;
        for (py::handle input : inputs) edges.push_back(edge_of(input));
        py::tuple results(edges.size());
        size_t i = 0;
        for (py::object& gradient : walk.run_for(edges))
          results[i++] = gradient ? wrap(gradient.release().ptr()) : py::none();
        return results;
      },
      "Adds the gradients of the tensors, weighted by `gradients`, to the .grad of every leaf; "
      "with\n"
      "`inputs` no .grad changes: the result has their gradients, None where none arrived",
      py::arg("op"), py::arg("tensors"), py::arg("gradients"), py::arg("inputs"),
      py::arg("retain_graph"));
}

}  // namespace lamina::bindings
