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

fl_status fl_memory_alloc_parts(const fl_part *parts, int count, char **block) {
    size_t total = 0;
    for (int i = 0; i < count; i++) {
        size_t bytes; /* in whole lines */
        if (!fl_size_multiply(parts[i].count, parts[i].size, &bytes) ||
            !fl_size_add(bytes, FL_LINE - 1, &bytes) ||
            !fl_size_add(total, bytes - bytes % FL_LINE, &total))
            return FL_ERROR_OVERFLOW;
    }
    char *at = fl_memory_alloc(total, 1);
    if (at == NULL) return FL_ERROR_MEMORY;
    *block = at;
    for (int i = 0; i < count; i++) {
        *parts[i].address = at;
        at += (parts[i].count * parts[i].size + FL_LINE - 1) / FL_LINE * FL_LINE;
    }
    return FL_OK;
}
