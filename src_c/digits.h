/* Packing weights of 8, 16 and 24 bits for the kernels of an instruction set, see kernels/digits.h.
 */
#ifndef FL_DIGITS_PACK_H
#define FL_DIGITS_PACK_H

#include <stddef.h>

#include "fastlstm.h"
#include "kernels/digits.h"

/* The sizes of a matrix (gates * units, K), whose rows are `units` units of each gate; a projection
 * has one gate of P units. */
typedef struct fl_digits_sizes {
    int bits, sums, gates; /* sums: S, see kernels/digits.h */
    ptrdiff_t units, K;
    int has_multipliers;
} fl_digits_sizes;

/* Bytes of a packed matrix. 0 when they do not fit ptrdiff_t. */
int fl_digits_count(const fl_digit_kernels *kernels, const fl_digits_sizes *sizes, size_t *bytes);

/* Packs a matrix into so many bytes of memory at a multiple of FL_LINE, inside fl_fp_enter.
 * multipliers (K), where there are some, are copied, too. */
void fl_digits_pack(const fl_digit_kernels *kernels, const fl_digits_sizes *sizes,
                    const fl_quantized_matrix *matrix, const float *multipliers, void *memory,
                    fl_digits *packed);

#endif
