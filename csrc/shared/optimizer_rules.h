// The rules of optimizer_step for one element: p, its gradient g, its states s and coefficients c.
//
// A is float or double. Root is the square root of the side that compiles the rule. Everything that
// is one number for a whole array (bias corrections, schedules) is folded into the coefficients.
#pragma once

#include "ops/optimizer.h"

namespace lamina::optimizer {

#define LAMINA_RULE(kind)                                                             \
  struct Rule_##kind {                                                                \
    template <class Root, class A>                                                    \
    [[gnu::always_inline]] static constexpr void update(A& p, A g, A* s, const A* c); \
  };                                                                                  \
  template <class Root, class A>                                                      \
  constexpr void Rule_##kind::update([[maybe_unused]] A& p, [[maybe_unused]] A g,     \
                                     [[maybe_unused]] A* s, [[maybe_unused]] const A* c)

// The larger; NaN if either is.
template <class A>
[[gnu::always_inline]] constexpr A larger(A a, A b) {
  return a > b || a != a ? a : b;
}
// -1, 0, 1 or NaN.
template <class A>
[[gnu::always_inline]] constexpr A sign(A a) {
  return a > A(0) ? A(1) : a < A(0) ? A(-1) : a;
}
// m, the decaying mean of g.
template <class A>
[[gnu::always_inline]] constexpr A mean(A& m, A g, A share) {
  return m += share * (g - m);
}
// v, the decaying mean of g^2.
template <class A>
[[gnu::always_inline]] constexpr A mean_square(A& v, A g, A keep, A share) {
  return v = v * keep + share * g * g;
}

// c: lr
LAMINA_RULE(sgd) {
  p -= c[0] * g;
}
// c: lr, momentum, share of g (1, or 1 - dampening), whether Nesterov's.  s: buffer
LAMINA_RULE(momentum) {
  s[0] = s[0] * c[1] + c[2] * g;
  p -= c[0] * (c[3] != A(0) ? g + c[1] * s[0] : s[0]);
}
// c: 1 - beta1, beta2, 1 - beta2, root of v's bias correction, eps, lr over m's.  s: m, v
LAMINA_RULE(adam) {
  const A m = mean(s[0], g, c[0]), v = mean_square(s[1], g, c[1], c[2]);
  p -= c[5] * m / (Root::of(v) / c[3] + c[4]);
}
// s: m, v, the largest v
LAMINA_RULE(amsgrad) {
  const A m = mean(s[0], g, c[0]), v = mean_square(s[1], g, c[1], c[2]);
  s[2] = larger(s[2], v);
  p -= c[5] * m / (Root::of(s[2]) / c[3] + c[4]);
}
// c: 1 - beta1, beta2, eps, lr over m's bias correction.  s: m, largest |g|
LAMINA_RULE(adamax) {
  const A m = mean(s[0], g, c[0]);
  s[1] = larger(s[1] * c[1], (g < A(0) ? -g : g) + c[2]);
  p -= c[3] * m / s[1];
}
// c: as adam's, but the rates of g and m.  s: m, v
LAMINA_RULE(nadam) {
  const A m = mean(s[0], g, c[0]), v = mean_square(s[1], g, c[1], c[2]);
  const A scale = Root::of(v) / c[3] + c[4];
  p -= c[5] * g / scale;
  p -= c[6] * m / scale;
}
// c: 1 - beta1, beta2, 1 - beta2, eps, rate, whether v is trusted.  s: m, v
LAMINA_RULE(radam) {
  const A m = mean(s[0], g, c[0]), v = mean_square(s[1], g, c[1], c[2]);
  p -= c[4] * m / (c[5] != A(0) ? Root::of(v) + c[3] : A(1));
}
// c: alpha, 1 - alpha, eps, lr, momentum.  s: v
LAMINA_RULE(rmsprop) {
  p -= c[3] * (g / (Root::of(mean_square(s[0], g, c[0], c[1])) + c[2]));
}
// s: v, buffer
LAMINA_RULE(rmsprop_momentum) {
  s[1] = s[1] * c[4] + g / (Root::of(mean_square(s[0], g, c[0], c[1])) + c[2]);
  p -= c[3] * s[1];
}
// s: v, the mean of g
LAMINA_RULE(rmsprop_centered) {
  const A v = mean_square(s[0], g, c[0], c[1]), m = mean(s[1], g, c[1]);
  p -= c[3] * (g / (Root::of(v - m * m) + c[2]));
}
// s: v, the mean of g, buffer
LAMINA_RULE(rmsprop_centered_momentum) {
  const A v = mean_square(s[0], g, c[0], c[1]), m = mean(s[1], g, c[1]);
  s[2] = s[2] * c[4] + g / (Root::of(v - m * m) + c[2]);
  p -= c[3] * s[2];
}
// c: eps, rate.  s: sum of g^2
LAMINA_RULE(adagrad) {
  s[0] += g * g;
  p -= c[1] * g / (Root::of(s[0]) + c[0]);
}
// c: rho, 1 - rho, eps, lr.  s: v, the decaying mean of the squared steps
LAMINA_RULE(adadelta) {
  const A v = mean_square(s[0], g, c[0], c[1]);
  const A step = Root::of(s[1] + c[2]) / Root::of(v + c[2]) * g;
  mean_square(s[1], step, c[0], c[1]);
  p -= c[3] * step;
}
// c: shrink, grow, smallest and largest step.  s: the gradient before, step
LAMINA_RULE(rprop) {
  const A same = sign(g) * sign(s[0]);  // signs: their product cannot underflow
  const A step = s[1] * (same > A(0) ? c[1] : same < A(0) ? c[0] : A(1));
  s[1] = step < c[2] ? c[2] : step > c[3] ? c[3] : step;
  s[0] = same < A(0) ? A(0) : g;
  p -= sign(s[0]) * s[1];
}
// c: 1 - lambd eta, eta, share of p in its mean.  s: mean of p
LAMINA_RULE(asgd) {
  p = p * c[0] - c[1] * g;
  s[0] = c[2] == A(1) ? p : s[0] + c[2] * (p - s[0]);
}
#undef LAMINA_RULE

// The whole step of one element.
template <class Rule, class Root, class A>
[[gnu::always_inline]] constexpr void step(A& p, A g, A* s, A decay, A keep, const A* c) {
  if (decay != A(0)) g += decay * p;  // 0 * Inf is not 0
  p *= keep;
  Rule::template update<Root>(p, g, s, c);
}

}  // namespace lamina::optimizer
