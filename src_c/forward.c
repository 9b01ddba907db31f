/* The forward pass: layers, directions, chunks of time, steps.
 *
 * For each chunk of time a direction of a layer does
 *
 *   z (n, B, panels, 4, V) = bias + x (n, B, I_l) @ W    one large product, off the critical path
 *   for each t: h_t, c_t = cell(z_t + h_{t-1} @ U)       h_{t-1} is read where y_{t-1} was written
 *
 * Odd steps sweep over U from its end: what the step before read last is still in the cache.
 *
 * Sequences of different lengths are sorted, the longest first, so that those that take a step are
 * the first so many. Forward in time some stop, backward in time some begin. With one direction
 * every layer handles a chunk before the next chunk comes, so memory does not grow with T; with
 * two, a layer needs all of the layer below.
 */
#include <stdint.h>
#include <string.h>

#include "forward.h"
#include "kernels.h"
#include "model.h"
#include "platform.h"
#include "threads.h"

/* z of a chunk takes about this many bytes, so that it is still in a core's cache when it is read;
 * a chunk has at most so many steps, beyond which a longer one gains nothing. */
enum { CHUNK_BYTES = 128 * 1024, CHUNK_STEPS = 256 };

int fl_starts_are_valid(const ptrdiff_t *starts, ptrdiff_t T, ptrdiff_t B) {
    if (starts == NULL) return 1;
    if (starts[0] != 0) return 0;
    for (ptrdiff_t t = 0, most = B; t < T; t++) {
        if (starts[t + 1] < starts[t] || starts[t + 1] - starts[t] > most) return 0;
        most = starts[t + 1] - starts[t];
    }
    return 1;
}

ptrdiff_t fl_first_sequence(fl_ragged ragged, ptrdiff_t T, ptrdiff_t B, ptrdiff_t index,
                            ptrdiff_t count) {
    if (ragged.starts == NULL || index == count) return B * index / count;
    ptrdiff_t low = 0, high = B; /* the fewest sequences that have the share of all before */
    while (low < high) {
        const ptrdiff_t middle = low + (high - low) / 2;
        double steps = 0;
        for (ptrdiff_t t = 0; t < T; t++) steps += (double)fl_count_at(ragged, t, middle);
        if (steps * (double)count >= (double)ragged.starts[T] * (double)index) high = middle;
        else low = middle + 1;
    }
    return low;
}

static ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

/* The panels that one thread computes: the narrow one goes to the last thread, which then has no
 * more of the others than anyone. */
static fl_panels panels_of(const fl_model *model, const fl_share *share) {
    const ptrdiff_t halves = 2 * model->panels + (model->narrow != NULL);
    const ptrdiff_t first = (halves * share->index / share->count + 1) / 2;
    const ptrdiff_t last = (halves * (share->index + 1) / share->count + 1) / 2;
    const int is_last = share->index == share->count - 1;
    fl_panels panels = {first, (is_last ? model->panels : last) - first, 0};
    panels.narrow = is_last && model->narrow != NULL;
    return panels;
}

/* One direction of one layer over some steps. Step s of its walk is time s, or T - 1 - s. */
typedef struct walk {
    ptrdiff_t T, B;
    int reverse;
    fl_ragged ragged;
    fl_rows x, y; /* in (T, B, I_l), out (T, B, H) */
    fl_rows tape; /* out (T, B, 5, H); data NULL for none */
    char *h, *c;  /* (B, H) contiguous, the state, in and out */
} walk;

static ptrdiff_t time_of(const walk *walk, ptrdiff_t s) {
    return walk->reverse ? walk->T - 1 - s : s;
}

/* Sequences that take step s; none beyond the last. */
static ptrdiff_t count_of(const walk *walk, ptrdiff_t s) {
    return s < walk->T ? fl_count_at(walk->ragged, time_of(walk, s), walk->B) : 0;
}

/* z (n, B, panels, 4, V) = bias + x (n, B, I_l) @ W of the n times from t on, in as few and as tall
 * products as the rows of x allow. */
