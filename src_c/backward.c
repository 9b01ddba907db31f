/* fl_backward: backpropagation through time.
 *
 * From the last layer to the first, for each direction, in chunks of time from the last step back:
 *
 *   for each step s:  dG_s, dc = cell_backward(record s, dy_s + dh, dc)      dh = dG_s @ U
 *   then, while dG and [x | h_{s-1}] of the chunk are warm, in blocks of SUM_ROWS rows:
 *                     d[W | U] += dG^T @ [x | h_{s-1}]     db += dG     dx = dG @ W
 *
 * s counts the steps in the order in which the direction took them, as the tape does. The hidden
 * states are computed once more from the tape, o * tanh(c), so that nothing depends on y, which the
 * caller may have changed.
 *
 * How threads share the work changes no bit: rows and columns do not meet in any sum but those over
 * rows, and these are cut into blocks that depend on sizes alone.
 */
#include <stdint.h>
#include <string.h>

#include "forward.h"
#include "kernels.h"
#include "model.h"
#include "platform.h"
#include "threads.h"

enum {
    SUM_ROWS = 256,           /* rows of a block of sums; a chunk has at least so many */
    CHUNK_BYTES = 512 * 1024, /* of dG in a chunk, about */
    THREAD_WORK = 1 << 21,    /* multiply-adds worth waking a thread for */
    STEP_WORK = 1 << 15,      /* multiply-adds of a step worth a barrier, for each thread */
    ROWS_PER_THREAD = 4,      /* sequences that use a core's arithmetic about as well as many do */
    LINE = 64
};

/* Who takes the steps of a chunk; the products after them are always shared. */
typedef enum sharing { BY_ROWS, BY_UNITS, BY_ONE } sharing;

/* One call, as its threads see it. Pointers may be NULL where fastlstm.h says so. */
typedef struct call {
    const fl_model *model;
    const char *parameters;
    ptrdiff_t T, B;
    fl_rows x, dy, dx;
    const char *h_0, *c_0, *tape, *dh_n, *dc_n;
    char *dh_0, *dc_0, *dparameters;
    int accumulate;

    sharing sharing;
    int threads;
    fl_barrier barrier;

    /* Scratch. d (chunk, B, 4H) is dG; a (chunk + 1, B, I_l + H) is [x | h], x of step s beside h
     * of step s - 1; sums (4H, I_l + H) is d[W | U]. Their rows have strides that fit whole lines.
     */
    ptrdiff_t chunk, d_stride, a_stride;
    char *memory, *d, *a, *dh, *dc, *sums, *bias_sums, *u, *w, *between[2];
} call;

/* One direction of one layer. */
typedef struct pass {
    ptrdiff_t l, d, index, I;
    const char *w, *u;  /* parameters (4H, I), (4H, H) */
    char *dw, *du, *db; /* their gradients, or NULL */
    const char *tape;   /* (T, B, 5, H) */
    fl_rows x, dy, dx;  /* in the direction's order of time; data NULL for none */
    int dx_accumulate;
} pass;

static ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
static ptrdiff_t larger(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }

static char *row_at(fl_rows view, ptrdiff_t t, ptrdiff_t b, size_t real) {
    return view.data ? fl_rows_from(view, t, b, real).data : NULL;
}

/* Thread `index`'s part of 0..n-1. */
typedef struct range {
    ptrdiff_t first, end;
} range;
static range part_of(ptrdiff_t n, const call *call, int index) {
    return (range){n * index / call->threads, n * (index + 1) / call->threads};
}

static void wait_for_all(call *call) {
    if (call->threads > 1) fl_barrier_wait(&call->barrier);
}

static const char *record_at(const call *call, const char *tape, ptrdiff_t s, ptrdiff_t b) {
    const ptrdiff_t row =
        5 * call->model->config.hidden_size * (ptrdiff_t)call->model->kernels->real_bytes;
    return tape + (s * call->B + b) * row;
}

