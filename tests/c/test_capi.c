/* Tests of the C API alone: results against a plain double-precision LSTM written here, bits
 * against bits, and every documented error. */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "check.h"
#include "fastlstm.h"
#include "platform.h"
#include "probes.h"
#include "random.h"

typedef struct problem {
    fl_config config;
    ptrdiff_t T, B;
    size_t parameter_count, x_count, y_count, state_count;
    double *parameters, *x, *h_0, *c_0; /* in the dtype's values, as double */
} problem;

static double *random_reals(size_t count, double scale) {
    double *values = malloc((count + 1) * sizeof *values);
    for (size_t j = 0; j < count; j++) values[j] = (float)(scale * random_real());
    return values;
}

static problem problem_make(fl_config config, ptrdiff_t T, ptrdiff_t B) {
    problem p = {.config = config, .T = T, .B = B};
    CHECK(fl_parameter_count(&config, &p.parameter_count) == FL_OK);
    const size_t LD = (size_t)(config.num_layers * config.num_directions);
    const size_t H = (size_t)config.hidden_size, rows = (size_t)(T * B);
    p.x_count = rows * (size_t)config.input_size;
    p.y_count = rows * H * (size_t)config.num_directions;
    p.state_count = LD * (size_t)B * H;
    p.parameters = random_reals(p.parameter_count, 0.5);
    p.x = random_reals(p.x_count, 1.0);
    p.h_0 = random_reals(p.state_count, 0.7);
    p.c_0 = random_reals(p.state_count, 0.9);
    return p;
}

static void problem_free(problem *p) {
    free(p->parameters);
    free(p->x);
    free(p->h_0);
    free(p->c_0);
}

/* A copy of doubles in the dtype. */
static void *in_dtype(const double *values, size_t count, fl_dtype dtype) {
    const size_t size = dtype == FL_FLOAT64 ? sizeof(double) : sizeof(float);
    void *copy = malloc((count + 1) * size);
    for (size_t j = 0; j < count; j++) {
        if (dtype == FL_FLOAT64) ((double *)copy)[j] = values[j];
        else ((float *)copy)[j] = (float)values[j];
    }
    return copy;
}

typedef struct result {
    size_t y_bytes, state_bytes;
    char *y, *h_n, *c_n;
} result;

static result result_make(const problem *p) {
    const size_t size = p->config.dtype == FL_FLOAT64 ? sizeof(double) : sizeof(float);
    result r = {.y_bytes = p->y_count * size, .state_bytes = p->state_count * size};
    r.y = calloc(r.y_bytes + 1, 1);
    r.h_n = calloc(r.state_bytes + 1, 1);
    r.c_n = calloc(r.state_bytes + 1, 1);
    return r;
}

static void result_free(result *r) {
    free(r->y);
    free(r->h_n);
    free(r->c_n);
}

static int same_bits(const result *a, const result *b) {
    return memcmp(a->y, b->y, a->y_bytes) == 0 && memcmp(a->h_n, b->h_n, a->state_bytes) == 0 &&
           memcmp(a->c_n, b->c_n, a->state_bytes) == 0;
}

/* Runs a problem on an instruction set, time cut into calls of `piece` steps (one direction). */
static result run(const problem *p, const char *isa, ptrdiff_t piece) {
    const fl_dtype dtype = p->config.dtype;
    const size_t size = dtype == FL_FLOAT64 ? sizeof(double) : sizeof(float);
    void *parameters = in_dtype(p->parameters, p->parameter_count, dtype);
    char *x = in_dtype(p->x, p->x_count, dtype);
    void *h_0 = in_dtype(p->h_0, p->state_count, dtype);
    void *c_0 = in_dtype(p->c_0, p->state_count, dtype);
    result r = result_make(p);
    fl_model *model = NULL;
    CHECK(fl_model_create(&p->config, isa, parameters, &model) == FL_OK);
    CHECK(model != NULL && strcmp(fl_model_isa(model), isa) == 0);
    CHECK(fl_model_bytes(model) >= p->parameter_count / 2 * size);
    memset(parameters, 0xff, p->parameter_count * size); /* a model keeps its own copy */

    const ptrdiff_t I = p->config.input_size, B = p->B;
    const ptrdiff_t width = p->config.num_directions * p->config.hidden_size;
    for (ptrdiff_t t = 0; t < p->T || t == 0; t += piece) {
        const ptrdiff_t n = piece < p->T - t ? piece : p->T - t;
        CHECK(FORWARD(model, .T = n, .B = B, .x = {x + (size_t)(t * B * I) * size, B * I, I},
                      .h_0 = t == 0 ? h_0 : r.h_n, .c_0 = t == 0 ? c_0 : r.c_n,
                      .y = {r.y + (size_t)(t * B * width) * size, B * width, width}, .h_n = r.h_n,
                      .c_n = r.c_n) == FL_OK);
    }
    fl_model_destroy(model);
    free(parameters);
    free(x);
    free(h_0);
    free(c_0);
    return r;
}

