/* The backward pass, written once: the gradient of the cell and the products it needs.
 *
 * A record is what the forward pass leaves of a sequence's step: i, f, g, o after activation and c,
 * (5, H). dG (rows, 4H) is the gradient of the pre-activations, gates i, f, g, o. A sum over units
 * is one chain over the 4H numbers of a row; a sum over rows is one chain from zero, added to what
 * was there: both mean the same on every instruction set.
 */

/* h = o * tanh(c) once more. */
static void FL_NAME(hidden)(ptrdiff_t rows, ptrdiff_t H, const void *records, void *h_,
                            ptrdiff_t h_stride) {
    const FL_REAL *record = records;
    FL_REAL *h = h_;
#define FL_DO(j, n)                                                                \
    FL_NAME(store)(h + (j),                                                        \
                   v_mul(FL_NAME(load)(record + 3 * H + (j), n),                   \
                         FL_NAME(v_tanh)(FL_NAME(load)(record + 4 * H + (j), n))), \
                   n)
    for (ptrdiff_t row = 0; row < rows; row++, record += 5 * H, h += h_stride)
        FL_FOR_VECTORS(0, H, FL_DO);
#undef FL_DO
}

/* The gradient of the cell for n units, with s' = s (1 - s) of a sigmoid s, t' = 1 - t^2 of a tanh:
 *     dh = dy + dh                    h is the output and goes to the next step
 *     dc = dc + dh o (1 - tanh(c)^2)  c goes to h and to the next step
 *     dG = dc g i', dc c_previous f', dc i g', dh tanh(c) o'
 *     dc = dc f                       of c_previous
 */
FL_INLINE void FL_NAME(cell_gradient)(ptrdiff_t H, const FL_REAL *record, const FL_REAL *c_previous,
                                      int is_record, const FL_REAL *dy, const FL_REAL *dh,
                                      FL_REAL *dc, FL_REAL *dG, FL_REAL *h, ptrdiff_t n) {
    const vreal one = v_set1(1), zero = v_set1(0);
    const vreal i = FL_NAME(load)(record, n), f = FL_NAME(load)(record + H, n);
    const vreal g = FL_NAME(load)(record + 2 * H, n), o = FL_NAME(load)(record + 3 * H, n);
    const vreal t = FL_NAME(v_tanh)(FL_NAME(load)(record + 4 * H, n));
    const vreal previous = c_previous ? FL_NAME(load)(c_previous, n) : zero;
    if (is_record) { /* the rest of that record is what the next step back reads first */
        FL_PREFETCH(c_previous - H);
        FL_PREFETCH(c_previous - 2 * H);
        FL_PREFETCH(c_previous - 3 * H);
        FL_PREFETCH(c_previous - 4 * H);
    }
    const vreal above = dy ? FL_NAME(load)(dy, n) : zero;
    const vreal to_h = v_add(above, FL_NAME(load)(dh, n));
    const vreal to_c = v_fma(v_mul(to_h, o), v_fnma(t, t, one), FL_NAME(load)(dc, n));
    FL_NAME(store)(dG, v_mul(v_mul(to_c, g), v_fnma(i, i, i)), n);
    FL_NAME(store)(dG + H, v_mul(v_mul(to_c, previous), v_fnma(f, f, f)), n);
    FL_NAME(store)(dG + 2 * H, v_mul(v_mul(to_c, i), v_fnma(g, g, one)), n);
    FL_NAME(store)(dG + 3 * H, v_mul(v_mul(to_h, t), v_fnma(o, o, o)), n);
    FL_NAME(store)(dc, v_mul(to_c, f), n);
    if (h) FL_NAME(store)(h, v_mul(o, t), n);
}

