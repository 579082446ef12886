// Recurrent cells, reference: the formulas of ops/rnn.h, element by element in double.
#include "ops/rnn.h"

#include <cmath>

#include "ops/instantiate.h"

namespace lamina::ref {
namespace {

using ops::GruCellArgs;
using ops::LstmCellArgs;

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}
double slope(double gate) {  // of sigmoid, from its value
  return gate * (1 - gate);
}

template <class T>
double peephole(const LstmCellArgs<T>& args, int64_t row, int64_t j) {
  return args.peephole ? static_cast<double>(args.peephole[row * args.hidden + j]) : 0;
}

}  // namespace

template <class T>
void lstm_cell_fprop_fused(const LstmCellArgs<T>& args) {
  for (int64_t n = 0; n < args.n; ++n)
    for (int64_t j = 0; j < args.hidden; ++j) {
      const int64_t at = n * args.hidden + j;
      auto gate = [&](int64_t g) -> T& {
        return args.gates[(n * args.gate_count() + g) * args.hidden + j];
      };
      const double c = args.c[at];
      const double i = sigmoid(gate(args.i()) + peephole(args, 0, j) * c);
      const double f = args.coupled ? 1 - i : sigmoid(gate(args.f()) + peephole(args, 1, j) * c);
      const double g = std::tanh(static_cast<double>(gate(args.g())));
      const double new_c = f * c + i * g;
      const double o = sigmoid(gate(args.o()) + peephole(args, args.peephole_o(), j) * new_c);
      if (!args.coupled) gate(args.f()) = static_cast<T>(f);
      gate(args.i()) = static_cast<T>(i), gate(args.g()) = static_cast<T>(g);
      gate(args.o()) = static_cast<T>(o);
      args.new_c[at] = static_cast<T>(new_c);
      args.h[at] = static_cast<T>(o * std::tanh(new_c));
    }
}

template <class T>
void lstm_cell_dgrad_fused(const LstmCellArgs<T>& args) {
  for (int64_t j = 0; j < args.hidden; ++j) {
    double sums[3] = {};
    for (int64_t n = 0; n < args.n; ++n) {
      const int64_t at = n * args.hidden + j;
      auto place = [&](int64_t g) { return (n * args.gate_count() + g) * args.hidden + j; };
      const double i = args.gates[place(args.i())], g = args.gates[place(args.g())];
      const double f = args.coupled ? 1 - i : static_cast<double>(args.gates[place(args.f())]);
      const double o = args.gates[place(args.o())], c = args.c[at];
      const double t = std::tanh(static_cast<double>(args.new_c[at]));
      const double d_o = args.grad_h[at] * t * slope(o);
      const double d_c = args.grad_new_c[at] + args.grad_h[at] * o * (1 - t * t) +
                         d_o * peephole(args, args.peephole_o(), j);
      const double d_i = d_c * (args.coupled ? g - c : g) * slope(i);
      const double d_f = args.coupled ? 0 : d_c * c * slope(f);
      args.grad_gates[place(args.i())] = static_cast<T>(d_i);
      if (!args.coupled) args.grad_gates[place(args.f())] = static_cast<T>(d_f);
      args.grad_gates[place(args.g())] = static_cast<T>(d_c * i * (1 - g * g));
      args.grad_gates[place(args.o())] = static_cast<T>(d_o);
      double through = d_c * f + d_i * peephole(args, 0, j);
      if (!args.coupled) through += d_f * peephole(args, 1, j);
      args.grad_c[at] = static_cast<T>(through);
      sums[0] += d_i * c, sums[1] += d_f * c;
      sums[2] += d_o * args.new_c[at];
    }
    if (!args.grad_peephole) continue;
    args.grad_peephole[j] = static_cast<T>(sums[0]);
    if (!args.coupled) args.grad_peephole[args.hidden + j] = static_cast<T>(sums[1]);
    args.grad_peephole[args.peephole_o() * args.hidden + j] = static_cast<T>(sums[2]);
  }
}

template <class T>
void gru_cell_fprop_fused(const GruCellArgs<T>& args) {
  for (int64_t n = 0; n < args.n; ++n)
    for (int64_t j = 0; j < args.hidden; ++j) {
      T* a = args.gates + n * 3 * args.hidden + j;
      const T* b = args.b + n * 3 * args.hidden + j;
      const int64_t r_at = 0, z_at = args.hidden, n_at = 2 * args.hidden;
      const double h = args.h[n * args.hidden + j];
      const double r = sigmoid(static_cast<double>(a[r_at]) + b[r_at]);
      const double z = sigmoid(static_cast<double>(a[z_at]) + b[z_at]);
      const double candidate = std::tanh(a[n_at] + r * b[n_at]);
      a[r_at] = static_cast<T>(r), a[z_at] = static_cast<T>(z), a[n_at] = static_cast<T>(candidate);
      args.new_h[n * args.hidden + j] = static_cast<T>(candidate + z * (h - candidate));
    }
}

template <class T>
void gru_cell_dgrad_fused(const GruCellArgs<T>& args) {
  for (int64_t n = 0; n < args.n; ++n)
    for (int64_t j = 0; j < args.hidden; ++j) {
      const int64_t at = n * args.hidden + j, r_at = n * 3 * args.hidden + j;
      const int64_t z_at = r_at + args.hidden, n_at = z_at + args.hidden;
      const double r = args.gates[r_at], z = args.gates[z_at], candidate = args.gates[n_at];
      const double g = args.grad_new_h[at], h = args.h[at];
      const double d_n = g * (1 - z) * (1 - candidate * candidate);
      const double d_z = g * (h - candidate) * slope(z), d_r = d_n * args.b[n_at] * slope(r);
      args.grad_a[r_at] = args.grad_b[r_at] = static_cast<T>(d_r);
      args.grad_a[z_at] = args.grad_b[z_at] = static_cast<T>(d_z);
      args.grad_a[n_at] = static_cast<T>(d_n), args.grad_b[n_at] = static_cast<T>(d_n * r);
      args.grad_h[at] = static_cast<T>(g * z);
    }
}

LAMINA_INSTANTIATE(lstm_cell_fprop_fused, LstmCellArgs)
LAMINA_INSTANTIATE(lstm_cell_dgrad_fused, LstmCellArgs)
LAMINA_INSTANTIATE(gru_cell_fprop_fused, GruCellArgs)
LAMINA_INSTANTIATE(gru_cell_dgrad_fused, GruCellArgs)

}  // namespace lamina::ref
