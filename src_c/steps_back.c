/* Steps back in time of one direction of one layer, and what the sums after them need. */
#include <string.h>

#include "steps_back.h"

#include "memory.h"

fl_rows fl_back_mask_above(const fl_back *call, ptrdiff_t l) {
    const int exists = l >= 0 && l < call->model->config.num_layers - 1;
    const fl_stack none = {{0}, 0};
    return fl_stack_at(exists ? call->masks.between : none, l, call->model->kernels->real_bytes);
}

void fl_back_mask_times(const fl_back *call, fl_rows mask, fl_range times, fl_range sequences,
                        ptrdiff_t width, char *data, ptrdiff_t stride) {
    const fl_kernels *kernels = call->model->kernels;
    const fl_ragged ragged = {call->starts, sequences.first};
    if (mask.data == NULL) return;
    for (ptrdiff_t t = times.first; t < times.end; t++) {
        char *row = fl_back_row(call, data, stride, times.first, t, sequences.first);
        kernels->mask_rows(fl_ragged_count(ragged, t, sequences.end - sequences.first), width,
                           fl_rows_at(mask, t, sequences.first, kernels->real_bytes), mask.stride_b,
                           row, stride, NULL, 0, row, stride);
    }
}

/* h (rows, P) of the records of a time, from sequence `first` on. */
static void put_hidden(const fl_back *call, fl_rows tape, ptrdiff_t t, ptrdiff_t first,
                       ptrdiff_t count, char *to) {
    const fl_kernels *kernels = call->model->kernels;
    const ptrdiff_t H = call->model->config.hidden_size;
    if (count <= 0) return;
    const char *records = fl_rows_at(tape, t, first, kernels->real_bytes);
    if (call->model->is_variant)
        kernels->put_rows(count, call->model->output_size,
                          records + 5 * H * (ptrdiff_t)kernels->real_bytes, tape.stride_b, to,
                          call->a_stride, 0);
    else kernels->hidden(count, H, records, to, call->a_stride);
}

/* The x half of a for the times of a chunk, of sequences rows.first..rows.end-1: the input, or the
 * hidden states of the layer below. */
void fl_back_fill_inputs(const fl_back *call, const fl_pass *pass, fl_range times, fl_range rows) {
    const fl_kernels *kernels = call->model->kernels;
    const size_t real = kernels->real_bytes;
    const ptrdiff_t P = call->model->output_size, D = call->model->config.num_directions;
    const fl_ragged ragged = {call->starts, rows.first};
    for (ptrdiff_t t = times.first; t < times.end; t++) {
        const ptrdiff_t count = fl_ragged_count(ragged, t, rows.end - rows.first);
        const ptrdiff_t row =
            fl_back_rows_before(call, t) - fl_back_rows_before(call, times.first) + rows.first;
        char *to = call->a + row * call->a_stride * (ptrdiff_t)real;
        if (pass->l == 0) {
            kernels->put_rows(count, pass->I, fl_rows_at(call->x, t, rows.first, real),
                              call->x.stride_b, to, call->a_stride, 0);
            continue;
        }
        for (ptrdiff_t d = 0; d < D; d++)
            put_hidden(call, fl_back_tape(call, (pass->l - 1) * D + d), t, rows.first, count,
                       to + d * P * (ptrdiff_t)real);
    }
    fl_back_mask_times(call, fl_back_mask_above(call, pass->l - 1), times, rows, D * P, call->a,
                       call->a_stride);
}

/* The hidden states before a time, of `count` sequences from `first` on, where they begin: h_0. */
static void fill_first_hidden(const fl_back *call, const fl_pass *pass, ptrdiff_t first,
                              ptrdiff_t count, char *to) {
    const ptrdiff_t real = (ptrdiff_t)call->model->kernels->real_bytes;
    const ptrdiff_t P = call->model->output_size;
    const char *h_0 = call->h_0;
    if (h_0)
        call->model->kernels->put_rows(count, P, h_0 + (pass->index * call->B + first) * P * real,
                                       P, to, call->a_stride, 0);
    else
        for (ptrdiff_t b = 0; b < count; b++)
            memset(to + b * call->a_stride * real, 0, (size_t)(P * real));
}

