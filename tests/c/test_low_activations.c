/* Accuracy of the activations of layers of 8 and 16 bits, over all floats or a sample of them, and
 * hashes of their bits.
 *
 *     test_low_activations ISA STEP [FIRST LAST]
 *
 * Tests every STEP-th float of the bit patterns FIRST..LAST (all 2^32 by default) on instruction
 * set ISA against libm in double, and a cell on as many numbers of usual size. Denormals count as
 * zero: they are flushed inside a call.
 *
 * Prints for each number of bits the largest errors, and hashes that must be the same on every
 * instruction set, and those of the reference in NumPy: the sum of (2 k + 1) times the k-th
 * result's bits, modulo 2^64, where every NaN has the bits 0x7fc00000.
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

static const struct {
    int bits;
    double bound;    /* on absolute errors */
    double relative; /* on the errors of sigmoid in both tails */
} kinds[2] = {{8, 1e-4, 1.1e-4}, {16, 2e-6, 4.5e-6}};

/* What was seen of one number of bits. */
typedef struct results {
    double sigmoid, tanh, cell;  /* largest absolute errors */
    double back;                 /* the most by which sigmoid falls from one float to the next */
    float previous, previous_at; /* sigmoid of the last float, and that float */
    uint64_t hash, count;        /* of all results so far */
} results;

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void add_to_hash(results *seen, const float *values, ptrdiff_t n) {
    for (ptrdiff_t j = 0; j < n; j++) {
        uint32_t bits = 0x7fc00000;
        if (!isnan(values[j])) memcpy(&bits, values + j, sizeof bits);
        seen->hash += (2 * seen->count++ + 1) * bits;
    }
}

static void raise_to(double *worst, double error) {
    if (!(error <= *worst)) *worst = error; /* NaN is the worst */
}

static void check_activations(const char *isa, int kind, const float *x, ptrdiff_t n,
                              results *seen) {
    static float sigmoid[BLOCK], tanh_[BLOCK], minus[BLOCK], tanh_minus[BLOCK];
    const int bits = kinds[kind].bits;
    for (ptrdiff_t j = 0; j < n; j++) minus[j] = -x[j];
    CHECK(fl_probe_low_sigmoid(isa, bits, n, x, sigmoid) == FL_OK);
    CHECK(fl_probe_low_tanh(isa, bits, n, x, tanh_) == FL_OK);
    CHECK(fl_probe_low_tanh(isa, bits, n, minus, tanh_minus) == FL_OK);
    add_to_hash(seen, sigmoid, n);
    add_to_hash(seen, tanh_, n);
    int good = 1;
    for (ptrdiff_t j = 0; j < n; j++) {
        if (isnan(x[j])) {
            good &= isnan(sigmoid[j]) && isnan(tanh_[j]);
            continue;
        }
        const double value = fabsf(x[j]) < FLT_MIN ? 0 : x[j];
        const double exact = 1 / (1 + exp(-value)), tail = 1 / (1 + exp(fabs(value)));
        const double error = fabs(sigmoid[j] - exact);
        raise_to(&seen->sigmoid, error);
        raise_to(&seen->tanh, fabs(tanh_[j] - tanh(value)));
        good &= sigmoid[j] >= 0 && sigmoid[j] <= 1 && fabsf(tanh_[j]) <= 1;
        good &= tanh_minus[j] == -tanh_[j] && !signbit(tanh_minus[j]) != !signbit(tanh_[j]);
        good &= error <= kinds[kind].relative * tail + FLT_EPSILON * exact + 1.6e-8;
        if (value > 17) good &= sigmoid[j] == 1;
        if (value > 7.2) good &= tanh_[j] == 1;
        if (value == 0) good &= sigmoid[j] == 0.5f && tanh_[j] == 0;
        /* Bit patterns of one sign go outwards. */
        if (seen->count > (uint64_t)(2 * n) && !signbit(x[j]) == !signbit(seen->previous_at))
            raise_to(&seen->back, signbit(x[j]) ? (double)sigmoid[j] - seen->previous
                                                : (double)seen->previous - sigmoid[j]);
        seen->previous = sigmoid[j];
        seen->previous_at = x[j];
    }
    CHECK(good);
}

/* Numbers from -range to range that look random, the same everywhere. */
static void fill(float *values, ptrdiff_t n, uint64_t first, uint32_t factor, float range) {
    for (ptrdiff_t j = 0; j < n; j++) {
        const uint32_t mixed = ((uint32_t)(first + (uint64_t)j) + 1) * factor;
        values[j] = ((float)(mixed >> 8) - 8388608) * (range / 8388608);
    }
}

static double sigmoid_of(double x) { return 1 / (1 + exp(-x)); }

static void check_cell(const char *isa, int kind, uint64_t first, ptrdiff_t n, results *seen) {
    static float z[4 * BLOCK], c[BLOCK], h[BLOCK], before[BLOCK];
    static const uint32_t factors[5] = {0x9e3779b1, 0x85ebca77, 0xc2b2ae3d, 0x27d4eb2f, 0x165667b1};
    for (int gate = 0; gate < 4; gate++) fill(z + gate * n, n, first, factors[gate], 12);
    fill(c, n, first, factors[4], 4);
    memcpy(before, c, sizeof c);
    CHECK(fl_probe_low_cell(isa, kinds[kind].bits, n, z, c, h) == FL_OK);
    add_to_hash(seen, c, n);
    add_to_hash(seen, h, n);
    int good = 1;
    for (ptrdiff_t j = 0; j < n; j++) {
        const double next =
            sigmoid_of(z[n + j]) * before[j] + sigmoid_of(z[j]) * tanh(z[2 * n + j]);
        raise_to(&seen->cell, fabs(c[j] - next) / (2 + fabs(before[j])));
        raise_to(&seen->cell, fabs(h[j] - sigmoid_of(z[3 * n + j]) * tanh(c[j])) / 2);
        good &= fabsf(h[j]) <= 1;
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
    results seen[2] = {0};
    ptrdiff_t n = 0;
    uint64_t tested = 0;
    for (uint64_t bits = first; bits <= last; bits += step) {
        x[n++] = float_of((uint32_t)bits);
        if (n == BLOCK || bits + step > last) {
            for (int kind = 0; kind < 2; kind++) {
                check_activations(isa, kind, x, n, &seen[kind]);
                check_cell(isa, kind, tested, n, &seen[kind]);
            }
            tested += (uint64_t)n;
            n = 0;
        }
    }
    for (int kind = 0; kind < 2; kind++) {
        const results *of = &seen[kind];
        printf("%s, %d bits, %llu floats: sigmoid %.3g, falls %.3g; tanh %.3g; cell %.3g\n", isa,
               kinds[kind].bits, (unsigned long long)tested, of->sigmoid, of->back, of->tanh,
               of->cell);
        CHECK(of->sigmoid <= kinds[kind].bound && of->tanh <= kinds[kind].bound);
        CHECK(of->cell <= kinds[kind].bound && of->back <= 1.2e-7);
    }
    printf("hash %016llx %016llx\n", (unsigned long long)seen[0].hash,
           (unsigned long long)seen[1].hash);
    CHECK(fl_probe_low_sigmoid("mmx", 8, 1, x, x) == FL_ERROR_ISA);
    CHECK(fl_probe_low_tanh(isa, 24, 1, x, x) == FL_ERROR_ARGUMENT);
    CHECK(fl_probe_low_cell(isa, 8, -1, x, x, x) == FL_ERROR_ARGUMENT);
    return checks_report();
}
