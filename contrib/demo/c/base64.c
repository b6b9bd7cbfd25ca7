#include "demo.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64(struct text *out, const unsigned char *data, size_t size)
{
    for (size_t at = 0; at < size; at += 3) {
        size_t count = size - at < 3 ? size - at : 3;
        uint32_t group = (uint32_t)data[at] << 16;
        if (count > 1)
            group |= (uint32_t)data[at + 1] << 8;
        if (count > 2)
            group |= data[at + 2];
        for (size_t i = 0; i < 4; i++)
            text_add(out, i <= count ? &digits[group >> (18 - 6 * i) & 63] : "=", 1);
    }
}
