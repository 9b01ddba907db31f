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
#include "side_by_side.h"

/* Steps of so many multiply-adds are worth looking at each time whether the call is given up. */
enum { WATCHED_STEP = 1 << 16 };

/* One direction of one layer over some steps. Step s of its walk is time s, or T - 1 - s. */
typedef struct walk {
    ptrdiff_t T, B;
    int reverse;
    fl_ragged ragged;
    fl_rows x, y;                            /* in (T, B, I_l), out (T, B, P) */
    fl_rows placed;                          /* where y goes from there, or data NULL */
    fl_rows tape;                            /* out (T, B, R); data NULL for none */
    char *h, *c;                             /* (B, P), (B, H) contiguous, the state, in and out */
    fl_rows recurrent, zoneout_h, zoneout_c; /* masks; data NULL for none */
    const fl_direction_scratch *scratch;
} walk;

static ptrdiff_t time_of(const walk *walk, ptrdiff_t s) {
    return walk->reverse ? walk->T - 1 - s : s;
}

/* Sequences that take step s; none beyond the last. */
static ptrdiff_t count_of(const walk *walk, ptrdiff_t s) {
    return s < walk->T ? fl_ragged_count(walk->ragged, time_of(walk, s), walk->B) : 0;
}

/* Rows of the n times from t on. */
static ptrdiff_t rows_of(const walk *walk, ptrdiff_t t, ptrdiff_t n) {
    if (walk->ragged.starts == NULL) return n * walk->B;
    ptrdiff_t rows = 0;
    for (ptrdiff_t i = 0; i < n; i++) rows += fl_ragged_count(walk->ragged, t + i, walk->B);
    return rows;
}

/* What the layer normalisation of some rows works on: `part` 0 for W x, 1 for U h, 2 for c~, of the
 * rows at time t from sequence b on. */
static fl_norm norm_of(const fl_model *model, const fl_direction *direction, const walk *walk,
                       int part, ptrdiff_t t, ptrdiff_t b, ptrdiff_t rows) {
    const ptrdiff_t real = (ptrdiff_t)model->kernels->real_bytes, H = model->config.hidden_size;
    const ptrdiff_t gates = fl_config_gates(&model->config) * H;
    const char *norm = direction->norm;
    fl_norm of = {.config = &model->config, .rows = rows, .z_stride = model->z_row};
    of.scale = norm + part * gates * real;
    of.normal = walk->scratch->normal;
    if (part == 0) of.shift = norm + fl_config_norm_size(&model->config) * real; /* b */
    if (part == 2) of.shift = norm + (2 * gates + H) * real;
    if (walk->tape.data) {
        char *record = fl_rows_at(walk->tape, t, b, (size_t)real);
        of.normal = record + (5 * H + model->output_size + part * gates) * real;
        of.factors = record + (model->record_size - 3 + part) * real;
        of.normal_stride = model->record_size;
    }
    return of;
}