static void input_product(const fl_model *model, const fl_direction *direction, const walk *walk,
                          ptrdiff_t t, ptrdiff_t n, char *z, fl_panels panels) {
    const ptrdiff_t real = (ptrdiff_t)model->kernels->real_bytes, z_row = model->z_row;
    const ptrdiff_t B = walk->B;
    const fl_rows x = walk->x;
    ptrdiff_t calls = n, rows = B, call_stride = x.stride_t, row_stride = x.stride_b;
    ptrdiff_t z_call_stride = B * z_row, z_row_stride = z_row;

    if (walk->ragged.starts) {
        for (ptrdiff_t i = 0; i < n; i++) {
            rows = fl_count_at(walk->ragged, t + i, B);
            if (rows == 0) break; /* and none later */
            fl_model_product(model, direction, panels, rows, fl_row_at(x, t + i, 0, (size_t)real),
                             row_stride, z + i * z_call_stride * real, z_row);
        }
        return;
    }
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
    const char *first = fl_row_at(x, t, 0, (size_t)real);
    for (ptrdiff_t i = 0; i < calls; i++)
        fl_model_product(model, direction, panels, rows, first + i * call_stride * real, row_stride,
                         z + i * z_call_stride * real, z_row_stride);
}

/* Step s of rows first..end-1, with h of the step before in `h`, z of the first row of all in z. */
FL_INLINE void take_step(const fl_model *model, const fl_direction *direction, const walk *walk,
                         ptrdiff_t s, ptrdiff_t first, ptrdiff_t end, const char *h,
                         ptrdiff_t h_stride, const char *z, fl_panels panels) {
    const ptrdiff_t real = (ptrdiff_t)model->kernels->real_bytes, H = model->config.hidden_size;
    const ptrdiff_t t = time_of(walk, s);
    char *record = walk->tape.data ? fl_row_at(walk->tape, t, first, (size_t)real) : NULL;
    fl_model_step(model, direction, panels, end - first, h, h_stride,
                  z + first * model->z_row * real, walk->c + first * H * real,
                  fl_row_at(walk->y, t, first, (size_t)real), walk->y.stride_b, record, s % 2 != 0);
}

/* Runs one direction of one layer, in chunks of time. */
static void run_direction(const fl_model *model, const fl_direction *direction, const walk *walk,
                          char *z, ptrdiff_t chunk, const fl_share *share) {
    const size_t real = model->kernels->real_bytes;
    const ptrdiff_t H = model->config.hidden_size, T = walk->T;
    const ptrdiff_t row = H * (ptrdiff_t)real;
    const ptrdiff_t z_step = walk->B * model->z_row * (ptrdiff_t)real;
    const fl_panels panels = panels_of(model, share);
    ptrdiff_t going = 0; /* sequences that have taken the step before: their h is in y */

    for (ptrdiff_t first = 0; first < T; first += chunk) {
        const ptrdiff_t n = smaller(chunk, T - first);
        const ptrdiff_t t = walk->reverse ? T - first - n : first;
        input_product(model, direction, walk, t, n, z, panels);
        for (ptrdiff_t s = first; s < first + n; s++) {
            const ptrdiff_t count = count_of(walk, s), next = count_of(walk, s + 1);
            const char *z_s = z + (time_of(walk, s) - t) * z_step;
            going = smaller(going, count);
            if (going > 0)
                take_step(model, direction, walk, s, 0, going,
                          fl_row_at(walk->y, time_of(walk, s - 1), 0, real), walk->y.stride_b, z_s,
                          panels);
            if (going < count)
                take_step(model, direction, walk, s, going, count, walk->h + going * row, H, z_s,
                          panels);
            /* All of h_t must be there before anyone reads it. */
            if (share->count > 1) fl_barrier_wait(share->units);
            if (share->index == 0)
                for (ptrdiff_t b = next; b < count; b++)
                    memcpy(walk->h + b * row, fl_row_at(walk->y, time_of(walk, s), b, real),
                           (size_t)row);
            going = count;
        }
    }
    /* The next run reads h, and may write where this one's last y is. */
    if (share->count > 1) fl_barrier_wait(share->units);
}

