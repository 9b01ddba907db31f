/* Every allocation fails once in turn, the way SQLite is tested: the call says so, has written
 * nothing and kept nothing, and the same call with memory gives the bits it always gives.
 *
 * Linked with -Wl,--wrap=malloc,--wrap=calloc,--wrap=free,--wrap=pthread_create, so that the
 * library itself needs no hooks.
 *
 *     test_faults [quick]
 *
 * quick: on the first instruction set alone, for sanitizers.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "check.h"
#include "fastlstm.h"
#include "processors.h"
#include "quantized.h"
#include "random.h"

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void __real_free(void *block);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *),
                          void *context);

/* Allocations to go until one fails, 0 for never; whether it did; blocks not yet freed. */
static struct {
    long left, failed, live, injected;
    int threads_fail;
} faults;

static int is_next(void) {
    if (faults.left == 0 || --faults.left > 0) return 0;
    faults.failed = 1;
    faults.injected++;
    return 1;
}

void *__wrap_malloc(size_t bytes) {
    void *block = is_next() ? NULL : __real_malloc(bytes);
    faults.live += block != NULL;
    return block;
}

void *__wrap_calloc(size_t count, size_t bytes) {
    void *block = is_next() ? NULL : __real_calloc(count, bytes);
    faults.live += block != NULL;
    return block;
}

void __wrap_free(void *block) {
    faults.live -= block != NULL;
    __real_free(block);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *),
                          void *context) {
    if (!faults.threads_fail) return __real_pthread_create(thread, how, run, context);
    faults.injected++;
    return 11; /* EAGAIN */
}

/* A call with its arrays: doubles throughout, of which float32 uses the first half. */
enum { X, Y, H_N, C_N, TAPE, DX, DH_0, DC_0, DPARAMETERS, ARRAYS };
typedef struct problem {
    fl_config config;
    ptrdiff_t T, B;
    const ptrdiff_t *starts;
    fl_model *model;
    fl_quantized_layer *layers; /* with config.bits */
    double *parameters, *states, *arrays[ARRAYS];
    size_t bytes[ARRAYS];
} problem;

static double *numbers(size_t count, fl_dtype dtype) {
    double *values = __real_calloc(count + 1, sizeof *values);
    for (size_t j = 0; j < count; j++) {
        if (dtype == FL_FLOAT64) values[j] = random_real();
        else ((float *)values)[j] = (float)random_real();
    }
    return values;
}

static problem make_problem(fl_config config, ptrdiff_t T, ptrdiff_t B, const ptrdiff_t *starts,
                            const char *isa) {
    problem p = {.config = config, .T = T, .B = B, .starts = starts};
    const size_t rows = (size_t)(starts ? starts[T] : T * B);
    const size_t LD = (size_t)(config.num_layers * config.num_directions);
    const size_t P = (size_t)(config.proj_size ? config.proj_size : config.hidden_size);
    const size_t states = LD * (size_t)B * (size_t)config.hidden_size;
    size_t count = 0, tape = 0;
    config.bits = 0;
    CHECK(fl_parameter_count(&config, &count) == FL_OK);
    p.parameters = numbers(count, config.dtype);
    p.states = numbers(states, config.dtype);
    if (p.config.bits) {
        p.layers = quantized_layers(&p.config, (const float *)p.parameters, B == 2);
        CHECK(fl_model_create_quantized(&p.config, isa, p.layers, &p.model) == FL_OK);
    } else {
        CHECK(fl_model_create(&config, isa, p.parameters, &p.model) == FL_OK);
        CHECK(fl_tape_bytes(p.model, T, B, starts, &tape) == FL_OK);
    }
    const size_t real = config.dtype == FL_FLOAT64 ? 8 : 4;
    const size_t counts[ARRAYS] = {rows * (size_t)config.input_size,
                                   rows * P * (size_t)config.num_directions,
                                   LD * (size_t)B * P,
                                   states,
                                   tape / real,
                                   rows * (size_t)config.input_size,
                                   LD * (size_t)B * P,
                                   states,
                                   count};
    for (int i = 0; i < ARRAYS; i++) {
        p.arrays[i] = numbers(counts[i], config.dtype);
        p.bytes[i] = counts[i] * real;
    }
    return p;
}

static void free_problem(problem *p) {
    fl_model_destroy(p->model);
    if (p->layers) free_quantized_layers(&p->config, p->layers);
    __real_free(p->parameters);
    __real_free(p->states);
    for (int i = 0; i < ARRAYS; i++) __real_free(p->arrays[i]);
}

