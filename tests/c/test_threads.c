/* Tests of threads: bits equal those of one thread, many callers at once, a forked child.
 *
 * Built with -fsanitize=thread as well, see .ci/run.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "fastlstm.h"

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

static problem make_problem(ptrdiff_t T, ptrdiff_t B, ptrdiff_t I, ptrdiff_t H, ptrdiff_t L,
                            ptrdiff_t D) {
    const fl_config config = {I, H, L, D, 1, FL_FLOAT32};
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

static void free_problem(problem *p) {
    fl_model_destroy(p->model);
    free(p->x);
    free(p->state);
}

static result run(const problem *p) {
    result r = {numbers(p->y_count, 4), numbers(p->state_count, 5), numbers(p->state_count, 6)};
    CHECK(fl_forward(p->model, p->T, p->B, NULL, p->x, p->B * p->I, p->I, p->state, p->state + 1,
                     r.y, p->B * p->width, p->width, r.h_n, r.c_n) == FL_OK);
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

int main(void) {
    CHECK(fl_get_num_threads() >= 1);
    CHECK(fl_set_num_threads(0) == FL_ERROR_ARGUMENT);
    CHECK(fl_set_num_threads(65) == FL_ERROR_ARGUMENT);
    test_bits();
    test_many_callers();
    test_fork();
    return checks_report();
}
