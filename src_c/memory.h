/* Aligned memory, and sizes that do not wrap around. */
#ifndef FL_MEMORY_H
#define FL_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "fastlstm.h"
#include "platform.h"

/* Allocates count * size bytes at a multiple of FL_LINE. NULL when memory is short. Freed by
 * fl_memory_free. count and size may be 0. */
void *fl_memory_alloc(size_t count, size_t size);
void fl_memory_free(void *block);

/* A part of a block of memory: where its address goes, and its count * size bytes. */
typedef struct fl_part {
    char **address;
    size_t count, size;
} fl_part;

/* Allocates one block for `count` parts, each at a multiple of FL_LINE. Sets *block, to be freed by
 * fl_memory_free, and the address of each part, also of one that is empty; nothing on error. */
fl_status fl_memory_alloc_parts(const fl_part *parts, int count, char **block);

/* *product = a * b, *sum = a + b. 0 when the result does not fit ptrdiff_t. Inline, since a short
 * call would feel some dozens of them. */
static inline int fl_size_multiply(size_t a, size_t b, size_t *product) {
    /* Numbers of half the bits fit without a division. */
    const int half = sizeof(size_t) * 4 - 1;
    if ((a | b) >> half != 0 && b != 0 && a > (size_t)PTRDIFF_MAX / b) return 0;
    *product = a * b;
    return 1;
}
static inline int fl_size_add(size_t a, size_t b, size_t *sum) {
    if (a > (size_t)PTRDIFF_MAX || b > (size_t)PTRDIFF_MAX - a) return 0;
    *sum = a + b;
    return 1;
}

static inline ptrdiff_t fl_size_min(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
static inline ptrdiff_t fl_size_max(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }

#endif