/* One sequence through one direction of one layer, the equations word for word.
 * w (4H, I), u (4H, H), b_ih and b_hh (4H) or NULL; x and y rows are `x_stride`, `y_stride` apart
 * and are visited from `first` by `step`. */
static void plain_direction(ptrdiff_t T, ptrdiff_t I, ptrdiff_t H, const double *w, const double *u,
                            const double *b_ih, const double *b_hh, const double *x,
                            ptrdiff_t x_stride, double *y, ptrdiff_t y_stride, double *h, double *c,
                            int reverse) {
    double *z = malloc((size_t)(4 * H) * sizeof *z);
    for (ptrdiff_t i = 0; i < T; i++) {
        const ptrdiff_t t = reverse ? T - 1 - i : i;
        for (ptrdiff_t row = 0; row < 4 * H; row++) {
            z[row] = b_ih ? b_ih[row] + b_hh[row] : 0;
            for (ptrdiff_t k = 0; k < I; k++) z[row] += w[row * I + k] * x[t * x_stride + k];
            for (ptrdiff_t k = 0; k < H; k++) z[row] += u[row * H + k] * h[k];
        }
        for (ptrdiff_t j = 0; j < H; j++) {
            const double i_t = 1 / (1 + exp(-z[j])), f_t = 1 / (1 + exp(-z[H + j]));
            const double g_t = tanh(z[2 * H + j]), o_t = 1 / (1 + exp(-z[3 * H + j]));
            c[j] = f_t * c[j] + i_t * g_t;
            h[j] = o_t * tanh(c[j]);
            y[t * y_stride + j] = h[j];
        }
    }
    free(z);
}

/* The whole problem in double: y (T, B, D*H), h, c (L*D, B, H). */
static void plain_lstm(const problem *p, double *y, double *h, double *c) {
    const ptrdiff_t H = p->config.hidden_size, D = p->config.num_directions, B = p->B, T = p->T;
    memcpy(h, p->h_0, p->state_count * sizeof *h);
    memcpy(c, p->c_0, p->state_count * sizeof *c);
    double *below = malloc((p->y_count + 1) * sizeof *below);
    const double *x = p->x, *w = p->parameters;
    ptrdiff_t I = p->config.input_size;
    for (ptrdiff_t l = 0; l < p->config.num_layers; l++) {
        for (ptrdiff_t d = 0; d < D; d++) {
            const double *u = w + 4 * H * I, *b_ih = u + 4 * H * H, *b_hh = b_ih + 4 * H;
            for (ptrdiff_t b = 0; b < B; b++)
                plain_direction(T, I, H, w, u, p->config.has_bias ? b_ih : NULL, b_hh, x + b * I,
                                B * I, y + b * D * H + d * H, B * D * H,
                                h + ((l * D + d) * B + b) * H, c + ((l * D + d) * B + b) * H,
                                d == 1);
            w = p->config.has_bias ? b_hh + 4 * H : b_ih;
        }
        memcpy(below, y, p->y_count * sizeof *y);
        x = below;
        I = D * H;
    }
    free(below);
}

static double largest_difference(const double *expected, const char *got, size_t count,
                                 fl_dtype dtype) {
    double largest = 0;
    for (size_t j = 0; j < count; j++) {
        const double value =
            dtype == FL_FLOAT64 ? ((const double *)got)[j] : ((const float *)got)[j];
        const double difference = fabs(value - expected[j]);
        if (!(difference <= largest)) largest = difference; /* a NaN is the largest */
    }
    return largest;
}

/* Every instruction set against the plain LSTM and against the first one bit for bit, and, with
 * one direction, against time cut into pieces. */
