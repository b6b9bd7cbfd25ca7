/* What the files of the C program offer to each other. */
#ifndef DEMO_H
#define DEMO_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* text.c: a string that grows. */
struct text {
    char *bytes;
    size_t length, capacity;
};
void text_add(struct text *text, const char *bytes, size_t length);
void text_format(struct text *text, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void text_free(struct text *text);

/* Checksums and codes. */
uint32_t crc32(const void *data, size_t size);
uint32_t adler32(const void *data, size_t size);
uint64_t fnv1a(const void *data, size_t size);
void sha256(const void *data, size_t size, unsigned char digest[32]);
void base64(struct text *out, const unsigned char *data, size_t size);
void hex(struct text *out, const unsigned char *data, size_t size);

/* table.c: counts by word. */
struct table;
struct table *table_new(void);
unsigned table_count(struct table *table, const char *word);
size_t table_size(const struct table *table);
void table_free(struct table *table);

/* heap.c: the smallest first. */
struct heap {
    int *items;
    size_t count, capacity;
};
void heap_push(struct heap *heap, int item);
int heap_pop(struct heap *heap);

/* random.c: the same numbers every time. */
uint32_t random_next(uint64_t *state);

/* primes.c, matrix.c, number.c */
size_t primes_below(unsigned limit);
double matrix_trace_of_power(unsigned power);
void factorial(struct text *out, unsigned n);

#endif