/* The time before t in the order of a pass, and how many of the first `count` sequences from
 * `first` on took it. */
static ptrdiff_t time_before(const fl_pass *pass, ptrdiff_t t) {
    return pass->reverse ? t + 1 : t - 1;
}
static ptrdiff_t count_before(const fl_back *call, const fl_pass *pass, ptrdiff_t t,
                              ptrdiff_t first, ptrdiff_t count) {
    const ptrdiff_t before = time_before(pass, t);
    const fl_ragged ragged = {call->starts, first};
    return before < 0 || before >= call->T ? 0 : fl_ragged_count(ragged, before, count);
}

/* The h half of a for a chunk of a variant, times the mask on it. */
void fl_back_fill_hidden(const fl_back *call, const fl_pass *pass, fl_range times, fl_range rows) {
    const fl_ragged ragged = {call->starts, rows.first};
    char *h = call->a + pass->h_at * (ptrdiff_t)call->model->kernels->real_bytes;
    for (ptrdiff_t t = times.first; t < times.end; t++) {
        const ptrdiff_t count = fl_ragged_count(ragged, t, rows.end - rows.first);
        const ptrdiff_t old = count_before(call, pass, t, rows.first, count);
        if (count == 0) continue;
        char *to = fl_back_row(call, h, call->a_stride, times.first, t, rows.first);
        put_hidden(call, pass->tape, time_before(pass, t), rows.first, old, to);
        fill_first_hidden(call, pass, rows.first + old, count - old,
                          to + old * call->a_stride * (ptrdiff_t)call->model->kernels->real_bytes);
    }
    fl_back_mask_times(call, pass->recurrent, times, rows, call->model->output_size, h,
                       call->a_stride);
}

/* Points a normalisation at `part` of the records, see run.c: 0 for W x, 1 for U h, 2 for c~.
 */
static void norm_part(const fl_back *call, const fl_pass *pass, int part, const char *records,
                      fl_norm *norm) {
    const ptrdiff_t real = (ptrdiff_t)call->model->kernels->real_bytes;
    const ptrdiff_t H = call->model->config.hidden_size;
    const ptrdiff_t gates = fl_config_gate_columns(&call->model->config),
                    size = call->model->record_size;
    char *first = (char *)(uintptr_t)records;
    norm->scale = pass->norm + part * gates * real;
    norm->shift = part == 2 ? pass->norm + (2 * gates + H) * real : NULL;
    norm->normal = first + (5 * H + call->model->output_size + part * gates) * real;
    norm->factors = first + (size - 3 + part) * real;
}

