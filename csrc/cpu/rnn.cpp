// Recurrent cells: the gates of one time step in one pass (formulas in ops/rnn.h).
//
// Method        one vector of hidden units at a time, all gates of it in registers.
// Partitioning  blocks of kBlock hidden units; a block runs over the batch in order, which also
//               sums the peephole gradients in that order.
// Floor         one read and one write of the gates, c and h.
#include "ops/rnn.h"

#include "core/threads.h"
#include "cpu/simd.h"
#include "cpu/simd_math.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::GruCellArgs;
using ops::LstmCellArgs;

inline constexpr int64_t kBlock = 64;  // hidden units of a task

// A vector of up to kLanes hidden units from unit j on.
template <class T>
struct Units {
  int64_t j, count;

  LAMINA_INLINE Vec<T> read(const T* p) const {
    return count == kLanes<T> ? load(p + j) : load_first(p + j, count);
  }
  LAMINA_INLINE void write(T* p, Vec<T> v) const {
    if (count == kLanes<T>)
      store(p + j, v);
    else
      store_first(p + j, count, v);
  }
};

template <class T, class Body>
LAMINA_INLINE void for_each_block(int64_t hidden, const Body& body) {
  parallel_ranges(hidden, kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j += kLanes<T>)
      body(Units<T>{j, min_of<int64_t>(kLanes<T>, end - j)});
  });
}

template <class T>
LAMINA_INLINE Vec<T> slope(Vec<T> gate) {  // of sigmoid, from its value
  return gate * (T(1) - gate);
}

template <class T>
LAMINA_INLINE Vec<T> peephole(const LstmCellArgs<T>& args, const Units<T>& units, int64_t row) {
  return args.peephole ? units.read(args.peephole + row * args.hidden) : Vec<T>{};
}

template <class T>
void lstm_cell_fprop_fused(const LstmCellArgs<T>& args) {
  const int64_t hidden = args.hidden;
  for_each_block<T>(hidden, [&](const Units<T>& units) {
    const Vec<T> p_i = peephole(args, units, 0);
    const Vec<T> p_f = args.coupled ? Vec<T>{} : peephole(args, units, 1);
    const Vec<T> p_o = peephole(args, units, args.peephole_o());
    for (int64_t n = 0; n < args.n; ++n) {
      T* gates = args.gates + n * args.gate_count() * hidden;
      const Vec<T> c = units.read(args.c + n * hidden);
      const Vec<T> i = sigmoid<T>(units.read(gates + args.i() * hidden) + p_i * c);
      const Vec<T> f =
          args.coupled ? T(1) - i : sigmoid<T>(units.read(gates + args.f() * hidden) + p_f * c);
      const Vec<T> g = tanh<T>(units.read(gates + args.g() * hidden));
      const Vec<T> new_c = f * c + i * g;
      const Vec<T> o = sigmoid<T>(units.read(gates + args.o() * hidden) + p_o * new_c);
      if (!args.coupled) units.write(gates + args.f() * hidden, f);
      units.write(gates + args.i() * hidden, i), units.write(gates + args.g() * hidden, g);
      units.write(gates + args.o() * hidden, o);
      units.write(args.new_c + n * hidden, new_c);
      units.write(args.h + n * hidden, o * tanh<T>(new_c));
    }
  });
}