fl_status fl_scratch_create(const fl_model *model, ptrdiff_t T, ptrdiff_t B,
                            const ptrdiff_t *starts, int directions_at_once, fl_scratch *made) {
    const size_t real = model->kernels->real_bytes;
    const size_t D = (size_t)model->config.num_directions, H = (size_t)model->config.hidden_size;
    const size_t buffers = (size_t)smaller(model->config.num_layers - 1, 2);
    size_t z_step, z_bytes, buffer_bytes, both, bytes;
    const size_t z_row = (size_t)model->z_row * real; /* fits: pack.c */
    if (!fl_multiply_sizes(z_row, (size_t)B, &z_step)) return FL_ERROR_OVERFLOW;
    const ptrdiff_t affordable = (ptrdiff_t)(CHUNK_BYTES / z_step);
    made->chunk = smaller(T, smaller(affordable > 1 ? affordable : 1, CHUNK_STEPS));
    /* With two directions a layer needs all of the layer below. */
    const size_t between_rows = (size_t)(starts && D == 2 ? starts[T] : B);
    const ptrdiff_t between_steps = D == 1 ? made->chunk : starts ? 1 : T;
    if (!fl_multiply_sizes(z_step, (size_t)made->chunk, &z_bytes) ||
        !fl_multiply_sizes(D * H * real, between_rows, &buffer_bytes) ||
        !fl_multiply_sizes(buffer_bytes, (size_t)between_steps, &buffer_bytes) ||
        !fl_multiply_sizes(buffer_bytes, buffers, &bytes) ||
        !fl_multiply_sizes(z_bytes, (size_t)directions_at_once, &both) ||
        !fl_add_sizes(bytes, both, &bytes))
        return FL_ERROR_OVERFLOW;
    made->z[0] = fl_alloc_aligned(bytes, 1);
    if (made->z[0] == NULL) return FL_ERROR_MEMORY;
    made->z[1] = made->z[0] + (directions_at_once == 2 ? z_bytes : 0);
    made->between[0] = made->z[0] + both;
    made->between[1] = made->between[0] + (buffers == 2 ? buffer_bytes : 0);
    return FL_OK;
}

void fl_scratch_destroy(fl_scratch *scratch) { fl_free_aligned(scratch->z[0]); }

/* All layers and directions over the same steps. */
static void run_stack(const fl_model *model, const fl_span *span, const fl_scratch *scratch,
                      const fl_share *share) {
    const size_t real = model->kernels->real_bytes;
    const ptrdiff_t L = model->config.num_layers, D = model->config.num_directions;
    const ptrdiff_t H = model->config.hidden_size, T = span->T, B = span->B;
    fl_rows x = span->x;
    for (ptrdiff_t l = 0; l < L; l++) {
        const fl_rows between = {scratch->between[l % 2], B * D * H, D * H,
                                 D == 2 ? span->ragged.starts : NULL};
        const fl_rows out = l == L - 1 ? span->y : between;
        for (ptrdiff_t d = 0; d < D; d++) {
            if (share->direction != FL_ALL_DIRECTIONS && share->direction != d) continue;
            const ptrdiff_t index = l * D + d;
            const ptrdiff_t state = index * span->state_stride * (ptrdiff_t)real;
            walk walk = {.T = T, .B = B, .reverse = d == 1, .ragged = span->ragged};
            walk.x = x;
            walk.y = out;
            walk.y.data += d * H * (ptrdiff_t)real;
            walk.tape = span->tape;
            if (walk.tape.data) walk.tape.data += index * span->tape_stride * (ptrdiff_t)real;
            walk.h = span->h + state;
            walk.c = span->c + state;
            run_direction(model, &model->directions[index], &walk, scratch->z[d], scratch->chunk,
                          share);
        }
        /* The layer above reads both directions. */
        if (share->direction != FL_ALL_DIRECTIONS) fl_barrier_wait(share->everyone);
        x = out;
    }
}

void fl_run(const fl_model *model, const fl_span *span, const fl_scratch *scratch,
            const fl_share *share) {
    static const fl_share alone = {0, 1, FL_ALL_DIRECTIONS, NULL, NULL};
    const size_t real = model->kernels->real_bytes;
    const int whole = model->config.num_directions == 2 || model->config.num_layers == 1;
    const ptrdiff_t stretch = whole ? span->T : scratch->chunk;
    fl_span part = *span;
    for (ptrdiff_t first = 0; first < span->T; first += stretch) {
        part.T = smaller(stretch, span->T - first);
        part.x = fl_rows_from(span->x, first, 0, real);
        part.y = fl_rows_from(span->y, first, 0, real);
        if (span->tape.data) part.tape = fl_rows_from(span->tape, first, 0, real);
        if (span->ragged.starts) part.ragged.starts = span->ragged.starts + first;
        run_stack(model, &part, scratch, share ? share : &alone);
    }
}
