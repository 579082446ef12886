// Winograd's minimal filtering F(2x2, 3x3), F(4x4, 3x3), F(2x2, 5x5) and, along one axis, F(4, 3)
// and F(3, 4) (Winograd 1980; Lavin & Gray 2016).
//
//   y = A^T [(G g G^T) * (B^T d B)] A
//
//   F(2x2, 3x3)  d 4x4 input tile, y 2x2 output tile; points 0, 1, -1, inf: 16 products for 36
//   F(4x4, 3x3)  d 6x6 input tile, y 4x4 output tile; points 0, +-5/8, +-3/2, inf: 36 for 144
//   F(2x2, 5x5)  d 6x6 input tile, y 2x2 output tile; the same points: 36 for 100
//   F(3, 4)      d 6 inputs, y 3 outputs; the same points: 6 for 12
//
// Each function transforms one line of a tile; a tile takes it along its columns, then its rows.
// The transposes give the gradient: dg = G^T [(A dy A^T) * (B^T d B)] G. Lines are told apart by
// their length. The six points are Gray's for neon: the root mean square error is less than half of
// that with the points 0, +-1, +-2.
#pragma once

#include <type_traits>
#include <utility>

namespace lamina::winograd {

// A constant of the element type of V: a number, or a vector of numbers.
template <class V>
[[gnu::always_inline]] constexpr auto constant(double value) {
  if constexpr (requires(V v) { v[0]; })
    return static_cast<std::remove_cvref_t<decltype(std::declval<V>()[0])>>(value);
  else
    return V(value);
}

// B^T d
template <class V>
[[gnu::always_inline]] constexpr void input_line(const V (&d)[4], V (&v)[4]) {
  v[0] = d[0] - d[2], v[1] = d[1] + d[2], v[2] = d[2] - d[1], v[3] = d[1] - d[3];
}

// G g
template <class V>
[[gnu::always_inline]] constexpr void filter_line(const V (&g)[3], V (&u)[4]) {
  const V ends = g[0] + g[2];
  u[0] = g[0], u[1] = (ends + g[1]) * constant<V>(0.5), u[2] = (ends - g[1]) * constant<V>(0.5),
  u[3] = g[2];
}

// A^T m
template <class V>
[[gnu::always_inline]] constexpr void output_line(const V (&m)[4], V (&y)[2]) {
  y[0] = m[0] + m[1] + m[2], y[1] = m[1] - m[2] - m[3];
}

// A dy
template <class V>
[[gnu::always_inline]] constexpr void output_gradient_line(const V (&dy)[2], V (&m)[4]) {
  m[0] = dy[0], m[1] = dy[0] + dy[1], m[2] = dy[0] - dy[1], m[3] = -dy[1];
}

// G^T du
template <class V>
[[gnu::always_inline]] constexpr void filter_gradient_line(const V (&du)[4], V (&dg)[3]) {
  dg[0] = du[0] + (du[1] + du[2]) * constant<V>(0.5), dg[1] = (du[1] - du[2]) * constant<V>(0.5);
  dg[2] = (du[1] + du[2]) * constant<V>(0.5) + du[3];
}

// ---- F(4x4, 3x3): A^T holds the powers of the points, B^T the coefficients of the polynomials
// that vanish at all points but one, G the powers over the value of that polynomial at its point.

inline constexpr double kNear = 5.0 / 8, kFar = 3.0 / 2;  // the points
inline constexpr double kNear2 = kNear * kNear, kFar2 = kFar * kFar;
inline constexpr double kZeroNorm = 1 / (kNear2 * kFar2);
inline constexpr double kNearNorm = 1 / (2 * kNear2 * (kNear2 - kFar2));
inline constexpr double kFarNorm = 1 / (2 * kFar2 * (kFar2 - kNear2));

// B^T d. No sum has two products: a compiler may round either of them first, here the one and there
// the other, and a tile's bits would depend on where it lies.
template <class V>
[[gnu::always_inline]] constexpr void input_line(const V (&d)[6], V (&v)[6]) {
  const V even_near = d[4] - constant<V>(kFar2) * d[2],
          odd_near = constant<V>(kNear) * (d[3] - constant<V>(kFar2) * d[1]);
  const V even_far = d[4] - constant<V>(kNear2) * d[2],
          odd_far = constant<V>(kFar) * (d[3] - constant<V>(kNear2) * d[1]);
  v[0] = constant<V>(kNear2 * kFar2) * d[0] + (d[4] - constant<V>(kNear2 + kFar2) * d[2]);
  v[1] = even_near + odd_near, v[2] = even_near - odd_near;
  v[3] = even_far + odd_far, v[4] = even_far - odd_far;
  v[5] = constant<V>(kNear2 * kFar2) * d[1] + (d[5] - constant<V>(kNear2 + kFar2) * d[3]);
}

// G g
template <class V>
[[gnu::always_inline]] constexpr void filter_line(const V (&g)[3], V (&u)[6]) {
  const V even_near = constant<V>(kNearNorm) * (g[0] + constant<V>(kNear2) * g[2]),
          odd_near = constant<V>(kNearNorm * kNear) * g[1];
  const V even_far = constant<V>(kFarNorm) * (g[0] + constant<V>(kFar2) * g[2]),
          odd_far = constant<V>(kFarNorm * kFar) * g[1];
  u[0] = constant<V>(kZeroNorm) * g[0];
  u[1] = even_near + odd_near, u[2] = even_near - odd_near;
  u[3] = even_far + odd_far, u[4] = even_far - odd_far;
  u[5] = g[2];
}

// A^T m
template <class V>
[[gnu::always_inline]] constexpr void output_line(const V (&m)[6], V (&y)[4]) {
  const V even_near = m[1] + m[2], odd_near = constant<V>(kNear) * (m[1] - m[2]);
  const V even_far = m[3] + m[4], odd_far = constant<V>(kFar) * (m[3] - m[4]);
  y[0] = m[0] + even_near + even_far;
  y[1] = odd_near + odd_far;
  y[2] = constant<V>(kNear2) * even_near + constant<V>(kFar2) * even_far;
  y[3] = constant<V>(kNear2) * odd_near + constant<V>(kFar2) * odd_far + m[5];
}

// A dy
template <class V>
[[gnu::always_inline]] constexpr void output_gradient_line(const V (&dy)[4], V (&m)[6]) {
  const V even_near = dy[0] + constant<V>(kNear2) * dy[2],
          odd_near = constant<V>(kNear) * (dy[1] + constant<V>(kNear2) * dy[3]);
  const V even_far = dy[0] + constant<V>(kFar2) * dy[2],
          odd_far = constant<V>(kFar) * (dy[1] + constant<V>(kFar2) * dy[3]);
  m[0] = dy[0];
  m[1] = even_near + odd_near, m[2] = even_near - odd_near;
  m[3] = even_far + odd_far, m[4] = even_far - odd_far;
  m[5] = dy[3];
}

// G^T du
template <class V>
[[gnu::always_inline]] constexpr void filter_gradient_line(const V (&du)[6], V (&dg)[3]) {
  const V even_near = constant<V>(kNearNorm) * (du[1] + du[2]),
          odd_near = constant<V>(kNearNorm) * (du[1] - du[2]);
  const V even_far = constant<V>(kFarNorm) * (du[3] + du[4]),
          odd_far = constant<V>(kFarNorm) * (du[3] - du[4]);
  dg[0] = constant<V>(kZeroNorm) * du[0] + even_near + even_far;
  dg[1] = constant<V>(kNear) * odd_near + constant<V>(kFar) * odd_far;
  dg[2] = constant<V>(kNear2) * even_near + constant<V>(kFar2) * even_far + du[5];
}

// ---- F(2x2, 5x5): the same points and so the same B^T; A^T holds fewer powers, G more

// G g
template <class V>
[[gnu::always_inline]] constexpr void filter_line(const V (&g)[5], V (&u)[6]) {
  const V even_near = constant<V>(kNearNorm) *
                      (g[0] + constant<V>(kNear2) * (g[2] + constant<V>(kNear2) * g[4])),
          odd_near = constant<V>(kNearNorm * kNear) * (g[1] + constant<V>(kNear2) * g[3]);
  const V even_far = constant<V>(kFarNorm) *
                     (g[0] + constant<V>(kFar2) * (g[2] + constant<V>(kFar2) * g[4])),
          odd_far = constant<V>(kFarNorm * kFar) * (g[1] + constant<V>(kFar2) * g[3]);
  u[0] = constant<V>(kZeroNorm) * g[0];
  u[1] = even_near + odd_near, u[2] = even_near - odd_near;
  u[3] = even_far + odd_far, u[4] = even_far - odd_far;
  u[5] = g[4];
}

// A^T m
template <class V>
[[gnu::always_inline]] constexpr void output_line(const V (&m)[6], V (&y)[2]) {
  y[0] = m[0] + (m[1] + m[2]) + (m[3] + m[4]);
  y[1] = constant<V>(kNear) * (m[1] - m[2]) + constant<V>(kFar) * (m[3] - m[4]) + m[5];
}

// A dy
template <class V>
[[gnu::always_inline]] constexpr void output_gradient_line(const V (&dy)[2], V (&m)[6]) {
  const V near = constant<V>(kNear) * dy[1], far = constant<V>(kFar) * dy[1];
  m[0] = dy[0];
  m[1] = dy[0] + near, m[2] = dy[0] - near;
  m[3] = dy[0] + far, m[4] = dy[0] - far;
  m[5] = dy[1];
}

// G^T du
template <class V>
[[gnu::always_inline]] constexpr void filter_gradient_line(const V (&du)[6], V (&dg)[5]) {
  const V even_near = constant<V>(kNearNorm) * (du[1] + du[2]),
          odd_near = constant<V>(kNearNorm * kNear) * (du[1] - du[2]);
  const V even_far = constant<V>(kFarNorm) * (du[3] + du[4]),
          odd_far = constant<V>(kFarNorm * kFar) * (du[3] - du[4]);
  dg[0] = constant<V>(kZeroNorm) * du[0] + even_near + even_far;
  dg[1] = odd_near + odd_far;
  dg[2] = constant<V>(kNear2) * even_near + constant<V>(kFar2) * even_far;
  dg[3] = constant<V>(kNear2) * odd_near + constant<V>(kFar2) * odd_far;
  dg[4] = constant<V>(kNear2 * kNear2) * even_near + constant<V>(kFar2 * kFar2) * even_far + du[5];
}

// ---- F(3, 4): the same points

// G g
template <class V>
[[gnu::always_inline]] constexpr void filter_line(const V (&g)[4], V (&u)[6]) {
  const V even_near = constant<V>(kNearNorm) * (g[0] + constant<V>(kNear2) * g[2]),
          odd_near = constant<V>(kNearNorm * kNear) * (g[1] + constant<V>(kNear2) * g[3]);
  const V even_far = constant<V>(kFarNorm) * (g[0] + constant<V>(kFar2) * g[2]),
          odd_far = constant<V>(kFarNorm * kFar) * (g[1] + constant<V>(kFar2) * g[3]);
  u[0] = constant<V>(kZeroNorm) * g[0];
  u[1] = even_near + odd_near, u[2] = even_near - odd_near;
  u[3] = even_far + odd_far, u[4] = even_far - odd_far;
  u[5] = g[3];
}

// A^T m
template <class V>
[[gnu::always_inline]] constexpr void output_line(const V (&m)[6], V (&y)[3]) {
  const V even_near = m[1] + m[2], even_far = m[3] + m[4];
  y[0] = m[0] + even_near + even_far;
  y[1] = constant<V>(kNear) * (m[1] - m[2]) + constant<V>(kFar) * (m[3] - m[4]);
  y[2] = constant<V>(kNear2) * even_near + constant<V>(kFar2) * even_far + m[5];
}

// A dy
template <class V>
[[gnu::always_inline]] constexpr void output_gradient_line(const V (&dy)[3], V (&m)[6]) {
  const V even_near = dy[0] + constant<V>(kNear2) * dy[2], odd_near = constant<V>(kNear) * dy[1];
  const V even_far = dy[0] + constant<V>(kFar2) * dy[2], odd_far = constant<V>(kFar) * dy[1];
  m[0] = dy[0];
  m[1] = even_near + odd_near, m[2] = even_near - odd_near;
  m[3] = even_far + odd_far, m[4] = even_far - odd_far;
  m[5] = dy[2];
}

// G^T du
template <class V>
[[gnu::always_inline]] constexpr void filter_gradient_line(const V (&du)[6], V (&dg)[4]) {
  const V even_near = constant<V>(kNearNorm) * (du[1] + du[2]),
          odd_near = constant<V>(kNearNorm * kNear) * (du[1] - du[2]);
  const V even_far = constant<V>(kFarNorm) * (du[3] + du[4]),
          odd_far = constant<V>(kFarNorm * kFar) * (du[3] - du[4]);
  dg[0] = constant<V>(kZeroNorm) * du[0] + even_near + even_far;
  dg[1] = odd_near + odd_far;
  dg[2] = constant<V>(kNear2) * even_near + constant<V>(kFar2) * even_far;
  dg[3] = constant<V>(kNear2) * odd_near + constant<V>(kFar2) * odd_far + du[5];
}

// ---- the axis that a tile along one axis leaves alone

template <class V>
[[gnu::always_inline]] constexpr void input_line(const V (&d)[1], V (&v)[1]) {
  v[0] = d[0];
}
template <class V>
[[gnu::always_inline]] constexpr void filter_line(const V (&g)[1], V (&u)[1]) {
  u[0] = g[0];
}
template <class V>
[[gnu::always_inline]] constexpr void output_line(const V (&m)[1], V (&y)[1]) {
  y[0] = m[0];
}
template <class V>
[[gnu::always_inline]] constexpr void output_gradient_line(const V (&dy)[1], V (&m)[1]) {
  m[0] = dy[0];
}
template <class V>
[[gnu::always_inline]] constexpr void filter_gradient_line(const V (&du)[1], V (&dg)[1]) {
  dg[0] = du[0];
}

// ---- tiles

// The same along both axes of a tile: line(in[From], out[To]).
template <int From, int To, class V, class Line>
[[gnu::always_inline]] constexpr void both_axes(const V (&in)[From][From], V (&out)[To][To],
                                                Line line) {
  V half_done[To][From];
  for (int column = 0; column < From; ++column) {
    V source[From], result[To];
    for (int row = 0; row < From; ++row) source[row] = in[row][column];
    line(source, result);
    for (int row = 0; row < To; ++row) half_done[row][column] = result[row];
  }
  for (int row = 0; row < To; ++row) {
    V source[From], result[To];
    for (int column = 0; column < From; ++column) source[column] = half_done[row][column];
    line(source, result);
    for (int column = 0; column < To; ++column) out[row][column] = result[column];
  }
}

}  // namespace lamina::winograd
