/* Variants of the cell, forward and backward, written once.
 *
 * Their products are those of the usual cell (gemm_tpl.h). What a cell does besides is read from
 * its options once for each vector of units, never for each unit: kernels grow by options, not by
 * combinations. The equations are in fastlstm.h.
 */

static FL_NOCLONE vreal FL_NAME(activate)(fl_activation kind, vreal x) {
    const vreal zero = v_set1(0), one = v_set1(1);
    switch (kind) {
        case FL_TANH: return FL_NAME(v_tanh)(x);
        case FL_RELU: return v_add(v_max(zero, x), zero); /* 0 for -0 */
        case FL_HARD_SIGMOID: {
            const vreal line = v_fma(v_set1((FL_REAL)0.2), x, v_set1((FL_REAL)0.5));
            return v_add(v_max(zero, v_min(one, line)), zero);
        }
        case FL_IDENTITY: return x;
        default: return FL_NAME(v_sigmoid)(x);
    }
}

/* Layers of 8 or 16 bits, of which there are none in double: what they have there, or else. */
#if FL_DOUBLE
#define FL_IS_LOW(config) 0
#define FL_LOW_OR(is_low, low, real) (real)
#else
#define FL_IS_LOW(config) ((config)->bits == 8 || (config)->bits == 16)
#define FL_LOW_OR(is_low, low, real) ((is_low) ? (low) : (real))

static FL_NOCLONE vreal FL_NAME(activate_low)(int bits, fl_activation kind, vreal x) {
    if (kind == FL_TANH) return bits == 8 ? FL_NAME(low_tanh)(8, x) : FL_NAME(low_tanh)(16, x);
    if (kind != FL_SIGMOID) return FL_NAME(activate)(kind, x);
    return bits == 8 ? FL_NAME(low_sigmoid)(8, x) : FL_NAME(low_sigmoid)(16, x);
}

static FL_NOCLONE vreal FL_NAME(sigmoid_tanh_low)(int bits, vreal x, vreal y) {
    return bits == 8 ? FL_NAME(low_sigmoid_tanh)(8, x, y) : FL_NAME(low_sigmoid_tanh)(16, x, y);
}

static FL_NOCLONE vreal FL_NAME(state_low)(int bits, vreal i, vreal f, vreal g, vreal c) {
    return bits == 8 ? FL_NAME(low_state)(8, i, f, g, c) : FL_NAME(low_state)(16, i, f, g, c);
}
#endif

/* The derivative of an activation where its value is y. */
FL_INLINE vreal FL_NAME(slope)(fl_activation kind, vreal y) {
    const vreal zero = v_set1(0), one = v_set1(1);
    switch (kind) {
        case FL_TANH: return v_fnma(y, y, one);
        case FL_RELU: return v_where_less(zero, y, one, zero);
        case FL_HARD_SIGMOID:
            return v_where_less(zero, y, v_where_less(y, one, v_set1((FL_REAL)0.2), zero), zero);
        case FL_IDENTITY: return one;
        default: return v_fnma(y, y, y);
    }
}

/* x between -bound and bound; NaN stays NaN. */
FL_INLINE vreal FL_NAME(clamp)(vreal x, vreal bound) {
    return v_max(v_sub(v_set1(0), bound), v_min(bound, x));
}

/* A bound of the configuration, where 0 stands for none. */
FL_INLINE vreal FL_NAME(bound)(double clip) {
    return v_set1(clip > 0 ? (FL_REAL)clip : (FL_REAL)INFINITY);
}

/* m * a + (1 - m) * b: a or b where m is 1 or 0 and both are finite (0 may lose its sign). */
FL_INLINE vreal FL_NAME(mix)(vreal m, vreal a, vreal b) {
    return v_add(v_mul(m, a), v_mul(v_sub(v_set1(1), m), b));
}

/* m for n units: the mask's, or the expectation. */
FL_INLINE vreal FL_NAME(zoneout)(const FL_REAL *mask, double expected, ptrdiff_t n) {
    return mask ? FL_NAME(load)(mask, n) : v_set1((FL_REAL)expected);
}

