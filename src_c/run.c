/* The forward pass: layers, directions, chunks of time, steps.
 *
 * For each chunk of time a direction of a layer does
 *
 *   z (n, B, panels, G, V) = bias + x (n, B, I_l) @ W    one large product, off the critical path
 *   for each t: h_t, c_t = cell(z_t + h_{t-1} @ U)       h_{t-1} is read where y_{t-1} was written
 *               h_t = zoneout(h_{t-1}, h_t @ W_hr)       variants that have these
 *
 * Odd steps sweep over U from its end: what the step before read last is still in the cache.
 *
 * Sequences of different lengths are sorted, the longest first, so that those that take a step are
 * the first so many. Forward in time some stop, backward in time some begin. With one direction
 * every layer handles a chunk before the next chunk comes, the last one first if it is a reverse
 * one, so memory does not grow with T; with two, a layer needs all of the layer below.
 *
 * Directions, or layers, so small that they are all latency run two at a time: side_by_side.h.
 */
#include <stdint.h>
#include <string.h>

#include "run.h"
#include "kernels/kernels.h"
#include "memory.h"
#include "platform.h"
#include "quantized.h"
#include "side_by_side.h"
#include "steps.h"

/* Steps of so many multiply-adds are worth looking at each time whether the call is given up. */
enum { WATCHED_STEP = 1 << 16 };

/* Sequences that take step s; none beyond the last. */
static ptrdiff_t count_of(const fl_walk *walk, ptrdiff_t s) {
    return s < walk->T ? fl_ragged_count(walk->ragged, fl_walk_time(walk, s), walk->B) : 0;
}

/* Rows of the n times from t on. */
static ptrdiff_t rows_of(const fl_walk *walk, ptrdiff_t t, ptrdiff_t n) {
    if (walk->ragged.starts == NULL) return n * walk->B;
    ptrdiff_t rows = 0;
    for (ptrdiff_t i = 0; i < n; i++) rows += fl_ragged_count(walk->ragged, t + i, walk->B);
    return rows;
}

/* How a thread goes through rows, each of them K numbers that meet the weights of its panels. */
typedef struct pace {
    fl_stop *stop; /* or NULL: not looked at here */
    int thread;
    double work;     /* multiply-adds of a row */
    ptrdiff_t slice; /* rows to do between two looks whether the call is given up */
    fl_room room;    /* where a quantised model's thread quantises inputs */
} pace;

static pace pace_of(const fl_model *model, const fl_share *share, ptrdiff_t K) {
    pace pace = {.stop = share->stop, .thread = share->thread};
    if (pace.stop == NULL) return pace;
    pace.work = (double)K * (double)model->z_row / (double)share->count;
    pace.slice = fl_stop_slice(pace.work, model->kernels->lanes);
    return pace;
}

static int gives_up(const pace *pace, ptrdiff_t rows) {
    return fl_stop_check(pace->stop, pace->thread, pace->work * (double)rows);
}

/* z = bias + x @ W for the input, in slices of rows until the call is given up. */
static void product(const fl_model *model, const fl_direction *direction, fl_panels panels,
                    const pace *pace, ptrdiff_t rows, const char *x, ptrdiff_t x_stride, char *z,
                    ptrdiff_t z_stride) {
    const ptrdiff_t real = (ptrdiff_t)model->kernels->real_bytes, I = direction->input_size;
    const ptrdiff_t slice = pace->stop ? pace->slice : rows;
    for (ptrdiff_t first = 0; first < rows; first += slice) {
        const ptrdiff_t count = fl_size_min(slice, rows - first);
        if (gives_up(pace, count)) return;
        const char *x_rows = x + first * x_stride * real;
        char *z_rows = z + first * z_stride * real;
        if (model->digits)
            fl_quantized_inputs(model, direction, panels, count, x_rows, x_stride, z_rows, z_stride,
                                &pace->room);
        else
            fl_model_product(model, panels, count, I, x_rows, x_stride, direction->w,
                             direction->bias, z_rows, z_stride);
    }
}

/* z of a chunk after its product, normalised, scaled and shifted by the bias. */
static void norm_inputs(const fl_model *model, const fl_direction *direction, const fl_walk *walk,
                        ptrdiff_t t, ptrdiff_t n, char *z) {
    const ptrdiff_t z_row = model->z_row * (ptrdiff_t)model->kernels->real_bytes;
    const int at_once = walk->tape.data == NULL; /* else steps are as far apart as on the tape */
    for (ptrdiff_t i = 0, steps = at_once ? n : 1; i < n; i += steps) {
        const ptrdiff_t rows = rows_of(walk, t + i, steps);
        const fl_norm norm = fl_walk_norm(model, direction, walk, 0, t + i, 0, rows);
        model->kernels->norm_gates(&norm, model->panels, z, z);
        z += rows * z_row;
    }
}

