#include "bindings/numpy_array.h"

#include <unistd.h>

#include "core/buffers.h"

namespace lamina::bindings {
namespace {

using Api = py::detail::npy_api;

// Smaller results come from NumPy's own allocator, whose memory is warm as well.
constexpr size_t kRecycledBytes = size_t{16} << 10;

size_t physical_memory() {
  static const size_t bytes =
      static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGE_SIZE));
  return bytes;
}

size_t element_bytes(ElementType type) {
  switch (type) {
    case ElementType::f64:
    case ElementType::i64:
      return 8;
    case ElementType::f32:
      return 4;
    case ElementType::f16:
      return 2;
    default:
      return 1;
  }
}

void give_back(PyObject* capsule) {
  const auto bytes = reinterpret_cast<uintptr_t>(PyCapsule_GetContext(capsule));
  give_buffer(PyCapsule_GetPointer(capsule, nullptr), bytes);
}

PyObject* recycled_array(PyObject* descr, int rank, const py::ssize_t* shape, size_t bytes) {
  Api& api = Api::get();
  void* buffer = nullptr;
  try {
    buffer = take_buffer(bytes);
  } catch (const std::bad_alloc&) {
    Py_DECREF(descr);
    return nullptr;
  }
  PyObject* const owner = PyCapsule_New(buffer, nullptr, &give_back);
  if (owner == nullptr) {
    give_buffer(buffer, bytes);
    Py_DECREF(descr);
    return nullptr;
  }
  PyCapsule_SetContext(owner, reinterpret_cast<void*>(bytes));
  PyObject* const array =
      api.PyArray_NewFromDescr_(api.PyArray_Type_, descr, rank, shape, nullptr, buffer,
                                Api::NPY_ARRAY_WRITEABLE_ | Api::NPY_ARRAY_ALIGNED_, nullptr);
  if (array == nullptr || api.PyArray_SetBaseObject_(array, owner) != 0) {
    if (array == nullptr) Py_DECREF(owner);  // SetBaseObject takes it even when it fails
    Py_XDECREF(array);
    return nullptr;
  }
  return array;
}

}  // namespace

ElementType element_type_of(PyObject* array) {
  const auto* descr = py::detail::array_descriptor_proxy(fields(array).descr);
  if (descr->byteorder == '>') return ElementType::other;
  switch (descr->type_num) {
    case Api::NPY_FLOAT_:
      return ElementType::f32;
    case Api::NPY_DOUBLE_:
      return ElementType::f64;
    case Api::NPY_LONG_:
      return sizeof(long) == 8 ? ElementType::i64 : ElementType::other;
    case Api::NPY_LONGLONG_:
      return ElementType::i64;
    case Api::NPY_UBYTE_:
      return ElementType::u8;
    case Api::NPY_BOOL_:
      return ElementType::boolean;
    case 23:  // NPY_HALF
      return ElementType::f16;
    default:
      return ElementType::other;
  }
}

int type_number(ElementType type) {
  switch (type) {
    case ElementType::f32:
      return Api::NPY_FLOAT_;
    case ElementType::f64:
      return Api::NPY_DOUBLE_;
    case ElementType::i64:
      return Api::NPY_INT64_;
    case ElementType::u8:
      return Api::NPY_UBYTE_;
    case ElementType::boolean:
      return Api::NPY_BOOL_;
    case ElementType::f16:
      return 23;
    default:
      return -1;
  }
}

bool is_only_reference([[maybe_unused]] PyObject* array, [[maybe_unused]] Py_ssize_t references) {
#ifdef Py_GIL_DISABLED
  return false;  // they are not counted in one place
#else
  constexpr int kOwnsData = 4;  // NPY_ARRAY_OWNDATA
  for (;;) {
    if (!is_plain_array(array) || Py_REFCNT(array) != references) return false;
    const auto* const weak_references = reinterpret_cast<PyObject* const*>(
        reinterpret_cast<char*>(array) + Py_TYPE(array)->tp_weaklistoffset);
    if (*weak_references != nullptr) return false;
    PyObject* const base = fields(array).base;
    if (base == nullptr) return (fields(array).flags & kOwnsData) != 0;
    if (PyCapsule_CheckExact(base))
      return PyCapsule_GetDestructor(base) == &give_back && Py_REFCNT(base) == 1;
    array = base, references = 1;
  }
#endif
}

PyObject* new_array(const py::ssize_t* shape, int rank, ElementType type) {
  const int number = type_number(type);
  if (number < 0) return nullptr;
  size_t bytes = element_bytes(type);
  for (int axis = 0; axis < rank; ++axis) {
    if (shape[axis] < 0) return nullptr;
    if (shape[axis] > 0 && bytes > physical_memory() / static_cast<size_t>(shape[axis]))
      return nullptr;
    bytes *= shape[axis] > 0 ? static_cast<size_t>(shape[axis]) : 1;
  }
  for (int axis = 0; axis < rank; ++axis)
    if (shape[axis] == 0) bytes = 0;
  Api& api = Api::get();
  PyObject* const descr = api.PyArray_DescrFromType_(number);
  PyObject* const array = bytes >= kRecycledBytes
                              ? recycled_array(descr, rank, shape, bytes)
                              : api.PyArray_NewFromDescr_(api.PyArray_Type_, descr, rank, shape,
                                                          nullptr, nullptr, 0, nullptr);
  if (array == nullptr) PyErr_Clear();
  return array;
}

py::object view_of(PyObject* array, int rank, const py::ssize_t* shape, const py::ssize_t* strides,
                   char* data) {
  Api& api = Api::get();
  const auto& proxy = fields(array);
  Py_INCREF(proxy.descr);
  auto view = py::reinterpret_steal<py::object>(
      api.PyArray_NewFromDescr_(api.PyArray_Type_, proxy.descr, rank, shape, strides, data,
                                proxy.flags & Api::NPY_ARRAY_WRITEABLE_, nullptr));
  if (!view || api.PyArray_SetBaseObject_(view.ptr(), Py_NewRef(array)) != 0)
    throw py::error_already_set();
  return view;
}

void copy_elements(PyObject* source, PyObject* target) {
  if (Api::get().PyArray_CopyInto_(target, source) != 0) throw py::error_already_set();
}

}  // namespace lamina::bindings
