/* fl_forward and fl_record: a call checked, and run by one thread or several. */
#include <string.h>

#include "fastlstm.h"
#include "kernels/kernels.h"
#include "memory.h"
#include "model.h"
#include "platform.h"
#include "rows.h"
#include "run.h"
#include "share.h"
#include "structs.h"
#include "threads.h"

enum {
    FORWARD_SIZE = FL_FIRST_SIZE(fl_forward_call, watch),
    RECORD_SIZE = FL_FIRST_SIZE(fl_record_call, watch)
};

/* One call, as its threads see it. */
typedef struct shared_call {
    const fl_model *model;
    fl_span span;
    fl_plan plan;
    fl_barrier units[2], everyone; /* by units: one for each direction, one for all */
    fl_scratch *scratch;           /* by rows: one for each thread; else the first, shared */
    fl_stop *stop;                 /* or NULL */
} shared_call;

/* The sequences of thread `index`. */
static fl_range sequences_of(const shared_call *call, int index) {
    const fl_span *span = &call->span;
    if (call->plan.sharing != FL_BY_ROWS) return (fl_range){0, span->B};
    return fl_ragged_part(span->ragged, span->T, span->B, index, call->plan.threads);
}

/* Thread `index` runs its sequences. */
static void run_rows(void *context, int index) {
    const shared_call *call = context;
    const size_t real = call->model->kernels->real_bytes;
    const fl_range rows = sequences_of(call, index);
    fl_span span = call->span;
    span.B = rows.end - rows.first;
    if (span.B == 0) return;
    if (rows.first > 0) fl_span_move(&span, 0, rows.first, real);
    span.h += rows.first * call->model->output_size * (ptrdiff_t)real;
    span.c += rows.first * call->model->config.hidden_size * (ptrdiff_t)real;
    const fl_share share = fl_share_all(call->stop, index);
    const fl_fp_state saved = fl_fp_enter();
    fl_span_run(&span, call->model, &call->scratch[index], &share);
    fl_fp_leave(saved);
}

/* Thread `index` runs its direction or its units of one, in step with the others. */
static void run_units(void *context, int index) {
    shared_call *call = context;
    const int directions = call->plan.directions, d = index % directions;
    const fl_share share = {.index = index / directions,
                            .count = call->plan.threads / directions,
                            .direction = directions == 2 ? d : FL_ALL_DIRECTIONS,
                            .units = &call->units[d],
                            .everyone = &call->everyone,
                            .stop = call->stop,
                            .thread = index};
    const fl_fp_state saved = fl_fp_enter();
    fl_span_run(&call->span, call->model, &call->scratch[0], &share);
    fl_fp_leave(saved);
}

static int count_scratches(const shared_call *call) {
    return call->plan.sharing == FL_BY_ROWS ? call->plan.threads : 1;
}

static void destroy_scratch(shared_call *call, int count) {
    for (int i = 0; i < count; i++) fl_scratch_destroy(&call->scratch[i]);
}

/* Allocates all scratch of a call; none is left on error. */
static fl_status create_scratch(shared_call *call) {
    for (int i = 0; i < count_scratches(call); i++) {
        const fl_range rows = sequences_of(call, i);
        const fl_status status = fl_scratch_create(&call->scratch[i], call->model, call->span.T,
                                                   fl_size_max(rows.end - rows.first, 1),
                                                   call->span.ragged.starts, call->plan.directions);
        if (status == FL_OK) continue;
        destroy_scratch(call, i);
        return status;
    }
    return FL_OK;
}

/* Runs a call, a long one section by section. */
static void run_call(shared_call *call) {
    const fl_span whole = call->span;
    const int reverse = call->model->config.reverse;
    ptrdiff_t n;
    for (ptrdiff_t done = 0; done < whole.T; done += n) {
        fl_plan *plan = &call->plan;
        if (done > 0) fl_plan_renew(plan);
        n = fl_size_min(plan->section, whole.T - done);
        call->span = whole;
        call->span.T = n;
        const ptrdiff_t first = reverse ? whole.T - done - n : done;
        if (first > 0) fl_span_move(&call->span, first, 0, call->model->kernels->real_bytes);
        call->units[0].size = call->units[1].size = plan->threads / plan->directions;
        call->everyone.size = plan->threads;
        fl_pool_run(plan->threads, plan->sharing == FL_BY_UNITS ? run_units : run_rows, call,
                    call->stop);
        if (call->stop && call->stop->cancelled) return;
    }
}

