// What tells two calls apart: shapes and dtypes of the operands, values of the options.
#pragma once

#include <cstring>
#include <string_view>

#include "bindings/numpy_array.h"

namespace lamina::bindings {

class Key {
 public:
  void array(PyObject* array) {
    const py::detail::PyArray_Proxy& proxy = fields(array);
    put('a'), put(static_cast<char>(element_type_of(array))), put(static_cast<char>(proxy.nd));
    put(proxy.dimensions, sizeof(py::ssize_t) * static_cast<size_t>(proxy.nd));
  }
  void none() { put('n'); }
  void number() { put('#'); }
  void transposed() { put('T'); }

  // False for a kind of value that cannot be part of a key.
  bool value(PyObject* object) {
    if (object == Py_None) return none(), fits_;
    if (PyLong_CheckExact(object)) return put('i'), integer(object);
    if (PyBool_Check(object)) return put(object == Py_True ? 't' : 'f'), fits_;
    if (PyFloat_CheckExact(object)) {
      const double number = PyFloat_AS_DOUBLE(object);
      put('d'), put(&number, sizeof number);
      return fits_;
    }
    if (PyUnicode_CheckExact(object)) {
      Py_ssize_t length = 0;
      const char* const text = PyUnicode_AsUTF8AndSize(object, &length);
      if (text == nullptr) return PyErr_Clear(), false;
      put('s'), put(&length, sizeof length), put(text, static_cast<size_t>(length));
      return fits_;
    }
    if (PyTuple_CheckExact(object) || PyList_CheckExact(object)) {
      const Py_ssize_t length = PySequence_Fast_GET_SIZE(object);
      put(PyTuple_CheckExact(object) ? '(' : '['), put(&length, sizeof length);
      for (Py_ssize_t i = 0; i < length && fits_; ++i)
        if (!value(PySequence_Fast_GET_ITEM(object, i))) return false;
      return fits_;
    }
    return false;
  }

  bool fits() const { return fits_; }  // otherwise the text lacks something
  std::string_view text() const { return {bytes_, size_}; }

 private:
  bool integer(PyObject* object) {
    const long long number = PyLong_AsLongLong(object);
    if (number == -1 && PyErr_Occurred()) return PyErr_Clear(), false;
    put(&number, sizeof number);
    return fits_;
  }
  void put(char byte) { put(&byte, 1); }
  void put(const void* data, size_t size) {
    fits_ = fits_ && size <= sizeof bytes_ - size_;
    if (!fits_) return;
    std::memcpy(bytes_ + size_, data, size);
    size_ += size;
  }

  char bytes_[512];
  size_t size_ = 0;
  bool fits_ = true;
};

}  // namespace lamina::bindings
