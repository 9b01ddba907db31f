/* Everything at once: many threads run shared models forward and backward, feed streams, make and
 * free models, change the limit of threads and fork, all compared with the bits of one thread.
 *
 *     stress [SECONDS [PROCESSORS]]
 *
 * Ends after SECONDS (2), and claims to have PROCESSORS (5), so that barriers have as many threads
 * on any machine. Built with -fsanitize=thread as well (nox -s sanitizers); it can't follow a fork.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "calls.h"
#include "check.h"
#include "fastlstm.h"
#include "processors.h"
#include "random.h"

#define COUNT(array) ((ptrdiff_t)(sizeof(array) / sizeof(array)[0]))
enum { CALLERS = 6 };

/* One shape of call; work enough for several threads, and how they share it. */
typedef struct shape {
    ptrdiff_t T, B;
    fl_config config; /* I, H, L, D, bias, dtype */
    int ragged;
} shape;

static const shape shapes[] = {
    /* rows */
    {40, 23, CONFIG(9, 67, 1, 1, 1, FL_FLOAT32), 0},
    {15, 20, CONFIG(9, 37, 2, 1, 1, FL_FLOAT64), 1},
    /* units */
    {50, 1, CONFIG(70, 129, 2, 1, 1, FL_FLOAT32), 0},
    {30, 2, CONFIG(33, 128, 1, 1, 0, FL_FLOAT64), 0},
    /* directions, then with units, and rows of two directions */
    {60, 1, CONFIG(40, 45, 3, 2, 1, FL_FLOAT32), 0},
    {40, 3, CONFIG(5, 131, 2, 2, 1, FL_FLOAT32), 1},
    {12, 21, CONFIG(7, 33, 2, 2, 1, FL_FLOAT32), 1},
    /* variants, of general cells and of whole rows */
    {20, 9, CONFIG(11, 40, 2, 1, 1, FL_FLOAT32, .has_peepholes = 1, .clip = 2, .cell_clip = 1), 0},
    {20, 2, CONFIG(11, 40, 2, 2, 1, FL_FLOAT64, .proj_size = 24, .layer_norm = 1), 0},
    {30, 1, CONFIG(60, 96, 1, 1, 1, FL_FLOAT32, .coupled_gates = 1, .zoneout_c = 0.1, .reverse = 1),
     0},
    /* too small to be shared */
    {9, 2, CONFIG(3, 5, 2, 1, 1, FL_FLOAT32), 0},
};

/* All that a recorded call and its backpropagation write. */
enum { Y, H_N, C_N, TAPE, DX, DH_0, DC_0, DPARAMETERS, RESULTS };
typedef struct results {
    char *data[RESULTS];
} results;

typedef struct problem {
    const shape *shape;
    ptrdiff_t *starts; /* NULL unless ragged */
    fl_model *model;
    size_t real, bytes[RESULTS];
    ptrdiff_t P;
    char *parameters, *x, *h_0, *c_0, *dy, *dh_n, *dc_n;
    results expected; /* of one thread */
} problem;

static problem problems[COUNT(shapes)];

static char *reals(size_t bytes, double scale, fl_dtype dtype) {
    char *values = malloc(bytes + 1);
    for (size_t j = 0; dtype == FL_FLOAT32 && j < bytes / sizeof(float); j++)
        ((float *)(void *)values)[j] = (float)(scale * random_real());
    for (size_t j = 0; dtype == FL_FLOAT64 && j < bytes / sizeof(double); j++)
        ((double *)(void *)values)[j] = scale * random_real();
    return values;
}

static results results_new(const problem *p) {
    results r;
    for (int i = 0; i < RESULTS; i++) {
        r.data[i] = malloc(p->bytes[i] + 1);
        memset(r.data[i], 0x5a, p->bytes[i]);
    }
    return r;
}

static void results_free(results *r) {
    for (int i = 0; i < RESULTS; i++) free(r->data[i]);
}

/* Whether results first..last are those expected, to the bit. */
static int right(const problem *p, const results *r, int first, int last) {
    for (int i = first; i <= last; i++)
        if (memcmp(p->expected.data[i], r->data[i], p->bytes[i]) != 0) return 0;
    return 1;
}

/* fl_record or fl_forward of the whole problem. */
static int run_forward(const problem *p, const fl_model *model, results *r, int recording) {
    const ptrdiff_t B = p->shape->B, I = p->shape->config.input_size;
    const ptrdiff_t width = p->P * p->shape->config.num_directions;
    char **out = r->data;
    const fl_status status =
        recording
            ? RECORD(model, .T = p->shape->T, .B = B, .starts = p->starts, .x = {p->x, B * I, I},
                     .h_0 = p->h_0, .c_0 = p->c_0, .y = {out[Y], B * width, width}, .h_n = out[H_N],
                     .c_n = out[C_N], .tape = out[TAPE])
            : FORWARD(model, .T = p->shape->T, .B = B, .starts = p->starts, .x = {p->x, B * I, I},
                      .h_0 = p->h_0, .c_0 = p->c_0, .y = {out[Y], B * width, width},
                      .h_n = out[H_N], .c_n = out[C_N]);
    return status == FL_OK;
}

