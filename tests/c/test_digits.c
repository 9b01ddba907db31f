/* Products in 8, 16 and 24 bits, and steps made of them, on every instruction set that has them:
 * each against plain loops over whole numbers and fused multiply-adds, to the bit.
 *
 *     test_digits [quick | only_hash]
 *
 * Prints a hash of the first results, which must be the same on every machine, and whether they
 * were computed by AMX, too: "real", "emulated" (see amx_emulated.h) or "absent".
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "digits.h"
#include "fastlstm.h"
#include "kernels/digits.h"
#include "kernels/kernels.h"
#include "memory.h"
#include "platform.h"
#include "random.h"

enum { MOST_ROWS = 40 };
static const ptrdiff_t sizes[] = {1, 2, 3, 4, 5, 8, 11, 15, 16, 17, 31, 33, 64, 67, 130};
enum { SIZES = sizeof sizes / sizeof *sizes };
static const int row_counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 16, 17, 31, 32, 33, MOST_ROWS};
enum { ROW_COUNTS = sizeof row_counts / sizeof *row_counts };

static int is_nan(float x) { return x != x; }
static int same(float a, float b) {
    return (is_nan(a) && is_nan(b)) || memcmp(&a, &b, sizeof a) == 0;
}
static void hash_float(float x) {
    if (is_nan(x)) x = NAN;
    hash_bytes(&x, sizeof x);
}

static void *allocate(ptrdiff_t count, size_t size) {
    void *block = malloc((size_t)count * size + 1);
    if (block == NULL) exit(2);
    return block;
}

/* One matrix (G * units, K), rows that meet it, and what comes of them, computed by plain loops. */
typedef struct problem {
    int bits, n, S, G;
    ptrdiff_t units, K;
    signed char *weights;   /* (n, G * units, K) */
    float *weight_units;    /* (G * units) */
    float *multipliers;     /* (K), or NULL */
    float *x;               /* (MOST_ROWS, K) */
    signed char *digits;    /* (MOST_ROWS, n, K) of x */
    float *row_units;       /* (MOST_ROWS) */
    float *start, *z;       /* (MOST_ROWS, G * units) */
    float *c, *c_after, *h; /* (MOST_ROWS, units), of a step */
} problem;

static float bits_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void quantize_plainly(const problem *p, ptrdiff_t row) {
    const float M = p->n == 1 ? 127.0f : p->n == 2 ? 32639.0f : 8355711.0f;
    const float *x = p->x + row * p->K;
    float scale = 0x1p-100f;
    int finite = 1;
    for (ptrdiff_t k = 0; k < p->K; k++) {
        const float number = p->multipliers ? x[k] * p->multipliers[k] : x[k];
        finite &= isfinite(number) != 0;
        if (fabsf(number) > scale) scale = fabsf(number);
    }
    p->row_units[row] = finite ? scale / M : NAN;
    const float inverse = M / scale;
    for (ptrdiff_t k = 0; k < p->K; k++) {
        float scaled = 0;
        if (finite) scaled = (p->multipliers ? x[k] * p->multipliers[k] : x[k]) * inverse;
        long q = lrint((double)scaled);
        if (q > (long)M) q = (long)M;
        if (q < -(long)M) q = -(long)M;
        for (int i = p->n - 1; i >= 0; i--) {
            long digit = q % 256;
            if (digit > 127) digit -= 256;
            if (digit < -128) digit += 256;
            p->digits[(row * p->n + i) * p->K + k] = (signed char)digit;
            q = (q - digit) / 256;
        }
        CHECK(q == 0);
    }
}

/* The product of a row with row `unit` of the weights, added to start. */
static float multiply_plainly(const problem *p, ptrdiff_t row, ptrdiff_t unit) {
    long long sums[3] = {0};
    for (int d = 0; d < p->n; d++)
        for (int e = 0; e < p->n && d + e < p->S; e++)
            for (ptrdiff_t k = 0; k < p->K; k++)
                sums[d + e] += p->digits[(row * p->n + d) * p->K + k] *
                               p->weights[(e * p->G * p->units + unit) * p->K + k];
    float t = (float)sums[0];
    for (int s = 1; s < p->S; s++) t = fmaf(t, 256.0f, (float)sums[s]);
    const float power = p->n == 1 || p->S > p->n ? 1.0f : p->n == 2 ? 256.0f : 65536.0f;
    const float factor = p->row_units[row] * (p->weight_units[unit] * power);
    return fmaf(t, factor, p->start[row * p->G * p->units + unit]);
}