static void FL_NAME(cell_backward)(ptrdiff_t first_unit, ptrdiff_t end_unit, ptrdiff_t rows,
                                   ptrdiff_t H, const void *records, const void *c_previous_,
                                   ptrdiff_t c_stride, const void *dy_, ptrdiff_t dy_stride,
                                   const void *dh_, void *dc_, void *dG_, ptrdiff_t dG_stride,
                                   void *h_, ptrdiff_t h_stride) {
    for (ptrdiff_t row = 0; row < rows; row++) {
        const FL_REAL *record = (const FL_REAL *)records + row * 5 * H;
        const FL_REAL *c_previous =
            c_previous_ ? (const FL_REAL *)c_previous_ + row * c_stride : NULL;
        const FL_REAL *dy = dy_ ? (const FL_REAL *)dy_ + row * dy_stride : NULL;
        const FL_REAL *dh = (const FL_REAL *)dh_ + row * H;
        FL_REAL *dc = (FL_REAL *)dc_ + row * H, *dG = (FL_REAL *)dG_ + row * dG_stride;
        FL_REAL *h = h_ ? (FL_REAL *)h_ + row * h_stride : NULL;
#define FL_DO(j, n)                                                                         \
    FL_NAME(cell_gradient)(H, record + (j), c_previous ? c_previous + (j) : NULL,           \
                           c_previous && c_stride == 5 * H, dy ? dy + (j) : NULL, dh + (j), \
                           dc + (j), dG + (j), h ? h + (j) : NULL, n)
        FL_FOR_VECTORS(first_unit, end_unit, FL_DO);
#undef FL_DO
    }
}

/* acc (R, C vectors) += the sum over k of column k of s times row k of v: s (R, K) is read a number
 * at a time, v (K, C vectors) a vector at a time, with any strides. Fetches ahead as
 * tile_multiply() does, and vectors `early` rows before they are due: rows that lie apart the
 * processor does not see coming. early: 0 for none. */
FL_INLINE void FL_NAME(tile_outer)(const int R, const int C, ptrdiff_t K, const FL_REAL *s,
                                   ptrdiff_t s_row, ptrdiff_t s_k, const FL_REAL *v, ptrdiff_t v_k,
                                   const int early, fl_ahead ahead, vreal *acc) {
    for (ptrdiff_t k = 0; k < K; k++) {
        if (R > 1) {
            FL_PREFETCH_FAR(ahead.at);
            ahead.at += ahead.step;
        }
        FL_UNROLL
        for (int c = 0; c < C; c++) {
            if (early > 0) FL_PREFETCH(v + (k + early) * v_k + c * FL_V);
            const vreal vector = v_load(v + k * v_k + c * FL_V);
            FL_UNROLL
            for (int r = 0; r < R; r++) {
                vreal *sum = acc + r * C + c;
                *sum = v_fma(v_set1(s[r * s_row + k * s_k]), vector, *sum);
            }
        }
    }
}

/* Columns are taken in panels of 4 vectors, the last panel having what is left: 1 to 4. */
#define FL_PANEL_COLUMNS (4 * FL_V)
#define FL_FOR_VECTOR_COUNT(C, DO) \
    switch (C) {                   \
        case 4: DO(4); break;      \
        case 3: DO(3); break;      \
        case 2: DO(2); break;      \
        default: DO(1);            \
    }
FL_INLINE ptrdiff_t FL_NAME(vectors_from)(ptrdiff_t column, ptrdiff_t columns) {
    const ptrdiff_t left = (columns - column + FL_V - 1) / FL_V;
    return left < 4 ? left : 4;
}

static void FL_NAME(pack_columns)(ptrdiff_t first_panel, ptrdiff_t end_panel, ptrdiff_t K,
                                  ptrdiff_t N, const void *w_, ptrdiff_t w_k, ptrdiff_t w_n,
                                  void *packed_) {
    for (ptrdiff_t panel = first_panel; panel < end_panel; panel++) {
        const ptrdiff_t column = panel * FL_PANEL_COLUMNS;
        const ptrdiff_t width = FL_NAME(vectors_from)(column, N) * FL_V;
        const ptrdiff_t full = N - column < width ? N - column : width;
        FL_REAL *packed = (FL_REAL *)packed_ + column * K;
#define FL_DO(j, n) FL_NAME(store)(packed + (j), FL_NAME(load)(w + (j), n), n)
        for (ptrdiff_t k = 0; k < K; k++, packed += width) {
            const FL_REAL *w = (const FL_REAL *)w_ + k * w_k + column * w_n;
            if (w_n == 1) FL_FOR_VECTORS(0, full, FL_DO);
            else
                for (ptrdiff_t j = 0; j < full; j++) packed[j] = w[j * w_n];
            for (ptrdiff_t j = full; j < width; j++) packed[j] = 0;
        }
#undef FL_DO
    }
}

