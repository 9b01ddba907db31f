/* Register tiles and the products built of them, written once.
 *
 * A tile is R rows by N panels: R * N * 4 accumulators. R and N are constants wherever a tile is
 * used, so every loop over them unrolls. Lanes run over units, tiles over rows; nothing runs over
 * k, so each accumulator stays one chain (see kernels.h).
 */

_Static_assert(FL_TILE_ROWS <= 6, "FL_TILE_OF_ROWS has no case for taller tiles");

/* acc (R, N, G) += a (R, K) @ w (N, K, G, V). */
FL_INLINE void FL_NAME(tile_multiply)(const int R, const int N, const int G, ptrdiff_t K,
                                      const FL_REAL *a, ptrdiff_t a_stride, const FL_REAL *w,
                                      fl_ahead ahead, vreal *acc) {
    for (ptrdiff_t k = 0; k < K; k++) {
        if (R > 1) { /* the processor itself sees the loads of a single row coming */
            FL_PREFETCH_FAR(ahead.at);
            ahead.at += ahead.step;
        }
        FL_UNROLL
        for (int n = 0; n < N; n++) {
            FL_UNROLL
            for (int gate = 0; gate < G; gate++) {
                const vreal weight = v_load(w + ((n * K + k) * G + gate) * FL_V);
                FL_UNROLL
                for (int r = 0; r < R; r++) {
                    vreal *sum = acc + (r * N + n) * G + gate;
                    *sum = v_fma(v_set1(a[r * a_stride + k]), weight, *sum);
                }
            }
        }
    }
}

/* One tile of product(): z (R, N, G, V) = bias (N, G, V) + a @ w. */
FL_INLINE void FL_NAME(product_tile)(const int R, const int N, const int G, ptrdiff_t K,
                                     const FL_REAL *a, ptrdiff_t a_stride, const FL_REAL *w,
                                     const FL_REAL *bias, FL_REAL *z, ptrdiff_t z_stride,
                                     fl_ahead ahead) {
    vreal acc[FL_TILE_MAX];
    FL_UNROLL
    for (int r = 0; r < R; r++) {
        FL_UNROLL
        for (int j = 0; j < G * N; j++) acc[r * G * N + j] = v_load(bias + j * FL_V);
    }
    FL_NAME(tile_multiply)(R, N, G, K, a, a_stride, w, ahead, acc);
    FL_UNROLL
    for (int r = 0; r < R; r++) {
        FL_UNROLL
        for (int j = 0; j < G * N; j++) v_store(z + r * z_stride + j * FL_V, acc[r * G * N + j]);
    }
}

/* One row and many are functions of their own, since what many rows need to set up would be a good
 * part of a tiny layer's time; and so are 4 gates and 3. */
#define FL_TILE(R, N, row, panel)                                                                 \
    FL_NAME(product_tile)(R, N, G, K, a + (row) * a_stride, a_stride, w + (panel) * K * G * FL_V, \
                          bias + (panel) * G * FL_V, z + (row) * z_stride + (panel) * G * FL_V,   \
                          z_stride, FL_AHEAD(R, row, panel))
#define FL_AHEAD(R, row, panel) ((fl_ahead){NULL, 0})
#define FL_PRODUCT_OF_ROW(gates)                \
    const ptrdiff_t a_stride = 0, z_stride = 0; \
    enum { G = gates };                         \
    FL_FOR_PANELS(panels, is_far, 0, FL_TILE)
static FL_NOINLINE void FL_NAME(product_row)(ptrdiff_t panels, ptrdiff_t K, const FL_REAL *a,
                                             const FL_REAL *w, const FL_REAL *bias, FL_REAL *z,
                                             int is_far) {
    FL_PRODUCT_OF_ROW(4);
}
static FL_NOINLINE void FL_NAME(product_row_of_3)(ptrdiff_t panels, ptrdiff_t K, const FL_REAL *a,
                                                  const FL_REAL *w, const FL_REAL *bias, FL_REAL *z,
                                                  int is_far) {
    FL_PRODUCT_OF_ROW(3);
}
#undef FL_AHEAD
#define FL_AHEAD(R, row, panel)                                                                   \
    fl_ahead_of(is_far, w, K, G * FL_V * (ptrdiff_t)sizeof(FL_REAL), (panel) + 1, panels, row, R, \
                rows)
