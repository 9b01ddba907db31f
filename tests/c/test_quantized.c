/* Tests of quantised models through the C API alone: the same bits on every instruction set, in
 * every batch, cut of time, number of threads and stream; and every documented error. Their values
 * are compared with the reference by tests/layer/test_quantized_exact.py.
 *
 *     test_quantized [quick | only_hash]
 *
 * quick: few sizes, for sanitizers. only_hash: what the hash is of, and no more, for emulators.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "check.h"
#include "fastlstm.h"
#include "processors.h"
#include "quantized.h"
#include "random.h"

enum { BITS = 3 };

typedef struct problem {
    fl_config config;
    ptrdiff_t T, B, I, P, LD, row; /* row of y */
    int real_inputs;
    fl_quantized_layer *layers;
    float *x, *h_0, *c_0;
} problem;

typedef struct result {
    size_t y_count, h_count, c_count;
    float *y, *h, *c;
} result;

static float *random_reals(ptrdiff_t count, double scale) {
    float *values = malloc((size_t)count * sizeof *values + 1);
    for (ptrdiff_t j = 0; j < count; j++) values[j] = (float)(scale * random_real());
    return values;
}

static problem make_problem(fl_config config, int bits, ptrdiff_t T, ptrdiff_t B, int real_inputs) {
    size_t count = 0;
    config.bits = 0;
    CHECK(fl_parameter_count(&config, &count) == FL_OK);
    config.bits = bits;
    problem p = {.config = config, .T = T, .B = B, .I = config.input_size};
    p.P = config.proj_size ? config.proj_size : config.hidden_size;
    p.LD = config.num_layers * config.num_directions;
    p.row = p.P * config.num_directions;
    p.real_inputs = real_inputs;
    float *vector = random_reals((ptrdiff_t)count, 0.5);
    p.layers = quantized_layers(&config, vector, real_inputs);
    free(vector);
    p.x = random_reals(T * B * p.I, 1);
    p.h_0 = random_reals(p.LD * B * p.P, 1.3); /* some beyond 1 */
    p.c_0 = random_reals(p.LD * B * config.hidden_size, 0.9);
    return p;
}

static void free_problem(problem *p) {
    free_quantized_layers(&p->config, p->layers);
    free(p->x);
    free(p->h_0);
    free(p->c_0);
}

static result make_result(const problem *p) {
    result r = {.y_count = (size_t)(p->T * p->B * p->row),
                .h_count = (size_t)(p->LD * p->B * p->P),
                .c_count = (size_t)(p->LD * p->B * p->config.hidden_size)};
    r.y = calloc(r.y_count + 1, sizeof *r.y);
    r.h = calloc(r.h_count + 1, sizeof *r.h);
    r.c = calloc(r.c_count + 1, sizeof *r.c);
    return r;
}

static void free_result(result *r) {
    free(r->y);
    free(r->h);
    free(r->c);
}

static int same(const float *a, const float *b, size_t count) {
    return memcmp(a, b, count * sizeof *a) == 0;
}

static int same_result(const result *a, const result *b) {
    return same(a->y, b->y, a->y_count) && same(a->h, b->h, a->h_count) &&
           same(a->c, b->c, a->c_count);
}

static fl_model *model_of(const problem *p, const char *isa) {
    fl_model *model = NULL;
    CHECK(fl_model_create_quantized(&p->config, isa, p->layers, &model) == FL_OK);
    CHECK(strcmp(fl_model_isa(model), isa) == 0);
    return model;
}

/* Time cut into calls of `piece` steps. */
static result run(const problem *p, const fl_model *model, ptrdiff_t piece) {
    result r = make_result(p);
    for (ptrdiff_t t = 0; t < p->T; t += piece) {
        const ptrdiff_t n = piece < p->T - t ? piece : p->T - t;
        CHECK(FORWARD(model, .T = n, .B = p->B, .x = {p->x + t * p->B * p->I, p->B * p->I, p->I},
                      .h_0 = t ? r.h : p->h_0, .c_0 = t ? r.c : p->c_0,
                      .y = {r.y + t * p->B * p->row, p->B * p->row, p->row}, .h_n = r.h,
                      .c_n = r.c) == FL_OK);
    }
    return r;
}