/* Where the parameters of layer l and direction d begin, in reals. */
static ptrdiff_t parameters_before(const fl_config *config, ptrdiff_t l, ptrdiff_t d) {
    const ptrdiff_t H = config->hidden_size, D = config->num_directions;
    const ptrdiff_t biases = config->has_bias ? 2 : 0;
    const ptrdiff_t first = 4 * H * (config->input_size + H + biases);
    const ptrdiff_t above = 4 * H * (D * H + H + biases);
    return l == 0 ? d * first : D * first + ((l - 1) * D + d) * above;
}

static pass pass_of(const call *call, ptrdiff_t l, ptrdiff_t d) {
    const fl_config *config = &call->model->config;
    const ptrdiff_t real = (ptrdiff_t)call->model->kernels->real_bytes;
    const ptrdiff_t H = config->hidden_size, D = config->num_directions, L = config->num_layers;
    const fl_rows below = {l > 0 ? call->between[(l - 1) % 2] : NULL, call->B * D * H, D * H};
    const fl_rows above = {l < L - 1 ? call->between[l % 2] : NULL, call->B * D * H, D * H};
    pass pass = {.l = l, .d = d, .index = l * D + d, .I = l == 0 ? config->input_size : D * H};
    const ptrdiff_t start = parameters_before(config, l, d) * real;
    pass.w = call->parameters + start;
    pass.u = pass.w + 4 * H * pass.I * real;
    if (call->dparameters) {
        pass.dw = call->dparameters + start;
        pass.du = pass.dw + 4 * H * pass.I * real;
        pass.db = config->has_bias ? pass.du + 4 * H * H * real : NULL;
    }
    pass.tape = call->tape + pass.index * call->T * call->B * 5 * H * real;
    pass.x = l == 0 ? call->x : below;
    pass.dx = l == 0 ? call->dx : below;
    pass.dy = l == L - 1 ? call->dy : above;
    pass.dx_accumulate = d == 1 || (l == 0 && call->accumulate);
    if (pass.dy.data) pass.dy.data += d * H * real;
    if (d == 1 && call->T > 0) {
        fl_rows *views[] = {&pass.x, &pass.dx, &pass.dy};
        for (int i = 0; i < 3; i++) {
            views[i]->data = row_at(*views[i], call->T - 1, 0, (size_t)real);
            views[i]->stride_t = -views[i]->stride_t;
        }
    }
    return pass;
}

/* Packs the weights, and sets the running gradients and the sums to where they begin. */
static void begin(call *call, const pass *pass, int index) {
    const fl_kernels *kernels = call->model->kernels;
    const ptrdiff_t H = call->model->config.hidden_size, B = call->B, columns = 4 * kernels->lanes;
    const size_t real = kernels->real_bytes;
    const range u = part_of((H + columns - 1) / columns, call, index);
    kernels->pack_columns(u.first, u.end, 4 * H, H, pass->u, call->u);
    if (pass->dx.data) {
        const range w = part_of((pass->I + columns - 1) / columns, call, index);
        kernels->pack_columns(w.first, w.end, 4 * H, pass->I, pass->w, call->w);
    }
    if (pass->dw) {
        const range rows = part_of(4 * H, call, index);
        const size_t row = (size_t)call->a_stride * real;
        memset(call->sums + (size_t)rows.first * row, 0, (size_t)(rows.end - rows.first) * row);
        if (index == 0) memset(call->bias_sums, 0, (size_t)(4 * H) * real);
    }
    if (index > 0) return;
    const size_t state = (size_t)(B * H) * real, offset = (size_t)pass->index * state;
    if (call->dh_n) memcpy(call->dh, call->dh_n + offset, state);
    else memset(call->dh, 0, state);
    if (call->dc_n) memcpy(call->dc, call->dc_n + offset, state);
    else memset(call->dc, 0, state);
}

/* The x half of a for n steps from `first` on, of sequences `rows`: the input, or the hidden states
 * of the layer below. */
