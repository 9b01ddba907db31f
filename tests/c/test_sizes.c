/* Sizes near the ends of ptrdiff_t, by arithmetic alone: products that overflow at each place where
 * one is formed, and sizes that no memory holds. Every call must be refused before it reads or
 * writes anything: the pointers here lead to a few bytes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "check.h"
#include "fastlstm.h"

enum { BITS = sizeof(ptrdiff_t) * 8 };

/* Around the powers of two at which 32-bit and 64-bit arithmetic wrap around. */
static const int powers[] = {31, 32, 33, 40, 47, 48, 52, 58, 59, 60, 61, 62, 63};
enum { POWERS = sizeof powers / sizeof powers[0] };

/* 2^power + offset, at most PTRDIFF_MAX. */
static ptrdiff_t size_near(int power, int offset) {
    if (power >= BITS - 1) return PTRDIFF_MAX - 1 + offset;
    return ((ptrdiff_t)1 << power) + offset;
}

static int is_refusal(fl_status status) {
    return status == FL_ERROR_OVERFLOW || status == FL_ERROR_ARGUMENT || status == FL_ERROR_MEMORY;
}

/* Variants that add to the parameters, the scratch memory or the tape. */
static const fl_config variants[] = {
    CONFIG(1, 2, 1, 1, 1, FL_FLOAT32),
    CONFIG(3, 5, 2, 2, 1, FL_FLOAT64),
    CONFIG(3, 5, 3, 1, 0, FL_FLOAT32, .proj_size = 2),
    CONFIG(3, 5, 1, 1, 1, FL_FLOAT64, .has_peepholes = 1, .coupled_gates = 1),
    CONFIG(3, 5, 2, 2, 1, FL_FLOAT32, .layer_norm = 1, .zoneout_h = 0.5, .zoneout_c = 0.5),
    CONFIG(3, 5, 2, 1, 1, FL_FLOAT64, .proj_size = 4, .has_peepholes = 1, .layer_norm = 1),
};
enum { VARIANTS = sizeof variants / sizeof variants[0] };

/* The parameters of a configuration in 128-bit arithmetic, to be compared. */
#if defined(__SIZEOF_INT128__)
typedef unsigned __int128 wide;
static wide times(wide a, wide b) { /* or more than any size, where even 128 bits are too few */
    return b != 0 && a > ((wide)1 << 126) / b ? (wide)1 << 126 : a * b;
}
static wide parameters_of(const fl_config *c) {
    const wide H = (wide)c->hidden_size, I = (wide)c->input_size, D = (wide)c->num_directions;
    const wide P = c->proj_size ? (wide)c->proj_size : H, G = c->coupled_gates ? 3 : 4;
    const wide rows = G * H, biases = c->has_bias ? 2 : 0;
    wide others = times((wide)c->proj_size, H) + (c->has_peepholes ? (G - 1) * H : 0);
    if (c->layer_norm) others += 2 * rows + 2 * H;
    return D * (times(rows, I + P + biases) + others) +
           times((wide)c->num_layers - 1, D * (times(rows, D * P + P + biases) + others));
}
static int fits(wide reals) { return reals <= (wide)PTRDIFF_MAX / 8; }
#endif

static fl_config with_sizes(fl_config config, int field, ptrdiff_t size) {
    ptrdiff_t *const fields[] = {&config.input_size, &config.hidden_size, &config.num_layers,
                                 &config.proj_size};
    *fields[field] = size;
    return config;
}

/* One size or two of a configuration are huge: counted right, or refused. */
static void test_counts(void) {
    for (int v = 0; v < VARIANTS; v++)
        for (int a = 0; a < 4; a++)
            for (int b = 0; b < 4; b++)
                for (int i = 0; i < POWERS; i++)
                    for (int j = 0; j < POWERS; j++)
                        for (int offset = -1; offset <= 1; offset++) {
                            fl_config config =
                                with_sizes(variants[v], a, size_near(powers[i], offset));
                            if (a != b) config = with_sizes(config, b, size_near(powers[j], 0));
                            size_t count = 7;
                            const fl_status status = fl_parameter_count(&config, &count);
                            const int valid = config.proj_size < config.hidden_size;
                            CHECK(valid ? status == FL_OK || status == FL_ERROR_OVERFLOW
                                        : status == FL_ERROR_ARGUMENT);
#if defined(__SIZEOF_INT128__)
                            if (valid) CHECK((status == FL_OK) == fits(parameters_of(&config)));
                            if (status == FL_OK) CHECK(count == parameters_of(&config));
#endif
                        }
}

