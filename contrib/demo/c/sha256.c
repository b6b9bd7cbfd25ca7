#include "demo.h"

#include <string.h>

static uint32_t rotate(uint32_t word, int by)
{
    return word >> by | word << (32 - by);
}

/* The first 32 bits of the fractional part of a root of the n-th prime. */
static uint32_t root_bits(unsigned n, int is_cubic)
{
    unsigned prime = 2;
    for (unsigned seen = 0;; prime++) {
        int is_prime = 1;
        for (unsigned divisor = 2; divisor * divisor <= prime; divisor++)
            if (prime % divisor == 0)
                is_prime = 0;
        if (is_prime && seen++ == n)
            break;
    }
    /* The largest r with r^k <= prime * 2^(32 k), its integer part cut off. */
    unsigned __int128 low = 0, high = (unsigned __int128)1 << 37;
    while (high - low > 1) {
        unsigned __int128 r = (low + high) / 2;
        int is_below = is_cubic ? r * r * r <= (unsigned __int128)prime << 96
                                : r * r <= (unsigned __int128)prime << 64;
        if (is_below)
            low = r;
        else
            high = r;
    }
    return (uint32_t)low;
}

static void block(uint32_t state[8], const uint32_t k[64], const unsigned char *data)
{
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)data[4 * i] << 24 | (uint32_t)data[4 * i + 1] << 16 |
               (uint32_t)data[4 * i + 2] << 8 | data[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t b = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + a + w[i - 7] + b;
    }
    memcpy(s, state, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t e = rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25);
        uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
        uint32_t one = s[7] + e + choice + k[i] + w[i];
        uint32_t a = rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22);
        uint32_t majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += one;
        s[0] = one + a + majority;
    }
    for (int i = 0; i < 8; i++)
        state[i] += s[i];
}

void sha256(const void *data, size_t size, unsigned char digest[32])
{
    uint32_t state[8], k[64];
    for (unsigned i = 0; i < 8; i++)
        state[i] = root_bits(i, 0);
    for (unsigned i = 0; i < 64; i++)
        k[i] = root_bits(i, 1);
    const unsigned char *rest = data;
    size_t left = size;
    for (; left >= 64; left -= 64, rest += 64)
        block(state, k, rest);
    unsigned char last[128] = {0};
    memcpy(last, rest, left);
    last[left] = 0x80;
    size_t end = left < 56 ? 64 : 128;
    for (int i = 0; i < 8; i++)
        last[end - 1 - i] = (unsigned char)((uint64_t)size * 8 >> (8 * i));
    for (size_t at = 0; at < end; at += 64)
        block(state, k, last + at);
    for (int i = 0; i < 32; i++)
        digest[i] = (unsigned char)(state[i / 4] >> (24 - 8 * (i % 4)));
}
