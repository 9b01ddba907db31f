/* Sequences of different lengths: sorted, checked, and shared out; rows copied. */
#include "rows.h"

#include <string.h>

#include "memory.h"

/* memcpy() of a row, of which a short one would be mostly the call. */
static void copy_row(char *to, const char *from, size_t bytes) {
    enum { BLOCK = 64, SHORT = 256 };
    for (; bytes >= BLOCK && bytes <= SHORT; bytes -= BLOCK, to += BLOCK, from += BLOCK)
        memcpy(to, from, BLOCK);
    if (bytes > 0) memcpy(to, from, bytes);
}

void fl_rows_read_placed(fl_rows rows, ptrdiff_t t, ptrdiff_t count, size_t bytes, size_t real,
                         char *to) {
    const char *data = rows.data + t * rows.stride_t * (ptrdiff_t)real;
    const ptrdiff_t row = rows.stride_b * (ptrdiff_t)real;
    for (ptrdiff_t b = 0; b < count; b++, to += bytes)
        copy_row(to, data + rows.first_rows[b] * row, bytes);
}

void fl_rows_write_placed(fl_rows rows, ptrdiff_t t, ptrdiff_t count, size_t bytes, size_t real,
                          const char *from, ptrdiff_t stride_b) {
    char *data = rows.data + t * rows.stride_t * (ptrdiff_t)real;
    const ptrdiff_t row = rows.stride_b * (ptrdiff_t)real;
    for (ptrdiff_t b = 0; b < count; b++, from += stride_b * (ptrdiff_t)real)
        copy_row(data + rows.first_rows[b] * row, from, bytes);
}

fl_status fl_sorted_create(fl_sorted *made, ptrdiff_t T, ptrdiff_t B, const ptrdiff_t *lengths,
                           const ptrdiff_t *first_rows) {
    ptrdiff_t longest = 0;
    for (ptrdiff_t b = 0; b < B; b++) {
        if (lengths[b] < 0 || lengths[b] > T) return FL_ERROR_ARGUMENT;
        longest = fl_size_max(longest, lengths[b]);
    }
    size_t rows, count;
    if (!fl_size_multiply((size_t)B, (size_t)longest, &rows) ||
        !fl_size_multiply((size_t)B, 2, &count) || !fl_size_add(count, (size_t)longest + 1, &count))
        return FL_ERROR_OVERFLOW;
    ptrdiff_t *memory = fl_memory_alloc(count, sizeof *memory);
    if (memory == NULL) return FL_ERROR_MEMORY;
    ptrdiff_t *order = memory, *first = memory + B, *starts = memory + 2 * B;
    /* A counting sort. place[n] is where the next sequence of length n goes: behind those that are
     * longer. */
    ptrdiff_t *const place = starts;
    memset(place, 0, ((size_t)longest + 1) * sizeof *place);
    for (ptrdiff_t b = 0; b < B; b++) place[lengths[b]]++;
    for (ptrdiff_t n = longest, longer = 0; n >= 0; n--) {
        const ptrdiff_t equal = place[n];
        place[n] = longer;
        longer += equal;
    }
    for (ptrdiff_t b = 0; b < B; b++) {
        const ptrdiff_t at = place[lengths[b]]++;
        order[at] = b;
        first[at] = first_rows ? first_rows[b] : b;
    }
    /* Now place[n] is how many are at least n steps long, as many as have a step n - 1. */
    starts[0] = 0;
    for (ptrdiff_t t = 1; t <= longest; t++) starts[t] += starts[t - 1];
    *made = (fl_sorted){longest, order, starts, first, memory};
    return FL_OK;
}

void fl_sorted_destroy(fl_sorted *sorted) { fl_memory_free(sorted->memory); }

int fl_starts_check(const ptrdiff_t *starts, ptrdiff_t T, ptrdiff_t B) {
    if (starts == NULL) return 1;
    if (starts[0] != 0) return 0;
    for (ptrdiff_t t = 0, most = B; t < T; t++) {
        if (starts[t + 1] < starts[t] || starts[t + 1] - starts[t] > most) return 0;
        most = starts[t + 1] - starts[t];
    }
    return 1;
}

/* Where part `index` of `count` begins; index = count: where the last ends. */
static ptrdiff_t first_of_part(fl_ragged ragged, ptrdiff_t T, ptrdiff_t B, ptrdiff_t index,
                               ptrdiff_t count) {
    if (ragged.starts == NULL || index == count) /* B * index / count, without overflow */
        return B / count * index + B % count * index / count;
    ptrdiff_t low = 0, high = B; /* the fewest sequences that have the share of all before */
    while (low < high) {
        const ptrdiff_t middle = low + (high - low) / 2;
        double steps = 0;
        for (ptrdiff_t t = 0; t < T; t++) steps += (double)fl_ragged_count(ragged, t, middle);
        if (steps * (double)count >= (double)ragged.starts[T] * (double)index) high = middle;
        else low = middle + 1;
    }
    return low;
}

fl_range fl_ragged_part(fl_ragged ragged, ptrdiff_t T, ptrdiff_t B, ptrdiff_t index,
                        ptrdiff_t count) {
    return (fl_range){first_of_part(ragged, T, B, index, count),
                      first_of_part(ragged, T, B, index + 1, count)};
}