/* Sequence b by itself, `steps` of them, has the bits that it has among the others. */
static void check_alone(const problem *p, const fl_model *model, const result *among, ptrdiff_t b,
                        ptrdiff_t steps) {
    const ptrdiff_t H = p->config.hidden_size, P = p->P, B = p->B;
    float *y = malloc((size_t)(p->T * p->row) * sizeof *y + 1);
    float *h = malloc((size_t)(p->LD * P) * sizeof *h),
          *c = malloc((size_t)(p->LD * H) * sizeof *c);
    for (ptrdiff_t i = 0; i < p->LD; i++) {
        memcpy(h + i * P, p->h_0 + (i * B + b) * P, (size_t)P * sizeof *h);
        memcpy(c + i * H, p->c_0 + (i * B + b) * H, (size_t)H * sizeof *c);
    }
    CHECK(FORWARD(model, .T = steps, .B = 1, .x = {p->x + b * p->I, B * p->I, p->I}, .h_0 = h,
                  .c_0 = c, .y = {y, p->row, p->row}, .h_n = h, .c_n = c) == FL_OK);
    for (ptrdiff_t t = 0; t < steps; t++)
        CHECK(same(y + t * p->row, among->y + (t * B + b) * p->row, (size_t)p->row));
    for (ptrdiff_t i = 0; i < p->LD; i++) {
        CHECK(same(h + i * P, among->h + (i * B + b) * P, (size_t)P));
        CHECK(same(c + i * H, among->c + (i * B + b) * H, (size_t)H));
    }
    free(y);
    free(h);
    free(c);
}

/* Sequences of different lengths, each as it is alone. */
static void check_lengths(const problem *p, const fl_model *model) {
    ptrdiff_t *lengths = malloc((size_t)p->B * sizeof *lengths);
    for (ptrdiff_t b = 0; b < p->B; b++) lengths[b] = (5 * b + 3) % (p->T + 1);
    result r = make_result(p);
    CHECK(FORWARD(model, .T = p->T, .B = p->B, .lengths = lengths, .x = {p->x, p->B * p->I, p->I},
                  .h_0 = p->h_0, .c_0 = p->c_0, .y = {r.y, p->B * p->row, p->row}, .h_n = r.h,
                  .c_n = r.c) == FL_OK);
    for (ptrdiff_t b = 0; b < p->B; b++) check_alone(p, model, &r, b, lengths[b]);
    free_result(&r);
    free(lengths);
}

/* A stream, fed by steps and by pushes. */
static void check_stream(const problem *p, const fl_model *model, const result *expected) {
    fl_stream *stream = NULL;
    const int forward = p->config.num_directions == 1 && !p->config.reverse;
    CHECK(fl_stream_create(model, p->B, &stream) == (forward ? FL_OK : FL_ERROR_ARGUMENT));
    if (!forward) return;
    result r = make_result(p);
    fl_stream_set_state(stream, p->h_0, p->c_0);
    for (ptrdiff_t t = 0, n; t < p->T; t += n) {
        const float *x = p->x + t * p->B * p->I;
        float *y = r.y + t * p->B * p->row;
        n = t % 4 == 2 ? 3 : 1;
        if (n > p->T - t) n = p->T - t;
        if (n == 1) fl_stream_step(stream, x, y);
        else
            CHECK(PUSH(stream, .T = n, .x = {x, p->B * p->I, p->I},
                       .y = {y, p->B * p->row, p->row}) == FL_OK);
    }
    fl_stream_get_state(stream, r.h, r.c);
    CHECK(same_result(&r, expected));
    fl_stream_destroy(stream);
    free_result(&r);
}

/* All that the bits of a result may not depend on. */
static void check_problem(const problem *p) {
    result first = {0};
    for (int isa = 0; isa < fl_quantized_isa_count(); isa++) {
        fl_model *model = model_of(p, fl_quantized_isa_name(isa));
        result r = run(p, model, p->T);
        if (isa == 0) {
            first = r;
            hash_bytes(r.y, r.y_count * sizeof *r.y);
            hash_bytes(r.h, r.h_count * sizeof *r.h);
            hash_bytes(r.c, r.c_count * sizeof *r.c);
        } else {
            CHECK(same_result(&first, &r));
            free_result(&r);
        }
        if (p->config.num_directions == 1 && !p->config.reverse) {
            r = run(p, model, 2);
            CHECK(same_result(&first, &r));
            free_result(&r);
        }
        check_alone(p, model, &first, 0, p->T);
        check_alone(p, model, &first, p->B - 1, p->T);
        check_lengths(p, model);
        check_stream(p, model, &first);
        fl_model_destroy(model);
    }
    free_result(&first);
}