static fl_status create(problem *p) {
    fl_model *model = NULL;
    const char *isa = fl_model_isa(p->model);
    const fl_status status = p->layers
                                 ? fl_model_create_quantized(&p->config, isa, p->layers, &model)
                                 : fl_model_create(&p->config, isa, p->parameters, &model);
    CHECK((status == FL_OK) == (model != NULL));
    fl_model_destroy(model);
    return status;
}

static ptrdiff_t row_of(const problem *p) {
    const ptrdiff_t P = p->config.proj_size ? p->config.proj_size : p->config.hidden_size;
    return P * p->config.num_directions;
}

static fl_status forward(problem *p) {
    const ptrdiff_t I = p->config.input_size, row = row_of(p);
    return FORWARD(p->model, .T = p->T, .B = p->B, .starts = p->starts,
                   .x = {p->arrays[X], p->B * I, I}, .h_0 = p->states, .c_0 = p->states,
                   .y = {p->arrays[Y], p->B * row, row}, .h_n = p->arrays[H_N],
                   .c_n = p->arrays[C_N]);
}

/* The same of sequences of different lengths, where there is room for the longest. */
static fl_status forward_lengths(problem *p) {
    const ptrdiff_t I = p->config.input_size, row = row_of(p);
    ptrdiff_t lengths[16];
    for (ptrdiff_t b = 0; b < p->B; b++) lengths[b] = (5 * b + 3) % (p->T + 1);
    return FORWARD(p->model, .T = p->T, .B = p->B, .lengths = lengths,
                   .x = {p->arrays[X], p->B * I, I}, .h_0 = p->states, .c_0 = p->states,
                   .y = {p->arrays[Y], p->B * row, row}, .h_n = p->arrays[H_N],
                   .c_n = p->arrays[C_N]);
}

static fl_status record(problem *p) {
    const ptrdiff_t I = p->config.input_size, row = row_of(p);
    return RECORD(p->model, .T = p->T, .B = p->B, .starts = p->starts,
                  .x = {p->arrays[X], p->B * I, I}, .h_0 = p->states, .c_0 = p->states,
                  .y = {p->arrays[Y], p->B * row, row}, .h_n = p->arrays[H_N],
                  .c_n = p->arrays[C_N], .tape = p->arrays[TAPE]);
}

/* After record(). Adds to what is there, so that a half-done call shows. */
static fl_status backward(problem *p) {
    const ptrdiff_t I = p->config.input_size, row = row_of(p);
    return BACKWARD(
        p->model, .parameters = p->parameters, .T = p->T, .B = p->B, .starts = p->starts,
        .x = {p->arrays[X], p->B * I, I}, .h_0 = p->states, .c_0 = p->states,
        .tape = p->arrays[TAPE], .dy = {p->arrays[Y], p->B * row, row}, .dh_n = p->arrays[H_N],
        .dc_n = p->arrays[C_N], .accumulate = 1, .dx = {p->arrays[DX], p->B * I, I},
        .dh_0 = p->arrays[DH_0], .dc_0 = p->arrays[DC_0], .dparameters = p->arrays[DPARAMETERS]);
}

static fl_status stream(problem *p) {
    fl_stream *made = NULL;
    const fl_status status = fl_stream_create(p->model, p->B, &made);
    CHECK((status == FL_OK) == (made != NULL));
    fl_stream_destroy(made);
    return status;
}

/* A copy of all arrays, to be freed, or those of a copy put back. */
static char *copy_of(const problem *p) {
    size_t total = 1;
    for (int i = 0; i < ARRAYS; i++) total += p->bytes[i];
    char *copy = __real_malloc(total), *at = copy;
    for (int i = 0; i < ARRAYS; at += p->bytes[i++]) memcpy(at, p->arrays[i], p->bytes[i]);
    return copy;
}

static void put_back(problem *p, const char *copy) {
    for (int i = 0; i < ARRAYS; copy += p->bytes[i++]) memcpy(p->arrays[i], copy, p->bytes[i]);
}

static int is_same(const problem *p, const char *copy) {
    for (int i = 0; i < ARRAYS; copy += p->bytes[i++])
        if (memcmp(copy, p->arrays[i], p->bytes[i]) != 0) return 0;
    return 1;
}

/* A call with each of its allocations failing in turn, until there are no more. */
static void fail_each(problem *p, fl_status (*call)(problem *)) {
    char *before = copy_of(p);
    const long live = faults.live, injected = faults.injected;
    CHECK(call(p) == FL_OK);
    char *after = copy_of(p);
    for (long n = 1;; n++) {
        put_back(p, before);
        faults.failed = 0;
        faults.left = n;
        const fl_status status = call(p);
        faults.left = 0;
        CHECK(faults.live == live);
        if (!faults.failed) {
            CHECK(status == FL_OK && is_same(p, after));
            break;
        }
        CHECK(status == FL_ERROR_MEMORY && is_same(p, before));
        CHECK(call(p) == FL_OK && is_same(p, after));
    }
    CHECK(faults.injected > injected); /* each of these calls allocates */
    __real_free(before);
    __real_free(after);
}