/* inputs (rows, I) = the rows of x at a time. */
static void copy_inputs(const fl_model *model, const fl_walk *walk, ptrdiff_t t, ptrdiff_t rows,
                        ptrdiff_t I, char *inputs) {
    const size_t real = model->kernels->real_bytes;
    if (walk->x.first_rows) fl_rows_read_placed(walk->x, t, rows, (size_t)I * real, real, inputs);
    else
        model->kernels->put_rows(rows, I, fl_rows_at(walk->x, t, 0, real), walk->x.stride_b, inputs,
                                 I, 0);
}

/* The same, and takes over its part of what those had that have left. */
static int meet(const fl_model *model, fl_share *own, fl_panels *panels) {
    const ptrdiff_t before = own->count;
    if (fl_share_wait(own)) return 1;
    if (own->count != before) *panels = fl_panels_part(model, own->index, own->count);
    return 0;
}

/* input_product() of sequences of different lengths. Unless they lie so, the rows of some whole
 * steps are copied side by side, for a product of them all. Returns whether this thread is to do no
 * more. */
static int ragged_product(const fl_model *model, const fl_direction *direction, const fl_walk *walk,
                          ptrdiff_t t, ptrdiff_t n, char *z, fl_panels *panels, const pace *pace,
                          fl_share *own) {
    const size_t real = model->kernels->real_bytes;
    const ptrdiff_t I = direction->input_size, B = walk->B, *starts = walk->x.starts;
    if (starts && starts[t + 1] - starts[t] == fl_ragged_count(walk->ragged, t, B)) {
        product(model, direction, *panels, pace, starts[t + n] - starts[t],
                fl_rows_at(walk->x, t, 0, real), walk->x.stride_b, z, model->z_row);
        return 0;
    }
    char *const inputs = walk->scratch->inputs;
    for (ptrdiff_t i = 0; i < n;) {
        ptrdiff_t rows = 0;
        /* One thread copies, when none reads any longer what is there. */
        if (i > 0 && meet(model, own, panels)) return 1;
        for (; i < n; i++) {
            const ptrdiff_t count = fl_ragged_count(walk->ragged, t + i, B);
            if (rows + count > walk->scratch->input_rows) break;
            if (own->index == 0)
                copy_inputs(model, walk, t + i, count, I, inputs + rows * I * (ptrdiff_t)real);
            rows += count;
        }
        if (meet(model, own, panels)) return 1;
        product(model, direction, *panels, pace, rows, inputs, I, z, model->z_row);
        z += rows * model->z_row * (ptrdiff_t)real;
    }
    return 0;
}

/* z (n, B, panels, G, V) = bias + x (n, B, I_l) @ W of the n times from t on, in as few and as tall
 * products as the rows of x allow. */
static void input_product(const fl_model *model, const fl_direction *direction, const fl_walk *walk,
                          ptrdiff_t t, ptrdiff_t n, char *z, fl_panels panels, const pace *pace) {
    const ptrdiff_t real = (ptrdiff_t)model->kernels->real_bytes, z_row = model->z_row;
    const ptrdiff_t B = walk->B;
    const fl_rows x = walk->x;
    ptrdiff_t calls = n, rows = B, call_stride = x.stride_t, row_stride = x.stride_b;
    ptrdiff_t z_call_stride = B * z_row, z_row_stride = z_row;

    if (B == 1 || x.stride_t == B * x.stride_b) { /* the rows of all steps lie evenly spaced */
        calls = 1;
        rows = n * B;
        row_stride = B == 1 ? x.stride_t : x.stride_b;
    } else if (B < n) { /* one product per sequence, over time */
        calls = B;
        rows = n;
        call_stride = x.stride_b;
        row_stride = x.stride_t;
        z_call_stride = z_row;
        z_row_stride = B * z_row;
    }
    const char *first = fl_rows_at(x, t, 0, (size_t)real);
    for (ptrdiff_t i = 0; i < calls; i++)
        product(model, direction, panels, pace, rows, first + i * call_stride * real, row_stride,
                z + i * z_call_stride * real, z_row_stride);
}

