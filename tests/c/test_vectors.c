/* Vectors of parameters: norms and steps of Adam have the bits that vectors.h tells of. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "check.h"
#include "random.h"
#include "vectors.h"

enum { BLOCK = 512 /* of vectors.c */, LANES = FL_SQUARES_LANES, GUARD = 16 };
#define COUNT(array) (sizeof(array) / sizeof *(array))

static double get(fl_dtype dtype, const void *array, ptrdiff_t j) {
    return dtype == FL_FLOAT32 ? (double)((const float *)array)[j] : ((const double *)array)[j];
}
static void set(fl_dtype dtype, void *array, ptrdiff_t j, double value) {
    if (dtype == FL_FLOAT32) ((float *)array)[j] = (float)value;
    else ((double *)array)[j] = value;
}
static size_t size_of(fl_dtype dtype) {
    return dtype == FL_FLOAT32 ? sizeof(float) : sizeof(double);
}

/* One operation, rounded by itself whatever the compiler would make of two. Of two floats, float64
 * has room enough for a second rounding to change nothing. */
static double rounded(fl_dtype dtype, double value) {
    volatile double result = value;
    if (dtype == FL_FLOAT32) result = (double)(float)result;
    return result;
}
static double add(fl_dtype dtype, double a, double b) { return rounded(dtype, a + b); }
static double multiply(fl_dtype dtype, double a, double b) { return rounded(dtype, a * b); }
static double divide(fl_dtype dtype, double a, double b) { return rounded(dtype, a / b); }

static int same(double a, double b) {
    return isnan(a) ? isnan(b) : a == b && !signbit(a) == !signbit(b);
}

/* The sign and payload of NaNs are the processor's. */
static void hash_numbers(fl_dtype dtype, const void *array, ptrdiff_t n) {
    for (ptrdiff_t j = 0; j < n; j++) {
        const double value = get(dtype, array, j);
        if (isnan(value)) hash_bytes("NaN", 3);
        else hash_bytes((const unsigned char *)array + (size_t)j * size_of(dtype), size_of(dtype));
    }
}

/* The ends of the range: the least number, which is denormal, the least normal one, the largest. */
typedef struct ends {
    double least, normal, most;
} ends;
static ends ends_of(fl_dtype dtype) {
    if (dtype == FL_FLOAT32) return (ends){ldexp(1, -149), (double)FLT_MIN, (double)FLT_MAX};
    return (ends){ldexp(1, -1074), DBL_MIN, DBL_MAX};
}

static double unusual(fl_dtype dtype, ptrdiff_t which) {
    const ends of = ends_of(dtype);
    const double values[] = {
        0,        -0.0,     of.least,  -3 * of.least, of.normal - of.least, -of.normal, of.most,
        -of.most, INFINITY, -INFINITY, NAN,           sqrt(of.normal)};
    return values[which % (ptrdiff_t)COUNT(values)];
}

/* ---- Norms --------------------------------------------------------------------------------- */

enum { MOST = 2 * LANES + 1 };
static double numbers[MOST];

/* Sum i of count, where those of the second half of twice as many have been added. */
static double halved(const double *sums, ptrdiff_t i, ptrdiff_t count) {
    if (count == LANES) return sums[i];
    return halved(sums, i, 2 * count) + halved(sums, i + count, 2 * count);
}

/* The norm of finite numbers. Squares of floats need no scale, and no other power of two than the
 * library's makes other bits. */
static double expected_norm(fl_dtype dtype, ptrdiff_t n) {
    static double sums[LANES];
    memset(sums, 0, sizeof sums);
    double largest = 0;
    for (ptrdiff_t i = 0; i < n; i++)
        if (fabs(get(dtype, numbers, i)) > largest) largest = fabs(get(dtype, numbers, i));
    if (largest == 0) return 0;
    int exponent = dtype == FL_FLOAT32 ? 0 : ilogb(largest);
    if (exponent < -1020) exponent = -1020;
    for (ptrdiff_t i = 0; i < n; i++) {
        const double scaled = ldexp(get(dtype, numbers, i), -exponent);
        sums[i % LANES] += multiply(FL_FLOAT64, scaled, scaled);
    }
    return ldexp(sqrt(halved(sums, 0, 1)), exponent);
}

