/* Layer normalisation (Ba, Kiros and Hinton 2016), forward and backward, written once.
 *
 *     normal = (x - mean(x)) / sqrt(variance(x) + FL_NORM_EPSILON)
 *
 * over the G*H numbers of W x_t, over those of U h_{t-1}, and over the H of c~ on its way to h;
 * then each is scaled and shifted. A sum over n numbers is FL_NORM_LANES sums, one for each
 * remainder of the index, added up in order: the same on every instruction set, whatever V is.
 */

_Static_assert(FL_NORM_LANES % FL_V == 0, "a sum's lanes are whole vectors");

/* The last numbers of a row, fewer than there are lanes, added to sums (FL_NORM_LANES). */
static FL_NOINLINE void FL_NAME(add_lanes)(ptrdiff_t n, const FL_REAL *x, const int squared,
                                           FL_REAL centre, FL_REAL *sums) {
    for (ptrdiff_t lane = 0; lane < n; lane++) {
        const FL_REAL d = x[lane] - centre;
        sums[lane] += squared ? d * d : d;
    }
}

/* sums (FL_NORM_LANES) of x (n), or of its squared distances from `centre`. */
FL_INLINE void FL_NAME(sum_lanes)(ptrdiff_t n, const FL_REAL *x, const int squared, FL_REAL centre,
                                  FL_REAL *sums) {
    vreal acc[FL_NORM_LANES / FL_V];
    FL_UNROLL
    for (int v = 0; v < FL_NORM_LANES / FL_V; v++) acc[v] = v_set1(0);
    ptrdiff_t j = 0;
    for (; j + FL_NORM_LANES <= n; j += FL_NORM_LANES) {
        FL_UNROLL
        for (int v = 0; v < FL_NORM_LANES / FL_V; v++) {
            const vreal d = v_sub(v_load(x + j + v * FL_V), v_set1(centre));
            acc[v] = v_add(acc[v], squared ? v_mul(d, d) : d);
        }
    }
    FL_UNROLL
    for (int v = 0; v < FL_NORM_LANES / FL_V; v++) v_store(sums + v * FL_V, acc[v]);
    if (j < n) FL_NAME(add_lanes)(n - j, x + j, squared, centre, sums);
}

/* The mean of each of R rows of x (R, n), or of its squared distances from `centres` (R). The sums
 * of a row's lanes are one chain of additions, so those of several rows go side by side. */
FL_INLINE void FL_NAME(means)(const int R, ptrdiff_t n, const FL_REAL *x, ptrdiff_t stride,
                              const int squared, const FL_REAL *centres, FL_REAL *means) {
    FL_REAL sums[FL_NORM_ROWS][FL_NORM_LANES];
    FL_UNROLL
    for (int r = 0; r < R; r++)
        FL_NAME(sum_lanes)(n, x + r * stride, squared, squared ? centres[r] : 0, sums[r]);
    FL_UNROLL
    for (int r = 0; r < R; r++) means[r] = 0;
    FL_UNROLL
    for (int lane = 0; lane < FL_NORM_LANES; lane++) {
        FL_UNROLL
        for (int r = 0; r < R; r++) means[r] += sums[r][lane];
    }
    FL_UNROLL
    for (int r = 0; r < R; r++) means[r] /= (FL_REAL)n;
}

/* Means of R rows of x (R, n), and factors: 1 / sqrt(variance + epsilon). */
FL_INLINE void FL_NAME(measure_rows)(const int R, ptrdiff_t n, const FL_REAL *x, ptrdiff_t stride,
                                     FL_REAL *centres, FL_REAL *factors) {
    FL_REAL variances[FL_NORM_ROWS];
    FL_NAME(means)(R, n, x, stride, 0, NULL, centres);
    FL_NAME(means)(R, n, x, stride, 1, centres, variances);
    FL_UNROLL
    for (int r = 0; r < R; r++) factors[r] = 1 / FL_SQRT(variances[r] + (FL_REAL)FL_NORM_EPSILON);
}

/* Those of one row and of FL_NORM_ROWS, and the mean of one row alone, are functions of their own:
 * they are long, and needed in many places. */
