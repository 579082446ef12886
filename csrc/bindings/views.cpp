// Operations whose result shows the memory of their operand: shapes, orders, slices.
//
// Plain C functions, made for one Function of Python each: _C.view("reshape", Reshape). They read
// an array of NumPy or a Tensor on one, of any strides, and the arguments as Python has them, and
// give None for whatever Python has to look at: other arrays, arguments that are not legal, results
// that need a copy.
//
// Gradients  of a reshaped array show the incoming gradient; those of an array in another order are
//            copied back; others are written through the same view of zeros.
#include <algorithm>
#include <cstring>

#include "bindings/calls.h"
#include "bindings/common.h"
#include "bindings/graph.h"
#include "bindings/numpy_array.h"
#include "bindings/strided_copy.h"

namespace lamina::bindings {
namespace {

constexpr int kMaxRank = 32;

struct Operand {
  PyObject *array = nullptr, *tensor = nullptr;
  bool recorded = false;

  int rank() const { return fields(array).nd; }
  const py::ssize_t* shape() const { return fields(array).dimensions; }
};

bool read(PyObject* object, Operand& x) {
  x.array = object;
  if (is_tensor(object)) {
    x.tensor = object, x.array = array_in(object);
    x.recorded = grad_enabled && requires_grad(object);
  }
  if (!is_plain_array(x.array) || x.rank() >= kMaxRank) return false;
  const ElementType type = element_type_of(x.array);
  if (x.recorded) return type == ElementType::f32 || type == ElementType::f64;
  const char kind = py::detail::array_descriptor_proxy(fields(x.array).descr)->kind;
  return kind == 'f' || kind == 'i' || kind == 'u' || kind == 'b';
}

// Axes in terms of an array's strides in bytes, of whatever layout.
struct View {
  int rank = 0;
  py::ssize_t offset = 0, shape[kMaxRank], strides[kMaxRank];