/* The cell of n units of one row, from `unit` on: gates before activation in z (G, V). */
FL_INLINE void FL_NAME(variant_cell)(const int is_low, const fl_step *step, ptrdiff_t row,
                                     ptrdiff_t unit, const FL_REAL *z, ptrdiff_t n) {
#define FL_ACTIVATE(kind, x) \
    FL_LOW_OR(is_low, FL_NAME(activate_low)(config->bits, kind, x), FL_NAME(activate)(kind, x))
#define FL_SIGMOID_TANH(x, y) \
    FL_LOW_OR(is_low, FL_NAME(sigmoid_tanh_low)(config->bits, x, y), FL_NAME(v_sigmoid_tanh)(x, y))
    const fl_config *config = step->config;
    const ptrdiff_t H = config->hidden_size;
    const fl_activation gate = config->gate_activation;
    const int usual = gate == FL_SIGMOID && config->cell_activation == FL_TANH &&
                      config->output_activation == FL_TANH;
    const vreal bound = FL_NAME(bound)(config->clip);
    const ptrdiff_t at_g = config->coupled_gates ? FL_V : 2 * FL_V, at_o = at_g + FL_V;
    const FL_REAL *p =
        step->peepholes ? (const FL_REAL *)step->peepholes + unit / FL_V * (at_o + FL_V) : NULL;
    FL_REAL *c = (FL_REAL *)step->c + row * H + unit;
    FL_REAL *record =
        step->record ? (FL_REAL *)step->record + row * step->record_stride + unit : NULL;
    const vreal previous = FL_NAME(load)(c, n);
    vreal z_i = v_load(z), z_f = v_load(z + FL_V), z_o = v_load(z + at_o); /* coupled: no z_f */
    if (p) {
        z_i = v_fma(v_load(p), previous, z_i);
        z_f = v_fma(v_load(p + FL_V), previous, z_f);
    }
    z_i = FL_NAME(clamp)(z_i, bound);
    z_f = FL_NAME(clamp)(z_f, bound);
    const vreal z_g = FL_NAME(clamp)(v_load(z + at_g), bound);

    vreal i = v_set1(0), f = i, g = i, candidate;
    if (is_low && usual && !config->coupled_gates) { /* the whole state is one quotient */
        candidate = FL_LOW_OR(1, FL_NAME(state_low)(config->bits, z_i, z_f, z_g, previous), f);
    } else {
        if (!usual || config->coupled_gates || record) i = FL_ACTIVATE(gate, z_i);
        if (!usual || record) g = FL_ACTIVATE(config->cell_activation, z_g);
        /* i * g, one quotient in the usual cell */
        const vreal input = usual ? FL_SIGMOID_TANH(z_i, z_g) : v_mul(i, g);
        f = config->coupled_gates ? v_sub(v_set1(1), i) : FL_ACTIVATE(gate, z_f);
        candidate = v_fma(f, previous, input);
    }
    candidate = FL_NAME(clamp)(candidate, FL_NAME(bound)(config->cell_clip));

    if (p) z_o = v_fma(v_load(p + at_o), candidate, z_o);
    z_o = FL_NAME(clamp)(z_o, bound);
    vreal o = v_set1(0), h;
    if (!usual || record || step->candidate) o = FL_ACTIVATE(gate, z_o);
    if (step->candidate) {
        FL_NAME(store)((FL_REAL *)step->candidate + row * H + unit, candidate, n);
        h = o;
    } else if (usual) h = FL_SIGMOID_TANH(z_o, candidate);
    else h = v_mul(o, FL_ACTIVATE(config->output_activation, candidate));

    vreal next = candidate;
    if (config->zoneout_c > 0) {
        const FL_REAL *mask =
            step->zoneout_c ? (const FL_REAL *)step->zoneout_c + row * H + unit : NULL;
        next = FL_NAME(mix)(FL_NAME(zoneout)(mask, config->zoneout_c, n), previous, candidate);
    }
    FL_NAME(store)(c, next, n);
    FL_NAME(store)((FL_REAL *)step->h_out + row * step->h_out_stride + unit, h, n);
    if (record) {
        FL_NAME(store)(record, i, n);
        FL_NAME(store)(record + H, f, n);
        FL_NAME(store)(record + 2 * H, g, n);
        FL_NAME(store)(record + 3 * H, o, n);
        FL_NAME(store)(record + 4 * H, next, n);
        if (!config->proj_size && !step->candidate) FL_NAME(store)(record + 5 * H, h, n);
    }
#undef FL_ACTIVATE
#undef FL_SIGMOID_TANH
}

