/* Aligned memory, and sizes that do not wrap around. */
#if defined(__linux__) && !defined(_DEFAULT_SOURCE)
#define _DEFAULT_SOURCE /* madvise */
#endif
#include "memory.h"

#include <stdint.h>
#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

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

enum { HUGE_PAGE = 1 << 21 };

/* Asks for huge pages where a system hands them out on request alone: weights of several megabytes
 * have more usual pages than the processor remembers the addresses of. A refusal does no harm. */
static void ask_for_huge_pages(void *start, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    madvise(start, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
#else
    (void)start;
    (void)bytes;
#endif
}

void *fl_memory_alloc(size_t count, size_t size) {
    size_t wanted, bytes;
    if (!fl_size_multiply(count, size, &wanted)) return NULL;
    const size_t alignment = wanted >= HUGE_PAGE ? HUGE_PAGE : FL_LINE;
    /* Room to move the start up, and for the address that malloc gave, kept just before it. */
    if (!fl_size_add(wanted, alignment + sizeof(void *), &bytes)) return NULL;
    char *block = malloc(bytes);
    if (block == NULL) return NULL;
    const uintptr_t first = (uintptr_t)block + sizeof(void *);
    const uintptr_t aligned = (first + alignment - 1) / alignment * alignment;
    void **result = (void **)(void *)(block + (aligned - (uintptr_t)block));
    result[-1] = block;
    if (alignment == HUGE_PAGE) ask_for_huge_pages(result, wanted);
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