/* I and H one either side of each tile and block, and primes. */
static void test_sizes(int quick) {
    static const ptrdiff_t sizes[] = {1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 64, 67};
    const size_t count = sizeof sizes / sizeof *sizes;
    for (size_t i = 0; i < count; i += quick ? 5 : 1)
        for (int bits = 8; bits <= 24; bits += 8) {
            const fl_config config =
                CONFIG(sizes[(i * 7 + 3) % count], sizes[i], 1, 1, 1, FL_FLOAT32);
            problem p = make_problem(config, bits, 5, 1 + (ptrdiff_t)i % 9, 0);
            check_problem(&p);
            free_problem(&p);
        }
}

static const fl_config variants[] = {
    CONFIG(5, 17, 3, 2, 1, FL_FLOAT32),
    CONFIG(3, 8, 2, 1, 0, FL_FLOAT32, .reverse = 1),
    CONFIG(5, 17, 2, 2, 1, FL_FLOAT32, .proj_size = 9),
    CONFIG(19, 70, 1, 1, 1, FL_FLOAT32, .proj_size = 67),
    CONFIG(3, 8, 1, 1, 1, FL_FLOAT32, .has_peepholes = 1),
    CONFIG(4, 33, 1, 2, 1, FL_FLOAT32, .coupled_gates = 1),
    CONFIG(9, 9, 3, 1, 1, FL_FLOAT32, .gate_activation = FL_HARD_SIGMOID,
           .cell_activation = FL_RELU, .output_activation = FL_IDENTITY),
    CONFIG(3, 16, 1, 1, 0, FL_FLOAT32, .clip = 0.4, .cell_clip = 0.3),
    CONFIG(4, 7, 3, 1, 1, FL_FLOAT32, .zoneout_h = 0.3, .zoneout_c = 0.4),
    CONFIG(6, 17, 1, 2, 1, FL_FLOAT32, .layer_norm = 1),
    CONFIG(4, 9, 3, 2, 0, FL_FLOAT32, .coupled_gates = 1, .zoneout_h = 0.2, .layer_norm = 1),
    CONFIG(7, 33, 1, 2, 1, FL_FLOAT32, .proj_size = 32, .has_peepholes = 1, .coupled_gates = 1,
           .gate_activation = FL_HARD_SIGMOID, .cell_activation = FL_SIGMOID,
           .output_activation = FL_RELU, .clip = 1.5, .cell_clip = 0.9, .zoneout_h = 0.1,
           .zoneout_c = 0.2, .layer_norm = 1),
    CONFIG(5, 24, 3, 1, 1, FL_FLOAT32, .proj_size = 1, .has_peepholes = 1, .layer_norm = 1),
};
enum { VARIANTS = sizeof variants / sizeof *variants };

static void test_variants(int quick) {
    for (size_t i = 0; i < VARIANTS; i++)
        for (int bits = 8; bits <= 24; bits += 8)
            for (int real_inputs = 0; real_inputs <= !quick; real_inputs++) {
                problem p = make_problem(variants[i], bits, 6, 3, real_inputs);
                check_problem(&p);
                free_problem(&p);
            }
}

