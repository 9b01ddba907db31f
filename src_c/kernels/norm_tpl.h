/* Layer normalisation (Ba, Kiros and Hinton 2016), forward and backward, written once.
 *
 *     normal = (x - mean(x)) / sqrt(variance(x) + FL_NORM_EPSILON)
 *
 * over the G*H numbers of W x_t, over those of U h_{t-1}, and over the H of c~ on its way to h;
 * then each is scaled and shifted. A sum over n numbers is FL_NORM_LANES sums, one for each
 * remainder of the index, added up in order: the same on every instruction set, whatever V is.
 */

static FL_REAL FL_NAME(sum_lanes)(const FL_REAL *sums) {
    FL_REAL total = 0;
    for (int lane = 0; lane < FL_NORM_LANES; lane++) total += sums[lane];
    return total;
}

/* The sum of x (n), or of its squared distances from `centre`. */
static FL_REAL FL_NAME(sum_of)(ptrdiff_t n, const FL_REAL *x, FL_REAL centre, int squared) {
    FL_REAL sums[FL_NORM_LANES] = {0};
    ptrdiff_t j = 0;
    for (; j + FL_NORM_LANES <= n; j += FL_NORM_LANES)
        for (int lane = 0; lane < FL_NORM_LANES; lane++) {
            const FL_REAL d = x[j + lane] - centre;
            sums[lane] += squared ? d * d : d;
        }
    for (int lane = 0; j < n; j++, lane++) {
        const FL_REAL d = x[j] - centre;
        sums[lane] += squared ? d * d : d;
    }
    return FL_NAME(sum_lanes)(sums);
}

/* normal (n) of x (n), which may be the same; returns 1 / sqrt(variance + epsilon). */
static FL_REAL FL_NAME(normalise)(ptrdiff_t n, const FL_REAL *x, FL_REAL *normal) {
    const FL_REAL mean = FL_NAME(sum_of)(n, x, 0, 0) / (FL_REAL)n;
    const FL_REAL variance = FL_NAME(sum_of)(n, x, mean, 1) / (FL_REAL)n;
    const FL_REAL factor = 1 / (FL_REAL)sqrt((double)(variance + (FL_REAL)FL_NORM_EPSILON));
    for (ptrdiff_t j = 0; j < n; j++) normal[j] = (x[j] - mean) * factor;
    return factor;
}

/* dx (n), given the gradient of `normal` in it: factor * (dx - mean(dx) - normal *
 * mean(dx*normal)). products (n) is scratch. */
static void FL_NAME(normalise_backward)(ptrdiff_t n, const FL_REAL *normal, FL_REAL factor,
                                        FL_REAL *dx, FL_REAL *products) {
    for (ptrdiff_t j = 0; j < n; j++) products[j] = dx[j] * normal[j];
    const FL_REAL mean = FL_NAME(sum_of)(n, dx, 0, 0) / (FL_REAL)n;
    const FL_REAL slope = FL_NAME(sum_of)(n, products, 0, 0) / (FL_REAL)n;
    for (ptrdiff_t j = 0; j < n; j++) dx[j] = ((dx[j] - mean) - normal[j] * slope) * factor;
}

/* Calls DO(at, gate, unit, n) for the runs of n units that lie together in a row of pre-activations
 * with `panels` full panels: at `at` there, those from `unit` on of a gate. */
#define FL_FOR_GATE_RUNS(H, G, panels, DO)                               \
    for (ptrdiff_t first_ = 0, lanes_; first_ < (H); first_ += lanes_) { \
        lanes_ = first_ < (panels) * FL_V ? FL_V : FL_V / 2;             \
        for (ptrdiff_t gate_ = 0; gate_ < (G); gate_++)                  \
            DO(first_ * (G) + gate_ * lanes_, gate_, first_,             \
               (H) - first_ < lanes_ ? (H) - first_ : lanes_);           \
    }

