/* A linear layer on the outputs of an LSTM. */
#include "linear.h"

#include "cpu/caches.h"
#include "kernels/kernels.h"
#include "memory.h"
#include "platform.h"

fl_status fl_linear_apply(const fl_linear *linear, const char *isa) {
    const fl_kernels *kernels = fl_kernels_find(isa, linear->dtype, FL_WEIGHTS_REAL);
    const ptrdiff_t rows = linear->rows, K = linear->K, N = linear->N;
    if (kernels == NULL) return FL_ERROR_ISA;
    if (rows < 0 || K < 1 || N < 1) return FL_ERROR_ARGUMENT;
    if (rows == 0) return FL_OK;
    if (!linear->x || !linear->weight || !linear->bias || !linear->z) return FL_ERROR_ARGUMENT;

    /* As fl_kernels.pack_columns lays them out: whole vectors, in panels of four. */
    const ptrdiff_t vectors = (N - 1) / kernels->lanes + 1, panels = (vectors - 1) / 4 + 1;
    const size_t columns = (size_t)vectors * (size_t)kernels->lanes;
    size_t column_bytes, packed_bytes, row_bytes, bytes;
    if (!fl_size_multiply((size_t)K, kernels->real_bytes, &column_bytes) ||
        !fl_size_multiply(column_bytes, columns, &packed_bytes) ||
        !fl_size_multiply(column_bytes, (size_t)rows, &bytes) ||
        !fl_size_multiply((size_t)N, kernels->real_bytes, &row_bytes) ||
        !fl_size_multiply(row_bytes, (size_t)rows, &bytes))
        return FL_ERROR_OVERFLOW;
    void *packed = fl_memory_alloc(packed_bytes, 1);
    if (packed == NULL) return FL_ERROR_MEMORY;

    const fl_fp_state saved = fl_fp_enter();
    kernels->pack_columns(0, panels, K, N, linear->weight, 1, K, packed);
    kernels->put_rows(rows, N, linear->bias, 0, linear->z, N, 0);
    kernels->multiply(0, panels, rows, K, N, linear->x, K, packed, linear->z, N, 1,
                      fl_cache_near());
    fl_fp_leave(saved);
    fl_memory_free(packed);
    return FL_OK;
}