/* The cells of a tile, as in cell_tpl.h. */
FL_INLINE void FL_NAME(variant_cells_of)(const int is_low, ptrdiff_t R, ptrdiff_t N, ptrdiff_t row,
                                         ptrdiff_t unit, const FL_REAL *z, const fl_step *step) {
    const ptrdiff_t H = step->config->hidden_size;
    const ptrdiff_t panel = (step->config->coupled_gates ? 3 : 4) * FL_V;
    for (ptrdiff_t r = row; r < row + R; r++)
        for (ptrdiff_t first = unit; first < unit + N * FL_V; first += FL_V, z += panel)
            FL_NAME(variant_cell)(is_low, step, r, first, z, H - first < FL_V ? H - first : FL_V);
}

#if !FL_DOUBLE
static FL_NOCLONE void FL_NAME(low_variant_cells)(ptrdiff_t R, ptrdiff_t N, ptrdiff_t row,
                                                  ptrdiff_t unit, const FL_REAL *z,
                                                  const fl_step *step) {
    FL_NAME(variant_cells_of)(1, R, N, row, unit, z, step);
}
#endif

static FL_NOCLONE void FL_NAME(variant_cells)(ptrdiff_t R, ptrdiff_t N, ptrdiff_t row,
                                              ptrdiff_t unit, const FL_REAL *z,
                                              const fl_step *step) {
#if !FL_DOUBLE
    if (FL_IS_LOW(step->config)) {
        FL_NAME(low_variant_cells)(R, N, row, unit, z, step);
        return;
    }
#endif
    FL_NAME(variant_cells_of)(0, R, N, row, unit, z, step);
}

FL_INLINE void FL_NAME(variant_tile)(const int R, const int N, const int G, ptrdiff_t row,
                                     ptrdiff_t panel, const fl_step *step, fl_ahead ahead) {
    const FL_REAL *z = (const FL_REAL *)step->z + row * step->z_stride + panel * G * FL_V;
    vreal acc[FL_TILE_MAX];
    FL_UNROLL
    for (int r = 0; r < R; r++) {
        FL_UNROLL
        for (int j = 0; j < G * N; j++)
            acc[r * G * N + j] = v_load(z + r * step->z_stride + j * FL_V);
    }
    FL_NAME(tile_multiply)(R, N, G, step->P, (const FL_REAL *)step->h + row * step->h_stride,
                           step->h_stride, (const FL_REAL *)step->u + panel * step->P * G * FL_V,
                           ahead, acc);
    FL_REAL gates[FL_TILE_MAX * FL_V];
    FL_UNROLL
    for (int j = 0; j < R * N * G; j++) v_store(gates + j * FL_V, acc[j]);
    FL_NAME(variant_cells)(R, N, row, panel * FL_V, gates, step);
}

#define FL_TILE(R, N, row, panel) \
    FL_NAME(variant_tile)(R, N, G, row, first_panel + (panel), step, FL_AHEAD(R, row, panel))
#define FL_AHEAD(R, row, panel)                                                               \
    fl_ahead_of(is_far, (const FL_REAL *)step->u + first_panel * step->P * G * FL_V, step->P, \
                column_bytes, step->backward ? (panel) - 1 : (panel) + 1, panels, row, R,     \
                step->rows)
#define FL_VARIANT_STEP(gates)                                                   \
    enum { G = gates };                                                          \
    const ptrdiff_t column_bytes = G * FL_V * (ptrdiff_t)sizeof(FL_REAL);        \
    const int is_far = panels * step->P * column_bytes > step->near_bytes;       \
    if (step->rows == 1) FL_FOR_PANELS(panels, is_far, step->backward, FL_TILE); \
    else FL_FOR_TILES(step->rows, panels, step->backward, FL_TILE)
static FL_NOCLONE void FL_NAME(variant_step_of_4)(ptrdiff_t first_panel, ptrdiff_t panels,
                                                  const fl_step *step) {
    FL_VARIANT_STEP(4);
}
static FL_NOCLONE void FL_NAME(variant_step_of_3)(ptrdiff_t first_panel, ptrdiff_t panels,
                                                  const fl_step *step) {
    FL_VARIANT_STEP(3);
}
#undef FL_TILE
#undef FL_AHEAD
#undef FL_VARIANT_STEP