/* A cell of the float kernels in plain C. */
static void cell_plainly(const problem *p, ptrdiff_t row) {
    const fl_kernels *plain = fl_kernels_find("scalar", FL_FLOAT32, FL_WEIGHTS_REAL);
    const ptrdiff_t H = p->units;
    float *z = p->z + row * 4 * H, *c = p->c_after + row * H, *h = p->h + row * H;
    memcpy(c, p->c + row * H, (size_t)H * sizeof *c);
    if (p->bits < 24) {
        plain->low_cell(p->bits, H, z, c, h);
        return;
    }
    for (ptrdiff_t unit = 0; unit < H; unit++) { /* H = 1, and nothing to add to z */
        const float gates[4] = {z[unit], z[H + unit], z[2 * H + unit], z[3 * H + unit]};
        const float zeros[4] = {0};
        plain->step(0, 1, 1, 1, zeros, 1, zeros, gates, 4, c + unit, h + unit, 1, NULL, 0, 1);
    }
}

/* Numbers of all kinds in some of the rows. */
static float unusual(ptrdiff_t row, ptrdiff_t k, float number) {
    if (row == 3 && k == 0) return NAN;
    if (row == 5 && k % 5 == 4) return -INFINITY;
    if (row == 6) return number * 0x1p125f;
    if (row == 7) return bits_of((uint32_t)(k + 1) * 0x1234u); /* denormals alone */
    if (row == 8) return 0;
    if (row == 9) return number * 0x1p-99f;
    if (row == 10) return k % 2 ? 1.0f : -1.0f;
    if (row == 11) return number * 2.5f;
    if (row == 12) return k % 3 ? number : bits_of(0x80000000u | (uint32_t)k);
    return number;
}

static problem make(int bits, int S, int G, ptrdiff_t units, ptrdiff_t K, int of_inputs) {
    const int n = bits / 8;
    const ptrdiff_t columns = G * units;
    problem p = {bits, n, S, G, units, K};
    p.weights = allocate(n * columns * K, 1);
    for (ptrdiff_t j = 0; j < n * columns * K; j++)
        p.weights[j] = (signed char)(random_real() * 128); /* -128 is too rare: */
    for (ptrdiff_t j = 0; j < n * columns * K; j += 7) p.weights[j] = j % 2 ? -128 : 127;
    p.weight_units = allocate(columns, sizeof(float));
    for (ptrdiff_t j = 0; j < columns; j++) p.weight_units[j] = (float)(random_real() + 1.5) / 4096;
    if (columns > 3) p.weight_units[columns / 2] = 0;
    if (columns > 4) p.weight_units[columns / 3] = NAN;
    p.multipliers = of_inputs ? allocate(K, sizeof(float)) : NULL;
    for (ptrdiff_t k = 0; of_inputs && k < K; k++)
        p.multipliers[k] = (float)(random_real() + 1.5) * (k % 4 == 1 ? 8.0f : 0.5f);
    p.x = allocate(MOST_ROWS * K, sizeof(float));
    p.digits = allocate(MOST_ROWS * n * K, 1);
    p.row_units = allocate(MOST_ROWS, sizeof(float));
    p.start = allocate(MOST_ROWS * columns, sizeof(float));
    p.z = allocate(MOST_ROWS * columns, sizeof(float));
    p.c = allocate(MOST_ROWS * units, sizeof(float));
    p.c_after = allocate(MOST_ROWS * units, sizeof(float));
    p.h = allocate(MOST_ROWS * units, sizeof(float));
    for (ptrdiff_t row = 0; row < MOST_ROWS; row++) {
        for (ptrdiff_t k = 0; k < K; k++) p.x[row * K + k] = unusual(row, k, (float)random_real());
        for (ptrdiff_t j = 0; j < columns; j++) p.start[row * columns + j] = (float)random_real();
        for (ptrdiff_t j = 0; j < units; j++) p.c[row * units + j] = (float)random_real() * 3;
        quantize_plainly(&p, row);
        for (ptrdiff_t j = 0; j < columns; j++)
            p.z[row * columns + j] = multiply_plainly(&p, row, j);
        if (G == 4) cell_plainly(&p, row);
    }
    return p;
}