static void test_results(void) {
    static const struct {
        ptrdiff_t I, H, L, D, T, B;
        int bias;
    } cases[] = {
        {1, 1, 1, 1, 1, 1, 1},    {3, 5, 1, 1, 7, 2, 1},   {17, 31, 2, 1, 5, 3, 1},
        {8, 16, 1, 1, 9, 1, 0},   {5, 17, 1, 2, 6, 4, 1},  {2, 33, 3, 2, 4, 7, 1},
        {13, 64, 1, 1, 3, 13, 1}, {4, 65, 1, 1, 11, 1, 1}, {1, 20, 1, 1, 600, 1, 1},
        {7, 3, 3, 1, 300, 2, 0},  {9, 129, 2, 2, 2, 6, 1}, {2, 7, 1, 1, 0, 3, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int dtype = FL_FLOAT32; dtype <= FL_FLOAT64; dtype++) {
            const fl_config config = CONFIG(cases[i].I, cases[i].H, cases[i].L, cases[i].D,
                                            cases[i].bias, (fl_dtype)dtype);
            problem p = problem_make(config, cases[i].T, cases[i].B);
            double *y = calloc(p.y_count + 1, sizeof *y);
            double *h = calloc(p.state_count + 1, sizeof *h);
            double *c = calloc(p.state_count + 1, sizeof *c);
            plain_lstm(&p, y, h, c);
            const ptrdiff_t whole = p.T > 0 ? p.T : 1;
            result first = run(&p, fl_isa_name(0), whole);
            const double tolerance = dtype == FL_FLOAT64 ? 1e-13 : 2e-5;
            CHECK(largest_difference(y, first.y, p.y_count, config.dtype) < tolerance);
            CHECK(largest_difference(h, first.h_n, p.state_count, config.dtype) < tolerance);
            CHECK(largest_difference(c, first.c_n, p.state_count, config.dtype) < tolerance);
            hash_bytes(first.y, first.y_bytes);
            hash_bytes(first.h_n, first.state_bytes);
            hash_bytes(first.c_n, first.state_bytes);
            for (int isa = 0; isa < fl_isa_count(); isa++) {
                result other = run(&p, fl_isa_name(isa), whole);
                CHECK(same_bits(&first, &other));
                result_free(&other);
                for (ptrdiff_t piece = 1; config.num_directions == 1 && piece <= 2; piece++) {
                    other = run(&p, fl_isa_name(isa), piece);
                    CHECK(same_bits(&first, &other));
                    result_free(&other);
                }
            }
            result_free(&first);
            free(y);
            free(h);
            free(c);
            problem_free(&p);
        }
    }
}

/* Strides: batch-first memory, time running backwards, and one x for all steps. */
static void test_strides(void) {
    enum { T = 5, B = 3, I = 4, H = 6 };
    const fl_config config = CONFIG(I, H, 1, 1, 1, FL_FLOAT32);
    problem p = problem_make(config, T, B);
    result expected = run(&p, fl_isa_name(0), T), got = result_make(&p);
    float *parameters = in_dtype(p.parameters, p.parameter_count, FL_FLOAT32);
    float *x = in_dtype(p.x, p.x_count, FL_FLOAT32);
    float *h_0 = in_dtype(p.h_0, p.state_count, FL_FLOAT32);
    float *c_0 = in_dtype(p.c_0, p.state_count, FL_FLOAT32);
    float x_other[T * B * I], y_other[B * T * H];
    fl_model *model;
    CHECK(fl_model_create(&config, NULL, parameters, &model) == FL_OK);

    for (int t = 0; t < T; t++)
        for (int b = 0; b < B; b++)
            memcpy(x_other + (b * T + t) * I, x + (t * B + b) * I, sizeof(float) * I);
    CHECK(FORWARD(model, .T = T, .B = B, .x = {x_other, I, T * I}, .h_0 = h_0, .c_0 = c_0,
                  .y = {y_other, H, T * H}, .h_n = got.h_n, .c_n = got.c_n) == FL_OK);
    CHECK(memcmp(got.h_n, expected.h_n, got.state_bytes) == 0);
    for (int t = 0; t < T; t++)
        for (int b = 0; b < B; b++)
            CHECK(memcmp(y_other + (b * T + t) * H,
                         expected.y + sizeof(float) * (size_t)((t * B + b) * H),
                         sizeof(float) * H) == 0);

    for (int t = 0; t < T; t++)
        memcpy(x_other + (T - 1 - t) * B * I, x + t * B * I, sizeof(float) * B * I);
    CHECK(FORWARD(model, .T = T, .B = B, .x = {x_other + (T - 1) * B * I, -B * I, I}, .h_0 = h_0,
                  .c_0 = c_0, .y = {got.y, B * H, H}, .h_n = got.h_n, .c_n = got.c_n) == FL_OK);
    CHECK(same_bits(&expected, &got));

    for (int t = 0; t < T; t++) memcpy(x_other + t * B * I, x, sizeof(float) * B * I);
    CHECK(FORWARD(model, .T = T, .B = B, .x = {x_other, B * I, I}, .h_0 = h_0, .c_0 = c_0,
                  .y = {expected.y, B * H, H}, .h_n = expected.h_n, .c_n = expected.c_n) == FL_OK);
    CHECK(FORWARD(model, .T = T, .B = B, .x = {x, 0, I}, .h_0 = h_0, .c_0 = c_0,
                  .y = {got.y, B * H, H}, .h_n = got.h_n, .c_n = got.c_n) == FL_OK);
    CHECK(same_bits(&expected, &got));

    /* The state may be updated in place, and left out at first. */
    memcpy(got.h_n, h_0, got.state_bytes);
    memcpy(got.c_n, c_0, got.state_bytes);
    CHECK(FORWARD(model, .T = T, .B = B, .x = {x_other, B * I, I}, .h_0 = got.h_n, .c_0 = got.c_n,
                  .y = {got.y, B * H, H}, .h_n = got.h_n, .c_n = got.c_n) == FL_OK);
    CHECK(same_bits(&expected, &got));
    memset(h_0, 0, got.state_bytes);
    CHECK(FORWARD(model, .T = T, .B = B, .x = {x, B * I, I}, .h_0 = h_0, .c_0 = h_0,
                  .y = {expected.y, B * H, H}, .h_n = expected.h_n, .c_n = expected.c_n) == FL_OK);
    CHECK(FORWARD(model, .T = T, .B = B, .x = {x, B * I, I}, .y = {got.y, B * H, H}, .h_n = got.h_n,
                  .c_n = got.c_n) == FL_OK);
    CHECK(same_bits(&expected, &got));

    fl_model_destroy(model);
    free(parameters);
    free(x);
    free(h_0);
    free(c_0);
    result_free(&expected);
    result_free(&got);
    problem_free(&p);
}