static void check_norm(fl_dtype dtype, ptrdiff_t n, double size) {
    for (ptrdiff_t i = 0; i < n; i++) set(dtype, numbers, i, size * random_real());
    const double norm = fl_norm(dtype, n, numbers);
    CHECK(same(norm, expected_norm(dtype, n)));
    hash_numbers(FL_FLOAT64, &norm, 1);
    if (n == 0) return;
    /* One number that is not finite decides, wherever it is; a NaN before any infinity. */
    set(dtype, numbers, n / 2, -INFINITY);
    CHECK(same(fl_norm(dtype, n, numbers), INFINITY));
    set(dtype, numbers, n - 1, NAN);
    CHECK(isnan(fl_norm(dtype, n, numbers)));
    set(dtype, numbers, n - 1, INFINITY);
    set(dtype, numbers, 0, NAN);
    CHECK(isnan(fl_norm(dtype, n, numbers)));
}

static void check_norms(fl_dtype dtype) {
    static const ptrdiff_t LENGTHS[] = {0,         1,         2,     7,         127,  BLOCK - 1,
                                        BLOCK + 1, LANES - 1, LANES, LANES + 1, 4099, 2 * LANES - 1,
                                        MOST};
    const ends of = ends_of(dtype);
    /* Denormal numbers, both ends of the range, and norms beyond it, which are infinite. */
    const double sizes[] = {1, 1e-3, 40 * of.least, of.normal, of.most / 128, of.most};
    for (size_t k = 0; k < COUNT(LENGTHS); k++)
        for (size_t s = 0; s < COUNT(sizes); s++) check_norm(dtype, LENGTHS[k], sizes[s]);

    /* What needs no rounding: 3, 4 and 5 times a power of two. */
    const double units[] = {1, of.least, of.normal, ldexp(1, dtype == FL_FLOAT32 ? 125 : 1020)};
    for (size_t u = 0; u < COUNT(units); u++) {
        const double unit = units[u];
        set(dtype, numbers, 0, -3 * unit);
        set(dtype, numbers, 1, -0.0);
        set(dtype, numbers, 2, 4 * unit);
        CHECK(fl_norm(dtype, 3, numbers) == 5 * unit);
    }
    for (ptrdiff_t i = 0; i < MOST; i++) set(dtype, numbers, i, -0.0);
    CHECK(same(fl_norm(dtype, MOST, numbers), 0));
    for (ptrdiff_t i = 0; i < 4; i++) set(dtype, numbers, i, of.most);
    CHECK(fl_norm(dtype, 4, numbers) == 2 * of.most); /* infinite in float64 alone */
}

/* ---- Adam ---------------------------------------------------------------------------------- */

enum { P, M, V, V_MAX, VECTORS, PARAMETERS = 1031 };
static double g[PARAMETERS], got[VECTORS][PARAMETERS + GUARD], expected[VECTORS][PARAMETERS];

/* A step in float64 variables of numbers of dtype, one parameter after another. */
static void expected_step(const fl_adam *adam) {
    const fl_dtype t = adam->dtype;
    const double beta1 = rounded(t, adam->beta1), rest1 = rounded(t, 1 - adam->beta1);
    const double beta2 = rounded(t, adam->beta2), rest2 = rounded(t, 1 - adam->beta2);
    const double eps = rounded(t, adam->eps), correction = rounded(t, adam->correction);
    for (ptrdiff_t i = 0; i < adam->n; i++) {
        double slope = get(t, g, i), p = expected[P][i], m = expected[M][i], v = expected[V][i];
        if (adam->keep != 1) p = multiply(t, p, rounded(t, adam->keep));
        if (adam->decay != 0) slope = add(t, slope, multiply(t, p, rounded(t, adam->decay)));
        const double apart = add(t, slope, -m);
        if (adam->beta1 > 0.5) m = add(t, m, multiply(t, rest1, apart));
        else m = add(t, slope, -multiply(t, beta1, apart));
        v = add(t, multiply(t, beta2, v), multiply(t, multiply(t, rest2, slope), slope));
        double variance = v;
        if (adam->v_max) {
            variance = expected[V_MAX][i];
            if (!isnan(variance) && !(variance > v)) variance = v; /* a NaN stays one */
            expected[V_MAX][i] = variance;
        }
        const double root = rounded(t, sqrt(variance));
        const double below = add(t, divide(t, root, correction), eps);
        const double above = multiply(t, rounded(t, -adam->rate), m);
        expected[P][i] = add(t, p, divide(t, above, below));
        expected[M][i] = m;
        expected[V][i] = v;
    }
}