/* One tile of multiply(): R rows of a panel of C vectors, of which `columns` numbers are there. */
FL_INLINE void FL_NAME(multiply_tile)(const int R, const int C, ptrdiff_t K, const FL_REAL *a,
                                      ptrdiff_t a_stride, const FL_REAL *w, FL_REAL *out,
                                      ptrdiff_t out_stride, ptrdiff_t columns, int accumulate,
                                      fl_ahead ahead) {
    vreal acc[FL_TILE_MAX];
    FL_UNROLL
    for (int j = 0; j < R * C; j++) acc[j] = v_set1(0);
    FL_NAME(tile_outer)(R, C, K, a, a_stride, 1, w, C * FL_V, 0, ahead, acc);
    FL_UNROLL
    for (int r = 0; r < R; r++) {
        FL_UNROLL
        for (int c = 0; c < C; c++) {
            const ptrdiff_t n = c < C - 1 ? FL_V : columns - (C - 1) * FL_V;
            FL_REAL *to = out + r * out_stride + c * FL_V;
            const vreal sum = acc[r * C + c];
            FL_NAME(store)(to, accumulate ? v_add(FL_NAME(load)(to, n), sum) : sum, n);
        }
    }
}

static void FL_NAME(multiply)(ptrdiff_t first_panel, ptrdiff_t end_panel, ptrdiff_t rows,
                              ptrdiff_t K, ptrdiff_t N, const void *a_, ptrdiff_t a_stride,
                              const void *w_, void *out_, ptrdiff_t out_stride, int accumulate,
                              ptrdiff_t near_bytes) {
    const FL_REAL *a = a_;
    /* The last panel may be narrower, and is then not fetched ahead. */
    const ptrdiff_t whole = N / FL_PANEL_COLUMNS < end_panel ? N / FL_PANEL_COLUMNS : end_panel;
    const ptrdiff_t panel_bytes = FL_PANEL_COLUMNS * (ptrdiff_t)sizeof(FL_REAL); /* of each k */
    const int is_far = (end_panel - first_panel) * K * panel_bytes > near_bytes;
    for (ptrdiff_t panel = first_panel; panel < end_panel; panel++) {
        const ptrdiff_t column = panel * FL_PANEL_COLUMNS;
        const ptrdiff_t vectors = FL_NAME(vectors_from)(column, N);
        const ptrdiff_t columns = N - column < vectors * FL_V ? N - column : vectors * FL_V;
        const FL_REAL *w = (const FL_REAL *)w_ + column * K;
        FL_REAL *out = (FL_REAL *)out_ + column;
#define FL_TILE(R, N_, row, C)                                                                     \
    FL_NAME(multiply_tile)(                                                                        \
        R, C, K, a + (row) * a_stride, a_stride, w, out + (row) * out_stride, out_stride, columns, \
        accumulate, fl_ahead_of(is_far, w_, K, panel_bytes, panel + 1, whole, row, R, rows))
#define FL_DO(C) FL_FOR_ROWS(rows, C, FL_TILE)
        FL_FOR_VECTOR_COUNT(vectors, FL_DO)
#undef FL_DO
#undef FL_TILE
    }
}

/* One tile of add_outer(): R columns of d by C vectors of a. */
FL_INLINE void FL_NAME(add_outer_tile)(const int R, const int C, ptrdiff_t rows, const FL_REAL *d,
                                       ptrdiff_t d_stride, const FL_REAL *a, ptrdiff_t a_stride,
                                       FL_REAL *sums, ptrdiff_t sums_stride) {
    vreal acc[FL_TILE_MAX];
    FL_UNROLL
    for (int j = 0; j < R * C; j++) acc[j] = v_set1(0);
    /* The sums of a large layer come from afar, and by then they are there. */
    FL_UNROLL
    for (int r = 0; r < R; r++) {
        FL_UNROLL
        for (int c = 0; c < C; c++) FL_PREFETCH(sums + r * sums_stride + c * FL_V);
    }
    FL_NAME(tile_outer)(R, C, rows, d, 1, d_stride, a, a_stride, 4, (fl_ahead){(const char *)a, 0},
                        acc);
    FL_UNROLL
    for (int r = 0; r < R; r++) {
        FL_UNROLL
        for (int c = 0; c < C; c++) {
            FL_REAL *sum = sums + r * sums_stride + c * FL_V;
            v_store(sum, v_add(v_load(sum), acc[r * C + c]));
        }
    }
}