/* to (bytes) = from, or zeros. */
static void copy_state(void *to, const void *from, size_t bytes) {
    if (from == NULL) memset(to, 0, bytes);
    else if (from != to) memcpy(to, from, bytes);
}

/* fl_record, or without a tape fl_forward; a valid call but for T, B, starts, x, h_n and c_n.
 * first_rows (B): those of x and y, in the order of starts; or NULL for packed rows. */
static fl_status forward(const fl_model *model, const fl_record_call *given,
                         const ptrdiff_t *first_rows) {
    const ptrdiff_t T = given->T, B = given->B, *starts = given->starts;
    if (model == NULL || T < 0 || B < 0 || !fl_starts_check(starts, T, B)) return FL_ERROR_ARGUMENT;
    shared_call call = {.model = model, .span = {.T = T, .B = B, .ragged = {starts, 0}}};
    fl_status status = fl_span_set_masks(&call.span, model, given->masks);
    if (status != FL_OK || B == 0) return status;
    if (given->h_n == NULL || given->c_n == NULL || (T > 0 && given->x.data == NULL))
        return FL_ERROR_ARGUMENT;

    const size_t LD = (size_t)(model->config.num_layers * model->config.num_directions);
    const size_t real = model->kernels->real_bytes, H = (size_t)model->config.hidden_size;
    size_t c_bytes; /* of all cell states, the larger ones */
    if (!fl_size_multiply(H * real, LD, &c_bytes) ||
        !fl_size_multiply(c_bytes, (size_t)B, &c_bytes))
        return FL_ERROR_OVERFLOW;
    const size_t h_bytes = c_bytes / H * (size_t)model->output_size;
    if (T == 0) {
        copy_state(given->h_n, given->h_0, h_bytes);
        copy_state(given->c_n, given->c_0, c_bytes);
        return FL_OK;
    }

    fl_span *span = &call.span;
    span->x = fl_rows_of_input(given->x, starts);
    span->y = fl_rows_of_output(given->y, starts);
    if (first_rows) {
        span->x.starts = span->y.starts = NULL;
        span->x.first_rows = first_rows;
        if (given->y.data) span->y.first_rows = first_rows;
    }
    span->h = given->h_n;
    span->c = given->c_n;
    span->h_stride = B * model->output_size;
    span->c_stride = B * (ptrdiff_t)H;
    if (given->tape) span->tape = fl_stack_of(given->tape, T, B, model->record_size, starts);
    const fl_work work = {
        .model = model,
        .B = B,
        .rows = starts ? (double)starts[T] : (double)T * (double)B,
        .whole_rows = model->needs_rows || span->recurrent.rows.data || span->between.rows.data};
    call.plan = fl_plan_begin(&work);
    call.units[0].late = call.units[1].late = FL_LATE_PARTS;
    call.everyone.late = FL_LATE_IS_TOLD;
    fl_stop stop = fl_stop_begin(given->watch);
    if (given->watch)
        call.stop = call.units[0].stop = call.units[1].stop = call.everyone.stop = &stop;

    fl_scratch scratch[FL_MAX_THREADS]; /* not zeroed, which would take as long as a short call */
    call.scratch = scratch;
    status = create_scratch(&call);
    if (status == FL_OK) {
        copy_state(given->h_n, given->h_0, h_bytes); /* the final states are the running ones */
        copy_state(given->c_n, given->c_0, c_bytes);
        run_call(&call);
        if (stop.cancelled) status = FL_ERROR_CANCELLED;
        destroy_scratch(&call, count_scratches(&call));
    }
    fl_plan_end(&call.plan);
    return status;
}

/* Copies rows of `bytes`, (LD, B) of them: to[i, b] = from[i, order[b]], or with `back`
 * to[i, order[b]] = from[i, b]. from NULL: zeros. */
static void reorder(char *to, const char *from, size_t LD, ptrdiff_t B, size_t bytes,
                    const ptrdiff_t *order, int back) {
    if (from == NULL) memset(to, 0, LD * (size_t)B * bytes);
    else
        for (size_t i = 0; i < LD; i++, to += (size_t)B * bytes, from += (size_t)B * bytes)
            for (ptrdiff_t b = 0; b < B; b++)
                memcpy(to + (size_t)(back ? order[b] : b) * bytes,
                       from + (size_t)(back ? b : order[b]) * bytes, bytes);
}

