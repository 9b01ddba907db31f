/* Softmax of long rows, written once: three passes over a row that stays in the cache. A sum is
 * that of norm_tpl.h, the same on every instruction set.
 */

enum { FL_NAME(max_block) = 1024 }; /* numbers that are looked at for the first of the largest */

/* The largest of x (n), n >= 1. */
FL_INLINE FL_REAL FL_NAME(largest)(ptrdiff_t n, const FL_REAL *x) {
    FL_REAL lanes[4 * FL_V], most = x[0];
    ptrdiff_t j = 0;
    if (n >= 4 * FL_V) {
        vreal acc[4];
        FL_UNROLL
        for (int v = 0; v < 4; v++) acc[v] = v_load(x + v * FL_V);
        for (j = 4 * FL_V; j + 4 * FL_V <= n; j += 4 * FL_V) {
            FL_UNROLL
            for (int v = 0; v < 4; v++) acc[v] = v_max(acc[v], v_load(x + j + v * FL_V));
        }
        FL_UNROLL
        for (int v = 0; v < 4; v++) v_store(lanes + v * FL_V, acc[v]);
        for (int lane = 0; lane < 4 * FL_V; lane++)
            if (lanes[lane] > most) most = lanes[lane];
    }
    for (; j < n; j++)
        if (x[j] > most) most = x[j];
    return most;
}

static void FL_NAME(softmax)(ptrdiff_t rows, ptrdiff_t n, const void *z_, const void *scales_,
                             void *out_, void *largest_, void *totals_, double *at) {
    const FL_REAL *z = z_, *scales = scales_;
    FL_REAL *out = out_, *largest = largest_, *totals = totals_;
    for (ptrdiff_t row = 0; row < rows; row++, z += n, out += n) {
        FL_REAL most = 0;
        ptrdiff_t first = 0;
        for (ptrdiff_t j = 0; j < n; j += FL_NAME(max_block)) {
            const ptrdiff_t left = n - j;
            const FL_REAL m =
                FL_NAME(largest)(left < FL_NAME(max_block) ? left : FL_NAME(max_block), z + j);
            if (j == 0 || m > most) {
                most = m;
                first = j;
            }
        }
        while (first < n - 1 && z[first] != most) first++; /* none is, of NaN */
        const vreal top = v_set1(most);
#define FL_DO(j, count)                                                                        \
    FL_NAME(store)(out + (j), FL_NAME(v_exp_minus)(v_sub(top, FL_NAME(load)(z + (j), count))), \
                   count)
        FL_FOR_VECTORS(0, n, FL_DO);
#undef FL_DO
        FL_REAL sums[FL_NORM_LANES], total = 0;
        FL_NAME(sum_lanes)(n, out, 0, 0, sums);
        for (int lane = 0; lane < FL_NORM_LANES; lane++) total += sums[lane];
        const vreal factor = v_set1(scales[row] / total);
#define FL_DO(j, count) \
    FL_NAME(store)(out + (j), v_mul(factor, FL_NAME(load)(out + (j), count)), count)
        FL_FOR_VECTORS(0, n, FL_DO);
#undef FL_DO
        largest[row] = most;
        totals[row] = total;
        at[row] = (double)first;
    }
}
