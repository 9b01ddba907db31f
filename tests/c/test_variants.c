/* Tests of the variants of the cell through the C API alone: with options and masks, bits against
 * bits over instruction sets, threads, batches and streams, central differences.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "check.h"
#include "fastlstm.h"
#include "random.h"

/* What a problem is made of and what comes out. */
enum {
    X,
    H_0,
    C_0,
    RECURRENT,
    BETWEEN,
    ZONEOUT_H,
    ZONEOUT_C,
    DY,
    DH_N,
    DC_N,
    PARAMETERS,
    INPUTS,
    Y = INPUTS,
    H_N,
    C_N,
    DX,
    DH_0,
    DC_0,
    DPARAMETERS,
    ARRAYS
};

enum { NO_MASKS, MASKS }; /* options.masks */

/* A configuration, its dtype aside, and what it is tried on. */
typedef struct options {
    fl_config config; /* I, H, L, D, bias */
    ptrdiff_t T, B;
    int masks, ragged;
} options;

/* H around the vector lengths, P from 1 to H - 1; options alone and together, such that most pairs
 * of them meet. */
static const options small[] = {
    {CONFIG(5, 17, 3, 2, 1, .proj_size = 9), 6, 3, NO_MASKS, 1},
    {CONFIG(3, 8, 1, 1, 1, .has_peepholes = 1), 7, 5, NO_MASKS, 0},
    {CONFIG(4, 33, 1, 2, 1, .coupled_gates = 1), 5, 2, NO_MASKS, 1},
    {CONFIG(9, 9, 3, 1, 1, .gate_activation = FL_HARD_SIGMOID, .cell_activation = FL_RELU,
            .output_activation = FL_IDENTITY),
     6, 4, NO_MASKS, 0},
    {CONFIG(3, 16, 1, 1, 0, .clip = 0.4), 6, 3, NO_MASKS, 1},
    {CONFIG(3, 24, 1, 2, 1, .cell_clip = 0.3), 6, 3, NO_MASKS, 0},
    {CONFIG(4, 7, 3, 1, 1, .zoneout_h = 0.3), 7, 4, MASKS, 1},
    {CONFIG(2, 1, 3, 2, 1, .zoneout_h = 0.2, .zoneout_c = 0.4), 5, 2, NO_MASKS, 0},
    {CONFIG(6, 17, 1, 2, 1, .layer_norm = 1), 6, 3, NO_MASKS, 1},
    {CONFIG(2, 1, 1, 1, 1, .layer_norm = 1, .has_peepholes = 1), 5, 3, NO_MASKS, 0},
    {CONFIG(5, 24, 3, 1, 1, .proj_size = 1, .has_peepholes = 1, .layer_norm = 1), 4, 5, MASKS, 0},
    {CONFIG(4, 9, 3, 2, 0, .coupled_gates = 1, .zoneout_h = 0.2, .zoneout_c = 0.3, .layer_norm = 1),
     5, 4, MASKS, 1},
    {CONFIG(7, 33, 1, 2, 1, .proj_size = 32, .has_peepholes = 1, .coupled_gates = 1,
            .gate_activation = FL_HARD_SIGMOID, .cell_activation = FL_SIGMOID,
            .output_activation = FL_RELU, .clip = 1.5, .cell_clip = 0.9, .zoneout_h = 0.1,
            .zoneout_c = 0.2, .layer_norm = 1),
     5, 3, MASKS, 1},
    {CONFIG(3, 16, 3, 1, 0, .proj_size = 15, .coupled_gates = 1, .cell_activation = FL_IDENTITY,
            .output_activation = FL_SIGMOID, .clip = 0.8, .cell_clip = 0.5, .zoneout_h = 0.3),
     6, 3, NO_MASKS, 0},
    {CONFIG(3, 33, 3, 1, 1, .has_peepholes = 1, .clip = 0.7, .cell_clip = 0.6, .zoneout_c = 0.25),
     5, 3, MASKS, 1},
    {CONFIG(11, 24, 3, 2, 1), 5, 3, MASKS, 1},
    {CONFIG(3, 7, 1, 1, 0), 9, 2, MASKS, 0},
};

