#include "demo.h"

#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 256 };

struct entry {
    struct entry *next;
    unsigned count;
    char word[];
};

struct table {
    struct entry *buckets[BUCKETS];
    size_t size;
};

struct table *table_new(void)
{
    struct table *table = calloc(1, sizeof *table);
    if (!table)
        abort();
    return table;
}

unsigned table_count(struct table *table, const char *word)
{
    size_t length = strlen(word);
    struct entry **at = &table->buckets[fnv1a(word, length) % BUCKETS];
    for (; *at; at = &(*at)->next)
        if (strcmp((*at)->word, word) == 0)
            return ++(*at)->count;
    *at = calloc(1, sizeof **at + length + 1);
    if (!*at)
        abort();
    memcpy((*at)->word, word, length + 1);
    table->size++;
    return (*at)->count = 1;
}

size_t table_size(const struct table *table)
{
    return table->size;
}

void table_free(struct table *table)
{
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct entry *entry = table->buckets[i], *next; entry; entry = next) {
            next = entry->next;
            free(entry);
        }
    free(table);
}
