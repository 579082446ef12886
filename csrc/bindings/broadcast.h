// How operands in C order are read beside a result in C order that they are broadcast to.
#pragma once

#include <algorithm>
#include <vector>

#include "bindings/array.h"
#include "core/threads.h"

namespace lamina::bindings {

inline constexpr int64_t kRange = int64_t{1}
                                  << 15;  // elements a task: its three arrays share an L2

// Calls body(begin, end) over all items, by tasks of `grain` where there is more than one.
template <class Body>
void over(int64_t items, int64_t grain, Body body) {
  if (items <= grain) return body(int64_t{0}, items);
  const py::gil_scoped_release release;
  parallel_ranges(items, grain, body);
}

// Up to three operands, those that are not named as if they had the shape of the result. Axes that
// all of them walk alike are one.
class Broadcast {
 public:
  using Shape = std::vector<py::ssize_t>;
  static constexpr int kOperands = 3;
  struct Place {
    int64_t at[kOperands];  // the first element that each operand shows
    int64_t y, count;       // of the result
  };

  // All of one shape.
  explicit Broadcast(int64_t size) : inner_(size) { std::fill_n(steps_, kOperands, 1); }

  // A null operand has the shape of the result.
  Broadcast(const Shape& shape, std::initializer_list<const Shape*> operands) : Broadcast(1) {
    bool first = true;
    for (size_t axis = shape.size(); axis-- > 0;) {
      if (shape[axis] == 1) continue;
      Axis next{shape[axis], {}};
      int i = 0;
      for (const Shape* operand : operands) next.steps[i++] = step(shape, operand, axis);
      for (; i < kOperands; ++i) next.steps[i] = step(shape, nullptr, axis);
      if (first) {
        inner_ = next.extent, std::copy_n(next.steps, kOperands, steps_), first = false;
        continue;
      }
      const bool outer = !outer_.empty();
      const int64_t below = outer ? outer_.back().extent : inner_;
      const int64_t* const steps = outer ? outer_.back().steps : steps_;
      bool alike = true;
      for (int k = 0; k < kOperands; ++k) alike &= next.steps[k] == steps[k] * below;
      if (!alike)
        outer_.push_back(next);
      else
        (outer ? outer_.back().extent : inner_) *= next.extent;
    }
  }

  // Whether each operand is one stretch, or one element.
  bool is_row() const { return outer_.empty(); }
  // 0 or 1, along a row.
  bool moves(int operand) const { return steps_[operand] != 0; }

  // Calls row(Place) for stretches of the result, on several threads.
  template <class Row>
  void rows(const Row& row) const {
    if (outer_.empty())
      return over(inner_, kRange, [&](int64_t begin, int64_t end) {
        Place place{{}, begin, end - begin};
        for (int k = 0; k < kOperands; ++k) place.at[k] = begin * steps_[k];
        row(place);
      });
    int64_t rows = 1;
    for (const Axis& axis : outer_) rows *= axis.extent;
    over(rows, std::max<int64_t>(kRange / std::max<int64_t>(inner_, 1), 1),
         [&](int64_t begin, int64_t end) {
           for (int64_t r = begin; r < end; ++r) row(place_of(r));
         });
  }

 private:
  struct Axis {
    int64_t extent, steps[kOperands];
  };

  static int64_t step(const Shape& shape, const Shape* operand, size_t axis) {
    const Shape& own = operand == nullptr ? shape : *operand;
    const size_t missing = shape.size() - own.size();
    if (axis < missing || own[axis - missing] == 1) return 0;
    int64_t step = 1;
    for (size_t inner = axis - missing + 1; inner < own.size(); ++inner) step *= own[inner];
    return step;
  }

  Place place_of(int64_t row) const {
    Place place{{}, row * inner_, inner_};
    for (const Axis& axis : outer_) {
      const int64_t index = row % axis.extent;
      row /= axis.extent;
      for (int k = 0; k < kOperands; ++k) place.at[k] += index * axis.steps[k];
    }
    return place;
  }

  int64_t inner_ = 1, steps_[kOperands];
  std::vector<Axis> outer_;  // innermost first
};

// y = f(a, b) of one dtype; shapes: of the result, a and b.
template <class T, class F>
void map(const Broadcast& shapes, const T* a, const T* b, T* y, F f) {
  const bool a_moves = shapes.moves(0), b_moves = shapes.moves(1);
  shapes.rows([=](const Broadcast::Place& place) {
    const T *const left = a + place.at[0], *const right = b + place.at[1];
    T* const result = y + place.y;
    if (a_moves && b_moves)
      for (int64_t i = 0; i < place.count; ++i) result[i] = f(left[i], right[i]);
    else if (a_moves)
      for (int64_t i = 0; i < place.count; ++i) result[i] = f(left[i], *right);
    else if (b_moves)
      for (int64_t i = 0; i < place.count; ++i) result[i] = f(*left, right[i]);
    else
      std::fill_n(result, place.count, f(*left, *right));
  });
}

}  // namespace lamina::bindings