/* Large enough for several threads: units of one sequence, directions, sequences; the last two too
 * long for one chunk of time. */
static const options large[] = {
    {CONFIG(32, 128, 1, 1, 1, .has_peepholes = 1, .coupled_gates = 1, .clip = 2, .cell_clip = 0.9,
            .zoneout_c = 0.2),
     100, 1, MASKS, 0},
    {CONFIG(32, 64, 1, 2, 1, .zoneout_h = 0.2, .layer_norm = 1), 130, 1, MASKS, 0},
    {CONFIG(8, 24, 2, 2, 1, .proj_size = 17, .has_peepholes = 1, .zoneout_h = 0.2, .zoneout_c = 0.3,
            .layer_norm = 1),
     50, 13, MASKS, 1},
    {CONFIG(16, 72, 2, 1, 1), 50, 3, MASKS, 0},
    {CONFIG(3, 9, 2, 1, 1, .coupled_gates = 1, .zoneout_h = 0.2, .zoneout_c = 0.3), 300, 3, MASKS,
     1},
};

#define COUNT(table) (sizeof(table) / sizeof *(table))

typedef struct problem {
    fl_config config;
    ptrdiff_t T, B, P;
    const ptrdiff_t *given; /* starts, or NULL where all sequences have T steps */
    ptrdiff_t *starts;      /* either way */
    ptrdiff_t step, row;    /* rows of x, y and so on from a time, a sequence to the next */
    size_t real, bytes[ARRAYS];
    char *inputs[INPUTS]; /* of masks: NULL for none */
} problem;

/* Arrays are (outer, rows of all steps or B, width). */
typedef struct shape {
    ptrdiff_t outer, width;
    int stepwise;
} shape;

static shape shape_of(const problem *p, int array) {
    const fl_config *config = &p->config;
    const ptrdiff_t H = config->hidden_size, P = p->P, D = config->num_directions;
    const ptrdiff_t L = config->num_layers;
    size_t parameters = 0;
    fl_parameter_count(config, &parameters);
    switch (array) {
        case X:
        case DX: return (shape){1, config->input_size, 1};
        case Y:
        case DY: return (shape){1, D * P, 1};
        case BETWEEN: return (shape){L - 1, D * P, 1};
        case ZONEOUT_H: return (shape){L * D, P, 1};
        case ZONEOUT_C: return (shape){L * D, H, 1};
        case C_0:
        case C_N:
        case DC_0:
        case DC_N: return (shape){L * D, H, 0};
        case PARAMETERS:
        case DPARAMETERS: return (shape){(ptrdiff_t)parameters, 1, -1};
        default: return (shape){L * D, P, 0};
    }
}

static size_t count_of(const problem *p, int array) {
    const shape shape = shape_of(p, array);
    const ptrdiff_t rows = shape.stepwise < 0 ? 1 : shape.stepwise ? p->starts[p->T] : p->B;
    return (size_t)(shape.outer * rows * shape.width);
}

static void set(char *array, size_t index, double value, size_t real) {
    if (real == 8) ((double *)(void *)array)[index] = value;
    else ((float *)(void *)array)[index] = (float)value;
}
static double get(const char *array, size_t index, size_t real) {
    if (real == 8) return ((const double *)(const void *)array)[index];
    return (double)((const float *)(const void *)array)[index];
}

static int is_filled(const void *data, size_t count, int byte) {
    const unsigned char *bytes = data;
    for (size_t j = 0; j < count; j++)
        if (bytes[j] != byte) return 0;
    return 1;
}

/* Arrays of exactly their size, so that a sanitizer sees a step too far. */
static void allocate_inputs(problem *p) {
    p->step = p->B;
    p->row = 1;
    for (int i = 0; i < ARRAYS; i++) p->bytes[i] = count_of(p, i) * p->real;
    for (int i = 0; i < INPUTS; i++) {
        if (i == ZONEOUT_H && !(p->config.zoneout_h > 0)) continue;
        if (i == ZONEOUT_C && !(p->config.zoneout_c > 0)) continue;
        p->inputs[i] = malloc(p->bytes[i]);
    }
}

