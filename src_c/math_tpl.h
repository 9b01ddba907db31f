/* Activations, written once. Sources: argument reduction by Cody and Waite (1980); coefficients by
 * the Remez algorithm, computed by minimax.py. No libm, no approximate reciprocals.
 */

/* expm1(r) for |r| <= ln(2)/2, relative error 2^-26.2 (float), 2^-55.6 (double) before rounding. */
FL_INLINE vreal FL_NAME(expm1_reduced)(vreal r) {
#if FL_DOUBLE
    static const double q[] = {
        0.50000000000000052,   0.16666666666666589,    0.041666666666576126,  0.0083333333333899475,
        0.0013888888931788921, 0.00019841269718360142, 2.4801504986654909e-5, 2.7557407856540126e-6,
        2.7626158172545182e-7, 2.5053776261712949e-8,
    };
#else
    static const float q[] = {
        0.499999981f, 0.166665432f, 0.0416672017f, 0.00836657877f, 0.00138825107f,
    };
#endif
    vreal sum = v_set1(q[sizeof q / sizeof q[0] - 1]);
    FL_UNROLL
    for (int k = (int)(sizeof q / sizeof q[0]) - 2; k >= 0; k--) sum = v_fma(sum, r, v_set1(q[k]));
    return v_fma(v_mul(r, r), sum, r);
}

/* x = n ln(2) + r with integer n and |r| <= ln(2)/2, for |x| <= 1030 ln(2) (double), 130 ln(2)
 * (float). Returns r; *scale = 2^n. ln(2) is high + low; high has so few bits that n*high is
 * exact. */
FL_INLINE vreal FL_NAME(reduce)(vreal x, vreal *scale) {
#if FL_DOUBLE
    const FL_REAL log2_e = 1.4426950408889634, high = 0x1.62e42fefa38p-1,
                  low = 0x1.ef35793c7673p-45;
#else
    const FL_REAL log2_e = 1.44269504f, high = 0x1.62e4p-1f, low = 0x1.7f7d1cp-20f;
#endif
    const vreal magic = v_set1(FL_ROUND_MAGIC);
    const vreal shifted = v_fma(x, v_set1(log2_e), magic);
    const vreal n = v_sub(shifted, magic);
    *scale = v_pow2(shifted);
    return v_fnma(n, v_set1(low), v_fnma(n, v_set1(high), x));
}

/* sigmoid(x) = 1 / (1 + exp(-x)). Keeps its relative accuracy down to the smallest normal number,
 * since exp(-x) does; exp(-x) = infinity gives exactly 0, exp(-x) < epsilon/2 exactly 1. */
FL_INLINE vreal FL_NAME(v_sigmoid)(vreal x) {
#if FL_DOUBLE
    const FL_REAL infinite = 710.0, zero = -709.0; /* exp of these is 2^1024 and below 2^-1022 */
#else
    const FL_REAL infinite = 89.0f, zero = -88.0f; /* exp of these is 2^128 and below 2^-126 */
#endif
    const vreal one = v_set1(1);
    const vreal minus_x = v_max(v_set1(zero), v_min(v_set1(infinite), v_sub(v_set1(0), x)));
    vreal scale;
    const vreal p = FL_NAME(expm1_reduced)(FL_NAME(reduce)(minus_x, &scale));
    return v_div(one, v_add(one, v_mul(scale, v_add(one, p))));
}

/* tanh(x) = sign(x) q / (2 - q), q = -expm1(-2|x|) in [0, 1]. expm1 and not exp, so that nothing
 * cancels near 0; odd by construction; q rounds to 1 when saturated. */
FL_INLINE vreal FL_NAME(v_tanh)(vreal x) {
#if FL_DOUBLE
    const FL_REAL saturated = -80.0;
#else
    const FL_REAL saturated = -40.0f;
#endif
    const vreal one = v_set1(1), two = v_set1(2);
    const vreal minus_2x = v_max(v_set1(saturated), v_mul(v_set1(-2), v_abs(x)));
    vreal scale;
    const vreal p = FL_NAME(expm1_reduced)(FL_NAME(reduce)(minus_2x, &scale));
    const vreal q = v_fnma(scale, p, v_sub(one, scale));
    return v_copysign(v_div(q, v_sub(two, q)), x);
}

/* y (n) = activation of x (n). */
#define FL_ELEMENTWISE(name, function)                                                     \
    static void FL_NAME(name)(ptrdiff_t n, const void *x_, void *y_) {                     \
        const FL_REAL *x = x_;                                                             \
        FL_REAL *y = y_;                                                                   \
        ptrdiff_t j = 0;                                                                   \
        for (; j + FL_V <= n; j += FL_V) v_store(y + j, FL_NAME(function)(v_load(x + j))); \
        if (j < n) v_store_n(y + j, FL_NAME(function)(v_load_n(x + j, n - j)), n - j);     \
    }
FL_ELEMENTWISE(apply_sigmoid, v_sigmoid)
FL_ELEMENTWISE(apply_tanh, v_tanh)
#undef FL_ELEMENTWISE