/* Step s of rows first..end-1, with h of the step before in `h`, z of the first row of all in z.
 * Returns whether the thread is to do no more. */
FL_INLINE int take_step(const fl_model *model, const fl_direction *direction, const fl_walk *walk,
                        ptrdiff_t s, ptrdiff_t first, ptrdiff_t end, const char *h,
                        ptrdiff_t h_stride, char *z, fl_panels panels, fl_share *share) {
    if (model->is_general || walk->recurrent.data)
        return fl_step_general(model, direction, walk, s, first, end, h, h_stride, z, share);
    const ptrdiff_t real = (ptrdiff_t)model->kernels->real_bytes, H = model->config.hidden_size;
    const ptrdiff_t t = fl_walk_time(walk, s);
    char *record = fl_rows_find(walk->tape, t, first, (size_t)real);
    fl_model_step(model, direction, panels, end - first, h, h_stride,
                  z + first * model->z_row * real, walk->c + first * H * real,
                  fl_rows_at(walk->y, t, first, (size_t)real), walk->y.stride_b, record,
                  s % 2 != 0);
    return 0;
}

/* take_step() in slices of rows, until the call is given up; returns whether it is. */
static FL_NOINLINE int take_watched_step(const fl_model *model, const fl_direction *direction,
                                         const fl_walk *walk, ptrdiff_t s, ptrdiff_t first,
                                         ptrdiff_t end, const char *h, ptrdiff_t h_stride, char *z,
                                         fl_panels panels, fl_share *share, const pace *pace) {
    for (ptrdiff_t b = first; b < end; b += pace->slice) {
        const ptrdiff_t last = fl_size_min(b + pace->slice, end);
        if (gives_up(pace, last - b)) return 1;
        const char *h_b = h + (b - first) * h_stride * (ptrdiff_t)model->kernels->real_bytes;
        if (take_step(model, direction, walk, s, b, last, h_b, h_stride, z, panels, share))
            return 1;
    }
    return 0;
}

/* The same, of which a step that nobody watches pays nothing: 20 ns are a fifth of a tiny one. */
FL_INLINE int take_rows(const fl_model *model, const fl_direction *direction, const fl_walk *walk,
                        ptrdiff_t s, ptrdiff_t first, ptrdiff_t end, const char *h,
                        ptrdiff_t h_stride, char *z, fl_panels panels, fl_share *share,
                        const pace *pace) {
    if (pace->stop != NULL)
        return take_watched_step(model, direction, walk, s, first, end, h, h_stride, z, panels,
                                 share, pace);
    return take_step(model, direction, walk, s, first, end, h, h_stride, z, panels, share);
}

/* Runs one direction of one layer, in chunks of time. */
static void run_direction(const fl_model *model, const fl_direction *direction, const fl_walk *walk,
                          ptrdiff_t chunk, const fl_share *share) {
    char *const z = walk->scratch->z;
    const size_t real = model->kernels->real_bytes;
    const ptrdiff_t P = model->output_size, T = walk->T;
    const ptrdiff_t row = P * (ptrdiff_t)real;
    const ptrdiff_t z_row = model->z_row * (ptrdiff_t)real;
    fl_share own = *share; /* other threads may have left the call */
    own.count = fl_share_threads(share);
    if (own.index >= own.count) return;
    fl_panels panels = fl_panels_part(model, own.index, own.count);
    pace of_inputs = pace_of(model, &own, direction->input_size);
    if (model->digits) of_inputs.room = fl_scratch_room(model, walk->scratch, own.index);
    const pace of_steps = pace_of(model, &own, P);
    pace of_each_step = of_steps; /* what is short is looked at once a chunk */
    if (of_steps.work * (double)walk->B < WATCHED_STEP) of_each_step.stop = NULL;
    ptrdiff_t going = 0; /* sequences that have taken the step before: their h is in y */

    for (ptrdiff_t first = 0; first < T; first += chunk) {
        const ptrdiff_t n = fl_size_min(chunk, T - first);
        const ptrdiff_t t = walk->reverse ? T - first - n : first;
        /* Threads may have left at a barrier inside a step, too. */
        panels = fl_panels_part(model, own.index, own.count);
        if (of_each_step.stop == NULL && gives_up(&of_steps, n * walk->B)) return;
        if (walk->ragged.starts == NULL)
            input_product(model, direction, walk, t, n, z, panels, &of_inputs);
        else if (ragged_product(model, direction, walk, t, n, z, &panels, &of_inputs, &own)) return;
        if (model->config.layer_norm) {
            if (meet(model, &own, &panels)) return;
            if (fl_share_has_rows(&own)) norm_inputs(model, direction, walk, t, n, z);
            if (meet(model, &own, &panels)) return;
        }
        char *z_s = z; /* of step s; behind all of the chunk before a reverse walk takes it */
        if (walk->reverse) z_s += rows_of(walk, t, n) * z_row;
        for (ptrdiff_t s = first; s < first + n; s++) {
            const ptrdiff_t count = count_of(walk, s), next = count_of(walk, s + 1);
            if (walk->reverse) z_s -= count * z_row;
            going = fl_size_min(going, count);
            if (going > 0 && take_rows(model, direction, walk, s, 0, going,
                                       fl_rows_at(walk->y, fl_walk_time(walk, s - 1), 0, real),
                                       walk->y.stride_b, z_s, panels, &own, &of_each_step))
                return;
            if (going < count &&
                take_rows(model, direction, walk, s, going, count, walk->h + going * row, P, z_s,
                          panels, &own, &of_each_step))
                return;
            /* All of h_t must be there before anyone reads it. */
            if (meet(model, &own, &panels)) return;
            if (own.index == 0) {
                for (ptrdiff_t b = next; b < count; b++)
                    memcpy(walk->h + b * row, fl_rows_at(walk->y, fl_walk_time(walk, s), b, real),
                           (size_t)row);
                if (walk->placed.data)
                    fl_rows_write_placed(walk->placed, fl_walk_time(walk, s), count, (size_t)row,
                                         real, fl_rows_at(walk->y, fl_walk_time(walk, s), 0, real),
                                         walk->y.stride_b);
            }
            if (!walk->reverse) z_s += count * z_row;
            going = count;
        }
    }
    /* The next run reads h, and may write where this one's last y is. */
    meet(model, &own, &panels);
}