static void test_memory(const char *isa, fl_dtype dtype) {
    static const ptrdiff_t starts[] = {0, 6, 11, 15, 17, 18};
    const struct {
        fl_config config;
        ptrdiff_t T, B;
        const ptrdiff_t *starts;
    } cases[] = {
        {CONFIG(3, 5, 1, 1, 1, dtype), 4, 2, NULL},
        {CONFIG(7, 33, 3, 2, 0, dtype), 5, 3, NULL},
        {CONFIG(7, 20, 2, 2, 1, dtype), 5, 6, starts},
        {CONFIG(4, 17, 2, 1, 1, dtype, .proj_size = 6, .has_peepholes = 1, .layer_norm = 1), 3, 2,
         NULL},
        {CONFIG(3, 9, 2, 1, 1, dtype, .coupled_gates = 1, .zoneout_h = 0.5, .reverse = 1), 4, 3,
         NULL},
        {CONFIG(40, 65, 1, 1, 1, dtype), 60, 16, NULL}, /* rows */
        {CONFIG(70, 129, 2, 1, 1, dtype), 30, 1, NULL}, /* units */
        {CONFIG(30, 131, 1, 2, 1, dtype), 30, 3, NULL}, /* directions */
        {CONFIG(5, 20, 2, 2, 1, dtype, .proj_size = 6, .bits = 8), 5, 6, starts},
        {CONFIG(4, 17, 2, 1, 1, dtype, .has_peepholes = 1, .layer_norm = 1, .bits = 16), 3, 2,
         NULL},
        {CONFIG(70, 129, 2, 1, 1, dtype, .bits = 24), 30, 1, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (cases[i].config.bits && dtype == FL_FLOAT64) continue;
        problem p = make_problem(cases[i].config, cases[i].T, cases[i].B, cases[i].starts, isa);
        fail_each(&p, create);
        fail_each(&p, forward);
        if (p.starts == NULL) fail_each(&p, forward_lengths);
        if (p.layers == NULL) {
            fail_each(&p, record);
            CHECK(record(&p) == FL_OK);
            fail_each(&p, backward);
        }
        if (p.config.num_directions == 1 && !p.config.reverse) fail_each(&p, stream);
        free_problem(&p);
    }
}

/* Where no thread can be made, calls run on their own, with the same bits. Large ones did ask for
 * one, unless there is one processor alone, and small ones never. */
static void test_no_threads(fl_config config, ptrdiff_t T, ptrdiff_t B, int is_large) {
    const int most = fl_get_num_threads();
    const long wanted = is_large && most > 1;
    problem p = make_problem(config, T, B, NULL, NULL);
    char *before = copy_of(&p);
    CHECK(fl_set_num_threads(1) == FL_OK);
    CHECK(record(&p) == FL_OK && backward(&p) == FL_OK);
    char *after = copy_of(&p);
    CHECK(fl_set_num_threads(4) == FL_OK);
    for (faults.threads_fail = 1; faults.threads_fail >= 0; faults.threads_fail--) {
        put_back(&p, before);
        const long injected = faults.injected;
        CHECK(record(&p) == FL_OK);
        const long by_record = faults.injected - injected;
        CHECK(backward(&p) == FL_OK);
        const long by_backward = faults.injected - injected - by_record;
        CHECK(is_same(&p, after));
        if (faults.threads_fail) CHECK(by_record == wanted && by_backward == wanted);
    }
    faults.threads_fail = 0;
    CHECK(fl_set_num_threads(most) == FL_OK);
    __real_free(before);
    __real_free(after);
    free_problem(&p);
}

int main(int count, char **arguments) {
    const int quick = count > 1 && strcmp(arguments[1], "quick") == 0;
    processors = 5;
    /* First: a pool that has its threads makes no more. */
    test_no_threads((fl_config)CONFIG(7, 33, 2, 2, 1, FL_FLOAT32), 5, 3, 0);
    test_no_threads((fl_config)CONFIG(70, 129, 1, 2, 1, FL_FLOAT32), 60, 8, 1);
    for (int i = 0; i < (quick ? 1 : fl_isa_count()); i++)
        for (int dtype = FL_FLOAT32; dtype <= FL_FLOAT64; dtype++)
            for (int threads = 1; threads <= 3; threads += 2) {
                CHECK(fl_set_num_threads(threads) == FL_OK);
                test_memory(fl_isa_name(i), (fl_dtype)dtype);
            }
    CHECK(faults.live == 0);
    printf("%ld faults injected\n", faults.injected);
    return checks_report();
}
