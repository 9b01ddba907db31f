/* Aligned memory, and sizes that do not wrap around. */
#include <stdint.h>
#include <stdlib.h>

#include "model.h"

enum { ALIGNMENT = FL_LINE };

int fl_multiply_sizes(size_t a, size_t b, size_t *product) {
    if (b != 0 && a > (size_t)PTRDIFF_MAX / b) return 0;
    *product = a * b;
    return 1;
}

int fl_add_sizes(size_t a, size_t b, size_t *sum) {
    if (a > (size_t)PTRDIFF_MAX || b > (size_t)PTRDIFF_MAX - a) return 0;
    *sum = a + b;
    return 1;
}

int fl_reserve(size_t *total, size_t count, size_t size, size_t *offset) {
    size_t bytes;
    *offset = *total;
    return fl_multiply_sizes(count, size, &bytes) && fl_add_sizes(bytes, FL_LINE - 1, &bytes) &&
           fl_add_sizes(*total, bytes / FL_LINE * FL_LINE, total);
}

void *fl_alloc_aligned(size_t count, size_t size) {
    size_t bytes;
    /* Room to move the start up, and for the address that malloc gave, kept just before it. */
    if (!fl_multiply_sizes(count, size, &bytes) ||
        !fl_add_sizes(bytes, ALIGNMENT + sizeof(void *), &bytes))
        return NULL;
    char *block = malloc(bytes);
    if (block == NULL) return NULL;
    const uintptr_t first = (uintptr_t)block + sizeof(void *);
    const uintptr_t aligned = (first + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    void **result = (void **)(void *)(block + (aligned - (uintptr_t)block));
    result[-1] = block;
    return result;
}

void fl_free_aligned(void *block) {
    if (block != NULL) free(((void **)block)[-1]);
}
