/* A packed model, as the drivers see it. */
#ifndef FL_MODEL_H
#define FL_MODEL_H

#include <stddef.h>

#include "fastlstm.h"
#include "kernels.h"

/* The parameters of one layer in one direction. */
typedef struct fl_direction {
    ptrdiff_t input_size; /* I_l */
    const void *w;        /* (panels, I_l, 4, V) */
    const void *u;        /* (panels, H, 4, V) */
    const void *bias;     /* (panels, 4, V) */
} fl_direction;

struct fl_model {
    fl_config config;
    const fl_kernels *kernels;
    ptrdiff_t panels;          /* of V units each */
    const fl_kernels *narrow;  /* has the remaining units in one panel of its own, or NULL */
    ptrdiff_t z_row;           /* reals of a row of pre-activations, 4 for each unit and padding */
    size_t bytes;              /* of the whole model */
    void *packed;              /* all packed parameters, one block */
    fl_direction directions[]; /* L*D of them, index l*D + d */
};

/* Which panels of a layer to work on: some of model->panels, and perhaps the narrow one, which
 * follows them all. */
typedef struct fl_panels {
    ptrdiff_t first, count;
    int narrow;
} fl_panels;

static inline fl_panels fl_all_panels(const fl_model *model) {
    return (fl_panels){0, model->panels, model->narrow != NULL};
}

/* The narrow panel's place among panels of half the lanes. */
static inline ptrdiff_t fl_narrow_panel(const fl_model *model) { return 2 * model->panels; }

/* kernels.h, product and step, over such panels. Inline, since one more call costs a tiny layer a
 * sixth of its step. */
static inline void fl_model_product(const fl_model *model, const fl_direction *direction,
                                    fl_panels panels, ptrdiff_t rows, const void *x,
                                    ptrdiff_t x_stride, void *z, ptrdiff_t z_stride) {
    if (panels.count > 0)
        model->kernels->product(panels.first, panels.count, rows, direction->input_size, x,
                                x_stride, direction->w, direction->bias, z, z_stride);
    if (panels.narrow)
        model->narrow->product(fl_narrow_panel(model), 1, rows, direction->input_size, x, x_stride,
                               direction->w, direction->bias, z, z_stride);
}

static inline void fl_model_step(const fl_model *model, const fl_direction *direction,
                                 fl_panels panels, ptrdiff_t rows, const void *h,
                                 ptrdiff_t h_stride, const void *z, void *c, void *h_out,
                                 ptrdiff_t h_out_stride, void *record, int backward) {
    const ptrdiff_t H = model->config.hidden_size;
    if (panels.count > 0)
        model->kernels->step(panels.first, panels.count, rows, H, h, h_stride, direction->u, z,
                             model->z_row, c, h_out, h_out_stride, record, backward);
    if (panels.narrow)
        model->narrow->step(fl_narrow_panel(model), 1, rows, H, h, h_stride, direction->u, z,
                            model->z_row, c, h_out, h_out_stride, record, backward);
}

/* Allocates count * size bytes at a multiple of 64, a cache line and the widest vector. NULL when
 * memory is short. Freed by fl_free_aligned. count and size may be 0. */
void *fl_alloc_aligned(size_t count, size_t size);
void fl_free_aligned(void *block);

/* *product = a * b, *sum = a + b. 0 when the result does not fit ptrdiff_t. */
int fl_multiply_sizes(size_t a, size_t b, size_t *product);
int fl_add_sizes(size_t a, size_t b, size_t *sum);

#endif
