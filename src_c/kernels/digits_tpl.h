/* Products in 8, 16 and 24 bits and the steps made of them, written once: see digits.h. Included
 * after kernels_tpl.h, whose floats these are, for each instruction of sums of products.
 *
 * The including file defines FL_DIGIT_ISA (the name, a bare word) and FL_DOTS, the vocabulary of
 * these sums, a dots_*.h. This undefines both.
 *
 * A panel's product is a function of its own, `panel_of` finds it. All else is made of it, but for
 * the step of one row, which goes from register to cell.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/digits.h"

#define FL_DOUBLE 0
#include "kernels/precision.h"

/* What follows expands by the name in force where it is used. */
#ifndef FL_DIGITS
#define FL_DIGITS(name) FL_CAT(FL_CAT(name, _), FL_DIGIT_ISA)
#define FL_DIGIT_STRING_(word) #word
#define FL_DIGIT_STRING(word) FL_DIGIT_STRING_(word)

/* The vocabulary: what every dots_*.h defines. Digits of rows are with the offset on.
 *
 *     FL_DIGIT_OFFSET               0 or 128: what is added to digits of rows
 *     FL_DIGIT_ROWS(n, S, T)        how many rows a tile of T vectors of units has, 1 to 4; single
 *                                   rows are left
 *     FL_DIGITS_APART(n, T)         whether one row has registers for a sum for each product of
 *                                   digits, so that none waits for another
 *     FL_DIGIT_SPLIT(n, T)          how many blocks of columns one row takes at once, each with
 *                                   sums of its own: 1 to 4
 *     vdots                         sums of V units, exact and in any order
 *     d_zero(), d_add(a, b)         0; the sum of two
 *     vfour, d_four(n, p)           four digits of a row, for V units
 *     vweights, d_weights(n, p)     four digits of each of V units
 *     d_dot(n, sums, four, weights) sums + four * weights
 *     d_real(sums, starts)          starts (V) + sums, rounded to real
 *     vlargest, d_none()            for V numbers the largest magnitude so far: none yet
 *     d_larger(largest, x)          the larger one of each and |x|, NaN and infinity being largest
 *     d_largest(largest)            the bits of the largest of all
 *     d_put(n, x, p, apart)         x (V), at most M_n, rounded, and its digits, the most
 *                                   significant at p, each of the others `apart` bytes on
 *
 * n = bits / 8 is a constant. With n = 1 no digit of a row is -128. */
#define vdots FL_DIGITS(vdots)
#define vfour FL_DIGITS(vfour)
#define vweights FL_DIGITS(vweights)
#define vlargest FL_DIGITS(vlargest)
#define d_zero FL_DIGITS(d_zero)
#define d_add FL_DIGITS(d_add)
#define d_four FL_DIGITS(d_four)
#define d_weights FL_DIGITS(d_weights)
#define d_dot FL_DIGITS(d_dot)
#define d_real FL_DIGITS(d_real)
#define d_none FL_DIGITS(d_none)
#define d_larger FL_DIGITS(d_larger)
#define d_largest FL_DIGITS(d_largest)
#define d_put FL_DIGITS(d_put)
#endif

#undef FL_DIGIT_OFFSET
#undef FL_DIGIT_ROWS
#undef FL_DIGIT_SPLIT
#undef FL_DIGITS_APART
#include FL_DOTS

/* Numbers j to j + count - 1 of a row, times their multipliers. */
FL_INLINE vreal FL_DIGITS(multiplied)(const float *x, const float *multipliers, ptrdiff_t j,
                                      ptrdiff_t count) {
    const vreal numbers = FL_NAME(load)(x + j, count);
    return multipliers ? v_mul(numbers, FL_NAME(load)(multipliers + j, count)) : numbers;
}