static void discard(problem *p) {
    void *blocks[] = {p->weights,   p->weight_units, p->multipliers, p->x, p->digits,
                      p->row_units, p->start,        p->z,           p->c, p->c_after,
                      p->h};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) free(blocks[i]);
}

/* Where a number of a row of pre-activations (panels, G, V) is; -1 for padding. */
static ptrdiff_t column_of(const problem *p, ptrdiff_t V, ptrdiff_t at) {
    const ptrdiff_t unit = at / (p->G * V) * V + at % V, gate = at / V % p->G;
    return unit < p->units ? gate * p->units + unit : -1;
}

static void test_quantize(const fl_digit_kernels *kernels, const problem *p, const fl_digits *w,
                          int rows, const fl_digit_rows *a) {
    const ptrdiff_t width = 4 * w->k_blocks, bytes = rows * p->n * width;
    /* Rows apart, the last one ending where its memory does. */
    const ptrdiff_t stride = p->K + rows % 3;
    float *x = allocate((rows - 1) * stride + p->K, sizeof *x);
    for (int row = 0; row < rows; row++)
        memcpy(x + row * stride, p->x + row * p->K, (size_t)p->K * sizeof *x);
    a->digits[bytes] = 77;
    a->units[rows] = 77;
    kernels->quantize(w, rows, x, stride, a);
    free(x);
    CHECK(a->digits[bytes] == 77 && a->units[rows] == 77);
    long wrong = 0;
    for (ptrdiff_t row = 0; row < rows; row++) {
        wrong += !same(a->units[row], p->row_units[row]);
        for (int i = 0; i < p->n; i++)
            for (ptrdiff_t k = 0; k < width; k++) {
                const int digit = k < p->K ? p->digits[(row * p->n + i) * p->K + k] : 0;
                const uint8_t got = a->digits[(row * p->n + i) * width + k];
                wrong += got != (uint8_t)(digit + kernels->offset);
            }
    }
    CHECK(wrong == 0);
}

static void test_product(const fl_digit_kernels *kernels, const problem *p, const fl_digits *w,
                         int rows, const fl_digit_rows *a, int in_place) {
    const ptrdiff_t V = kernels->real->lanes, panels = (p->units + V - 1) / V;
    const ptrdiff_t z_row = panels * p->G * V, z_stride = z_row + (in_place ? 0 : 3);
    const int shared = !in_place && rows > 1; /* one start for all rows, that of the first */
    float *start = allocate(rows * z_row, sizeof *start);
    float *z = in_place ? start : allocate((rows - 1) * z_stride + z_row, sizeof *z);
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t at = 0; at < z_row; at++) {
            const ptrdiff_t column = column_of(p, V, at);
            start[row * z_row + at] =
                column < 0 ? 0 : p->start[(shared ? 0 : row) * p->G * p->units + column];
            if (!in_place) z[row * z_stride + at] = 77;
        }
    /* In two parts, of which the first is missing at times. */
    const ptrdiff_t first = panels / 2, second = panels - first;
    const int all = rows % 4 != 3;
    if (all && first > 0)
        kernels->product(w, 0, first, rows, a, start, shared ? 0 : z_row, z,
                         in_place ? z_row : z_stride);
    kernels->product(w, first, second, rows, a, start, shared ? 0 : z_row, z,
                     in_place ? z_row : z_stride);
    long wrong = 0;
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t at = 0; at < z_row; at++) {
            const ptrdiff_t column = column_of(p, V, at);
            if (column < 0) continue;
            const float got = z[row * z_stride + at];
            if (!all && at < first * p->G * V) {
                wrong += got != (in_place ? p->start[row * p->G * p->units + column] : 77.0f);
                continue;
            }
            float expected = p->z[row * p->G * p->units + column];
            if (shared && row > 0) {
                problem other = *p;
                other.start = p->start - row * p->G * p->units;
                expected = multiply_plainly(&other, row, column);
            }
            wrong += !same(got, expected);
        }
    CHECK(wrong == 0);
    for (ptrdiff_t column = 0; rows == 1 && column < p->G * p->units; column++) {
        const ptrdiff_t gate = column / p->units, unit = column % p->units;
        hash_float(z[(unit / V * p->G + gate) * V + unit % V]);
    }
    if (!in_place) free(z);
    free(start);
}

