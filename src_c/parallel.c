/* fl_forward and fl_record: how a call is shared out over threads.
 *
 *   rows   Each thread takes sequences and runs all steps of them: no barriers. For batches.
 *   units  Each thread takes a direction, or units of one: its share of U stays in its own cache.
 *          One spin barrier a step. For few sequences through a large layer.
 *
 * Which of them runs changes no bit: sequences and units do not meet in any sum.
 */
#include <stdint.h>
#include <string.h>

#include "forward.h"
#include "kernels/kernels.h"
#include "model.h"
#include "platform.h"

/* Measured on a virtual machine of 2 Zen 4 cores, see docs/benchmarks.md. */
enum {
    THREAD_WORK = 1 << 21,     /* multiply-adds worth waking a thread for */
    UNITS_STEP_WORK = 1 << 16, /* multiply-adds of a step worth a barrier */
    ROWS_PER_THREAD = 4        /* sequences that use a core's arithmetic about as well as many do */
};

/* One call, as its threads see it. */
typedef struct call {
    const fl_model *model;
    fl_span span;
    int by_rows, threads;
    int directions_at_once;        /* units: 1 or 2 */
    fl_barrier units[2], everyone; /* units: one for each direction, one for all */
    fl_scratch *scratch;           /* rows: one for each thread; units: the first, shared */
    fl_stop *stop;                 /* or NULL */
} call;

static ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

/* Multiply-adds of one step of all layers and directions, as a double since they may be many. */
static double work_of_step(const fl_model *model, ptrdiff_t B) {
    const fl_config *config = &model->config;
    const double H = (double)config->hidden_size, D = (double)config->num_directions;
    const double P = (double)model->output_size;
    const double first = (double)config->input_size + P, above = D * P + P;
    return 4 * H * D * (double)B * (first + ((double)config->num_layers - 1) * above);
}

/* How many threads a call is worth, and how they share it; 1 where sharing would cost more. */
static int plan(call *call) {
    const fl_config *config = &call->model->config;
    const ptrdiff_t B = call->span.B;
    const ptrdiff_t *starts = call->span.ragged.starts;
    const double step = work_of_step(call->model, B);
    const double all =
        starts ? step / (double)B * (double)starts[call->span.T] : step * (double)call->span.T;
    int threads = fl_get_num_threads();
    if (all < (double)threads * THREAD_WORK) threads = (int)(all / THREAD_WORK);
    call->by_rows = 1;
    call->directions_at_once = 1;
    if (threads <= 1) return 1;
    if (B >= (ptrdiff_t)threads * ROWS_PER_THREAD) return threads;

    const int directions = (int)config->num_directions;
    const double step_of_direction = step / (double)(config->num_layers * directions);
    ptrdiff_t per_direction = threads / directions;
    const int whole_rows =
        call->model->needs_rows || call->span.recurrent.rows.data || call->span.between.rows.data;
    if (step_of_direction < UNITS_STEP_WORK || whole_rows) per_direction = 1;
    per_direction = smaller(per_direction, call->model->panels + (call->model->narrow != NULL));
    if (directions * per_direction >= smaller(B, threads)) {
        call->by_rows = 0;
        call->directions_at_once = directions;
        return directions * (int)per_direction;
    }
    return (int)smaller(B, threads);
}

static ptrdiff_t first_sequence(const call *call, int index) {
    return fl_first_sequence(call->span.ragged, call->span.T, call->span.B, index, call->threads);
}

/* Thread `index` runs its sequences. */
static void run_rows(void *context, int index) {
    const call *call = context;
    const size_t real = call->model->kernels->real_bytes;
    const ptrdiff_t first = first_sequence(call, index);
    fl_span span = call->span;
    span.B = first_sequence(call, index + 1) - first;
    if (span.B == 0) return;
    if (first > 0) fl_span_move(&span, 0, first, real);
    span.h += first * call->model->output_size * (ptrdiff_t)real;
    span.c += first * call->model->config.hidden_size * (ptrdiff_t)real;
    const fl_share share = {0, 1, FL_ALL_DIRECTIONS, NULL, NULL, call->stop, index};
    const fl_fp_state saved = fl_fp_enter();
    fl_run(call->model, &span, &call->scratch[index], &share);
    fl_fp_leave(saved);
}