/* fl_back_step_usual() of variants, and with a mask on h: whole rows of some sequences. */
void fl_back_step_variant(const fl_back *call, const fl_pass *pass, fl_range times, ptrdiff_t t,
                          fl_range rows) {
    const fl_model *model = call->model;
    const fl_kernels *kernels = model->kernels;
    const fl_config *config = &model->config;
    const size_t real = kernels->real_bytes;
    const ptrdiff_t H = config->hidden_size, P = model->output_size, columns = 4 * kernels->lanes;
    const ptrdiff_t sequence = rows.first, h_row = P * (ptrdiff_t)real, c_row = H * (ptrdiff_t)real;
    const fl_ragged ragged = {call->starts, sequence};
    const ptrdiff_t count = fl_ragged_count(ragged, t, rows.end - sequence);
    if (count == 0) return;
    const ptrdiff_t old = count_before(call, pass, t, sequence, count);
    char *e = fl_back_row(call, call->e, P, times.first, t, sequence);
    char *cells = fl_back_row(call, call->cells, call->cells_stride, times.first, t, sequence);
    char *dh = call->dh + sequence * h_row, *kept = call->kept + sequence * h_row;
    char *dh_cells = pass->hr ? call->dcells + sequence * c_row : e;
    char *dG = fl_back_row(call, call->d, call->d_stride, times.first, t, sequence);
    const char *recurrent = fl_rows_find(pass->recurrent, 0, sequence, real);
    const int zones_out = config->zoneout_h > 0;

    kernels->put_rows(count, P, dh, P, e, P, 0);
    if (pass->dy.data)
        kernels->put_rows(count, P, fl_rows_at(pass->dy, t, sequence, real), pass->dy.stride_b, e,
                          P, 1);
    if (zones_out) {
        const char *m = fl_rows_find(pass->zoneout_h, t, sequence, real);
        kernels->mix_rows(count, P, m, P, config->zoneout_h, e, P, NULL, 0, kept, P);
        kernels->mix_rows(count, P, m, P, config->zoneout_h, NULL, 0, e, P, e, P);
    }
    if (pass->hr)
        kernels->multiply(0, (H + columns - 1) / columns, count, P, H, e, P, call->hr, dh_cells, H,
                          0, model->near_bytes);
    const char *records = fl_rows_at(pass->tape, t, sequence, real);
    fl_norm norm = {.config = config, .rows = count, .normal_stride = model->record_size};
    norm.z_stride = call->d_stride;
    if (config->layer_norm) {
        norm_part(call, pass, 2, records, &norm);
        kernels->norm_cell_backward(&norm, records + 3 * c_row, model->record_size, dh_cells,
                                    dG + (fl_back_columns(config) - 2 * H) * (ptrdiff_t)real,
                                    call->t + sequence * c_row, call->dc_normal + sequence * c_row);
    }
    for (ptrdiff_t b = 0, end; b < count; b = end) {
        end = b < old ? old : count;
        fl_step_back step = {.config = config, .rows = end - b};
        step.records = records + b * model->record_size * (ptrdiff_t)real;
        step.record_stride = model->record_size;
        step.c_stride = H;
        if (b < old) {
            const char *before = fl_rows_at(pass->tape, time_before(pass, t), sequence + b, real);
            step.c_previous = before + 4 * c_row;
            step.c_stride = model->record_size;
        } else if (call->c_0) {
            step.c_previous = call->c_0 + (pass->index * call->B + sequence + b) * c_row;
        }
        step.peepholes = pass->peepholes;
        step.zoneout_c = fl_rows_find(pass->zoneout_c, t, sequence + b, real);
        step.dh = dh_cells + b * c_row;
        step.t = config->layer_norm ? call->t + (sequence + b) * c_row : NULL;
        step.dc_normal = call->dc_normal + (sequence + b) * c_row;
        step.dc = call->dc + (sequence + b) * c_row;
        step.d = dG + b * call->d_stride * (ptrdiff_t)real;
        step.d_stride = call->d_stride;
        step.h = pass->dhr ? cells + b * call->cells_stride * (ptrdiff_t)real : NULL;
        step.h_stride = call->cells_stride;
        kernels->variant_backward(0, H, &step);
    }
    for (int part = 0; config->layer_norm && part < 2; part++) {
        const ptrdiff_t terms =
            fl_back_columns(config) - 2 * H - (2 - part) * fl_config_gate_columns(config);
        const ptrdiff_t out =
            part == 0 ? fl_back_input_column(config) : fl_back_recurrent_column(config);
        norm_part(call, pass, part, records, &norm);
        kernels->norm_gates_backward(&norm, dG, dG + terms * (ptrdiff_t)real,
                                     dG + out * (ptrdiff_t)real);
    }
    kernels->multiply(0, (P + columns - 1) / columns, count, fl_config_gate_columns(config), P,
                      dG + fl_back_recurrent_column(config) * (ptrdiff_t)real, call->d_stride,
                      call->u, dh, P, 0, model->near_bytes);
    if (recurrent)
        kernels->mask_rows(count, P, recurrent, P, dh, P, zones_out ? kept : NULL, P, dh, P);
    else if (zones_out) kernels->put_rows(count, P, kept, P, dh, P, 1);
}

/* Panels of U's columns, which give dh, that are thread `index`'s, and the cells of the same units.
 */