/* Sequences lose steps by and by; the last but one has a step, the last of a ragged batch none. */
static problem problem_make(const options *of, fl_dtype dtype, int masks) {
    problem p = {of->config, of->T, of->B};
    p.config.dtype = dtype;
    p.P = p.config.proj_size ? p.config.proj_size : p.config.hidden_size;
    p.real = dtype == FL_FLOAT64 ? 8 : 4;
    p.starts = calloc((size_t)p.T + 1, sizeof *p.starts);
    for (ptrdiff_t t = 0; t < p.T; t++)
        p.starts[t + 1] = p.starts[t] + (of->ragged ? p.B - 1 - t * (p.B - 2) / p.T : p.B);
    p.given = of->ragged ? p.starts : NULL;
    allocate_inputs(&p);
    for (int i = 0; i < INPUTS; i++) {
        if (!masks && i >= RECURRENT && i <= ZONEOUT_C) {
            free(p.inputs[i]);
            p.inputs[i] = NULL;
        }
        if (p.inputs[i] == NULL) continue;
        for (size_t j = 0; j < p.bytes[i] / p.real; j++) {
            const double number = random_real();
            double value = 0.9 * number;
            if (i == PARAMETERS) value = 0.5 * number;
            if (i == RECURRENT || i == BETWEEN) value = number < 0.3 ? 1.25 : 0;
            if (i == ZONEOUT_H || i == ZONEOUT_C) value = number < -0.5;
            set(p.inputs[i], j, value, p.real);
        }
    }
    return p;
}

static void problem_free(problem *p) {
    for (int i = 0; i < INPUTS; i++) free(p->inputs[i]);
    free(p->starts);
}

/* Its arrays from Y on; the others are NULL. */
typedef struct results {
    char *arrays[ARRAYS];
} results;

static void results_free(results *r) {
    for (int i = 0; i < ARRAYS; i++) free(r->arrays[i]);
}

static int same_bits(const problem *p, const results *a, const results *b) {
    for (int i = Y; i < ARRAYS; i++)
        if (memcmp(a->arrays[i], b->arrays[i], p->bytes[i]) != 0) return 0;
    return 1;
}

static fl_model *model_of(const problem *p, const char *isa) {
    fl_model *model = NULL;
    CHECK(fl_model_create(&p->config, isa, p->inputs[PARAMETERS], &model) == FL_OK);
    return model;
}

/* fl_record, or fl_forward where tape is NULL. with_y: whether y is wanted. */
static void forward(const problem *p, const fl_model *model, int masked, int with_y, results *r,
                    char *tape) {
    char *const *in = p->inputs;
    const ptrdiff_t I = p->config.input_size, out = p->config.num_directions * p->P;
    const fl_masks masks = {in[RECURRENT], in[BETWEEN], in[ZONEOUT_H], in[ZONEOUT_C]};
    for (int i = Y; i <= C_N; i++) {
        if (r->arrays[i] == NULL) r->arrays[i] = malloc(p->bytes[i]);
        memset(r->arrays[i], 0x5a, p->bytes[i]);
    }
    char *y = with_y ? r->arrays[Y] : NULL;
    if (tape)
        CHECK(RECORD(model, .T = p->T, .B = p->B, .starts = p->given,
                     .x = {in[X], p->step * I, p->row * I}, .h_0 = in[H_0], .c_0 = in[C_0],
                     .masks = masked ? &masks : NULL, .y = {y, p->step * out, p->row * out},
                     .h_n = r->arrays[H_N], .c_n = r->arrays[C_N], .tape = tape) == FL_OK);
    else
        CHECK(FORWARD(model, .T = p->T, .B = p->B, .starts = p->given,
                      .x = {in[X], p->step * I, p->row * I}, .h_0 = in[H_0], .c_0 = in[C_0],
                      .y = {y, p->step * out, p->row * out}, .h_n = r->arrays[H_N],
                      .c_n = r->arrays[C_N]) == FL_OK);
}

static char *tape_of(const problem *p, const fl_model *model, size_t *bytes) {
    CHECK(fl_tape_bytes(model, p->T, p->B, p->given, bytes) == FL_OK);
    return malloc(*bytes);
}

