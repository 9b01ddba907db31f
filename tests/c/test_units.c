/* Tests of steps that threads share by units: those of variants and with masks, forward and back,
 * and of streams. The bits are those of one thread.
 *
 *     test_units [quick]
 *
 * quick: fewer cases. So with -fsanitize=thread: nox -s sanitizers.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "calls.h"
#include "check.h"
#include "fastlstm.h"
#include "processors.h"
#include "random.h"

enum { RECURRENT = 1, BETWEEN = 2, ZONEOUT = 4 }; /* masks */

/* Options of the cell, and the masks that come with them. */
static const struct {
    fl_config config;
    int masks;
} variants[] = {
    {{.has_peepholes = 1, .cell_clip = 0.9}, 0},
    {{.coupled_gates = 1, .gate_activation = FL_HARD_SIGMOID}, RECURRENT | BETWEEN},
    {{.proj_size = 65}, BETWEEN},
    {{.proj_size = 128, .has_peepholes = 1, .zoneout_h = 0.2}, RECURRENT | ZONEOUT},
    {{.zoneout_h = 0.3, .zoneout_c = 0.2}, 0},
    {{.zoneout_h = 0.3, .zoneout_c = 0.2}, RECURRENT | BETWEEN | ZONEOUT},
    {{.layer_norm = 1}, BETWEEN},
    {{.layer_norm = 1, .proj_size = 129, .coupled_gates = 1, .zoneout_c = 0.1},
     RECURRENT | ZONEOUT},
    {{0}, RECURRENT | BETWEEN}, /* the usual cell */
};

static char *random_reals(size_t count, size_t real) {
    char *values = malloc(count * real + 1);
    for (size_t j = 0; j < count; j++) {
        if (real == 8) ((double *)(void *)values)[j] = 0.4 * random_real();
        else ((float *)(void *)values)[j] = (float)(0.4 * random_real());
    }
    return values;
}

/* A call of fl_record and one of fl_backward. */
enum { Y, H_N, C_N, TAPE, DX, DH_0, DC_0, DPARAMETERS, RESULTS };
typedef struct problem {
    fl_config config;
    fl_model *model;
    ptrdiff_t T, B, P, *starts; /* starts NULL: all sequences have T steps */
    char *parameters, *x, *states, *masks, *dy;
    size_t real, bytes[RESULTS];
    fl_masks given;
} problem;

/* starts of sequences of which the last has a step, or no step. */
static ptrdiff_t *make_starts(ptrdiff_t T, ptrdiff_t B) {
    ptrdiff_t *starts = calloc((size_t)T + 1, sizeof *starts);
    for (ptrdiff_t t = 0; t < T; t++) starts[t + 1] = starts[t] + B - t * B / T;
    return starts;
}

static problem make_problem(fl_config config, int masks, const char *isa, ptrdiff_t T, ptrdiff_t B,
                            int ragged) {
    problem p = {.config = config, .T = T, .B = B, .real = config.dtype == FL_FLOAT64 ? 8 : 4};
    const ptrdiff_t H = config.hidden_size, D = config.num_directions, L = config.num_layers;
    const ptrdiff_t P = p.P = config.proj_size ? config.proj_size : H;
    size_t count = 0, bytes = 0;
    CHECK(fl_parameter_count(&config, &count) == FL_OK);
    p.parameters = random_reals(count, p.real);
    CHECK(fl_model_create(&config, isa, p.parameters, &p.model) == FL_OK);
    p.starts = ragged ? make_starts(T, B) : NULL;
    const ptrdiff_t rows = ragged ? p.starts[T] : T * B;
    CHECK(fl_tape_bytes(p.model, T, B, p.starts, &bytes) == FL_OK);
    p.x = random_reals((size_t)(rows * config.input_size), p.real);
    p.states = random_reals((size_t)(L * D * B * H) + 1, p.real); /* c_0 is one further than h_0 */
    p.dy = random_reals((size_t)(rows * D * P), p.real);
    p.masks = random_reals((size_t)(L * D * (rows + B) * H), p.real); /* any numbers will do */
    p.given.recurrent = masks & RECURRENT ? p.masks : NULL;
    p.given.between = masks & BETWEEN ? p.masks : NULL;
    p.given.zoneout_h = masks & ZONEOUT && config.zoneout_h > 0 ? p.masks : NULL;
    p.given.zoneout_c = masks & ZONEOUT && config.zoneout_c > 0 ? p.masks : NULL;
    p.bytes[Y] = (size_t)(rows * D * P) * p.real;
    p.bytes[DX] = (size_t)(rows * config.input_size) * p.real;
    p.bytes[H_N] = p.bytes[DH_0] = (size_t)(L * D * B * P) * p.real;
    p.bytes[C_N] = p.bytes[DC_0] = (size_t)(L * D * B * H) * p.real;
    p.bytes[TAPE] = bytes;
    p.bytes[DPARAMETERS] = count * p.real;
    return p;
}

