/* Softmax of the answers of a head. */
#include "softmax.h"

#include "kernels/kernels.h"
#include "memory.h"
#include "platform.h"
#include "share.h"
#include "threads.h"

enum { EXP_WORK = 16 /* multiply-adds that take as long as a number does */ };

typedef struct shared {
    const fl_kernels *kernels;
    const fl_softmax *softmax;
    int threads;
} shared;

static void run_rows(void *context, int index) {
    const shared *call = context;
    const fl_softmax *softmax = call->softmax;
    const size_t real = call->kernels->real_bytes;
    const ptrdiff_t first = softmax->rows * index / call->threads;
    const ptrdiff_t end = softmax->rows * (index + 1) / call->threads;
    const size_t at = (size_t)(first * softmax->N) * real, row = (size_t)first * real;
    const fl_fp_state saved = fl_fp_enter();
    call->kernels->softmax(end - first, softmax->N, (const char *)softmax->z + at,
                           (const char *)softmax->scales + row, (char *)softmax->out + at,
                           (char *)softmax->largest + row, (char *)softmax->totals + row,
                           softmax->at + first);
    fl_fp_leave(saved);
}

fl_status fl_softmax_apply(const fl_softmax *softmax, const char *isa) {
    const fl_kernels *kernels = fl_kernels_find(isa, softmax->dtype, FL_WEIGHTS_REAL);
    const ptrdiff_t rows = softmax->rows, N = softmax->N;
    if (kernels == NULL) return FL_ERROR_ISA;
    if (rows < 0 || N < 1) return FL_ERROR_ARGUMENT;
    if (rows == 0) return FL_OK;
    if (!softmax->z || !softmax->scales || !softmax->out || !softmax->largest || !softmax->totals ||
        !softmax->at)
        return FL_ERROR_ARGUMENT;
    size_t bytes;
    if (!fl_size_multiply((size_t)rows, sizeof(double), &bytes) ||
        !fl_size_multiply(bytes, (size_t)N, &bytes))
        return FL_ERROR_OVERFLOW;
    shared call = {.kernels = kernels, .softmax = softmax};
    const fl_plan plan = fl_plan_products((double)rows * (double)N * EXP_WORK);
    call.threads = plan.threads;
    fl_pool_run(plan.threads, run_rows, &call, NULL);
    fl_plan_end(&plan);
    return FL_OK;
}