/* Goes back over a tape. start: NULL, or results to begin with and to add to. wanted: a bit for
 * each result, from DX on; the others are left as they were. */
static void backward(const problem *p, const fl_model *model, const char *tape,
                     const results *start, int wanted, results *r) {
    char *const *in = p->inputs;
    char *to[ARRAYS] = {NULL};
    const ptrdiff_t I = p->config.input_size, out = p->config.num_directions * p->P;
    const fl_masks masks = {in[RECURRENT], in[BETWEEN], in[ZONEOUT_H], in[ZONEOUT_C]};
    for (int i = DX; i < ARRAYS; i++) {
        r->arrays[i] = malloc(p->bytes[i]);
        if (start) memcpy(r->arrays[i], start->arrays[i], p->bytes[i]);
        else memset(r->arrays[i], 0x5a, p->bytes[i]);
        if (wanted >> (i - DX) & 1) to[i] = r->arrays[i];
    }
    CHECK(BACKWARD(model, .parameters = in[PARAMETERS], .T = p->T, .B = p->B, .starts = p->given,
                   .x = {in[X], p->step * I, p->row * I}, .h_0 = in[H_0], .c_0 = in[C_0],
                   .masks = &masks, .tape = tape, .dy = {in[DY], p->step * out, p->row * out},
                   .dh_n = in[DH_N], .dc_n = in[DC_N], .accumulate = start != NULL,
                   .dx = {to[DX], p->step * I, p->row * I}, .dh_0 = to[DH_0], .dc_0 = to[DC_0],
                   .dparameters = to[DPARAMETERS]) == FL_OK);
}

/* Records and goes back. */
static results run_back(const problem *p, const char *isa, const results *start, int wanted) {
    fl_model *model = model_of(p, isa);
    size_t bytes;
    char *tape = tape_of(p, model, &bytes);
    results r = {{NULL}};
    forward(p, model, 1, 1, &r, tape);
    backward(p, model, tape, start, wanted, &r);
    free(tape);
    fl_model_destroy(model);
    return r;
}
static results run(const problem *p, const char *isa) { return run_back(p, isa, NULL, 15); }

static int same_outputs(const problem *p, const results *a, const results *b, int from) {
    for (int i = from; i <= C_N; i++)
        if (memcmp(a->arrays[i], b->arrays[i], p->bytes[i]) != 0) return 0;
    return 1;
}

/* fl_forward is fl_record to the bit, and neither needs y for the rest. */
static void check_forward(const problem *p, const char *isa, const results *recorded) {
    fl_model *model = model_of(p, isa);
    size_t bytes;
    char *tape = tape_of(p, model, &bytes), *other = malloc(bytes);
    results a = {{NULL}}, b = {{NULL}};
    forward(p, model, 0, 1, &a, NULL);
    forward(p, model, 0, 1, &b, tape);
    CHECK(same_outputs(p, &a, &b, Y));
    forward(p, model, 0, 0, &b, NULL);
    CHECK(same_outputs(p, &a, &b, H_N));
    CHECK(is_filled(b.arrays[Y], p->bytes[Y], 0x5a));
    memset(tape, 0x5a, bytes);
    memset(other, 0x5a, bytes);
    forward(p, model, 1, 1, &a, tape);
    forward(p, model, 1, 0, &b, other);
    CHECK(same_outputs(p, recorded, &a, Y) && same_outputs(p, recorded, &b, H_N));
    CHECK(memcmp(tape, other, bytes) == 0);
    results_free(&a);
    results_free(&b);
    free(tape);
    free(other);
    fl_model_destroy(model);
}