/* A reverse model is the forward one with time running backwards, to the bit; of sequences of
 * different lengths each is as it is alone. */
static void test_reverse(void) {
    enum { T = 300, B = 3, I = 4, H = 19 };
    static const ptrdiff_t lengths[B] = {T, 7, 0};
    ptrdiff_t starts[T + 1] = {0};
    for (int t = 0; t < T; t++) starts[t + 1] = starts[t] + 1 + (t < lengths[1]);
    for (int layers = 1; layers <= 3; layers++) {
        fl_config config = CONFIG(I, H, layers, 1, 1, FL_FLOAT32);
        problem p = problem_make(config, T, B);
        result expected = result_make(&p), got = result_make(&p);
        float *parameters = in_dtype(p.parameters, p.parameter_count, FL_FLOAT32);
        float *x = in_dtype(p.x, p.x_count, FL_FLOAT32), *x_one = malloc(sizeof(float) * T * I);
        float *h_0 = in_dtype(p.h_0, p.state_count, FL_FLOAT32);
        float *c_0 = in_dtype(p.c_0, p.state_count, FL_FLOAT32);
        float *last_y = (float *)(void *)expected.y + (T - 1) * B * H;
        fl_model *forward, *reverse;
        CHECK(fl_model_create(&config, NULL, parameters, &forward) == FL_OK);
        config.reverse = 1;
        CHECK(fl_model_create(&config, NULL, parameters, &reverse) == FL_OK);
        CHECK(FORWARD(forward, .T = T, .B = B, .x = {x + (T - 1) * B * I, -B * I, I}, .h_0 = h_0,
                      .c_0 = c_0, .y = {last_y, -B * H, H}, .h_n = expected.h_n,
                      .c_n = expected.c_n) == FL_OK);
        CHECK(FORWARD(reverse, .T = T, .B = B, .x = {x, B * I, I}, .h_0 = h_0, .c_0 = c_0,
                      .y = {got.y, B * H, H}, .h_n = got.h_n, .c_n = got.c_n) == FL_OK);
        CHECK(same_bits(&expected, &got));

        CHECK(FORWARD(reverse, .T = T, .B = B, .starts = starts, .x = {x, 0, I}, .h_0 = h_0,
                      .c_0 = c_0, .y = {got.y, 0, H}, .h_n = got.h_n, .c_n = got.c_n) == FL_OK);
        for (ptrdiff_t b = 0; b < B; b++) {
            const size_t row = sizeof(float) * H;
            float h[3 * H], c[3 * H];
            for (ptrdiff_t t = 0; t < lengths[b]; t++)
                memcpy(x_one + t * I, x + (starts[t] + b) * I, sizeof(float) * I);
            for (ptrdiff_t l = 0; l < layers; l++) {
                memcpy(h + l * H, h_0 + (l * B + b) * H, row);
                memcpy(c + l * H, c_0 + (l * B + b) * H, row);
            }
            CHECK(FORWARD(reverse, .T = lengths[b], .B = 1, .x = {x_one, I, I}, .h_0 = h, .c_0 = c,
                          .y = {expected.y, H, H}, .h_n = h, .c_n = c) == FL_OK);
            for (ptrdiff_t t = 0; t < lengths[b]; t++)
                CHECK(memcmp(got.y + (size_t)(starts[t] + b) * row, expected.y + (size_t)t * row,
                             row) == 0);
            for (ptrdiff_t l = 0; l < layers; l++) {
                CHECK(memcmp(got.h_n + (size_t)(l * B + b) * row, h + l * H, row) == 0);
                CHECK(memcmp(got.c_n + (size_t)(l * B + b) * row, c + l * H, row) == 0);
            }
        }
        fl_model_destroy(forward);
        fl_model_destroy(reverse);
        free(parameters);
        free(x);
        free(x_one);
        free(h_0);
        free(c_0);
        result_free(&expected);
        result_free(&got);
        problem_free(&p);
    }
}