FL_INLINE void FL_DIGITS(quantize_rows)(const int n, const fl_digits *w, ptrdiff_t rows,
                                        const float *a, ptrdiff_t a_stride,
                                        const fl_digit_rows *out) {
    const float M = n == 1 ? 127.0f : n == 2 ? 32639.0f : 8355711.0f;
    const ptrdiff_t K = w->K, width = 4 * w->k_blocks;
    const float *multipliers = w->multipliers;
    uint8_t *digits = out->digits;
    for (ptrdiff_t r = 0; r < rows; r++, a += a_stride, digits += n * width) {
        vlargest largest = d_none();
#define FL_DO(j, count) largest = d_larger(largest, FL_DIGITS(multiplied)(a, multipliers, j, count))
        FL_FOR_VECTORS(0, K, FL_DO);
#undef FL_DO
        const uint32_t bits = d_largest(largest);
        float scale;
        memcpy(&scale, &bits, sizeof scale);
        if (scale < FL_SMALLEST_SCALE) scale = FL_SMALLEST_SCALE;
        if (bits >= 0x7f800000u) { /* infinity, or NaN */
            memset(digits, FL_DIGIT_OFFSET, (size_t)(n * width));
            const uint32_t nan = 0x7fc00000u;
            memcpy(&out->units[r], &nan, sizeof nan);
            continue;
        }
        out->units[r] = scale / M;
        const vreal inverse = v_set1(M / scale), most = v_set1(M), negative = v_set1(-M);
        ptrdiff_t j = 0;
#define FL_SCALED(j, count) \
    v_max(negative, v_min(most, v_mul(FL_DIGITS(multiplied)(a, multipliers, j, count), inverse)))
        for (; j + FL_V <= K; j += FL_V) d_put(n, FL_SCALED(j, FL_V), digits + j, width);
        if (j == width) continue;
        if (j < K && j + FL_V <= width) {
            d_put(n, FL_SCALED(j, K - j), digits + j, width);
            j += FL_V;
        } else if (j < K && width >= FL_V) { /* some of them once more */
            j = width - FL_V;
            d_put(n, FL_SCALED(j, K - j), digits + j, width);
            j = width;
        } else if (j < K) {
            uint8_t few[3 * FL_V + 3] = {0}; /* fours are copied, more than a single lane has */
            d_put(n, FL_SCALED(0, K), few, FL_V);
            for (int i = 0; i < n; i++)
                for (ptrdiff_t k = 0; k < width; k += 4)
                    memcpy(digits + i * width + k, few + i * FL_V + k, 4);
            j = width;
        }
#undef FL_SCALED
        for (int i = 0; i < n && j < width; i++)
            memset(digits + i * width + j, FL_DIGIT_OFFSET, (size_t)(width - j));
    }
}

static FL_NOINLINE void FL_DIGITS(quantize_1)(const fl_digits *w, ptrdiff_t rows, const float *a,
                                              ptrdiff_t a_stride, const fl_digit_rows *out) {
    FL_DIGITS(quantize_rows)(1, w, rows, a, a_stride, out);
}
static FL_NOINLINE void FL_DIGITS(quantize_2)(const fl_digits *w, ptrdiff_t rows, const float *a,
                                              ptrdiff_t a_stride, const fl_digit_rows *out) {
    FL_DIGITS(quantize_rows)(2, w, rows, a, a_stride, out);
}
static FL_NOINLINE void FL_DIGITS(quantize_3)(const fl_digits *w, ptrdiff_t rows, const float *a,
                                              ptrdiff_t a_stride, const fl_digit_rows *out) {
    FL_DIGITS(quantize_rows)(3, w, rows, a, a_stride, out);
}
static void FL_DIGITS(quantize)(const fl_digits *w, ptrdiff_t rows, const float *a,
                                ptrdiff_t a_stride, const fl_digit_rows *out) {
    if (w->n == 1) FL_DIGITS(quantize_1)(w, rows, a, a_stride, out);
    else if (w->n == 2) FL_DIGITS(quantize_2)(w, rows, a, a_stride, out);
    else FL_DIGITS(quantize_3)(w, rows, a, a_stride, out);
}

