/* What trains a head, its gradient and softmax: the bits that linear.h and softmax.h tell of, on
 * every instruction set and for any number of threads. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "fastlstm.h"
#include "linear.h"
#include "random.h"
#include "softmax.h"

enum { MOST_ROWS = 300, MOST_K = 21, MOST_N = 2050, GUARD = 16 };
static const int THREADS[] = {1, 3};
#define COUNT(array) (sizeof(array) / sizeof *(array))

static double get(fl_dtype dtype, const void *array, ptrdiff_t j) {
    return dtype == FL_FLOAT32 ? (double)((const float *)array)[j] : ((const double *)array)[j];
}
static void set(fl_dtype dtype, void *array, ptrdiff_t j, double value) {
    if (dtype == FL_FLOAT32) ((float *)array)[j] = (float)value;
    else ((double *)array)[j] = value;
}
static double multiply_add(fl_dtype dtype, double a, double b, double c) {
    return dtype == FL_FLOAT32 ? (double)fmaf((float)a, (float)b, (float)c) : fma(a, b, c);
}
static double add(fl_dtype dtype, double a, double b) {
    return dtype == FL_FLOAT32 ? (double)((float)a + (float)b) : a + b;
}

/* The sum of count products, in blocks; b NULL: of a alone. */
static double sum_of(fl_dtype dtype, ptrdiff_t count, ptrdiff_t block, const void *a,
                     ptrdiff_t a_first, ptrdiff_t a_step, const void *b, ptrdiff_t b_first,
                     ptrdiff_t b_step) {
    double total = 0;
    for (ptrdiff_t first = 0; first < count; first += block) {
        double sum = 0;
        for (ptrdiff_t j = first; j < first + block && j < count; j++) {
            const double x = get(dtype, a, a_first + j * a_step);
            sum = b ? multiply_add(dtype, x, get(dtype, b, b_first + j * b_step), sum)
                    : add(dtype, sum, x);
        }
        total = add(dtype, total, sum);
    }
    return total;
}

static double dz[MOST_ROWS * 130 + MOST_N * 8], x[MOST_ROWS * MOST_K], weight[MOST_N * MOST_K];
static double dweight[MOST_N * MOST_K + GUARD], dbias[MOST_N + GUARD],
    dx[MOST_ROWS * MOST_K + GUARD];

static int guarded(const void *array, size_t bytes, size_t real) {
    for (size_t j = 0; j < GUARD * real; j++)
        if (((const unsigned char *)array)[bytes + j] != 0xff) return 0;
    return 1;
}

static void check_backward(fl_dtype dtype, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t N) {
    const size_t real = dtype == FL_FLOAT32 ? sizeof(float) : sizeof(double);
    for (ptrdiff_t j = 0; j < rows * N; j++) set(dtype, dz, j, random_real());
    for (ptrdiff_t j = 0; j < rows * K; j++) set(dtype, x, j, random_real());
    for (ptrdiff_t j = 0; j < N * K; j++) set(dtype, weight, j, random_real());
    static double expected_dweight[MOST_N * MOST_K], expected_dbias[MOST_N],
        expected_dx[MOST_ROWS * MOST_K];
    for (ptrdiff_t n = 0; n < N; n++) {
        for (ptrdiff_t k = 0; k < K; k++)
            set(dtype, expected_dweight, n * K + k, sum_of(dtype, rows, 256, dz, n, N, x, k, K));
        set(dtype, expected_dbias, n, sum_of(dtype, rows, 256, dz, n, N, NULL, 0, 0));
    }
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t k = 0; k < K; k++)
            set(dtype, expected_dx, row * K + k,
                sum_of(dtype, N, 1024, dz, row * N, 1, weight, k, K));
    const size_t dweight_bytes = (size_t)(N * K) * real, dx_bytes = (size_t)(rows * K) * real;
    const fl_linear_gradient call = {dtype, rows, K, N, dz, x, weight, dweight, dbias, dx};
    for (int i = 0; i < fl_isa_count(); i++)
        for (size_t t = 0; t < COUNT(THREADS); t++) {
            fl_set_num_threads(THREADS[t]);
            memset(dweight, 0xff, sizeof dweight);
            memset(dbias, 0xff, sizeof dbias);
            memset(dx, 0xff, sizeof dx);
            CHECK(fl_linear_backward(&call, fl_isa_name(i)) == FL_OK);
            CHECK(memcmp(dweight, expected_dweight, dweight_bytes) == 0);
            CHECK(memcmp(dbias, expected_dbias, (size_t)N * real) == 0);
            CHECK(memcmp(dx, expected_dx, dx_bytes) == 0);
            CHECK(guarded(dweight, dweight_bytes, real));
            CHECK(guarded(dbias, (size_t)N * real, real));
            CHECK(guarded(dx, dx_bytes, real));
        }
    hash_bytes(dx, dx_bytes);
    hash_bytes(dweight, dweight_bytes);
    fl_set_num_threads(1);
}

