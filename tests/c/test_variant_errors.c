/* Every documented error of variants of the cell and of masks, through the C API alone. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "calls.h"
#include "check.h"
#include "fastlstm.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))

static int is_filled(const void *data, size_t count, int byte) {
    const unsigned char *bytes = data;
    for (size_t j = 0; j < count; j++)
        if (bytes[j] != byte) return 0;
    return 1;
}

static void test_config_errors(void) {
    const fl_config good = CONFIG(2, 3, 1, 1, 1, FL_FLOAT32);
    const fl_activation beyond = (fl_activation)(FL_IDENTITY + 1), below = (fl_activation)-1;
    fl_config bad[] = {good, good, good, good, good, good, good, good, good, good,
                       good, good, good, good, good, good, good, good, good};
    int count = 0;
    bad[count++].proj_size = 3;
    bad[count++].proj_size = 4;
    bad[count++].proj_size = -1;
    bad[count++].gate_activation = beyond;
    bad[count++].gate_activation = below;
    bad[count++].cell_activation = beyond;
    bad[count++].cell_activation = below;
    bad[count++].output_activation = beyond;
    bad[count++].output_activation = below;
    bad[count++].clip = -1;
    bad[count++].clip = NAN;
    bad[count++].cell_clip = -1;
    bad[count++].cell_clip = NAN;
    bad[count++].zoneout_h = -0.1;
    bad[count++].zoneout_h = 1.1;
    bad[count++].zoneout_h = NAN;
    bad[count++].zoneout_c = -0.1;
    bad[count++].zoneout_c = 1.1;
    bad[count++].zoneout_c = NAN;
    CHECK(count == COUNT(bad));
    const float parameters[1000] = {0};
    int here;
    for (int i = 0; i < count; i++) {
        fl_model *model = (fl_model *)(void *)&here;
        size_t number = 7;
        CHECK(fl_parameter_count(&bad[i], &number) == FL_ERROR_ARGUMENT && number == 7);
        CHECK(fl_model_create(&bad[i], NULL, parameters, &model) == FL_ERROR_ARGUMENT);
        CHECK(model == NULL);
    }

    /* The largest H that fits without peepholes or layer normalisation. */
    fl_config config = CONFIG(1, PTRDIFF_MAX / 8 / 10, 1, 1, 0, FL_FLOAT32, .proj_size = 1);
    size_t number;
    CHECK(fl_parameter_count(&config, &number) == FL_OK);
    CHECK(number == 9 * (size_t)config.hidden_size);
    for (int i = 0; i < 3; i++) {
        fl_config larger = config;
        larger.has_peepholes = i == 0;
        larger.layer_norm = i == 1;
        if (i == 2) larger.proj_size = PTRDIFF_MAX / 8 / 16;
        fl_model *model = (fl_model *)(void *)&here;
        CHECK(fl_parameter_count(&larger, &number) == FL_ERROR_OVERFLOW);
        CHECK(fl_model_create(&larger, NULL, parameters, &model) == FL_ERROR_OVERFLOW);
        CHECK(model == NULL);
    }
}

/* Arrays of a call, and whether nothing was written to them. */
typedef struct outputs {
    float y[60], h[40], c[40], dx[20], dh[40], dc[40], dparameters[1000], tape[2000];
} outputs;
static int is_untouched(const outputs *got) { return is_filled(got, sizeof *got, 0x5a); }

static void test_call_errors(void) {
    const fl_config plain = CONFIG(2, 5, 2, 1, 1, FL_FLOAT32, .proj_size = 3),
                    zoneout_h = CONFIG(2, 5, 2, 1, 1, FL_FLOAT32, .proj_size = 3, .zoneout_h = 0.1),
                    zoneout_c =
                        CONFIG(2, 5, 2, 1, 1, FL_FLOAT32, .layer_norm = 1, .zoneout_c = 0.1);
    static const float parameters[1000] = {0}, numbers[200] = {0};
    const struct {
        const fl_config *config;
        fl_masks masks;
        fl_status status;
    } calls[] = {
        {&plain, {.zoneout_h = numbers}, FL_ERROR_ARGUMENT},
        {&plain, {.zoneout_c = numbers}, FL_ERROR_ARGUMENT},
        {&plain, {.recurrent = numbers, .between = numbers}, FL_OK},
        {&zoneout_h, {.zoneout_h = numbers}, FL_OK},
        {&zoneout_h, {.zoneout_c = numbers}, FL_ERROR_ARGUMENT},
        {&zoneout_c, {.zoneout_h = numbers}, FL_ERROR_ARGUMENT},
        {&zoneout_c, {.zoneout_c = numbers}, FL_OK},
    };
    const ptrdiff_t many = PTRDIFF_MAX / 1000; /* sequences, whose sizes fit */
    for (size_t i = 0; i < COUNT(calls); i++) {
        fl_model *model = NULL;
        outputs got;
        size_t bytes = 0;
        CHECK(fl_model_create(calls[i].config, NULL, parameters, &model) == FL_OK);
        const ptrdiff_t P = i == 5 || i == 6 ? 5 : 3;
        CHECK(fl_tape_bytes(model, 2, 2, NULL, &bytes) == FL_OK && bytes <= sizeof got.tape);
        memset(&got, 0x5a, sizeof got);
        CHECK(RECORD(model, .T = 2, .B = 2, .x = {numbers, 4, 2}, .masks = &calls[i].masks,
                     .y = {got.y, 2 * P, P}, .h_n = got.h, .c_n = got.c,
                     .tape = got.tape) == calls[i].status);
        CHECK((calls[i].status == FL_OK) == !is_untouched(&got));
        if (calls[i].status != FL_OK) memset(got.tape, 0, sizeof got.tape);
        outputs kept = got;
        memset(kept.dx, 0x5a, sizeof kept.dx);
        CHECK(BACKWARD(model, .parameters = parameters, .T = 2, .B = 2, .x = {numbers, 4, 2},
                       .masks = &calls[i].masks, .tape = got.tape, .dx = {got.dx, 4, 2},
                       .dh_0 = got.dh, .dc_0 = got.dc,
                       .dparameters = got.dparameters) == calls[i].status);
        CHECK((calls[i].status != FL_OK) == (memcmp(&kept, &got, sizeof got) == 0));

        memset(&got, 0x5a, sizeof got);
        CHECK(FORWARD(model, .T = 1, .B = many, .x = {numbers}, .h_n = got.h, .c_n = got.c) !=
              FL_OK);
        CHECK(RECORD(model, .T = PTRDIFF_MAX / 8, .B = 1, .x = {numbers}, .y = {got.y},
                     .h_n = got.h, .c_n = got.c, .tape = got.tape) == FL_ERROR_OVERFLOW);
        CHECK(BACKWARD(model, .parameters = parameters, .T = 1, .B = many / 8, .x = {numbers},
                       .tape = parameters, .dx = {got.dx}, .dh_0 = got.dh, .dc_0 = got.dc,
                       .dparameters = got.dparameters) != FL_OK);
        CHECK(is_untouched(&got));
        CHECK(fl_tape_bytes(model, PTRDIFF_MAX / 8, 1, NULL, &bytes) == FL_ERROR_OVERFLOW);
        fl_stream *stream = (fl_stream *)(void *)&got;
        CHECK(fl_stream_create(model, many, &stream) != FL_OK && stream == NULL);
        fl_model_destroy(model);
    }
}

int main(void) {
    test_config_errors();
    test_call_errors();
    return checks_report();
}