static void FL_NAME(variant_step)(ptrdiff_t first_panel, ptrdiff_t panels, const fl_step *step) {
    if (step->config->coupled_gates) FL_NAME(variant_step_of_3)(first_panel, panels, step);
    else FL_NAME(variant_step_of_4)(first_panel, panels, step);
}

/* The derivative of a gate's activation where its value is y, 0 where its input was clipped: there
 * the value is that of the bound. */
FL_INLINE vreal FL_NAME(clipped_slope)(fl_activation kind, double clip, vreal y) {
    const vreal slope = FL_NAME(slope)(kind, y), zero = v_set1(0);
    if (!(clip > 0)) return slope;
    const vreal bound = FL_NAME(bound)(clip);
    const vreal low = FL_NAME(activate)(kind, v_sub(zero, bound));
    const vreal high = FL_NAME(activate)(kind, bound);
    return v_where_less(low, y, v_where_less(y, high, slope, zero), zero);
}

/* The gradient of a variant's cell for n units of one row, from `unit` on: the equations of
 * fastlstm.h from the last to the first. c~ is computed once more. */
FL_INLINE void FL_NAME(variant_gradient)(const fl_step_back *step, ptrdiff_t row, ptrdiff_t unit,
                                         ptrdiff_t n) {
    const fl_config *config = step->config;
    const ptrdiff_t H = config->hidden_size;
    const fl_activation gate = config->gate_activation;
    const vreal zero = v_set1(0), one = v_set1(1);
    const FL_REAL *record = (const FL_REAL *)step->records + row * step->record_stride + unit;
    const FL_REAL *c_previous = step->c_previous;
    FL_REAL *dc = (FL_REAL *)step->dc + row * H + unit;
    FL_REAL *d = (FL_REAL *)step->d + row * step->d_stride + unit;
    const vreal i = FL_NAME(load)(record, n), f = FL_NAME(load)(record + H, n);
    const vreal g = FL_NAME(load)(record + 2 * H, n), o = FL_NAME(load)(record + 3 * H, n);
    const vreal previous =
        c_previous ? FL_NAME(load)(c_previous + row * step->c_stride + unit, n) : zero;
    const vreal sum = v_fma(f, previous, v_mul(i, g));
    const vreal candidate = FL_NAME(clamp)(sum, FL_NAME(bound)(config->cell_clip));
    const FL_REAL *of_normal = step->t ? (const FL_REAL *)step->t + row * H + unit : NULL;
    const vreal t = of_normal ? FL_NAME(load)(of_normal, n)
                              : FL_NAME(activate)(config->output_activation, candidate);
    const vreal dh = FL_NAME(load)((const FL_REAL *)step->dh + row * H + unit, n);

    const vreal arriving = FL_NAME(load)(dc, n);
    vreal to_c = arriving, kept = zero; /* of c~, and past the cell of c_{t-1} */
    if (config->zoneout_c > 0) {
        const FL_REAL *mask =
            step->zoneout_c ? (const FL_REAL *)step->zoneout_c + row * H + unit : NULL;
        const vreal m = FL_NAME(zoneout)(mask, config->zoneout_c, n);
        kept = v_mul(m, arriving);
        to_c = v_mul(v_sub(one, m), arriving);
    }
    const vreal t_slope = FL_NAME(slope)(config->output_activation, t);
    if (of_normal)
        to_c = v_add(to_c, FL_NAME(load)((const FL_REAL *)step->dc_normal + row * H + unit, n));
    else to_c = v_fma(v_mul(dh, o), t_slope, to_c);
    const vreal dz_o = v_mul(v_mul(dh, t), FL_NAME(clipped_slope)(gate, config->clip, o));

    const FL_REAL *p = step->peepholes ? (const FL_REAL *)step->peepholes + unit : NULL;
    if (p) to_c = v_fma(dz_o, FL_NAME(load)(p + (config->coupled_gates ? H : 2 * H), n), to_c);
    if (config->cell_clip > 0)
        to_c = v_where_less(FL_NAME(bound)(config->cell_clip), v_abs(sum), zero, to_c);

    vreal to_i = v_mul(to_c, g), dz_f = zero;
    if (config->coupled_gates) to_i = v_fnma(to_c, previous, to_i); /* f = 1 - i */
    else dz_f = v_mul(v_mul(to_c, previous), FL_NAME(clipped_slope)(gate, config->clip, f));
    const vreal dz_i = v_mul(to_i, FL_NAME(clipped_slope)(gate, config->clip, i));
    const vreal dz_g =
        v_mul(v_mul(to_c, i), FL_NAME(clipped_slope)(config->cell_activation, config->clip, g));
    vreal to_previous = v_fma(to_c, f, kept);
    if (p) {
        to_previous = v_fma(dz_i, FL_NAME(load)(p, n), to_previous);
        if (!config->coupled_gates) to_previous = v_fma(dz_f, FL_NAME(load)(p + H, n), to_previous);
    }
    FL_NAME(store)(dc, to_previous, n);

    FL_NAME(store)(d, dz_i, n);
    if (!config->coupled_gates) FL_NAME(store)(d += H, dz_f, n);
    FL_NAME(store)(d += H, dz_g, n);
    FL_NAME(store)(d += H, dz_o, n);
    if (p) {
        FL_NAME(store)(d += H, v_mul(dz_i, previous), n);
        if (!config->coupled_gates) FL_NAME(store)(d += H, v_mul(dz_f, previous), n);
        FL_NAME(store)(d += H, v_mul(dz_o, candidate), n);
    }
    if (step->h) FL_NAME(store)((FL_REAL *)step->h + row * step->h_stride + unit, v_mul(o, t), n);
}

