int wrong(void) {
  int count = undeclared + 1
  return cuont;
}
