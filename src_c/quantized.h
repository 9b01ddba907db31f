/* Products of a quantised model. Rows are quantised in blocks, each just before it meets the
 * weights, into room that a thread has for itself. */
#ifndef FL_QUANTIZED_H
#define FL_QUANTIZED_H

#include <stddef.h>

#include "kernels/digits.h"
#include "model.h"

/* Where a thread quantises up to `rows` rows of any of a model's products. */
typedef struct fl_room {
    fl_digit_rows digits;
    ptrdiff_t rows;
} fl_room;

/* What a room for up to `rows` rows takes at most, and how many rows it has. */
ptrdiff_t fl_room_rows(const fl_model *model, ptrdiff_t rows);

/* z (rows, panels, G, V) = start + a (rows, K) @ w, start being rows of start_stride reals (0: all
 * the same), perhaps z itself. */
void fl_quantized_product(const fl_model *model, const fl_digits *w, fl_panels panels,
                          ptrdiff_t rows, const void *a, ptrdiff_t a_stride, const void *start,
                          ptrdiff_t start_stride, void *z, ptrdiff_t z_stride, const fl_room *room);

/* z = bias + x @ W, whether W is of digits or of reals. */
void fl_quantized_inputs(const fl_model *model, const fl_direction *direction, fl_panels panels,
                         ptrdiff_t rows, const void *x, ptrdiff_t x_stride, void *z,
                         ptrdiff_t z_stride, const fl_room *room);

/* fl_model_step() of a quantised model. */
void fl_quantized_step(const fl_model *model, const fl_direction *direction, fl_panels panels,
                       ptrdiff_t rows, const void *h, ptrdiff_t h_stride, const void *z, void *c,
                       void *h_out, ptrdiff_t h_out_stride, int backward, const fl_room *room);

#endif