static FL_NOINLINE void FL_NAME(measure_1)(ptrdiff_t n, const FL_REAL *x, FL_REAL *centres,
                                           FL_REAL *factors) {
    FL_NAME(measure_rows)(1, n, x, 0, centres, factors);
}
static FL_NOINLINE void FL_NAME(measure_many)(ptrdiff_t n, const FL_REAL *x, ptrdiff_t stride,
                                              FL_REAL *centres, FL_REAL *factors) {
    FL_NAME(measure_rows)(FL_NORM_ROWS, n, x, stride, centres, factors);
}
static FL_NOINLINE FL_REAL FL_NAME(mean_of)(ptrdiff_t n, const FL_REAL *x) {
    FL_REAL mean;
    FL_NAME(means)(1, n, x, 0, 0, NULL, &mean);
    return mean;
}

FL_INLINE void FL_NAME(measure)(const int R, ptrdiff_t n, const FL_REAL *x, ptrdiff_t stride,
                                FL_REAL *centres, FL_REAL *factors) {
    if (R == 1) FL_NAME(measure_1)(n, x, centres, factors);
    else FL_NAME(measure_many)(n, x, stride, centres, factors);
}

/* Calls DO(R, row) for `rows` rows, FL_NORM_ROWS at a time as long as there are so many. */
#define FL_FOR_NORM_ROWS(rows, DO)                                                       \
    do {                                                                                 \
        ptrdiff_t row = 0;                                                               \
        for (; row + FL_NORM_ROWS <= (rows); row += FL_NORM_ROWS) DO(FL_NORM_ROWS, row); \
        for (; row < (rows); row++) DO(1, row);                                          \
    } while (0)

/* out (n) = a * b. */
static FL_NOINLINE void FL_NAME(multiply_numbers)(ptrdiff_t n, const FL_REAL *a, const FL_REAL *b,
                                                  FL_REAL *out) {
#define FL_DO(j, n_) \
    FL_NAME(store)(out + (j), v_mul(FL_NAME(load)(a + (j), n_), FL_NAME(load)(b + (j), n_)), n_)
    FL_FOR_VECTORS_BY(FL_UNROLL_4, 0, n, FL_DO);
#undef FL_DO
}

/* dx (n), given the gradient of `normal` in it: factor * (dx - mean(dx) - normal *
 * mean(dx*normal)). products (n) is scratch. */
static void FL_NAME(normalise_backward)(ptrdiff_t n, const FL_REAL *normal, FL_REAL factor,
                                        FL_REAL *dx, FL_REAL *products) {
    FL_NAME(multiply_numbers)(n, dx, normal, products);
    const FL_REAL mean = FL_NAME(mean_of)(n, dx), slope = FL_NAME(mean_of)(n, products);
#define FL_DO(j, n_)                                                                \
    do {                                                                            \
        const vreal centred = v_sub(FL_NAME(load)(dx + (j), n_), v_set1(mean));     \
        const vreal along = v_mul(FL_NAME(load)(normal + (j), n_), v_set1(slope));  \
        FL_NAME(store)(dx + (j), v_mul(v_sub(centred, along), v_set1(factor)), n_); \
    } while (0)
    FL_FOR_VECTORS_BY(FL_UNROLL_4, 0, n, FL_DO);
#undef FL_DO
}

/* Calls DO(at, gate, unit, n) for the runs of n units that lie together in a row of pre-activations
 * with `panels` full panels: at `at` there, those from `unit` on of a gate. whole: there are no
 * others. */
#define FL_FOR_GATE_RUNS(H, G, panels, whole, DO)                          \
    for (ptrdiff_t first_ = 0, lanes_; first_ < (H); first_ += lanes_) {   \
        lanes_ = (whole) || first_ < (panels) * FL_V ? FL_V : FL_V / 2;    \
        for (ptrdiff_t gate_ = 0; gate_ < (G); gate_++)                    \
            DO(first_ * (G) + gate_ * lanes_, gate_, first_,               \
               (whole) || (H) - first_ >= lanes_ ? lanes_ : (H) - first_); \
    }

/* Where rows from `row` on go that are normalised, and how far they are apart: on the tape, or in
 * scratch of FL_NORM_ROWS rows. */
FL_INLINE FL_REAL *FL_NAME(normal_of)(const fl_norm *norm, ptrdiff_t row, ptrdiff_t n,
                                      ptrdiff_t *stride) {
    *stride = norm->factors ? norm->normal_stride : n;
    return (FL_REAL *)norm->normal + (norm->factors ? row * norm->normal_stride : 0);
}

