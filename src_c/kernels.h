/* The kernel table: all that the drivers know of an instruction set.
 *
 * One const table per instruction set and precision, made by kernels_tpl.h. V lanes of `lanes`
 * reals make a vector. H units are cut into ceil(H / V) panels of V units, the last one padded
 * with zero weights. A panel holds, for each k, the weights of all four gates of its units:
 *
 *     packed weights (panels, K, 4, V)
 *     packed bias (panels, 4, V)
 *     pre-activations (rows, panels, 4, V)
 *
 * so that the four gates of V units end in registers together and the cell follows at once. Where
 * the last panel would be at most half full, the table of half the lanes may do it instead: its
 * panels lie at the same places, panel p of V units where panel 2*p of V/2 units is.
 *
 * Every pre-activation is one chain of fused multiply-adds: from the bias, over k = 0..I-1 of the
 * input, then over k = 0..H-1 of the hidden state. Kernels may block the chain, never split it:
 * this is what makes results independent of batch size, chunking and instruction set.
 */
#ifndef FL_KERNELS_H
#define FL_KERNELS_H

#include <stddef.h>

#include "fastlstm.h"

typedef struct fl_kernels {
    const char *isa;
    fl_dtype dtype;
    ptrdiff_t lanes;               /* V */
    size_t real_bytes;             /* sizeof(real) */
    const struct fl_kernels *half; /* the table of V/2 lanes; NULL where there is none */

    /* These four work on `panels` panels from first_panel on; their arrays are those of the whole
     * layer. Rows of a, z, h and h_out are that many reals apart. */

    /* weights (4H, K) row-major, gates i, f, g, o -> packed (panels, K, 4, V). */
    void (*pack_weights)(ptrdiff_t first_panel, ptrdiff_t panels, ptrdiff_t H, ptrdiff_t K,
                         const void *weights, void *packed);

    /* b_ih (4H), b_hh (4H), both or neither NULL -> packed (panels, 4, V) = b_ih + b_hh, or zeros.
     */
    void (*pack_bias)(ptrdiff_t first_panel, ptrdiff_t panels, ptrdiff_t H, const void *b_ih,
                      const void *b_hh, void *packed);

    /* z (rows, panels, 4, V) = bias (panels, 4, V) + a (rows, K) @ w (panels, K, 4, V). */
    void (*product)(ptrdiff_t first_panel, ptrdiff_t panels, ptrdiff_t rows, ptrdiff_t K,
                    const void *a, ptrdiff_t a_stride, const void *w, const void *bias, void *z,
                    ptrdiff_t z_stride);

    /* One time step of `rows` sequences: z (rows, panels, 4, V) + h (rows, H) @ u (panels, H, 4,
     * V), then the cell. c (rows, H) contiguous, in and out; h_out (rows, H) may not overlap h.
     * record: NULL, or out (rows, 5, H) contiguous: i, f, g, o after activation and c.
     * backward: take the panels from last to first, which changes nothing but what is in cache. */
    void (*step)(ptrdiff_t first_panel, ptrdiff_t panels, ptrdiff_t rows, ptrdiff_t H,
                 const void *h, ptrdiff_t h_stride, const void *u, const void *z,
                 ptrdiff_t z_stride, void *c, void *h_out, ptrdiff_t h_out_stride, void *record,
                 int backward);

    /* The backward pass, see train_tpl.h. Rows of arrays with a stride are that many reals apart;
     * the others are contiguous. What runs from `first` to `end` leaves the rest alone. */

    /* One step back through the cell, for units first..end-1. records in (rows, 5, H); c_previous
     * in (rows, H) or NULL for zeros; dy in (rows, H) or NULL for zeros, dh in (rows, H): the two
     * add up to the gradient of h; dc in and out (rows, H): the gradient of c from later steps,
     * then of c_previous; dG out (rows, 4H); h out (rows, H): the step's output, or NULL. */
    void (*cell_backward)(ptrdiff_t first, ptrdiff_t end, ptrdiff_t rows, ptrdiff_t H,
                          const void *records, const void *c_previous, ptrdiff_t c_stride,
                          const void *dy, ptrdiff_t dy_stride, const void *dh, void *dc, void *dG,
                          ptrdiff_t dG_stride, void *h, ptrdiff_t h_stride);

    /* h (rows, H) = o * tanh(c) of records (rows, 5, H). */
    void (*hidden)(ptrdiff_t rows, ptrdiff_t H, const void *records, void *h, ptrdiff_t h_stride);

    /* w (K, N) -> packed: panels of 4V columns, (K, 4V) each, the last one as many vectors wide as
     * are left; ceil(N / V) * V * K reals in all. For panels first..end-1. */
    void (*pack_columns)(ptrdiff_t first, ptrdiff_t end, ptrdiff_t K, ptrdiff_t N, const void *w,
                         void *packed);

    /* out (rows, N) = a (rows, K) @ w (K, N), packed, for the columns of panels first..end-1, or +=
     * with `accumulate`. */
    void (*multiply)(ptrdiff_t first, ptrdiff_t end, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t N,
                     const void *a, ptrdiff_t a_stride, const void *w, void *out,
                     ptrdiff_t out_stride, int accumulate);

    /* sums (M, N) += d^T (M, rows) @ a (rows, N), for columns first..end-1 of d. Rows of a and sums
     * are read and written up to the next multiple of V. */
    void (*add_outer)(ptrdiff_t first, ptrdiff_t end, ptrdiff_t rows, ptrdiff_t N, const void *d,
                      ptrdiff_t d_stride, const void *a, ptrdiff_t a_stride, void *sums,
                      ptrdiff_t sums_stride);

    /* sums (M) += the rows of d (rows, M), for columns first..end-1. */
    void (*add_rows)(ptrdiff_t first, ptrdiff_t end, ptrdiff_t rows, const void *d,
                     ptrdiff_t d_stride, void *sums);

    /* to (rows, n) = from (rows, n), or += with `accumulate`. */
    void (*put_rows)(ptrdiff_t rows, ptrdiff_t n, const void *from, ptrdiff_t from_stride, void *to,
                     ptrdiff_t to_stride, int accumulate);

    /* y (n) = activation of x (n); y may be x. */
    void (*sigmoid)(ptrdiff_t n, const void *x, void *y);
    void (*tanh)(ptrdiff_t n, const void *x, void *y);

    /* What the hardware allows, see limits_tpl.h. */
    double (*limit_fma)(ptrdiff_t n, volatile double *sink);
    double (*limit_read)(ptrdiff_t n, const void *x, ptrdiff_t repeats, volatile double *sink);
} fl_kernels;

/* One per instruction set, indexed by fl_dtype; defined when the target architecture has it. */
extern const fl_kernels fl_kernels_scalar[2];
extern const fl_kernels fl_kernels_avx2[2];
extern const fl_kernels fl_kernels_avx512[2];
extern const fl_kernels fl_kernels_neon[2];

/* Returns the table of an instruction set by name (NULL: fl_isa_default()), or NULL when there is
 * none of that name on this machine. */
const fl_kernels *fl_kernels_find(const char *isa, fl_dtype dtype);

#endif
