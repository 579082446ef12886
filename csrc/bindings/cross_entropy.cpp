#include <algorithm>
#include <array>
#include <atomic>
#include <numeric>
#include <type_traits>
#include <vector>

#include "bindings/calls.h"
#include "bindings/common.h"
#include "bindings/numpy_array.h"
#include "bindings/on_processor.h"
#include "bindings/softmax.h"
#include "core/threads.h"
#include "ops/softmax.h"

LAMINA_ARGS(CrossEntropyArgs)

namespace lamina::bindings {
namespace {

constexpr int64_t kGrain = 16384;                     // elements a task
constexpr int64_t kBeyondCaches = int64_t{16} << 20;  // bytes

// bad [1], -1 before, becomes the first position with a target outside the classes, if there is
// one.
void cross_entropy(const Array& x, const Array& target, const std::optional<Array>& weight,
                   const std::optional<Array>& grad_loss, const Array& result, int64_t n, int64_t c,
                   int64_t inner, int64_t ignore_index, double label_smoothing, const Array& bad) {
  visit_dtype(result, [&]<class T>(T) {
    ops::CrossEntropyArgs<T> args;
    args.n = n, args.c = c, args.inner = inner, args.ignore_index = ignore_index;
    args.label_smoothing = static_cast<ops::Scalar<T>>(label_smoothing);
    args.x = input<T>(x, "x", n * c * inner);
    args.target = input<int64_t>(target, "target", n * inner);
    args.weight = optional_input<T>(weight, "weight", c);
    args.grad_loss = optional_input<T>(grad_loss, "grad_loss", n * inner);
    // Left as it is by a bad target; dgrad sees targets that fprop has passed.
    args.result = grad_loss ? output<T>(result, "result", n * c * inner)
                            : in_out<T>(result, "result", n * inner);
    args.bad = in_out<int64_t>(bad, "bad", 1);
    py::gil_scoped_release release;
    ops::run("cross_entropy", grad_loss ? "dgrad" : "fprop", args);
  });
}

// Calls body(position, place in [n][c][inner], class) for all targets [n][inner], place -1 for
// those ignored. Returns the first position whose target is no class, which is left out, or -1.
// Places in `values`, if they are no nullptr, are asked for before: the hardware does not see them
// coming.
template <class Values, class Body>
int64_t for_each_target(const int64_t* targets, Values values, int64_t n, int64_t c, int64_t inner,
                        int64_t ignore_index, const Body& body) {
  constexpr int64_t kAhead = 64;
  const auto ask = [=]([[maybe_unused]] int64_t line, [[maybe_unused]] int64_t i,
                       [[maybe_unused]] int64_t t) {
    if constexpr (!std::is_null_pointer_v<Values>) {
      const uint64_t place = (uint64_t(line * c) + uint64_t(t)) * uint64_t(inner) + uint64_t(i);
      __builtin_prefetch(
          reinterpret_cast<const void*>(uintptr_t(values) + place * sizeof(*values)));
    }
  };
  std::atomic<int64_t> bad{-1};
  const auto note = [&](int64_t position) {
    int64_t before = bad;
    while ((before < 0 || position < before) && !bad.compare_exchange_weak(before, position)) {
    }
  };
  parallel_ranges(n * inner, kGrain, [&](int64_t begin, int64_t end) {
    int64_t line = begin / inner, i = begin - line * inner;
    for (int64_t position = begin; position < end; ++position) {
      const int64_t t = targets[position];
      if (!std::is_null_pointer_v<Values> && position + kAhead < end) {
        if (inner == 1)
          ask(position + kAhead, 0, targets[position + kAhead]);
        else if (i + kAhead < inner)
          ask(line, i + kAhead, targets[position + kAhead]);
      }
      if (t == ignore_index)
        body(position, int64_t{-1}, t);
      else if (t < 0 || t >= c)
        note(position);
      else
        body(position, (line * c + t) * inner + i, t);
      if (++i == inner) ++line, i = 0;
    }
  });
  return bad;
}

// loss = -weight[t] x[t], or with grad_loss the gradient of x; 0 for what is ignored. Returns the
// first position with a target outside the classes, or -1.
int64_t nll(const std::optional<Array>& x, const Array& target, const std::optional<Array>& weight,
            const std::optional<Array>& grad_loss, const Array& result, int64_t n, int64_t c,
            int64_t inner, int64_t ignore_index) {
  int64_t bad = -1;
  visit_float(result, [&]<class T>(T) {
    const int64_t size = n * c * inner;
    const int64_t* const targets = checked_data<int64_t>(target, "target", n * inner);
    const T* const weights = weight ? checked_data<T>(*weight, "weight", c) : nullptr;
    const auto factor = [=](int64_t t) { return weights == nullptr ? T(1) : weights[t]; };
    if (!grad_loss) {
      const T* const logs = checked_data<T>(*x, "x", size);
      T* const losses = checked_data<T>(result, "result", n * inner);
      const auto put = [=](int64_t position, int64_t place, int64_t t) {
        losses[position] = place < 0 ? T(0) : -factor(t) * logs[place];
      };
      bad = size * int64_t{sizeof(T)} >= kBeyondCaches
                ? for_each_target(targets, logs, n, c, inner, ignore_index, put)
                : for_each_target(targets, nullptr, n, c, inner, ignore_index, put);
      return;
    }
    const T* const grads = checked_data<T>(*grad_loss, "grad_loss", n * inner);
    T* const grad_x = checked_data<T>(result, "result", size);
    parallel_ranges(size, kGrain, [=](int64_t begin, int64_t end) {
      std::fill(grad_x + begin, grad_x + end, T(0));
    });
    const auto put = [=](int64_t position, int64_t place, int64_t t) {
      if (place >= 0) grad_x[place] = -factor(t) * grads[position];
    };
    bad = for_each_target(targets, nullptr, n, c, inner, ignore_index, put);
  });
  return bad;
}

// The sums of term(i, sums) over [0, size), in double: kChains of neighbours side by side, blocks
// of kGrain one behind the other.
template <size_t Sums, class Term>
std::array<double, Sums> sums_of(int64_t size, const Term& term) {
  constexpr int64_t kChains = 8;
  using Chains = std::array<std::array<double, kChains>, Sums>;
  std::vector<std::array<double, Sums>> blocks(static_cast<size_t>((size + kGrain - 1) / kGrain));
  parallel_ranges(size, kGrain, [&](int64_t begin, int64_t end) {
    Chains chains = {};
    const auto add = [&](int64_t i, int64_t chain) {
      const std::array<double, Sums> terms = term(i);
      for (size_t s = 0; s < Sums; ++s) chains[s][static_cast<size_t>(chain)] += terms[s];
    };
    int64_t i = begin;
    for (; i + kChains <= end; i += kChains)
      for (int64_t chain = 0; chain < kChains; ++chain) add(i + chain, chain);
    for (; i < end; ++i) add(i, 0);
    for (size_t s = 0; s < Sums; ++s)
      blocks[static_cast<size_t>(begin / kGrain)][s] =
          std::accumulate(chains[s].begin(), chains[s].end(), 0.0);
  });
  std::array<double, Sums> total = {};
  for (const auto& block : blocks)
    for (size_t s = 0; s < Sums; ++s) total[s] += block[s];
  return total;
}

// total [] = the sum of the losses; mean: over that of the weights of the targets that count, which
// is what `divisor` [1] becomes.
void reduce_loss(const Array& loss, const Array& target, const std::optional<Array>& weight,
                 int64_t ignore_index, bool mean, const Array& total, const Array& divisor) {
  visit_float(loss, [&]<class T>(T) {
    const int64_t size = loss.size(), classes = weight ? weight->size() : 0;
    const T* const losses = checked_data<T>(loss, "loss", size);
    const int64_t* const targets = checked_data<int64_t>(target, "target", size);
    const T* const weights = weight ? checked_data<T>(*weight, "weight", classes) : nullptr;
    const auto weigh = [=](const auto& weight_of) {
      return sums_of<2>(size, [=](int64_t i) {
        const bool counts = targets[i] != ignore_index;
        return std::array{static_cast<double>(losses[i]), counts ? weight_of(targets[i]) : 0.0};
      });
    };
    const auto [sum, share] = weights == nullptr
                                  ? weigh([](int64_t) { return 1.0; })
                                  : weigh([=](int64_t t) { return double(weights[t]); });
    *checked_data<T>(divisor, "divisor", 1) = static_cast<T>(mean ? share : 1);
    // No target that counts: NaN, as in PyTorch.
    *checked_data<T>(total, "total", 1) = static_cast<T>(mean ? sum / share : sum);
  });
}

// The gradient of each loss from that of their sum or mean.
Array spread(const Array& grad, const Array& divisor, py::ssize_t size) {
  const Array result = new_vector(size, grad.type());
  visit_float(grad, [&]<class T>(T) {
    T* const values = checked_data<T>(result, "grad_loss", size);
    const T share = *checked_data<T>(grad, "grad", 1) / *checked_data<T>(divisor, "divisor", 1);
    parallel_ranges(size, kGrain, [=](int64_t begin, int64_t end) {
      std::fill(values + begin, values + end, share);
    });
  });
  return result;
}

Array no_position() {
  const Array bad = new_vector(1, ElementType::i64);
  *static_cast<int64_t*>(bad.data()) = -1;
  return bad;
}

void refuse_position(const std::string& op, int64_t position) {
  if (position >= 0)
    throw std::invalid_argument(op + ": target " + std::to_string(position) +
                                " is no class; it was written after forward");
}

// evaluate(operands x, target and weight; grad_loss or nothing; the losses or the gradient of x)
// throws for targets that are no class.
template <class Evaluate>
Call class_loss_call(std::vector<py::ssize_t> shape, int64_t positions, int64_t ignore_index,
                     const std::string& reduction, unsigned keeps, const Evaluate& evaluate) {
  const bool reduced = reduction != "none", mean = reduction == "mean";
  return {std::move(shape),
          [=](const Operands& given, const Array& y, Extras& extras) {
            const Array loss = reduced ? new_vector(positions, y.type()) : y;
            evaluate(given, std::nullopt, loss);
            if (!reduced) return;
            extras[0] = new_vector(1, y.type());
            reduce_loss(loss, *given[1], given[2], ignore_index, mean, y, extras[0]);
          },
          [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
            const Array grad = reduced ? spread(grad_y, kept.extras[0], positions) : grad_y;
            evaluate(kept.operands, grad, gradients.make(0));
          },
          keeps,
          {},
          operand_bits(0)};
}

Call cross_entropy_call(std::vector<py::ssize_t> shape, int64_t n, int64_t c, int64_t inner,
                        int64_t ignore_index, double label_smoothing,
                        const std::string& reduction) {
  const auto evaluate = [=](const Operands& given, const std::optional<Array>& grad_loss,
                            const Array& result) {
    const Array bad = no_position();
    cross_entropy(*given[0], *given[1], given[2], grad_loss, result, n, c, inner, ignore_index,
                  label_smoothing, bad);
    refuse_position("cross_entropy", *static_cast<const int64_t*>(bad.data()));
  };
  return class_loss_call(std::move(shape), n * inner, ignore_index, reduction,
                         operand_bits(0, 1, 2), evaluate);
}

Call nll_call(std::vector<py::ssize_t> shape, int64_t n, int64_t c, int64_t inner,
              int64_t ignore_index, const std::string& reduction) {
  const auto evaluate = [=](const Operands& given, const std::optional<Array>& grad_loss,
                            const Array& result) {
    refuse_position("nll_loss", nll(given[0], *given[1], given[2], grad_loss, result, n, c, inner,
                                    ignore_index));
  };
  return class_loss_call(std::move(shape), n * inner, ignore_index, reduction, operand_bits(1, 2),
                         evaluate);
}

// ---- Targets that are probabilities: loss = -sum over classes of weight q' log p, where q' is
// (1 - smoothing) q + smoothing / c.

struct Probabilities {
  int64_t n, c, inner;
  double smoothing;
  bool reduced, mean;

