/* Streams: a model with a state of its own, fed a few steps at a time without allocating. */
#include <stdlib.h>
#include <string.h>

#include "fastlstm.h"
#include "memory.h"
#include "model.h"
#include "platform.h"
#include "quantized.h"
#include "rows.h"
#include "run.h"
#include "run_shared.h"
#include "share.h"
#include "structs.h"
#include "threads.h"

/* Steps that one run takes at most; a longer push is cut, which does not change its bits. Units
 * that take their part of W x and of U h together, where a core's cache is too small for all; of
 * weights in digits, as many as have so many bytes. */
enum { STREAM_STEPS = 64, UNITS_AT_ONCE = 32 };

struct fl_stream {
    const fl_model *model;
    ptrdiff_t batch;
    size_t h_bytes, c_bytes;
    char *h, *c; /* (L, B, P), (L, B, H) */
    char *saved; /* c and h as they were before a push that may be given up */
    fl_scratch scratch;
    int odd;        /* whether the next step sweeps over U backwards, see run.c */
    int is_general; /* whether a step is one of fl_step_general, or may be worth sharing */
};

/* T steps, as what there is to share. */
static fl_work work_of(const fl_stream *stream, ptrdiff_t T) {
    return (fl_work){.model = stream->model,
                     .B = stream->batch,
                     .rows = (double)T * (double)stream->batch,
                     .stages = fl_model_stages(stream->model, 0),
                     .one_scratch = 1};
}