static void fill_inputs(const call *call, const pass *pass, ptrdiff_t first, ptrdiff_t n,
                        range rows) {
    const fl_kernels *kernels = call->model->kernels;
    const ptrdiff_t real = (ptrdiff_t)kernels->real_bytes, count = rows.end - rows.first;
    const ptrdiff_t H = call->model->config.hidden_size, D = call->model->config.num_directions;
    for (ptrdiff_t slot = 0; slot < n; slot++) {
        char *to = call->a + (slot * call->B + rows.first) * call->a_stride * real;
        if (pass->l == 0) {
            kernels->put_rows(count, pass->I,
                              row_at(pass->x, first + slot, rows.first, (size_t)real),
                              pass->x.stride_b, to, call->a_stride, 0);
            continue;
        }
        for (ptrdiff_t d = 0; d < D; d++) {
            const ptrdiff_t s = d == pass->d ? first + slot : call->T - 1 - (first + slot);
            const ptrdiff_t below = (pass->l - 1) * D + d;
            const char *tape = call->tape + below * call->T * call->B * 5 * H * real;
            kernels->hidden(count, H, record_at(call, tape, s, rows.first), to + d * H * real,
                            call->a_stride);
        }
    }
}

/* The steps first + n - 1 down to `first`, for some sequences and some panels of units. */
static void take_steps(call *call, const pass *pass, ptrdiff_t first, ptrdiff_t n, range rows,
                       range panels, int barriers) {
    const fl_kernels *kernels = call->model->kernels;
    const ptrdiff_t real = (ptrdiff_t)kernels->real_bytes, H = call->model->config.hidden_size;
    const ptrdiff_t columns = 4 * kernels->lanes, count = rows.end - rows.first;
    const range units = {smaller(panels.first * columns, H), smaller(panels.end * columns, H)};
    const ptrdiff_t state = (pass->index * call->B + rows.first) * H * real;
    char *dh = call->dh + rows.first * H * real, *dc = call->dc + rows.first * H * real;
    const char *h_0 = call->h_0 ? call->h_0 + state : NULL;
    const char *c_0 = call->c_0 ? call->c_0 + state : NULL;
    char *h = pass->dw ? call->a + (rows.first * call->a_stride + pass->I) * real : NULL;
    const ptrdiff_t h_step = call->B * call->a_stride * real;

    for (ptrdiff_t slot = n - 1; slot >= 0; slot--) {
        const ptrdiff_t s = first + slot;
        const char *c_previous =
            s > 0 ? record_at(call, pass->tape, s - 1, rows.first) + 4 * H * real : c_0;
        char *dG = call->d + (slot * call->B + rows.first) * call->d_stride * real;
        kernels->cell_backward(units.first, units.end, count, H,
                               record_at(call, pass->tape, s, rows.first), c_previous,
                               s > 0 ? 5 * H : H, row_at(pass->dy, s, rows.first, (size_t)real),
                               pass->dy.stride_b, dh, dc, dG, call->d_stride,
                               h ? h + (slot + 1) * h_step : NULL, call->a_stride);
        if (barriers) fl_barrier_wait(&call->barrier); /* a product needs all of dG */
        kernels->multiply(panels.first, panels.end, count, 4 * H, H, dG, call->d_stride, call->u,
                          dh, H, 0);
    }
    if (h == NULL || panels.first > 0) return;
    /* h of the step before the chunk. */
    if (first > 0)
        kernels->hidden(count, H, record_at(call, pass->tape, first - 1, rows.first), h,
                        call->a_stride);
    else if (h_0) kernels->put_rows(count, H, h_0, H, h, call->a_stride, 0);
    else
        for (ptrdiff_t b = 0; b < count; b++)
            memset(h + b * call->a_stride * real, 0, (size_t)(H * real));
}

