#include "demo.h"

#include <stdlib.h>

void heap_push(struct heap *heap, int item)
{
    if (heap->count == heap->capacity) {
        heap->capacity = heap->capacity ? 2 * heap->capacity : 16;
        heap->items = realloc(heap->items, heap->capacity * sizeof *heap->items);
        if (!heap->items)
            abort();
    }
    size_t at = heap->count++;
    for (; at > 0 && item < heap->items[(at - 1) / 2]; at = (at - 1) / 2)
        heap->items[at] = heap->items[(at - 1) / 2];
    heap->items[at] = item;
}

int heap_pop(struct heap *heap)
{
    int smallest = heap->items[0];
    int item = heap->items[--heap->count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= heap->count)
            break;
        if (child + 1 < heap->count && heap->items[child + 1] < heap->items[child])
            child++;
        if (item <= heap->items[child])
            break;
        heap->items[at] = heap->items[child];
        at = child;
    }
    heap->items[at] = item;
    return smallest;
}
