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
    size_t h_bytes, c_bytes;
    char *h, *c; /* (L, B, P), (L, B, H) */
    char *saved; /* c and h as they were before a push that may be given up */
    fl_scratch scratch;
    int odd; /* whether the next step sweeps over U backwards, see forward.c */
};

fl_status fl_stream_create(const fl_model *model, ptrdiff_t batch, fl_stream **stream) {
    if (stream == NULL) return FL_ERROR_ARGUMENT;
    *stream = NULL;
    if (model == NULL || batch < 1 || model->config.num_directions != 1 || model->config.reverse)
        return FL_ERROR_ARGUMENT;

    size_t c_bytes;
    if (!fl_multiply_sizes((size_t)model->config.hidden_size * model->kernels->real_bytes,
                           (size_t)model->config.num_layers, &c_bytes) ||
        !fl_multiply_sizes(c_bytes, (size_t)batch, &c_bytes))
        return FL_ERROR_OVERFLOW;
    const size_t h_bytes = c_bytes / (size_t)model->config.hidden_size * (size_t)model->output_size;
    fl_stream *made = calloc(1, sizeof *made);
    if (made == NULL) return FL_ERROR_MEMORY;
    made->model = model;
    made->batch = batch;
    made->c_bytes = c_bytes;
    made->h_bytes = h_bytes;
    made->c = fl_alloc_aligned(4, c_bytes);
    fl_status status = made->c ? FL_OK : FL_ERROR_MEMORY;
    if (status == FL_OK) {
        made->h = made->c + c_bytes;
        made->saved = made->h + h_bytes;
        memset(made->c, 0, c_bytes + h_bytes);
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
    fl_free_aligned(stream->c);
    free(stream);
}

static void run(fl_stream *stream, ptrdiff_t T, fl_rows x, fl_rows y, const fl_share *share) {
    const fl_span span = {.T = T,
                          .B = stream->batch,
                          .x = x,
                          .y = y,
                          .h = stream->h,
                          .c = stream->c,
                          .h_stride = stream->batch * stream->model->output_size,
                          .c_stride = stream->batch * stream->model->config.hidden_size};
    const fl_fp_state saved = fl_fp_enter();
    fl_run(stream->model, &span, &stream->scratch, share);
    fl_fp_leave(saved);
}

/* The same as run() with T = 1, without its generality: in small layers that is a fifth of a step.
 */
void fl_stream_step(fl_stream *stream, const void *x_t, void *y_t) {
    const fl_model *model = stream->model;
    if (model->is_variant) {
        const ptrdiff_t I = model->config.input_size, P = model->output_size;
        const fl_rows x = {(char *)(uintptr_t)x_t, 0, I, NULL, 0}, y = {y_t, 0, P, NULL, 0};
        run(stream, 1, x, y, NULL);
        return;
    }
    const ptrdiff_t L = model->config.num_layers, H = model->config.hidden_size, B = stream->batch;
    const fl_panels panels = fl_all_panels(model);
    const size_t layer_bytes = stream->c_bytes / (size_t)L;
    char *const z = stream->scratch.z[0];
    const fl_fp_state saved = fl_fp_enter();
    for (ptrdiff_t l = 0; l < L; l++) {
        const fl_direction *layer = &model->directions[l];
        char *h = stream->h + (size_t)l * layer_bytes, *c = stream->c + (size_t)l * layer_bytes;
        void *out = l == L - 1 ? y_t : stream->scratch.between[l % 2];
        fl_model_product(model, panels, B, layer->input_size, x_t, layer->input_size, layer->w,
                         layer->bias, z, model->z_row);
        fl_model_step(model, layer, panels, B, h, H, z, c, out, H, NULL, stream->odd);
        memcpy(h, out, layer_bytes);
        x_t = out;
    }
    stream->odd = !stream->odd;
    fl_fp_leave(saved);
}

fl_status fl_stream_push(fl_stream *stream, ptrdiff_t T, const void *x, ptrdiff_t x_stride_t,
                         ptrdiff_t x_stride_b, void *y, ptrdiff_t y_stride_t, ptrdiff_t y_stride_b,
                         const fl_watch *watch) {
    if (stream == NULL || T < 0 || (T > 0 && (x == NULL || y == NULL))) return FL_ERROR_ARGUMENT;
    const fl_rows in = {(char *)(uintptr_t)x, x_stride_t, x_stride_b, NULL, 0};
    const fl_rows out = {y, y_stride_t, y_stride_b, NULL, 0};
    fl_stop stop = fl_stop_begin(watch);
    const fl_share share = {0, 1, FL_ALL_DIRECTIONS, NULL, NULL, watch ? &stop : NULL, 0};
    const size_t state_bytes = stream->c_bytes + stream->h_bytes; /* c, then h */
    if (watch) memcpy(stream->saved, stream->c, state_bytes);
    run(stream, T, in, out, &share);
    if (!stop.cancelled) return FL_OK;
    memcpy(stream->c, stream->saved, state_bytes);
    return FL_ERROR_CANCELLED;
}

void fl_stream_reset(fl_stream *stream, const unsigned char *mask) {
    const fl_config *config = &stream->model->config;
    const size_t rows = (size_t)(config->num_layers * stream->batch);
    const size_t h_row = stream->h_bytes / rows, c_row = stream->c_bytes / rows;
    for (ptrdiff_t l = 0; l < config->num_layers; l++)
        for (ptrdiff_t b = 0; b < stream->batch; b++) {
            if (mask != NULL && !mask[b]) continue;
            const size_t row = (size_t)(l * stream->batch + b);
            memset(stream->h + row * h_row, 0, h_row);
            memset(stream->c + row * c_row, 0, c_row);
        }
}

void fl_stream_get_state(const fl_stream *stream, void *h, void *c) {
    memcpy(h, stream->h, stream->h_bytes);
    memcpy(c, stream->c, stream->c_bytes);
}

void fl_stream_set_state(fl_stream *stream, const void *h, const void *c) {
    memcpy(stream->h, h, stream->h_bytes);
    memcpy(stream->c, c, stream->c_bytes);
}