template <class T>
void lstm_cell_dgrad_fused(const LstmCellArgs<T>& args) {
  const int64_t hidden = args.hidden;
  for_each_block<T>(hidden, [&](const Units<T>& units) {
    const Vec<T> p_i = peephole(args, units, 0);
    const Vec<T> p_f = args.coupled ? Vec<T>{} : peephole(args, units, 1);
    const Vec<T> p_o = peephole(args, units, args.peephole_o());
    Vec<T> sum_i = {}, sum_f = {}, sum_o = {};
    for (int64_t n = 0; n < args.n; ++n) {
      const T* gates = args.gates + n * args.gate_count() * hidden;
      T* grads = args.grad_gates + n * args.gate_count() * hidden;
      const Vec<T> i = units.read(gates + args.i() * hidden);
      const Vec<T> f = args.coupled ? T(1) - i : units.read(gates + args.f() * hidden);
      const Vec<T> g = units.read(gates + args.g() * hidden);
      const Vec<T> o = units.read(gates + args.o() * hidden);
      const Vec<T> c = units.read(args.c + n * hidden);
      const Vec<T> new_c = units.read(args.new_c + n * hidden), t = tanh<T>(new_c);
      const Vec<T> grad_h = units.read(args.grad_h + n * hidden);
      const Vec<T> d_o = grad_h * t * slope<T>(o);
      const Vec<T> d_c =
          units.read(args.grad_new_c + n * hidden) + grad_h * o * (T(1) - t * t) + d_o * p_o;
      const Vec<T> d_i = d_c * (args.coupled ? g - c : g) * slope<T>(i);
      const Vec<T> d_f = args.coupled ? Vec<T>{} : d_c * c * slope<T>(f);
      units.write(grads + args.i() * hidden, d_i);
      if (!args.coupled) units.write(grads + args.f() * hidden, d_f);
      units.write(grads + args.g() * hidden, d_c * i * (T(1) - g * g));
      units.write(grads + args.o() * hidden, d_o);
      units.write(args.grad_c + n * hidden, d_c * f + d_i * p_i + d_f * p_f);
      sum_i += d_i * c, sum_f += d_f * c, sum_o += d_o * new_c;
    }
    if (!args.grad_peephole) return;
    units.write(args.grad_peephole, sum_i);
    if (!args.coupled) units.write(args.grad_peephole + hidden, sum_f);
    units.write(args.grad_peephole + args.peephole_o() * hidden, sum_o);
  });
}

template <class T>
void gru_cell_fprop_fused(const GruCellArgs<T>& args) {
  const int64_t hidden = args.hidden;
  for_each_block<T>(hidden, [&](const Units<T>& units) {
    for (int64_t n = 0; n < args.n; ++n) {
      T* a = args.gates + n * 3 * hidden;
      const T* b = args.b + n * 3 * hidden;
      const Vec<T> h = units.read(args.h + n * hidden);
      const Vec<T> r = sigmoid<T>(units.read(a) + units.read(b));
      const Vec<T> z = sigmoid<T>(units.read(a + hidden) + units.read(b + hidden));
      const Vec<T> candidate = tanh<T>(units.read(a + 2 * hidden) + r * units.read(b + 2 * hidden));
      units.write(a, r), units.write(a + hidden, z), units.write(a + 2 * hidden, candidate);
      units.write(args.new_h + n * hidden, candidate + z * (h - candidate));
    }
  });
}

template <class T>
void gru_cell_dgrad_fused(const GruCellArgs<T>& args) {
  const int64_t hidden = args.hidden;
  for_each_block<T>(hidden, [&](const Units<T>& units) {
    for (int64_t n = 0; n < args.n; ++n) {
      const T* gates = args.gates + n * 3 * hidden;
      const Vec<T> r = units.read(gates), z = units.read(gates + hidden);
      const Vec<T> candidate = units.read(gates + 2 * hidden);
      const Vec<T> b_n = units.read(args.b + (n * 3 + 2) * hidden);
      const Vec<T> g = units.read(args.grad_new_h + n * hidden);
      const Vec<T> h = units.read(args.h + n * hidden);
      const Vec<T> d_n = g * (T(1) - z) * (T(1) - candidate * candidate);
      const Vec<T> d_z = g * (h - candidate) * slope<T>(z), d_r = d_n * b_n * slope<T>(r);
      T *grad_a = args.grad_a + n * 3 * hidden, *grad_b = args.grad_b + n * 3 * hidden;
      units.write(grad_a, d_r), units.write(grad_b, d_r);
      units.write(grad_a + hidden, d_z), units.write(grad_b + hidden, d_z);
      units.write(grad_a + 2 * hidden, d_n), units.write(grad_b + 2 * hidden, d_n * r);
      units.write(args.grad_h + n * hidden, g * z);
    }
  });
}

LAMINA_INSTANTIATE(lstm_cell_fprop_fused, LstmCellArgs)
LAMINA_INSTANTIATE(lstm_cell_dgrad_fused, LstmCellArgs)
LAMINA_INSTANTIATE(gru_cell_fprop_fused, GruCellArgs)
LAMINA_INSTANTIATE(gru_cell_dgrad_fused, GruCellArgs)

LAMINA_CPU_NAMESPACE_END