/* sums (R, A, T) += one block of columns of R rows times that of T vectors of units, whose digits
 * are `line` bytes apart. Digits d and e go to sum d * pitch + e: pitch 1 is one for each power of
 * 256, pitch n one for each pair. */
FL_INLINE void FL_DIGITS(add_block)(const int n, const int S, const int T, const int R, const int A,
                                    const int pitch, const uint8_t *rows, ptrdiff_t width,
                                    const int8_t *w, ptrdiff_t line, vdots *sums) {
    vfour fours[4 * 3];
    FL_UNROLL
    for (int r = 0; r < R; r++) {
        FL_UNROLL
        for (int i = 0; i < n; i++) fours[r * n + i] = d_four(n, rows + (r * n + i) * width);
    }
    FL_UNROLL
    for (int e = 0; e < n; e++) {
        FL_UNROLL
        for (int v = 0; v < T; v++) {
            const vweights weights = d_weights(n, w + e * line + v * 4 * FL_V);
            FL_UNROLL
            for (int r = 0; r < R; r++) {
                FL_UNROLL
                for (int d = 0; d < n; d++) {
                    if (d + e >= S) continue;
                    vdots *sum = sums + (r * A + d * pitch + e) * T + v;
                    *sum = d_dot(n, *sum, fours[r * n + d], weights);
                }
            }
        }
    }
}

/* sums (S, T) of (split, A, T), those of one row. Sum a is of power a / base + a % base. */
FL_INLINE void FL_DIGITS(gather)(const int S, const int T, const int split, const int A,
                                 const int base, vdots *sums) {
    FL_UNROLL
    for (int v = 0; v < T; v++) {
        vdots all[3];
        FL_UNROLL
        for (int power = 0; power < S; power++) all[power] = d_zero();
        FL_UNROLL
        for (int s = 0; s < split; s++) {
            FL_UNROLL
            for (int a = 0; a < A; a++) {
                const int power = a / base + a % base;
                if (power < S) all[power] = d_add(all[power], sums[(s * A + a) * T + v]);
            }
        }
        FL_UNROLL
        for (int power = 0; power < S; power++) sums[power * T + v] = all[power];
    }
}

/* z (R, T) = start + R rows times T vectors of units of a panel, from gate `first` on. */
FL_INLINE void FL_DIGITS(tile)(const int n, const int S, const int T, const int R,
                               const fl_digits *w, ptrdiff_t panel, ptrdiff_t gate,
                               const uint8_t *rows, const float *units, const float *start,
                               ptrdiff_t start_stride, vreal *z) {
    const int apart = R == 1 && FL_DIGITS_APART(n, T);
    const int A = apart ? n * n : S, pitch = apart ? n : 1;
    const int split = R == 1 ? FL_DIGIT_SPLIT(n, T) : 1;
    const ptrdiff_t G = T == 4 ? 4 : w->gates;
    const ptrdiff_t blocks = w->k_blocks, width = 4 * blocks, line = G * 4 * FL_V;
    const int8_t *digits = w->digits + panel * blocks * n * line + gate * 4 * FL_V;
    vdots sums[4 * 9 * 4];
    FL_UNROLL
    for (int j = 0; j < split * R * A * T; j++) sums[j] = d_zero();
    ptrdiff_t k = 0;
    for (; k + split <= blocks; k += split) {
        FL_UNROLL
        for (int s = 0; s < split; s++)
            FL_DIGITS(add_block)(n, S, T, R, A, pitch, rows + 4 * (k + s), width,
                                 digits + (k + s) * n * line, line, sums + s * A * T);
    }
    if (split > 1)
        for (; k < blocks; k++)
            FL_DIGITS(add_block)(n, S, T, R, A, pitch, rows + 4 * k, width, digits + k * n * line,
                                 line, sums);
    if (split > 1 || apart) FL_DIGITS(gather)(S, T, split, A, apart ? n : S, sums);
    /* No condition stands inside these loops: it would keep Clang from unrolling them early. */
    const int32_t *starts = w->starts + (panel * S * G + gate) * FL_V;
    const float *factors = w->factors + (panel * G + gate) * FL_V;
#define FL_FOR_SUMS(r, v)                 \
    FL_UNROLL                             \
    for (int r = 0; r < R; r++) FL_UNROLL \
    for (int v = 0; v < T; v++)
#define FL_NEXT_SUM(r, v, power)                    \
    z[r * T + v] = v_fma(z[r * T + v], v_set1(256), \
                         d_real(sums[(r * S + power) * T + v], starts + (power * G + v) * FL_V))
    FL_FOR_SUMS(r, v) z[r * T + v] = d_real(sums[r * S * T + v], starts + v * FL_V);
    if (S > 1) FL_FOR_SUMS(r, v) FL_NEXT_SUM(r, v, 1);
    if (S > 2) FL_FOR_SUMS(r, v) FL_NEXT_SUM(r, v, 2);
    FL_FOR_SUMS(r, v)
    z[r * T + v] = v_fma(z[r * T + v], v_mul(v_set1(units[r]), v_load(factors + v * FL_V)),
                         v_load(start + r * start_stride + v * FL_V));
#undef FL_FOR_SUMS
#undef FL_NEXT_SUM
}

