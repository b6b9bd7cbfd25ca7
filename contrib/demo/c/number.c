#include "demo.h"

#include <inttypes.h>

enum { LIMBS = 64 };
static const uint64_t base = 1000000000;

void factorial(struct text *out, unsigned n)
{
    uint64_t limbs[LIMBS] = {1};
    for (unsigned factor = 2; factor <= n; factor++) {
        uint64_t carry = 0;
        for (int i = 0; i < LIMBS; i++) {
            carry += limbs[i] * factor;
            limbs[i] = carry % base;
            carry /= base;
        }
    }
    int top = LIMBS - 1;
    while (top > 0 && limbs[top] == 0)
        top--;
    text_format(out, "%" PRIu64, limbs[top]);
    while (top-- > 0)
        text_format(out, "%09" PRIu64, limbs[top]);
}