static int all_same(fl_dtype dtype, const void *array, const double *values, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++)
        if (!same(get(dtype, array, i), values[i])) return 0;
    return 1;
}
static int guarded(fl_dtype dtype, const void *array, ptrdiff_t n) {
    const unsigned char *after = (const unsigned char *)array + (size_t)n * size_of(dtype);
    for (size_t j = 0; j < GUARD * size_of(dtype); j++)
        if (after[j] != 0xff) return 0;
    return 1;
}

static void check_adam(fl_adam adam, int unusual_too) {
    const fl_dtype t = adam.dtype;
    memset(got, 0xff, sizeof got);
    for (ptrdiff_t i = 0; i < adam.n; i++)
        for (int k = 0; k < VECTORS; k++) {
            double value = k < V ? random_real() : fabs(random_real());
            /* Each vector in turn, with ordinary numbers between them. */
            if (unusual_too && i % 5 == k) value = unusual(t, i / 5);
            set(t, got[k], i, value);
        }
    adam.g = g, adam.p = got[P], adam.m = got[M], adam.v = got[V];
    for (int k = 0; k < VECTORS; k++)
        for (ptrdiff_t i = 0; i < adam.n; i++) expected[k][i] = get(t, got[k], i);
    double kept = 1;
    for (int step = 0; step < 2; step++) {
        for (ptrdiff_t i = 0; i < adam.n; i++)
            set(t, g, i, unusual_too && i % 5 == 4 ? unusual(t, i / 5) : random_real());
        kept = multiply(FL_FLOAT64, kept, adam.beta2);
        adam.correction = sqrt(1 - kept);
        fl_adam_step(&adam);
        expected_step(&adam);
        for (int k = 0; k < VECTORS; k++) {
            CHECK(all_same(t, got[k], expected[k], adam.n));
            CHECK(guarded(t, got[k], adam.n));
            hash_numbers(t, got[k], adam.n);
        }
    }
}

static void check_steps(fl_dtype dtype) {
    static const ptrdiff_t LENGTHS[] = {
        0, 1, 2, 3, 7, 31, 97, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 1, PARAMETERS};
    static const double BETAS[] = {0, 0.3, 0.5, 0.5000001, 0.9};
    for (size_t k = 0; k < COUNT(LENGTHS); k++)
        for (size_t b = 0; b < COUNT(BETAS); b++)
            for (int how = 0; how < 16; how++) {
                fl_adam adam = {.dtype = dtype, .n = LENGTHS[k], .beta1 = BETAS[b]};
                adam.beta2 = 0.999, adam.eps = 1e-8, adam.rate = 0.01;
                adam.keep = how & 1 ? 1 - 1e-3 : 1;
                adam.decay = how & 2 ? 0.03 : 0;
                adam.v_max = how & 4 ? got[V_MAX] : NULL;
                check_adam(adam, how & 8);
            }
    /* What there is nothing to divide by, and nothing that is remembered. */
    fl_adam adam = {.dtype = dtype, .n = 127, .rate = 1, .keep = 1};
    check_adam(adam, 1);
}

int main(void) {
    for (int dtype = FL_FLOAT32; dtype <= FL_FLOAT64; dtype++) {
        check_norms((fl_dtype)dtype);
        check_steps((fl_dtype)dtype);
    }
    printf("hash of all results: %016llx\n", (unsigned long long)results_hash);
    return checks_report();
}