/* One direction's part of a layer's output, times the mask on its way to the layer above. */
static void mask_output(const fl_model *model, const fl_walk *walk, fl_rows mask,
                        const fl_share *share) {
    const size_t real = model->kernels->real_bytes;
    const fl_columns own = fl_columns_part(model, model->output_size, share);
    for (ptrdiff_t t = 0; t < walk->T; t++) {
        char *y = fl_rows_at(walk->y, t, 0, real) + own.first * (ptrdiff_t)real;
        model->kernels->mask_rows(fl_ragged_count(walk->ragged, t, walk->B), own.count,
                                  fl_rows_at(mask, t, 0, real) + own.first * (ptrdiff_t)real,
                                  mask.stride_b, y, walk->y.stride_b, NULL, 0, y, walk->y.stride_b);
    }
}

/* All layers and directions over the same steps. */
static void run_stack(const fl_model *model, const fl_span *span, const fl_scratch *scratch,
                      const fl_share *share) {
    const size_t real = model->kernels->real_bytes;
    const ptrdiff_t L = model->config.num_layers, D = model->config.num_directions;
    const ptrdiff_t P = model->output_size, T = span->T, B = span->B;
    const fl_rows last = {scratch->last, B * D * P, D * P, NULL, NULL, 1};
    const int alone = share->count == 1 && share->direction == FL_ALL_DIRECTIONS;
    const int masked = span->recurrent.rows.data != NULL || span->between.rows.data != NULL;
    const ptrdiff_t lane_steps =
        alone && !masked ? fl_lanes_steps(model, T, B, span->ragged.starts) : 0;
    fl_lane lanes[2]; /* a direction and the next, or a layer and the next */
    int waiting = 0;  /* whether the first of them is there */
    fl_rows x = span->x;
    for (ptrdiff_t l = 0; l < L; l++) {
        const fl_rows between = {scratch->between[l % 2],
                                 B * D * P,
                                 D * P,
                                 D == 2 ? span->ragged.starts : NULL,
                                 NULL,
                                 0};
        const int is_placed = l == L - 1 && span->y.first_rows != NULL;
        const fl_rows out = l < L - 1 ? between : span->y.data && !is_placed ? span->y : last;
        for (ptrdiff_t d = 0; d < D; d++) {
            if (share->direction != FL_ALL_DIRECTIONS && share->direction != d) continue;
            const ptrdiff_t index = l * D + d, column = d * P * (ptrdiff_t)real;
            fl_walk walk = {.T = T, .B = B, .ragged = span->ragged};
            walk.reverse = fl_config_is_reverse(&model->config, d);
            walk.x = x;
            walk.y = out;
            walk.y.data += column;
            if (is_placed) walk.placed = fl_rows_column(span->y, column);
            walk.tape = fl_stack_at(span->tape, index, real);
            walk.h = span->h + index * span->h_stride * (ptrdiff_t)real;
            walk.c = span->c + index * span->c_stride * (ptrdiff_t)real;
            walk.recurrent = fl_stack_at(span->recurrent, index, real);
            walk.zoneout_h = fl_stack_at(span->zoneout_h, index, real);
            walk.zoneout_c = fl_stack_at(span->zoneout_c, index, real);
            walk.scratch = &scratch->directions[d];
            if (lane_steps > 0 && (waiting || index + 1 < L * D)) {
                char *z = walk.scratch->z + (size_t)(waiting * lane_steps * model->z_row) * real;
                lanes[waiting] = (fl_lane){.direction = &model->directions[index],
                                           .reverse = walk.reverse,
                                           .x = walk.x,
                                           .y = walk.y,
                                           .tape = walk.tape,
                                           .h = walk.h,
                                           .c = walk.c,
                                           .z = z};
                if (waiting) fl_lanes_run(model, lanes, T, D == 1, share->stop, share->thread);
                waiting = !waiting;
                continue;
            }
            run_direction(model, &model->directions[index], &walk, scratch->chunk, share);
            fl_rows mask = fl_stack_at(span->between, l, real);
            if (l == L - 1 || mask.data == NULL) continue;
            mask.data += column;
            fl_share own = *share;
            own.count = fl_share_threads(share);
            if (own.index < own.count) {
                mask_output(model, &walk, mask, &own);
                fl_share_wait(&own);
            }
        }
        /* The layer above reads both directions. */
        if (share->direction != FL_ALL_DIRECTIONS && fl_barrier_wait(share->everyone)) return;
        x = out;
    }
}

