#include "bindings/elementwise.h"

#include <cmath>
#include <map>

#include "bindings/calls.h"
#include "bindings/common.h"
#include "bindings/numpy_array.h"
#include "bindings/numpy_loops.h"
#include "bindings/on_processor.h"
#include "bindings/reductions.h"
#include "ops/epilogue_call.h"

namespace lamina::bindings {
namespace {

using Shape = std::vector<py::ssize_t>;

// y = f(a, b); shapes: of a and b in y.
template <class F>
void each(const Broadcast& shapes, const Array& a, const Array& b, const Array& y, F f) {
  visit_float(y, [&]<class T>(T) {
    map(shapes, checked_data<T>(a, "a", a.size()), checked_data<T>(b, "b", b.size()),
        checked_data<T>(y, "y", y.size()), f);
  });
}

// All of one shape.
template <class F>
void each(const Array& a, const Array& b, const Array& y, F f) {
  expect(a.size() == y.size() && b.size() == y.size(), "y", "has another size");
  each(Broadcast(y.size()), a, b, y, f);
}

constexpr auto kAdd = [](auto a, auto b) { return a + b; };
constexpr auto kMultiply = [](auto a, auto b) { return a * b; };
constexpr auto kDivide = [](auto a, auto b) { return a / b; };
constexpr auto kNegate = [](auto a, auto) { return -a; };
constexpr auto kTwice = [](auto a, auto b) { return (a / b) / b; };

// ---- Two operands, broadcast

// How the operands of a call meet, and what becomes of their gradients.
struct Pair {
  Broadcast both, whole_b, a_whole;  // shapes of (a, b), (result, b) and (a, result)
  bool is_whole[2];                  // whether an operand has the shape of the result
  Runs runs[2];                      // the axes along which its gradient is summed

  // The bits of operands whose gradients can be made.
  unsigned read(const Shape& y, const Shape& a, const Shape& b) {
    unsigned bits = 0;
    const Shape* const shapes[] = {&a, &b};
    for (int i : {0, 1}) {
      is_whole[i] = *shapes[i] == y;
      if (is_whole[i] || runs[i].read_broadcast(y, *shapes[i])) bits |= 1U << i;
    }
    return bits;
  }

