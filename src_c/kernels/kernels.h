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
 * so that the four gates of V units end in registers together and the cell follows at once; where
 * the forget gate is coupled to the input gate, there are G = 3 in place of 4. Where
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

/* One of two steps that are taken side by side. Arrays as in fl_kernels.step, of one row. */
typedef struct fl_side {
    const void *h, *u, *z; /* in */
    void *c;               /* in and out */
    void *h_out, *record;  /* out; record NULL in both, or in none */
} fl_side;

/* What one time step of a variant works on. Rows of arrays with a stride are that many reals apart,
 * the others are contiguous. */
typedef struct fl_step {
    const fl_config *config; /* the options of the cell */
    ptrdiff_t rows, P;
    const void *h; /* in (rows, P) */
    ptrdiff_t h_stride;
    const void *u; /* in (panels, P, G, V) */
    const void *z; /* in (rows, panels, G, V) */
    ptrdiff_t z_stride;
    const void *peepholes; /* in (panels, G, V), or NULL */
    const void *zoneout_c; /* in (rows, H), or NULL for the expectation */
    void *c;               /* in and out (rows, H) */
    void *h_out;           /* out (rows, H): h~, with layer normalisation o */
    ptrdiff_t h_out_stride;
    void *candidate; /* out (rows, H): c~, with layer normalisation; or NULL */
    void *record;    /* NULL, or out (rows, R): i, f, g, o after activation, c, h~ if P = H */
    ptrdiff_t record_stride;
    int backward;         /* take the panels from last to first */
    ptrdiff_t near_bytes; /* as in fl_kernels */
} fl_step;

/* One step of a variant back through the cell. Arrays as in fl_step. */
typedef struct fl_step_back {
    const fl_config *config;
    ptrdiff_t rows;
    const void *records; /* in (rows, 5, H) */
    ptrdiff_t record_stride;
    const void *c_previous; /* in (rows, H), or NULL for zeros */
    ptrdiff_t c_stride;
    const void *peepholes;     /* in (2 or 3, H): p_i, p_f unless coupled, p_o; or NULL */
    const void *zoneout_c;     /* in (rows, H), or NULL for the expectation */
    const void *dh;            /* in (rows, H), the gradient of h~ */
    const void *t, *dc_normal; /* in (rows, H), with layer normalisation: output(c~ normalised), and
                                  the gradient of c~ that comes from there; or NULL */
    void *dc;                  /* in and out (rows, H): of c, then of c_previous */
    void *d;            /* out (rows, G*H), then with peepholes (2 or 3, H): the terms of their */
    ptrdiff_t d_stride; /* gradients */
    void *h;            /* out (rows, H): h~; or NULL */
    ptrdiff_t h_stride;
} fl_step_back;

/* Layer normalisation of `rows` rows. */
typedef struct fl_norm {
    const fl_config *config;
    ptrdiff_t rows;
    const void *scale, *shift; /* in (n), as parameters; shift NULL: add to what is there */
    void *normal;              /* (rows, n): normalised, before scale and shift; or scratch of
                                  FL_NORM_ROWS rows without gaps, where there are no factors */
    void *factors;             /* (rows, 1): 1 / standard deviation; NULL: not wanted */
    ptrdiff_t normal_stride;   /* of both */
    ptrdiff_t z_stride;        /* of pre-activations; backward, of d */
} fl_norm;

enum {
    FL_NORM_LANES = 16, /* sums that a sum is made of, see norm_tpl.h */
    FL_NORM_ROWS = 4    /* rows that are normalised side by side */
};
#define FL_NORM_EPSILON 1e-5

