/* Tests of the backward pass through the C API alone: central differences, bits against bits over
 * instruction sets, threads and batches, what is left out or added to, and every documented error.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "check.h"
#include "fastlstm.h"
#include "random.h"

enum { X, H_0, C_0, DY, DH_N, DC_N, PARAMETERS, INPUTS };
enum { DX, DH_0, DC_0, DPARAMETERS, OUTPUTS };

typedef struct problem {
    fl_config config;
    ptrdiff_t T, B;
    size_t real, counts[INPUTS];
    char *inputs[INPUTS];
} problem;

static void set(char *array, size_t index, double value, size_t real) {
    if (real == 8) ((double *)(void *)array)[index] = value;
    else ((float *)(void *)array)[index] = (float)value;
}
static double get(const char *array, size_t index, size_t real) {
    if (real == 8) return ((const double *)(const void *)array)[index];
    return (double)((const float *)(const void *)array)[index];
}

static problem problem_make(fl_config config, ptrdiff_t T, ptrdiff_t B) {
    problem p = {.config = config, .T = T, .B = B, .real = config.dtype == FL_FLOAT64 ? 8 : 4};
    const size_t rows = (size_t)(T * B), H = (size_t)config.hidden_size;
    const size_t D = (size_t)config.num_directions, state = (size_t)(config.num_layers * B) * D * H;
    fl_parameter_count(&config, &p.counts[PARAMETERS]);
    p.counts[X] = rows * (size_t)config.input_size;
    p.counts[DY] = rows * D * H;
    p.counts[H_0] = p.counts[C_0] = p.counts[DH_N] = p.counts[DC_N] = state;
    for (int i = 0; i < INPUTS; i++) {
        p.inputs[i] = malloc(p.counts[i] * p.real + 1);
        for (size_t j = 0; j < p.counts[i]; j++)
            set(p.inputs[i], j, (i == PARAMETERS ? 0.5 : 0.9) * random_real(), p.real);
    }
    return p;
}

static void problem_free(problem *p) {
    for (int i = 0; i < INPUTS; i++) free(p->inputs[i]);
}

typedef struct results {
    size_t bytes[OUTPUTS];
    char *arrays[OUTPUTS];
} results;

static void results_free(results *r) {
    for (int i = 0; i < OUTPUTS; i++) free(r->arrays[i]);
}

static int same_bits(const results *a, const results *b) {
    for (int i = 0; i < OUTPUTS; i++)
        if (memcmp(a->arrays[i], b->arrays[i], a->bytes[i]) != 0) return 0;
    return 1;
}

/* Records and goes back. start: NULL, or results to begin with and to add to. wanted: a bit for
 * each result; the others are left as they were. */
static results run(const problem *p, const char *isa, const results *start, int wanted) {
    const fl_config *config = &p->config;
    const ptrdiff_t I = config->input_size, out = config->num_directions * config->hidden_size;
    char *const *in = p->inputs;
    results r = {{p->counts[X], p->counts[H_0], p->counts[C_0], p->counts[PARAMETERS]}, {NULL}};
    for (int i = 0; i < OUTPUTS; i++) {
        r.bytes[i] *= p->real;
        r.arrays[i] = malloc(r.bytes[i] + 1);
        if (start) memcpy(r.arrays[i], start->arrays[i], r.bytes[i]);
        else memset(r.arrays[i], 0x5a, r.bytes[i]);
    }
    fl_model *model;
    CHECK(fl_model_create(config, isa, in[PARAMETERS], &model) == FL_OK);
    size_t tape_bytes;
    CHECK(fl_tape_bytes(model, p->T, p->B, NULL, &tape_bytes) == FL_OK);
    CHECK(tape_bytes == 5 * p->counts[H_0] * (size_t)p->T * p->real);
    char *tape = malloc(tape_bytes + 1), *y[2], *h[2], *c[2];
    for (int i = 0; i < 2; i++) {
        y[i] = malloc(p->counts[DY] * p->real + 1);
        h[i] = malloc(p->counts[H_0] * p->real + 1);
        c[i] = malloc(p->counts[H_0] * p->real + 1);
    }
    CHECK(FORWARD(model, .T = p->T, .B = p->B, .x = {in[X], p->B * I, I}, .h_0 = in[H_0],
                  .c_0 = in[C_0], .y = {y[0], p->B * out, out}, .h_n = h[0], .c_n = c[0]) == FL_OK);
    CHECK(RECORD(model, .T = p->T, .B = p->B, .x = {in[X], p->B * I, I}, .h_0 = in[H_0],
                 .c_0 = in[C_0], .y = {y[1], p->B * out, out}, .h_n = h[1], .c_n = c[1],
                 .tape = tape) == FL_OK);
    CHECK(memcmp(y[0], y[1], p->counts[DY] * p->real) == 0);
    CHECK(memcmp(h[0], h[1], p->counts[H_0] * p->real) == 0);
    CHECK(memcmp(c[0], c[1], p->counts[H_0] * p->real) == 0);
    char *to[OUTPUTS];
    for (int i = 0; i < OUTPUTS; i++) to[i] = wanted >> i & 1 ? r.arrays[i] : NULL;
    CHECK(BACKWARD(model, .parameters = in[PARAMETERS], .T = p->T, .B = p->B,
                   .x = {in[X], p->B * I, I}, .h_0 = in[H_0], .c_0 = in[C_0], .tape = tape,
                   .dy = {in[DY], p->B * out, out}, .dh_n = in[DH_N], .dc_n = in[DC_N],
                   .accumulate = start != NULL, .dx = {to[DX], p->B * I, I}, .dh_0 = to[DH_0],
                   .dc_0 = to[DC_0], .dparameters = to[DPARAMETERS]) == FL_OK);
    for (int i = 0; i < 2; i++) {
        free(y[i]);
        free(h[i]);
        free(c[i]);
    }
    free(tape);
    fl_model_destroy(model);
    return r;
}