  void axis(py::ssize_t extent, py::ssize_t stride) {
    shape[rank] = extent, strides[rank] = stride;
    ++rank;
  }
  py::object of(PyObject* array) const {
    return view_of(array, rank, shape, strides, fields(array).data + offset);
  }
};

// The strides of C order.
void contiguous(int rank, const py::ssize_t* shape, py::ssize_t bytes, py::ssize_t* strides) {
  for (int axis = rank; axis-- > 0; bytes *= shape[axis]) strides[axis] = bytes;
}

py::ssize_t item_bytes(PyObject* array) {
  return py::reinterpret_borrow<py::array>(array).itemsize();
}

// How grad_y of the result becomes the gradient of the operand: in another shape, in another order
// of elements (`in_order` is grad_y's view then), or through the view of zeros.
enum class Back { reshape, order, zeros };

Call call_of(const View& in_order, Back back) {
  Call call;
  call.gradient = [in_order, back](const Kept&, const Array& grad_y, Gradients& gradients) {
    if (back == Back::reshape) {
      const auto& shape = gradients.shape(0);
      const int rank = static_cast<int>(shape.size());
      py::ssize_t strides[kMaxRank];
      contiguous(rank, shape.data(), item_bytes(grad_y.object()), strides);
      Array reshaped;
      reshaped.load(
          view_of(grad_y.object(), rank, shape.data(), strides, static_cast<char*>(grad_y.data())));
      return gradients.share(0, reshaped);
    }
    if (back == Back::order) {
      Array turned;
      turned.load(in_c_order(in_order.of(grad_y.object()).ptr()));
      return gradients.share(0, turned);
    }
    const Array& gradient = gradients.make(0);
    fill_zeros(gradient);
    copy_strided(grad_y.object(), in_order.of(gradient.object()).ptr());
  };
  return call;
}

// `make(strides, view)` fills the view from the operand's strides; false for what is not legal.
// order: the operand's axes, where the view has them in another order.
template <class Make>
PyObject* finish(py::handle function, const Operand& x, Back back, const Make& make,
                 const int* order = nullptr) {
  View view;
  if (!make(fields(x.array).strides, view)) Py_RETURN_NONE;
  py::object array = view.of(x.array);
  if (x.tensor == nullptr) return array.release().ptr();
  const py::object tensor = wrap(array.release().ptr());
  share_version(tensor, &x.tensor, 1);
  if (x.recorded) {
    View in_order;
    py::ssize_t strides[kMaxRank];
    contiguous(x.rank(), back == Back::order ? view.shape : x.shape(), item_bytes(x.array),
               strides);
    if (back != Back::reshape && order == nullptr && !make(strides, in_order)) Py_RETURN_NONE;
    if (order != nullptr) {
      in_order.rank = x.rank();
      for (int i = 0; i < x.rank(); ++i)
        in_order.shape[order[i]] = view.shape[i], in_order.strides[order[i]] = strides[i];
    }
    record_result(function, tensor, x.tensor, call_of(in_order, back));
  }
  return py::object(tensor).release().ptr();
}

// An integer itself; False and True are none.
bool integer(PyObject* object, py::ssize_t& value) {
  if (!PyLong_CheckExact(object)) return false;
  value = PyLong_AsSsize_t(object);
  if (value == -1 && PyErr_Occurred()) return PyErr_Clear(), false;
  return true;
}

bool dimension(PyObject* object, int rank, int& axis) {
  py::ssize_t value;
  if (!integer(object, value)) return false;
  if (value < 0) value += rank;
  axis = static_cast<int>(value);
  return 0 <= value && value < rank;
}

// The integers of f(2, 3) or of f((2, 3)).
bool integers(PyObject* const* given, Py_ssize_t count, py::ssize_t* values, int& length) {
  if (count == 1 && (PyTuple_CheckExact(given[0]) || PyList_CheckExact(given[0]))) {
    count = PySequence_Fast_GET_SIZE(given[0]);
    given = PySequence_Fast_ITEMS(given[0]);
  }
  if (count >= kMaxRank) return false;
  length = static_cast<int>(count);
  for (Py_ssize_t i = 0; i < count; ++i)
    if (!integer(given[i], values[i])) return false;
  return true;
}

PyObject* reshaped(py::handle function, const Operand& x, int rank, const py::ssize_t* shape) {
  if (!py::reinterpret_borrow<py::array>(x.array).size() ||
      (fields(x.array).flags & py::array::c_style) == 0)
    Py_RETURN_NONE;
  const py::ssize_t bytes = item_bytes(x.array);
  return finish(function, x, Back::reshape, [&](const py::ssize_t*, View& view) {
    view.rank = rank;
    std::copy(shape, shape + rank, view.shape);
    contiguous(rank, shape, bytes, view.strides);
    return true;
  });
}

// reshape(x, *shape), one extent may be -1
PyObject* reshape(py::handle function, PyObject* const* given, Py_ssize_t count) {
  Operand x;
  py::ssize_t shape[kMaxRank];
  int rank;
  if (count < 2 || !read(given[0], x) || !integers(given + 1, count - 1, shape, rank))
    Py_RETURN_NONE;
  const py::ssize_t size = py::reinterpret_borrow<py::array>(x.array).size();
  py::ssize_t product = 1, *free = nullptr;
  for (int axis = 0; axis < rank; ++axis) {
    if (shape[axis] == -1 && free == nullptr)
      free = shape + axis;
    else if (shape[axis] <= 0 || __builtin_mul_overflow(product, shape[axis], &product))
      Py_RETURN_NONE;
  }
  if (free != nullptr) *free = size / product, product *= *free;
  if (product != size) Py_RETURN_NONE;
  return reshaped(function, x, rank, shape);
}

// flatten(x, start, end)
PyObject* flatten(py::handle function, PyObject* const* given, Py_ssize_t count) {
  Operand x;
  int start, end;
  if (count != 3 || !read(given[0], x) || !dimension(given[1], x.rank(), start) ||
      !dimension(given[2], x.rank(), end) || start > end)
    Py_RETURN_NONE;
  py::ssize_t shape[kMaxRank];
  int rank = 0;
  for (int axis = 0; axis < x.rank(); ++axis)
    if (axis > start && axis <= end)
      shape[rank - 1] *= x.shape()[axis];
    else
      shape[rank++] = x.shape()[axis];
  return reshaped(function, x, rank, shape);
}

// squeeze(x, None or dimension); any strides
PyObject* squeeze(py::handle function, PyObject* const* given, Py_ssize_t count) {
  Operand x;
  int only = -1;
  if (count != 2 || !read(given[0], x) ||
      (given[1] != Py_None && !dimension(given[1], x.rank(), only)))
    Py_RETURN_NONE;
  return finish(function, x, Back::reshape, [&](const py::ssize_t* strides, View& view) {
    for (int axis = 0; axis < x.rank(); ++axis)
      if (x.shape()[axis] != 1 || (only >= 0 && axis != only))
        view.axis(x.shape()[axis], strides[axis]);
    return true;
  });
}

// unsqueeze(x, dimension of the result)
PyObject* unsqueeze(py::handle function, PyObject* const* given, Py_ssize_t count) {
  Operand x;
  int place;
  if (count != 2 || !read(given[0], x) || !dimension(given[1], x.rank() + 1, place)) Py_RETURN_NONE;
  const py::ssize_t bytes = item_bytes(x.array);
  return finish(function, x, Back::reshape, [&](const py::ssize_t* strides, View& view) {
    for (int axis = 0; axis < x.rank() + 1; ++axis) {
      if (axis == place) {  // the stride that C order has there
        const bool last = axis == x.rank();
        view.axis(1, last ? bytes : strides[axis] * x.shape()[axis]);
      }
      if (axis < x.rank()) view.axis(x.shape()[axis], strides[axis]);
    }
    return true;
  });
}

PyObject* permuted(py::handle function, const Operand& x, const int* order) {
  const auto make = [&](const py::ssize_t* strides, View& view) {
    for (int i = 0; i < x.rank(); ++i) view.axis(x.shape()[order[i]], strides[order[i]]);
    return true;
  };
  return finish(function, x, Back::order, make, order);
}

// permute(x, *dimensions)
PyObject* permute(py::handle function, PyObject* const* given, Py_ssize_t count) {
  Operand x;
  py::ssize_t dims[kMaxRank];
  int order[kMaxRank], length;
  if (count < 2 || !read(given[0], x) || !integers(given + 1, count - 1, dims, length) ||
      length != x.rank())
    Py_RETURN_NONE;
  unsigned seen = 0;
  for (int i = 0; i < length; ++i) {
    const py::ssize_t axis = dims[i] < 0 ? dims[i] + length : dims[i];
    if (axis < 0 || axis >= length || (seen >> axis & 1) != 0) Py_RETURN_NONE;
    seen |= 1U << axis, order[i] = static_cast<int>(axis);
  }
  return permuted(function, x, order);
}

// transpose(x, dimension, dimension)
PyObject* transpose(py::handle function, PyObject* const* given, Py_ssize_t count) {
  Operand x;
  int first, second, order[kMaxRank];
  if (count != 3 || !read(given[0], x) || !dimension(given[1], x.rank(), first) ||
      !dimension(given[2], x.rank(), second))
    Py_RETURN_NONE;
  for (int axis = 0; axis < x.rank(); ++axis) order[axis] = axis;
  std::swap(order[first], order[second]);
  return permuted(function, x, order);
}

// flip(x, *dimensions)
PyObject* flip(py::handle function, PyObject* const* given, Py_ssize_t count) {
  Operand x;
  py::ssize_t dims[kMaxRank];
  int length;
  if (count < 2 || !read(given[0], x) || !integers(given + 1, count - 1, dims, length) ||
      length == 0 || !py::reinterpret_borrow<py::array>(x.array).size())
    Py_RETURN_NONE;
  unsigned turned = 0;
  for (int i = 0; i < length; ++i) {
    const py::ssize_t axis = dims[i] < 0 ? dims[i] + x.rank() : dims[i];
    if (axis < 0 || axis >= x.rank() || (turned >> axis & 1) != 0) Py_RETURN_NONE;
    turned |= 1U << axis;
  }
  return finish(function, x, Back::order, [&](const py::ssize_t* strides, View& view) {
    for (int axis = 0; axis < x.rank(); ++axis) {
      const bool turns = (turned >> axis & 1) != 0;
      if (turns) view.offset += (x.shape()[axis] - 1) * strides[axis];
      view.axis(x.shape()[axis], turns ? -strides[axis] : strides[axis]);
    }
    return true;
  });
}

// expand(x, *shape) of what is not recorded; -1 keeps an extent
PyObject* expand(py::handle function, PyObject* const* given, Py_ssize_t count) {
  Operand x;
  py::ssize_t shape[kMaxRank];
  int rank;
  if (count < 2 || !read(given[0], x) || x.recorded ||
      !integers(given + 1, count - 1, shape, rank) || rank < x.rank())
    Py_RETURN_NONE;
  py::object result = py::reinterpret_steal<py::object>(
      finish(function, x, Back::zeros, [&](const py::ssize_t* strides, View& view) {
        const int added = rank - x.rank();
        for (int axis = 0; axis < rank; ++axis) {
          const py::ssize_t extent = axis < added ? 1 : x.shape()[axis - added];
          const bool keeps = shape[axis] == extent || (shape[axis] == -1 && axis >= added);
          if (!keeps && (extent != 1 || shape[axis] < 0)) return false;
          view.axis(keeps ? extent : shape[axis],
                    keeps && axis >= added ? strides[axis - added] : 0);
        }
        return true;
      }));
  // Several elements are one: as numpy.broadcast_to, which has no writable result.
  if (!result.is_none()) {
    PyObject* const array = x.tensor == nullptr ? result.ptr() : array_in(result);
    py::detail::array_proxy(array)->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
  }
  return result.release().ptr();
}

bool slice_of(PyObject* item, py::ssize_t extent, py::ssize_t stride, View& view) {
  auto* const slice = reinterpret_cast<PySliceObject*>(item);
  for (PyObject* part : {slice->start, slice->stop, slice->step})
    if (part != Py_None && !PyLong_CheckExact(part)) return false;
  py::ssize_t start, stop, step;
  if (PySlice_Unpack(item, &start, &stop, &step) != 0) return PyErr_Clear(), false;
  const py::ssize_t length = PySlice_AdjustIndices(extent, &start, &stop, step);
  if (length > 0) view.offset += start * stride;
  view.axis(length, stride * step);
  return true;
}

// index(x, key): integers, slices, ... and None, alone or in a tuple
PyObject* index(py::handle function, PyObject* const* given, Py_ssize_t count) {
  Operand x;
  if (count != 2 || !read(given[0], x)) Py_RETURN_NONE;
  PyObject* const* items = given + 1;
  Py_ssize_t length = 1, used = 0;
  if (PyTuple_CheckExact(given[1])) {
    items = reinterpret_cast<PyTupleObject*>(given[1])->ob_item;
    length = PyTuple_GET_SIZE(given[1]);
  }
  bool dots = false;
  for (Py_ssize_t i = 0; i < length; ++i) {
    if (items[i] == Py_Ellipsis) {
      if (dots) Py_RETURN_NONE;
      dots = true;
    } else if (items[i] != Py_None) {
      ++used;
    }
  }
  const int rank = x.rank();
  if (used > rank || length + rank >= kMaxRank) Py_RETURN_NONE;
  return finish(function, x, Back::zeros, [&](const py::ssize_t* strides, View& view) {
    int axis = 0;
    const auto keep = [&](int until) {
      for (; axis < until; ++axis) view.axis(x.shape()[axis], strides[axis]);
    };
    for (Py_ssize_t i = 0; i < length; ++i) {
      PyObject* const item = items[i];
      if (item == Py_Ellipsis) {
        keep(axis + rank - static_cast<int>(used));
      } else if (item == Py_None) {
        view.axis(1, 0);
      } else if (PySlice_Check(item)) {
        if (!slice_of(item, x.shape()[axis], strides[axis], view)) return false;
        ++axis;
      } else {
        py::ssize_t at;
        if (!integer(item, at)) return false;
        if (at < 0) at += x.shape()[axis];
        if (at < 0 || at >= x.shape()[axis]) return false;
        view.offset += at * strides[axis++];
      }
    }
    keep(rank);
    return true;
  });
}

// Elements start to start + length along one axis.
PyObject* narrowed(py::handle function, const Operand& x, int place, py::ssize_t start,
                   py::ssize_t length, bool drop = false) {
  return finish(function, x, Back::zeros, [&](const py::ssize_t* strides, View& view) {
    for (int axis = 0; axis < x.rank(); ++axis)
      if (axis != place || !drop)
        view.axis(axis == place ? length : x.shape()[axis], strides[axis]);
    if (length > 0) view.offset = start * strides[place];
    return true;
  });
}

// narrow(x, dimension, start, length)
PyObject* narrow(py::handle function, PyObject* const* given, Py_ssize_t count) {
  Operand x;
  int axis;
  py::ssize_t start, length;
  if (count != 4 || !read(given[0], x) || !dimension(given[1], x.rank(), axis) ||
      !integer(given[2], start) || !integer(given[3], length) || start < 0 || length < 0 ||
      start > x.shape()[axis] - length)
    Py_RETURN_NONE;
  return narrowed(function, x, axis, start, length);
}

// A tuple of what part(i) makes for i below count.
template <class Part>
PyObject* several(Py_ssize_t count, const Part& part) {
  py::object parts = stolen(PyTuple_New(count));
  for (Py_ssize_t i = 0; i < count; ++i)
    PyTuple_SET_ITEM(parts.ptr(), i, stolen(part(i)).release().ptr());
  return parts.release().ptr();
}

// split(x, size, dimension)
PyObject* split(py::handle function, PyObject* const* given, Py_ssize_t count) {
  Operand x;
  int axis;
  py::ssize_t size;
  if (count != 3 || !read(given[0], x) || !integer(given[1], size) || size < 1 ||
      !dimension(given[2], x.rank(), axis))
    Py_RETURN_NONE;
  const py::ssize_t extent = x.shape()[axis];
  return several(std::max<py::ssize_t>((extent + size - 1) / size, 1), [&](py::ssize_t i) {
    return narrowed(function, x, axis, i * size, std::min(size, extent - i * size));
  });
}

// unbind(x, dimension)
PyObject* unbind(py::handle function, PyObject* const* given, Py_ssize_t count) {
  Operand x;
  int axis;
  if (count != 2 || !read(given[0], x) || !dimension(given[1], x.rank(), axis)) Py_RETURN_NONE;
  return several(x.shape()[axis],
                 [&](py::ssize_t i) { return narrowed(function, x, axis, i, 1, true); });
}

template <PyObject* (*function)(py::handle, PyObject* const*, Py_ssize_t)>
PyObject* method(PyObject* self, PyObject* const* given, Py_ssize_t count) {
  return python_result([&] { return stolen(function(self, given, count)); });
}

template <PyObject* (*function)(py::handle, PyObject* const*, Py_ssize_t)>
PyMethodDef definition(const char* name) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&method<function>)),
          METH_FASTCALL, nullptr};
}

PyMethodDef definitions[] = {
    definition<reshape>("reshape"), definition<flatten>("flatten"),
    definition<squeeze>("squeeze"), definition<unsqueeze>("unsqueeze"),
    definition<permute>("permute"), definition<transpose>("transpose"),
    definition<expand>("expand"),   definition<index>("index"),
    definition<narrow>("narrow"),   definition<split>("split"),
    definition<unbind>("unbind"),   definition<flip>("flip"),
};

}  // namespace

LAMINA_BINDINGS(views) {
  module.def(
      "view",
      [](const std::string& name, const py::object& function) {
        for (PyMethodDef& one : definitions)
          if (name == one.ml_name) return stolen(PyCFunction_New(&one, function.ptr()));
        throw std::logic_error("internal: unknown view " + name);
      },
      "A function of an array or Tensor, recorded as `function`; None: Python must look at it",
      py::arg("name"), py::arg("function"));
}

}  // namespace lamina::bindings