/* The same bits on one thread and on several, which share sequences, directions or units. */
static void test_threads(int quick) {
    static const struct {
        fl_config config;
        ptrdiff_t T, B;
    } cases[] = {
        {CONFIG(40, 100, 1, 1, 1, FL_FLOAT32), 12, 40},                  /* sequences, in blocks */
        {CONFIG(70, 321, 2, 1, 1, FL_FLOAT32), 40, 1},                   /* units */
        {CONFIG(70, 530, 1, 1, 1, FL_FLOAT32, .proj_size = 210), 40, 2}, /* and columns */
        {CONFIG(30, 131, 1, 2, 1, FL_FLOAT32), 80, 3},                   /* directions */
        {CONFIG(17, 400, 1, 1, 1, FL_FLOAT32, .layer_norm = 1, .zoneout_h = 0.1), 40, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int bits = 8; bits <= 24; bits += quick ? 16 : 8) {
            problem p = make_problem(cases[i].config, bits, cases[i].T, cases[i].B, 0);
            fl_model *model = model_of(&p, fl_quantized_isa_name(0));
            CHECK(fl_set_num_threads(1) == FL_OK);
            result one = run(&p, model, p.T);
            for (int threads = 2; threads <= (quick ? 2 : 5); threads++) {
                CHECK(fl_set_num_threads(threads) == FL_OK);
                for (int again = 0; again < 3; again++) {
                    result some = run(&p, model, p.T);
                    CHECK(same_result(&one, &some));
                    free_result(&some);
                }
                check_lengths(&p, model);
                check_stream(&p, model, &one);
            }
            fl_model_destroy(model);
            free_result(&one);
            free_problem(&p);
        }
}

/* More rows than a thread quantises at a time, and rows so long that their weights come from
 * afar. */
static void test_blocks(void) {
    static const struct {
        fl_config config;
        ptrdiff_t T, B;
    } cases[] = {
        {CONFIG(9, 20, 1, 1, 1, FL_FLOAT32), 3, 5000},
        {CONFIG(3001, 30, 1, 1, 1, FL_FLOAT32), 2, 60},
        {CONFIG(1100, 1040, 1, 1, 1, FL_FLOAT32), 3, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int bits = 8; bits <= 24; bits += 8) {
            problem p = make_problem(cases[i].config, bits, cases[i].T, cases[i].B, 0);
            fl_model *model = model_of(&p, fl_quantized_isa_name(0));
            result r = run(&p, model, p.T);
            for (ptrdiff_t b = 0; b < p.B; b += 59) check_alone(&p, model, &r, b, p.T);
            check_stream(&p, model, &r);
            fl_model_destroy(model);
            free_result(&r);
            free_problem(&p);
        }
}

/* A number that is none makes all that follows of its sequence NaN, and nothing else. */
static void test_not_finite(void) {
    enum { T = 6, B = 3, I = 20, H = 18, AT = 2, WHICH = 1 };
    static const float numbers[] = {NAN, INFINITY, -INFINITY};
    for (int bits = 8; bits <= 24; bits += 8)
        for (int isa = 0; isa < fl_quantized_isa_count(); isa++)
            for (int kind = 0; kind < 3; kind++) {
                problem p =
                    make_problem((fl_config)CONFIG(I, H, 2, 1, 1, FL_FLOAT32), bits, T, B, 0);
                fl_model *model = model_of(&p, fl_quantized_isa_name(isa));
                result before = run(&p, model, T);
                p.x[(AT * B + WHICH) * I + 3] = numbers[kind];
                result after = run(&p, model, T);
                for (ptrdiff_t t = 0; t < T; t++)
                    for (ptrdiff_t b = 0; b < B; b++)
                        for (ptrdiff_t j = 0; j < H; j++) {
                            const size_t at = (size_t)((t * B + b) * H + j);
                            CHECK(b == WHICH && t >= AT ? isnan(after.y[at])
                                                        : after.y[at] == before.y[at]);
                        }
                fl_model_destroy(model);
                free_result(&before);
                free_result(&after);
                free_problem(&p);
            }
}

static void test_errors(void) {
    const fl_config config = CONFIG(3, 5, 1, 1, 1, FL_FLOAT32, .proj_size = 2);
    problem p = make_problem(config, 8, 2, 1, 0);
    fl_model *model = NULL;
    size_t count = 7;
    const float reals[4 * 5 * 3] = {0};
#define CREATE(config_, layers_) \
    fl_model_create_quantized(config_, fl_quantized_isa_name(0), layers_, &model)
    CHECK(CREATE(NULL, p.layers) == FL_ERROR_ARGUMENT && model == NULL);
    CHECK(CREATE(&p.config, NULL) == FL_ERROR_ARGUMENT && model == NULL);
    CHECK(fl_model_create_quantized(&p.config, NULL, p.layers, NULL) == FL_ERROR_ARGUMENT);
    model = (fl_model *)&p;
    CHECK(fl_model_create_quantized(&p.config, "none", p.layers, &model) == FL_ERROR_ISA);
    CHECK(model == NULL);
    static const int senseless[] = {0, 1, 7, 12, 32, -8, 1 << 30};
    for (size_t i = 0; i < sizeof senseless / sizeof *senseless; i++) {
        fl_config other = p.config;
        other.bits = senseless[i];
        CHECK(CREATE(&other, p.layers) == FL_ERROR_ARGUMENT && model == NULL);
    }
    fl_config other = p.config;
    other.dtype = FL_FLOAT64;
    CHECK(CREATE(&other, p.layers) == FL_ERROR_ARGUMENT);
    other = p.config;
    other.hidden_size = 0;
    CHECK(CREATE(&other, p.layers) == FL_ERROR_ARGUMENT);
    /* Models of reals have no bits. */
    CHECK(fl_parameter_count(&p.config, &count) == FL_ERROR_ARGUMENT && count == 7);
    CHECK(fl_model_create(&p.config, NULL, reals, &model) == FL_ERROR_ARGUMENT && model == NULL);

    /* Each of what a layer must have, and both kinds of W. */
    for (int missing = 0; missing < 10; missing++) {
        fl_quantized_layer layer = *p.layers;
        if (missing == 0) layer.w.digits = NULL;
        if (missing == 1) layer.w.units = NULL;
        if (missing == 2) layer.u.digits = NULL;
        if (missing == 3) layer.u.units = NULL;
        if (missing == 4) layer.w_hr.digits = NULL;
        if (missing == 5) layer.w_hr.units = NULL;
        if (missing == 6) layer.others = NULL;
        if (missing == 7) layer.w_real = reals;
        if (missing == 8) layer.w_real = reals, layer.w.digits = NULL;
        if (missing == 9) layer.w_real = reals, layer.w.digits = NULL, layer.x_multipliers = NULL;
        CHECK(CREATE(&p.config, &layer) == (missing == 9 ? FL_OK : FL_ERROR_ARGUMENT));
        CHECK((model != NULL) == (missing == 9));
        fl_model_destroy(model);
    }

    /* There are no gradients. */
    model = model_of(&p, fl_quantized_isa_name(0));
    float y[4], h[2] = {7, 7}, c[5], tape[1000];
    CHECK(fl_tape_bytes(model, 2, 1, NULL, &count) == FL_ERROR_ARGUMENT && count == 7);
    CHECK(RECORD(model, .T = 2, .B = 1, .x = {p.x, 3, 3}, .y = {y, 2, 2}, .h_n = h, .c_n = c,
                 .tape = tape) == FL_ERROR_ARGUMENT);
    CHECK(BACKWARD(model, .T = 2, .B = 1, .x = {p.x, 3, 3}, .parameters = reals, .tape = tape,
                   .dh_0 = h) == FL_ERROR_ARGUMENT);
    CHECK(h[0] == 7 && h[1] == 7);
    CHECK(fl_model_bytes(model) > 2 * 4 * 5 * 3);
    fl_model_destroy(model);
    free_problem(&p);
}

/* As many columns as sums have room for, at their largest, and one more. */
static void test_most_columns(void) {
    static const ptrdiff_t most[BITS] = {131071, 65535, 43690};
    static const float unit[4] = {1, 1, 1, 1};
    static const signed char u[12] = {0};
    for (int n = 1; n <= BITS; n++)
        for (int more = 0; more <= 1; more++) {
            const ptrdiff_t I = most[n - 1] + more;
            const size_t size = (size_t)(4 * n * I);
            signed char *digits = malloc(size);
            memset(digits, -128, size);
            float *x = malloc((size_t)I * sizeof *x);
            for (ptrdiff_t k = 0; k < I; k++) x[k] = -1;
            fl_config config = CONFIG(I, 1, 1, 1, 0, FL_FLOAT32);
            config.bits = 8 * n;
            const fl_quantized_layer layer = {.w = {digits, unit}, .u = {u, unit}};
            float first = 0;
            for (int isa = 0; isa < fl_quantized_isa_count(); isa++) {
                fl_model *model = NULL;
                float y = 7, h = 0, c = 0;
                CHECK(fl_model_create_quantized(&config, fl_quantized_isa_name(isa), &layer,
                                                &model) == (more ? FL_ERROR_ARGUMENT : FL_OK));
                if (more) continue;
                CHECK(FORWARD(model, .T = 1, .B = 1, .x = {x, I, I}, .y = {&y, 1, 1}, .h_n = &h,
                              .c_n = &c) == FL_OK);
                CHECK(y > 0.7f && y < 0.8f); /* all gates open: tanh(1) */
                if (isa == 0) first = y;
                CHECK(y == first);
                fl_model_destroy(model);
            }
            free(digits);
            free(x);
        }
    fl_config config = CONFIG(1, PTRDIFF_MAX / 2, 1, 1, 0, FL_FLOAT32);
    config.bits = 8;
    const fl_quantized_layer layer = {.w = {u, unit}, .u = {u, unit}};
    fl_model *model = NULL;
    CHECK(fl_model_create_quantized(&config, NULL, &layer, &model) == FL_ERROR_OVERFLOW);
    CHECK(model == NULL);
}

/* A name stands for itself, that of an instruction set for the fastest of its own, and models of
 * reals take the one that a name belongs to. */
static void test_names(void) {
    const char *asked = getenv("FASTLSTM_ISA");
    char *before = asked ? strdup(asked) : NULL;
    const int count = fl_quantized_isa_count();
    CHECK(count >= 1 && fl_quantized_isa_name(-1) == NULL && fl_quantized_isa_name(count) == NULL);
    CHECK(strcmp(fl_quantized_isa_name(count - 1), "scalar") == 0);
    problem p = make_problem((fl_config)CONFIG(1, 1, 1, 1, 1, FL_FLOAT32), 8, 1, 1, 0);
    const fl_config reals = CONFIG(1, 1, 1, 1, 1, FL_FLOAT32);
    const float parameters[16] = {0};
    fl_model *model = NULL;
    printf("instruction sets:");
    for (int i = 0; i < count; i++) {
        const char *name = fl_quantized_isa_name(i);
        printf(" %s", name);
        fl_model_destroy(model_of(&p, name));
        CHECK(setenv("FASTLSTM_ISA", name, 1) == 0);
        CHECK(fl_model_create_quantized(&p.config, NULL, p.layers, &model) == FL_OK);
        CHECK(strcmp(fl_model_isa(model), name) == 0);
        fl_model_destroy(model);
        const char *base = fl_isa_default();
        CHECK(base != NULL && strncmp(base, name, strlen(base)) == 0);
        for (int by_name = 0; by_name <= 1; by_name++) {
            CHECK(fl_model_create(&reals, by_name ? name : NULL, parameters, &model) == FL_OK);
            CHECK(strcmp(fl_model_isa(model), base) == 0);
            fl_model_destroy(model);
        }
    }
    printf("\n");
    unsetenv("FASTLSTM_ISA");
    CHECK(fl_model_create_quantized(&p.config, NULL, p.layers, &model) == FL_OK);
    CHECK(strcmp(fl_model_isa(model), fl_quantized_isa_name(0)) == 0);
    fl_model_destroy(model);
    for (int i = 0; i < fl_isa_count(); i++) {
        const char *base = fl_isa_name(i), *expected = NULL;
        CHECK(fl_model_create_quantized(&p.config, base, p.layers, &model) == FL_OK);
        for (int j = 0; j < count; j++) /* its own name, or the first that begins with it */
            if (strcmp(fl_quantized_isa_name(j), base) == 0) expected = base;
        for (int j = 0; j < count && expected == NULL; j++)
            if (strncmp(fl_quantized_isa_name(j), base, strlen(base)) == 0)
                expected = fl_quantized_isa_name(j);
        if (expected == NULL) expected = fl_quantized_isa_name(0);
        CHECK(strcmp(fl_model_isa(model), expected) == 0);
        fl_model_destroy(model);
    }
    CHECK(setenv("FASTLSTM_ISA", "avx9", 1) == 0);
    CHECK(fl_model_create_quantized(&p.config, NULL, p.layers, &model) == FL_ERROR_ISA);
    CHECK(model == NULL);
    if (before) setenv("FASTLSTM_ISA", before, 1);
    else unsetenv("FASTLSTM_ISA");
    free(before);
    free_problem(&p);
}

int main(int count, char **arguments) {
    const int quick = count > 1 && strcmp(arguments[1], "quick") == 0;
    processors = 5;
    CHECK(fl_set_num_threads(1) == FL_OK);
    test_sizes(1);
    test_variants(1);
    printf("hash of all results: %016llx\n", (unsigned long long)results_hash);
    if (count > 1 && strcmp(arguments[1], "only_hash") == 0) return checks_report();
    test_names();
    test_errors();
    test_not_finite();
    test_threads(quick);
    if (!quick) {
        CHECK(fl_set_num_threads(2) == FL_OK);
        test_sizes(0);
        test_variants(0);
        test_blocks();
        test_most_columns();
    }
    return checks_report();
}
