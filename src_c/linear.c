/* A linear layer on the outputs of an LSTM, and its gradient. */
#include "linear.h"

#include <string.h>

#include "cpu/caches.h"
#include "kernels/kernels.h"
#include "memory.h"
#include "platform.h"
#include "rows.h"
#include "share.h"
#include "threads.h"

enum {
    BLOCK_ROWS = 256,    /* rows of a sum over rows */
    BLOCK_OUTPUTS = 1024 /* outputs of a sum over outputs: their weights stay in a core's cache */
};

/* The share of thread `index`. */
static fl_range share_of(ptrdiff_t n, int threads, int index) {
    return (fl_range){n * index / threads, n * (index + 1) / threads};
}

/* Panels of n columns, as fl_kernels.pack_columns has them, and the reals of a packed line. */
static ptrdiff_t panels_of(const fl_kernels *kernels, ptrdiff_t n) {
    return (n - 1) / (4 * kernels->lanes) + 1;
}
static size_t line_of(const fl_kernels *kernels, ptrdiff_t n) {
    return ((size_t)(n - 1) / (size_t)kernels->lanes + 1) * (size_t)kernels->lanes;
}

/* Whether arrays of rows * K, rows * N and N * line reals have sizes that fit, `line` K in whole
 * vectors; *packed is the last one's in bytes. */
static int sizes_fit(const fl_kernels *kernels, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t N,
                     size_t *packed) {
    const size_t real = kernels->real_bytes, lines = line_of(kernels, N);
    size_t bytes, column;
    return fl_size_multiply((size_t)K, real, &column) &&
           fl_size_multiply(column, lines, packed) && /* lines >= N */
           fl_size_multiply(column, (size_t)rows, &bytes) &&
           fl_size_multiply((size_t)N, real, &bytes) &&
           fl_size_multiply(bytes, (size_t)rows, &bytes) &&
           fl_size_multiply((size_t)N * real, line_of(kernels, K), &bytes) &&
           fl_size_multiply((size_t)rows * real, line_of(kernels, K), &bytes);
}

/* fl_linear_apply by its threads. */
typedef struct forward {
    const fl_kernels *kernels;
    const fl_linear *linear;
    char *packed;
    int threads;
} forward;

/* A thread packs its panels of weights, and multiplies all rows by them. */
static void run_forward(void *context, int index) {
    const forward *call = context;
    const fl_linear *linear = call->linear;
    const fl_kernels *kernels = call->kernels;
    const ptrdiff_t K = linear->K, N = linear->N, columns = 4 * kernels->lanes;
    const fl_range own = share_of(panels_of(kernels, N), call->threads, index);
    if (own.first == own.end) return;
    const ptrdiff_t first = own.first * columns, end = fl_size_min(own.end * columns, N);
    const size_t at = (size_t)first * kernels->real_bytes;
    const fl_fp_state saved = fl_fp_enter();
    kernels->pack_columns(own.first, own.end, K, N, linear->weight, 1, K, call->packed);
    kernels->put_rows(linear->rows, end - first, (const char *)linear->bias + at, 0,
                      (char *)linear->z + at, N, 0);
    kernels->multiply(own.first, own.end, linear->rows, K, N, linear->x, K, call->packed, linear->z,
                      N, 1, fl_cache_near());
    fl_fp_leave(saved);
}

/* A thread multiplies its rows by weights that are packed. */
static void run_rows(void *context, int index) {
    const forward *call = context;
    const fl_linear *linear = call->linear;
    const fl_kernels *kernels = call->kernels;
    const ptrdiff_t K = linear->K, N = linear->N;
    const fl_range own = share_of(linear->rows, call->threads, index);
    char *z = (char *)linear->z + (size_t)(own.first * N) * kernels->real_bytes;
    const char *x = (const char *)linear->x + (size_t)(own.first * K) * kernels->real_bytes;
    const fl_fp_state saved = fl_fp_enter();
    kernels->put_rows(own.end - own.first, N, linear->bias, 0, z, N, 0);
    kernels->multiply(0, panels_of(kernels, N), own.end - own.first, K, N, x, K, call->packed, z, N,
                      1, fl_cache_near());
    fl_fp_leave(saved);
}

fl_status fl_linear_apply(const fl_linear *linear, const char *isa) {
    const fl_kernels *kernels = fl_kernels_find(isa, linear->dtype, FL_WEIGHTS_REAL);
    const ptrdiff_t rows = linear->rows, K = linear->K, N = linear->N;
    if (kernels == NULL) return FL_ERROR_ISA;
    if (rows < 0 || K < 1 || N < 1) return FL_ERROR_ARGUMENT;
    if (rows == 0) return FL_OK;
    if (!linear->x || !linear->weight || !linear->bias || !linear->z) return FL_ERROR_ARGUMENT;
    size_t packed_bytes;
    if (!sizes_fit(kernels, rows, K, N, &packed_bytes)) return FL_ERROR_OVERFLOW;
    forward call = {.kernels = kernels, .linear = linear};
    call.packed = fl_memory_alloc(packed_bytes, 1);
    if (call.packed == NULL) return FL_ERROR_MEMORY;

    const fl_plan plan = fl_plan_products((double)rows * (double)K * (double)N);
    call.threads = plan.threads;
    if (panels_of(kernels, N) >= plan.threads) {
        fl_pool_run(plan.threads, run_forward, &call, NULL);
    } else {
        const fl_fp_state saved = fl_fp_enter();
        kernels->pack_columns(0, panels_of(kernels, N), K, N, linear->weight, 1, K, call.packed);
        fl_fp_leave(saved);
        fl_pool_run(plan.threads, run_rows, &call, NULL);
    }
    fl_plan_end(&plan);
    fl_memory_free(call.packed);
    return FL_OK;
}

