template <class T> int size(const T &value) { return value.length(); }
int wrong() { return size(1) + size("two"); }