static void FL_NAME(add_outer)(ptrdiff_t first, ptrdiff_t end, ptrdiff_t rows, ptrdiff_t N,
                               const void *d_, ptrdiff_t d_stride, const void *a_,
                               ptrdiff_t a_stride, void *sums_, ptrdiff_t sums_stride) {
    /* So many columns of d at a time, which then stay in the core's cache for all of a. */
    const ptrdiff_t block = 40 * FL_TILE_ROWS;
    for (; first < end; first += block) {
        const ptrdiff_t count = end - first < block ? end - first : block;
        const FL_REAL *d = (const FL_REAL *)d_ + first;
        for (ptrdiff_t column = 0; column < N; column += FL_PANEL_COLUMNS) {
            const FL_REAL *a = (const FL_REAL *)a_ + column;
            FL_REAL *sums = (FL_REAL *)sums_ + first * sums_stride + column;
            const ptrdiff_t vectors = FL_NAME(vectors_from)(column, N);
#define FL_TILE(R, N_, row, C)                                            \
    FL_NAME(add_outer_tile)(R, C, rows, d + (row), d_stride, a, a_stride, \
                            sums + (row) * sums_stride, sums_stride)
#define FL_DO(C) FL_FOR_ROWS(count, C, FL_TILE)
            FL_FOR_VECTOR_COUNT(vectors, FL_DO)
#undef FL_DO
#undef FL_TILE
        }
    }
}

/* sums += the rows of d, C vectors of columns at once. */
FL_INLINE void FL_NAME(add_rows_of)(const int C, ptrdiff_t rows, const FL_REAL *d,
                                    ptrdiff_t d_stride, FL_REAL *sums, ptrdiff_t n) {
    vreal acc[4];
    FL_UNROLL
    for (int c = 0; c < C; c++) acc[c] = v_set1(0);
    for (ptrdiff_t row = 0; row < rows; row++) {
        FL_UNROLL
        for (int c = 0; c < C; c++)
            acc[c] = v_add(acc[c], FL_NAME(load)(d + row * d_stride + c * FL_V, n));
    }
    FL_UNROLL
    for (int c = 0; c < C; c++)
        FL_NAME(store)(sums + c * FL_V, v_add(FL_NAME(load)(sums + c * FL_V, n), acc[c]), n);
}

static void FL_NAME(add_rows)(ptrdiff_t first, ptrdiff_t end, ptrdiff_t rows, const void *d_,
                              ptrdiff_t d_stride, void *sums_) {
    const FL_REAL *d = d_;
    FL_REAL *sums = sums_;
    for (; first + 4 * FL_V <= end; first += 4 * FL_V)
        FL_NAME(add_rows_of)(4, rows, d + first, d_stride, sums + first, FL_V);
#define FL_DO(j, n) FL_NAME(add_rows_of)(1, rows, d + (j), d_stride, sums + (j), n)
    FL_FOR_VECTORS(first, end, FL_DO);
#undef FL_DO
}

static void FL_NAME(put_rows)(ptrdiff_t rows, ptrdiff_t n, const void *from_, ptrdiff_t from_stride,
                              void *to_, ptrdiff_t to_stride, int accumulate) {
    const FL_REAL *from = from_;
    FL_REAL *to = to_;
#define FL_PUT(j, n_) FL_NAME(store)(to + (j), FL_NAME(load)(from + (j), n_), n_)
#define FL_ADD(j, n_) \
    FL_NAME(store)(to + (j), v_add(FL_NAME(load)(to + (j), n_), FL_NAME(load)(from + (j), n_)), n_)
    for (ptrdiff_t row = 0; row < rows; row++, from += from_stride, to += to_stride) {
        if (accumulate) FL_FOR_VECTORS(0, n, FL_ADD);
        else FL_FOR_VECTORS(0, n, FL_PUT);
    }
#undef FL_PUT
#undef FL_ADD
}

#undef FL_PANEL_COLUMNS
#undef FL_FOR_VECTOR_COUNT
