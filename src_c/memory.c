/* Aligned memory, and sizes that do not wrap around. */
#include "memory.h"

#include <stdint.h>
#include <stdlib.h>

int fl_size_multiply(size_t a, size_t b, size_t *product) {
    /* Numbers of half the bits fit without a division, of which a short call would feel a dozen. */
    const int half = sizeof(size_t) * 4 - 1;
    if ((a | b) >> half != 0 && b != 0 && a > (size_t)PTRDIFF_MAX / b) return 0;
    *product = a * b;
    return 1;
}

int fl_size_add(size_t a, size_t b, size_t *sum) {
    if (a > (size_t)PTRDIFF_MAX || b > (size_t)PTRDIFF_MAX - a) return 0;
    *sum = a + b;
    return 1;
}

void *fl_memory_alloc(size_t count, size_t size) {
    size_t bytes;
    /* Room to move the start up, and for the address that malloc gave, kept just before it. */
    if (!fl_size_multiply(count, size, &bytes) ||
        !fl_size_add(bytes, FL_LINE + sizeof(void *), &bytes))
        return NULL;
    char *block = malloc(bytes);
    if (block == NULL) return NULL;
    const uintptr_t first = (uintptr_t)block + sizeof(void *);
    const uintptr_t aligned = (first + FL_LINE - 1) / FL_LINE * FL_LINE;
    void **result = (void **)(void *)(block + (aligned - (uintptr_t)block));
    result[-1] = block;
    return result;
}

void fl_memory_free(void *block) {
    if (block != NULL) free(((void **)block)[-1]);
}

/* Bytes of a part in whole lines. 0 when they do not fit. */
static int measure(const fl_part *part, size_t *bytes) {
    if (!fl_size_multiply(part->count, part->size, bytes) ||
        !fl_size_add(*bytes, FL_LINE - 1, bytes))
        return 0;
    *bytes -= *bytes % FL_LINE;
    return 1;
}

fl_status fl_memory_alloc_parts(const fl_part *parts, int count, char **block) {
    size_t total = 0, bytes;
    for (int i = 0; i < count; i++)
        if (!measure(&parts[i], &bytes) || !fl_size_add(total, bytes, &total))
            return FL_ERROR_OVERFLOW;
    char *at = fl_memory_alloc(total, 1);
    if (at == NULL) return FL_ERROR_MEMORY;
    *block = at;
    for (int i = 0; i < count; i++) {
        measure(&parts[i], &bytes);
        *parts[i].address = at;
        at += bytes;
    }
    return FL_OK;
}