static FL_NOINLINE void FL_NAME(product_rows)(ptrdiff_t panels, ptrdiff_t rows, ptrdiff_t K,
                                              const FL_REAL *a, ptrdiff_t a_stride,
                                              const FL_REAL *w, const FL_REAL *bias, FL_REAL *z,
                                              ptrdiff_t z_stride, int is_far) {
    enum { G = 4 };
    FL_FOR_TILES(rows, panels, 0, FL_TILE);
}
static FL_NOINLINE void FL_NAME(product_rows_of_3)(ptrdiff_t panels, ptrdiff_t rows, ptrdiff_t K,
                                                   const FL_REAL *a, ptrdiff_t a_stride,
                                                   const FL_REAL *w, const FL_REAL *bias,
                                                   FL_REAL *z, ptrdiff_t z_stride, int is_far) {
    enum { G = 3 };
    FL_FOR_TILES(rows, panels, 0, FL_TILE);
}
#undef FL_TILE
#undef FL_AHEAD
#undef FL_PRODUCT_OF_ROW

static void FL_NAME(product)(int gates, ptrdiff_t first_panel, ptrdiff_t panels, ptrdiff_t rows,
                             ptrdiff_t K, const void *a, ptrdiff_t a_stride, const void *w_,
                             const void *bias_, void *z_, ptrdiff_t z_stride,
                             ptrdiff_t near_bytes) {
    const ptrdiff_t first = first_panel * gates * FL_V;
    const FL_REAL *w = (const FL_REAL *)w_ + first * K, *bias = (const FL_REAL *)bias_ + first;
    FL_REAL *z = (FL_REAL *)z_ + first;
    const int is_far = panels * K * gates * FL_V * (ptrdiff_t)sizeof(FL_REAL) > near_bytes;
    if (gates == 3 && rows == 1) FL_NAME(product_row_of_3)(panels, K, a, w, bias, z, is_far);
    else if (gates == 3)
        FL_NAME(product_rows_of_3)(panels, rows, K, a, a_stride, w, bias, z, z_stride, is_far);
    else if (rows == 1) FL_NAME(product_row)(panels, K, a, w, bias, z, is_far);
    else FL_NAME(product_rows)(panels, rows, K, a, a_stride, w, bias, z, z_stride, is_far);
}

static void FL_NAME(pack_weights)(int gates, ptrdiff_t first_panel, ptrdiff_t panels, ptrdiff_t H,
                                  ptrdiff_t K, const int *blocks, const void *weights_,
                                  void *packed_) {
    const FL_REAL *weights = weights_;
    const ptrdiff_t block = 128; /* so many lines of packed weights stay in the L1 cache */
    const ptrdiff_t line = gates * FL_V;
    for (ptrdiff_t panel = first_panel; panel < first_panel + panels; panel++)
        for (ptrdiff_t gate = 0; gate < gates; gate++)
            for (ptrdiff_t first = 0; first < K; first += block) {
                const ptrdiff_t count = K - first < block ? K - first : block;
                FL_REAL *packed = (FL_REAL *)packed_ + (panel * K + first) * line + gate * FL_V;
                for (ptrdiff_t unit = panel * FL_V; unit < (panel + 1) * FL_V; unit++, packed++) {
                    if (blocks[gate] < 0 || unit >= H) {
                        for (ptrdiff_t k = 0; k < count; k++) packed[k * line] = 0;
                        continue;
                    }
                    const FL_REAL *row = weights + (blocks[gate] * H + unit) * K + first;
                    FL_UNROLL_4
                    for (ptrdiff_t k = 0; k < count; k++) packed[k * line] = row[k];
                }
            }
}

static void FL_NAME(pack_bias)(int gates, ptrdiff_t first_panel, ptrdiff_t panels, ptrdiff_t H,
                               const void *b_ih_, const void *b_hh_, void *packed_) {
    const FL_REAL *b_ih = b_ih_, *b_hh = b_hh_;
    FL_REAL *packed = (FL_REAL *)packed_ + first_panel * gates * FL_V;
    for (ptrdiff_t first = first_panel * FL_V; first < (first_panel + panels) * FL_V; first += FL_V)
        for (ptrdiff_t gate = 0; gate < gates; gate++)
            for (ptrdiff_t unit = first; unit < first + FL_V; unit++) {
                const ptrdiff_t at = gate * H + unit;
                *packed++ = b_ih && unit < H ? b_ih[at] + b_hh[at] : 0;
            }
}