fl_status fl_span_set_masks(fl_span *span, const fl_model *model, const fl_masks *masks) {
    const fl_config *config = &model->config;
    const ptrdiff_t H = config->hidden_size, P = model->output_size, T = span->T, B = span->B;
    const ptrdiff_t *starts = span->ragged.starts;
    if (masks == NULL) return FL_OK;
    const int zones_out_h = config->zoneout_h > 0, zones_out_c = config->zoneout_c > 0;
    if ((masks->zoneout_h && !zones_out_h) || (masks->zoneout_c && !zones_out_c))
        return FL_ERROR_ARGUMENT;
    size_t widest; /* a row of all sequences: without steps no tape has bounded B */
    if (!fl_size_multiply((size_t)B, 2 * (size_t)H, &widest)) return FL_ERROR_OVERFLOW;
    span->recurrent = fl_stack_of(masks->recurrent, 1, B, P, NULL);
    span->recurrent.rows.stride_t = 0; /* the same at every step */
    span->between = fl_stack_of(masks->between, T, B, config->num_directions * P, starts);
    span->zoneout_h = fl_stack_of(masks->zoneout_h, T, B, P, starts);
    span->zoneout_c = fl_stack_of(masks->zoneout_c, T, B, H, starts);
    return FL_OK;
}

void fl_span_move(fl_span *span, ptrdiff_t t, ptrdiff_t b, size_t real) {
    fl_rows *views[] = {&span->x,
                        &span->y,
                        &span->tape.rows,
                        &span->recurrent.rows,
                        &span->between.rows,
                        &span->zoneout_h.rows,
                        &span->zoneout_c.rows};
    for (size_t i = 0; i < sizeof views / sizeof *views; i++)
        if (views[i]->data) *views[i] = fl_rows_from(*views[i], t, b, real);
    if (span->ragged.starts) span->ragged.starts += t;
    span->ragged.first += b;
}

void fl_span_run(const fl_span *span, const fl_model *model, const fl_scratch *scratch,
                 const fl_share *share) {
    const int whole = model->config.num_directions == 2 || model->config.num_layers == 1;
    const ptrdiff_t stretch = whole ? span->T : scratch->chunk;
    for (ptrdiff_t done = 0; done < span->T; done += stretch) {
        if (fl_stop_check(share->stop, share->thread, 0)) return;
        fl_span part = *span;
        part.T = fl_size_min(stretch, span->T - done);
        const ptrdiff_t first = model->config.reverse ? span->T - done - part.T : done;
        if (first > 0) fl_span_move(&part, first, 0, model->kernels->real_bytes);
        run_stack(model, &part, scratch, share);
    }
}
