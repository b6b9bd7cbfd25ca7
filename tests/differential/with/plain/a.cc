#include "a.h"

template <class T> struct Box {
  T value;
  T twice() const { return TWICE(value); }
};

int boxed(int n) { return Box<int>{n}.twice(); }