static void free_problem(problem *p) {
    fl_model_destroy(p->model);
    free(p->starts);
    free(p->parameters);
    free(p->x);
    free(p->states);
    free(p->dy);
    free(p->masks);
}

static void run(const problem *p, char **r) {
    const ptrdiff_t I = p->config.input_size, out = p->config.num_directions * p->P;
    for (int i = 0; i < RESULTS; i++) {
        r[i] = malloc(p->bytes[i] + 1);
        memset(r[i], 0x5a, p->bytes[i]);
    }
    CHECK(RECORD(p->model, .T = p->T, .B = p->B, .starts = p->starts, .x = {p->x, p->B * I, I},
                 .h_0 = p->states, .c_0 = p->states + p->real, .masks = &p->given,
                 .y = {r[Y], p->B * out, out}, .h_n = r[H_N], .c_n = r[C_N],
                 .tape = r[TAPE]) == FL_OK);
    CHECK(BACKWARD(p->model, .parameters = p->parameters, .T = p->T, .B = p->B, .starts = p->starts,
                   .x = {p->x, p->B * I, I}, .h_0 = p->states, .c_0 = p->states + p->real,
                   .masks = &p->given, .tape = r[TAPE], .dy = {p->dy, p->B * out, out},
                   .dh_n = p->states, .dc_n = p->states, .dx = {r[DX], p->B * I, I},
                   .dh_0 = r[DH_0], .dc_0 = r[DC_0], .dparameters = r[DPARAMETERS]) == FL_OK);
}

static void free_results(char **r) {
    for (int i = 0; i < RESULTS; i++) free(r[i]);
}

/* The same bits with 1 to `most` threads. */
static void check_threads(const problem *p, int most) {
    char *expected[RESULTS], *got[RESULTS];
    CHECK(fl_set_num_threads(1) == FL_OK);
    run(p, expected);
    for (int threads = 2; threads <= most; threads++) {
        CHECK(fl_set_num_threads(threads) == FL_OK);
        run(p, got);
        for (int i = 0; i < RESULTS; i++) CHECK(memcmp(expected[i], got[i], p->bytes[i]) == 0);
        free_results(got);
    }
    free_results(expected);
}

/* H around panels of 64 columns; all but the first large enough for threads to share its steps,
 * whatever the variant. */
static void test_variants(int quick) {
    static const ptrdiff_t sizes[] = {130, 191, 193, 256, 319, 321};
    size_t next = 0;
    for (size_t v = 0; v < sizeof variants / sizeof *variants; v++)
        for (ptrdiff_t D = 1; D <= 2; D++)
            for (ptrdiff_t L = 1; L <= 2; L++)
                for (ptrdiff_t B = 1; B <= 3; B++) {
                    if (quick && B + D + L > 4) continue;
                    const ptrdiff_t H = quick ? 330 : sizes[next++ % 6];
                    fl_config config = variants[v].config;
                    config.size = sizeof config;
                    config.input_size = 9;
                    config.hidden_size = H;
                    config.num_layers = L;
                    config.num_directions = D;
                    config.has_bias = 1;
                    config.dtype = next % 5 == 4 ? FL_FLOAT64 : FL_FLOAT32;
                    const ptrdiff_t T = quick ? 16 : 8000000 / (4 * H * H) + 1;
                    const int isas = B + D + L == 3 && !quick ? fl_isa_count() : 1;
                    for (int isa = 0; isa < isas; isa++) {
                        problem p =
                            make_problem(config, variants[v].masks, fl_isa_name(isa), T, B, B == 3);
                        check_threads(&p, quick ? 2 : 3);
                        free_problem(&p);
                    }
                }
}