/* dx of n steps from `first` on: dG @ W, in as few and as tall products as the strides allow. */
static void input_gradient(const call *call, const pass *pass, ptrdiff_t first, ptrdiff_t n,
                           int index) {
    const fl_kernels *kernels = call->model->kernels;
    const ptrdiff_t real = (ptrdiff_t)kernels->real_bytes, B = call->B, I = pass->I;
    const ptrdiff_t H = call->model->config.hidden_size;
    const ptrdiff_t panels = (I + 4 * kernels->lanes - 1) / (4 * kernels->lanes);
    /* A thread's own sequences are in its cache. */
    const int by_steps = call->sharing != BY_ROWS && n >= call->threads;
    const range steps = by_steps ? part_of(n, call, index) : (range){0, n};
    const range rows = by_steps ? (range){0, B} : part_of(B, call, index);
    const ptrdiff_t count = rows.end - rows.first;
    const fl_rows dx = fl_rows_from(pass->dx, first + steps.first, rows.first, (size_t)real);
    const char *dG = call->d + (steps.first * B + rows.first) * call->d_stride * real;
    const ptrdiff_t tall = steps.end - steps.first;

    if (tall == 0 || count == 0) return;
    if (count == 1) {
        kernels->multiply(0, panels, tall, 4 * H, I, dG, B * call->d_stride, call->w, dx.data,
                          dx.stride_t, pass->dx_accumulate);
    } else if (count == B && dx.stride_t == B * dx.stride_b) {
        kernels->multiply(0, panels, tall * B, 4 * H, I, dG, call->d_stride, call->w, dx.data,
                          dx.stride_b, pass->dx_accumulate);
    } else {
        for (ptrdiff_t t = 0; t < tall; t++)
            kernels->multiply(0, panels, count, 4 * H, I, dG + t * B * call->d_stride * real,
                              call->d_stride, call->w, row_at(dx, t, 0, (size_t)real), dx.stride_b,
                              pass->dx_accumulate);
    }
}

/* d[W | U] and db of `rows` rows of dG and a, in blocks. */
static void add_to_sums(const call *call, const pass *pass, ptrdiff_t rows, int index) {
    const fl_kernels *kernels = call->model->kernels;
    const ptrdiff_t real = (ptrdiff_t)kernels->real_bytes, H = call->model->config.hidden_size;
    const range columns = part_of(4 * H, call, index);
    for (ptrdiff_t first = 0; first < rows; first += SUM_ROWS) {
        const ptrdiff_t count = smaller(SUM_ROWS, rows - first);
        const char *d = call->d + first * call->d_stride * real;
        kernels->add_outer(columns.first, columns.end, count, pass->I + H, d, call->d_stride,
                           call->a + first * call->a_stride * real, call->a_stride, call->sums,
                           call->a_stride);
        if (pass->db)
            kernels->add_rows(columns.first, columns.end, count, d, call->d_stride,
                              call->bias_sums);
    }
}

/* Hands the results of a pass over to the caller's arrays. */
static void finish(const call *call, const pass *pass, int index) {
    const fl_kernels *kernels = call->model->kernels;
    const ptrdiff_t real = (ptrdiff_t)kernels->real_bytes, H = call->model->config.hidden_size;
    const ptrdiff_t state = pass->index * call->B * H * real, I = pass->I;
    if (pass->dw) {
        const range rows = part_of(4 * H, call, index);
        const char *from = call->sums + rows.first * call->a_stride * real;
        kernels->put_rows(rows.end - rows.first, I, from, call->a_stride,
                          pass->dw + rows.first * I * real, I, call->accumulate);
        kernels->put_rows(rows.end - rows.first, H, from + I * real, call->a_stride,
                          pass->du + rows.first * H * real, H, call->accumulate);
    }
    if (index > 0) return;
    if (pass->db) /* of b_ih, then of b_hh */
        kernels->put_rows(2, 4 * H, call->bias_sums, 0, pass->db, 4 * H, call->accumulate);
    if (call->dh_0)
        kernels->put_rows(call->B, H, call->dh, H, call->dh_0 + state, H, call->accumulate);
    if (call->dc_0)
        kernels->put_rows(call->B, H, call->dc, H, call->dc_0 + state, H, call->accumulate);
}

