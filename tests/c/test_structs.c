/* Structs that grow: callers whose header is older or newer than the library, and the version. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "check.h"
#include "fastlstm.h"
#include "structs.h"

enum { I = 2, H = 3, PARAMETERS = 4 * H * (I + H + 2), TAPE = 5 * H };

static float parameters[PARAMETERS], x[I] = {1, -1}, dy[H] = {1, 2, 3};
static float y[H], h[H], c[H], tape[TAPE], dx[I];
static fl_model *model;
static fl_stream *stream;

/* What the calls write, as they find it. */
static void clear(void) {
    float *const arrays[] = {y, h, c, dx};
    const size_t bytes[] = {sizeof y, sizeof h, sizeof c, sizeof dx};
    for (int i = 0; i < 4; i++) memset(arrays[i], 0, bytes[i]);
}

/* Each takes a struct of any size and returns the status; *written tells whether anything was. */
static fl_status forward(const void *call, int *written) {
    clear();
    const fl_status status = fl_forward(model, call);
    *written = y[0] != 0;
    return status;
}
static fl_status record(const void *call, int *written) {
    clear();
    const fl_status status = fl_record(model, call);
    *written = y[0] != 0;
    return status;
}
static fl_status backward(const void *call, int *written) {
    clear();
    const fl_status status = fl_backward(model, call);
    *written = dx[0] != 0;
    return status;
}
static fl_status push(const void *call, int *written) {
    clear();
    const fl_status status = fl_stream_push(stream, call);
    *written = y[0] != 0;
    return status;
}
static fl_status count(const void *config, int *written) {
    size_t reals = 0;
    const fl_status status = fl_parameter_count(config, &reals);
    *written = reals != 0;
    return status;
}
static fl_status create(const void *config, int *written) {
    fl_model *made = NULL;
    const fl_status status = fl_model_create(config, NULL, parameters, &made);
    *written = made != NULL;
    fl_model_destroy(made);
    return status;
}

/* A struct as callers have it whose header knows fewer fields, as many, or more: at least the
 * `first` bytes, those of the first version of the struct. */
static void check_sizes(fl_status (*call)(const void *, int *), const void *given, size_t first,
                        size_t size) {
    enum { ROOM = 512, LATER = 24 };
    union {
        char bytes[ROOM];
        size_t size;
        void *aligned;
    } caller;
    int written;
    CHECK(size + LATER <= ROOM);
    CHECK(call(NULL, &written) == FL_ERROR_ARGUMENT && !written);
    for (size_t known = 0; known <= size + LATER; known++) {
        memset(&caller, 0, sizeof caller);
        memcpy(&caller, given, size);
        caller.size = known;
        const fl_status status = call(&caller, &written);
        CHECK(status == (known < first ? FL_ERROR_ARGUMENT : FL_OK));
        CHECK(written == (known >= first));
    }
    for (size_t at = size; at < size + LATER; at++) { /* asks for what the library has not */
        memset(&caller, 0, sizeof caller);
        memcpy(&caller, given, size);
        caller.size = size + LATER;
        caller.bytes[at] = 1;
        CHECK(call(&caller, &written) == FL_ERROR_ARGUMENT && !written);
        caller.size = at; /* beyond the struct: of no concern */
        CHECK(call(&caller, &written) == FL_OK && written);
    }
    memcpy(&caller, given, size);
    caller.size = SIZE_MAX; /* no struct's: a field that was never set */
    caller.bytes[size] = 1;
    CHECK(call(&caller, &written) == FL_ERROR_ARGUMENT && !written);
}

static void test_calls(void) {
    const fl_config config = {.size = sizeof config,
                              .input_size = I,
                              .hidden_size = H,
                              .num_layers = 1,
                              .num_directions = 1,
                              .has_bias = 1,
                              .dtype = FL_FLOAT32};
    for (int i = 0; i < PARAMETERS; i++) parameters[i] = (float)(i % 7 - 3) / 8;
    CHECK(fl_model_create(&config, NULL, parameters, &model) == FL_OK);
    CHECK(fl_stream_create(model, 1, &stream) == FL_OK);
    const fl_input in = {x, I, I}, gradient = {dy, H, H};
    const fl_output out = {y, H, H}, input_gradient = {dx, I, I};
    const fl_forward_call forward_call = {
        .size = sizeof forward_call, .T = 1, .B = 1, .x = in, .y = out, .h_n = h, .c_n = c};
    const fl_record_call record_call = {.size = sizeof record_call,
                                        .T = 1,
                                        .B = 1,
                                        .x = in,
                                        .y = out,
                                        .h_n = h,
                                        .c_n = c,
                                        .tape = tape};
    const fl_backward_call backward_call = {.size = sizeof backward_call,
                                            .T = 1,
                                            .B = 1,
                                            .x = in,
                                            .parameters = parameters,
                                            .tape = tape,
                                            .dy = gradient,
                                            .dx = input_gradient};
    const fl_stream_push_call push_call = {.size = sizeof push_call, .T = 1, .x = in, .y = out};
    check_sizes(count, &config, offsetof(fl_config, bits), sizeof config);
    check_sizes(create, &config, offsetof(fl_config, bits), sizeof config);
    check_sizes(forward, &forward_call, offsetof(fl_forward_call, lengths), sizeof forward_call);
    check_sizes(record, &record_call, sizeof record_call, sizeof record_call);
    check_sizes(backward, &backward_call, sizeof backward_call, sizeof backward_call);
    check_sizes(push, &push_call, sizeof push_call, sizeof push_call);
    fl_stream_destroy(stream);
    fl_model_destroy(model);
}

/* A struct that has grown since: what an older caller does not know of it is zero. */
static void test_older_caller(void) {
    typedef struct grown {
        size_t size;
        int first, second;
        double later[2];
    } grown;
    volatile size_t first_size = FL_FIRST_SIZE(grown, second); /* or compilers foresee the end */
    const grown given = {.size = first_size, .first = 1, .second = 2, .later = {3, 4}};
    grown own;
    CHECK(first_size == sizeof(size_t) + 2 * sizeof(int));
    memset(&own, 0x5a, sizeof own);
    const grown *got = fl_struct_read(&given, &own, sizeof own, first_size);
    CHECK(got == &own && got->first == 1 && got->second == 2);
    CHECK(got != NULL && got->later[0] == 0 && got->later[1] == 0);
    grown newer = given;
    newer.size = sizeof newer;
    got = fl_struct_read(&newer, &own, sizeof own, first_size);
    CHECK(got != NULL && got->later[0] == 3 && got->later[1] == 4);
    newer.size = first_size - 1;
    CHECK(fl_struct_read(&newer, &own, sizeof own, first_size) == NULL);
}

static void test_version(void) {
    char expected[64];
    snprintf(expected, sizeof expected, "%d.%d.%d", FL_VERSION_MAJOR, FL_VERSION_MINOR,
             FL_VERSION_PATCH);
    CHECK(strcmp(fl_version(), expected) == 0);
    printf("version %s\n", fl_version());
}

int main(void) {
    test_calls();
    test_older_caller();
    test_version();
    return checks_report();
}