static int run_backward(const problem *p, results *r) {
    const ptrdiff_t B = p->shape->B, I = p->shape->config.input_size;
    const ptrdiff_t width = p->P * p->shape->config.num_directions;
    char **out = r->data;
    return BACKWARD(p->model, .parameters = p->parameters, .T = p->shape->T, .B = B,
                    .starts = p->starts, .x = {p->x, B * I, I}, .h_0 = p->h_0, .c_0 = p->c_0,
                    .tape = out[TAPE], .dy = {p->dy, B * width, width}, .dh_n = p->dh_n,
                    .dc_n = p->dc_n, .dx = {out[DX], B * I, I}, .dh_0 = out[DH_0],
                    .dc_0 = out[DC_0], .dparameters = out[DPARAMETERS]) == FL_OK;
}

static void problem_new(const shape *shape, problem *p) {
    const fl_config *config = &shape->config;
    const ptrdiff_t T = shape->T, B = shape->B, LD = config->num_layers * config->num_directions;
    *p = (problem){.shape = shape, .real = config->dtype == FL_FLOAT64 ? 8 : 4};
    p->P = config->proj_size ? config->proj_size : config->hidden_size;
    ptrdiff_t rows = T * B;
    if (shape->ragged) { /* every sequence a step shorter than the one before, the last ones 1 */
        p->starts = calloc((size_t)T + 1, sizeof *p->starts);
        for (ptrdiff_t t = 0; t < T; t++)
            p->starts[t + 1] = p->starts[t] + (t == 0 || T - t > B ? B : T - t);
        rows = p->starts[T];
    }
    size_t count = 0;
    CHECK(fl_parameter_count(config, &count) == FL_OK);
    p->bytes[DX] = (size_t)(rows * config->input_size) * p->real;
    p->bytes[Y] = (size_t)(rows * config->num_directions * p->P) * p->real;
    p->bytes[H_N] = p->bytes[DH_0] = (size_t)(LD * B * p->P) * p->real;
    p->bytes[C_N] = p->bytes[DC_0] = (size_t)(LD * B * config->hidden_size) * p->real;
    p->bytes[DPARAMETERS] = count * p->real;
    p->parameters = reals(count * p->real, 0.3, config->dtype);
    p->x = reals(p->bytes[DX], 1, config->dtype);
    p->dy = reals(p->bytes[Y], 1, config->dtype);
    p->h_0 = reals(p->bytes[H_N], 0.5, config->dtype);
    p->c_0 = reals(p->bytes[C_N], 0.9, config->dtype);
    p->dh_n = reals(p->bytes[H_N], 1, config->dtype);
    p->dc_n = reals(p->bytes[C_N], 1, config->dtype);
    CHECK(fl_model_create(config, NULL, p->parameters, &p->model) == FL_OK);
    CHECK(fl_tape_bytes(p->model, T, B, p->starts, &p->bytes[TAPE]) == FL_OK);
    p->expected = results_new(p);
    CHECK(run_forward(p, p->model, &p->expected, 1) && run_backward(p, &p->expected));
}

static void problem_free(problem *p) {
    char *arrays[] = {p->parameters, p->x, p->h_0, p->c_0, p->dy, p->dh_n, p->dc_n};
    for (ptrdiff_t i = 0; i < COUNT(arrays); i++) free(arrays[i]);
    free(p->starts);
    fl_model_destroy(p->model);
    results_free(&p->expected);
}

/* xorshift64*, one for each thread. */
static unsigned choose(uint64_t *random, unsigned count) {
    *random ^= *random >> 12;
    *random ^= *random << 25;
    *random ^= *random >> 27;
    return (unsigned)((*random * 2685821657736338717u) >> 33) % count;
}

/* A stream of the shared model, by steps and by pushes of chance lengths. */
static int stream_is_right(const problem *p, results *r, uint64_t *random) {
    const ptrdiff_t T = p->shape->T, B = p->shape->B, I = p->shape->config.input_size, P = p->P;
    fl_stream *stream = NULL;
    if (fl_stream_create(p->model, B, &stream) != FL_OK) return 0;
    fl_stream_set_state(stream, p->h_0, p->c_0);
    int good = 1;
    for (ptrdiff_t t = 0, n; t < T; t += n) {
        const char *x = p->x + (size_t)(t * B * I) * p->real;
        char *y = r->data[Y] + (size_t)(t * B * P) * p->real;
        n = (ptrdiff_t)choose(random, 5);
        if (n > T - t) n = T - t;
        if (n == 0) {
            fl_stream_step(stream, x, y);
            n = 1;
        } else if (PUSH(stream, .T = n, .x = {x, B * I, I}, .y = {y, B * P, P}) != FL_OK) {
            good = 0;
        }
    }
    fl_stream_get_state(stream, r->data[H_N], r->data[C_N]);
    fl_stream_destroy(stream);
    return good && right(p, r, Y, C_N);
}

