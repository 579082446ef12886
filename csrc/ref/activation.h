// The activations as functions of one number, and the epilogues made of them.
#pragma once

#include "ops/epilogue.h"

namespace lamina::ref {

double activated(ops::Activation kind, double x, double a, double b);

// What is stored at `index` of the result for a sum.
template <class T>
T finished(const ops::Epilogue<T>& epilogue, double sum, int64_t index) {
  if (epilogue.residual) sum += epilogue.residual[index];
  return static_cast<T>(activated(epilogue.kind, sum, epilogue.a, epilogue.b));
}

}  // namespace lamina::ref
