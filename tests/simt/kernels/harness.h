// What the test programs of the SIMT runtime share: named tests, arrays the checker knows,
// requirements.
//
// simt.h comes last: in the checking build `float` counts its operations from there on, and system
// headers must not see that.
#pragma once

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "simt/simt.h"

namespace harness {

struct Test {
  std::string name;
  void (*run)();
};
std::vector<Test>& tests();
bool add_test(const char* name, void (*run)());

// Adds results to the test's digest, which every schedule and number of threads must reproduce.
void digest(const void* data, size_t bytes);

[[noreturn]] void failed(const char* what, const char* file, int line);

// Memory of a kernel. An output starts as all ones (NaN), and must be written wholly.
template <class T>
class Array {
 public:
  Array(std::vector<T> values, const char* name, simt::Contents contents = simt::Contents::input)
      : values_(std::move(values)) {
    simt::register_memory(data(), bytes(), contents, name);
  }
  Array(size_t size, const char* name) : values_(size) {
    std::memset(static_cast<void*>(data()), 0xff, bytes());
    simt::register_memory(data(), bytes(), simt::Contents::output, name);
  }
  ~Array() { simt::unregister_memory(data()); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  T* data() { return values_.data(); }
  size_t bytes() const { return values_.size() * sizeof(T); }
  size_t size() const { return values_.size(); }
  const T& operator[](size_t i) const { return values_[i]; }
  void publish() { digest(data(), bytes()); }

 private:
  std::vector<T> values_;
};

template <class T>
std::vector<T> counting(size_t size, int step = 1) {
  std::vector<T> values(size);
  for (size_t i = 0; i < size; ++i) values[i] = T(static_cast<int>(i) * step);
  return values;
}

// Small integers without a pattern: sums of their products are exact in every format.
template <class T>
std::vector<T> integers(size_t size, unsigned seed) {
  std::vector<T> values(size);
  for (T& value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = T(static_cast<int>(seed >> 28) - 8);
  }
  return values;
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, Arguments&&... arguments) {
  simt::launch(kernel, grid, block, 0, nullptr, std::forward<Arguments>(arguments)...);
}

// The message of the Error that `body` must throw.
template <class Body>
std::string error_of(Body body) {
  try {
    body();
  } catch (const simt::Error& error) {
    return error.what();
  }
  throw std::runtime_error("no Error was thrown");
}

}  // namespace harness

#define TEST(name)                                                  \
  static void name();                                               \
  static const bool name##_added = harness::add_test(#name, &name); \
  static void name()
#define REQUIRE(condition) ((condition) ? (void)0 : harness::failed(#condition, __FILE__, __LINE__))

// A bug and its correction: the tests "name/broken" and "name/corrected" run name<true> and
// name<false>. Lines that the finding must name carry the comment "found: name".
#define PLANTED(name)                                                                   \
  template <bool BROKEN>                                                                \
  static void name();                                                                   \
  static const bool name##_added = harness::add_test(#name "/broken", &name<true>) &&   \
                                   harness::add_test(#name "/corrected", &name<false>); \
  template <bool BROKEN>                                                                \
  static void name()
