// What a call is given: operands, their layouts, and the key by which a known call is found.
#pragma once

#include <vector>

#include "bindings/call_key.h"
#include "bindings/calls.h"

namespace lamina::bindings {

// What becomes of operands that are not in C order.
enum class Layouts {
  refused,     // Python must look at them
  copied,      // as loops over any strides take them, or C order, in new memory, if small
  transposed,  // matrices whose columns are in order become their transpose, others are copied
};
struct OperandRules {
  Py_ssize_t operands;
  bool numbers;  // whether floats and integers may be operands
  Layouts layouts;
};

struct Given {
  Key key;
  PyObject* arrays[kMaxOperands] = {};
  py::object made[kMaxOperands];  // arrays made of numbers and of other layouts
  // Bits of operands: those that are Tensors, and those that want a gradient.
  unsigned tensors = 0, recorded = 0;
  unsigned strided = 0;  // those that are not in C order
  // Of operands that lie in memory alike: their axes as they lie, outermost first; the arrays are
  // views in that order, and the result is to be one as well.
  std::vector<int> order;

  // What a recorded call keeps of operands and result.
  unsigned kept(const Call& call) const {
    unsigned bits = call.keeps;
    for (int i = 0; i < kMaxOperands; ++i)
      if ((recorded >> i & 1) != 0) bits |= call.keeps_for[i];
    return bits;
  }
};

// False for a call that Python must look at: other kinds of arrays, options that are no key.
bool read_arguments(const OperandRules& rules, PyObject* const* arguments, Py_ssize_t count,
                    Given& given);

// The axes of an array as they lie in memory, outermost first.
std::vector<int> memory_order(PyObject* array);

// Copies or turns what the call does not read as it is. False where Python must look at it.
bool arrange(const Call& call, Given& given);

// The result of a call: its memory, and as it is seen from outside.
py::object new_result(const Call& call, const Given& given, ElementType type);
py::object turned_back(const Call& call, const Given& given, py::object result);

}  // namespace lamina::bindings
