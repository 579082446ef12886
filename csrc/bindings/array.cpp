#include "bindings/array.h"

#include "bindings/numpy_array.h"

namespace lamina::bindings {
namespace {

ElementType numpy_type(PyObject* array) {
  const ElementType type = element_type_of(array);
  if (type != ElementType::other) return type;
  const auto dtype = py::reinterpret_borrow<py::array>(array).dtype();
  if (dtype.itemsize() != 2 || dtype.kind() == 'f') return ElementType::other;
  // ml_dtypes' extension of NumPy
  return py::str(dtype.attr("name")).cast<std::string>() == "bfloat16" ? ElementType::bf16
                                                                       : ElementType::other;
}

// The typestr of the interface; bfloat16 has none of its own and shows as two raw bytes.
ElementType cuda_type(const std::string& type) {
  if (type == "<f4") return ElementType::f32;
  if (type == "<f8") return ElementType::f64;
  if (type == "<f2") return ElementType::f16;
  if (type == "<V2") return ElementType::bf16;
  if (type == "<i8") return ElementType::i64;
  return type == "|u1" ? ElementType::u8 : ElementType::other;
}

}  // namespace

bool Array::load(py::handle object) {
  if (is_plain_array(object.ptr()) || py::isinstance<py::array>(object)) {
    load_numpy(object.ptr());
    return true;
  }
  const py::object interface = py::getattr(object, "__cuda_array_interface__", py::none());
  if (interface.is_none()) return false;
  owner_ = py::reinterpret_borrow<py::object>(object);
  load_cuda(interface);
  if (const py::object device = py::getattr(object, "device", py::none());
      py::hasattr(device, "id"))
    device_ = device.attr("id").cast<int>();
  return true;
}

void Array::load_numpy(PyObject* array) {
  const py::detail::PyArray_Proxy& proxy = fields(array);
  owner_ = py::reinterpret_borrow<py::object>(array);
  data_ = proxy.data;
  size_ = 1;
  for (int axis = 0; axis < proxy.nd; ++axis) size_ *= proxy.dimensions[axis];
  item_bytes_ = static_cast<size_t>(py::reinterpret_borrow<py::array>(array).itemsize());
  type_ = numpy_type(array);
  contiguous_ = (proxy.flags & py::array::c_style) != 0;
  writeable_ = (proxy.flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_) != 0;
  on_gpu_ = false;
}

// CUDA Array Interface, version 3.
void Array::load_cuda(const py::dict& interface) {
  const auto data = interface["data"].cast<std::pair<uintptr_t, bool>>();
  const auto shape = interface["shape"].cast<std::vector<int64_t>>();
  const auto type = interface["typestr"].cast<std::string>();
  data_ = reinterpret_cast<void*>(data.first);
  writeable_ = !data.second;
  on_gpu_ = true;
  type_ = cuda_type(type);
  item_bytes_ = std::stoul(type.substr(2));
  size_ = 1;
  for (int64_t extent : shape) size_ *= extent;
  contiguous_ = true;
  if (interface.contains("strides") && !interface["strides"].is_none()) {
    const auto strides = interface["strides"].cast<std::vector<int64_t>>();
    int64_t expected = static_cast<int64_t>(item_bytes_);
    for (size_t axis = shape.size(); axis-- > 0; expected *= shape[axis])
      if (shape[axis] > 1 && strides[axis] != expected) contiguous_ = size_ == 0;
  }
  // 1 is the legacy default stream, 2 the one of each thread, absent: no stream to wait for.
  if (interface.contains("stream") && !interface["stream"].is_none())
    stream_ = reinterpret_cast<void*>(interface["stream"].cast<uintptr_t>());
}

}  // namespace lamina::bindings