static void test_errors(void) {
    const fl_config good = CONFIG(2, 3, 1, 1, 1, FL_FLOAT32);
    float parameters[4 * 3 * (2 + 3 + 2)] = {0}, data[64] = {0};
    size_t count;
    fl_model *model;
    CHECK(fl_parameter_count(&good, &count) == FL_OK && count == 84);
    CHECK(fl_parameter_count(NULL, &count) == FL_ERROR_ARGUMENT);
    CHECK(fl_parameter_count(&good, NULL) == FL_ERROR_ARGUMENT);
    fl_config bad[9];
    for (size_t i = 0; i < 9; i++) bad[i] = good;
    bad[0].input_size = 0;
    bad[1].hidden_size = 0;
    bad[2].num_layers = 0;
    bad[3].num_directions = 3;
    bad[4].num_directions = 0;
    bad[5].input_size = -1;
    bad[6].hidden_size = PTRDIFF_MIN;
    bad[7].dtype = (fl_dtype)7;
    bad[8].num_directions = 2;
    bad[8].reverse = 1;
    for (size_t i = 0; i < 9; i++) {
        CHECK(fl_parameter_count(&bad[i], &count) == FL_ERROR_ARGUMENT);
        CHECK(fl_model_create(&bad[i], NULL, parameters, &model) == FL_ERROR_ARGUMENT);
        CHECK(model == NULL);
    }
    const ptrdiff_t huge = PTRDIFF_MAX / 8;
    const fl_config overflowing[] = {
        CONFIG(huge, 3, 1, 1, 1, FL_FLOAT32),        CONFIG(3, huge, 1, 1, 1, FL_FLOAT32),
        CONFIG(3, 3, huge, 1, 1, FL_FLOAT32),        CONFIG(1 << 30, 1 << 30, 2, 2, 1, FL_FLOAT64),
        CONFIG(3, PTRDIFF_MAX, 1, 1, 1, FL_FLOAT32), CONFIG(PTRDIFF_MAX, 1, 1, 2, 1, FL_FLOAT32),
    };
    for (size_t i = 0; i < sizeof overflowing / sizeof overflowing[0]; i++) {
        CHECK(fl_parameter_count(&overflowing[i], &count) == FL_ERROR_OVERFLOW);
        CHECK(fl_model_create(&overflowing[i], NULL, parameters, &model) == FL_ERROR_OVERFLOW);
        CHECK(model == NULL);
    }
    CHECK(fl_model_create(&good, "mmx", parameters, &model) == FL_ERROR_ISA && model == NULL);
    CHECK(fl_model_create(&good, NULL, NULL, &model) == FL_ERROR_ARGUMENT);
    CHECK(fl_model_create(&good, NULL, parameters, NULL) == FL_ERROR_ARGUMENT);

    CHECK(fl_model_create(&good, NULL, parameters, &model) == FL_OK);
    float h[3] = {1, 2, 3}, c[3] = {4, 5, 6};
    CHECK(FORWARD(NULL, .T = 1, .B = 1, .x = {data, 2, 2}, .h_0 = h, .c_0 = c, .y = {data, 3, 3},
                  .h_n = h, .c_n = c) == FL_ERROR_ARGUMENT);
    CHECK(FORWARD(model, .T = -1, .B = 1, .x = {data, 2, 2}, .h_0 = h, .c_0 = c, .y = {data, 3, 3},
                  .h_n = h, .c_n = c) == FL_ERROR_ARGUMENT);
    CHECK(FORWARD(model, .T = 1, .B = -1, .x = {data, 2, 2}, .h_0 = h, .c_0 = c, .y = {data, 3, 3},
                  .h_n = h, .c_n = c) == FL_ERROR_ARGUMENT);
    CHECK(FORWARD(model, .T = 1, .B = 1, .x = {NULL, 2, 2}, .h_0 = h, .c_0 = c, .y = {data, 3, 3},
                  .h_n = h, .c_n = c) == FL_ERROR_ARGUMENT);
    CHECK(FORWARD(model, .T = 1, .B = 1, .x = {data, 2, 2}, .h_0 = h, .c_0 = c, .y = {data, 3, 3},
                  .c_n = c) == FL_ERROR_ARGUMENT);
    CHECK(FORWARD(model, .T = 1, .B = 1, .x = {data, 2, 2}, .h_0 = h, .c_0 = c, .y = {data, 3, 3},
                  .h_n = h) == FL_ERROR_ARGUMENT);
    CHECK(FORWARD(model, .T = 1, .B = PTRDIFF_MAX / 8, .x = {data}, .y = {data}, .h_n = h,
                  .c_n = c) == FL_ERROR_OVERFLOW);
    CHECK(h[0] == 1 && h[2] == 3 && c[0] == 4 && c[2] == 6); /* nothing changed */
    CHECK(FORWARD(model, .T = 0, .B = 1, .h_0 = h, .c_0 = c, .h_n = data, .c_n = data + 3) ==
          FL_OK);
    CHECK(memcmp(data, h, sizeof h) == 0 && memcmp(data + 3, c, sizeof c) == 0);
    CHECK(FORWARD(model, .T = 3, .B = 0) == FL_OK);
    fl_model_destroy(model);
    fl_model_destroy(NULL);

    CHECK(fl_probe_tanh("mmx", FL_FLOAT32, 1, data, data) == FL_ERROR_ISA);
    CHECK(fl_probe_sigmoid(NULL, FL_FLOAT64, -1, data, data) == FL_ERROR_ARGUMENT);
    CHECK(fl_probe_sigmoid(NULL, FL_FLOAT64, 1, NULL, data) == FL_ERROR_ARGUMENT);
    CHECK(fl_probe_tanh(NULL, FL_FLOAT64, 0, NULL, NULL) == FL_OK);
    for (int status = FL_OK; status <= FL_ERROR_ISA + 1; status++)
        CHECK(strlen(fl_status_message((fl_status)status)) > 3);
}