/* All steps of one direction of one layer, thread `index`'s part. */
static void run_pass(call *call, const pass *pass, int index) {
    const ptrdiff_t H = call->model->config.hidden_size, columns = 4 * call->model->kernels->lanes;
    range rows = {0, call->B}, panels = {0, (H + columns - 1) / columns};
    if (call->sharing == BY_ROWS) rows = part_of(call->B, call, index);
    if (call->sharing == BY_UNITS) panels = part_of(panels.end, call, index);

    begin(call, pass, index);
    wait_for_all(call);
    for (ptrdiff_t end = call->T, n; end > 0; end -= n) {
        n = smaller(call->chunk, end);
        if (pass->dw) fill_inputs(call, pass, end - n, n, part_of(call->B, call, index));
        if (call->sharing != BY_ONE || index == 0)
            take_steps(call, pass, end - n, n, rows, panels, call->sharing == BY_UNITS);
        wait_for_all(call);
        if (pass->dw) add_to_sums(call, pass, n * call->B, index);
        if (pass->dx.data) input_gradient(call, pass, end - n, n, index);
        wait_for_all(call);
    }
    finish(call, pass, index);
    wait_for_all(call);
}

static void run(void *context, int index) {
    call *call = context;
    const fl_config *config = &call->model->config;
    const fl_fp_state saved = fl_fp_enter();
    for (ptrdiff_t l = config->num_layers - 1; l >= 0; l--)
        for (ptrdiff_t d = 0; d < config->num_directions; d++) {
            const pass pass = pass_of(call, l, d);
            run_pass(call, &pass, index);
        }
    fl_fp_leave(saved);
}

/* How many threads a call is worth, and how they share the steps. */
static int plan(call *call) {
    const fl_config *config = &call->model->config;
    const double H = (double)config->hidden_size, B = (double)call->B,
                 D = (double)config->num_directions;
    const double columns =
        (double)config->input_size + H + ((double)config->num_layers - 1) * (D + 1) * H;
    const double work = 8 * H * columns * D * B * (double)call->T, step = 4 * H * H * B;
    int threads = fl_get_num_threads();
    if (work < (double)threads * THREAD_WORK) threads = (int)(work / THREAD_WORK);
    if (threads < 1) threads = 1;
    const ptrdiff_t panels = config->hidden_size / (4 * call->model->kernels->lanes);
    call->sharing = BY_ONE;
    if (call->B >= (ptrdiff_t)threads * ROWS_PER_THREAD) call->sharing = BY_ROWS;
    else if (panels >= threads && step >= (double)threads * STEP_WORK) call->sharing = BY_UNITS;
    return threads;
}

/* Reserves count * size bytes of the scratch memory, in whole cache lines. */
static int reserve(size_t *total, size_t count, size_t size, size_t *offset) {
    size_t bytes;
    *offset = *total;
    if (!fl_multiply_sizes(count, size, &bytes) || !fl_add_sizes(bytes, LINE - 1, &bytes)) return 0;
    return fl_add_sizes(*total, bytes / LINE * LINE, total);
}

/* A row of n reals in whole cache lines, an odd number of them: a power of two would crowd the
 * rows of a column into few sets of the cache. In reals; 0 when it does not fit. */
static size_t stride_of(size_t n, size_t real) {
    size_t bytes;
    if (!fl_multiply_sizes(n, real, &bytes) || !fl_add_sizes(bytes, 2 * LINE, &bytes)) return 0;
    return (((bytes - LINE - 1) / LINE) | 1) * LINE / real;
}