/* The same, made: those that are too large for any memory. */
static void test_models(void) {
    const double parameters[4] = {0};
    for (int v = 0; v < VARIANTS; v++)
        for (int a = 0; a < 4; a++)
            for (int i = 3; i < POWERS; i++)
                for (int j = 3; j < POWERS; j++)
                    for (int isa = 0; isa < fl_isa_count(); isa++) {
                        fl_config config = with_sizes(variants[v], a, size_near(powers[i], 0));
                        if (a != 1) config = with_sizes(config, 1, size_near(powers[j], 1));
                        fl_model *model = (fl_model *)(uintptr_t)1;
                        const fl_status status =
                            fl_model_create(&config, fl_isa_name(isa), parameters, &model);
                        CHECK(is_refusal(status) && model == NULL);
                    }
}

/* A model of a variant with weights of zero. */
static fl_model *model_of(fl_config config, const char *isa) {
    size_t count;
    fl_model *model;
    CHECK(fl_parameter_count(&config, &count) == FL_OK);
    void *zeros = calloc(count, sizeof(double));
    CHECK(fl_model_create(&config, isa, zeros, &model) == FL_OK);
    free(zeros);
    return model;
}

/* Calls with T and B out of all bounds. B alone from 2^47 on can't be had: (L*D, B, H) of scratch
 * is more than a process can address. */
static void test_calls(const fl_config *config, const fl_model *model) {
    double room[64], before[64];
    for (int k = 0; k < 64; k++) room[k] = before[k] = k + 1;
    const ptrdiff_t ones[] = {0, 1};
    const int zones_out = config->zoneout_h > 0;
    const fl_masks all = {room, room, zones_out ? room : NULL, zones_out ? room : NULL};
    for (int i = 4; i < POWERS; i++)
        for (int offset = -1; offset <= 1; offset++)
            for (ptrdiff_t T = 0; T <= 3; T++)
                for (int masked = 0; masked < 2; masked++)
                    for (int ragged = 0; ragged < 2; ragged++) {
                        if (ragged && T != 1) continue;
                        const ptrdiff_t *starts = ragged ? ones : NULL;
                        const fl_masks *masks = masked ? &all : NULL;
                        const ptrdiff_t B = size_near(powers[i], offset);
                        if (T > 0)
                            CHECK(is_refusal(FORWARD(model, .T = T, .B = B, .starts = starts,
                                                     .x = {room}, .y = {room}, .h_n = room,
                                                     .c_n = room)));
                        if (T > 0)
                            CHECK(is_refusal(RECORD(model, .T = T, .B = B, .starts = starts,
                                                    .x = {room}, .masks = masks, .y = {room},
                                                    .h_n = room, .c_n = room, .tape = room)));
                        CHECK(is_refusal(BACKWARD(model, .parameters = room, .T = T, .B = B,
                                                  .starts = starts, .x = {room}, .masks = masks,
                                                  .tape = room, .dh_0 = room, .dc_0 = room,
                                                  .dparameters = room)));
                    }
    CHECK(memcmp(room, before, sizeof room) == 0);
}