/* forward() of sequences in any order: sorted, with states of its own. A valid call but for T, B,
 * lengths, x, h_n and c_n. */
static fl_status forward_sorted(const fl_model *model, fl_record_call call,
                                const ptrdiff_t *lengths, const ptrdiff_t *first_rows) {
    const ptrdiff_t B = call.B;
    if (model == NULL || call.T < 0 || B < 0 || call.starts) return FL_ERROR_ARGUMENT;
    if (B > 0 && (call.h_n == NULL || call.c_n == NULL)) return FL_ERROR_ARGUMENT;
    const size_t LD = (size_t)(model->config.num_layers * model->config.num_directions);
    const size_t real = model->kernels->real_bytes;
    const size_t h_row = (size_t)model->output_size * real;
    const size_t c_row = (size_t)model->config.hidden_size * real;
    size_t states;
    if (!fl_size_multiply(LD, (size_t)B, &states)) return FL_ERROR_OVERFLOW;
    fl_sorted sorted;
    fl_status status = fl_sorted_create(&sorted, call.T, B, lengths, first_rows);
    if (status != FL_OK) return status;
    const fl_record_call given = call;
    char *h, *c, *memory;
    const fl_part parts[] = {{&h, states, h_row}, {&c, states, c_row}};
    status = fl_memory_alloc_parts(parts, 2, &memory);
    if (status == FL_OK) {
        reorder(h, given.h_0, LD, B, h_row, sorted.order, 0);
        reorder(c, given.c_0, LD, B, c_row, sorted.order, 0);
        call.T = sorted.T;
        call.starts = sorted.starts;
        call.h_0 = call.h_n = h;
        call.c_0 = call.c_n = c;
        status = forward(model, &call, sorted.first_rows);
        if (status == FL_OK) {
            reorder(given.h_n, h, LD, B, h_row, sorted.order, 1);
            reorder(given.c_n, c, LD, B, c_row, sorted.order, 1);
        }
        fl_memory_free(memory);
    }
    fl_sorted_destroy(&sorted);
    return status;
}

fl_status fl_forward(const fl_model *model, const fl_forward_call *given) {
    fl_forward_call own;
    const fl_forward_call *call = fl_struct_read(given, &own, sizeof own, FORWARD_SIZE);
    if (call == NULL) return FL_ERROR_ARGUMENT;
    const fl_record_call record = {.T = call->T,
                                   .B = call->B,
                                   .starts = call->starts,
                                   .x = call->x,
                                   .h_0 = call->h_0,
                                   .c_0 = call->c_0,
                                   .y = call->y,
                                   .h_n = call->h_n,
                                   .c_n = call->c_n,
                                   .watch = call->watch};
    if (call->lengths) return forward_sorted(model, record, call->lengths, call->first_rows);
    return call->first_rows ? FL_ERROR_ARGUMENT : forward(model, &record, NULL);
}

fl_status fl_record(const fl_model *model, const fl_record_call *given) {
    fl_record_call own;
    const fl_record_call *call = fl_struct_read(given, &own, sizeof own, RECORD_SIZE);
    if (call == NULL) return FL_ERROR_ARGUMENT;
    size_t bytes;
    const fl_status status = fl_tape_bytes(model, call->T, call->B, call->starts, &bytes);
    if (status != FL_OK) return status;
    if (call->tape == NULL && bytes > 0) return FL_ERROR_ARGUMENT;
    return forward(model, call, NULL);
}

fl_status fl_tape_bytes(const fl_model *model, ptrdiff_t T, ptrdiff_t B, const ptrdiff_t *starts,
                        size_t *bytes) {
    if (model == NULL || T < 0 || B < 0 || bytes == NULL || !fl_starts_check(starts, T, B))
        return FL_ERROR_ARGUMENT;
    const size_t LD = (size_t)(model->config.num_layers * model->config.num_directions);
    if (starts) B = starts[T];
    const int fits = fl_size_multiply((size_t)(starts ? 1 : T), (size_t)B, bytes) &&
                     fl_size_multiply(*bytes, LD, bytes) &&
                     fl_size_multiply(*bytes, model->kernels->real_bytes, bytes) &&
                     fl_size_multiply(*bytes, (size_t)model->record_size, bytes);
    return fits ? FL_OK : FL_ERROR_OVERFLOW;
}
