/* Tests of threads: bits equal those of one thread, many callers at once, a forked child, threads
 * that lose their processors.
 *
 *     test_threads [quick]
 *
 * quick: calls are given up on two threads alone, and none is long. So with -fsanitize=thread:
 * nox -s sanitizers.
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
#include "threads.h"

static int quick;

typedef struct problem {
    fl_model *model;
    ptrdiff_t T, B, I, width;
    float *x, *state;
    size_t y_count, state_count;
} problem;

typedef struct result {
    float *y, *h_n, *c_n;
} result;

static float *numbers(size_t count, unsigned seed) {
    float *values = malloc((count + 1) * sizeof *values);
    for (size_t j = 0; j < count; j++) {
        seed = seed * 1664525u + 1013904223u;
        values[j] = (float)(seed >> 8) / (float)(1 << 24) - 0.5f;
    }
    return values;
}

static problem make_problem_of(fl_config config, ptrdiff_t T, ptrdiff_t B) {
    const ptrdiff_t I = config.input_size, H = config.hidden_size;
    const ptrdiff_t L = config.num_layers, D = config.num_directions;
    size_t count = 0;
    CHECK(fl_parameter_count(&config, &count) == FL_OK);
    problem p = {.T = T, .B = B, .I = I, .width = D * H};
    p.y_count = (size_t)(T * B * D * H);
    p.state_count = (size_t)(L * D * B * H);
    float *parameters = numbers(count, 1);
    CHECK(fl_model_create(&config, NULL, parameters, &p.model) == FL_OK);
    free(parameters);
    p.x = numbers((size_t)(T * B * I), 2);
    p.state = numbers(p.state_count + 1, 3); /* h_0 from here, c_0 from one further */
    return p;
}

static problem make_problem(ptrdiff_t T, ptrdiff_t B, ptrdiff_t I, ptrdiff_t H, ptrdiff_t L,
                            ptrdiff_t D) {
    const fl_config config = CONFIG(I, H, L, D, 1, FL_FLOAT32);
    return make_problem_of(config, T, B);
}

static void free_problem(problem *p) {
    fl_model_destroy(p->model);
    free(p->x);
    free(p->state);
}

static result run(const problem *p) {
    result r = {numbers(p->y_count, 4), numbers(p->state_count, 5), numbers(p->state_count, 6)};
    CHECK(FORWARD(p->model, .T = p->T, .B = p->B, .x = {p->x, p->B * p->I, p->I}, .h_0 = p->state,
                  .c_0 = p->state + 1, .y = {r.y, p->B * p->width, p->width}, .h_n = r.h_n,
                  .c_n = r.c_n) == FL_OK);
    return r;
}

static int same(const problem *p, const result *a, const result *b) {
    return memcmp(a->y, b->y, p->y_count * sizeof(float)) == 0 &&
           memcmp(a->h_n, b->h_n, p->state_count * sizeof(float)) == 0 &&
           memcmp(a->c_n, b->c_n, p->state_count * sizeof(float)) == 0;
}

static void free_result(result *r) {
    free(r->y);
    free(r->h_n);
    free(r->c_n);
}

static void test_bits(void) {
    static const ptrdiff_t shapes[][6] = {
        /* T, B, I, H, L, D: rows, units, directions, directions and units, blocks of rows */
        {200, 16, 9, 67, 1, 1}, {200, 1, 70, 129, 2, 1}, {200, 1, 70, 65, 3, 2},
        {150, 3, 5, 131, 2, 2}, {300, 2, 33, 128, 1, 1}, {40, 101, 7, 61, 2, 1},
        {25, 97, 3, 45, 2, 2},  {3000, 5, 16, 16, 1, 1}, {7, 1, 40, 512, 2, 1},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const ptrdiff_t *s = shapes[i];
        problem p = make_problem(s[0], s[1], s[2], s[3], s[4], s[5]);
        CHECK(fl_set_num_threads(1) == FL_OK);
        result expected = run(&p);
        for (int threads = 2; threads <= 5; threads++) {
            CHECK(fl_set_num_threads(threads) == FL_OK);
            CHECK(fl_get_num_threads() == threads);
            for (int round = 0; round < 3; round++) {
                result got = run(&p);
                CHECK(same(&p, &expected, &got));
                free_result(&got);
            }
        }
        free_result(&expected);
        free_problem(&p);
    }
}

