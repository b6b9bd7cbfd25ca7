#include "demo.h"

#include <stdbool.h>
#include <stdlib.h>

size_t primes_below(unsigned limit)
{
    bool *composite = calloc(limit, sizeof *composite);
    if (!composite)
        abort();
    size_t count = 0;
    for (unsigned n = 2; n < limit; n++) {
        if (composite[n])
            continue;
        count++;
        for (unsigned long multiple = (unsigned long)n * n; multiple < limit; multiple += n)
            composite[multiple] = true;
    }
    free(composite);
    return count;
}
