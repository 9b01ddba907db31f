/* Streams: a model with a state of its own, fed a few steps at a time without allocating. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "forward.h"
#include "model.h"
#include "platform.h"

/* Steps that one run takes at most; a longer push is cut, which does not change its bits. */
enum { STREAM_STEPS = 64 };

struct fl_stream {
    const fl_model *model;
    ptrdiff_t batch;
    size_t state_bytes; /* of h, and of c */
    char *h, *c;        /* (L, B, H) each */
    fl_scratch scratch;
    int odd; /* whether the next step sweeps over U backwards, see forward.c */
};

fl_status fl_stream_create(const fl_model *model, ptrdiff_t batch, fl_stream **stream) {
    if (stream == NULL) return FL_ERROR_ARGUMENT;
    *stream = NULL;
    if (model == NULL || batch < 1 || model->config.num_directions != 1) return FL_ERROR_ARGUMENT;

    size_t state_bytes;
    if (!fl_multiply_sizes((size_t)model->config.hidden_size * model->kernels->real_bytes,
                           (size_t)model->config.num_layers, &state_bytes) ||
        !fl_multiply_sizes(state_bytes, (size_t)batch, &state_bytes))
        return FL_ERROR_OVERFLOW;
    fl_stream *made = calloc(1, sizeof *made);
    if (made == NULL) return FL_ERROR_MEMORY;
    made->model = model;
    made->batch = batch;
    made->state_bytes = state_bytes;
    made->h = fl_alloc_aligned(2, state_bytes);
    fl_status status = made->h ? FL_OK : FL_ERROR_MEMORY;
    if (status == FL_OK) {
        made->c = made->h + state_bytes;
        memset(made->h, 0, 2 * state_bytes);
        status = fl_scratch_create(model, STREAM_STEPS, batch, NULL, 1, &made->scratch);
    }
    if (status != FL_OK) {
        fl_stream_destroy(made);
        return status;
    }
    *stream = made;
    return FL_OK;
}

void fl_stream_destroy(fl_stream *stream) {
    if (stream == NULL) return;
    fl_scratch_destroy(&stream->scratch);
    fl_free_aligned(stream->h);
    free(stream);
}

static void run(fl_stream *stream, ptrdiff_t T, fl_rows x, fl_rows y) {
    const fl_span span = {.T = T,
                          .B = stream->batch,
                          .x = x,
                          .y = y,
                          .h = stream->h,
                          .c = stream->c,
                          .state_stride = stream->batch * stream->model->config.hidden_size};
    const fl_fp_state saved = fl_fp_enter();
    fl_run(stream->model, &span, &stream->scratch, NULL);
    fl_fp_leave(saved);
}

/* The same as run() with T = 1, without its generality: in small layers that is a fifth of a step.
 */
void fl_stream_step(fl_stream *stream, const void *x_t, void *y_t) {
    const fl_model *model = stream->model;
    const ptrdiff_t L = model->config.num_layers, H = model->config.hidden_size, B = stream->batch;
    const fl_panels panels = fl_all_panels(model);
    const size_t layer_bytes = stream->state_bytes / (size_t)L;
    char *const z = stream->scratch.z[0];
    const fl_fp_state saved = fl_fp_enter();
    for (ptrdiff_t l = 0; l < L; l++) {
        const fl_direction *layer = &model->directions[l];
        char *h = stream->h + (size_t)l * layer_bytes, *c = stream->c + (size_t)l * layer_bytes;
        void *out = l == L - 1 ? y_t : stream->scratch.between[l % 2];
        fl_model_product(model, layer, panels, B, x_t, layer->input_size, z, model->z_row);
        fl_model_step(model, layer, panels, B, h, H, z, c, out, H, NULL, stream->odd);
        memcpy(h, out, layer_bytes);
        x_t = out;
    }
    stream->odd = !stream->odd;
    fl_fp_leave(saved);
}

fl_status fl_stream_push(fl_stream *stream, ptrdiff_t T, const void *x, ptrdiff_t x_stride_t,
                         ptrdiff_t x_stride_b, void *y, ptrdiff_t y_stride_t,
                         ptrdiff_t y_stride_b) {
    if (stream == NULL || T < 0 || (T > 0 && (x == NULL || y == NULL))) return FL_ERROR_ARGUMENT;
    const fl_rows in = {(char *)(uintptr_t)x, x_stride_t, x_stride_b, NULL};
    const fl_rows out = {y, y_stride_t, y_stride_b, NULL};
    run(stream, T, in, out);
    return FL_OK;
}

void fl_stream_reset(fl_stream *stream, const unsigned char *mask) {
    const fl_config *config = &stream->model->config;
    const size_t row = (size_t)config->hidden_size * stream->model->kernels->real_bytes;
    for (ptrdiff_t l = 0; l < config->num_layers; l++)
        for (ptrdiff_t b = 0; b < stream->batch; b++) {
            if (mask != NULL && !mask[b]) continue;
            const size_t start = (size_t)(l * stream->batch + b) * row;
            memset(stream->h + start, 0, row);
            memset(stream->c + start, 0, row);
        }
}

void fl_stream_get_state(const fl_stream *stream, void *h, void *c) {
    memcpy(h, stream->h, stream->state_bytes);
    memcpy(c, stream->c, stream->state_bytes);
}

void fl_stream_set_state(fl_stream *stream, const void *h, const void *c) {
    memcpy(stream->h, h, stream->state_bytes);
    memcpy(stream->c, c, stream->state_bytes);
}
