/* The forward pass: layers, directions, chunks of time, steps.
 *
 * For each chunk of time a direction of a layer does
 *
 *     z (n, B, P, 4, V) = bias + x (n, B, I_l) @ W        one large product, off the critical path
 *     for each t:  h_t, c_t = cell(z_t + h_{t-1} @ U)     h_{t-1} is read where y_{t-1} was written
 *
 * Odd steps sweep over U from its end: what the step before read last is still in the cache.
 *
 * A reverse direction is a forward one over negative time strides. With one direction every layer
 * handles a chunk before the next chunk comes, so memory does not grow with T; with two, a layer
 * needs all of the layer below.
 */
#include <stdint.h>
#include <string.h>

#include "forward.h"
#include "kernels.h"
#include "model.h"
#include "platform.h"

/* z of a chunk takes about this many bytes, so that it is still in a core's cache when it is read;
 * a chunk has at most so many steps, beyond which a longer one gains nothing. */
enum { CHUNK_BYTES = 128 * 1024, CHUNK_STEPS = 256 };

static char *row_at(fl_rows view, ptrdiff_t t, ptrdiff_t b, size_t real) {
    return view.data + (t * view.stride_t + b * view.stride_b) * (ptrdiff_t)real;
}

static fl_rows from_step(fl_rows view, ptrdiff_t t, size_t real) {
    view.data = row_at(view, t, 0, real);
    return view;
}

/* The same rows with time running backwards. */
static fl_rows reversed(fl_rows view, ptrdiff_t T, size_t real) {
    view.data = row_at(view, T - 1, 0, real);
    view.stride_t = -view.stride_t;
    return view;
}

static ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

/* z (n, B, P, 4, V) = bias + x (n, B, I_l) @ W, in as few and as tall products as the strides of x
 * allow. */
static void input_product(const fl_model *model, const fl_direction *direction, ptrdiff_t n,
                          ptrdiff_t B, fl_rows x, char *z) {
    const fl_kernels *kernels = model->kernels;
    const size_t real = kernels->real_bytes;
    const ptrdiff_t z_row = model->panels * 4 * kernels->lanes;
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
    for (ptrdiff_t i = 0; i < calls; i++)
        kernels->product(rows, model->panels, direction->input_size,
                         x.data + i * call_stride * (ptrdiff_t)real, row_stride, direction->w,
                         direction->bias, z + i * z_call_stride * (ptrdiff_t)real, z_row_stride);
}

/* Runs one direction of one layer over T steps in chunks of at most `chunk`.
 * x in (T, B, I_l); y out (T, B, H); h, c (B, H) contiguous, the state, in and out; z scratch. */
static void run_direction(const fl_model *model, const fl_direction *direction, ptrdiff_t T,
                          ptrdiff_t B, fl_rows x, fl_rows y, char *h, char *c, char *z,
                          ptrdiff_t chunk) {
    const fl_kernels *kernels = model->kernels;
    const size_t real = kernels->real_bytes;
    const ptrdiff_t H = model->config.hidden_size;
    const ptrdiff_t z_step = B * model->panels * 4 * kernels->lanes * (ptrdiff_t)real;
    const char *h_previous = h;
    ptrdiff_t h_stride = H;

    for (ptrdiff_t first = 0; first < T; first += chunk) {
        const ptrdiff_t n = smaller(chunk, T - first);
        input_product(model, direction, n, B, from_step(x, first, real), z);
        for (ptrdiff_t t = 0; t < n; t++) {
            char *h_next = row_at(y, first + t, 0, real);
            kernels->step(B, H, h_previous, h_stride, direction->u, z + t * z_step, c, h_next,
                          y.stride_b, (first + t) % 2 != 0);
            h_previous = h_next;
            h_stride = y.stride_b;
        }
    }
    if (T > 0)
        for (ptrdiff_t b = 0; b < B; b++)
            memcpy(h + b * H * (ptrdiff_t)real, row_at(y, T - 1, b, real), (size_t)H * real);
}

fl_status fl_scratch_create(const fl_model *model, ptrdiff_t T, ptrdiff_t B, fl_scratch *made) {
    const size_t real = model->kernels->real_bytes;
    const size_t D = (size_t)model->config.num_directions, H = (size_t)model->config.hidden_size;
    const size_t buffers = (size_t)smaller(model->config.num_layers - 1, 2);
    size_t z_step, z_bytes, buffer_bytes, bytes;
    const size_t z_row = (size_t)(model->panels * model->kernels->lanes) * real; /* fits: pack.c */
    if (!fl_multiply_sizes(z_row, 4, &z_step) || !fl_multiply_sizes(z_step, (size_t)B, &z_step))
        return FL_ERROR_OVERFLOW;
    const ptrdiff_t affordable = (ptrdiff_t)(CHUNK_BYTES / z_step);
    made->chunk = smaller(T, smaller(affordable > 1 ? affordable : 1, CHUNK_STEPS));
    /* With two directions a layer needs all of the layer below. */
    const ptrdiff_t between_steps = D == 2 ? T : made->chunk;
    if (!fl_multiply_sizes(z_step, (size_t)made->chunk, &z_bytes) ||
        !fl_multiply_sizes(D * H * real, (size_t)B, &buffer_bytes) ||
        !fl_multiply_sizes(buffer_bytes, (size_t)between_steps, &buffer_bytes) ||
        !fl_multiply_sizes(buffer_bytes, buffers, &bytes) || !fl_add_sizes(bytes, z_bytes, &bytes))
        return FL_ERROR_OVERFLOW;
    made->z = fl_alloc_aligned(bytes, 1);
    if (made->z == NULL) return FL_ERROR_MEMORY;
    made->between[0] = made->z + z_bytes;
    made->between[1] = made->between[0] + (buffers == 2 ? buffer_bytes : 0);
    return FL_OK;
}

