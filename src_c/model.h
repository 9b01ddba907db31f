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
    size_t bytes;              /* of the whole model */
    void *packed;              /* all packed parameters, one block */
    fl_direction directions[]; /* L*D of them, index l*D + d */
};

/* Allocates count * size bytes at a multiple of 64, a cache line and the widest vector. NULL when
 * memory is short. Freed by fl_free_aligned. count and size may be 0. */
void *fl_alloc_aligned(size_t count, size_t size);
void fl_free_aligned(void *block);

/* *product = a * b, *sum = a + b. 0 when the result does not fit ptrdiff_t. */
int fl_multiply_sizes(size_t a, size_t b, size_t *product);
int fl_add_sizes(size_t a, size_t b, size_t *sum);

#endif