static fl_range panels_of(const fl_back *call, int index) {
    const ptrdiff_t columns = 4 * call->model->kernels->lanes;
    const ptrdiff_t all = (call->model->output_size + columns - 1) / columns;
    return call->plan.sharing == FL_BY_UNITS ? fl_back_part(all, call, index) : (fl_range){0, all};
}

/* One time of a chunk, for some sequences. */
void fl_back_step_usual(fl_back *call, const fl_pass *pass, fl_range times, ptrdiff_t t,
                        fl_range rows, int index) {
    fl_range panels = panels_of(call, index);
    const fl_kernels *kernels = call->model->kernels;
    const size_t real = kernels->real_bytes;
    const ptrdiff_t H = call->model->config.hidden_size, columns = 4 * kernels->lanes;
    const ptrdiff_t row_of_H = H * (ptrdiff_t)real, a_row = call->a_stride * (ptrdiff_t)real;
    const fl_range units = {fl_size_min(panels.first * columns, H),
                            fl_size_min(panels.end * columns, H)};
    const fl_ragged ragged = {call->starts, rows.first};
    const ptrdiff_t B = rows.end - rows.first, count = fl_ragged_count(ragged, t, B);
    const ptrdiff_t before = time_before(pass, t), after = t + (t - before);
    /* The first so many have a step before t; so many have one after it in this chunk. */
    const int has_before = before >= 0 && before < call->T;
    const ptrdiff_t with_before =
        has_before ? fl_size_min(fl_ragged_count(ragged, before, B), count) : 0;
    const int in_chunk = after >= times.first && after < times.end;
    const ptrdiff_t with_after =
        pass->dw && in_chunk ? fl_size_min(fl_ragged_count(ragged, after, B), count) : 0;
    const ptrdiff_t base = rows.first - fl_back_rows_before(call, times.first);
    char *dh = call->dh + rows.first * row_of_H, *dc = call->dc + rows.first * row_of_H;
    char *dG = call->d + (fl_back_rows_before(call, t) + base) * call->d_stride * (ptrdiff_t)real;
    char *h = call->a + pass->h_at * (ptrdiff_t)real; /* the h half of a */

    for (ptrdiff_t b = 0, end; b < count; b = end) {
        end = b < with_before ? with_before : count;
        if (b < with_after) end = fl_size_min(end, with_after);
        const ptrdiff_t sequence = rows.first + b;
        const char *c_previous = NULL;
        if (b < with_before)
            c_previous = fl_rows_at(pass->tape, before, sequence, real) + 4 * row_of_H;
        else if (call->c_0) c_previous = call->c_0 + (pass->index * call->B + sequence) * row_of_H;
        char *h_after =
            b < with_after ? h + (fl_back_rows_before(call, after) + base + b) * a_row : NULL;
        kernels->cell_backward(
            units.first, units.end, end - b, H, fl_rows_at(pass->tape, t, sequence, real),
            c_previous, b < with_before ? 5 * H : H, fl_rows_find(pass->dy, t, sequence, real),
            pass->dy.stride_b, dh + b * row_of_H, dc + b * row_of_H,
            dG + b * call->d_stride * (ptrdiff_t)real, call->d_stride, h_after, call->a_stride);
    }
    if (pass->dw && panels.first == 0 &&
        panels.end > 0) { /* the hidden states that no step of the chunk gives */
        char *to = h + (fl_back_rows_before(call, t) + base) * a_row;
        if (with_before > 0 && (before < times.first || before >= times.end))
            kernels->hidden(with_before, H, fl_rows_at(pass->tape, before, rows.first, real), to,
                            call->a_stride);
        fill_first_hidden(call, pass, rows.first + with_before, count - with_before,
                          to + with_before * a_row);
    }
    if (call->plan.sharing == FL_BY_UNITS) { /* a product needs all of dG */
        if (fl_barrier_wait(&call->barrier) || fl_back_has_left(call, index)) return;
        panels = panels_of(call, index);
    }
    if (count > 0)
        kernels->multiply(panels.first, panels.end, count, 4 * H, H, dG, call->d_stride, call->u,
                          dh, H, 0, call->model->near_bytes);
}
