/* Scratch memory of a run, and how long its chunks of time are. */
#include "scratch.h"

#include "memory.h"
#include "side_by_side.h"

/* A chunk has at most so many steps, beyond which a longer one gains nothing. But where a core's
 * own caches have no room for W beside U and z, W is read from afar for each chunk: then z may take
 * up to so many bytes. */
enum { CHUNK_STEPS = 256, FAR_CHUNK_BYTES = 4 * 1024 * 1024 };

/* Steps of a chunk of T or fewer, of `z_step` bytes of z each. Where W comes from afar it has about
 * I rows: then z causes no more traffic than W. */
static ptrdiff_t chunk_of(const fl_model *model, ptrdiff_t T, ptrdiff_t z_step) {
    ptrdiff_t bytes = FL_CHUNK_BYTES, steps = CHUNK_STEPS, I = model->config.input_size;
    if (model->config.num_layers > 1)
        I = fl_size_max(I, model->config.num_directions * model->output_size);
    const ptrdiff_t w_bytes = fl_model_matrix_bytes(model, I);
    if (w_bytes > model->left_bytes) {
        bytes = fl_size_max(bytes, fl_size_min(w_bytes, FAR_CHUNK_BYTES));
        steps = fl_size_max(steps, I);
    }
    return fl_size_min(T, fl_size_min(fl_size_max(bytes / z_step, 1), steps));
}

/* Bytes of a room: digits, then units, in whole lines, so that no two threads write to the same. */
static size_t room_bytes(const fl_model *model, ptrdiff_t rows) {
    const size_t bytes = (size_t)rows * ((size_t)model->digit_row + sizeof(float));
    return (bytes + FL_LINE - 1) / FL_LINE * FL_LINE;
}

fl_room fl_scratch_room(const fl_model *model, const fl_direction_scratch *scratch,
                        ptrdiff_t index) {
    char *at = scratch->rooms + (size_t)index * room_bytes(model, scratch->room_rows);
    float *units = (float *)(void *)(at + scratch->room_rows * model->digit_row);
    return (fl_room){{(uint8_t *)at, units}, scratch->room_rows};
}

fl_status fl_scratch_create(fl_scratch *made, const fl_model *model, ptrdiff_t T, ptrdiff_t B,
                            const ptrdiff_t *starts, int directions_at_once, int threads) {
    const size_t real = model->kernels->real_bytes, rows = (size_t)B;
    const size_t D = (size_t)model->config.num_directions, H = (size_t)model->config.hidden_size;
    const size_t P = (size_t)model->output_size, y_row = D * P * real; /* fits, as z_row: model.c */
    const ptrdiff_t buffers = model->config.num_layers - 1;
    const size_t cells = model->needs_rows ? rows : 0, norm = model->config.layer_norm != 0;
    const size_t I = (size_t)fl_size_max(model->config.input_size, (ptrdiff_t)(D * P));
    size_t z_step, buffer_bytes;
    if (!fl_size_multiply((size_t)model->z_row * real, rows, &z_step)) return FL_ERROR_OVERFLOW;
    made->chunk = chunk_of(model, T, (ptrdiff_t)z_step);
    const ptrdiff_t lane_steps = fl_lanes_steps(model, T, B, starts);
    ptrdiff_t inputs = 0; /* rows; no more than z takes, but for one step */
    if (starts) {
        const size_t fit = (size_t)made->chunk * z_step / (I * real);
        inputs = fl_size_max(B, fl_size_min(made->chunk * B, (ptrdiff_t)fit));
    }
    /* With two directions a layer needs all of the layer below. */
    const size_t between_rows = (size_t)(starts && D == 2 ? starts[T] : B);
    const ptrdiff_t between_steps = D == 1 ? made->chunk : starts ? 1 : T;
    if (!fl_size_multiply(y_row, between_rows, &buffer_bytes) ||
        !fl_size_multiply(buffer_bytes, (size_t)between_steps, &buffer_bytes))
        return FL_ERROR_OVERFLOW;

    const ptrdiff_t room_rows = fl_room_rows(model, made->chunk * B);
    fl_part parts[3 + 2 * 8] = {{&made->last, 2 * rows, y_row},
                                {&made->between[0], buffers > 0, buffer_bytes},
                                {&made->between[1], buffers > 1, buffer_bytes}};
    int count = 3;
    for (int d = 0; d < directions_at_once; d++) {
        fl_direction_scratch *direction = &made->directions[d];
        direction->input_rows = inputs;
        direction->room_rows = room_rows;
        parts[count++] =
            (fl_part){&direction->z, (size_t)fl_size_max(made->chunk, 2 * lane_steps), z_step};
        parts[count++] = (fl_part){&direction->inputs, (size_t)inputs, I * real};
        parts[count++] = (fl_part){&direction->masked, rows, P * real};
        parts[count++] = (fl_part){&direction->cells, cells, H * real};
        parts[count++] = (fl_part){&direction->candidates, norm * rows, H * real};
        parts[count++] = (fl_part){&direction->recurrent, norm, z_step};
        parts[count++] = (fl_part){&direction->normal, norm * 4 * FL_NORM_ROWS, H * real};
        parts[count++] =
            (fl_part){&direction->rooms, (size_t)threads, room_bytes(model, room_rows)};
    }
    const fl_status status = fl_memory_alloc_parts(parts, count, &made->memory);
    if (status == FL_OK && directions_at_once == 1) made->directions[1] = made->directions[0];
    return status;
}

void fl_scratch_destroy(fl_scratch *scratch) { fl_memory_free(scratch->memory); }