/* The same, stored. */
FL_INLINE void FL_DIGITS(put_tile)(const int n, const int S, const int T, const int R,
                                   const fl_digits *w, ptrdiff_t panel, ptrdiff_t gate,
                                   const uint8_t *rows, const float *units, const float *start,
                                   ptrdiff_t start_stride, float *z, ptrdiff_t z_stride) {
    vreal out[4 * 4];
    FL_DIGITS(tile)(n, S, T, R, w, panel, gate, rows, units, start, start_stride, out);
    FL_UNROLL
    for (int r = 0; r < R; r++) {
        FL_UNROLL
        for (int v = 0; v < T; v++) v_store(z + r * z_stride + v * FL_V, out[r * T + v]);
    }
}

/* z (rows, G, V) = start + rows times a panel, T gates at a time. */
typedef void FL_DIGITS(panel_product)(const fl_digits *w, ptrdiff_t panel, ptrdiff_t rows,
                                      const uint8_t *digits, const float *units, const float *start,
                                      ptrdiff_t start_stride, float *z, ptrdiff_t z_stride);

/* Tiles of the most rows, then single ones, which are as fast while a panel is in the first cache.
 */
FL_INLINE void FL_DIGITS(panel_tiles)(const int n, const int S, const int T, const fl_digits *w,
                                      ptrdiff_t panel, ptrdiff_t rows, const uint8_t *digits,
                                      const float *units, const float *start,
                                      ptrdiff_t start_stride, float *z, ptrdiff_t z_stride) {
    const int most = FL_DIGIT_ROWS(n, S, T);
    const ptrdiff_t G = T == 4 ? 4 : w->gates;
    for (ptrdiff_t gate = 0; gate < G; gate += T) {
        ptrdiff_t row = 0;
#define FL_TILES(R)                                                                          \
    for (; row + R <= rows; row += R)                                                        \
    FL_DIGITS(put_tile)(n, S, T, R, w, panel, gate, digits + row * n * 4 * w->k_blocks,      \
                        units + row, start + row * start_stride + gate * FL_V, start_stride, \
                        z + row * z_stride + gate * FL_V, z_stride)
        if (most > 1) FL_TILES(most);
        FL_TILES(1);
#undef FL_TILES
    }
}

