/* Vectors of one precision: REAL, with SQRT, BITS, an integer of its size, MAGNITUDE, all bits of
 * that but the sign, and FL_VECTORS(name) as the names of functions. */

/* By the bits of magnitudes, which are in the same order, NaN behind infinity: a comparison of
 * integers is one of many lanes, and needs no guess whether a number is negative. */
static REAL FL_VECTORS(largest)(ptrdiff_t n, const REAL *vector) {
    BITS largest = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        BITS bits;
        memcpy(&bits, vector + i, sizeof bits);
        bits &= MAGNITUDE;
        largest = bits > largest ? bits : largest;
    }
    REAL result;
    memcpy(&result, &largest, sizeof result);
    return result;
}

static void FL_VECTORS(add_squares)(ptrdiff_t n, const REAL *vector, double scale, double *sums) {
    for (ptrdiff_t start = 0; start < n; start += FL_SQUARES_LANES) {
        const ptrdiff_t rest = n - start, count = rest < FL_SQUARES_LANES ? rest : FL_SQUARES_LANES;
        for (ptrdiff_t i = 0; i < count; i++) {
            const double scaled = (double)vector[start + i] * scale;
            sums[i] += scaled * scaled;
        }
    }
}

/* A block at a time, so that each loop does one thing without branches while the block is warm.
 * Square roots are taken a vector at a time too, where they set no errno (-fno-math-errno): faster,
 * with the same bits. */
static void FL_VECTORS(adam)(const fl_adam *adam) {
    const REAL beta1 = (REAL)adam->beta1, rest1 = (REAL)(1 - adam->beta1);
    const REAL beta2 = (REAL)adam->beta2, rest2 = (REAL)(1 - adam->beta2);
    const REAL eps = (REAL)adam->eps, rate = (REAL)-adam->rate, keep = (REAL)adam->keep;
    const REAL correction = (REAL)adam->correction, decay = (REAL)adam->decay;
    REAL decayed[BLOCK];
    for (ptrdiff_t start = 0; start < adam->n; start += BLOCK) {
        const ptrdiff_t rest = adam->n - start, count = rest < BLOCK ? rest : BLOCK;
        REAL *restrict p = (REAL *)adam->p + start, *restrict m = (REAL *)adam->m + start;
        REAL *restrict v = (REAL *)adam->v + start;
        const REAL *g = (const REAL *)adam->g + start, *variance = v;
        if (adam->keep != 1)
            for (ptrdiff_t i = 0; i < count; i++) p[i] *= keep;
        if (adam->decay != 0) {
            for (ptrdiff_t i = 0; i < count; i++) decayed[i] = g[i] + p[i] * decay;
            g = decayed;
        }
        if (1 - adam->beta1 < 0.5)
            for (ptrdiff_t i = 0; i < count; i++) m[i] += (g[i] - m[i]) * rest1;
        else
            for (ptrdiff_t i = 0; i < count; i++) m[i] = g[i] - (g[i] - m[i]) * beta1;
        for (ptrdiff_t i = 0; i < count; i++) v[i] = v[i] * beta2 + g[i] * rest2 * g[i];
        if (adam->v_max != NULL) {
            REAL *restrict v_max = (REAL *)adam->v_max + start;
            for (ptrdiff_t i = 0; i < count; i++)
                v_max[i] = v_max[i] > v[i] || v_max[i] != v_max[i] ? v_max[i] : v[i];
            variance = v_max;
        }
        for (ptrdiff_t i = 0; i < count; i++)
            p[i] += m[i] * rate / (SQRT(variance[i]) / correction + eps);
    }
}
