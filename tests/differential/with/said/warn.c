int warned(int number) {
  int nobody_uses_this;
  if (number = 1)
    return "text";
}