#define FL_PANEL_PRODUCT(n, S, T)                                                              \
    static FL_NOINLINE void FL_DIGITS(panel_##n##S##T)(                                        \
        const fl_digits *w, ptrdiff_t panel, ptrdiff_t rows, const uint8_t *digits,            \
        const float *units, const float *start, ptrdiff_t start_stride, float *z,              \
        ptrdiff_t z_stride) {                                                                  \
        FL_DIGITS(panel_tiles)(n, S, T, w, panel, rows, digits, units, start, start_stride, z, \
                               z_stride);                                                      \
    }
FL_PANEL_PRODUCT(1, 1, 4)
FL_PANEL_PRODUCT(2, 2, 4)
FL_PANEL_PRODUCT(2, 3, 4)
FL_PANEL_PRODUCT(3, 3, 4)
FL_PANEL_PRODUCT(1, 1, 1)
FL_PANEL_PRODUCT(2, 2, 1)
FL_PANEL_PRODUCT(2, 3, 1)
FL_PANEL_PRODUCT(3, 3, 1)
#undef FL_PANEL_PRODUCT

FL_INLINE FL_DIGITS(panel_product) * FL_DIGITS(panel_of)(const fl_digits *w) {
    if (w->n == 1) return w->gates == 4 ? FL_DIGITS(panel_114) : FL_DIGITS(panel_111);
    if (w->n == 3) return w->gates == 4 ? FL_DIGITS(panel_334) : FL_DIGITS(panel_331);
    if (w->sums == 2) return w->gates == 4 ? FL_DIGITS(panel_224) : FL_DIGITS(panel_221);
    return w->gates == 4 ? FL_DIGITS(panel_234) : FL_DIGITS(panel_231);
}

static void FL_DIGITS(product)(const fl_digits *w, ptrdiff_t first_panel, ptrdiff_t panels,
                               ptrdiff_t rows, const fl_digit_rows *a, const float *start,
                               ptrdiff_t start_stride, float *z, ptrdiff_t z_stride) {
    FL_DIGITS(panel_product) *const product = FL_DIGITS(panel_of)(w);
    for (ptrdiff_t panel = first_panel; panel < first_panel + panels; panel++) {
        const ptrdiff_t at = panel * w->gates * FL_V;
        product(w, panel, rows, a->digits, a->units, start + at, start_stride, z + at, z_stride);
    }
}

/* The cell of 8n bits of `count` units of one row, gates before activation in z (4). */
FL_INLINE void FL_DIGITS(cell)(const int n, const vreal *z, float *c, float *h, ptrdiff_t count) {
    vreal next = FL_NAME(load)(c, count), out;
    if (n == 3) {
        out = FL_NAME(v_cell)(z, &next);
    } else {
        next = FL_NAME(low_state)(8 * n, z[0], z[1], z[2], next);
        out = FL_NAME(low_sigmoid_tanh)(8 * n, z[3], next);
    }
    FL_NAME(store)(c, next, count);
    FL_NAME(store)(h, out, count);
}

/* A step of one row, from register to cell. */
FL_INLINE void FL_DIGITS(step_row)(const int n, const int S, const fl_digits *u,
                                   ptrdiff_t first_panel, ptrdiff_t panels, ptrdiff_t H,
                                   const fl_digit_rows *h, const float *z, float *c, float *h_out,
                                   int backward) {
    for (ptrdiff_t i = 0; i < panels; i++) {
        const ptrdiff_t panel = first_panel + (backward ? panels - 1 - i : i);
        const ptrdiff_t unit = panel * FL_V, count = H - unit < FL_V ? H - unit : FL_V;
        vreal gates[4];
        FL_DIGITS(tile)(n, S, 4, 1, u, panel, 0, h->digits, h->units, z + 4 * unit, 0, gates);
        FL_DIGITS(cell)(n, gates, c + unit, h_out + unit, count);
    }
}

