/* Kernels of products in 8, 16 and 24 bits: a table for each instruction set that has its own
 * instruction for sums of products of 8-bit integers.
 *
 * A number is n = bits/8 digits in base 256. Weights are packed once (V and panels as in kernels.h,
 * G = 1 for a projection):
 *
 *     packed digits (panels, k_blocks, n, G, V, 4)      four columns of a unit side by side
 *     starts (panels, S, G, V), factors (panels, G, V)
 *
 * of ceil(K / 4) blocks of columns, and as many more of zeros as make k_blocks a multiple of what
 * the table says. Rows that meet them are quantised by the kernels themselves, just before. A
 * product has S sums of products of digits, the highest power of 256 first:
 *
 *      8 bits  S = 1    A = d_0 e_0
 *     16 bits  S = 2    A = d_1 e_1, B = d_1 e_0 + d_0 e_1
 *     16 bits  S = 3    and C = d_0 e_0
 *     24 bits  S = 3    A = d_2 e_2, B = d_2 e_1 + d_1 e_2, C = d_2 e_0 + d_1 e_1 + d_0 e_2
 *
 * which are exact in 32 bits, in whatever order. Then in float, t = (A * 256 + B) * 256 + C by
 * fused multiply-adds, and z = t * (unit * factor) + start of z, where factor is the row of
 * weights' unit times the power of 256 that the last sum has. Definition:
 * fastlstm/reference/digits.py.
 */
#ifndef FL_DIGITS_H
#define FL_DIGITS_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

/* What a row counts as that has none this large: fastlstm/reference/digits.py. */
#define FL_SMALLEST_SCALE 0x1p-100f

/* A packed matrix. */
typedef struct fl_digits {
    ptrdiff_t K, k_blocks;
    int n, sums, gates;   /* n digits; S; G */
    const int8_t *digits; /* NULL: the matrix is of reals, and not here */
    /* What sums begin at: 0, or where rows are unsigned (offset) what that adds, taken away. */
    const int32_t *starts;
    const float *factors;
    const float *multipliers; /* (K) of what is quantised, or NULL */
} fl_digits;

/* Rows quantised: digits (rows, n, 4 * k_blocks), each plus the table's offset, beyond K as for 0;
 * units (rows), NaN where a number was not finite, and then all digits are those of 0. */
typedef struct fl_digit_rows {
    uint8_t *digits;
    float *units;
} fl_digit_rows;

typedef struct fl_digit_kernels {
    const char *isa;
    const fl_kernels *real;   /* of the same instruction set: V, cells, and what stays in float */
    int offset;               /* 0 or 128: what is added to digits of rows */
    ptrdiff_t block_multiple; /* of k_blocks */

    /* Quantises rows (rows, K) for products with w, each by its own largest magnitude. */
    void (*quantize)(const fl_digits *w, ptrdiff_t rows, const float *a, ptrdiff_t a_stride,
                     const fl_digit_rows *out);

    /* z (rows, panels, G, V) = start + rows @ w for `panels` panels from first_panel on. start:
     * rows of start_stride reals (0: all the same), which may be z itself. */
    void (*product)(const fl_digits *w, ptrdiff_t first_panel, ptrdiff_t panels, ptrdiff_t rows,
                    const fl_digit_rows *a, const float *start, ptrdiff_t start_stride, float *z,
                    ptrdiff_t z_stride);

    /* One time step of the usual cell: z + h @ u, then the cell of 8n bits. Arrays as in
     * fl_kernels.step. */
    void (*step)(const fl_digits *u, ptrdiff_t first_panel, ptrdiff_t panels, ptrdiff_t rows,
                 ptrdiff_t H, const fl_digit_rows *h, const float *z, ptrdiff_t z_stride, float *c,
                 float *h_out, ptrdiff_t h_out_stride, int backward);
} fl_digit_kernels;

/* Returns the table by name, see fl_model_create_quantized, or NULL when this machine has none
 * such. */
const fl_digit_kernels *fl_digit_kernels_find(const char *isa);

#endif
