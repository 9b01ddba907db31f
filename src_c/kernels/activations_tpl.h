/* Cheaper activations, for layers of 8 and 16 bits: in float alone, written once. `bits` is a
 * constant wherever they are used; those of 24 bits are the ones of math_tpl.h.
 *
 *     sigmoid(x) = 1 / (1 + exp(-x))        tanh(x) = x P(x^2) / Q(x^2)
 *
 * Both are quotients, so that a cell takes two divisions. The exponential is within a part of
 * itself, and so are both tails of sigmoid: what an open forget gate loses and a closed input gate
 * lets in adds up over many steps. Coefficients by minimax_quantized.py.
 */
#if !FL_DOUBLE

/* 1 + exp(-x), the denominator of sigmoid. Within the bound on |x| nothing overflows, nor does a
 * product of two such; beyond, sigmoid is 1, or 1.5e-8 in place of less. */
FL_INLINE vreal FL_NAME(sigmoid_denominator)(const int bits, vreal x) {
    const FL_REAL log2_e = 1.44269504f, bound = 18.0f;
    const vreal clamped = v_max(v_set1(-bound), v_min(v_set1(bound), x));
    /* -x = (n + f) ln(2), |f| <= 1/2; 2^f = 1 + f * (c_1 + c_2 f + ...), which is exact at 0 and as
     * far off at 1/2 as at -1/2: pieces for different n meet. */
    const vreal magic = v_set1(FL_ROUND_MAGIC + FL_EXPONENT_BIAS);
    const vreal shifted = v_fma(clamped, v_set1(-log2_e), magic);
    const vreal f = v_fma(clamped, v_set1(-log2_e), v_sub(magic, shifted));
    vreal p;
    if (bits == 8) {
        p = v_fma(v_set1(0.0550089318f), f, v_set1(0.242210960f));
        p = v_fma(p, f, v_set1(0.693282927f));
    } else {
        p = v_fma(v_set1(0.00978616332f), f, v_set1(0.0559861684f));
        p = v_fma(p, f, v_set1(0.240206342f));
        p = v_fma(p, f, v_set1(0.693112272f));
    }
    p = v_fma(p, f, v_set1(1));
    return v_fma(p, v_exponent(shifted), v_set1(1));
}

/* tanh as a quotient: at the bound on |x| the two are equal to the bit, and nowhere is the
 * numerator larger. */
FL_INLINE vreal FL_NAME(tanh_quotient)(const int bits, vreal x, vreal *denominator) {
    const vreal bound = v_set1(bits == 8 ? 5.24124622f : 7.18968296f);
    const vreal clamped = v_max(v_sub(v_set1(0), bound), v_min(bound, x));
    const vreal y = v_mul(clamped, clamped);
    vreal p, q;
    if (bits == 8) {
        p = v_fma(v_set1(0.000631657042f), y, v_set1(0.100902911f));
        p = v_fma(p, y, v_set1(0.999755684f));
        q = v_fma(v_set1(0.0123986850f), y, v_set1(0.433548519f));
    } else {
        p = v_fma(v_set1(3.82132624e-6f), y, v_set1(0.00225371621f));
        p = v_fma(p, y, v_set1(0.122759462f));
        p = v_fma(p, y, v_set1(0.999994703f));
        q = v_fma(v_set1(0.000139834991f), y, v_set1(0.0209632586f));
        q = v_fma(q, y, v_set1(0.456074872f));
    }
    *denominator = v_fma(q, y, v_set1(1));
    return v_mul(clamped, p);
}

FL_INLINE vreal FL_NAME(low_sigmoid)(const int bits, vreal x) {
    return v_div(v_set1(1), FL_NAME(sigmoid_denominator)(bits, x));
}

FL_INLINE vreal FL_NAME(low_tanh)(const int bits, vreal x) {
    vreal denominator;
    const vreal numerator = FL_NAME(tanh_quotient)(bits, x, &denominator);
    return v_div(numerator, denominator);
}

/* sigmoid(x) * tanh(y). */
FL_INLINE vreal FL_NAME(low_sigmoid_tanh)(const int bits, vreal x, vreal y) {
    vreal denominator;
    const vreal numerator = FL_NAME(tanh_quotient)(bits, y, &denominator);
    return v_div(numerator, v_mul(FL_NAME(sigmoid_denominator)(bits, x), denominator));
}

/* sigmoid(f) * c + sigmoid(i) * tanh(g), over one denominator. Overflows beyond |c| = 5e28 where
 * both gates are closed. */
FL_INLINE vreal FL_NAME(low_state)(const int bits, vreal i, vreal f, vreal g, vreal c) {
    vreal denominator;
    const vreal numerator = FL_NAME(tanh_quotient)(bits, g, &denominator);
    const vreal of_f = FL_NAME(sigmoid_denominator)(bits, f);
    const vreal of_input = v_mul(FL_NAME(sigmoid_denominator)(bits, i), denominator);
    return v_div(v_fma(c, of_input, v_mul(numerator, of_f)), v_mul(of_input, of_f));
}

/* y (n) = activation of x (n). */
#define FL_ELEMENTWISE(name, function)                                                           \
    FL_INLINE void FL_NAME(name##_of)(const int bits, ptrdiff_t n, const float *x, float *y) {   \
        ptrdiff_t j = 0;                                                                         \
        for (; j + FL_V <= n; j += FL_V) v_store(y + j, FL_NAME(function)(bits, v_load(x + j))); \
        if (j < n) v_store_n(y + j, FL_NAME(function)(bits, v_load_n(x + j, n - j)), n - j);     \
    }                                                                                            \
    static void FL_NAME(name)(int bits, ptrdiff_t n, const float *x, float *y) {                 \
        if (bits == 8) FL_NAME(name##_of)(8, n, x, y);                                           \
        else FL_NAME(name##_of)(16, n, x, y);                                                    \
    }
FL_ELEMENTWISE(apply_low_sigmoid, low_sigmoid)
FL_ELEMENTWISE(apply_low_tanh, low_tanh)
#undef FL_ELEMENTWISE

/* The cell of a row of units: h (count), and c (count) in and out, of z (4, count). */
FL_INLINE void FL_NAME(low_cells)(const int bits, ptrdiff_t count, const float *z, float *c,
                                  float *h) {
#define FL_GATE(gate, j, n) FL_NAME(load)(z + (gate) * count + (j), n)
#define FL_DO(j, n)                                                                          \
    do {                                                                                     \
        const vreal next = FL_NAME(low_state)(bits, FL_GATE(0, j, n), FL_GATE(1, j, n),      \
                                              FL_GATE(2, j, n), FL_NAME(load)(c + (j), n));  \
        FL_NAME(store)(c + (j), next, n);                                                    \
        FL_NAME(store)(h + (j), FL_NAME(low_sigmoid_tanh)(bits, FL_GATE(3, j, n), next), n); \
    } while (0)
    FL_FOR_VECTORS(0, count, FL_DO);
#undef FL_DO
#undef FL_GATE
}

static void FL_NAME(apply_low_cell)(int bits, ptrdiff_t n, const float *z, float *c, float *h) {
    if (bits == 8) FL_NAME(low_cells)(8, n, z, c, h);
    else FL_NAME(low_cells)(16, n, z, c, h);
}
#endif