static void FL_NAME(variant_backward)(ptrdiff_t first, ptrdiff_t end, const fl_step_back *step) {
    for (ptrdiff_t row = 0; row < step->rows; row++) {
#define FL_DO(j, n) FL_NAME(variant_gradient)(step, row, j, n)
        FL_FOR_VECTORS(first, end, FL_DO);
#undef FL_DO
    }
}

static void FL_NAME(mask_rows)(ptrdiff_t rows, ptrdiff_t n, const void *m_, ptrdiff_t m_stride,
                               const void *a_, ptrdiff_t a_stride, const void *b_,
                               ptrdiff_t b_stride, void *out_, ptrdiff_t out_stride) {
    for (ptrdiff_t row = 0; row < rows; row++) {
        const FL_REAL *m = (const FL_REAL *)m_ + row * m_stride;
        const FL_REAL *a = (const FL_REAL *)a_ + row * a_stride;
        const FL_REAL *b = b_ ? (const FL_REAL *)b_ + row * b_stride : NULL;
        FL_REAL *out = (FL_REAL *)out_ + row * out_stride;
#define FL_DO(j, n_)                                                                         \
    do {                                                                                     \
        const vreal product = v_mul(FL_NAME(load)(m + (j), n_), FL_NAME(load)(a + (j), n_)); \
        const vreal sum = b ? v_add(product, FL_NAME(load)(b + (j), n_)) : product;          \
        FL_NAME(store)(out + (j), sum, n_);                                                  \
    } while (0)
        FL_FOR_VECTORS(0, n, FL_DO);
#undef FL_DO
    }
}

static void FL_NAME(mix_rows)(ptrdiff_t rows, ptrdiff_t n, const void *m_, ptrdiff_t m_stride,
                              double factor, const void *a_, ptrdiff_t a_stride, const void *b_,
                              ptrdiff_t b_stride, void *out_, ptrdiff_t out_stride) {
    for (ptrdiff_t row = 0; row < rows; row++) {
        const FL_REAL *mask = m_ ? (const FL_REAL *)m_ + row * m_stride : NULL;
        const FL_REAL *a = a_ ? (const FL_REAL *)a_ + row * a_stride : NULL;
        const FL_REAL *b = b_ ? (const FL_REAL *)b_ + row * b_stride : NULL;
        FL_REAL *out = (FL_REAL *)out_ + row * out_stride;
#define FL_DO(j, n_)                                                                    \
    FL_NAME(store)(out + (j),                                                           \
                   FL_NAME(mix)(FL_NAME(zoneout)(mask ? mask + (j) : NULL, factor, n_), \
                                a ? FL_NAME(load)(a + (j), n_) : v_set1(0),             \
                                b ? FL_NAME(load)(b + (j), n_) : v_set1(0)),            \
                   n_)
        FL_FOR_VECTORS(0, n, FL_DO);
#undef FL_DO
    }
}