/* The scalar that is differentiated: the results times dy, dh_n and dc_n. */
static double scalar(const problem *p) {
    const ptrdiff_t I = p->config.input_size, H = p->config.hidden_size;
    const ptrdiff_t out = p->config.num_directions * H;
    char *const *in = p->inputs;
    fl_model *model;
    CHECK(fl_model_create(&p->config, NULL, in[PARAMETERS], &model) == FL_OK);
    char *results[] = {malloc(p->counts[DY] * p->real), malloc(p->counts[H_0] * p->real),
                       malloc(p->counts[H_0] * p->real)};
    FORWARD(model, .T = p->T, .B = p->B, .x = {in[X], p->B * I, I}, .h_0 = in[H_0], .c_0 = in[C_0],
            .y = {results[0], p->B * out, out}, .h_n = results[1], .c_n = results[2]);
    double sum = 0;
    for (int i = 0; i < 3; i++) {
        for (size_t j = 0; j < p->counts[DY + i]; j++)
            sum += get(results[i], j, p->real) * get(in[DY + i], j, p->real);
        free(results[i]);
    }
    fl_model_destroy(model);
    return sum;
}

static void check_slopes(fl_config config) {
    static const int of[OUTPUTS] = {X, H_0, C_0, PARAMETERS};
    problem p = problem_make(config, 7, 2);
    results r = run(&p, NULL, NULL, 15);
    for (int i = 0; i < OUTPUTS; i++)
        for (int trial = 0; trial < 20; trial++) {
            const size_t j = (size_t)(trial * 7919) % p.counts[of[i]];
            const double value = get(p.inputs[of[i]], j, 8), step = 1e-5;
            set(p.inputs[of[i]], j, value + step, 8);
            const double above = scalar(&p);
            set(p.inputs[of[i]], j, value - step, 8);
            const double below = scalar(&p);
            set(p.inputs[of[i]], j, value, 8);
            const double slope = (above - below) / (2 * step);
            CHECK(fabs(slope - get(r.arrays[i], j, 8)) < 1e-8);
        }
    results_free(&r);
    problem_free(&p);
}

static void test_central_differences(void) {
    for (int layers = 1; layers <= 2; layers++)
        for (int directions = 1; directions <= 2; directions++) {
            const fl_config config = CONFIG(3, 5, layers, directions, layers == 1, FL_FLOAT64);
            check_slopes(config);
        }
}

/* The same bits on every instruction set and with any number of threads. only_hash: compute the
 * hash alone, for slow machines. */