  Probabilities(int64_t n, int64_t c, int64_t inner, double smoothing, const std::string& reduction)
      : n(n),
        c(c),
        inner(inner),
        smoothing(smoothing),
        reduced(reduction != "none"),
        mean(reduction == "mean") {}

  int64_t size() const { return n * c * inner; }
  double divisor() const { return mean ? static_cast<double>(n * inner) : 1; }
  template <class T>
  T kept() const {
    return T(1 - smoothing);
  }
  template <class T>
  T added() const {
    return T(smoothing / static_cast<double>(std::max<int64_t>(c, 1)));
  }
  // Calls body(first element, class, of `count` elements whose class follows it): rows of `inner`
  // elements of one class, or of all classes where inner is 1.
  template <class Body>
  void for_each_row(const Body& body) const {
    const int64_t row = inner == 1 ? c : inner, rows = row > 0 ? size() / row : 0;
    parallel_ranges(rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(row, 1)),
                    [&](int64_t begin, int64_t end) {
                      for (int64_t i = begin; i < end; ++i)
                        body(i * row, inner == 1 ? 0 : i % c, row);
                    });
  }

  // The losses [n][inner], or what they are reduced to.
  void losses(const Array& q, const std::optional<Array>& weight, const Array& log_p,
              const Array& result) const {
    visit_float(q, [&]<class T>(T) {
      const int64_t positions = n * inner;
      const Array all = reduced ? new_vector(positions, q.type()) : result;
      T* const loss = checked_data<T>(all, "loss", positions);
      const T* const targets = checked_data<T>(q, "q", size());
      const T* const logs = checked_data<T>(log_p, "log_p", size());
      const T* const weights = weight ? checked_data<T>(*weight, "weight", c) : nullptr;
      const T keep = kept<T>(), add = added<T>();
      // Neighbouring positions side by side, or as many of the classes of one.
      constexpr int64_t kTile = 64;
      const int64_t tile = std::min(kTile, inner),
                    tiles = inner > 0 ? (inner + tile - 1) / tile : 0;
      // Terms first, then sums: loops that a compiler makes vectors of.
      const auto add_terms = [=, this](double* sums, int64_t at, int64_t j, int64_t count) {
        T terms[kTile];
        const int64_t step = inner == 1 ? 1 : 0;
        for (int64_t i = 0; i < count; ++i) terms[i] = keep * targets[at + i] + add;
        if (weights)
          for (int64_t i = 0; i < count; ++i) terms[i] *= weights[j + i * step];
        for (int64_t i = 0; i < count; ++i) terms[i] *= logs[at + i];
        for (int64_t i = 0; i < count; ++i) sums[i] += static_cast<double>(terms[i]);
      };
      const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, tile * c));
      parallel_ranges(n * tiles, grain, [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) {
          const int64_t line = task / tiles, first = task % tiles * tile;
          const int64_t count = std::min(tile, inner - first), at = line * c * inner + first;
          double sums[kTile] = {};
          if (inner == 1) {
            for (int64_t j = 0; j < c; j += kTile)
              add_terms(sums, at + j, j, std::min(kTile, c - j));
            for (int64_t width = kTile / 2; width > 0; width /= 2)
              for (int64_t i = 0; i < width; ++i) sums[i] += sums[width + i];
          } else {
            for (int64_t j = 0; j < c; ++j) add_terms(sums, at + j * inner, j, count);
          }
          for (int64_t i = 0; i < count; ++i)
            loss[line * inner + first + i] = static_cast<T>(-sums[i]);
        }
      });
      if (!reduced) return;
      const auto [total] =
          sums_of<1>(positions, [=](int64_t i) { return std::array{double(loss[i])}; });
      *checked_data<T>(result, "result", 1) = static_cast<T>(total / divisor());
    });
  }

  // The gradient of x, or of q.
  void gradient(const Array& q, const std::optional<Array>& weight, const Array& log_p,
                const Array& grad_y, bool of_target, const Array& result) const {
    visit_float(q, [&]<class T>(T) {
      const T* const grads = checked_data<T>(grad_y, "grad_y", reduced ? 1 : n * inner);
      const T one = reduced ? *grads / T(divisor()) : T(0);
      const T* const targets = checked_data<T>(q, "q", size());
      const T* const logs = checked_data<T>(log_p, "log_p", size());
      const T* const weights = weight ? checked_data<T>(*weight, "weight", c) : nullptr;
      const T keep = kept<T>(), add = added<T>();
      // Of x that of log p first, which the gradient of log softmax reads.
      Array by_log = result;
      if (!of_target) by_log.load(new_like(result.object()));
      T* const out = checked_data<T>(by_log, "result", size());
      for_each_row([&](int64_t at, int64_t j, int64_t count) {
        const T* const incoming = grads + (reduced ? 0 : at / (c * inner) * inner);
        const auto write = [&](auto value) {
          for (int64_t i = 0; i < count; ++i) {
            const int64_t k = inner == 1 ? i : j;
            const T g = reduced ? one : incoming[inner == 1 ? 0 : i];
            out[at + i] = -g * ((weights ? weights[k] : T(1)) * value(at + i));
          }
        };
        if (of_target)
          write([=](int64_t i) { return keep * logs[i]; });
        else
          write([=](int64_t i) { return keep * targets[i] + add; });
      });
      if (!of_target) softmax(n, c, inner, true, log_p, by_log, result);
    });
  }
};

