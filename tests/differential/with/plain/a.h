#ifndef A_H
#define A_H
#define TWICE(n) ((n) + (n))
enum { SIZE = 4 };
int answer(int n);
#endif