  // make(place): the gradient in the shape of the result.
  template <class Make>
  void give(const Array& grad_y, Gradients& gradients, int operand, const Make& make) const {
    if (!gradients.wanted(operand)) return;
    if (is_whole[operand]) return make(gradients.make(operand));
    Array full;
    full.load(new_like(grad_y.object()));
    make(full);
    sum_runs(runs[operand], full, gradients.make(operand));
  }
  // The same of the incoming gradient itself.
  void pass(const Array& grad_y, Gradients& gradients, int operand) const {
    if (!gradients.wanted(operand)) return;
    if (is_whole[operand]) return gradients.share(operand, grad_y);
    sum_runs(runs[operand], grad_y, gradients.make(operand));
  }
};

void differentiate_arithmetic(char op, const Pair& pair, const Kept& kept, const Array& grad_y,
                              Gradients& gradients) {
  const auto &a = kept.operands[0], &b = kept.operands[1];
  const auto negated = [&](const Array& g) { each(grad_y, grad_y, g, kNegate); };
  switch (op) {
    case '+':
      pair.pass(grad_y, gradients, 0), pair.pass(grad_y, gradients, 1);
      return;
    case '-':
      pair.pass(grad_y, gradients, 0), pair.give(grad_y, gradients, 1, negated);
      return;
    case '*':
      pair.give(grad_y, gradients, 0,
                [&](const Array& g) { each(pair.whole_b, grad_y, *b, g, kMultiply); });
      pair.give(grad_y, gradients, 1,
                [&](const Array& g) { each(pair.a_whole, *a, grad_y, g, kMultiply); });
      return;
    default:
      pair.give(grad_y, gradients, 0,
                [&](const Array& g) { each(pair.whole_b, grad_y, *b, g, kDivide); });
      pair.give(grad_y, gradients, 1, [&](const Array& g) {
        each(pair.both, *a, *b, g, kTwice);
        each(grad_y, g, g, [](auto incoming, auto slope) { return -incoming * slope; });
      });
  }
}

// The extremum's gradient: equal operands share it, and beside a NaN both have it.
void differentiate_extremum(bool largest, const Pair& pair, const Kept& kept, const Array& grad_y,
                            Gradients& gradients) {
  const auto &a = *kept.operands[0], &b = *kept.operands[1];
  for (int i : {0, 1})
    pair.give(grad_y, gradients, i, [&](const Array& g) {
      each(pair.both, a, b, g, [=]<class T>(T x, T y) {
        const bool loses = (largest == (i == 0)) ? x < y : y < x;
        return x == y ? T(0.5) : loses ? T(0) : T(1);
      });
      each(grad_y, g, g,
           []<class T>(T incoming, T share) { return share == 0 ? T(0) : incoming * share; });
    });
}

void give_zeros(const Array&, const Array& grad_y, const Array& grad_x) {
  each(grad_y, grad_y, grad_x, []<class T>(T, T) { return T(0); });
}

// a^b: by a it is b a^(b - 1), 0 where b is; by b it is y log(a), 0 where a is and b is not
// negative.
void differentiate_power(const Pair& pair, const Kept& kept, const Array& grad_y,
                         Gradients& gradients) {
  const auto &a = *kept.operands[0], &b = *kept.operands[1];
  const auto like = [](const Array& array) {
    Array made;
    made.load(new_like(array.object()));
    return made;
  };
  pair.give(grad_y, gradients, 0, [&](const Array& g) {
    const Array less = like(b);
    each(b, b, less, [](auto exponent, auto) { return exponent - 1; });
    Loops::of("power").each(pair.both, a, &less, g);
    if (b.size() == 1)
      return visit_float(b, [&]<class T>(T) {
        const T exponent = *static_cast<const T*>(b.data());
        each(grad_y, g, g, [=](auto incoming, auto power) {
          return exponent == 0 ? T(0)
                               : static_cast<T>(incoming) * (exponent * static_cast<T>(power));
        });
      });
    each(pair.whole_b, g, b, g, kMultiply);
    each(grad_y, g, g, kMultiply);
    each(pair.whole_b, g, b, g,
         []<class T>(T slope, T exponent) { return exponent == 0 ? T(0) : slope; });
  });
  pair.give(grad_y, gradients, 1, [&](const Array& g) {
    const Array logs = like(a), constant = like(g);
    each_of(Loops::of("log"), a, logs);
    each(pair.a_whole, logs, kept.result, g, kMultiply);
    each(grad_y, g, g, kMultiply);
    each(pair.both, a, b, constant,
         []<class T>(T base, T exponent) { return base == 0 && exponent >= 0 ? T(1) : T(0); });
    each(constant, g, g, []<class T>(T is, T slope) { return is != 0 ? T(0) : slope; });
  });
}

Call binary_call(Shape shape, const std::string& op, const Shape& a, const Shape& b) {
  Call call;
  Pair pair{Broadcast(shape, {&a, &b}),
            Broadcast(shape, {nullptr, &b}),
            Broadcast(shape, {&a, nullptr}),
            {},
            {}};
  call.compiled = pair.read(shape, a, b);
  call.shape = std::move(shape);
  const Loops* const loops = &Loops::of(op.c_str());
  call.loops = loops->of_any_strides();
  call.run = [loops, both = pair.both](const Operands& given, const Array& y, Extras&) {
    loops->each(both, *given[0], &*given[1], y);
  };
  const auto differs_by = [&](char kind) {
    call.gradient = [kind, pair](const Kept& kept, const Array& grad_y, Gradients& gradients) {
      differentiate_arithmetic(kind, pair, kept, grad_y, gradients);
    };
  };
  if (op == "add") {
    differs_by('+');
  } else if (op == "subtract") {
    differs_by('-');
  } else if (op == "multiply") {
    differs_by('*');
    call.keeps_for[0] = operand_bits(1), call.keeps_for[1] = operand_bits(0);
  } else if (op == "divide") {
    differs_by('/');
    call.keeps = operand_bits(1), call.keeps_for[1] = operand_bits(0);
  } else if (op == "maximum" || op == "minimum") {
    call.gradient = [largest = op == "maximum", pair](const Kept& kept, const Array& grad_y,
                                                      Gradients& gradients) {
      differentiate_extremum(largest, pair, kept, grad_y, gradients);
    };
    call.keeps = operand_bits(0, 1);
  } else if (op == "floor_divide") {
    call.gradient = [pair](const Kept&, const Array& grad_y, Gradients& gradients) {
      for (int i : {0, 1})
        pair.give(grad_y, gradients, i, [&](const Array& g) { give_zeros(grad_y, grad_y, g); });
    };
  } else if (op == "remainder") {
    call.gradient = [pair](const Kept& kept, const Array& grad_y, Gradients& gradients) {
      pair.pass(grad_y, gradients, 0);
      pair.give(grad_y, gradients, 1, [&](const Array& g) {
        Loops::of("floor_divide").each(pair.both, *kept.operands[0], &*kept.operands[1], g);
        each(grad_y, g, g, [](auto incoming, auto quotient) { return -incoming * quotient; });
      });
    };
    call.keeps_for[1] = operand_bits(0, 1);
  } else if (op == "power") {
    call.gradient = [pair](const Kept& kept, const Array& grad_y, Gradients& gradients) {
      differentiate_power(pair, kept, grad_y, gradients);
    };
    call.keeps = operand_bits(0, 1), call.keeps_for[1] = kResult;
  } else {
    call.constant = true;  // comparisons
  }
  return call;
}

// ---- One operand

// y = f(x) by named loops; f' from x or y.
struct Unary {
  const char* loop;
  bool slope_of_y;
  // grad_x = grad_y * f'(saved); may use grad_x as room.
  void (*differentiate)(const Array& saved, const Array& grad_y, const Array& grad_x);
};

template <class F>
void times(const Array& saved, const Array& grad_y, const Array& grad_x, F slope) {
  each(grad_y, saved, grad_x, [slope](auto g, auto s) { return g * slope(s); });
}

#define LAMINA_SLOPE(...)                                                        \
  [](const Array& saved, const Array& grad_y, const Array& grad_x) {             \
    times(saved, grad_y, grad_x, []<class T>(T s) -> T { return __VA_ARGS__; }); \
  }

const std::map<std::string, Unary>& unary_functions() {
  static const auto& table = *new std::map<std::string, Unary>{
      {"exp", {"exp", true, LAMINA_SLOPE(s)}},
      {"expm1", {"expm1", true, LAMINA_SLOPE(s + 1)}},
      {"log", {"log", false, LAMINA_SLOPE(1 / s)}},
      {"log2", {"log2", false, LAMINA_SLOPE(1 / (s * T(0.693147180559945309417232121458)))}},
      {"log1p", {"log1p", false, LAMINA_SLOPE(1 / (1 + s))}},
      {"sqrt", {"sqrt", true, LAMINA_SLOPE(T(0.5) / s)}},
      {"rsqrt", {"rsqrt", true, LAMINA_SLOPE(T(-0.5) * (s * s * s))}},
      {"cube", {"cube", false, LAMINA_SLOPE(3 * (s * s))}},
      {"inverse_square", {"inverse_square", false, LAMINA_SLOPE(-2 / (s * s * s))}},
      {"tanh", {"tanh", true, LAMINA_SLOPE(1 - s * s)}},
      {"abs",
       {"absolute", false,
        LAMINA_SLOPE(s > 0   ? T(1)
                     : s < 0 ? T(-1)
                             : s)}},
      {"sign", {"sign", false, give_zeros}},
      {"floor", {"floor", false, give_zeros}},
      {"ceil", {"ceil", false, give_zeros}},
      {"round", {"rint", false, give_zeros}},
      {"sin",
       {"sin", false,
        [](const Array& saved, const Array& grad_y, const Array& grad_x) {
          each_of(Loops::of("cos"), saved, grad_x);
          each(grad_y, grad_x, grad_x, kMultiply);
        }}},
      {"cos",
       {"cos", false,
        [](const Array& saved, const Array& grad_y, const Array& grad_x) {
          each_of(Loops::of("sin"), saved, grad_x);
          each(grad_y, grad_x, grad_x, [](auto g, auto s) { return g * -s; });
        }}},
  };
  return table;
}

// y = x == 0, for which NumPy's loops of floats are faster.
void negate(const Array& x, const Array& y) {
  if (x.type() == ElementType::boolean) return each_of(Loops::of("logical_not"), x, y);
  Array zero;
  zero.load(new_array_or_throw({}, x.type()));
  std::fill_n(static_cast<char*>(zero.data()), zero.bytes(), '\0');
  const Shape shape = shape_of(x.object()), number;
  Loops::of("equal").each(Broadcast(shape, {&shape, &number}), x, &zero, y);
}

Call unary_call(Shape shape, const std::string& name) {
  const auto found = unary_functions().find(name);
  Call call;
  call.shape = std::move(shape);
  if (found == unary_functions().end()) {  // a test or a sign
    call.constant = true;
    if (name == "logical_not") {
      call.by_places = true;
      call.run = [](const Operands& given, const Array& y, Extras&) { negate(*given[0], y); };
      return call;
    }
    const Loops* const loops = &Loops::of(name.c_str());
    call.loops = loops->of_any_strides(), call.by_places = call.loops == nullptr;
    call.run = [loops](const Operands& given, const Array& y, Extras&) {
      each_of(*loops, *given[0], y);
    };
    return call;
  }
  const Unary unary = found->second;
  const Loops* const loops = &Loops::of(unary.loop);
  call.loops = loops->of_any_strides(), call.by_places = call.loops == nullptr;
  call.run = [loops](const Operands& given, const Array& y, Extras&) {
    each_of(*loops, *given[0], y);
  };
  call.gradient = [unary](const Kept& kept, const Array& grad_y, Gradients& gradients) {
    const Array& saved = unary.slope_of_y ? kept.result : *kept.operands[0];
    unary.differentiate(saved, grad_y, gradients.make(0));
  };
  call.keeps = unary.slope_of_y ? kResult : operand_bits(0);
  return call;
}

// x limited to [low, high], numbers or nothing. Throws for NaN.
Call clamp_call(Shape shape) {
  Call call;
  call.by_places = true;
  call.shape = std::move(shape);
  const auto limits = []<class T>(const Operands& given, T& low, T& high) {
    low = -std::numeric_limits<T>::infinity(), high = -low;
    if (given[1]) low = *checked_data<T>(*given[1], "min", 1);
    if (given[2]) high = *checked_data<T>(*given[2], "max", 1);
    if (low != low || high != high) throw std::domain_error("NaN");
  };
  call.run = [limits](const Operands& given, const Array& y, Extras&) {
    visit_float(y, [&]<class T>(T) {
      T low, high;
      limits(given, low, high);
      const OnProcessor processor;
      ops::ActivationArgs<T> args;
      args.kind = ops::Activation::hardtanh, args.a = std::min(low, high), args.b = high;
      args.size = y.size();
      args.x = checked_data<T>(*given[0], "x", args.size);
      args.result = checked_data<T>(y, "y", args.size);
      std::optional<py::gil_scoped_release> release;
      if (args.size > kRange / 4) release.emplace();
      ops::call_kernel(ops::find_kernel("activation", "fprop"), args);
    });
  };
  call.gradient = [limits](const Kept& kept, const Array& grad_y, Gradients& gradients) {
    visit_float(grad_y, [&]<class T>(T) {
      T low, high;
      limits(kept.operands, low, high);
      each(grad_y, *kept.operands[0], gradients.make(0), [=](auto g, auto x) {
        const bool inside = static_cast<T>(x) >= low && static_cast<T>(x) <= high;
        return inside ? static_cast<T>(g) : T(0);
      });
    });
  };
  call.keeps = operand_bits(0, 1, 2);
  call.compiled = operand_bits(0);
  return call;
}

// y = condition ? a : b, of elements as wide as W.
template <class W>
void choose(const Broadcast& shapes, const Array& condition, const void* a, const void* b,
            const Array& y) {
  const auto* const chosen = static_cast<const uint8_t*>(condition.data());
  const auto *const left = static_cast<const W*>(a), *const right = static_cast<const W*>(b);
  auto* const result = static_cast<W*>(y.data());
  const bool moves[] = {shapes.moves(0), shapes.moves(1), shapes.moves(2)};
  shapes.rows([=](const Broadcast::Place& place) {
    const uint8_t* const c = chosen + place.at[0];
    const W *const l = left + place.at[1], *const r = right + place.at[2];
    W* const out = result + place.y;
    const auto either = [c](int64_t i, W x, W y) {  // without a branch
      const W mask = static_cast<W>(-static_cast<W>(c[i] != 0));
      return static_cast<W>((x & mask) | (y & ~mask));
    };
    if (!moves[0])
      for (int64_t i = 0; i < place.count; ++i)
        out[i] = either(0, l[moves[1] ? i : 0], r[moves[2] ? i : 0]);
    else if (moves[1] && moves[2])
      for (int64_t i = 0; i < place.count; ++i) out[i] = either(i, l[i], r[i]);
    else if (moves[1])
      for (int64_t i = 0; i < place.count; ++i) out[i] = either(i, l[i], *r);
    else if (moves[2])
      for (int64_t i = 0; i < place.count; ++i) out[i] = either(i, *l, r[i]);
    else
      for (int64_t i = 0; i < place.count; ++i) out[i] = either(i, *l, *r);
  });
}

void choose_any(const Broadcast& shapes, const Array& condition, const void* a, const void* b,
                const Array& y) {
  switch (y.type()) {
    case ElementType::f32:
      return choose<uint32_t>(shapes, condition, a, b, y);
    case ElementType::boolean:
      return choose<uint8_t>(shapes, condition, a, b, y);
    default:
      return choose<uint64_t>(shapes, condition, a, b, y);
  }
}

Call where_call(Shape shape, const Shape& condition, const Shape& a, const Shape& b) {
  Call call;
  call.by_places = true;
  const Shape number;
  const Broadcast three(shape, {&condition, &a, &b}), left(shape, {&condition, nullptr, &number}),
      right(shape, {&condition, &number, nullptr});
  Pair pair{Broadcast(1), Broadcast(1), Broadcast(1), {}, {}};
  call.compiled = pair.read(shape, a, b) << 1;
  call.shape = std::move(shape);
  call.run = [three](const Operands& given, const Array& y, Extras&) {
    choose_any(three, *given[0], given[1]->data(), given[2]->data(), y);
  };
  call.gradient = [pair, left, right](const Kept& kept, const Array& grad_y, Gradients& gradients) {
    const double zero = 0;
    for (int i : {0, 1}) {
      if (!gradients.wanted(i + 1)) continue;
      const auto chosen = [&](const Array& g) {
        if (i == 0)
          choose_any(left, *kept.operands[0], grad_y.data(), &zero, g);
        else
          choose_any(right, *kept.operands[0], &zero, grad_y.data(), g);
      };
      if (pair.is_whole[i]) {
        chosen(gradients.make(i + 1));
        continue;
      }
      Array full;
      full.load(new_like(grad_y.object()));
      chosen(full);
      sum_runs(pair.runs[i], full, gradients.make(i + 1));
    }
  };
  call.keeps = operand_bits(0);
  return call;
}

}  // namespace

void add_arrays(PyObject* a, PyObject* b, PyObject* y) {
  Array left, right, result;
  left.load(a), right.load(b), result.load(y);
  each(left, right, result, kAdd);
}

LAMINA_BINDINGS(elementwise) {
  module.def("binary_call", &binary_call,
             "operands: a, b; op: NumPy's name of an arithmetic operation or comparison",
             py::arg("shape"), py::arg("op"), py::arg("a"), py::arg("b"));
  module.def("unary_call", &unary_call, "operands: x", py::arg("shape"), py::arg("name"));
  module.def("clamp_call", &clamp_call, "operands: x, min, max", py::arg("shape"));
  module.def("where_call", &where_call, "operands: condition, a, b", py::arg("shape"),
             py::arg("condition"), py::arg("a"), py::arg("b"));
  module.def(
      "negate_call",
      [](Shape shape) {
        Call call{std::move(shape),
                  [](const Operands& given, const Array& y, Extras&) {
                    each(*given[0], *given[0], y, kNegate);
                  },
                  [](const Kept&, const Array& grad_y, Gradients& gradients) {
                    each(grad_y, grad_y, gradients.make(0), kNegate);
                  }};
        call.by_places = true;
        return call;
      },
      "operands: x", py::arg("shape"));
}

}  // namespace lamina::bindings