FL_INLINE void FL_NAME(put_factors)(const int R, const fl_norm *norm, ptrdiff_t row,
                                    const FL_REAL *factors) {
    if (norm->factors == NULL) return;
    FL_UNROLL
    for (int r = 0; r < R; r++)
        ((FL_REAL *)norm->factors)[(row + r) * norm->normal_stride] = factors[r];
}

FL_INLINE void FL_NAME(norm_gates_of)(const int R, const int whole, const fl_norm *norm,
                                      ptrdiff_t row, ptrdiff_t panels, const FL_REAL *product,
                                      FL_REAL *z) {
    const ptrdiff_t H = norm->config->hidden_size, G = norm->config->coupled_gates ? 3 : 4;
    const FL_REAL *scale = norm->scale, *shift = norm->shift;
    const int keeps = norm->factors != NULL;
    FL_REAL centres[FL_NORM_ROWS], factors[FL_NORM_ROWS];
    ptrdiff_t stride;
    FL_REAL *normals = FL_NAME(normal_of)(norm, row, G * H, &stride);
    for (int r = 0; r < R; r++) {
        const FL_REAL *from = product + (row + r) * norm->z_stride;
        FL_REAL *normal = normals + r * stride;
#define FL_TAKE(at, gate, unit, n) \
    FL_NAME(store)(normal + (gate) * H + (unit), FL_NAME(load)(from + (at), n), n)
        FL_FOR_GATE_RUNS(H, G, panels, whole, FL_TAKE)
#undef FL_TAKE
    }
    FL_NAME(measure)(R, G * H, normals, stride, centres, factors);
    FL_NAME(put_factors)(R, norm, row, factors);
    for (int r = 0; r < R; r++) {
        const vreal centre = v_set1(centres[r]), factor = v_set1(factors[r]);
        FL_REAL *to = z + (row + r) * norm->z_stride, *normal = normals + r * stride;
#define FL_PUT(at, gate, unit, n)                                                         \
    do {                                                                                  \
        const ptrdiff_t k = (gate) * H + (unit);                                          \
        const vreal v = v_mul(v_sub(FL_NAME(load)(normal + k, n), centre), factor);       \
        const vreal more = FL_NAME(load)(shift ? shift + k : to + (at), n);               \
        if (keeps) FL_NAME(store)(normal + k, v, n);                                      \
        FL_NAME(store)(to + (at), v_add(v_mul(v, FL_NAME(load)(scale + k, n)), more), n); \
    } while (0)
        FL_FOR_GATE_RUNS(H, G, panels, whole, FL_PUT)
#undef FL_PUT
    }
}

static void FL_NAME(norm_gates)(const fl_norm *norm, ptrdiff_t panels, const void *product,
                                void *z) {
#define FL_DO(R, row) FL_NAME(norm_gates_of)(R, whole, norm, row, panels, product, z)
    if (norm->config->hidden_size == panels * FL_V) {
        enum { whole = 1 };
        FL_FOR_NORM_ROWS(norm->rows, FL_DO);
    } else {
        enum { whole = 0 };
        FL_FOR_NORM_ROWS(norm->rows, FL_DO);
    }
#undef FL_DO
}

FL_INLINE void FL_NAME(norm_cell_of)(const int R, const fl_norm *norm, ptrdiff_t row,
                                     const FL_REAL *o_rows, const FL_REAL *c_rows, FL_REAL *h_rows,
                                     ptrdiff_t h_stride) {
    const fl_config *config = norm->config;
    const fl_activation output = config->output_activation;
    const ptrdiff_t H = config->hidden_size;
    const FL_REAL *scale = norm->scale, *shift = norm->shift;
    FL_REAL centres[FL_NORM_ROWS], factors[FL_NORM_ROWS];
    FL_NAME(measure)(R, H, c_rows + row * H, H, centres, factors);
    FL_NAME(put_factors)(R, norm, row, factors);
    for (int r = 0; r < R; r++) {
        const vreal centre = v_set1(centres[r]), factor = v_set1(factors[r]);
        const FL_REAL *c = c_rows + (row + r) * H, *o = o_rows + (row + r) * H;
        FL_REAL *h = h_rows + (row + r) * h_stride;
        FL_REAL *normal =
            norm->factors ? (FL_REAL *)norm->normal + (row + r) * norm->normal_stride : NULL;
#define FL_DO(j, n)                                                                         \
    do {                                                                                    \
        const vreal v = v_mul(v_sub(FL_NAME(load)(c + (j), n), centre), factor);            \
        const vreal scaled = v_mul(v, FL_NAME(load)(scale + (j), n));                       \
        const vreal seen = v_add(scaled, FL_NAME(load)(shift + (j), n));                    \
        if (normal) FL_NAME(store)(normal + (j), v, n);                                     \
        const vreal active =                                                                \
            FL_LOW_OR(FL_IS_LOW(config), FL_NAME(activate_low)(config->bits, output, seen), \
                      FL_NAME(activate)(output, seen));                                     \
        FL_NAME(store)(h + (j), v_mul(FL_NAME(load)(o + (j), n), active), n);               \
    } while (0)
        FL_FOR_VECTORS(0, H, FL_DO);
#undef FL_DO
    }
}

