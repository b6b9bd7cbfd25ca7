#include "demo.h"

uint32_t crc32(const void *data, size_t size)
{
    const unsigned char *byte = data;
    uint32_t crc = ~UINT32_C(0);
    for (; size > 0; size--, byte++) {
        crc ^= *byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (UINT32_C(0xedb88320) & -(crc & 1));
    }
    return ~crc;
}