void fl_scratch_destroy(fl_scratch *scratch) { fl_free_aligned(scratch->z); }

/* All layers and directions over the same T steps. State of index l*D + d at h, c + index * B*H. */
static void run_stack(const fl_model *model, ptrdiff_t T, ptrdiff_t B, fl_rows x, fl_rows y,
                      char *h, char *c, const fl_scratch *scratch) {
    const size_t real = model->kernels->real_bytes;
    const ptrdiff_t L = model->config.num_layers, D = model->config.num_directions;
    const ptrdiff_t H = model->config.hidden_size;
    for (ptrdiff_t l = 0; l < L; l++) {
        const fl_rows between = {scratch->between[l % 2], B * D * H, D * H};
        const fl_rows out = l == L - 1 ? y : between;
        for (ptrdiff_t d = 0; d < D; d++) {
            const ptrdiff_t index = l * D + d, state = index * B * H * (ptrdiff_t)real;
            fl_rows in_d = x, out_d = out;
            out_d.data += d * H * (ptrdiff_t)real;
            if (d == 1) {
                in_d = reversed(in_d, T, real);
                out_d = reversed(out_d, T, real);
            }
            run_direction(model, &model->directions[index], T, B, in_d, out_d, h + state, c + state,
                          scratch->z, scratch->chunk);
        }
        x = out;
    }
}

void fl_run(const fl_model *model, ptrdiff_t T, ptrdiff_t B, fl_rows x, fl_rows y, void *h, void *c,
            const fl_scratch *scratch) {
    const size_t real = model->kernels->real_bytes;
    const int whole = model->config.num_directions == 2 || model->config.num_layers == 1;
    const ptrdiff_t stretch = whole ? T : scratch->chunk;
    const fl_fp_state saved = fl_fp_enter();
    for (ptrdiff_t first = 0; first < T; first += stretch)
        run_stack(model, smaller(stretch, T - first), B, from_step(x, first, real),
                  from_step(y, first, real), h, c, scratch);
    fl_fp_leave(saved);
}

fl_status fl_forward(const fl_model *model, ptrdiff_t T, ptrdiff_t B, const void *x,
                     ptrdiff_t x_stride_t, ptrdiff_t x_stride_b, const void *h_0, const void *c_0,
                     void *y, ptrdiff_t y_stride_t, ptrdiff_t y_stride_b, void *h_n, void *c_n) {
    if (model == NULL || T < 0 || B < 0) return FL_ERROR_ARGUMENT;
    if (B == 0) return FL_OK;
    if (h_n == NULL || c_n == NULL || (T > 0 && (x == NULL || y == NULL))) return FL_ERROR_ARGUMENT;

    const size_t real = model->kernels->real_bytes;
    const ptrdiff_t L = model->config.num_layers, D = model->config.num_directions;
    size_t state_bytes;
    if (!fl_multiply_sizes((size_t)model->config.hidden_size * real, (size_t)(L * D),
                           &state_bytes) ||
        !fl_multiply_sizes(state_bytes, (size_t)B, &state_bytes))
        return FL_ERROR_OVERFLOW;

    fl_scratch scratch = {NULL, {NULL, NULL}, 0};
    if (T > 0) {
        const fl_status status = fl_scratch_create(model, T, B, &scratch);
        if (status != FL_OK) return status;
    }

    /* The final states are the running ones. */
    if (h_0 == NULL) memset(h_n, 0, state_bytes);
    else if (h_0 != h_n) memcpy(h_n, h_0, state_bytes);
    if (c_0 == NULL) memset(c_n, 0, state_bytes);
    else if (c_0 != c_n) memcpy(c_n, c_0, state_bytes);

    const fl_rows in = {(char *)(uintptr_t)x, x_stride_t, x_stride_b};
    const fl_rows out = {y, y_stride_t, y_stride_b};
    fl_run(model, T, B, in, out, h_n, c_n, &scratch);
    fl_scratch_destroy(&scratch);
    return FL_OK;
}

/* Activations of a table, in the floating-point environment of the kernels. */
static fl_status apply(void (*activation)(ptrdiff_t, const void *, void *), ptrdiff_t n,
                       const void *x, void *y) {
    if (n < 0 || (n > 0 && (x == NULL || y == NULL))) return FL_ERROR_ARGUMENT;
    const fl_fp_state saved = fl_fp_enter();
    activation(n, x, y);
    fl_fp_leave(saved);
    return FL_OK;
}

fl_status fl_sigmoid(const char *isa, fl_dtype dtype, ptrdiff_t n, const void *x, void *y) {
    const fl_kernels *kernels = fl_kernels_find(isa, dtype);
    return kernels ? apply(kernels->sigmoid, n, x, y) : FL_ERROR_ISA;
}

fl_status fl_tanh(const char *isa, fl_dtype dtype, ptrdiff_t n, const void *x, void *y) {
    const fl_kernels *kernels = fl_kernels_find(isa, dtype);
    return kernels ? apply(kernels->tanh, n, x, y) : FL_ERROR_ISA;
}