static int new_model_is_right(const problem *p, results *r) {
    fl_model *model = NULL;
    if (fl_model_create(&p->shape->config, NULL, p->parameters, &model) != FL_OK) return 0;
    const int good = run_forward(p, model, r, 0) && right(p, r, Y, C_N);
    fl_model_destroy(model);
    return good;
}

/* A child of a process whose other threads are in the middle of calls. */
static int child_is_right(const problem *p, results *r) {
    const pid_t child = fork();
    if (child == 0) {
        alarm(120); /* a child that hangs is a failure */
        _exit(run_forward(p, p->model, r, 1) && run_backward(p, r) && right(p, r, Y, RESULTS - 1)
                  ? 0
                  : 1);
    }
    int status = -1;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
           WEXITSTATUS(status) == 0;
}

enum { FORWARD, TRAIN, STREAM, BUILD, LIMIT, FORK, KINDS };
static const char *const kinds[] = {"forward", "train", "stream", "build", "limit", "fork"};
/* Of 100 calls of a thread, how many are of each kind. */
#if defined(__SANITIZE_THREAD__)
static const unsigned shares[] = {36, 20, 20, 16, 8, 0};
#else
static const unsigned shares[] = {35, 20, 20, 16, 8, 1};
#endif
static _Atomic long made[KINDS];
static double round_end;

static double now(void) {
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *call_often(void *seed) {
    uint64_t random = 88172645463325252u + 0x9e3779b97f4a7c15u * (uint64_t)(uintptr_t)seed;
    for (int i = 0; i < 8; i++) choose(&random, 2);
    while (now() < round_end) {
        int kind = 0;
        for (unsigned at = choose(&random, 100); at >= shares[kind]; kind++) at -= shares[kind];
        const problem *p = &problems[choose(&random, (unsigned)COUNT(shapes))];
        const fl_config *config = &p->shape->config;
        if (kind == STREAM && (config->num_directions == 2 || config->reverse || p->starts))
            kind = FORWARD;
        results r = results_new(p);
        int good = 0;
        switch (kind) {
            case FORWARD: good = run_forward(p, p->model, &r, 0) && right(p, &r, Y, C_N); break;
            case TRAIN:
                good = run_forward(p, p->model, &r, 1) && run_backward(p, &r) &&
                       right(p, &r, Y, RESULTS - 1);
                break;
            case STREAM: good = stream_is_right(p, &r, &random); break;
            case BUILD: good = new_model_is_right(p, &r); break;
            case LIMIT:
                good = fl_set_num_threads(1 + (int)choose(&random, (unsigned)processors)) == FL_OK;
                break;
            default: good = child_is_right(p, &r);
        }
        CHECK(good);
        if (!good)
            fprintf(stderr, "%s of shape %td, %d threads\n", kinds[kind], p->shape - shapes,
                    fl_get_num_threads());
        made[kind]++;
        results_free(&r);
    }
    return NULL;
}

int main(int count, char **arguments) {
    const long seconds = count > 1 ? atol(arguments[1]) : 2;
    processors = count > 2 ? atoi(arguments[2]) : 5;
    if (seconds < 1 || processors < 1 || processors > 64) {
        fprintf(stderr, "usage: %s [SECONDS [PROCESSORS]]\n", arguments[0]);
        return 2;
    }
    CHECK(fl_set_num_threads(1) == FL_OK);
    for (ptrdiff_t i = 0; i < COUNT(shapes); i++) problem_new(&shapes[i], &problems[i]);
    CHECK(fl_set_num_threads(processors) == FL_OK);
    const double end = now() + (double)seconds;
    uintptr_t born = 0;
    /* Rounds, in each of which all callers are new threads: the pool outlives those it served. */
    while (now() < end) {
        round_end = now() + 0.5;
        pthread_t callers[CALLERS];
        for (int i = 0; i < CALLERS; i++)
            CHECK(pthread_create(&callers[i], NULL, call_often, (void *)++born) == 0);
        for (int i = 0; i < CALLERS; i++) CHECK(pthread_join(callers[i], NULL) == 0);
    }
    for (ptrdiff_t i = 0; i < COUNT(shapes); i++) problem_free(&problems[i]);
    printf("%s, %ld s, %lu threads, limit up to %d:", fl_isa_default(), seconds,
           (unsigned long)born, processors);
    for (int kind = 0; kind < KINDS; kind++) printf(" %ld %s", made[kind], kinds[kind]);
    printf("\n");
    return checks_report();
}