/* Sequences of different lengths begin at 0, are B at most, and no step has more than the one
 * before. */
static void test_bad_starts(void) {
    enum { T = 3, B = 2, I = 2, H = 3 };
    static const ptrdiff_t starts[][T + 1] = {{0, 2, 3, 3}, {1, 2, 3, 3}, {-1, 1, 2, 2},
                                              {0, 3, 4, 4}, {0, 1, 3, 3}, {0, 2, 3, 5},
                                              {0, 2, 1, 1}, {0, 2, 2, 1}, {0, -1, -1, -1}};
    const fl_config config = CONFIG(I, H, 1, 1, 1, FL_FLOAT32);
    static const float numbers[4 * H * (I + H + 2)] = {0};
    fl_model *model;
    CHECK(fl_model_create(&config, NULL, numbers, &model) == FL_OK);
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        const fl_status expected = i == 0 ? FL_OK : FL_ERROR_ARGUMENT;
        float y[5 * H], h[B * H], c[B * H], tape[5 * 5 * H], dx[5 * I];
        size_t bytes = 7;
        h[0] = dx[0] = 7;
        CHECK(FORWARD(model, .T = T, .B = B, .starts = starts[i], .x = {numbers, 0, I},
                      .y = {y, 0, H}, .h_n = h, .c_n = c) == expected);
        CHECK(fl_tape_bytes(model, T, B, starts[i], &bytes) == expected);
        CHECK((bytes == 7) == (i > 0) && (h[0] == 7) == (i > 0));
        CHECK(RECORD(model, .T = T, .B = B, .starts = starts[i], .x = {numbers, 0, I},
                     .y = {y, 0, H}, .h_n = h, .c_n = c, .tape = tape) == expected);
        CHECK((h[0] == 7) == (i > 0));
        CHECK(BACKWARD(model, .parameters = numbers, .T = T, .B = B, .starts = starts[i],
                       .x = {numbers, 0, I}, .tape = tape, .dx = {dx, 0, I}) == expected);
        CHECK((dx[0] == 7) == (i > 0));
    }
    fl_model_destroy(model);
}

