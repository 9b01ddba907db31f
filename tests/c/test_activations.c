/* Accuracy of sigmoid and tanh, over all floats or a sample of them, and over doubles.
 *
 *     test_activations ISA STEP [FIRST LAST]
 *
 * Tests every STEP-th float of the bit patterns FIRST..LAST (all 2^32 by default) on instruction
 * set ISA against libm in double, and 20 million / STEP doubles against libm in long double.
 * Denormal results count as zero: they are flushed inside a call.
 */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "fastlstm.h"
#include "probes.h"

enum { BLOCK = 4096 };

/* Distance of got from exact in units of exact's last place (float). */
static double ulps_float(float got, double exact) {
    if (fabs(exact) < FLT_MIN * (1 + 4 * FLT_EPSILON) && got == 0) return 0; /* flushed */
    int exponent;
    frexp(exact, &exponent);
    const double ulp = ldexp(1, (exponent < FLT_MIN_EXP ? FLT_MIN_EXP : exponent) - FLT_MANT_DIG);
    return fabs(got - exact) / ulp;
}

static double ulps_double(double got, long double exact) {
    if (fabsl(exact) < DBL_MIN * (1 + 4 * (long double)DBL_EPSILON) && got == 0) return 0;
    int exponent;
    frexpl(exact, &exponent);
    const long double ulp =
        ldexpl(1, (exponent < DBL_MIN_EXP ? DBL_MIN_EXP : exponent) - DBL_MANT_DIG);
    return (double)(fabsl(got - exact) / ulp);
}

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static double double_of(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void check_block_float(const char *isa, const float *x, ptrdiff_t n, double *worst) {
    static float sigmoid[BLOCK], tanh_[BLOCK], minus[BLOCK], tanh_minus[BLOCK];
    for (ptrdiff_t j = 0; j < n; j++) minus[j] = -x[j];
    CHECK(fl_probe_sigmoid(isa, FL_FLOAT32, n, x, sigmoid) == FL_OK);
    CHECK(fl_probe_tanh(isa, FL_FLOAT32, n, x, tanh_) == FL_OK);
    CHECK(fl_probe_tanh(isa, FL_FLOAT32, n, minus, tanh_minus) == FL_OK);
    int good = 1;
    for (ptrdiff_t j = 0; j < n; j++) {
        if (isnan(x[j])) {
            good &= isnan(sigmoid[j]) && isnan(tanh_[j]);
            continue;
        }
        const double value = fabsf(x[j]) < FLT_MIN ? 0 : x[j];
        const double s = ulps_float(sigmoid[j], 1 / (1 + exp(-value)));
        const double t = ulps_float(tanh_[j], tanh(value));
        if (s > worst[0]) worst[0] = s;
        if (t > worst[1]) worst[1] = t;
        good &= sigmoid[j] >= 0 && sigmoid[j] <= 1 && fabsf(tanh_[j]) <= 1;
        good &= tanh_minus[j] == -tanh_[j] && !signbit(tanh_minus[j]) != !signbit(tanh_[j]);
        if (value > 20) good &= sigmoid[j] == 1 && tanh_[j] == 1;
        if (value < -104) good &= sigmoid[j] == 0;
    }
    CHECK(good);
}

static void check_block_double(const char *isa, const double *x, ptrdiff_t n, double *worst) {
    static double sigmoid[BLOCK], tanh_[BLOCK];
    CHECK(fl_probe_sigmoid(isa, FL_FLOAT64, n, x, sigmoid) == FL_OK);
    CHECK(fl_probe_tanh(isa, FL_FLOAT64, n, x, tanh_) == FL_OK);
    int good = 1;
    for (ptrdiff_t j = 0; j < n; j++) {
        if (isnan(x[j])) {
            good &= isnan(sigmoid[j]) && isnan(tanh_[j]);
            continue;
        }
        const long double value = fabs(x[j]) < DBL_MIN ? 0 : x[j];
        const double s = ulps_double(sigmoid[j], 1 / (1 + expl(-value)));
        const double t = ulps_double(tanh_[j], tanhl(value));
        if (s > worst[0]) worst[0] = s;
        if (t > worst[1]) worst[1] = t;
        good &= sigmoid[j] >= 0 && sigmoid[j] <= 1 && fabs(tanh_[j]) <= 1;
        if (value > 40) good &= sigmoid[j] == 1 && tanh_[j] == 1;
        if (value < -746) good &= sigmoid[j] == 0;
    }
    CHECK(good);
}

int main(int argc, char **argv) {
    if (argc != 3 && argc != 5) {
        fprintf(stderr, "usage: %s ISA STEP [FIRST LAST]\n", argv[0]);
        return 2;
    }
    const char *isa = argv[1];
    const uint64_t step = strtoull(argv[2], NULL, 0);
    const uint64_t first = argc == 5 ? strtoull(argv[3], NULL, 0) : 0;
    const uint64_t last = argc == 5 ? strtoull(argv[4], NULL, 0) : 0xffffffffu;
    static float x[BLOCK];
    static double x_double[BLOCK];
    double worst[2] = {0, 0}, worst_double[2] = {0, 0};
    ptrdiff_t n = 0;
    uint64_t tested = 0;
    for (uint64_t bits = first; bits <= last; bits += step) {
        x[n++] = float_of((uint32_t)bits);
        if (n == BLOCK || bits + step > last) {
            check_block_float(isa, x, n, worst);
            tested += (uint64_t)n;
            n = 0;
        }
    }
    if (LDBL_MANT_DIG > DBL_MANT_DIG) { /* elsewhere libm has nothing better to compare with */
        uint64_t bits = 0;
        const uint64_t count = 20000000 / step;
        for (uint64_t i = 0; i < count; i++, bits += 0x9e3779b97f4a7c15u) {
            /* Every second one among the magnitudes 2^-60 to 2^10, where something happens. */
            const uint64_t exponent = 1023 - 60 + (bits >> 52) % 70;
            const uint64_t near = (bits & 0x800fffffffffffffu) | exponent << 52;
            x_double[n++] = double_of(i % 2 ? bits : near);
            if (n == BLOCK || i + 1 == count) {
                check_block_double(isa, x_double, n, worst_double);
                n = 0;
            }
        }
    }
    printf("%s: %llu floats: sigmoid %.3f ulp, tanh %.3f ulp; doubles: %.3f, %.3f\n", isa,
           (unsigned long long)tested, worst[0], worst[1], worst_double[0], worst_double[1]);
    CHECK(worst[0] <= 2.5 && worst[1] <= 2.5 && worst_double[0] <= 4 && worst_double[1] <= 4);
    return checks_report();
}
