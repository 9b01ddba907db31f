/* fl_forward and fl_record: a call checked, and run by one thread or several. */
#include <string.h>

#include "fastlstm.h"
#include "kernels/kernels.h"
#include "memory.h"
#include "model.h"
#include "platform.h"
#include "rows.h"
#include "run.h"
#include "run_shared.h"
#include "share.h"
#include "structs.h"
#include "threads.h"

enum {
    FORWARD_SIZE = FL_FIRST_SIZE(fl_forward_call, watch),
    RECORD_SIZE = FL_FIRST_SIZE(fl_record_call, watch)
};

static int count_scratches(const fl_plan *plan) {
    return plan->sharing == FL_BY_ROWS ? plan->threads : 1;
}

static void destroy_scratch(fl_scratch *scratch, int count) {
    for (int i = 0; i < count; i++) fl_scratch_destroy(&scratch[i]);
}

/* Allocates all scratch of a call; none is left on error. */
static fl_status create_scratch(fl_scratch *scratch, const fl_model *model, const fl_span *span,
                                const fl_plan *plan) {
    for (int i = 0; i < count_scratches(plan); i++) {
        const fl_range rows = fl_span_sequences(span, plan, i);
        const fl_status status =
            fl_scratch_create(&scratch[i], model, span->T, fl_size_max(rows.end - rows.first, 1),
                              span->ragged.starts, plan->directions, fl_plan_sharers(plan));
        if (status == FL_OK) continue;
        destroy_scratch(scratch, i);
        return status;
    }
    return FL_OK;
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
    fl_span span = {.T = T, .B = B, .ragged = {starts, 0}};
    fl_status status = fl_span_set_masks(&span, model, given->masks);
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

    span.x = fl_rows_of_input(given->x, starts);
    span.y = fl_rows_of_output(given->y, starts);
    if (first_rows) {
        span.x.starts = span.y.starts = NULL;
        span.x.first_rows = first_rows;
        if (given->y.data) span.y.first_rows = first_rows;
    }
    span.h = given->h_n;
    span.c = given->c_n;
    span.h_stride = B * model->output_size;
    span.c_stride = B * (ptrdiff_t)H;
    if (given->tape) span.tape = fl_stack_of(given->tape, T, B, model->record_size, starts);
    const fl_work work = {.model = model,
                          .B = B,
                          .rows = starts ? (double)starts[T] : (double)T * (double)B,
                          .stages = fl_model_stages(model, span.recurrent.rows.data != NULL)};
    fl_plan plan = fl_plan_begin(&work);
    fl_stop stop = fl_stop_begin(given->watch);
    fl_scratch scratch[FL_MAX_THREADS]; /* not zeroed, which would take as long as a short call */
    status = create_scratch(scratch, model, &span, &plan);
    if (status == FL_OK) {
        copy_state(given->h_n, given->h_0, h_bytes); /* the final states are the running ones */
        copy_state(given->c_n, given->c_0, c_bytes);
        fl_span_run_shared(&span, model, scratch, &plan, given->watch ? &stop : NULL);
        if (stop.cancelled) status = FL_ERROR_CANCELLED;
        destroy_scratch(scratch, count_scratches(&plan));
    }
    fl_plan_end(&plan);
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
    if (model == NULL || T < 0 || B < 0 || bytes == NULL || !fl_starts_check(starts, T, B) ||
        model->digits) /* of which there are no gradients */
        return FL_ERROR_ARGUMENT;
    const size_t LD = (size_t)(model->config.num_layers * model->config.num_directions);
    if (starts) B = starts[T];
    const int fits = fl_size_multiply((size_t)(starts ? 1 : T), (size_t)B, bytes) &&
                     fl_size_multiply(*bytes, LD, bytes) &&
                     fl_size_multiply(*bytes, model->kernels->real_bytes, bytes) &&
                     fl_size_multiply(*bytes, (size_t)model->record_size, bytes);
    return fits ? FL_OK : FL_ERROR_OVERFLOW;
}