fl_status fl_stream_create(const fl_model *model, ptrdiff_t batch, fl_stream **stream) {
    if (stream == NULL) return FL_ERROR_ARGUMENT;
    *stream = NULL;
    if (model == NULL || batch < 1 || model->config.num_directions != 1 || model->config.reverse)
        return FL_ERROR_ARGUMENT;

    size_t c_bytes;
    if (!fl_size_multiply((size_t)model->config.hidden_size * model->kernels->real_bytes,
                          (size_t)model->config.num_layers, &c_bytes) ||
        !fl_size_multiply(c_bytes, (size_t)batch, &c_bytes))
        return FL_ERROR_OVERFLOW;
    const size_t h_bytes = c_bytes / (size_t)model->config.hidden_size * (size_t)model->output_size;
    fl_stream *made = calloc(1, sizeof *made);
    if (made == NULL) return FL_ERROR_MEMORY;
    made->model = model;
    made->batch = batch;
    made->c_bytes = c_bytes;
    made->h_bytes = h_bytes;
    const fl_work work = work_of(made, 1);
    made->is_general = model->is_general || fl_work_is_shareable(&work);
    made->c = fl_memory_alloc(4, c_bytes);
    fl_status status = made->c ? FL_OK : FL_ERROR_MEMORY;
    if (status == FL_OK) {
        made->h = made->c + c_bytes;
        made->saved = made->h + h_bytes;
        memset(made->c, 0, c_bytes + h_bytes);
        const int threads = (int)fl_size_min(FL_MAX_THREADS, model->panels + 1);
        status = fl_scratch_create(&made->scratch, model, STREAM_STEPS, batch, NULL, 1, threads);
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
    fl_memory_free(stream->c);
    free(stream);
}

static void run(fl_stream *stream, ptrdiff_t T, fl_rows x, fl_rows y, fl_stop *stop) {
    const fl_span span = {.T = T,
                          .B = stream->batch,
                          .x = x,
                          .y = y,
                          .h = stream->h,
                          .c = stream->c,
                          .h_stride = stream->batch * stream->model->output_size,
                          .c_stride = stream->batch * stream->model->config.hidden_size};
    const fl_work work = work_of(stream, T);
    fl_plan plan = fl_plan_begin(&work);
    fl_span_run_shared(&span, stream->model, &stream->scratch, &plan, stop);
    fl_plan_end(&plan);
}

/* A step of a large layer, as its threads see it. */
typedef struct shared_step {
    fl_stream *stream;
    const void *x_t;
    void *y_t;
    int threads;
    fl_barrier barrier;
} shared_step;

/* Thread `index`'s units. Where not all weights stay in its cache, it takes W's beside U's, from
 * the first to the last and in the next step back again: what the step before read last is still
 * there.
 */
static void step_units(void *context, int index) {
    shared_step *step = context;
    const fl_stream *stream = step->stream;
    const fl_model *model = stream->model;
    const ptrdiff_t L = model->config.num_layers, H = model->config.hidden_size;
    const ptrdiff_t B = stream->batch;
    const size_t layer_bytes = stream->c_bytes / (size_t)L;
    const fl_panels own = fl_panels_part(model, index, step->threads);
    const ptrdiff_t units =
        model->digits ? 4 * UNITS_AT_ONCE * 8 / model->config.bits : UNITS_AT_ONCE;
    const ptrdiff_t at_once =
        fl_model_is_far(model) ? fl_size_max(units / model->kernels->lanes, 1) : own.count + 1;
    const fl_room room = fl_scratch_room(model, &stream->scratch.directions[0], index);
    const ptrdiff_t stops = (own.count + own.narrow - 1) / at_once + 1;
    char *const z = stream->scratch.directions[0].z;
    const void *x_t = step->x_t;
    const fl_fp_state saved = fl_fp_enter();
    for (ptrdiff_t l = 0; l < L; l++) {
        const fl_direction *layer = &model->directions[l];
        char *h = stream->h + (size_t)l * layer_bytes, *c = stream->c + (size_t)l * layer_bytes;
        void *out = l == L - 1 ? step->y_t : stream->scratch.between[l % 2];
        for (ptrdiff_t i = 0; i < stops; i++) {
            const ptrdiff_t stop = stream->odd ? stops - 1 - i : i;
            const ptrdiff_t first = stop * at_once;
            fl_panels panels = {own.first + first, 0, own.narrow && stop == stops - 1};
            panels.count = fl_size_min(at_once, own.count - first);
            if (model->digits) {
                fl_quantized_inputs(model, layer, panels, B, x_t, layer->input_size, z,
                                    model->z_row, &room);
                fl_quantized_step(model, layer, panels, B, h, H, z, c, out, H, stream->odd, &room);
                continue;
            }
            fl_model_product(model, panels, B, layer->input_size, x_t, layer->input_size, layer->w,
                             layer->bias, z, model->z_row);
            fl_model_step(model, layer, panels, B, h, H, z, c, out, H, NULL, stream->odd);
        }
        if (step->threads > 1) fl_barrier_wait(&step->barrier); /* until all have read h */
        if (index == 0) memcpy(h, out, layer_bytes);
        x_t = out;
    }
    fl_fp_leave(saved);
}

static FL_NOINLINE void step_general(fl_stream *stream, const void *x_t, void *y_t) {
    if (stream->model->is_variant) {
        const fl_input x = {x_t, 0, stream->model->config.input_size};
        const fl_output y = {y_t, 0, stream->model->output_size};
        run(stream, 1, fl_rows_of_input(x, NULL), fl_rows_of_output(y, NULL), NULL);
        return;
    }
    const fl_work work = work_of(stream, 1);
    const fl_plan plan = fl_plan_begin(&work);
    shared_step step = {.stream = stream, .x_t = x_t, .y_t = y_t, .threads = plan.threads};
    step.barrier.size = plan.threads;
    step.barrier.late = FL_LATE_IS_TOLD;
    fl_pool_run(plan.threads, step_units, &step, NULL);
    fl_plan_end(&plan);
    stream->odd = !stream->odd;
}

/* The same without its generality: in small layers that is a fifth of a step. */
void fl_stream_step(fl_stream *stream, const void *x_t, void *y_t) {
    if (stream->is_general) {
        step_general(stream, x_t, y_t);
        return;
    }
    const fl_model *model = stream->model;
    const ptrdiff_t L = model->config.num_layers, H = model->config.hidden_size, B = stream->batch;
    const fl_panels panels = fl_panels_all(model);
    const size_t layer_bytes = stream->c_bytes / (size_t)L;
    char *const z = stream->scratch.directions[0].z;
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

fl_status fl_stream_push(fl_stream *stream, const fl_stream_push_call *given) {
    enum { PUSH_SIZE = FL_FIRST_SIZE(fl_stream_push_call, watch) };
    fl_stream_push_call own;
    const fl_stream_push_call *call = fl_struct_read(given, &own, sizeof own, PUSH_SIZE);
    if (stream == NULL || call == NULL || call->T < 0 ||
        (call->T > 0 && (call->x.data == NULL || call->y.data == NULL)))
        return FL_ERROR_ARGUMENT;
    fl_stop stop = fl_stop_begin(call->watch);
    const size_t state_bytes = stream->c_bytes + stream->h_bytes; /* c, then h */
    if (call->watch) memcpy(stream->saved, stream->c, state_bytes);
    run(stream, call->T, fl_rows_of_input(call->x, NULL), fl_rows_of_output(call->y, NULL),
        call->watch ? &stop : NULL);
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