/* Steps and pushes of a stream are a call of fl_forward. */
static void check_streams(const problem *p, const char *isa) {
    if (p->config.num_directions == 2 || p->given) return;
    char *const *in = p->inputs;
    const ptrdiff_t I = p->config.input_size;
    const size_t x_step = (size_t)(p->B * I) * p->real, y_step = (size_t)(p->B * p->P) * p->real;
    fl_model *model = model_of(p, isa);
    results whole = {{NULL}};
    forward(p, model, 0, 1, &whole, NULL);
    char *h = malloc(p->bytes[H_N]), *c = malloc(p->bytes[C_N]), *y = malloc(p->bytes[Y]);
    fl_stream *stream = NULL;
    CHECK(fl_stream_create(model, p->B, &stream) == FL_OK);
    for (ptrdiff_t piece = 0; piece <= 3; piece++) { /* 0: single steps */
        fl_stream_set_state(stream, in[H_0], in[C_0]);
        memset(y, 0x5a, p->bytes[Y]);
        for (ptrdiff_t t = 0, n; t < p->T; t += n) {
            n = piece == 0 ? 1 : p->T - t < piece ? p->T - t : piece;
            const char *x_t = in[X] + (size_t)t * x_step;
            char *y_t = y + (size_t)t * y_step;
            if (piece == 0) fl_stream_step(stream, x_t, y_t);
            else
                CHECK(PUSH(stream, .T = n, .x = {x_t, p->B * I, I},
                           .y = {y_t, p->B * p->P, p->P}) == FL_OK);
        }
        fl_stream_get_state(stream, h, c);
        CHECK(memcmp(y, whole.arrays[Y], p->bytes[Y]) == 0);
        CHECK(memcmp(h, whole.arrays[H_N], p->bytes[H_N]) == 0);
        CHECK(memcmp(c, whole.arrays[C_N], p->bytes[C_N]) == 0);
    }
    fl_stream_reset(stream, NULL);
    fl_stream_get_state(stream, h, c);
    CHECK(is_filled(h, p->bytes[H_N], 0) && is_filled(c, p->bytes[C_N], 0));
    fl_stream_destroy(stream);
    results_free(&whole);
    free(h);
    free(c);
    free(y);
    fl_model_destroy(model);
}

/* Copies what is sequence b's in an array to that of a problem with b alone, or compares the two.
 */
static int take_sequence(const problem *all, const problem *one, int array, ptrdiff_t b,
                         const char *from, char *to, int compare) {
    const shape shape = shape_of(all, array);
    const size_t row = (size_t)shape.width * all->real;
    const ptrdiff_t rows = shape.stepwise ? all->starts[all->T] : all->B;
    int same = 1;
    for (ptrdiff_t k = 0; k < shape.outer; k++)
        for (ptrdiff_t t = 0; t < (shape.stepwise ? one->T : 1); t++) {
            const char *source =
                from + (size_t)(k * rows + (shape.stepwise ? all->starts[t] : 0) + b) * row;
            char *target = to + (size_t)(k * (shape.stepwise ? one->T : 1) + t) * row;
            if (compare) same = same && memcmp(source, target, row) == 0;
            else memcpy(target, source, row);
        }
    return same;
}

/* What a sequence gets does not depend on the others of the batch. */
static void check_sequences(const problem *all, const results *whole) {
    for (ptrdiff_t b = 0; b < all->B; b++) {
        problem one = {all->config, 0, 1, all->P};
        while (one.T < all->T && all->starts[one.T + 1] - all->starts[one.T] > b) one.T++;
        one.starts = calloc((size_t)one.T + 1, sizeof *one.starts);
        for (ptrdiff_t t = 0; t <= one.T; t++) one.starts[t] = t;
        one.real = all->real;
        allocate_inputs(&one);
        for (int i = 0; i < PARAMETERS; i++) {
            if (all->inputs[i]) {
                take_sequence(all, &one, i, b, all->inputs[i], one.inputs[i], 0);
            } else {
                free(one.inputs[i]);
                one.inputs[i] = NULL;
            }
        }
        memcpy(one.inputs[PARAMETERS], all->inputs[PARAMETERS], all->bytes[PARAMETERS]);
        results r = run(&one, NULL);
        for (int i = Y; i < DPARAMETERS; i++)
            CHECK(take_sequence(all, &one, i, b, whole->arrays[i], r.arrays[i], 1));
        results_free(&r);
        problem_free(&one);
    }
}