/* Thread `index` runs its direction or its units of one, in step with the others. */
static void run_units(void *context, int index) {
    call *call = context;
    fl_share share = {0,
                      call->threads / call->directions_at_once,
                      FL_ALL_DIRECTIONS,
                      &call->units[0],
                      &call->everyone,
                      call->stop,
                      index};
    share.index = index / call->directions_at_once;
    if (call->directions_at_once == 2) {
        share.direction = index % 2;
        share.units = &call->units[index % 2];
    }
    const fl_fp_state saved = fl_fp_enter();
    fl_run(call->model, &call->span, &call->scratch[0], &share);
    fl_fp_leave(saved);
}

static int scratches(const call *call) { return call->by_rows ? call->threads : 1; }

static void destroy_scratch(call *call, int count) {
    for (int i = 0; i < count; i++) fl_scratch_destroy(&call->scratch[i]);
}

/* Allocates all scratch of a call; none is left on error. */
static fl_status create_scratch(call *call) {
    const ptrdiff_t B = call->span.B;
    for (int i = 0; i < scratches(call); i++) {
        ptrdiff_t rows = B;
        if (call->by_rows) rows = first_sequence(call, i + 1) - first_sequence(call, i);
        if (rows == 0) rows = 1;
        const fl_status status =
            fl_scratch_create(call->model, call->span.T, rows, call->span.ragged.starts,
                              call->directions_at_once, &call->scratch[i]);
        if (status == FL_OK) continue;
        destroy_scratch(call, i);
        return status;
    }
    return FL_OK;
}

/* to (bytes) = from, or zeros. */
static void copy_state(void *to, const void *from, size_t bytes) {
    if (from == NULL) memset(to, 0, bytes);
    else if (from != to) memcpy(to, from, bytes);
}

static fl_stack stack_of(const void *data, ptrdiff_t T, ptrdiff_t B, ptrdiff_t width,
                         const ptrdiff_t *starts) {
    const ptrdiff_t stride_t = starts ? 0 : B * width; /* packed rows are found by their starts */
    const fl_rows rows = {(char *)(uintptr_t)data, stride_t, width, starts, 0};
    return (fl_stack){rows, (starts ? starts[T] : T * B) * width};
}

fl_status fl_set_masks(const fl_model *model, const fl_masks *masks, fl_span *span) {
    const fl_config *config = &model->config;
    const ptrdiff_t H = config->hidden_size, P = model->output_size, T = span->T, B = span->B;
    const ptrdiff_t *starts = span->ragged.starts;
    if (masks == NULL) return FL_OK;
    const int zones_out_h = config->zoneout_h > 0, zones_out_c = config->zoneout_c > 0;
    if ((masks->zoneout_h && !zones_out_h) || (masks->zoneout_c && !zones_out_c))
        return FL_ERROR_ARGUMENT;
    size_t widest; /* a row of all sequences: without steps no tape has bounded B */
    if (!fl_multiply_sizes((size_t)B, 2 * (size_t)H, &widest)) return FL_ERROR_OVERFLOW;
    span->recurrent = stack_of(masks->recurrent, 1, B, P, NULL);
    span->recurrent.rows.stride_t = 0; /* the same at every step */
    span->between = stack_of(masks->between, T, B, config->num_directions * P, starts);
    span->zoneout_h = stack_of(masks->zoneout_h, T, B, P, starts);
    span->zoneout_c = stack_of(masks->zoneout_c, T, B, H, starts);
    return FL_OK;
}