/* Lengths in any order, of sequences that lie padded or elsewhere: each as it is alone, in one call
 * that writes nothing beyond its steps. */
static void test_lengths(void) {
    enum { T = 9, B = 6, I = 5, H = 19, ROWS = 40 };
    static const ptrdiff_t lengths[B] = {4, 0, 9, 4, 1, 6};
    static const ptrdiff_t first_rows[B] = {3, 0, 30, 17, 39, 8};
    for (int layers = 1; layers <= 2; layers++)
        for (int directions = 1; directions <= 2; directions++) {
            const fl_config config = CONFIG(I, H, layers, directions, 1, FL_FLOAT32);
            problem p = problem_make(config, T, B);
            float *parameters = in_dtype(p.parameters, p.parameter_count, FL_FLOAT32);
            float *x = in_dtype(p.x, p.x_count, FL_FLOAT32);
            float *h_0 = in_dtype(p.h_0, p.state_count, FL_FLOAT32);
            float *c_0 = in_dtype(p.c_0, p.state_count, FL_FLOAT32);
            fl_model *model;
            CHECK(fl_model_create(&config, NULL, parameters, &model) == FL_OK);
            for (int elsewhere = 0; elsewhere <= 1; elsewhere++) {
                enum { PADDED = T * B };
                const ptrdiff_t P = directions * H, step = elsewhere ? 1 : B;
                float rows[PADDED * I] = {0}, y[PADDED * 2 * H], h_n[4 * B * H], c_n[4 * B * H];
                for (int i = 0; i < PADDED * 2 * H; i++) y[i] = 7;
                for (ptrdiff_t b = 0; b < B; b++)
                    for (ptrdiff_t t = 0; t < lengths[b]; t++)
                        memcpy(rows + ((elsewhere ? first_rows[b] : b) + t * step) * I,
                               x + (t * B + b) * I, sizeof(float) * I);
                CHECK(FORWARD(model, .T = T, .B = B, .lengths = lengths,
                              .first_rows = elsewhere ? first_rows : NULL, .x = {rows, step * I, I},
                              .h_0 = h_0, .c_0 = c_0, .y = {y, step * P, P}, .h_n = h_n,
                              .c_n = c_n) == FL_OK);
                ptrdiff_t written = 0;
                for (ptrdiff_t i = 0; i < PADDED * P; i++) written += y[i] != 7;
                CHECK(written == 24 * P);
                for (ptrdiff_t b = 0; b < B; b++) {
                    float one[T * 2 * H], h[4 * H], c[4 * H];
                    for (ptrdiff_t i = 0; i < layers * directions; i++) {
                        memcpy(h + i * H, h_0 + (i * B + b) * H, sizeof(float) * H);
                        memcpy(c + i * H, c_0 + (i * B + b) * H, sizeof(float) * H);
                    }
                    CHECK(FORWARD(model, .T = lengths[b], .B = 1, .x = {x + b * I, B * I, I},
                                  .h_0 = h, .c_0 = c, .y = {one, P, P}, .h_n = h,
                                  .c_n = c) == FL_OK);
                    for (ptrdiff_t t = 0; t < lengths[b]; t++) {
                        const ptrdiff_t row = (elsewhere ? first_rows[b] : b) + t * step;
                        CHECK(memcmp(y + row * P, one + t * P, sizeof(float) * (size_t)P) == 0);
                    }
                    for (ptrdiff_t i = 0; i < layers * directions; i++) {
                        const ptrdiff_t at = (i * B + b) * H;
                        CHECK(memcmp(h_n + at, h + i * H, sizeof(float) * H) == 0);
                        CHECK(memcmp(c_n + at, c + i * H, sizeof(float) * H) == 0);
                    }
                }
            }
            fl_model_destroy(model);
            free(parameters);
            free(x);
            free(h_0);
            free(c_0);
            problem_free(&p);
        }
}