typedef struct caller {
    const problem *problem;
    const result *expected;
    int wrong;
} caller;

static void *call_often(void *context) {
    caller *c = context;
    for (int i = 0; i < 20; i++) {
        result got = run(c->problem);
        if (!same(c->problem, c->expected, &got)) c->wrong++;
        free_result(&got);
    }
    return NULL;
}

/* Calls of few threads that wake a pool of many: those that are not wanted keep out of it. */
static void test_part_of_the_pool(void) {
    problem p = make_problem(30, 41, 9, 67, 1, 1);
    CHECK(fl_set_num_threads(1) == FL_OK);
    result expected = run(&p);
    processors = 6;
    for (int i = 0; i < 24; i++) {
        CHECK(fl_set_num_threads(i % 3 == 0 ? 6 : 1 + i % 3) == FL_OK);
        result got = run(&p);
        CHECK(same(&p, &expected, &got));
        free_result(&got);
    }
    processors = 0;
    free_result(&expected);
    free_problem(&p);
}

static void test_many_callers(void) {
    problem p = make_problem(60, 8, 20, 67, 2, 2);
    CHECK(fl_set_num_threads(1) == FL_OK);
    result expected = run(&p);
    CHECK(fl_set_num_threads(2) == FL_OK);
    pthread_t threads[4];
    caller callers[4];
    for (int i = 0; i < 4; i++) {
        callers[i] = (caller){&p, &expected, 0};
        CHECK(pthread_create(&threads[i], NULL, call_often, &callers[i]) == 0);
    }
    for (int i = 0; i < 4; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK(callers[i].wrong == 0);
    }
    free_result(&expected);
    free_problem(&p);
}