static void test_step(const fl_digit_kernels *kernels, const problem *p, const fl_digits *u,
                      int rows, const fl_digit_rows *a, int backward) {
    const ptrdiff_t V = kernels->real->lanes, H = p->units, panels = (H + V - 1) / V;
    const ptrdiff_t z_row = panels * 4 * V, h_stride = H + rows % 2;
    float *z = allocate(rows * z_row, sizeof *z), *c = allocate(rows * H, sizeof *c);
    float *h = allocate((rows - 1) * h_stride + H, sizeof *h);
    memcpy(c, p->c, (size_t)(rows * H) * sizeof *c);
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t at = 0; at < z_row; at++) {
            const ptrdiff_t column = column_of(p, V, at);
            z[row * z_row + at] = column < 0 ? 0 : p->start[row * 4 * H + column];
        }
    const ptrdiff_t first = panels / 2;
    if (first > 0) kernels->step(u, 0, first, rows, H, a, z, z_row, c, h, h_stride, backward);
    kernels->step(u, first, panels - first, rows, H, a, z, z_row, c, h, h_stride, backward);
    long wrong = 0;
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t unit = 0; unit < H; unit++) {
            wrong += !same(c[row * H + unit], p->c_after[row * H + unit]);
            wrong += !same(h[row * h_stride + unit], p->h[row * H + unit]);
            if (rows == MOST_ROWS) hash_float(h[row * h_stride + unit]);
        }
    CHECK(wrong == 0);
    free(z);
    free(c);
    free(h);
}

static void test_problem(const fl_digit_kernels *kernels, const problem *p) {
    const fl_digits_sizes shape = {p->bits, p->S, p->G, p->units, p->K, p->multipliers != NULL};
    const fl_quantized_matrix matrix = {p->weights, p->weight_units};
    size_t bytes;
    CHECK(fl_digits_count(kernels, &shape, &bytes));
    void *memory = fl_memory_alloc(bytes, 1);
    if (memory == NULL) exit(2);
    fl_digits w;
    fl_digits_pack(kernels, &shape, &matrix, p->multipliers, memory, &w);
    CHECK(w.K == p->K && 4 * w.k_blocks >= p->K && w.k_blocks % kernels->block_multiple == 0);
    CHECK((const char *)w.factors < (char *)memory + bytes);
    for (int i = 0; i < ROW_COUNTS; i++) {
        const int rows = row_counts[i];
        const ptrdiff_t bytes_of_rows = rows * p->n * 4 * w.k_blocks;
        const fl_digit_rows a = {allocate(bytes_of_rows, 1), allocate(rows + 1, sizeof(float))};
        test_quantize(kernels, p, &w, rows, &a);
        test_product(kernels, p, &w, rows, &a, i % 2);
        if (p->G == 4 && p->S == 2 * p->n - 1 - (p->n == 3) * 2)
            test_step(kernels, p, &w, rows, &a, i % 2);
        free(a.digits);
        free(a.units);
    }
    fl_memory_free(memory);
}