/* fl_forward, and fl_record with a tape. */
static fl_status forward(const fl_model *model, ptrdiff_t T, ptrdiff_t B, fl_rows x,
                         const void *h_0, const void *c_0, const fl_masks *masks, fl_rows y,
                         void *h_n, void *c_n, void *tape, const fl_watch *watch) {
    if (model == NULL || T < 0 || B < 0 || !fl_starts_are_valid(x.starts, T, B))
        return FL_ERROR_ARGUMENT;
    fl_span span = {.T = T, .B = B, .ragged = {x.starts, 0}, .x = x, .y = y};
    fl_status status = fl_set_masks(model, masks, &span);
    if (status != FL_OK || B == 0) return status;
    if (h_n == NULL || c_n == NULL || (T > 0 && x.data == NULL)) return FL_ERROR_ARGUMENT;

    const size_t LD = (size_t)(model->config.num_layers * model->config.num_directions);
    const size_t real = model->kernels->real_bytes, H = (size_t)model->config.hidden_size;
    size_t c_bytes; /* of all cell states, the larger ones */
    if (!fl_multiply_sizes(H * real, LD, &c_bytes) ||
        !fl_multiply_sizes(c_bytes, (size_t)B, &c_bytes))
        return FL_ERROR_OVERFLOW;
    const size_t h_bytes = c_bytes / H * (size_t)model->output_size;
    fl_scratch scratch[FL_MAX_THREADS]; /* not zeroed, which would take as long as a short call */
    call call = {.model = model, .by_rows = 1, .directions_at_once = 1, .scratch = scratch};
    call.span = span;
    call.span.h = h_n;
    call.span.c = c_n;
    call.span.h_stride = B * model->output_size;
    call.span.c_stride = B * (ptrdiff_t)H;
    if (tape) call.span.tape = stack_of(tape, T, B, model->record_size, x.starts);
    const int wanted = T > 0 ? plan(&call) : 1;
    call.threads = fl_pool_take(wanted);
    if (call.threads < wanted && !call.by_rows) { /* the plan was made for all of them */
        call.by_rows = 1;
        call.directions_at_once = 1;
    }
    call.units[0].size = call.units[1].size = call.threads / call.directions_at_once;
    call.everyone.size = call.threads;
    fl_stop stop = fl_stop_begin(watch);
    if (watch) call.stop = call.units[0].stop = call.units[1].stop = call.everyone.stop = &stop;

    status = T > 0 ? create_scratch(&call) : FL_OK;
    if (status == FL_OK) {
        copy_state(h_n, h_0, h_bytes); /* the final states are the running ones */
        copy_state(c_n, c_0, c_bytes);
        if (T > 0) {
            fl_pool_run(call.threads, call.by_rows ? run_rows : run_units, &call, call.stop);
            if (stop.cancelled) status = FL_ERROR_CANCELLED;
            destroy_scratch(&call, scratches(&call));
        }
    }
    fl_pool_release(call.threads);
    return status;
}

fl_status fl_forward(const fl_model *model, ptrdiff_t T, ptrdiff_t B, const ptrdiff_t *starts,
                     const void *x, ptrdiff_t x_stride_t, ptrdiff_t x_stride_b, const void *h_0,
                     const void *c_0, void *y, ptrdiff_t y_stride_t, ptrdiff_t y_stride_b,
                     void *h_n, void *c_n, const fl_watch *watch) {
    const fl_rows in = {(char *)(uintptr_t)x, x_stride_t, x_stride_b, starts, 0};
    const fl_rows out = {y, y_stride_t, y_stride_b, starts, 0};
    return forward(model, T, B, in, h_0, c_0, NULL, out, h_n, c_n, NULL, watch);
}

fl_status fl_tape_bytes(const fl_model *model, ptrdiff_t T, ptrdiff_t B, const ptrdiff_t *starts,
                        size_t *bytes) {
    if (model == NULL || T < 0 || B < 0 || bytes == NULL || !fl_starts_are_valid(starts, T, B))
        return FL_ERROR_ARGUMENT;
    const size_t LD = (size_t)(model->config.num_layers * model->config.num_directions);
    if (starts) B = starts[T];
    const int fits = fl_multiply_sizes((size_t)(starts ? 1 : T), (size_t)B, bytes) &&
                     fl_multiply_sizes(*bytes, LD, bytes) &&
                     fl_multiply_sizes(*bytes, model->kernels->real_bytes, bytes) &&
                     fl_multiply_sizes(*bytes, (size_t)model->record_size, bytes);
    return fits ? FL_OK : FL_ERROR_OVERFLOW;
}

fl_status fl_record(const fl_model *model, ptrdiff_t T, ptrdiff_t B, const ptrdiff_t *starts,
                    const void *x, ptrdiff_t x_stride_t, ptrdiff_t x_stride_b, const void *h_0,
                    const void *c_0, const fl_masks *masks, void *y, ptrdiff_t y_stride_t,
                    ptrdiff_t y_stride_b, void *h_n, void *c_n, void *tape, const fl_watch *watch) {
    const fl_rows in = {(char *)(uintptr_t)x, x_stride_t, x_stride_b, starts, 0};
    const fl_rows out = {y, y_stride_t, y_stride_b, starts, 0};
    size_t bytes;
    const fl_status status = fl_tape_bytes(model, T, B, starts, &bytes);
    if (status != FL_OK) return status;
    if (tape == NULL && bytes > 0) return FL_ERROR_ARGUMENT;
    return forward(model, T, B, in, h_0, c_0, masks, out, h_n, c_n, tape, watch);
}