static void test_fork(void) {
    problem p = make_problem(60, 8, 20, 67, 1, 2);
    CHECK(fl_set_num_threads(2) == FL_OK);
    result expected = run(&p); /* the pool has threads now */
    const pid_t child = fork();
    if (child == 0) {
        alarm(60); /* a child that hangs is a failure */
        result got = run(&p);
        _exit(same(&p, &expected, &got) ? 0 : 1);
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    result again = run(&p);
    CHECK(same(&p, &expected, &again));
    free_result(&again);
    free_result(&expected);
    free_problem(&p);
}

/* A watch that cancels when it is asked for the n-th time; and one that takes its time. */
typedef struct patience {
    int asked, n, forks;
    useconds_t delay; /* microseconds */
    pid_t child;
} patience;

static int is_over(void *context) {
    patience *p = context;
    if (p->delay) usleep(p->delay);
    if (++p->asked == p->n && p->forks) {
        p->child = fork();
        if (p->child == 0) alarm(60); /* a child that hangs is a failure */
        return 0;
    }
    return p->asked == p->n;
}

static fl_status run_watched(const problem *p, result *r, patience *patience) {
    const fl_watch watch = {is_over, patience};
    return FORWARD(p->model, .T = p->T, .B = p->B, .x = {p->x, p->B * p->I, p->I}, .h_0 = p->state,
                   .c_0 = p->state + 1, .y = {r->y, p->B * p->width, p->width}, .h_n = r->h_n,
                   .c_n = r->c_n, .watch = &watch);
}

/* Calls given up at each time that they ask; then one that is not. */
static void test_cancelled(void) {
    static const ptrdiff_t shapes[][6] = {
        {200, 16, 9, 67, 1, 1}, {200, 1, 70, 129, 2, 1}, {150, 3, 5, 131, 2, 2},
        {40, 101, 7, 61, 2, 1}, {2000, 5, 16, 16, 1, 1}, {3, 40, 30000, 5, 1, 1},
        {3, 80, 2, 700, 1, 1},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int threads = quick ? 2 : 1; threads <= (quick ? 2 : 4); threads += threads) {
            const ptrdiff_t *s = shapes[i];
            problem p = make_problem(s[0], s[1], s[2], s[3], s[4], s[5]);
            CHECK(fl_set_num_threads(threads) == FL_OK);
            result expected = run(&p), got = run(&p);
            patience patience = {.n = 0};
            CHECK(run_watched(&p, &got, &patience) == FL_OK && same(&p, &expected, &got));
            const int asked = patience.asked;
            CHECK(asked > 0);
            for (int n = 1; n <= asked; n += 1 + asked / 5) {
                patience.asked = 0;
                patience.n = n;
                const fl_status status = run_watched(&p, &got, &patience);
                CHECK(status == (patience.asked >= n ? FL_ERROR_CANCELLED : FL_OK));
                CHECK(patience.asked <= n); /* nobody asks again after a yes */
            }
            result again = run(&p);
            CHECK(same(&p, &expected, &again));
            free_result(&again);
            free_result(&got);
            free_result(&expected);
            free_problem(&p);
        }
}

/* What backpropagation through a problem of one layer works on, twice over, to be compared. */
typedef struct training {
    problem p;
    result r;
    size_t count, dx_count; /* parameters, and numbers of dx */
    float *parameters, *tape, *gradients[2], *dx[2];
} training;

static training make_training(ptrdiff_t T, ptrdiff_t B, ptrdiff_t I, ptrdiff_t H, ptrdiff_t D) {
    const fl_config config = CONFIG(I, H, 1, D, 1, FL_FLOAT32);
    training t = {.p = make_problem_of(config, T, B), .dx_count = (size_t)(T * B * I)};
    size_t bytes = 0;
    CHECK(fl_parameter_count(&config, &t.count) == FL_OK);
    CHECK(fl_tape_bytes(t.p.model, T, B, NULL, &bytes) == FL_OK);
    t.parameters = numbers(t.count, 1);
    t.tape = malloc(bytes);
    for (int i = 0; i < 2; i++) {
        t.gradients[i] = malloc(t.count * sizeof(float));
        t.dx[i] = numbers(t.dx_count, 0);
    }
    t.r = run(&t.p);
    return t;
}

static int gradients_agree(const training *t) {
    return memcmp(t->gradients[0], t->gradients[1], t->count * sizeof(float)) == 0 &&
           memcmp(t->dx[0], t->dx[1], t->dx_count * sizeof(float)) == 0;
}

static void free_training(training *t) {
    free(t->parameters);
    free(t->tape);
    for (int i = 0; i < 2; i++) {
        free(t->gradients[i]);
        free(t->dx[i]);
    }
    free_result(&t->r);
    free_problem(&t->p);
}

static fl_status record(training *t, const fl_watch *watch) {
    const problem *p = &t->p;
    return RECORD(p->model, .T = p->T, .B = p->B, .x = {p->x, p->B * p->I, p->I},
                  .y = {t->r.y, p->B * p->width, p->width}, .h_n = t->r.h_n, .c_n = t->r.c_n,
                  .tape = t->tape, .watch = watch);
}

/* Into dx[i] and gradients[i]. */
static fl_status go_back(training *t, int i, const fl_watch *watch) {
    const problem *p = &t->p;
    return BACKWARD(p->model, .parameters = t->parameters, .T = p->T, .B = p->B,
                    .x = {p->x, p->B * p->I, p->I}, .tape = t->tape,
                    .dy = {t->r.y, p->B * p->width, p->width}, .dx = {t->dx[i], p->B * p->I, p->I},
                    .dparameters = t->gradients[i], .watch = watch);
}

/* The same for tapes. */
static void test_cancelled_backward(ptrdiff_t T, ptrdiff_t B, ptrdiff_t I, ptrdiff_t H,
                                    ptrdiff_t D) {
    training t = make_training(T, B, I, H, D);
    for (int threads = quick ? 2 : 1; threads <= (quick ? 2 : 4); threads += threads) {
        CHECK(fl_set_num_threads(threads) == FL_OK);
        patience patience = {.n = 1};
        const fl_watch watch = {is_over, &patience};
        for (int i = 0; i < 2; i++)
            CHECK(record(&t, i == 0 ? &watch : NULL) == (i == 0 ? FL_ERROR_CANCELLED : FL_OK));
        int n = 0;
        for (fl_status status = FL_ERROR_CANCELLED; status == FL_ERROR_CANCELLED; n++) {
            patience.asked = 0;
            patience.n = n; /* 0: never */
            status = go_back(&t, n > 0, &watch);
            if (n == 0) {
                CHECK(status == FL_OK && patience.asked > 0);
                status = FL_ERROR_CANCELLED;
            } else {
                CHECK(status == (patience.asked >= n ? FL_ERROR_CANCELLED : FL_OK));
            }
        }
        CHECK(n > 2);
        CHECK(gradients_agree(&t));
    }
    free_training(&t);
}

/* A push that is given up leaves the stream as it was. */
static void test_cancelled_push(void) {
    problem p = make_problem(400, 2, 20, 67, 2, 1);
    result expected = run(&p), got = run(&p);
    fl_stream *stream = NULL;
    CHECK(fl_stream_create(p.model, p.B, &stream) == FL_OK);
    const ptrdiff_t x_step = p.B * p.I, y_step = p.B * p.width;
    patience patience = {.n = 0};
    const fl_watch watch = {is_over, &patience};
    fl_stream_set_state(stream, p.state, p.state + 1);
    CHECK(PUSH(stream, .T = 7, .x = {p.x, x_step, p.I}, .y = {got.y, y_step, p.width},
               .watch = &watch) == FL_OK);
    for (patience.n = 1; patience.n < 4; patience.n++) {
        patience.asked = 0;
        CHECK(PUSH(stream, .T = p.T - 7, .x = {p.x + 7 * x_step, x_step, p.I},
                   .y = {got.y + 7 * y_step, y_step, p.width},
                   .watch = &watch) == FL_ERROR_CANCELLED);
    }
    CHECK(PUSH(stream, .T = p.T - 7, .x = {p.x + 7 * x_step, x_step, p.I},
               .y = {got.y + 7 * y_step, y_step, p.width}) == FL_OK);
    fl_stream_get_state(stream, got.h_n, got.c_n);
    CHECK(same(&p, &expected, &got));
    fl_stream_destroy(stream);
    free_result(&expected);
    free_result(&got);
    free_problem(&p);
}

/* Waits until a call may have so many threads again; the calls in between are all well. */
static void wait_for_threads(int wanted) {
    alarm(60); /* never is a failure */
    for (int taken = 0; taken < wanted; usleep(500)) {
        taken = fl_pool_take(wanted, 0);
        fl_pool_release(taken);
    }
    alarm(0);
}

/* A watch that forks: the parent's call goes on, the child's can't, and its next call can. */
static void test_fork_inside(void) {
    problem p = make_problem(200, 1, 70, 129, 2, 1);
    CHECK(fl_set_num_threads(2) == FL_OK);
    result expected = run(&p), got = run(&p);
    patience patience = {.n = 1, .forks = 1};
    const pid_t parent = getpid();
    processors = 2;
    wait_for_threads(2); /* which the call must have, to lose them */
    const fl_status status = run_watched(&p, &got, &patience);
    if (getpid() != parent) {
        patience.forks = 0;
        _exit(status == FL_ERROR_CANCELLED && run_watched(&p, &got, &patience) == FL_OK &&
                      same(&p, &expected, &got)
                  ? 0
                  : 1);
    }
    int code = -1;
    CHECK(status == FL_OK && same(&p, &expected, &got));
    CHECK(patience.child > 0 && waitpid(patience.child, &code, 0) == patience.child);
    CHECK(WIFEXITED(code) && WEXITSTATUS(code) == 0);
    processors = 0;
    free_result(&expected);
    free_result(&got);
    free_problem(&p);
}

/* A job whose thread 1 comes late to one of its barriers. */
enum { MEETINGS = 40, LATE_AT = 7 };
typedef struct meetings {
    fl_barrier barrier;
    int attended[4]; /* by thread */
} meetings;

static void meet(void *context, int index) {
    meetings *m = context;
    for (int i = 0; i < MEETINGS && index < fl_atomic_load(&m->barrier.size); i++) {
        if (index == 1 && i == LATE_AT) usleep(20000);
        CHECK(fl_barrier_wait(&m->barrier) == 0);
        m->attended[index]++;
    }
}

/* A late thread halves the call's threads, and those of the calls after it, for a time. */
static void test_late(void) {
    processors = 4;
    int least = 4;
    for (int round = 0; round < 20 && least > 1; round++) {
        const int taken = fl_pool_take(4, 0);
        if (taken < least) least = taken;
        if (taken < 2) continue;
        meetings m = {.barrier = {.size = taken, .late = FL_LATE_PARTS}};
        fl_pool_run(taken, meet, &m, NULL);
        fl_pool_release(taken);
        CHECK(m.barrier.size <= taken / 2);
        CHECK(m.attended[0] == MEETINGS);
        for (int i = 1; i < taken; i++) CHECK(m.attended[i] <= m.attended[i - 1]);
        CHECK(m.attended[taken - 1] <= LATE_AT + 1);
    }
    CHECK(least == 1);
    wait_for_threads(4);
    /* Where lateness is usual, or is told alone, none leaves; told, later calls have fewer. */
    for (fl_late late = FL_LATE_IS_USUAL; late < FL_LATE_PARTS; late++) {
        meetings m = {.barrier = {.size = 4, .late = late}};
        CHECK(fl_pool_take(4, 0) == 4);
        fl_pool_run(4, meet, &m, NULL);
        fl_pool_release(4);
        for (int i = 0; i < 4; i++) CHECK(m.attended[i] == MEETINGS);
        CHECK(m.barrier.size == 4);
    }
    wait_for_threads(4);
    processors = 0;
}

/* A call that threads leave, as thread 0 is late each time that it asks its watch. */
static void check_late(problem p) {
    CHECK(fl_set_num_threads(1) == FL_OK);
    result expected = run(&p), got = run(&p);
    CHECK(fl_set_num_threads(4) == FL_OK);
    wait_for_threads(4);
    patience patience = {.delay = 5000};
    CHECK(run_watched(&p, &got, &patience) == FL_OK && same(&p, &expected, &got));
    CHECK(patience.asked > 0);
    free_result(&expected);
    free_result(&got);
    free_problem(&p);
}

static void test_late_bits(void) {
    static const ptrdiff_t shapes[][6] = {
        {100, 1, 256, 256, 1, 1},
        {200, 1, 70, 129, 3, 1},
        {150, 3, 70, 131, 2, 2},
        {2100, 1, 512, 512, 1, 1}, /* of several sections */
    };
    processors = 4;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0] - (size_t)quick; i++) {
        const ptrdiff_t *s = shapes[i];
        check_late(make_problem(s[0], s[1], s[2], s[3], s[4], s[5]));
    }
    /* Variants have barriers inside a step, too; and these shapes several chunks of time. */
    const fl_config variants[] = {
        CONFIG(70, 300, 1, 1, 1, FL_FLOAT32, .layer_norm = 1),
        CONFIG(70, 301, 1, 2, 1, FL_FLOAT32, .zoneout_h = 0.25),
        CONFIG(70, 300, 1, 1, 1, FL_FLOAT32, .layer_norm = 1, .zoneout_h = 0.5, .reverse = 1),
    };
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++)
        for (int round = 0; round < 3; round++) check_late(make_problem_of(variants[i], 400, 1));
    processors = 0;
}