/* The bytes of a tape: right, or refused. */
static void test_tapes(const fl_config *config, const fl_model *model) {
    for (int i = 0; i < POWERS; i++)
        for (int j = 0; j < POWERS; j++) {
            const ptrdiff_t T = size_near(powers[i], 0), B = size_near(powers[j], -1);
            size_t whole = 7, one = 7;
            CHECK(fl_tape_bytes(model, 1, 1, NULL, &one) == FL_OK && one > 0);
            const fl_status status = fl_tape_bytes(model, T, B, NULL, &whole);
            CHECK(status == FL_OK || status == FL_ERROR_OVERFLOW);
#if defined(__SIZEOF_INT128__)
            const wide bytes = (wide)T * (wide)B; /* times `one` may exceed even 128 bits */
            CHECK((status == FL_OK) == (bytes <= (wide)PTRDIFF_MAX / one));
            if (status == FL_OK) CHECK(whole == bytes * one);
#endif
            CHECK(fl_tape_bytes(model, T, 0, NULL, &whole) == FL_OK && whole == 0);
            CHECK(fl_tape_bytes(model, 0, B, NULL, &whole) == FL_OK && whole == 0);
            /* A tape that can't be is refused before anything is read. */
            double room[8] = {0};
            if (status == FL_ERROR_OVERFLOW) {
                CHECK(RECORD(model, .T = T, .B = B, .x = {room}, .y = {room}, .h_n = room,
                             .c_n = room, .tape = room) == FL_ERROR_OVERFLOW);
                CHECK(BACKWARD(model, .parameters = room, .T = T, .B = B, .x = {room}, .tape = room,
                               .dx = {room}, .dh_0 = room, .dc_0 = room,
                               .dparameters = room) == FL_ERROR_OVERFLOW);
            }
            /* Two directions and layers keep a layer's output whole. */
            if (config->num_directions == 2 && config->num_layers > 1 && powers[i] >= 47)
                CHECK(is_refusal(FORWARD(model, .T = T, .B = 1, .x = {room}, .y = {room},
                                         .h_n = room, .c_n = room)));
        }
    size_t bytes;
    const ptrdiff_t falling[] = {0, 2, 1}, rising[] = {0, 1, 3}, late[] = {1, 2},
                    wide_first[] = {0, PTRDIFF_MAX}, negative[] = {0, PTRDIFF_MIN};
    CHECK(fl_tape_bytes(model, 2, 2, falling, &bytes) == FL_ERROR_ARGUMENT);
    CHECK(fl_tape_bytes(model, 2, 2, rising, &bytes) == FL_ERROR_ARGUMENT);
    CHECK(fl_tape_bytes(model, 1, 2, late, &bytes) == FL_ERROR_ARGUMENT);
    CHECK(fl_tape_bytes(model, 1, PTRDIFF_MAX - 1, wide_first, &bytes) == FL_ERROR_ARGUMENT);
    CHECK(fl_tape_bytes(model, 1, PTRDIFF_MAX, wide_first, &bytes) == FL_ERROR_OVERFLOW);
    CHECK(fl_tape_bytes(model, 1, 2, negative, &bytes) == FL_ERROR_ARGUMENT);
    CHECK(fl_tape_bytes(model, PTRDIFF_MIN, 2, NULL, &bytes) == FL_ERROR_ARGUMENT);
    CHECK(fl_tape_bytes(model, 2, PTRDIFF_MIN, NULL, &bytes) == FL_ERROR_ARGUMENT);
}

static void test_streams(const fl_config *config, const fl_model *model) {
    for (int i = 4; i < POWERS; i++)
        for (int offset = -1; offset <= 1; offset++) {
            fl_stream *stream = (fl_stream *)(uintptr_t)1;
            CHECK(is_refusal(fl_stream_create(model, size_near(powers[i], offset), &stream)));
            CHECK(stream == NULL);
        }
    fl_stream *stream;
    CHECK(fl_stream_create(model, 0, &stream) == FL_ERROR_ARGUMENT);
    CHECK(fl_stream_create(model, PTRDIFF_MIN, &stream) == FL_ERROR_ARGUMENT);
    if (config->num_directions == 2) return;
    CHECK(fl_stream_create(model, 1, &stream) == FL_OK);
    double room[8] = {0};
    CHECK(PUSH(stream, .T = PTRDIFF_MIN, .x = {room}, .y = {room}) == FL_ERROR_ARGUMENT);
    CHECK(PUSH(stream, .T = PTRDIFF_MAX, .y = {room}) == FL_ERROR_ARGUMENT);
    CHECK(PUSH(stream, .T = PTRDIFF_MAX, .x = {room}) == FL_ERROR_ARGUMENT);
    fl_stream_destroy(stream);
}

int main(void) {
    if (BITS < 64) return checks_report(); /* these sizes are those of 64 bits */
    test_counts();
    test_models();
    for (int threads = 1; threads <= 64; threads *= 8) { /* shares of B are products too */
        CHECK(fl_set_num_threads(threads) == FL_OK);
        for (int v = 0; v < VARIANTS; v++)
            for (int isa = 0; isa < fl_isa_count(); isa++) {
                fl_model *model = model_of(variants[v], fl_isa_name(isa));
                test_calls(&variants[v], model);
                test_tapes(&variants[v], model);
                test_streams(&variants[v], model);
                fl_model_destroy(model);
            }
    }
    return checks_report();
}
