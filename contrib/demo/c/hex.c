#include "demo.h"

void hex(struct text *out, const unsigned char *data, size_t size)
{
    while (size-- > 0)
        text_format(out, "%02x", *data++);
}
