struct Pair { int first, second; };
int warned(unsigned number) {
  Pair pair = {1};
  for (int i = 0; i < number; i++)
    ;
  return pair.second;
}