Call probability_call(std::vector<py::ssize_t> shape, int64_t n, int64_t c, int64_t inner,
                      double smoothing, const std::string& reduction) {
  const Probabilities loss(n, c, inner, smoothing, reduction);
  return {std::move(shape),
          [=](const Operands& given, const Array& y, Extras& extras) {
            extras[0].load(new_like(given[0]->object()));
            softmax(n, c, inner, true, *given[0], {}, extras[0]);
            loss.losses(*given[1], given[2], extras[0], y);
          },
          [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
            for (int i : {0, 1})
              if (gradients.wanted(i))
                loss.gradient(*kept.operands[1], kept.operands[2], kept.extras[0], grad_y, i == 1,
                              gradients.make(i));
          },
          operand_bits(1, 2),
          {},
          operand_bits(0, 1)};
}

}  // namespace

LAMINA_BINDINGS(cross_entropy) {
  using Optional = std::optional<Array>;
  module.def("cross_entropy", &cross_entropy, py::arg("x"), py::arg("target"), py::arg("weight"),
             py::arg("grad_loss"), py::arg("result"), py::arg("n"), py::arg("c"), py::arg("inner"),
             py::arg("ignore_index"), py::arg("label_smoothing"), py::arg("bad"));
  module.def("reduce_loss", &reduce_loss, py::arg("loss"), py::arg("target"), py::arg("weight"),
             py::arg("ignore_index"), py::arg("mean"), py::arg("total"), py::arg("divisor"));
  module.def("cross_entropy_call", &cross_entropy_call, "operands: x, target, weight",
             py::arg("shape"), py::arg("n"), py::arg("c"), py::arg("inner"),
             py::arg("ignore_index"), py::arg("label_smoothing"), py::arg("reduction"));
  module.def("nll", &nll, "Returns the first position whose target is no class, or -1",
             py::arg("x"), py::arg("target"), py::arg("weight"), py::arg("grad_loss"),
             py::arg("result"), py::arg("n"), py::arg("c"), py::arg("inner"),
             py::arg("ignore_index"));
  module.def("nll_call", &nll_call, "operands: x, target, weight", py::arg("shape"), py::arg("n"),
             py::arg("c"), py::arg("inner"), py::arg("ignore_index"), py::arg("reduction"));
  module.def(
      "probability_loss",
      [](const Array& q, const Optional& weight, const Array& log_p, const Array& result, int64_t n,
         int64_t c, int64_t inner, double smoothing, const std::string& reduction) {
        Probabilities(n, c, inner, smoothing, reduction).losses(q, weight, log_p, result);
      },
      py::arg("q"), py::arg("weight"), py::arg("log_p"), py::arg("result"), py::arg("n"),
      py::arg("c"), py::arg("inner"), py::arg("smoothing"), py::arg("reduction"));
  module.def(
      "probability_gradient",
      [](const Array& q, const Optional& weight, const Array& log_p, const Array& grad_y,
         bool of_target, const Array& result, int64_t n, int64_t c, int64_t inner, double smoothing,
         const std::string& reduction) {
        Probabilities(n, c, inner, smoothing, reduction)
            .gradient(q, weight, log_p, grad_y, of_target, result);
      },
      "Of x, or of the target", py::arg("q"), py::arg("weight"), py::arg("log_p"),
      py::arg("grad_y"), py::arg("of_target"), py::arg("result"), py::arg("n"), py::arg("c"),
      py::arg("inner"), py::arg("smoothing"), py::arg("reduction"));
  module.def("probability_call", &probability_call, "operands: x, target, weight", py::arg("shape"),
             py::arg("n"), py::arg("c"), py::arg("inner"), py::arg("smoothing"),
             py::arg("reduction"));
}

}  // namespace lamina::bindings