typedef struct fl_kernels {
    const char *isa;
    fl_dtype dtype;
    ptrdiff_t lanes;               /* V */
    size_t real_bytes;             /* sizeof(real) */
    const struct fl_kernels *half; /* the table of V/2 lanes; NULL where there is none */

    /* These four work on `panels` panels from first_panel on; their arrays are those of the whole
     * layer. Rows of a, z, h and h_out are that many reals apart. near_bytes: what the core's own
     * caches hold; weights that are larger come from farther, and are fetched early. */

    /* weights (blocks of H, K) row-major -> packed (panels, K, G, V). blocks (G): which one each
     * gate has, -1 for zeros. */
    void (*pack_weights)(int gates, ptrdiff_t first_panel, ptrdiff_t panels, ptrdiff_t H,
                         ptrdiff_t K, const int *blocks, const void *weights, void *packed);

    /* b_ih, b_hh (G*H), both or neither NULL -> packed (panels, G, V) = b_ih + b_hh, or zeros. */
    void (*pack_bias)(int gates, ptrdiff_t first_panel, ptrdiff_t panels, ptrdiff_t H,
                      const void *b_ih, const void *b_hh, void *packed);

    /* z (rows, panels, G, V) = bias (panels, G, V) + a (rows, K) @ w (panels, K, G, V). */
    void (*product)(int gates, ptrdiff_t first_panel, ptrdiff_t panels, ptrdiff_t rows, ptrdiff_t K,
                    const void *a, ptrdiff_t a_stride, const void *w, const void *bias, void *z,
                    ptrdiff_t z_stride, ptrdiff_t near_bytes);

    /* One time step of `rows` sequences: z (rows, panels, 4, V) + h (rows, H) @ u (panels, H, 4,
     * V), then the cell. c (rows, H) contiguous, in and out; h_out (rows, H) may not overlap h.
     * record: NULL, or out (rows, 5, H) contiguous: i, f, g, o after activation and c.
     * backward: take the panels from last to first, which changes nothing but what is in cache. */
    void (*step)(ptrdiff_t first_panel, ptrdiff_t panels, ptrdiff_t rows, ptrdiff_t H,
                 const void *h, ptrdiff_t h_stride, const void *u, const void *z,
                 ptrdiff_t z_stride, void *c, void *h_out, ptrdiff_t h_out_stride, void *record,
                 int backward, ptrdiff_t near_bytes);

    /* One time step of two sequences, each with weights of its own. What one writes, the other may
     * not read. */
    void (*step_pair)(ptrdiff_t first_panel, ptrdiff_t panels, ptrdiff_t H, const fl_side *sides);

    /* The same for variants, see variant_tpl.h. */
    void (*variant_step)(ptrdiff_t first_panel, ptrdiff_t panels, const fl_step *step);

    /* Layer normalisation, see norm_tpl.h: z (rows, panels, G, V) of W x or U h in `product`, which
     * may be z; and h (rows, H) = o * output(c~ normalised) of o and c (rows, H). Both write
     * norm->normal and factors. `panels` counts the full ones. */
    void (*norm_gates)(const fl_norm *norm, ptrdiff_t panels, const void *product, void *z);
    void (*norm_cell)(const fl_norm *norm, const void *o, const void *c, void *h,
                      ptrdiff_t h_stride);

    /* And back: from dz (rows, G*H) to terms (rows, G*H) of the scale's gradient and out (rows,
     * G*H), the gradient of the product; from dh (rows, H) of h~ to terms (rows, 2, H) of scale and
     * shift, t (rows, H), what o is multiplied with, and dc (rows, H) of c~. */
    void (*norm_gates_backward)(const fl_norm *norm, const void *dz, void *terms, void *out);
    void (*norm_cell_backward)(const fl_norm *norm, const void *o, ptrdiff_t o_stride,
                               const void *dh, void *terms, void *t, void *dc);

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

    /* The same for variants. */
    void (*variant_backward)(ptrdiff_t first, ptrdiff_t end, const fl_step_back *step);

    /* h (rows, H) = o * tanh(c) of records (rows, 5, H). */
    void (*hidden)(ptrdiff_t rows, ptrdiff_t H, const void *records, void *h, ptrdiff_t h_stride);

    /* w (K, N), its rows and columns w_k and w_n reals apart -> packed: panels of 4V columns, (K,
     * 4V) each, the last one as many vectors wide as are left; ceil(N / V) * V * K reals in all.
     * For panels first..end-1. */
    void (*pack_columns)(ptrdiff_t first, ptrdiff_t end, ptrdiff_t K, ptrdiff_t N, const void *w,
                         ptrdiff_t w_k, ptrdiff_t w_n, void *packed);

    /* out (rows, N) = a (rows, K) @ w (K, N), packed, for the columns of panels first..end-1, or +=
     * with `accumulate`. */
    void (*multiply)(ptrdiff_t first, ptrdiff_t end, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t N,
                     const void *a, ptrdiff_t a_stride, const void *w, void *out,
                     ptrdiff_t out_stride, int accumulate, ptrdiff_t near_bytes);

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

    /* out (rows, n) = scales (rows) * softmax of z (rows, n), n >= 1; largest, totals and at
     * (rows): of each row the largest number, the sum of exp(z - largest), and the place of the
     * first largest. All contiguous. */
    void (*softmax)(ptrdiff_t rows, ptrdiff_t n, const void *z, const void *scales, void *out,
                    void *largest, void *totals, double *at);

    /* out (rows, n) = m * a, + b unless that is NULL. out may be a or b. */
    void (*mask_rows)(ptrdiff_t rows, ptrdiff_t n, const void *m, ptrdiff_t m_stride, const void *a,
                      ptrdiff_t a_stride, const void *b, ptrdiff_t b_stride, void *out,
                      ptrdiff_t out_stride);

    /* out (rows, n) = m * a + (1 - m) * b, m (rows, n), or NULL for the number `factor`; a or b
     * NULL for zeros. out may be b. */
    void (*mix_rows)(ptrdiff_t rows, ptrdiff_t n, const void *m, ptrdiff_t m_stride, double factor,
                     const void *a, ptrdiff_t a_stride, const void *b, ptrdiff_t b_stride,
                     void *out, ptrdiff_t out_stride);

    /* y (n) = activation of x (n); y may be x. */
    void (*sigmoid)(ptrdiff_t n, const void *x, void *y);
    void (*tanh)(ptrdiff_t n, const void *x, void *y);

    /* Those of layers of 8 or 16 bits, see activations_tpl.h, and their cell: h (n), and c (n) in
     * and out, of the gates before activation z (4, n). NULL in double. */
    void (*low_sigmoid)(int bits, ptrdiff_t n, const float *x, float *y);
    void (*low_tanh)(int bits, ptrdiff_t n, const float *x, float *y);
    void (*low_cell)(int bits, ptrdiff_t n, const float *z, float *c, float *h);

    /* What the hardware allows, see limits_tpl.h. */
    double (*limit_fma)(ptrdiff_t n, volatile double *sink);
    double (*limit_read)(ptrdiff_t n, const void *x, ptrdiff_t repeats, volatile double *sink);
} fl_kernels;

/* How a model's weights are kept. */
typedef enum fl_weights {
    FL_WEIGHTS_REAL = 0, /* as reals, in the working precision */
    FL_WEIGHTS_KINDS     /* how many kinds there are */
} fl_weights;

/* Returns the table of an instruction set by name (NULL: fl_isa_default()) for a kind of weights,
 * or NULL when this machine has none such. */
const fl_kernels *fl_kernels_find(const char *isa, fl_dtype dtype, fl_weights weights);

#endif
