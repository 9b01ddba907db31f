/* Directions and layers run side by side: bit for bit what one layer and direction after the other
 * gives, each as a model of its own. */
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "check.h"
#include "fastlstm.h"
#include "random.h"

typedef struct problem {
    fl_config config;
    ptrdiff_t T, B;
    size_t real;
    ptrdiff_t x_gap, y_gap; /* reals between the rows of two steps */
    int recorded;
} problem;

static char *random_reals(ptrdiff_t count, double scale, size_t real) {
    char *values = malloc((size_t)(count + 1) * real);
    for (ptrdiff_t j = 0; j < count; j++) {
        const double value = scale * random_real();
        if (real == sizeof(double)) ((double *)(void *)values)[j] = value;
        else ((float *)(void *)values)[j] = (float)value;
    }
    return values;
}

/* Runs a model on x (T, B, I) from the states in h and c on, and leaves its last states there. */
static void run(const fl_config *config, const char *isa, const problem *p, const void *parameters,
                fl_input x, char *h, char *c, fl_output y, char *tape, const fl_watch *watch) {
    fl_model *model = NULL;
    CHECK(fl_model_create(config, isa, parameters, &model) == FL_OK);
    const fl_status status = p->recorded
                                 ? RECORD(model, .T = p->T, .B = p->B, .x = x, .h_0 = h, .c_0 = c,
                                          .y = y, .h_n = h, .c_n = c, .tape = tape, .watch = watch)
                                 : FORWARD(model, .T = p->T, .B = p->B, .x = x, .h_0 = h, .c_0 = c,
                                           .y = y, .h_n = h, .c_n = c, .watch = watch);
    CHECK(status == FL_OK);
    fl_model_destroy(model);
}

/* The same, one model for each layer and direction; y (T, B, D*H) contiguous. */
static void run_apart(const problem *p, const char *isa, const char *parameters, fl_input x,
                      char *h, char *c, char *y, char *tape) {
    const ptrdiff_t H = p->config.hidden_size, L = p->config.num_layers;
    const ptrdiff_t D = p->config.num_directions, T = p->T, B = p->B, row = B * D * H;
    char *below = calloc((size_t)(T * row + 1), p->real);
    for (ptrdiff_t i = 0; i < L * D; i++) {
        fl_config one = p->config;
        size_t count;
        one.num_layers = one.num_directions = 1;
        one.reverse = p->config.reverse || i % D == 1;
        if (i >= D) one.input_size = D * H;
        CHECK(fl_parameter_count(&one, &count) == FL_OK);
        const fl_output out = {y + (size_t)(i % D * H) * p->real, row, D * H};
        run(&one, isa, p, parameters, x, h + (size_t)(i * B * H) * p->real,
            c + (size_t)(i * B * H) * p->real, out, tape + (size_t)(i * T * B * 5 * H) * p->real,
            NULL);
        parameters += count * p->real;
        if (i % D < D - 1) continue;
        memcpy(below, y, (size_t)(T * row) * p->real);
        x = (fl_input){below, row, D * H};
    }
    free(below);
}

static int is_never_cancelled(void *context) {
    ++*(long *)context;
    return 0;
}

/* Whether rows (T, B*D*H), a gap after each, are those without gaps, and the gaps untouched. */
static int same_rows(const problem *p, const char *rows, const char *expected, ptrdiff_t width) {
    const size_t row = (size_t)width * p->real, gap = (size_t)p->y_gap * p->real;
    int same = 1;
    for (ptrdiff_t t = 0; t < p->T; t++) {
        same &= memcmp(rows, expected, row) == 0;
        rows += row;
        expected += row;
        for (size_t j = 0; j < gap; j++) same &= *rows++ == 0x55;
    }
    return same;
}

static void compare(const problem *p) {
    const ptrdiff_t I = p->config.input_size, H = p->config.hidden_size, T = p->T, B = p->B;
    const ptrdiff_t LD = p->config.num_layers * p->config.num_directions;
    const ptrdiff_t y_width = B * p->config.num_directions * H, x_row = B * I + p->x_gap;
    const ptrdiff_t tape_count = p->recorded ? LD * T * B * 5 * H : 0;
    const size_t y_bytes = (size_t)(T * y_width) * p->real;
    const size_t y_room = (size_t)(T * (y_width + p->y_gap)) * p->real;
    const size_t state_bytes = (size_t)(LD * B * H) * p->real;
    const size_t tape_bytes = (size_t)tape_count * p->real;
    size_t parameter_count;
    CHECK(fl_parameter_count(&p->config, &parameter_count) == FL_OK);
    char *parameters = random_reals((ptrdiff_t)parameter_count, 0.5, p->real);
    char *x = random_reals(T * x_row, 1, p->real);
    char *h_0 = random_reals(LD * B * H, 0.7, p->real), *c_0 = random_reals(LD * B * H, 1, p->real);
    char *h = malloc(2 * state_bytes), *c = malloc(2 * state_bytes), *y = malloc(y_room + 1);
    char *expected = calloc(y_bytes + 1, 1), *tape = calloc(2 * tape_bytes + 1, 1);
    const fl_input rows = {x, x_row, I};
    const fl_output out = {y, y_width + p->y_gap, y_width / B};
    for (int isa = 0; isa < fl_isa_count(); isa++) {
        const char *name = fl_isa_name(isa);
        char *h_n = h + state_bytes, *c_n = c + state_bytes, *taped = tape + tape_bytes;
        memcpy(h, h_0, state_bytes);
        memcpy(c, c_0, state_bytes);
        run_apart(p, name, parameters, rows, h, c, expected, tape);
        for (int way = 0; way < 3; way++) { /* with y, without it, and watched */
            long asked = 0;
            const fl_watch watch = {is_never_cancelled, &asked};
            memcpy(h_n, h_0, state_bytes);
            memcpy(c_n, c_0, state_bytes);
            memset(y, 0x55, y_room);
            memset(taped, 0, tape_bytes);
            run(&p->config, name, p, parameters, rows, h_n, c_n, way == 1 ? (fl_output){0} : out,
                taped, way == 2 ? &watch : NULL);
            if (way != 1) CHECK(same_rows(p, y, expected, y_width));
            CHECK(memcmp(h, h_n, state_bytes) == 0 && memcmp(c, c_n, state_bytes) == 0);
            CHECK(memcmp(tape, taped, tape_bytes) == 0);
        }
    }
    free(parameters);
    free(x);
    free(h_0);
    free(c_0);
    free(h);
    free(c);
    free(y);
    free(expected);
    free(tape);
}

