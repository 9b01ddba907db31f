/* Rows of reals over steps and sequences: strides, sequences of different lengths, stacks of rows
 * for several indices. */
#ifndef FL_ROWS_H
#define FL_ROWS_H

#include <stddef.h>
#include <stdint.h>

#include "fastlstm.h"

/* Numbers first..end-1. */
typedef struct fl_range {
    ptrdiff_t first, end;
} fl_range;

/* Rows (T, B) of reals in memory: element (t, b, k) is data[t*stride_t + b*stride_b + k],
 * in units of `real` bytes. Or packed, with `starts`: the rows of step t, as many as there are
 * sequences that long, follow those of step t - 1, and element (t, b, k) is
 * data[(starts[t] + b)*stride_b + k]. Or placed, with `first_rows`: element (t, b, k) is
 * data[t*stride_t + first_rows[b]*stride_b + k]; of these, fl_rows_at() knows nothing. */
typedef struct fl_rows {
    char *data;
    ptrdiff_t stride_t, stride_b;
    const ptrdiff_t *starts, *first_rows;
    int alternate; /* only two times are kept: that of t is t % 2 */
} fl_rows;

/* A caller's array. The rows of an input are only read, though their type does not say so. */
static inline fl_rows fl_rows_of_input(fl_input input, const ptrdiff_t *starts) {
    return (fl_rows){
        (char *)(uintptr_t)input.data, input.stride_t, input.stride_b, starts, NULL, 0};
}
static inline fl_rows fl_rows_of_output(fl_output output, const ptrdiff_t *starts) {
    return (fl_rows){output.data, output.stride_t, output.stride_b, starts, NULL, 0};
}

static inline char *fl_rows_at(fl_rows rows, ptrdiff_t t, ptrdiff_t b, size_t real) {
    if (rows.alternate) t &= 1;
    const ptrdiff_t offset =
        rows.starts ? (rows.starts[t] + b) * rows.stride_b : t * rows.stride_t + b * rows.stride_b;
    return rows.data + offset * (ptrdiff_t)real;
}

/* The same, NULL for rows that there are not. */
static inline char *fl_rows_find(fl_rows rows, ptrdiff_t t, ptrdiff_t b, size_t real) {
    return rows.data ? fl_rows_at(rows, t, b, real) : NULL;
}

/* The same rows from step t and sequence b on. */
static inline fl_rows fl_rows_from(fl_rows rows, ptrdiff_t t, ptrdiff_t b, size_t real) {
    if (rows.starts) {
        rows.data += b * rows.stride_b * (ptrdiff_t)real;
        rows.starts += t;
    } else if (rows.first_rows) {
        rows.data += t * rows.stride_t * (ptrdiff_t)real;
        rows.first_rows += b;
    } else {
        rows.data = fl_rows_at(rows, t, b, real);
    }
    return rows;
}

/* The same rows from so many bytes on. */
static inline fl_rows fl_rows_column(fl_rows rows, ptrdiff_t bytes) {
    rows.data += bytes;
    return rows;
}

/* Copies the first `count` rows at a time, `bytes` of each, from where they are placed to rows
 * (count) without gaps; and to their places, from rows that are stride_b apart. */
void fl_rows_read_placed(fl_rows rows, ptrdiff_t t, ptrdiff_t count, size_t bytes, size_t real,
                         char *to);
void fl_rows_write_placed(fl_rows rows, ptrdiff_t t, ptrdiff_t count, size_t bytes, size_t real,
                          const char *from, ptrdiff_t stride_b);

/* Sequences of different lengths, the longest first: starts (T + 1) of packed rows, of which a run
 * covers sequences `first` on. starts NULL: all are T steps long. */
typedef struct fl_ragged {
    const ptrdiff_t *starts;
    ptrdiff_t first;
} fl_ragged;

/* Sequences of lengths in any order, sorted: the longest first, those of one length as they came.
 */
typedef struct fl_sorted {
    ptrdiff_t T;                 /* of the longest */
    const ptrdiff_t *order;      /* (B): the number of each */
    const ptrdiff_t *starts;     /* (T + 1), of packed rows */
    const ptrdiff_t *first_rows; /* (B), of the caller's rows */
    ptrdiff_t *memory;           /* all of it */
} fl_sorted;

/* Sorts B sequences of lengths (B), at most T. first_rows (B), in the caller's order, NULL for 0,
 * 1, and so on. FL_ERROR_ARGUMENT where a length is not from 0 to T. Nothing to free on error. */
fl_status fl_sorted_create(fl_sorted *made, ptrdiff_t T, ptrdiff_t B, const ptrdiff_t *lengths,
                           const ptrdiff_t *first_rows);
void fl_sorted_destroy(fl_sorted *sorted);

/* Whether starts (T + 1), or NULL, begins at 0 and its steps have B sequences at most and no more
 * than the step before. */
int fl_starts_check(const ptrdiff_t *starts, ptrdiff_t T, ptrdiff_t B);

/* The sequences of part `index` of `count`, when B sequences are shared out so that all parts take
 * about as many steps. */
fl_range fl_ragged_part(fl_ragged ragged, ptrdiff_t T, ptrdiff_t B, ptrdiff_t index,
                        ptrdiff_t count);

/* How many of B sequences have a step t. */
static inline ptrdiff_t fl_ragged_count(fl_ragged ragged, ptrdiff_t t, ptrdiff_t B) {
    if (ragged.starts == NULL) return B;
    const ptrdiff_t count = ragged.starts[t + 1] - ragged.starts[t] - ragged.first;
    return count < 0 ? 0 : count < B ? count : B;
}

/* Rows (T, B) for each of several indices; data may be NULL. */
typedef struct fl_stack {
    fl_rows rows;     /* of index 0 */
    ptrdiff_t stride; /* reals from an index to the next */
} fl_stack;

/* A stack of contiguous rows of `width` reals, of T steps of B sequences, or packed with starts. */
static inline fl_stack fl_stack_of(const void *data, ptrdiff_t T, ptrdiff_t B, ptrdiff_t width,
                                   const ptrdiff_t *starts) {
    const ptrdiff_t stride_t = starts ? 0 : B * width; /* packed rows are found by their starts */
    const fl_rows rows = {(char *)(uintptr_t)data, stride_t, width, starts, NULL, 0};
    return (fl_stack){rows, (starts ? starts[T] : T * B) * width};
}

static inline fl_rows fl_stack_at(fl_stack stack, ptrdiff_t index, size_t real) {
    if (stack.rows.data) stack.rows.data += index * stack.stride * (ptrdiff_t)real;
    return stack.rows;
}

#endif