static double z[5 * MOST_N], out[5 * MOST_N + GUARD], scales[5];
static double largest[5 + GUARD], totals[5 + GUARD], at[5 + GUARD];

static void check_softmax(fl_dtype dtype, ptrdiff_t rows, ptrdiff_t N) {
    const size_t real = dtype == FL_FLOAT32 ? sizeof(float) : sizeof(double);
    const double epsilon = dtype == FL_FLOAT32 ? 1.2e-7 : 2.3e-16;
    static double first[5 * MOST_N + GUARD];
    for (ptrdiff_t j = 0; j < rows * N; j++) set(dtype, z, j, 20 * random_real());
    for (ptrdiff_t row = 0; row < rows; row++) set(dtype, scales, row, random_real());
    if (N > 2) { /* two that are largest */
        set(dtype, z, N - 1, 30);
        set(dtype, z, N / 2, 30);
    }
    const fl_softmax call = {dtype, rows, N, z, scales, out, largest, totals, at};
    for (int i = 0; i < fl_isa_count(); i++)
        for (size_t t = 0; t < COUNT(THREADS); t++) {
            fl_set_num_threads(THREADS[t]);
            memset(out, 0xff, sizeof out);
            memset(largest, 0xff, sizeof largest);
            memset(totals, 0xff, sizeof totals);
            memset(at, 0xff, sizeof at);
            CHECK(fl_softmax_apply(&call, fl_isa_name(i)) == FL_OK);
            int good = 1;
            for (ptrdiff_t row = 0; row < rows; row++) {
                ptrdiff_t most = 0;
                for (ptrdiff_t n = 1; n < N; n++)
                    if (get(dtype, z, row * N + n) > get(dtype, z, row * N + most)) most = n;
                double total = 0;
                const double top = get(dtype, z, row * N + most);
                for (ptrdiff_t n = 0; n < N; n++) total += exp(get(dtype, z, row * N + n) - top);
                good &= at[row] == (double)most && get(dtype, largest, row) == top;
                good &= fabs(get(dtype, totals, row) - total) <= 200 * epsilon * total;
                for (ptrdiff_t n = 0; n < N; n++) {
                    const double scale = get(dtype, scales, row);
                    const double exact = scale * exp(get(dtype, z, row * N + n) - top) / total;
                    good &= fabs(get(dtype, out, row * N + n) - exact) <=
                            200 * epsilon * fabs(exact) + epsilon * epsilon;
                }
            }
            CHECK(good);
            CHECK(guarded(out, (size_t)(rows * N) * real, real));
            CHECK(guarded(totals, (size_t)rows * real, real));
            CHECK(guarded(at, (size_t)rows * sizeof(double), sizeof(double)));
            if (i == 0 && t == 0) memcpy(first, out, sizeof out);
            CHECK(memcmp(first, out, sizeof out) == 0);
        }
    hash_bytes(out, (size_t)(rows * N) * real);
    fl_set_num_threads(1);
}