/* fl_linear_backward by its threads. */
typedef struct backward {
    const fl_kernels *kernels;
    const fl_linear_gradient *gradient;
    char *packed;   /* weight, for dx: a block of outputs after the other */
    char *x, *sums; /* x and dweight with rows of `line` reals, or the caller's */
    ptrdiff_t line; /* K in whole vectors, as fl_kernels.add_outer has rows */
    int threads;
} backward;

/* Packs weights for dx, and copies x where its rows end inside a vector. */
static void run_before(void *context, int index) {
    const backward *call = context;
    const fl_linear_gradient *g = call->gradient;
    const fl_kernels *kernels = call->kernels;
    const size_t real = kernels->real_bytes;
    const ptrdiff_t K = g->K, N = g->N, panels = panels_of(kernels, K);
    const fl_range blocks = share_of((N - 1) / BLOCK_OUTPUTS + 1, call->threads, index);
    for (ptrdiff_t block = blocks.first; block < blocks.end; block++) {
        const ptrdiff_t first = block * BLOCK_OUTPUTS;
        const ptrdiff_t count = fl_size_min(BLOCK_OUTPUTS, N - first);
        kernels->pack_columns(0, panels, count, K,
                              (const char *)g->weight + (size_t)(first * K) * real, K, 1,
                              call->packed + (size_t)(first * call->line) * real);
    }
    if (call->line == K) return;
    const fl_range rows = share_of(g->rows, call->threads, index);
    const size_t row = (size_t)K * real, padded = (size_t)call->line * real;
    for (ptrdiff_t r = rows.first; r < rows.end; r++) {
        memcpy(call->x + (size_t)r * padded, (const char *)g->x + (size_t)r * row, row);
        memset(call->x + (size_t)r * padded + row, 0, padded - row);
    }
}

/* dx of a thread's rows, then dweight and dbias of its outputs. */
static void run_backward(void *context, int index) {
    const backward *call = context;
    const fl_linear_gradient *g = call->gradient;
    const fl_kernels *kernels = call->kernels;
    const size_t real = kernels->real_bytes;
    const ptrdiff_t K = g->K, N = g->N, line = call->line, near = fl_cache_near();
    const char *dz = g->dz;
    const fl_fp_state saved = fl_fp_enter();
    const fl_range rows = share_of(g->rows, call->threads, index);
    for (ptrdiff_t n = 0; n < N && rows.first < rows.end; n += BLOCK_OUTPUTS)
        kernels->multiply(
            0, panels_of(kernels, K), rows.end - rows.first, fl_size_min(BLOCK_OUTPUTS, N - n), K,
            dz + (size_t)(rows.first * N + n) * real, N, call->packed + (size_t)(n * line) * real,
            (char *)g->dx + (size_t)(rows.first * K) * real, K, n > 0, near);

    const fl_range own = share_of(N, call->threads, index);
    char *sums = call->sums, *dbias = g->dbias;
    const size_t outputs = (size_t)(own.end - own.first);
    memset(sums + (size_t)(own.first * line) * real, 0, outputs * (size_t)line * real);
    memset(dbias + (size_t)own.first * real, 0, outputs * real);
    for (ptrdiff_t r = 0; r < g->rows; r += BLOCK_ROWS) {
        const ptrdiff_t count = fl_size_min(BLOCK_ROWS, g->rows - r);
        const char *d = dz + (size_t)(r * N) * real;
        kernels->add_outer(own.first, own.end, count, K, d, N, call->x + (size_t)(r * line) * real,
                           line, sums, line);
        kernels->add_rows(own.first, own.end, count, d, N, dbias);
    }
    if (line != K)
        kernels->put_rows(own.end - own.first, K, sums + (size_t)(own.first * line) * real, line,
                          (char *)g->dweight + (size_t)(own.first * K) * real, K, 0);
    fl_fp_leave(saved);
}

fl_status fl_linear_backward(const fl_linear_gradient *gradient, const char *isa) {
    const fl_kernels *kernels = fl_kernels_find(isa, gradient->dtype, FL_WEIGHTS_REAL);
    const ptrdiff_t rows = gradient->rows, K = gradient->K, N = gradient->N;
    if (kernels == NULL) return FL_ERROR_ISA;
    if (rows < 0 || K < 1 || N < 1) return FL_ERROR_ARGUMENT;
    if (!gradient->weight || !gradient->dweight || !gradient->dbias ||
        (rows > 0 && (!gradient->dz || !gradient->x || !gradient->dx)))
        return FL_ERROR_ARGUMENT;
    size_t bytes;
    if (!sizes_fit(kernels, rows, K, N, &bytes)) return FL_ERROR_OVERFLOW;
    backward call = {
        .kernels = kernels, .gradient = gradient, .line = (ptrdiff_t)line_of(kernels, K)};
    const size_t line = (size_t)call.line * kernels->real_bytes, padded = call.line != K;
    char *memory;
    const fl_part parts[] = {
        {&call.packed, (size_t)N, line},
        {&call.x, padded * (size_t)rows, line},
        {&call.sums, padded * (size_t)N, line},
    };
    const fl_status status = fl_memory_alloc_parts(parts, sizeof parts / sizeof *parts, &memory);
    if (status != FL_OK) return status;
    if (!padded) {
        call.x = (char *)gradient->x;
        call.sums = gradient->dweight;
    }
    const fl_plan plan = fl_plan_products(2 * (double)rows * (double)K * (double)N);
    call.threads = plan.threads;
    fl_pool_run(plan.threads, run_before, &call, NULL);
    fl_pool_run(plan.threads, run_backward, &call, NULL);
    fl_plan_end(&plan);
    fl_memory_free(memory);
    return FL_OK;
}