/* One result at a time, and added to what is there. */
static void check_wanted(const problem *p, const results *first) {
    for (int i = DX; i < ARRAYS; i++) {
        results r = run_back(p, NULL, NULL, 1 << (i - DX));
        for (int k = DX; k < ARRAYS; k++)
            CHECK(k == i ? memcmp(r.arrays[k], first->arrays[k], p->bytes[k]) == 0
                         : is_filled(r.arrays[k], p->bytes[k], 0x5a));
        results_free(&r);
    }
    results twice = run_back(p, NULL, first, 15);
    for (int i = DX; i < ARRAYS; i++) {
        double most = 0;
        for (size_t j = 0; j < p->bytes[i] / p->real; j++) {
            const double once = get(first->arrays[i], j, p->real);
            const double error = fabs(get(twice.arrays[i], j, p->real) - 2 * once);
            most = fmax(most, error / (1 + fabs(once)));
        }
        CHECK(most <= (p->real == 8 ? 1e-12 : 1e-3));
    }
    results_free(&twice);
}

/* States that begin at zero, and gradients, may be left out. */
static void check_zeros(const problem *p) {
    static const int optional[] = {H_0, C_0, DY, DH_N, DC_N};
    for (size_t i = 0; i < COUNT(optional); i++) {
        problem zeros = *p, none = *p;
        zeros.inputs[optional[i]] = calloc(p->bytes[optional[i]], 1);
        none.inputs[optional[i]] = NULL;
        results a = run(&zeros, NULL), b = run(&none, NULL);
        CHECK(same_bits(p, &a, &b));
        results_free(&a);
        results_free(&b);
        free(zeros.inputs[optional[i]]);
    }
}

/* From (T, B, width) to (B, T, width), or back. */
static void transpose(const problem *p, int array, int back, char **data) {
    const size_t row = (size_t)shape_of(p, array).width * p->real;
    char *to = malloc(p->bytes[array]);
    for (ptrdiff_t t = 0; t < p->T; t++)
        for (ptrdiff_t b = 0; b < p->B; b++) {
            const size_t by_time = (size_t)(t * p->B + b) * row;
            const size_t by_sequence = (size_t)(b * p->T + t) * row;
            if (back) memcpy(to + by_time, *data + by_sequence, row);
            else memcpy(to + by_sequence, *data + by_time, row);
        }
    free(*data);
    *data = to;
}

/* With each sequence in one piece. */
static void check_strides(problem *p, const results *first) {
    static const int stepwise[] = {X, DY, Y, DX};
    if (p->given) return;
    for (int i = 0; i < 2; i++) transpose(p, stepwise[i], 0, &p->inputs[stepwise[i]]);
    p->step = 1;
    p->row = p->T;
    results r = run(p, NULL);
    for (int i = 0; i < 2; i++) transpose(p, stepwise[i], 1, &p->inputs[stepwise[i]]);
    for (int i = 2; i < 4; i++) transpose(p, stepwise[i], 1, &r.arrays[stepwise[i]]);
    p->step = p->B;
    p->row = 1;
    CHECK(same_bits(p, first, &r));
    results_free(&r);
}

/* The same bits on every instruction set and with any number of threads. only_hash: compute the
 * hash alone, for slow machines. */
static void check_bits(const options *of, fl_dtype dtype, int masks, int only_hash) {
    problem p = problem_make(of, dtype, masks);
    results first = run(&p, fl_isa_name(0));
    for (int i = Y; i < ARRAYS; i++) {
        hash_bytes(first.arrays[i], p.bytes[i]);
        int finite = 1;
        for (size_t j = 0; j < p.bytes[i] / p.real; j++)
            finite = finite && isfinite(get(first.arrays[i], j, p.real));
        CHECK(finite);
    }
    const int most = fl_get_num_threads();
    for (int isa = 0; isa < fl_isa_count() && !only_hash; isa++) {
        for (int threads = 1; threads <= 3; threads += 2) {
            CHECK(fl_set_num_threads(threads) == FL_OK);
            results r = run(&p, fl_isa_name(isa));
            CHECK(same_bits(&p, &first, &r));
            results_free(&r);
            check_forward(&p, fl_isa_name(isa), &first);
        }
        check_streams(&p, fl_isa_name(isa));
    }
    fl_set_num_threads(most);
    if (!only_hash) {
        check_sequences(&p, &first);
        check_wanted(&p, &first);
        check_zeros(&p);
        check_strides(&p, &first);
    }
    results_free(&first);
    problem_free(&p);
}

