// Errors that reach Python: std::invalid_argument becomes ValueError, TypeError becomes TypeError.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace lamina {

struct TypeError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <class... Parts>
std::string message(const char* op, const Parts&... parts) {
  std::ostringstream text;
  text << op << ": ";
  (text << ... << parts);
  return text.str();
}

}  // namespace lamina

// LAMINA_CHECK(op, condition, parts...): the message starts with the op's name.
#define LAMINA_CHECK(op, condition, ...) \
  if (!(condition)) throw std::invalid_argument(::lamina::message(op, __VA_ARGS__))