static void test_bits(void) {
    static const ptrdiff_t sizes[] = {1, 3, 8, 13, 15, 16, 17, 23, 24, 29, 31, 32, 33};
    static const ptrdiff_t times[] = {1, 2, 3, 7, 8, 9, 16, 23, 0, 257, 65};
    enum { SIZES = sizeof sizes / sizeof *sizes, TIMES = sizeof times / sizeof *times };
    for (int i = 0; i < SIZES * 12; i++) {
        const ptrdiff_t D = i % 3 == 2 ? 2 : 1, L = 1 + i / 3 % 4;
        const ptrdiff_t H = sizes[i / 12], I = sizes[(i * 5 + 3) % SIZES];
        problem p = {.config = CONFIG(I, H, L, D, i % 4 != 0), .T = times[i % TIMES], .B = 1};
        p.config.reverse = i % 3 == 1;
        p.recorded = i % 2;
        if (i % 5 == 0) p.B = 1 + i % 3;
        if (i % 4 > 1) p.x_gap = p.y_gap = i % 7;
        for (int dtype = FL_FLOAT32; dtype <= FL_FLOAT64; dtype++) {
            p.config.dtype = (fl_dtype)dtype;
            p.real = dtype == FL_FLOAT64 ? sizeof(double) : sizeof(float);
            compare(&p);
        }
    }
}

/* A stack pushed in pieces, into a stream, as in one call. */
static void test_pushes(void) {
    enum { I = 5, H = 16, L = 3, T = 150 };
    const fl_config config = CONFIG(I, H, L, 1, 1, FL_FLOAT32);
    size_t count;
    CHECK(fl_parameter_count(&config, &count) == FL_OK);
    char *parameters = random_reals((ptrdiff_t)count, 0.5, sizeof(float));
    float *x = (void *)random_reals(T * I, 1, sizeof(float)), y[T * H], pushed[T * H];
    float h[L * H], c[L * H];
    fl_model *model;
    fl_stream *stream;
    CHECK(fl_model_create(&config, NULL, parameters, &model) == FL_OK);
    CHECK(FORWARD(model, .T = T, .B = 1, .x = {x, I, I}, .y = {y, H, H}, .h_n = h, .c_n = c) ==
          FL_OK);
    CHECK(fl_stream_create(model, 1, &stream) == FL_OK);
    for (ptrdiff_t t = 0, n = 1; t < T; n = 2 * n + 1) { /* a push, then a step */
        n = n < T - 1 - t ? n : T - 1 - t;
        CHECK(PUSH(stream, .T = n, .x = {x + t * I, I, I}, .y = {pushed + t * H, H, H}) == FL_OK);
        t += n;
        fl_stream_step(stream, x + t * I, pushed + t * H);
        t++;
    }
    CHECK(memcmp(y, pushed, sizeof y) == 0);
    fl_stream_destroy(stream);
    fl_model_destroy(model);
    free(parameters);
    free(x);
}

/* A watch that cancels the call when it is asked for the context-th time. */
static int is_cancelled_then(void *context) { return --*(long *)context == 0; }

static void test_cancelled(void) {
    enum { I = 16, H = 16, T = 20000 };
    fl_set_num_threads(1);
    float *x = (void *)random_reals(T * I, 1, sizeof(float)), *y = malloc(T * 2 * H * sizeof *y);
    float h[2 * H], c[2 * H];
    for (ptrdiff_t D = 1; D <= 2; D++) {
        const fl_config config = CONFIG(I, H, 3 - D, D, 1, FL_FLOAT32);
        size_t count;
        CHECK(fl_parameter_count(&config, &count) == FL_OK);
        char *parameters = random_reals((ptrdiff_t)count, 0.5, sizeof(float));
        fl_model *model;
        CHECK(fl_model_create(&config, NULL, parameters, &model) == FL_OK);
        for (long times = 1; times <= 4; times++) {
            long left = times;
            const fl_watch watch = {is_cancelled_then, &left};
            memset(y, 0, T * 2 * H * sizeof *y);
            CHECK(FORWARD(model, .T = T, .B = 1, .x = {x, I, I}, .y = {y, D * H, D * H}, .h_n = h,
                          .c_n = c, .watch = &watch) == FL_ERROR_CANCELLED);
            CHECK(left == 0);
            CHECK(y[0] != 0 && (D == 2 || y[(T - 1) * H] == 0)); /* begun, not ended */
        }
        fl_model_destroy(model);
        free(parameters);
    }
    free(x);
    free(y);
}

int main(void) {
    test_bits();
    test_pushes();
    test_cancelled();
    return checks_report();
}
