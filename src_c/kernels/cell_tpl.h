/* One time step: the recurrent product and the cell, written once. */

/* n is FL_V, or what is left at the end of a row. */
FL_INLINE vreal FL_NAME(load)(const FL_REAL *p, ptrdiff_t n) {
    return n == FL_V ? v_load(p) : v_load_n(p, n);
}
FL_INLINE void FL_NAME(store)(FL_REAL *p, vreal a, ptrdiff_t n) {
    if (n == FL_V) v_store(p, a);
    else v_store_n(p, a, n);
}

/* The cell of n units of one row, gates before activation in acc (4):
 *     c = f * c + i * g          h = o * tanh(c)
 * record: NULL, or where i, f, g, o and c are written for the backward pass, H apart. The products
 * i * g and o * tanh(c) are the same single quotients either way.
 */
FL_INLINE void FL_NAME(cell)(const vreal *acc, FL_REAL *c, FL_REAL *h, FL_REAL *record, ptrdiff_t H,
                             ptrdiff_t n) {
    vreal next = FL_NAME(load)(c, n);
    const vreal out = FL_NAME(v_cell)(acc, &next);
    FL_NAME(store)(c, next, n);
    FL_NAME(store)(h, out, n);
    if (record) {
        FL_NAME(store)(record, FL_NAME(v_sigmoid)(acc[0]), n);
        FL_NAME(store)(record + H, FL_NAME(v_sigmoid)(acc[1]), n);
        FL_NAME(store)(record + 2 * H, FL_NAME(v_tanh)(acc[2]), n);
        FL_NAME(store)(record + 3 * H, FL_NAME(v_sigmoid)(acc[3]), n);
        FL_NAME(store)(record + 4 * H, next, n);
    }
}

/* The cells of a tile, gates before activation in z, the first unit being `unit`: one row of
 * FL_TILE_PANELS panels, or R rows of one panel. One loop, not unrolled: the code of a cell is
 * long, and the processor overlaps one cell with the next by itself. */
static FL_NOINLINE void FL_NAME(cells_of_row)(ptrdiff_t H, ptrdiff_t unit, const FL_REAL *z,
                                              FL_REAL *c, FL_REAL *h_out, FL_REAL *record) {
    const ptrdiff_t end = unit + FL_TILE_PANELS * FL_V;
    for (ptrdiff_t first = unit; first < end; first += FL_V, z += FL_PANEL) {
        vreal acc[4];
        FL_UNROLL
        for (int gate = 0; gate < 4; gate++) acc[gate] = v_load(z + gate * FL_V);
        FL_NAME(cell)(acc, c + first, h_out + first, record ? record + first : NULL, H,
                      H - first < FL_V ? H - first : FL_V);
    }
}

static FL_NOINLINE void FL_NAME(cells_of_panel)(ptrdiff_t R, ptrdiff_t H, ptrdiff_t unit,
                                                const FL_REAL *z, FL_REAL *c, FL_REAL *h_out,
                                                ptrdiff_t h_out_stride, FL_REAL *record) {
    const ptrdiff_t n = H - unit < FL_V ? H - unit : FL_V;
    for (ptrdiff_t r = 0; r < R; r++, z += FL_PANEL) {
        vreal acc[4];
        FL_UNROLL
        for (int gate = 0; gate < 4; gate++) acc[gate] = v_load(z + gate * FL_V);
        FL_NAME(cell)(acc, c + r * H + unit, h_out + r * h_out_stride + unit,
                      record ? record + r * 5 * H + unit : NULL, H, n);
    }
}