static void FL_NAME(norm_cell)(const fl_norm *norm, const void *o, const void *c, void *h,
                               ptrdiff_t h_stride) {
#define FL_DO(R, row) FL_NAME(norm_cell_of)(R, norm, row, o, c, h, h_stride)
    FL_FOR_NORM_ROWS(norm->rows, FL_DO);
#undef FL_DO
}

static void FL_NAME(norm_gates_backward)(const fl_norm *norm, const void *dz_, void *terms_,
                                         void *out_) {
    const ptrdiff_t n = norm->config->hidden_size * (norm->config->coupled_gates ? 3 : 4);
    const FL_REAL *scale = norm->scale;
    for (ptrdiff_t row = 0; row < norm->rows; row++) {
        const FL_REAL *dz = (const FL_REAL *)dz_ + row * norm->z_stride;
        const FL_REAL *normal = (const FL_REAL *)norm->normal + row * norm->normal_stride;
        FL_REAL *terms = (FL_REAL *)terms_ + row * norm->z_stride;
        FL_REAL *out = (FL_REAL *)out_ + row * norm->z_stride;
        FL_NAME(multiply_numbers)(n, dz, scale, out);
        FL_NAME(normalise_backward)(
            n, normal, ((const FL_REAL *)norm->factors)[row * norm->normal_stride], out, terms);
        FL_NAME(multiply_numbers)(n, dz, normal, terms);
    }
}

static void FL_NAME(norm_cell_backward)(const fl_norm *norm, const void *o_, ptrdiff_t o_stride,
                                        const void *dh_, void *terms_, void *t_, void *dc_) {
    const fl_config *config = norm->config;
    const ptrdiff_t H = config->hidden_size;
    const FL_REAL *scale = norm->scale, *shift = norm->shift;
    for (ptrdiff_t row = 0; row < norm->rows; row++) {
        const FL_REAL *o = (const FL_REAL *)o_ + row * o_stride;
        const FL_REAL *dh = (const FL_REAL *)dh_ + row * H;
        const FL_REAL *normal = (const FL_REAL *)norm->normal + row * norm->normal_stride;
        FL_REAL *to_scale = (FL_REAL *)terms_ + row * norm->z_stride, *to_shift = to_scale + H;
        FL_REAL *t = (FL_REAL *)t_ + row * H, *dc = (FL_REAL *)dc_ + row * H;
#define FL_DO(j, n)                                                                                \
    do {                                                                                           \
        const vreal scaled = v_mul(FL_NAME(load)(normal + (j), n), FL_NAME(load)(scale + (j), n)); \
        const vreal seen = v_add(scaled, FL_NAME(load)(shift + (j), n));                           \
        const vreal y = FL_NAME(activate)(config->output_activation, seen);                        \
        const vreal slope = FL_NAME(slope)(config->output_activation, y);                          \
        const vreal to_h = v_mul(FL_NAME(load)(dh + (j), n), FL_NAME(load)(o + (j), n));           \
        FL_NAME(store)(t + (j), y, n);                                                             \
        FL_NAME(store)(to_shift + (j), v_mul(to_h, slope), n);                                     \
    } while (0)
        FL_FOR_VECTORS(0, H, FL_DO);
#undef FL_DO
        FL_NAME(multiply_numbers)(H, to_shift, scale, dc);
        FL_NAME(normalise_backward)(
            H, normal, ((const FL_REAL *)norm->factors)[row * norm->normal_stride], dc, to_scale);
        FL_NAME(multiply_numbers)(H, to_shift, normal, to_scale);
    }
}

#undef FL_FOR_GATE_RUNS
#undef FL_FOR_NORM_ROWS
#undef FL_IS_LOW
#undef FL_LOW_OR