/* The cells of some rows, gates before activation in z (rows, 4, V). */
FL_INLINE void FL_DIGITS(cells)(const int n, ptrdiff_t rows, ptrdiff_t H, ptrdiff_t unit,
                                const float *z, float *c, float *h_out, ptrdiff_t h_out_stride) {
    const ptrdiff_t count = H - unit < FL_V ? H - unit : FL_V;
    for (ptrdiff_t r = 0; r < rows; r++, z += FL_PANEL) {
        vreal gates[4];
        FL_UNROLL
        for (int gate = 0; gate < 4; gate++) gates[gate] = v_load(z + gate * FL_V);
        FL_DIGITS(cell)(n, gates, c + r * H + unit, h_out + r * h_out_stride + unit, count);
    }
}

#define FL_STEP(n, S)                                                                         \
    static FL_NOINLINE void FL_DIGITS(step_row_##n)(                                          \
        const fl_digits *u, ptrdiff_t first_panel, ptrdiff_t panels, ptrdiff_t H,             \
        const fl_digit_rows *h, const float *z, float *c, float *h_out, int backward) {       \
        FL_DIGITS(step_row)(n, S, u, first_panel, panels, H, h, z, c, h_out, backward);       \
    }                                                                                         \
    static FL_NOINLINE void FL_DIGITS(cells_##n)(ptrdiff_t rows, ptrdiff_t H, ptrdiff_t unit, \
                                                 const float *z, float *c, float *h_out,      \
                                                 ptrdiff_t h_out_stride) {                    \
        FL_DIGITS(cells)(n, rows, H, unit, z, c, h_out, h_out_stride);                        \
    }
FL_STEP(1, 1)
FL_STEP(2, 3)
FL_STEP(3, 3)
#undef FL_STEP

static void FL_DIGITS(step)(const fl_digits *u, ptrdiff_t first_panel, ptrdiff_t panels,
                            ptrdiff_t rows, ptrdiff_t H, const fl_digit_rows *h, const float *z,
                            ptrdiff_t z_stride, float *c, float *h_out, ptrdiff_t h_out_stride,
                            int backward) {
    const int n = u->n;
    if (rows == 1) {
        (n == 1   ? FL_DIGITS(step_row_1)
         : n == 2 ? FL_DIGITS(step_row_2)
                  : FL_DIGITS(step_row_3))(u, first_panel, panels, H, h, z, c, h_out, backward);
        return;
    }
    /* Products and cells by turns, a panel of some rows at a time. */
    enum { ROWS = 32 };
    float gates[ROWS * FL_PANEL];
    const ptrdiff_t row_bytes = n * 4 * u->k_blocks;
    FL_DIGITS(panel_product) *const product = FL_DIGITS(panel_of)(u);
    for (ptrdiff_t i = 0; i < panels; i++) {
        const ptrdiff_t panel = first_panel + (backward ? panels - 1 - i : i);
        for (ptrdiff_t row = 0; row < rows; row += ROWS) {
            const ptrdiff_t some = rows - row < ROWS ? rows - row : ROWS;
            product(u, panel, some, h->digits + row * row_bytes, h->units + row,
                    z + row * z_stride + panel * FL_PANEL, z_stride, gates, FL_PANEL);
            (n == 1   ? FL_DIGITS(cells_1)
             : n == 2 ? FL_DIGITS(cells_2)
                      : FL_DIGITS(cells_3))(some, H, panel * FL_V, gates, c + row * H,
                                            h_out + row * h_out_stride, h_out_stride);
        }
    }
}

const fl_digit_kernels FL_CAT(fl_digit_kernels_, FL_DIGIT_ISA) = {
    .isa = FL_DIGIT_STRING(FL_DIGIT_ISA),
    .real = &FL_CAT(fl_kernels_, FL_ISA)[FL_FLOAT32],
    .offset = FL_DIGIT_OFFSET,
    .block_multiple = 1,
    .quantize = FL_DIGITS(quantize),
    .product = FL_DIGITS(product),
    .step = FL_DIGITS(step),
};

#undef FL_DOUBLE
#undef FL_DOTS
#undef FL_DIGIT_ISA
