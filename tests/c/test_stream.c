/* Tests of streams through the C API alone: bits against those of fl_forward, states, resets and
 * every documented error. */
#include <float.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "check.h"
#include "fastlstm.h"
#include "platform.h"
#include "random.h"

enum { LONGEST = 150, SHORT = 67 }; /* steps; more than a stream takes at a time */

static size_t size_of(fl_dtype dtype) {
    return dtype == FL_FLOAT64 ? sizeof(double) : sizeof(float);
}

/* Random reals in memory of exactly their size, so that a sanitizer sees a step too far. */
static char *random_reals(size_t count, double scale, fl_dtype dtype) {
    char *values = malloc(count * size_of(dtype));
    for (size_t j = 0; j < count; j++) {
        if (dtype == FL_FLOAT64) ((double *)(void *)values)[j] = scale * random_real();
        else ((float *)(void *)values)[j] = (float)(scale * random_real());
    }
    return values;
}

static fl_model *random_model(const fl_config *config, const char *isa) {
    size_t count;
    fl_model *model = NULL;
    CHECK(fl_parameter_count(config, &count) == FL_OK);
    char *parameters = random_reals(count, 0.5, config->dtype);
    CHECK(fl_model_create(config, isa, parameters, &model) == FL_OK);
    free(parameters);
    return model;
}

static int same_state(const fl_stream *stream, const char *h, const char *c, size_t bytes) {
    char *h_now = malloc(bytes), *c_now = malloc(bytes);
    fl_stream_get_state(stream, h_now, c_now);
    const int same = memcmp(h, h_now, bytes) == 0 && memcmp(c, c_now, bytes) == 0;
    free(h_now);
    free(c_now);
    return same;
}

/* T steps of B sequences by fl_forward, by steps, by pushes of several lengths, and by a push over
 * memory in which each sequence lies in one piece. */
static void check_bits(fl_config config, const char *isa, ptrdiff_t T, ptrdiff_t B) {
    const ptrdiff_t I = config.input_size, H = config.hidden_size;
    const size_t size = size_of(config.dtype), rows = (size_t)(T * B);
    const size_t x_step = (size_t)(B * I) * size, y_step = (size_t)(B * H) * size;
    const size_t state_count = (size_t)(config.num_layers * B * H);
    const size_t y_bytes = rows * (size_t)H * size, state_bytes = state_count * size;
    fl_model *model = random_model(&config, isa);
    char *x = random_reals(rows * (size_t)I, 1, config.dtype);
    char *h_0 = random_reals(state_count, 0.7, config.dtype);
    char *c_0 = random_reals(state_count, 0.9, config.dtype);
    char *y = malloc(y_bytes), *h_n = malloc(state_bytes), *c_n = malloc(state_bytes);
    CHECK(FORWARD(model, .T = T, .B = B, .x = {x, B * I, I}, .h_0 = h_0, .c_0 = c_0,
                  .y = {y, B * H, H}, .h_n = h_n, .c_n = c_n) == FL_OK);

    fl_stream *stream = NULL;
    CHECK(fl_stream_create(model, B, &stream) == FL_OK && stream != NULL);
    char *got = calloc(y_bytes, 1);
    fl_stream_set_state(stream, h_0, c_0);
    CHECK(same_state(stream, h_0, c_0, state_bytes));
    for (size_t t = 0; t < (size_t)T; t++) fl_stream_step(stream, x + t * x_step, got + t * y_step);
    CHECK(memcmp(y, got, y_bytes) == 0 && same_state(stream, h_n, c_n, state_bytes));

    const ptrdiff_t pieces[] = {65, 1, 64, T};
    for (size_t i = 0; i < (T == LONGEST ? sizeof pieces / sizeof pieces[0] : 1); i++) {
        memset(got, 0, y_bytes);
        fl_stream_set_state(stream, h_0, c_0);
        for (ptrdiff_t t = 0; t < T; t += pieces[i]) {
            const ptrdiff_t n = pieces[i] < T - t ? pieces[i] : T - t;
            CHECK(PUSH(stream, .T = n, .x = {x + (size_t)t * x_step, B * I, I},
                       .y = {got + (size_t)t * y_step, B * H, H}) == FL_OK);
        }
        CHECK(memcmp(y, got, y_bytes) == 0 && same_state(stream, h_n, c_n, state_bytes));
    }

    const size_t x_row = (size_t)I * size, y_row = (size_t)H * size;
    char *x_first = malloc(rows * x_row);
    for (size_t t = 0; t < (size_t)T; t++)
        for (size_t b = 0; b < (size_t)B; b++)
            memcpy(x_first + (b * (size_t)T + t) * x_row, x + (t * (size_t)B + b) * x_row, x_row);
    memset(got, 0, y_bytes);
    fl_stream_set_state(stream, h_0, c_0);
    CHECK(PUSH(stream, .T = T, .x = {x_first, I, T * I}, .y = {got, H, T * H}) == FL_OK);
    for (size_t t = 0; t < (size_t)T; t++)
        for (size_t b = 0; b < (size_t)B; b++)
            CHECK(memcmp(y + (t * (size_t)B + b) * y_row, got + (b * (size_t)T + t) * y_row,
                         y_row) == 0);
    CHECK(same_state(stream, h_n, c_n, state_bytes));

    fl_stream_destroy(stream);
    fl_model_destroy(model);
    free(x);
    free(x_first);
    free(h_0);
    free(c_0);
    free(y);
    free(h_n);
    free(c_n);
    free(got);
}