/* Lengths are 0 to T, in place of starts; there are no first_rows without them. */
static void test_bad_lengths(void) {
    enum { T = 3, B = 2, H = 3 };
    const fl_config config = CONFIG(1, H, 1, 1, 0, FL_FLOAT32);
    static const float numbers[4 * H * (1 + H)] = {0};
    static const ptrdiff_t lengths[][B] = {{3, 0}, {0, 4}, {-1, 1}, {1, PTRDIFF_MAX}};
    static const ptrdiff_t starts[T + 1] = {0, 1, 2, 3}, first_rows[B] = {0, 1};
    fl_model *model;
    CHECK(fl_model_create(&config, NULL, numbers, &model) == FL_OK);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        float h[B * H] = {7}, c[B * H];
        CHECK(FORWARD(model, .T = T, .B = B, .lengths = lengths[i], .x = {numbers, 0, 1}, .h_n = h,
                      .c_n = c) == (i == 0 ? FL_OK : FL_ERROR_ARGUMENT));
        CHECK((h[0] == 7) == (i > 0));
    }
    float h[B * H], c[B * H];
    CHECK(FORWARD(model, .T = T, .B = B, .lengths = lengths[0], .starts = starts,
                  .x = {numbers, 0, 1}, .h_n = h, .c_n = c) == FL_ERROR_ARGUMENT);
    CHECK(FORWARD(model, .T = T, .B = B, .first_rows = first_rows, .x = {numbers, 0, 1}, .h_n = h,
                  .c_n = c) == FL_ERROR_ARGUMENT);
    CHECK(FORWARD(model, .T = T, .B = B, .lengths = lengths[0], .x = {numbers, 0, 1}, .h_n = h) ==
          FL_ERROR_ARGUMENT);
    CHECK(FORWARD(model, .T = T, .lengths = lengths[0]) == FL_OK);
    CHECK(FORWARD(model, .T = PTRDIFF_MAX, .B = B, .lengths = lengths[3], .x = {numbers, 0, 0},
                  .h_n = h, .c_n = c) == FL_ERROR_OVERFLOW);
    fl_model_destroy(model);
}

static void test_isas(void) {
    const int count = fl_isa_count();
    CHECK(count >= 1);
    CHECK(fl_isa_name(-1) == NULL && fl_isa_name(count) == NULL);
    CHECK(strcmp(fl_isa_name(count - 1), "scalar") == 0);
    printf("instruction sets:");
    for (int i = 0; i < count; i++) printf(" %s", fl_isa_name(i));
    printf("\n");
    if (getenv("FASTLSTM_ISA") == NULL) CHECK(strcmp(fl_isa_default(), fl_isa_name(0)) == 0);
    else CHECK(strcmp(fl_isa_default(), getenv("FASTLSTM_ISA")) == 0);
    CHECK(fl_cache_size(0) == 0 && fl_cache_size(4) == 0);
    CHECK(strlen(fl_compiler()) > 3);
}

/* The caller's floating-point environment survives, and denormals are zero inside. */
static void test_floating_point_environment(int flushes) {
    const fl_config config = CONFIG(1, 1, 1, 1, 0, FL_FLOAT32);
    const float parameters[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    float x = FLT_MIN / 4, y = 7, h = FLT_MIN / 8, c = FLT_MIN / 2;
    fl_model *model;
    CHECK(fl_model_create(&config, NULL, parameters, &model) == FL_OK);
    const fl_fp_state outer = fl_fp_enter();
    fl_fp_leave(outer);
    CHECK(FORWARD(model, .T = 1, .B = 1, .x = {&x, 1, 1}, .h_0 = &h, .c_0 = &c, .y = {&y, 1, 1},
                  .h_n = &h, .c_n = &c) == FL_OK);
    const fl_fp_state after = fl_fp_enter();
    fl_fp_leave(after);
    CHECK(memcmp(&outer, &after, sizeof outer) == 0);
    if (flushes) CHECK(y == 0 && c == 0);
    volatile float denormal = FLT_MIN;
    denormal /= 2;
    CHECK(denormal > 0); /* still there outside */
    fl_model_destroy(model);
}

/* With an argument: on an emulator that flushes no denormals, as Valgrind. */
int main(int count, char **arguments) {
    (void)arguments;
    test_isas();
    test_errors();
    test_bad_starts();
    test_bad_lengths();
    test_results();
    test_strides();
    test_reverse();
    test_lengths();
    test_floating_point_environment((FL_X86 || FL_ARM64) && count == 1);
    printf("hash of all results: %016llx\n", (unsigned long long)results_hash);
    return checks_report();
}
