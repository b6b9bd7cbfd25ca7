#include "a.h"

int main(void) { return answer(1); }
