// One time step of the LSTM and the GRU after their matrix products: all gates in one pass.
//
// lstm_cell  a = x weight_ih^T + h weight_hh^T + biases, [n][gates][hidden], gates i, f, g, o
//            i = sigmoid(a_i + p_i c), f = sigmoid(a_f + p_f c), g = tanh(a_g)
//            c' = f c + i g, o = sigmoid(a_o + p_o c'), h' = o tanh(c')
//            coupled: gates i, g, o and f = 1 - i (Greff et al. 2017). The peepholes p (Gers &
//            Schmidhuber 2000) have the rows i, f, o, coupled i, o; null for none.
// gru_cell   a = x weight_ih^T + bias_ih, b = h weight_hh^T + bias_hh, gates r, z, n
//            r = sigmoid(a_r + b_r), z = sigmoid(a_z + b_z), n = tanh(a_n + r b_n)
//            h' = n + z (h - n)                                   (Cho et al. 2014, as cuDNN)
//
// dgrad turns the gradients of the results into those of a (and b), c and h.
#pragma once

#include <cstdint>

namespace lamina::ops {

template <class T>
struct LstmCellArgs {
  int64_t n = 0, hidden = 0;
  bool coupled = false;
  const T* c = nullptr;         // [n][hidden]
  const T* peephole = nullptr;  // [rows][hidden] or null
  T* gates = nullptr;           // fprop: a in, activated gates out; dgrad: the activated gates
  T* new_c = nullptr;           // fprop: written; dgrad: read
  T* h = nullptr;               // fprop: written
  const T* grad_h = nullptr;    // of h', [n][hidden]
  const T* grad_new_c = nullptr;
  T* grad_gates = nullptr;  // of a
  T* grad_c = nullptr;
  T* grad_peephole = nullptr;  // null without peepholes

  constexpr int64_t gate_count() const { return coupled ? 3 : 4; }
  // Places of the gates and of the peephole rows; f has none when coupled.
  constexpr int64_t i() const { return 0; }
  constexpr int64_t f() const { return 1; }
  constexpr int64_t g() const { return coupled ? 1 : 2; }
  constexpr int64_t o() const { return coupled ? 2 : 3; }
  constexpr int64_t peephole_o() const { return coupled ? 1 : 2; }
};

template <class T>
struct GruCellArgs {
  int64_t n = 0, hidden = 0;
  const T* h = nullptr;  // [n][hidden]
  T* gates = nullptr;    // fprop: a in, activated gates out; dgrad: the activated gates
  const T* b = nullptr;  // [n][3][hidden]
  T* new_h = nullptr;
  const T* grad_new_h = nullptr;
  T* grad_a = nullptr;
  T* grad_b = nullptr;
  T* grad_h = nullptr;  // the part that does not pass through b
};

}  // namespace lamina::ops