static void test_bits(ptrdiff_t T) {
    static const struct {
        ptrdiff_t I, H, L, B;
        int bias;
    } cases[] = {{1, 1, 1, 1, 1},  {1, 20, 1, 1, 1}, {3, 5, 2, 2, 1},  {17, 31, 2, 3, 0},
                 {8, 16, 1, 1, 0}, {9, 65, 1, 7, 1}, {5, 17, 3, 13, 1}};
    for (int isa = 0; isa < fl_isa_count(); isa++)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
            for (int dtype = FL_FLOAT32; dtype <= FL_FLOAT64; dtype++) {
                const fl_config config =
                    CONFIG(cases[i].I, cases[i].H, cases[i].L, 1, cases[i].bias, (fl_dtype)dtype);
                check_bits(config, fl_isa_name(isa), T, cases[i].B);
            }
}

/* A stream begins at zero; a reset returns the chosen sequences there and leaves the others. */
static void test_reset(void) {
    enum { I = 3, H = 5, L = 2, B = 4, STATE = L * B * H };
    const fl_config config = CONFIG(I, H, L, 1, 1, FL_FLOAT32);
    fl_model *model = random_model(&config, NULL);
    const float zeros[STATE] = {0};
    const size_t bytes = sizeof zeros;
    char *x = random_reals(B * I, 1, FL_FLOAT32);
    float y[B * H], h[STATE], c[STATE], h_expected[STATE], c_expected[STATE];
    fl_stream *stream;
    CHECK(fl_stream_create(model, B, &stream) == FL_OK);
    CHECK(same_state(stream, (const char *)zeros, (const char *)zeros, bytes));
    fl_stream_step(stream, x, y);
    fl_stream_get_state(stream, h, c);
    for (int j = 0; j < STATE; j++) CHECK(h[j] != 0 && c[j] != 0);

    const unsigned char none[B] = {0, 0, 0, 0}, some[B] = {0, 255, 0, 1};
    fl_stream_reset(stream, none);
    CHECK(same_state(stream, (const char *)h, (const char *)c, bytes));
    for (int j = 0; j < STATE; j++) {
        const int zero = some[j / H % B] != 0;
        h_expected[j] = zero ? 0 : h[j];
        c_expected[j] = zero ? 0 : c[j];
    }
    fl_stream_reset(stream, some);
    CHECK(same_state(stream, (const char *)h_expected, (const char *)c_expected, bytes));
    fl_stream_reset(stream, NULL);
    CHECK(same_state(stream, (const char *)zeros, (const char *)zeros, bytes));
    fl_stream_destroy(stream);
    fl_model_destroy(model);
    free(x);
}

/* Streams of one model do not know of each other. */
static void test_streams_are_apart(void) {
    enum { I = 2, H = 19, STEPS = 30 };
    const fl_config config = CONFIG(I, H, 1, 1, 1, FL_FLOAT64);
    fl_model *model = random_model(&config, NULL);
    char *x = random_reals(STEPS * I, 1, FL_FLOAT64);
    double expected[STEPS * H], y[H], other[H];
    fl_stream *one, *two;
    CHECK(fl_stream_create(model, 1, &one) == FL_OK && fl_stream_create(model, 1, &two) == FL_OK);
    CHECK(PUSH(one, .T = STEPS, .x = {x, I, I}, .y = {expected, H, H}) == FL_OK);
    fl_stream_reset(one, NULL);
    for (size_t t = 0; t < STEPS; t++) {
        fl_stream_step(two, x + (STEPS - 1 - t) * I * sizeof(double), other);
        fl_stream_step(one, x + t * I * sizeof(double), y);
        CHECK(memcmp(y, expected + t * H, sizeof y) == 0);
    }
    fl_stream_destroy(one);
    fl_stream_destroy(two);
    fl_model_destroy(model);
    free(x);
}

