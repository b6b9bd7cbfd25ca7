/* Prints checksums and counts of fixed data; with a file, compares them with its content. */
#include "demo.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char poem[] = "the ice is here the ice is there the ice is all around";

static void report(struct text *out)
{
    size_t size = strlen(poem);
    unsigned char digest[32];
    text_format(out, "crc32 %08" PRIx32 "\n", crc32(poem, size));
    text_format(out, "adler32 %08" PRIx32 "\n", adler32(poem, size));
    text_format(out, "fnv1a %016" PRIx64 "\n", fnv1a(poem, size));
    sha256(poem, size, digest);
    text_format(out, "sha256 ");
    hex(out, digest, sizeof digest);
    text_format(out, "\nbase64 ");
    base64(out, digest, sizeof digest);

    struct table *table = table_new();
    char words[sizeof poem];
    memcpy(words, poem, sizeof poem);
    unsigned most = 0;
    for (char *word = strtok(words, " "); word; word = strtok(NULL, " ")) {
        unsigned count = table_count(table, word);
        most = count > most ? count : most;
    }
    text_format(out, "\nwords %zu most %u\n", table_size(table), most);
    table_free(table);

    struct heap heap = {0};
    uint64_t state = 42;
    for (int i = 0; i < 1000; i++)
        heap_push(&heap, (int)(random_next(&state) % 10000));
    int last = heap_pop(&heap), sorted = 1;
    while (heap.count > 0) {
        int next = heap_pop(&heap);
        sorted &= last <= next;
        last = next;
    }
    free(heap.items);
    text_format(out, "heap %s\n", sorted ? "sorted" : "broken");
    text_format(out, "primes %zu\n", primes_below(100000));
    text_format(out, "walks %.0f\n", matrix_trace_of_power(16));
    text_format(out, "50! ");
    factorial(out, 50);
    text_format(out, "\n");
}

int main(int argc, char **argv)
{
    struct text out = {0};
    report(&out);
    int status = EXIT_SUCCESS;
    if (argc > 1) {
        char expected[4096];
        FILE *file = fopen(argv[1], "r");
        size_t size = file ? fread(expected, 1, sizeof expected, file) : 0;
        if (file)
            fclose(file);
        if (size != out.length || memcmp(expected, out.bytes, size) != 0)
            status = EXIT_FAILURE;
        printf("digest: %s\n", status == EXIT_SUCCESS ? "as expected" : "WRONG");
    } else {
        fputs(out.bytes, stdout);
    }
    text_free(&out);
    return status;
}