/* Sizes and allocates the scratch memory of a call. */
static fl_status create_scratch(call *call) {
    const fl_config *config = &call->model->config;
    const size_t real = call->model->kernels->real_bytes, H = (size_t)config->hidden_size;
    const size_t B = (size_t)call->B, T = (size_t)call->T, D = (size_t)config->num_directions;
    const size_t V = (size_t)call->model->kernels->lanes, L = (size_t)config->num_layers;
    const size_t widest = (size_t)larger(config->input_size, L > 1 ? (ptrdiff_t)(D * H) : 0);
    const size_t d_stride = stride_of(4 * H, real), a_stride = stride_of(widest + H, real);
    size_t step, total = 0, n, offsets[9], between = 0;
    if (d_stride == 0 || a_stride == 0 || !fl_multiply_sizes(d_stride * real, B, &step))
        return FL_ERROR_OVERFLOW;
    n = (size_t)larger((ptrdiff_t)(CHUNK_BYTES / step), (SUM_ROWS + call->B - 1) / call->B);
    n = n < T ? n : T;
    const size_t a_rows = call->dparameters ? n + 1 : 0;
    const size_t w_vectors = call->dx.data || L > 1 ? (widest + V - 1) / V : 0;
    if (L > 1 && (!fl_multiply_sizes(T, B, &between) || !fl_multiply_sizes(between, D, &between)))
        return FL_ERROR_OVERFLOW;
    const struct {
        size_t count, size;
    } parts[9] = {
        {n * B, d_stride * real},                         /* d */
        {a_rows * B, a_stride * real},                    /* a */
        {B, H * real},                                    /* dh */
        {B, H * real},                                    /* dc */
        {call->dparameters ? 4 * H : 0, a_stride * real}, /* sums */
        {5 * H, real},                                    /* bias_sums */
        {4 * H, (H + V - 1) / V * V * real},              /* u */
        {4 * H, w_vectors * V * real},                    /* w */
        {between, (L > 2 ? 2 : 1) * H * real},            /* between */
    };
    for (int i = 0; i < 9; i++)
        if (!reserve(&total, parts[i].count, parts[i].size, &offsets[i])) return FL_ERROR_OVERFLOW;
    call->memory = fl_alloc_aligned(total, 1);
    if (call->memory == NULL) return FL_ERROR_MEMORY;
    call->chunk = (ptrdiff_t)n;
    call->d_stride = (ptrdiff_t)d_stride;
    call->a_stride = (ptrdiff_t)a_stride;
    char **const places[9] = {&call->d,         &call->a, &call->dh, &call->dc,        &call->sums,
                              &call->bias_sums, &call->u, &call->w,  &call->between[0]};
    for (int i = 0; i < 9; i++) *places[i] = call->memory + offsets[i];
    call->between[1] = call->between[0] + (L > 2 ? between * H * real : 0);
    /* The ends of the rows of a, which are read with the last vector. */
    memset(call->a, 0, a_rows * B * a_stride * real);
    return FL_OK;
}

fl_status fl_backward(const fl_model *model, const void *parameters, ptrdiff_t T, ptrdiff_t B,
                      const void *x, ptrdiff_t x_stride_t, ptrdiff_t x_stride_b, const void *h_0,
                      const void *c_0, const void *tape, const void *dy, ptrdiff_t dy_stride_t,
                      ptrdiff_t dy_stride_b, const void *dh_n, const void *dc_n, int accumulate,
                      void *dx, ptrdiff_t dx_stride_t, ptrdiff_t dx_stride_b, void *dh_0,
                      void *dc_0, void *dparameters) {
    size_t bytes;
    fl_status status = fl_tape_bytes(model, T, B, &bytes);
    if (status != FL_OK) return status;
    if (parameters == NULL || (bytes > 0 && (tape == NULL || (dparameters && x == NULL))))
        return FL_ERROR_ARGUMENT;
    if (bytes == 0 && B == 0) { /* nothing to sum over */
        fl_parameter_count(&model->config, &bytes);
        if (dparameters && !accumulate) memset(dparameters, 0, bytes * model->kernels->real_bytes);
        return FL_OK;
    }
    call call = {.model = model, .parameters = parameters, .T = T, .B = B};
    call.x = (fl_rows){(char *)(uintptr_t)x, x_stride_t, x_stride_b};
    call.dy = (fl_rows){(char *)(uintptr_t)dy, dy_stride_t, dy_stride_b};
    call.dx = (fl_rows){dx, dx_stride_t, dx_stride_b};
    call.h_0 = h_0;
    call.c_0 = c_0;
    call.tape = tape;
    call.dh_n = dh_n;
    call.dc_n = dc_n;
    call.dh_0 = dh_0;
    call.dc_0 = dc_0;
    call.dparameters = dparameters;
    call.accumulate = accumulate;

    status = create_scratch(&call);
    if (status != FL_OK) return status;
    call.threads = fl_pool_take(plan(&call));
    call.barrier.size = call.threads;
    if (call.threads == 1) call.sharing = BY_ONE;
    fl_pool_run(call.threads, run, &call);
    fl_pool_release(call.threads);
    fl_free_aligned(call.memory);
    return FL_OK;
}