static void test_bits(int only_hash) {
    for (size_t i = 0; i < COUNT(small); i++)
        for (int dtype = 0; dtype < 2; dtype++)
            check_bits(&small[i], dtype ? FL_FLOAT64 : FL_FLOAT32, small[i].masks, only_hash);
    for (size_t i = 0; i < COUNT(large); i++)
        check_bits(&large[i], FL_FLOAT32, large[i].masks, only_hash);
    for (size_t i = 0; i < COUNT(small); i++) /* expectations instead of masks */
        if (small[i].masks) check_bits(&small[i], FL_FLOAT32, 0, only_hash);
}

/* The scalar that is differentiated: the results times dy, dh_n and dc_n. */
static double scalar(const problem *p) {
    static const int times[] = {DY, DH_N, DC_N};
    fl_model *model = model_of(p, NULL);
    size_t bytes;
    char *tape = tape_of(p, model, &bytes);
    results r = {{NULL}};
    forward(p, model, 1, 1, &r, tape);
    double sum = 0;
    for (int i = 0; i < 3; i++)
        for (size_t j = 0; j < p->bytes[Y + i] / p->real; j++)
            sum += get(r.arrays[Y + i], j, p->real) * get(p->inputs[times[i]], j, p->real);
    results_free(&r);
    free(tape);
    fl_model_destroy(model);
    return sum;
}

/* The slope along `way` of one input, by central differences. */
static double slope(problem *p, int input, const double *way, double step) {
    const size_t count = p->bytes[input] / p->real;
    char *array = p->inputs[input], *moved = malloc(p->bytes[input]);
    double sums[2];
    p->inputs[input] = moved;
    for (int side = 0; side < 2; side++) {
        for (size_t j = 0; j < count; j++)
            set(moved, j, get(array, j, p->real) + (side ? step : -step) * way[j], p->real);
        sums[side] = scalar(p);
    }
    p->inputs[input] = array;
    free(moved);
    return (sums[1] - sums[0]) / (2 * step);
}

/* Along single numbers, and along random directions, which no gradient can be missing from. Where
 * two steps give two slopes there is a kink, of a clip or an activation, between; few are. */
static void check_gradients(const options *of, int masks) {
    static const int inputs[] = {X, H_0, C_0, PARAMETERS};
    enum { NUMBERS = 8, WAYS = 4 };
    problem p = problem_make(of, FL_FLOAT64, masks);
    results r = run(&p, NULL);
    int kinks = 0;
    for (int i = 0; i < 4; i++) {
        const size_t count = p.bytes[inputs[i]] / p.real;
        const char *gradient = r.arrays[DX + i];
        double *way = malloc(count * sizeof *way);
        for (int trial = 0; trial < NUMBERS + WAYS; trial++) {
            double expected = 0;
            for (size_t j = 0; j < count; j++) {
                way[j] = trial < NUMBERS ? j == (size_t)(trial * 7919) % count : random_real();
                expected += way[j] * get(gradient, j, p.real);
            }
            const double step = 1e-5, wide = slope(&p, inputs[i], way, step),
                         narrow = slope(&p, inputs[i], way, step / 4);
            if (fabs(wide - narrow) > 3e-7 * (1 + fabs(narrow))) kinks++;
            else CHECK(fabs(wide - expected) < 1e-6 * (1 + fabs(expected)));
        }
        free(way);
    }
    CHECK(kinks <= 4);
    results_free(&r);
    problem_free(&p);
}

static void test_gradients(void) {
    for (size_t i = 0; i < COUNT(small); i++) {
        check_gradients(&small[i], small[i].masks);
        if (small[i].masks) check_gradients(&small[i], 0);
    }
}

/* With an argument: only the hash. */
int main(int count, char **arguments) {
    (void)arguments;
    test_bits(count > 1);
    if (count == 1) test_gradients();
    printf("hash of all results: %016llx\n", (unsigned long long)results_hash);
    return checks_report();
}