/* As many columns as there may be, and the largest sums. */
static void test_most_columns(const fl_digit_kernels *kernels, int bits, int S, ptrdiff_t K) {
    const int n = bits / 8;
    problem p = {bits, n, S, 1, 1, K};
    float x = 0, start[MOST_ROWS] = {0}, unit = 0x1p-20f, units[MOST_ROWS], z[64 * MOST_ROWS];
    p.weights = allocate(n * K, 1);
    memset(p.weights, -128, (size_t)(n * K));
    p.weight_units = &unit;
    p.x = &x;
    p.digits = allocate(MOST_ROWS * n * K, 1);
    p.row_units = units;
    p.start = start;
    const fl_digits_sizes shape = {bits, S, 1, 1, K, 0};
    const fl_quantized_matrix matrix = {p.weights, p.weight_units};
    size_t bytes;
    CHECK(fl_digits_count(kernels, &shape, &bytes));
    void *memory = fl_memory_alloc(bytes, 1);
    if (memory == NULL) exit(2);
    fl_digits w;
    fl_digits_pack(kernels, &shape, &matrix, NULL, memory, &w);
    const ptrdiff_t width = 4 * w.k_blocks;
    const int rows = 7;
    uint8_t *digits = allocate(rows * n * width, 1);
    memset(digits, kernels->offset, (size_t)(rows * n * width));
    for (int row = 0; row < rows; row++) {
        units[row] = 1.0f / 4096;
        for (ptrdiff_t j = 0; j < n * K; j++) {
            const int digit = row % 2 ? (n == 1 || j < K ? 127 : -128) : (j < K ? -127 : -128);
            p.digits[row * n * K + j] = (signed char)digit;
            digits[(row * n + j / K) * width + j % K] = (uint8_t)(digit + kernels->offset);
        }
    }
    const fl_digit_rows a = {digits, units};
    for (int count = 1; count <= rows; count += rows - 1) {
        memset(z, 0, sizeof z);
        kernels->product(&w, 0, 1, count, &a, z, 64, z, 64);
        for (int row = 0; row < count; row++) {
            CHECK(same(z[row * 64], multiply_plainly(&p, row, 0)));
            hash_float(z[row * 64]);
        }
    }
    free(digits);
    free(p.digits);
    free(p.weights);
    fl_memory_free(memory);
}

/* Which AMX the kernels of that name ran on: AMX_EMULATED_H is defined where this is built with
 * the emulation. */
static const char *amx(void) {
    const fl_digit_kernels *kernels = fl_digit_kernels_find("avx512_amx");
    if (kernels == NULL || strcmp(kernels->isa, "avx512_amx") != 0) return "absent";
#ifdef AMX_EMULATED_H
    return "emulated";
#else
    return "real";
#endif
}

static void test_counts(const fl_digit_kernels *kernels) {
    size_t bytes;
    const fl_digits_sizes huge[] = {
        {8, 1, 4, PTRDIFF_MAX / 64, 1024, 0},
        {24, 3, 4, 1024, PTRDIFF_MAX / 64, 0},
        {8, 1, 1, 1, PTRDIFF_MAX - 2, 1},
        {16, 3, 4, PTRDIFF_MAX / 8, 1, 0},
    };
    for (size_t i = 0; i < sizeof huge / sizeof *huge; i++)
        CHECK(!fl_digits_count(kernels, &huge[i], &bytes));
}