static void test_errors(void) {
    const fl_config config = CONFIG(2, 3, 1, 1, 1, FL_FLOAT32),
                    both = CONFIG(2, 3, 1, 2, 1, FL_FLOAT32);
    const fl_config back = CONFIG(2, 3, 1, 1, 1, FL_FLOAT32, .reverse = 1);
    fl_model *model = random_model(&config, NULL), *two_directions = random_model(&both, NULL);
    fl_model *reverse = random_model(&back, NULL);
    fl_stream *stream = (fl_stream *)(void *)&model;
    CHECK(fl_stream_create(NULL, 1, &stream) == FL_ERROR_ARGUMENT && stream == NULL);
    CHECK(fl_stream_create(model, 1, NULL) == FL_ERROR_ARGUMENT);
    CHECK(fl_stream_create(model, 0, &stream) == FL_ERROR_ARGUMENT && stream == NULL);
    CHECK(fl_stream_create(model, -1, &stream) == FL_ERROR_ARGUMENT);
    CHECK(fl_stream_create(two_directions, 1, &stream) == FL_ERROR_ARGUMENT && stream == NULL);
    CHECK(fl_stream_create(reverse, 1, &stream) == FL_ERROR_ARGUMENT && stream == NULL);
    CHECK(fl_stream_create(model, PTRDIFF_MAX, &stream) == FL_ERROR_OVERFLOW && stream == NULL);
    CHECK(fl_stream_create(model, PTRDIFF_MAX / 100, &stream) != FL_OK && stream == NULL);

    float x[2] = {1, 2}, y[3] = {7, 7, 7};
    const float h[3] = {1, 2, 3}, c[3] = {4, 5, 6};
    CHECK(fl_stream_create(model, 1, &stream) == FL_OK);
    fl_stream_set_state(stream, h, c);
    CHECK(PUSH(NULL, .T = 1, .x = {x, 2, 2}, .y = {y, 3, 3}) == FL_ERROR_ARGUMENT);
    CHECK(PUSH(stream, .T = -1, .x = {x, 2, 2}, .y = {y, 3, 3}) == FL_ERROR_ARGUMENT);
    CHECK(PUSH(stream, .T = 1, .x = {NULL, 2, 2}, .y = {y, 3, 3}) == FL_ERROR_ARGUMENT);
    CHECK(PUSH(stream, .T = 1, .x = {x, 2, 2}, .y = {NULL, 3, 3}) == FL_ERROR_ARGUMENT);
    CHECK(PUSH(stream, .T = 0) == FL_OK);
    CHECK(y[0] == 7 && y[2] == 7);
    CHECK(same_state(stream, (const char *)h, (const char *)c, sizeof h));
    fl_stream_destroy(stream);
    fl_stream_destroy(NULL);
    fl_model_destroy(model);
    fl_model_destroy(two_directions);
    fl_model_destroy(reverse);
}

/* The caller's floating-point environment survives a step, and denormals are zero inside. */
static void test_floating_point_environment(int flushes) {
    const fl_config config = CONFIG(1, 1, 1, 1, 0, FL_FLOAT32);
    const float parameters[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    const float x = FLT_MIN / 4, h = FLT_MIN / 8, c = FLT_MIN / 2;
    float y = 7;
    fl_model *model;
    fl_stream *stream;
    CHECK(fl_model_create(&config, NULL, parameters, &model) == FL_OK);
    CHECK(fl_stream_create(model, 1, &stream) == FL_OK);
    fl_stream_set_state(stream, &h, &c);
    const fl_fp_state outer = fl_fp_enter();
    fl_fp_leave(outer);
    fl_stream_step(stream, &x, &y);
    const fl_fp_state after = fl_fp_enter();
    fl_fp_leave(after);
    CHECK(memcmp(&outer, &after, sizeof outer) == 0);
    if (flushes) CHECK(y == 0);
    fl_stream_destroy(stream);
    fl_model_destroy(model);
}

/* With an argument: fewer steps, for emulators, and for those that flush no denormals. */
int main(int count, char **arguments) {
    (void)arguments;
    test_errors();
    test_reset();
    test_streams_are_apart();
    test_bits(count == 1 ? LONGEST : SHORT);
    test_floating_point_environment((FL_X86 || FL_ARM64) && count == 1);
    return checks_report();
}