/* Backpropagation of the same kind, by units. */
static void test_late_backward(void) {
    training t = make_training(60, 1, 70, 257, 1);
    CHECK(record(&t, NULL) == FL_OK);
    processors = 4;
    for (int late = 0; late < 2; late++) {
        CHECK(fl_set_num_threads(late ? 4 : 1) == FL_OK);
        if (late) wait_for_threads(4);
        patience patience = {.delay = late ? 5000 : 0};
        const fl_watch watch = {is_over, &patience};
        CHECK(go_back(&t, late, &watch) == FL_OK);
        CHECK(patience.asked > 0);
    }
    CHECK(gradients_agree(&t));
    processors = 0;
    free_training(&t);
}

int main(int count, char **arguments) {
    quick = count > 1 && strcmp(arguments[1], "quick") == 0;
    CHECK(fl_get_num_threads() >= 1);
    CHECK(fl_set_num_threads(0) == FL_ERROR_ARGUMENT);
    CHECK(fl_set_num_threads(65) == FL_ERROR_ARGUMENT);
    test_bits();
    test_part_of_the_pool();
    test_many_callers();
    test_fork();
    test_cancelled();
    test_cancelled_backward(300, 1, 70, 257, 1);
    test_cancelled_backward(200, 16, 30, 67, 2);
    test_cancelled_backward(100, 5, 900, 40, 1);
    test_cancelled_push();
    test_fork_inside();
    test_late();
    test_late_bits();
    test_late_backward();
    return checks_report();
}