static void check_errors(void) {
    double in = 1, written = 7, also = 7, third = 7;
    const fl_linear_gradient good = {FL_FLOAT64, 1, 1, 1, &in, &in, &in, &written, &also, &third};
    fl_linear_gradient call = good;
    CHECK(fl_linear_backward(&call, "none") == FL_ERROR_ISA);
    call.rows = -1;
    CHECK(fl_linear_backward(&call, NULL) == FL_ERROR_ARGUMENT);
    call = good, call.N = 0;
    CHECK(fl_linear_backward(&call, NULL) == FL_ERROR_ARGUMENT);
    call = good, call.dz = NULL;
    CHECK(fl_linear_backward(&call, NULL) == FL_ERROR_ARGUMENT);
    call = good, call.K = PTRDIFF_MAX / 8 + 1;
    CHECK(fl_linear_backward(&call, NULL) == FL_ERROR_OVERFLOW);
    call = good, call.N = PTRDIFF_MAX;
    CHECK(fl_linear_backward(&call, NULL) == FL_ERROR_OVERFLOW);
    call = good, call.rows = PTRDIFF_MAX / 4 + 2;
    CHECK(fl_linear_backward(&call, NULL) == FL_ERROR_OVERFLOW);
    CHECK(written == 7 && also == 7 && third == 7);
    call = good, call.rows = 0, call.dz = call.x = call.dx = NULL;
    CHECK(fl_linear_backward(&call, NULL) == FL_OK);
    CHECK(written == 0 && also == 0 && third == 7);

    const fl_softmax row = {FL_FLOAT64, 1, 1, &in, &in, &written, &also, &third, &third};
    fl_softmax soft = row;
    CHECK(fl_softmax_apply(&soft, "none") == FL_ERROR_ISA);
    soft.N = 0;
    CHECK(fl_softmax_apply(&soft, NULL) == FL_ERROR_ARGUMENT);
    soft = row, soft.rows = -1;
    CHECK(fl_softmax_apply(&soft, NULL) == FL_ERROR_ARGUMENT);
    soft = row, soft.z = NULL;
    CHECK(fl_softmax_apply(&soft, NULL) == FL_ERROR_ARGUMENT);
    soft = row, soft.rows = PTRDIFF_MAX / 2;
    CHECK(fl_softmax_apply(&soft, NULL) == FL_ERROR_OVERFLOW);
    soft = row, soft.rows = 0, soft.z = NULL;
    CHECK(fl_softmax_apply(&soft, NULL) == FL_OK);
    CHECK(written == 0);
    CHECK(fl_softmax_apply(&row, NULL) == FL_OK);
    CHECK(written == 1 && also == 1);
}

int main(void) {
    static const ptrdiff_t ROWS[] = {1, 7, 300}, FEATURES[] = {1, 16, 21},
                           OUTPUTS[] = {1, 9, 64, 130};
    for (int dtype = FL_FLOAT32; dtype <= FL_FLOAT64; dtype++) {
        for (size_t r = 0; r < COUNT(ROWS); r++)
            for (size_t k = 0; k < COUNT(FEATURES); k++)
                for (size_t n = 0; n < COUNT(OUTPUTS); n++)
                    check_backward((fl_dtype)dtype, ROWS[r], FEATURES[k], OUTPUTS[n]);
        check_backward((fl_dtype)dtype, 8, 17, MOST_N);
        static const ptrdiff_t CLASSES[] = {1, 2, 3, 15, 16, 17, 63, 65, 130, 1023, 1025, MOST_N};
        for (size_t n = 0; n < COUNT(CLASSES); n++) check_softmax((fl_dtype)dtype, 5, CLASSES[n]);
    }
    check_errors();
    printf("hash of all results: %016llx\n", (unsigned long long)results_hash);
    return checks_report();
}