/* How a thread goes through rows, each of them K numbers that meet the weights of its panels. */
typedef struct pace {
    fl_stop *stop; /* or NULL: not looked at here */
    int thread;
    double work;     /* multiply-adds of a row */
    ptrdiff_t slice; /* rows to do between two looks whether the call is given up */
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

/* fl_model_product() for the input, in slices of rows until the call is given up. */
static void product(const fl_model *model, const fl_direction *direction, fl_panels panels,
                    const pace *pace, ptrdiff_t rows, const char *x, ptrdiff_t x_stride, char *z,
                    ptrdiff_t z_stride) {
    const ptrdiff_t real = (ptrdiff_t)model->kernels->real_bytes, I = direction->input_size;
    const ptrdiff_t slice = pace->stop ? pace->slice : rows;
    for (ptrdiff_t first = 0; first < rows; first += slice) {
        const ptrdiff_t count = fl_size_min(slice, rows - first);
        if (gives_up(pace, count)) return;
        fl_model_product(model, panels, count, I, x + first * x_stride * real, x_stride,
                         direction->w, direction->bias, z + first * z_stride * real, z_stride);
    }
}

/* z of a chunk after its product, normalised, scaled and shifted by the bias. */
static void norm_inputs(const fl_model *model, const fl_direction *direction, const walk *walk,
                        ptrdiff_t t, ptrdiff_t n, char *z) {
    const ptrdiff_t z_row = model->z_row * (ptrdiff_t)model->kernels->real_bytes;
    const int at_once = walk->tape.data == NULL; /* else steps are as far apart as on the tape */
    for (ptrdiff_t i = 0, steps = at_once ? n : 1; i < n; i += steps) {
        const ptrdiff_t rows = rows_of(walk, t + i, steps);
        const fl_norm norm = norm_of(model, direction, walk, 0, t + i, 0, rows);
        model->kernels->norm_gates(&norm, model->panels, z, z);
        z += rows * z_row;
    }
}

/* inputs (rows, I) = the rows of x at a time. */
static void copy_inputs(const fl_model *model, const walk *walk, ptrdiff_t t, ptrdiff_t rows,
                        ptrdiff_t I, char *inputs) {
    const size_t real = model->kernels->real_bytes;
    if (walk->x.first_rows) fl_rows_read_placed(walk->x, t, rows, (size_t)I * real, real, inputs);
    else
        model->kernels->put_rows(rows, I, fl_rows_at(walk->x, t, 0, real), walk->x.stride_b, inputs,
                                 I, 0);
}

/* Those of a direction's threads that have not left the call, see fl_late. */
static ptrdiff_t count_threads(const fl_share *share) {
    return share->count > 1 ? fl_atomic_load(&share->units->size) : share->count;
}

/* Waits for the threads that share a direction's units; returns whether this one is to do no more:
 * the call is given up, or it leaves. Each of those that stay may have more of the units then. */
static int wait_for_units(fl_share *own) {
    if (own->count == 1) return 0;
    if (fl_barrier_wait(own->units)) return 1;
    own->count = count_threads(own);
    return own->index >= own->count;
}

/* The same, and takes over its part of what those had that have left. */
static int meet(const fl_model *model, fl_share *own, fl_panels *panels) {
    const ptrdiff_t before = own->count;
    if (wait_for_units(own)) return 1;
    if (own->count != before) *panels = fl_panels_part(model, own->index, own->count);
    return 0;
}

/* input_product() of sequences of different lengths. Unless they lie so, the rows of some whole
 * steps are copied side by side, for a product of them all. Returns whether this thread is to do no
 * more. */
static int ragged_product(const fl_model *model, const fl_direction *direction, const walk *walk,
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
static void input_product(const fl_model *model, const fl_direction *direction, const walk *walk,
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

/* Whether whole rows that are not worth sharing are this thread's to do. */
static int has_rows(const fl_share *share) { return share->index == 0; }

/* Columns 0..n-1 of rows that a thread computes: some panels of fl_kernels.multiply. */
typedef struct columns_part {
    fl_range panels;
    ptrdiff_t first, count;
} columns_part;

static columns_part columns_of(const fl_model *model, ptrdiff_t n, const fl_share *share) {
    const ptrdiff_t width = 4 * model->kernels->lanes, panels = (n - 1) / width + 1;
    const fl_range own = {panels * share->index / share->count,
                          panels * (share->index + 1) / share->count};
    const ptrdiff_t first = fl_size_min(own.first * width, n);
    return (columns_part){own, first, fl_size_min(own.end * width, n) - first};
}

/* Rows of `width` reals from one and a column on; NULL for none. */
static char *rows_from(const fl_model *model, const char *rows, ptrdiff_t row, ptrdiff_t width,
                       ptrdiff_t column) {
    const ptrdiff_t real = (ptrdiff_t)model->kernels->real_bytes;
    return rows ? (char *)(uintptr_t)rows + (row * width + column) * real : NULL;
}

/* take_step() of variants, and with a mask on h. Returns whether the thread is to do no
 * more. */
static FL_NOINLINE int take_variant_step(const fl_model *model, const fl_direction *direction,
                                         const walk *walk, ptrdiff_t s, ptrdiff_t first,
                                         ptrdiff_t end, const char *h, ptrdiff_t h_stride, char *z,
                                         fl_share *share) {
    const fl_kernels *kernels = model->kernels;
    const fl_config *config = &model->config;
    const size_t real = kernels->real_bytes;
    const fl_direction_scratch *scratch = walk->scratch;
    const ptrdiff_t H = config->hidden_size, P = model->output_size;
    const ptrdiff_t t = time_of(walk, s), rows = end - first, y_stride = walk->y.stride_b;
    columns_part own = columns_of(model, P, share);
    const char *recurrent = fl_rows_find(walk->recurrent, 0, first, real);
    char *y = fl_rows_at(walk->y, t, first, real);
    char *cells = rows_from(model, scratch->cells, first, H, 0);
    const ptrdiff_t h_row = recurrent ? P : h_stride;
    char *masked = rows_from(model, scratch->masked, first, P, 0);
    if (recurrent) {
        kernels->mask_rows(rows, own.count, rows_from(model, recurrent, 0, P, own.first), P,
                           rows_from(model, h, 0, P, own.first), h_stride, NULL, 0,
                           rows_from(model, masked, 0, P, own.first), P);
        if (wait_for_units(share)) return 1;
    }
    fl_step step = {.config = config, .rows = rows, .P = P, .h_stride = h_row};
    step.h = recurrent ? masked : h;
    step.u = direction->u;
    step.z = z += first * model->z_row * (ptrdiff_t)real;
    step.z_stride = model->z_row;
    step.peepholes = direction->peepholes;
    step.zoneout_c = fl_rows_find(walk->zoneout_c, t, first, real);
    step.c = walk->c + first * H * (ptrdiff_t)real;
    step.h_out = model->needs_rows ? cells : y;
    step.h_out_stride = model->needs_rows ? H : y_stride;
    step.record = fl_rows_find(walk->tape, t, first, real);
    step.record_stride = model->record_size;
    step.backward = s % 2 != 0;
    char *candidates = rows_from(model, scratch->candidates, first, H, 0);
    step.near_bytes = model->near_bytes;
    if (config->layer_norm) { /* U h is a whole of its own, and the cell begins with it */
        char *product = rows_from(model, scratch->recurrent, first, model->z_row, 0);
        fl_model_product(model, fl_panels_part(model, share->index, share->count), rows, P, step.h,
                         h_row, step.u, direction->bias, product, model->z_row);
        if (wait_for_units(share)) return 1;
        const fl_norm norm = norm_of(model, direction, walk, 1, t, first, rows);
        if (has_rows(share)) kernels->norm_gates(&norm, model->panels, product, z);
        if (wait_for_units(share)) return 1;
        step.P = 0;
        step.candidate = candidates;
    }
    const fl_panels panels = fl_panels_part(model, share->index, share->count);
    if (model->is_variant) fl_model_variant_step(model, panels, &step);
    else
        fl_model_step(model, direction, panels, rows, step.h, h_row, step.z, step.c, y, y_stride,
                      step.record, step.backward);
    if (!model->needs_rows) return 0;
    if (wait_for_units(share)) return 1;
    if (config->layer_norm) {
        const fl_norm norm = norm_of(model, direction, walk, 2, t, first, rows);
        if (has_rows(share)) kernels->norm_cell(&norm, cells, candidates, cells, H);
        if (wait_for_units(share)) return 1;
    }
    own = columns_of(model, P, share);
    char *own_y = rows_from(model, y, 0, P, own.first);
    if (config->proj_size)
        kernels->multiply(own.panels.first, own.panels.end, rows, H, P, cells, H,
                          direction->projection, y, y_stride, 0, model->near_bytes);
    else
        kernels->put_rows(rows, own.count, rows_from(model, cells, 0, H, own.first), H, own_y,
                          y_stride, 0);
    if (config->zoneout_h > 0)
        kernels->mix_rows(
            rows, own.count,
            rows_from(model, fl_rows_find(walk->zoneout_h, t, first, real), 0, P, own.first), P,
            config->zoneout_h, rows_from(model, h, 0, P, own.first), h_stride, own_y, y_stride,
            own_y, y_stride);
    if (step.record)
        kernels->put_rows(rows, own.count, own_y, y_stride,
                          (char *)step.record + (5 * H + own.first) * (ptrdiff_t)real,
                          step.record_stride, 0);
    return 0;
}

/* Step s of rows first..end-1, with h of the step before in `h`, z of the first row of all in z.
 * Returns whether the thread is to do no more. */
FL_INLINE int take_step(const fl_model *model, const fl_direction *direction, const walk *walk,
                        ptrdiff_t s, ptrdiff_t first, ptrdiff_t end, const char *h,
                        ptrdiff_t h_stride, char *z, fl_panels panels, fl_share *share) {
    if (model->is_variant || walk->recurrent.data)
        return take_variant_step(model, direction, walk, s, first, end, h, h_stride, z, share);
    const ptrdiff_t real = (ptrdiff_t)model->kernels->real_bytes, H = model->config.hidden_size;
    const ptrdiff_t t = time_of(walk, s);
    char *record = fl_rows_find(walk->tape, t, first, (size_t)real);
    fl_model_step(model, direction, panels, end - first, h, h_stride,
                  z + first * model->z_row * real, walk->c + first * H * real,
                  fl_rows_at(walk->y, t, first, (size_t)real), walk->y.stride_b, record,
                  s % 2 != 0);
    return 0;
}

/* take_step() in slices of rows, until the call is given up; returns whether it is. */
static FL_NOINLINE int take_watched_step(const fl_model *model, const fl_direction *direction,
                                         const walk *walk, ptrdiff_t s, ptrdiff_t first,
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
FL_INLINE int take_rows(const fl_model *model, const fl_direction *direction, const walk *walk,
                        ptrdiff_t s, ptrdiff_t first, ptrdiff_t end, const char *h,
                        ptrdiff_t h_stride, char *z, fl_panels panels, fl_share *share,
                        const pace *pace) {
    if (pace->stop != NULL)
        return take_watched_step(model, direction, walk, s, first, end, h, h_stride, z, panels,
                                 share, pace);
    return take_step(model, direction, walk, s, first, end, h, h_stride, z, panels, share);
}

/* Runs one direction of one layer, in chunks of time. */
static void run_direction(const fl_model *model, const fl_direction *direction, const walk *walk,
                          ptrdiff_t chunk, const fl_share *share) {
    char *const z = walk->scratch->z;
    const size_t real = model->kernels->real_bytes;
    const ptrdiff_t P = model->output_size, T = walk->T;
    const ptrdiff_t row = P * (ptrdiff_t)real;
    const ptrdiff_t z_row = model->z_row * (ptrdiff_t)real;
    fl_share own = *share; /* other threads may have left the call */
    own.count = count_threads(share);
    if (own.index >= own.count) return;
    fl_panels panels = fl_panels_part(model, own.index, own.count);
    const pace of_inputs = pace_of(model, &own, direction->input_size);
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
            if (has_rows(&own)) norm_inputs(model, direction, walk, t, n, z);
            if (meet(model, &own, &panels)) return;
        }
        char *z_s = z; /* of step s; behind all of the chunk before a reverse walk takes it */
        if (walk->reverse) z_s += rows_of(walk, t, n) * z_row;
        for (ptrdiff_t s = first; s < first + n; s++) {
            const ptrdiff_t count = count_of(walk, s), next = count_of(walk, s + 1);
            if (walk->reverse) z_s -= count * z_row;
            going = fl_size_min(going, count);
            if (going > 0 && take_rows(model, direction, walk, s, 0, going,
                                       fl_rows_at(walk->y, time_of(walk, s - 1), 0, real),
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
                    memcpy(walk->h + b * row, fl_rows_at(walk->y, time_of(walk, s), b, real),
                           (size_t)row);
                if (walk->placed.data)
                    fl_rows_write_placed(walk->placed, time_of(walk, s), count, (size_t)row, real,
                                         fl_rows_at(walk->y, time_of(walk, s), 0, real),
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
static void mask_output(const fl_model *model, const walk *walk, fl_rows mask,
                        const fl_share *share) {
    const size_t real = model->kernels->real_bytes;
    const columns_part own = columns_of(model, model->output_size, share);
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
            walk walk = {.T = T, .B = B, .ragged = span->ragged};
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
            own.count = count_threads(share);
            if (own.index < own.count) {
                mask_output(model, &walk, mask, &own);
                wait_for_units(&own);
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
