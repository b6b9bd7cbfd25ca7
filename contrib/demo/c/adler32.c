#include "demo.h"

uint32_t adler32(const void *data, size_t size)
{
    const unsigned char *byte = data;
    uint32_t a = 1, b = 0;
    while (size-- > 0) {
        a = (a + *byte++) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}