/* One tile of step(): R rows of N panels, R or N being 1, of which the first begins at `unit`. */
FL_INLINE void FL_NAME(step_tile)(const int R, const int N, ptrdiff_t H, ptrdiff_t unit,
                                  const FL_REAL *h, ptrdiff_t h_stride, const FL_REAL *u,
                                  const FL_REAL *z, ptrdiff_t z_stride, FL_REAL *c, FL_REAL *h_out,
                                  ptrdiff_t h_out_stride, FL_REAL *record, fl_ahead ahead) {
    vreal acc[FL_TILE_MAX];
    FL_UNROLL
    for (int r = 0; r < R; r++) {
        FL_UNROLL
        for (int j = 0; j < 4 * N; j++) acc[r * 4 * N + j] = v_load(z + r * z_stride + j * FL_V);
    }
    FL_NAME(tile_multiply)(R, N, 4, H, h, h_stride, u, ahead, acc);
    if (R * N == 1) { /* tiny layers are all latency: from register to register */
        FL_NAME(cell)(acc, c + unit, h_out + unit, record ? record + unit : NULL, H,
                      H - unit < FL_V ? H - unit : FL_V);
        return;
    }
    FL_REAL gates[FL_TILE_MAX * FL_V];
    FL_UNROLL
    for (int j = 0; j < R * N * 4; j++) v_store(gates + j * FL_V, acc[j]);
    if (N > 1) FL_NAME(cells_of_row)(H, unit, gates, c, h_out, record);
    else FL_NAME(cells_of_panel)(R, H, unit, gates, c, h_out, h_out_stride, record);
}

#define FL_TILE(R, N, row, panel)                                                               \
    FL_NAME(step_tile)(R, N, H, (first_panel + (panel)) * FL_V, h + (row) * h_stride, h_stride, \
                       u + (first_panel + (panel)) * H * FL_PANEL,                              \
                       z + (row) * z_stride + (first_panel + (panel)) * FL_PANEL, z_stride,     \
                       c + (row) * H, h_out + (row) * h_out_stride, h_out_stride,               \
                       record ? record + (row) * 5 * H : NULL, FL_AHEAD(R, row, panel))
#define FL_AHEAD(R, row, panel) ((fl_ahead){NULL, 0})
static FL_NOINLINE void FL_NAME(step_row)(ptrdiff_t first_panel, ptrdiff_t panels, ptrdiff_t H,
                                          const FL_REAL *h, const FL_REAL *u, const FL_REAL *z,
                                          FL_REAL *c, FL_REAL *h_out, FL_REAL *record, int backward,
                                          int is_far) {
    const ptrdiff_t h_stride = 0, z_stride = 0, h_out_stride = 0;
    FL_FOR_PANELS(panels, is_far, backward, FL_TILE);
}
#undef FL_AHEAD
#define FL_AHEAD(R, row, panel)                                                                   \
    fl_ahead_of(is_far, u + first_panel * H * FL_PANEL, H, FL_PANEL * (ptrdiff_t)sizeof(FL_REAL), \
                backward ? (panel) - 1 : (panel) + 1, panels, row, R, rows)
static FL_NOINLINE void FL_NAME(step_rows)(ptrdiff_t first_panel, ptrdiff_t panels, ptrdiff_t rows,
                                           ptrdiff_t H, const FL_REAL *h, ptrdiff_t h_stride,
                                           const FL_REAL *u, const FL_REAL *z, ptrdiff_t z_stride,
                                           FL_REAL *c, FL_REAL *h_out, ptrdiff_t h_out_stride,
                                           FL_REAL *record, int backward, int is_far) {
    FL_FOR_TILES(rows, panels, backward, FL_TILE);
}
#undef FL_TILE
#undef FL_AHEAD

static void FL_NAME(step)(ptrdiff_t first_panel, ptrdiff_t panels, ptrdiff_t rows, ptrdiff_t H,
                          const void *h, ptrdiff_t h_stride, const void *u, const void *z,
                          ptrdiff_t z_stride, void *c, void *h_out, ptrdiff_t h_out_stride,
                          void *record, int backward, ptrdiff_t near_bytes) {
    const int is_far = panels * H * FL_PANEL * (ptrdiff_t)sizeof(FL_REAL) > near_bytes;
    if (rows == 1)
        FL_NAME(step_row)(first_panel, panels, H, h, u, z, c, h_out, record, backward, is_far);
    else
        FL_NAME(step_rows)(first_panel, panels, rows, H, h, h_stride, u, z, z_stride, c, h_out,
                           h_out_stride, record, backward, is_far);
}
