/* The linear layer: every instruction set gives the bits of the chain that linear.h tells of. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "fastlstm.h"
#include "linear.h"
#include "random.h"

static const ptrdiff_t ROWS[] = {1, 2, 3, 5, 8, 13, 33}, FEATURES[] = {1, 3, 16, 70},
                       OUTPUTS[] = {1, 2, 7, 8, 15, 16, 17, 33, 64, 65, 130};
#define COUNT(array) (sizeof(array) / sizeof *(array))
enum { MOST = 33 * 130, GUARD = 16 };

/* One element of an array of either precision, and the chain of fused multiply-adds. */
static double get(fl_dtype dtype, const void *array, ptrdiff_t j) {
    return dtype == FL_FLOAT32 ? (double)((const float *)array)[j] : ((const double *)array)[j];
}
static void set(fl_dtype dtype, void *array, ptrdiff_t j, double value) {
    if (dtype == FL_FLOAT32) ((float *)array)[j] = (float)value;
    else ((double *)array)[j] = value;
}
static double expected(const fl_linear *call, ptrdiff_t row, ptrdiff_t n) {
    const ptrdiff_t K = call->K;
    double sum = 0;
    for (ptrdiff_t k = 0; k < K; k++) {
        const double x = get(call->dtype, call->x, row * K + k);
        const double w = get(call->dtype, call->weight, n * K + k);
        sum = call->dtype == FL_FLOAT32 ? (double)fmaf((float)x, (float)w, (float)sum)
                                        : fma(x, w, sum);
    }
    const double bias = get(call->dtype, call->bias, n);
    return call->dtype == FL_FLOAT32 ? (double)((float)bias + (float)sum) : bias + sum;
}

static void check_sizes(fl_dtype dtype, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t N) {
    static double x[33 * 70], weight[130 * 70], bias[130], z[MOST + GUARD];
    const size_t real = dtype == FL_FLOAT32 ? sizeof(float) : sizeof(double);
    for (ptrdiff_t j = 0; j < rows * K; j++) set(dtype, x, j, random_real());
    for (ptrdiff_t j = 0; j < N * K; j++) set(dtype, weight, j, random_real());
    for (ptrdiff_t j = 0; j < N; j++) set(dtype, bias, j, random_real());
    const fl_linear call = {dtype, rows, K, N, x, weight, bias, z};
    for (int i = 0; i < fl_isa_count(); i++) {
        memset(z, 0xff, sizeof z);
        CHECK(fl_linear_apply(&call, fl_isa_name(i)) == FL_OK);
        int good = 1;
        for (ptrdiff_t row = 0; row < rows; row++)
            for (ptrdiff_t n = 0; n < N; n++)
                good &= get(dtype, z, row * N + n) == expected(&call, row, n);
        CHECK(good);
        const unsigned char *after = (const unsigned char *)z + (size_t)(rows * N) * real;
        for (size_t j = 0; j < GUARD * real; j++) good &= after[j] == 0xff;
        CHECK(good);
        if (i == 0) hash_bytes(z, (size_t)(rows * N) * real);
    }
}

static void check_errors(void) {
    double x = 1, z = 7;
    const fl_linear good = {FL_FLOAT64, 1, 1, 1, &x, &x, &x, &z};
    fl_linear call = good;
    CHECK(fl_linear_apply(&call, "none") == FL_ERROR_ISA);
    call.rows = -1;
    CHECK(fl_linear_apply(&call, NULL) == FL_ERROR_ARGUMENT);
    call = good, call.K = 0;
    CHECK(fl_linear_apply(&call, NULL) == FL_ERROR_ARGUMENT);
    call = good, call.N = 0;
    CHECK(fl_linear_apply(&call, NULL) == FL_ERROR_ARGUMENT);
    call = good, call.x = NULL;
    CHECK(fl_linear_apply(&call, NULL) == FL_ERROR_ARGUMENT);
    call = good, call.K = PTRDIFF_MAX / 8 + 1;
    CHECK(fl_linear_apply(&call, NULL) == FL_ERROR_OVERFLOW);
    call = good, call.rows = PTRDIFF_MAX / 4 + 2; /* 8 bytes each would wrap around */
    CHECK(fl_linear_apply(&call, NULL) == FL_ERROR_OVERFLOW);
    call = good, call.N = PTRDIFF_MAX;
    CHECK(fl_linear_apply(&call, NULL) == FL_ERROR_OVERFLOW);
    CHECK(z == 7);
    call = good, call.rows = 0, call.x = call.z = NULL;
    CHECK(fl_linear_apply(&call, NULL) == FL_OK);
    CHECK(fl_linear_apply(&good, NULL) == FL_OK);
    CHECK(z == 2);
}

int main(void) {
    for (int dtype = FL_FLOAT32; dtype <= FL_FLOAT64; dtype++)
        for (size_t r = 0; r < COUNT(ROWS); r++)
            for (size_t k = 0; k < COUNT(FEATURES); k++)
                for (size_t n = 0; n < COUNT(OUTPUTS); n++)
                    check_sizes((fl_dtype)dtype, ROWS[r], FEATURES[k], OUTPUTS[n]);
    check_errors();
    printf("hash of all results: %016llx\n", (unsigned long long)results_hash);
    return checks_report();
}