/* Steps and pushes of a stream of B sequences; T of them, the bits of fl_forward. */
static void check_stream(const problem *p, const char *y, const char *h_n, const char *c_n) {
    const ptrdiff_t I = p->config.input_size, x_step = p->B * I, y_step = p->B * p->P;
    const size_t real = p->real;
    char *got = calloc(p->bytes[Y], 1), *h = malloc(p->bytes[H_N]), *c = malloc(p->bytes[C_N]);
    fl_stream *stream = NULL;
    CHECK(fl_stream_create(p->model, p->B, &stream) == FL_OK);
    fl_stream_set_state(stream, p->states, p->states + real);
    for (ptrdiff_t t = 0, n; t < p->T; t += n) { /* steps, and pushes among them */
        const char *x = p->x + (size_t)(t * x_step) * real;
        char *y_t = got + (size_t)(t * y_step) * real;
        n = t % 12 == 0 ? 3 : 1;
        if (n > p->T - t) n = p->T - t;
        if (n == 1) fl_stream_step(stream, x, y_t);
        else CHECK(PUSH(stream, .T = n, .x = {x, x_step, I}, .y = {y_t, y_step, p->P}) == FL_OK);
    }
    fl_stream_get_state(stream, h, c);
    CHECK(memcmp(got, y, p->bytes[Y]) == 0);
    CHECK(memcmp(h, h_n, p->bytes[H_N]) == 0 && memcmp(c, c_n, p->bytes[C_N]) == 0);
    fl_stream_destroy(stream);
    free(got);
    free(h);
    free(c);
}

typedef struct stepper {
    const problem *p;
    char **expected;
} stepper;

static void *step_often(void *context) {
    const stepper *s = context;
    for (int i = 0; i < 3; i++)
        check_stream(s->p, s->expected[Y], s->expected[H_N], s->expected[C_N]);
    return NULL;
}

/* Streams by one thread after another, then by several at once, and in a forked child. */
static void test_streams(int quick) {
    /* I, H, L, B, projection: one below and above what is worth a second thread, with a narrow
     * panel, with whole rows, with many sequences, too large for a core's cache. */
    static const ptrdiff_t shapes[][5] = {
        {16, 16, 2, 1, 0},    {70, 193, 2, 1, 0}, {256, 256, 1, 1, 0}, {9, 257, 2, 3, 0},
        {40, 500, 1, 1, 129}, {33, 130, 1, 9, 0}, {512, 513, 1, 1, 0},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const ptrdiff_t *s = shapes[i];
        const fl_config config =
            CONFIG(s[0], s[1], s[2], 1, 1, i % 2 ? FL_FLOAT32 : FL_FLOAT64, .proj_size = s[4]);
        problem p = make_problem(config, 0, NULL, quick ? 20 : 60, s[3], 0);
        stepper s_of = {&p, (char *[RESULTS]){NULL}};
        CHECK(fl_set_num_threads(1) == FL_OK);
        run(&p, s_of.expected);
        for (int threads = 1; threads <= (quick ? 2 : 3); threads++) {
            CHECK(fl_set_num_threads(threads) == FL_OK);
            step_often(&s_of);
        }
        pthread_t others[3];
        for (int t = 0; t < 3; t++) CHECK(pthread_create(&others[t], NULL, step_often, &s_of) == 0);
        for (int t = 0; t < 3; t++) CHECK(pthread_join(others[t], NULL) == 0);
        const pid_t child = fork();
        if (child == 0) {
            alarm(60); /* a child that hangs is a failure */
            const long failed = checks_failed;
            step_often(&s_of);
            _exit(checks_failed != failed);
        }
        int status = -1;
        CHECK(child > 0 && waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        free_results(s_of.expected);
        free_problem(&p);
    }
}

int main(int count, char **arguments) {
    const int quick = count > 1 && strcmp(arguments[1], "quick") == 0;
    processors = quick ? 0 : 3;
    test_variants(quick);
    test_streams(quick);
    return checks_report();
}