static void test_bits(int only_hash) {
    static const ptrdiff_t sizes[][4] = {/* T, B, I, H */
                                         {1, 1, 1, 1},   {9, 3, 5, 7},   {6, 5, 17, 16},
                                         {4, 11, 3, 33}, {140, 2, 2, 9}, {3, 90, 4, 5},
                                         {3, 2, 65, 50}, {4, 1, 8, 128}, {3, 19, 7, 65}};
    const int most = fl_get_num_threads();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int kind = 0; kind < 4; kind++) {
            const fl_dtype dtype = kind % 2 ? FL_FLOAT64 : FL_FLOAT32;
            const int directions = 1 + (int)(i + (size_t)kind / 2) % 2,
                      layers = 1 + kind / 2 * (i < 4 ? 2 : 1);
            const fl_config config =
                CONFIG(sizes[i][2], sizes[i][3], layers, directions, i % 3 != 0, dtype);
            problem p = problem_make(config, sizes[i][0], sizes[i][1]);
            results first = run(&p, fl_isa_name(0), NULL, 15);
            for (int k = 0; k < OUTPUTS; k++) hash_bytes(first.arrays[k], first.bytes[k]);
            if (only_hash) {
                results_free(&first);
                problem_free(&p);
                continue;
            }
            for (int isa = 0; isa < fl_isa_count(); isa++)
                for (int threads = 1; threads <= 3; threads++) {
                    fl_set_num_threads(threads);
                    results r = run(&p, fl_isa_name(isa), NULL, 15);
                    CHECK(same_bits(&first, &r));
                    results_free(&r);
                }
            fl_set_num_threads(most);

            /* One result at a time, and added to what is there. */
            for (int k = 0; k < OUTPUTS; k++) {
                results r = run(&p, NULL, NULL, 1 << k);
                CHECK(memcmp(r.arrays[k], first.arrays[k], r.bytes[k]) == 0);
                results_free(&r);
            }
            results twice = run(&p, NULL, &first, 15);
            const double tolerance = dtype == FL_FLOAT64 ? 1e-12 : 1e-3;
            for (int k = 0; k < OUTPUTS; k++)
                for (size_t j = 0; j < first.bytes[k] / p.real; j++) {
                    const double once = get(first.arrays[k], j, p.real);
                    CHECK(fabs(get(twice.arrays[k], j, p.real) - 2 * once) <=
                          tolerance * (1 + fabs(once)));
                }
            results_free(&twice);
            results_free(&first);
            problem_free(&p);
        }
}

/* What a sequence gets does not depend on the others of the batch. */
static void test_batches(void) {
    for (int dtype = 0; dtype < 2; dtype++) {
        const fl_config config = CONFIG(6, 19, 2, 2, 1, dtype ? FL_FLOAT64 : FL_FLOAT32);
        const ptrdiff_t T = 8, B = 7, LD = 4;
        problem all = problem_make(config, T, B), one = problem_make(config, T, 1);
        results whole = run(&all, NULL, NULL, 15);
        memcpy(one.inputs[PARAMETERS], all.inputs[PARAMETERS], all.counts[PARAMETERS] * all.real);
        for (ptrdiff_t b = 0; b < B; b++) {
            static const int stepwise[] = {X, DY}, statewise[] = {H_0, C_0, DH_N, DC_N};
            for (int i = 0; i < 2; i++) {
                const size_t row = one.counts[stepwise[i]] * one.real / (size_t)T;
                for (ptrdiff_t t = 0; t < T; t++)
                    memcpy(one.inputs[stepwise[i]] + (size_t)t * row,
                           all.inputs[stepwise[i]] + (size_t)(t * B + b) * row, row);
            }
            const size_t state = 19 * one.real, input = 6 * one.real;
            for (int i = 0; i < 4; i++)
                for (ptrdiff_t j = 0; j < LD; j++)
                    memcpy(one.inputs[statewise[i]] + (size_t)j * state,
                           all.inputs[statewise[i]] + (size_t)(j * B + b) * state, state);
            results r = run(&one, NULL, NULL, 15);
            for (ptrdiff_t t = 0; t < T; t++)
                CHECK(memcmp(r.arrays[DX] + (size_t)t * input,
                             whole.arrays[DX] + (size_t)(t * B + b) * input, input) == 0);
            for (int i = DH_0; i <= DC_0; i++)
                for (ptrdiff_t j = 0; j < LD; j++)
                    CHECK(memcmp(r.arrays[i] + (size_t)j * state,
                                 whole.arrays[i] + (size_t)(j * B + b) * state, state) == 0);
            results_free(&r);
        }
        results_free(&whole);
        problem_free(&all);
        problem_free(&one);
    }
}

/* From the last step to the first: right, and the same bits with any number of threads, which share
 * sequences, units, or the sums alone. */
