/* The golden data, on every instruction set: the bits that the files hold, wherever it runs.
 *
 *     test_golden FILE...      files of tests/tools/raw_golden_files.py, which says what is in them
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "check.h"
#include "fastlstm.h"

enum { PARAMETERS, X, H_0, C_0, DY, DH_N, DC_N, INPUTS };
enum { Y, H_N, C_N, DX, DH_0, DC_0, DPARAMETERS, OUTPUTS };
enum { T, B, I, H, L, D, BIAS, DOUBLE, COUNT, HEADER };

static void *read_bytes(FILE *file, size_t bytes) {
    void *data = malloc(bytes + 1);
    CHECK(data != NULL && fread(data, 1, bytes, file) == bytes);
    return data;
}

static void check_file(const char *path) {
    int64_t n[HEADER] = {0};
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL && fread(n, sizeof n, 1, file) == 1);
    if (file == NULL || n[T] < 1) return;
    const size_t real = n[DOUBLE] ? sizeof(double) : sizeof(float);
    const size_t x = (size_t)(n[T] * n[B] * n[I]) * real;
    const size_t y = (size_t)(n[T] * n[B] * n[D] * n[H]) * real;
    const size_t state = (size_t)(n[L] * n[D] * n[B] * n[H]) * real;
    const size_t parameters = (size_t)n[COUNT] * real;
    const size_t in_bytes[INPUTS] = {parameters, x, state, state, y, state, state};
    const size_t out_bytes[OUTPUTS] = {y, state, state, x, state, state, parameters};
    void *in[INPUTS], *expected[OUTPUTS];
    for (int i = 0; i < INPUTS; i++) in[i] = read_bytes(file, in_bytes[i]);
    for (int i = 0; i < OUTPUTS; i++) expected[i] = read_bytes(file, out_bytes[i]);
    CHECK(fgetc(file) == EOF);
    fclose(file);

    const fl_config config = CONFIG(n[I], n[H], n[L], n[D], (int)n[BIAS], n[DOUBLE] != 0);
    const ptrdiff_t x_row = n[I], y_row = n[D] * n[H];
    size_t count = 0, tape_bytes = 0;
    CHECK(fl_parameter_count(&config, &count) == FL_OK && count == (size_t)n[COUNT]);
    for (int isa = 0; isa < fl_isa_count(); isa++) {
        fl_model *model = NULL;
        void *out[OUTPUTS];
        for (int i = 0; i < OUTPUTS; i++) {
            out[i] = malloc(out_bytes[i] + 1);
            memset(out[i], 0x5a, out_bytes[i]);
        }
        CHECK(fl_model_create(&config, fl_isa_name(isa), in[PARAMETERS], &model) == FL_OK);
        CHECK(FORWARD(model, .T = n[T], .B = n[B], .x = {in[X], n[B] * x_row, x_row},
                      .h_0 = in[H_0], .c_0 = in[C_0], .y = {out[Y], n[B] * y_row, y_row},
                      .h_n = out[H_N], .c_n = out[C_N]) == FL_OK);
        for (int i = Y; i <= C_N; i++) {
            CHECK(memcmp(out[i], expected[i], out_bytes[i]) == 0);
            memset(out[i], 0x5a, out_bytes[i]);
        }
        CHECK(fl_tape_bytes(model, n[T], n[B], NULL, &tape_bytes) == FL_OK);
        void *tape = malloc(tape_bytes);
        CHECK(RECORD(model, .T = n[T], .B = n[B], .x = {in[X], n[B] * x_row, x_row}, .h_0 = in[H_0],
                     .c_0 = in[C_0], .y = {out[Y], n[B] * y_row, y_row}, .h_n = out[H_N],
                     .c_n = out[C_N], .tape = tape) == FL_OK);
        CHECK(BACKWARD(model, .parameters = in[PARAMETERS], .T = n[T], .B = n[B],
                       .x = {in[X], n[B] * x_row, x_row}, .h_0 = in[H_0], .c_0 = in[C_0],
                       .tape = tape, .dy = {in[DY], n[B] * y_row, y_row}, .dh_n = in[DH_N],
                       .dc_n = in[DC_N], .dx = {out[DX], n[B] * x_row, x_row}, .dh_0 = out[DH_0],
                       .dc_0 = out[DC_0], .dparameters = out[DPARAMETERS]) == FL_OK);
        for (int i = 0; i < OUTPUTS; i++) {
            CHECK(memcmp(out[i], expected[i], out_bytes[i]) == 0);
            free(out[i]);
        }
        free(tape);
        fl_model_destroy(model);
    }
    for (int i = 0; i < INPUTS; i++) free(in[i]);
    for (int i = 0; i < OUTPUTS; i++) free(expected[i]);
}

int main(int count, char **arguments) {
    for (int i = 1; i < count; i++) check_file(arguments[i]);
    printf("%d files on", count - 1);
    for (int i = 0; i < fl_isa_count(); i++) printf(" %s", fl_isa_name(i));
    printf("\n");
    CHECK(count > 1);
    return checks_report();
}