static void test_quantize_rows(void) {
    const float weights[4][3] = {
        {1.27f, -0.01f, 0.015f}, {0, 0, -0.0f}, {1, INFINITY, 2}, {-0x1p-126f, 0, 0}};
    signed char digits[3][4][3];
    float units[4];
    CHECK(fl_quantize_rows(8, 4, 3, &weights[0][0], &digits[0][0][0], units) == FL_OK);
    CHECK(units[0] == 1.27f / 127 && units[1] == 0 && is_nan(units[2]) && units[3] == 0);
    CHECK(digits[0][0][0] == 127 && digits[0][0][1] == -1 && abs(digits[0][0][2]) <= 2);
    for (int j = 0; j < 9; j++) CHECK(digits[0][1 + j / 3][j % 3] == 0);
    CHECK(fl_quantize_rows(12, 4, 3, &weights[0][0], &digits[0][0][0], units) == FL_ERROR_ARGUMENT);
    CHECK(fl_quantize_rows(0, 4, 3, &weights[0][0], &digits[0][0][0], units) == FL_ERROR_ARGUMENT);
    CHECK(fl_quantize_rows(32, 4, 3, &weights[0][0], &digits[0][0][0], units) == FL_ERROR_ARGUMENT);
    CHECK(fl_quantize_rows(8, -1, 3, &weights[0][0], &digits[0][0][0], units) == FL_ERROR_ARGUMENT);
    CHECK(fl_quantize_rows(8, 4, 3, NULL, &digits[0][0][0], units) == FL_ERROR_ARGUMENT);
    CHECK(fl_quantize_rows(8, PTRDIFF_MAX, 3, &weights[0][0], &digits[0][0][0], units) ==
          FL_ERROR_OVERFLOW);
    CHECK(fl_quantize_rows(8, 0, 3, NULL, NULL, NULL) == FL_OK);
    for (int n = 1; n <= 3; n++) {
        const double M = n == 1 ? 127 : n == 2 ? 32639 : 8355711;
        enum { R = 37, K = 29 };
        static float w[R][K];
        static signed char d[3 * R * K];
        float row_units[R];
        for (int j = 0; j < R * K; j++)
            w[j / K][j % K] = (float)(random_real() * exp2(20 * random_real()));
        CHECK(fl_quantize_rows(8 * n, R, K, &w[0][0], d, row_units) == FL_OK);
        for (int r = 0; r < R; r++) {
            double most = 0;
            for (int k = 0; k < K; k++) most = fmax(most, fabs((double)w[r][k]));
            CHECK(row_units[r] == (float)(most / M));
            for (int k = 0; k < K; k++) {
                double q = 0;
                for (int i = 0; i < n; i++) q = 256 * q + d[(i * R + r) * K + k];
                const double quotient = (double)w[r][k] / (double)row_units[r];
                CHECK(q == fmax(-M, fmin(M, nearbyint(quotient))));
            }
        }
        hash_bytes(d, (size_t)(n * R * K));
    }
}

/* A twelfth of all pairs of sizes, or another sixth. */
static void test_sizes(const fl_digit_kernels *kernels, int more) {
    static const struct {
        int bits, S, of_inputs;
    } kinds[] = {{8, 1, 1}, {16, 2, 1}, {24, 3, 1}, {8, 1, 0}, {16, 3, 0}, {24, 3, 0}};
    static const int gates[] = {4, 3, 1};
    for (int kind = 0; kind < 6; kind++)
        for (int g = 0; g < 3; g++)
            for (int i = 0; i < SIZES; i++)
                for (int j = 0; j < SIZES; j++) {
                    const int turn = (i + j + g) % 12;
                    if (more ? turn != 4 && turn != 8 : turn != 0) continue;
                    problem p = make(kinds[kind].bits, kinds[kind].S, gates[g], sizes[i], sizes[j],
                                     kinds[kind].of_inputs);
                    test_problem(kernels, &p);
                    discard(&p);
                }
}

int main(int argc, char **argv) {
    const int quick = argc > 1 && (!strcmp(argv[1], "quick") || !strcmp(argv[1], "only_hash"));
    test_quantize_rows();
    const uint64_t first_hash = results_hash;
    uint64_t hash = 0;
    for (int index = 0; index < fl_quantized_isa_count(); index++) {
        const fl_digit_kernels *kernels = fl_digit_kernels_find(fl_quantized_isa_name(index));
        CHECK(kernels != NULL);
        if (kernels == NULL) continue;
        const long before = checks_failed;
        results_hash = first_hash;
        random_state = 88172645463325252u; /* the same problems for all */
        const fl_fp_state saved = fl_fp_enter();
        test_counts(kernels);
        test_most_columns(kernels, 8, 1, 131071);
        test_most_columns(kernels, 16, 2, 65535);
        test_most_columns(kernels, 16, 3, 65535);
        test_most_columns(kernels, 24, 3, 43690);
        test_sizes(kernels, 0);
        const uint64_t own = results_hash;
        if (!quick) test_sizes(kernels, 1);
        fl_fp_leave(saved);
        if (hash == 0) hash = own;
        CHECK(own == hash);
        if (checks_failed > before) fprintf(stderr, "on %s\n", kernels->isa);
        printf("%s: hash %016llx\n", kernels->isa, (unsigned long long)own);
    }
    printf("hash %016llx\namx: %s\n", (unsigned long long)hash, amx());
    return checks_report();
}