static void test_reverse(void) {
    static const ptrdiff_t sizes[][4] = {{9, 13, 5, 7}, {40, 1, 8, 128}, {140, 2, 2, 9}};
    const int most = fl_get_num_threads();
    for (int layers = 1; layers <= 3; layers++) {
        fl_config config = CONFIG(3, 5, layers, 1, 1, FL_FLOAT64, .reverse = 1);
        check_slopes(config);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            config.input_size = sizes[i][2];
            config.hidden_size = sizes[i][3];
            problem p = problem_make(config, sizes[i][0], sizes[i][1]);
            fl_set_num_threads(1);
            results alone = run(&p, NULL, NULL, 15);
            fl_set_num_threads(3);
            results shared = run(&p, NULL, NULL, 15);
            CHECK(same_bits(&alone, &shared));
            results_free(&alone);
            results_free(&shared);
            problem_free(&p);
        }
    }
    fl_set_num_threads(most);
}

static void test_empty_and_errors(void) {
    const fl_config config = CONFIG(2, 3, 1, 1, 1, FL_FLOAT32);
    problem p = problem_make(config, 0, 2); /* no steps: gradients of the states pass through */
    results r = run(&p, NULL, NULL, 15);
    CHECK(memcmp(r.arrays[DH_0], p.inputs[DH_N], r.bytes[DH_0]) == 0);
    CHECK(memcmp(r.arrays[DC_0], p.inputs[DC_N], r.bytes[DC_0]) == 0);
    for (size_t j = 0; j < p.counts[PARAMETERS]; j++) CHECK(get(r.arrays[DPARAMETERS], j, 4) == 0);
    results_free(&r);
    problem_free(&p);
    p = problem_make(config, 4, 0); /* no sequences */
    r = run(&p, NULL, NULL, 15);
    for (size_t j = 0; j < p.counts[PARAMETERS]; j++) CHECK(get(r.arrays[DPARAMETERS], j, 4) == 0);
    results_free(&r);

    fl_model *model;
    size_t bytes;
    float x[8] = {0}, y[12], h[6], c[6], tape[256], gradient[256];
    const char *parameters = p.inputs[PARAMETERS];
    CHECK(fl_model_create(&config, NULL, parameters, &model) == FL_OK);
    CHECK(fl_tape_bytes(NULL, 1, 1, NULL, &bytes) == FL_ERROR_ARGUMENT);
    CHECK(fl_tape_bytes(model, -1, 1, NULL, &bytes) == FL_ERROR_ARGUMENT);
    CHECK(fl_tape_bytes(model, 1, 1, NULL, NULL) == FL_ERROR_ARGUMENT);
    CHECK(fl_tape_bytes(model, PTRDIFF_MAX / 2, 3, NULL, &bytes) == FL_ERROR_OVERFLOW);
    CHECK(RECORD(model, .T = 1, .B = 1, .x = {x, 2, 2}, .y = {y, 3, 3}, .h_n = h, .c_n = c) ==
          FL_ERROR_ARGUMENT);
    CHECK(RECORD(model, .T = 1, .B = 1, .x = {NULL, 2, 2}, .y = {y, 3, 3}, .h_n = h, .c_n = c,
                 .tape = tape) == FL_ERROR_ARGUMENT);
    CHECK(RECORD(model, .T = 1, .B = 1, .x = {x, 2, 2}, .y = {y, 3, 3}, .h_n = h, .c_n = c,
                 .tape = tape) == FL_OK);
#define TRY(model_, parameters_, T_, x_, tape_)                                                  \
    BACKWARD(model_, .T = T_, .B = 1, .x = {x_, 2, 2}, .parameters = parameters_, .tape = tape_, \
             .dparameters = gradient)
    CHECK(TRY(NULL, parameters, 1, x, tape) == FL_ERROR_ARGUMENT);
    CHECK(TRY(model, NULL, 1, x, tape) == FL_ERROR_ARGUMENT);
    CHECK(TRY(model, parameters, -1, x, tape) == FL_ERROR_ARGUMENT);
    CHECK(TRY(model, parameters, 1, NULL, tape) == FL_ERROR_ARGUMENT);
    CHECK(TRY(model, parameters, 1, x, NULL) == FL_ERROR_ARGUMENT);
    CHECK(TRY(model, parameters, 1, x, tape) == FL_OK);
    for (size_t j = 0; j < p.counts[PARAMETERS]; j++) CHECK(gradient[j] == 0); /* of nothing */
    CHECK(TRY(model, parameters, 0, NULL, NULL) == FL_OK); /* no steps, no tape */
#undef TRY
    fl_model_destroy(model);
    problem_free(&p);
}

/* With an argument: only the hash. */
int main(int count, char **arguments) {
    (void)arguments;
    test_central_differences();
    test_bits(count > 1);
    if (count == 1) test_batches();
    if (count == 1) test_reverse();
    test_empty_and_errors();
    printf("hash of all results: %016llx\n", (unsigned long long)results_hash);
    return checks_report();
}