static void FL_NAME(norm_gates)(const fl_norm *norm, ptrdiff_t panels, const void *product_,
                                void *z_) {
    const ptrdiff_t H = norm->config->hidden_size, G = norm->config->coupled_gates ? 3 : 4;
    const FL_REAL *scale = norm->scale, *shift = norm->shift;
    for (ptrdiff_t row = 0; row < norm->rows; row++) {
        const FL_REAL *product = (const FL_REAL *)product_ + row * norm->z_stride;
        FL_REAL *z = (FL_REAL *)z_ + row * norm->z_stride;
        FL_REAL *normal = (FL_REAL *)norm->normal + row * norm->normal_stride;
#define FL_TAKE(at, gate, unit, n) \
    for (ptrdiff_t j = 0; j < (n); j++) normal[(gate) * H + (unit) + j] = product[(at) + j]
#define FL_PUT(at, gate, unit, n)                                              \
    for (ptrdiff_t j = 0; j < (n); j++) {                                      \
        const ptrdiff_t k = (gate) * H + (unit) + j;                           \
        z[(at) + j] = normal[k] * scale[k] + (shift ? shift[k] : z[(at) + j]); \
    }
        FL_FOR_GATE_RUNS(H, G, panels, FL_TAKE)
        const FL_REAL factor = FL_NAME(normalise)(G * H, normal, normal);
        if (norm->factors) ((FL_REAL *)norm->factors)[row * norm->normal_stride] = factor;
        FL_FOR_GATE_RUNS(H, G, panels, FL_PUT)
#undef FL_TAKE
#undef FL_PUT
    }
}

static void FL_NAME(norm_cell)(const fl_norm *norm, const void *o_, const void *c_, void *h_,
                               ptrdiff_t h_stride) {
    const fl_config *config = norm->config;
    const ptrdiff_t H = config->hidden_size;
    const FL_REAL *scale = norm->scale, *shift = norm->shift;
    for (ptrdiff_t row = 0; row < norm->rows; row++) {
        const FL_REAL *o = (const FL_REAL *)o_ + row * H;
        FL_REAL *h = (FL_REAL *)h_ + row * h_stride;
        FL_REAL *normal = (FL_REAL *)norm->normal + row * norm->normal_stride;
        const FL_REAL factor = FL_NAME(normalise)(H, (const FL_REAL *)c_ + row * H, normal);
        if (norm->factors) ((FL_REAL *)norm->factors)[row * norm->normal_stride] = factor;
#define FL_DO(j, n)                                                                                \
    do {                                                                                           \
        const vreal scaled = v_mul(FL_NAME(load)(normal + (j), n), FL_NAME(load)(scale + (j), n)); \
        const vreal seen = v_add(scaled, FL_NAME(load)(shift + (j), n));                           \
        const vreal t = FL_NAME(activate)(config->output_activation, seen);                        \
        FL_NAME(store)(h + (j), v_mul(FL_NAME(load)(o + (j), n), t), n);                           \
    } while (0)
        FL_FOR_VECTORS(0, H, FL_DO);
#undef FL_DO
    }
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
        for (ptrdiff_t j = 0; j < n; j++) out[j] = dz[j] * scale[j];
        FL_NAME(normalise_backward)(
            n, normal, ((const FL_REAL *)norm->factors)[row * norm->normal_stride], out, terms);
        for (ptrdiff_t j = 0; j < n; j++) terms[j] = dz[j] * normal[j];
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
        for (ptrdiff_t j = 0; j < H; j++) dc[j] = to_shift[j] * scale[j];
        FL_NAME(normalise_backward)(
            H, normal, ((const FL_REAL *)norm->factors)[row * norm->normal_stride], dc, to_scale);
        for (ptrdiff_t j = 0; j < H; j++) to_scale[j] = to_shift[j] * normal[j];
    }
}

#undef FL_FOR_GATE_RUNS
