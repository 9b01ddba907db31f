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
    /* Estrin's scheme: pairs, then pairs of pairs, so that the chain of roundings is short. */
    const vreal r2 = v_mul(r, r);
#define FL_PAIR(k) v_fma(v_set1(q[k + 1]), r, v_set1(q[k]))
#if FL_DOUBLE
    const vreal r4 = v_mul(r2, r2);
    const vreal upper = v_fma(FL_PAIR(8), r4, v_fma(FL_PAIR(6), r2, FL_PAIR(4)));
    const vreal sum = v_fma(upper, r4, v_fma(FL_PAIR(2), r2, FL_PAIR(0)));
#else
    const vreal sum = v_fma(v_fma(v_set1(q[4]), r2, FL_PAIR(2)), r2, FL_PAIR(0));
#endif
#undef FL_PAIR
    return v_fma(r2, sum, r);
}

/* -factor*x = n ln(2) + r with integer n and |r| <= ln(2)/2, factor 1 or 2. Returns r; *scale =
 * 2^n. ln(2) is high + low, and high has so few bits that n*high is exact for every n v_pow2 takes.
 */
FL_INLINE vreal FL_NAME(reduce_minus)(const int factor, vreal x, vreal *scale) {
#if FL_DOUBLE
    const FL_REAL log2_e = 1.4426950408889634, high = 0x1.62e42fefa38p-1,
                  low = 0x1.ef35793c7673p-45;
#else
    const FL_REAL log2_e = 1.44269504f, high = 0x1.62e4p-1f, low = 0x1.7f7d1cp-20f;
#endif
    const vreal magic = v_set1(FL_ROUND_MAGIC);
    const vreal shifted = v_fma(x, v_set1((FL_REAL)-factor * log2_e), magic);
    const vreal n = v_sub(shifted, magic), multiple = factor == 2 ? v_add(x, x) : x;
    *scale = v_pow2(shifted);
    return v_fnma(n, v_set1(low), v_fnms(n, v_set1(high), multiple));
}

/* exp(-x): 0 when too small for a normal number, infinity when too large. */
FL_INLINE vreal FL_NAME(v_exp_minus)(vreal x) {
#if FL_DOUBLE
    const FL_REAL infinite = -710.0, zero = 709.0; /* 2^1024 and less than 2^-1022 */
#else
    const FL_REAL infinite = -89.0f, zero = 88.0f; /* 2^128 and less than 2^-126 */
#endif
    const vreal clamped = v_max(v_set1(infinite), v_min(v_set1(zero), x));
    vreal scale;
    const vreal p = FL_NAME(expm1_reduced)(FL_NAME(reduce_minus)(1, clamped, &scale));
    return v_mul(scale, v_add(v_set1(1), p));
}

/* 1 - exp(-2|x|) in [0, 1], within an ulp or two of itself however small x is. */
FL_INLINE vreal FL_NAME(v_one_minus_exp)(vreal x) {
#if FL_DOUBLE
    const FL_REAL saturated = 40.0;
#else
    const FL_REAL saturated = 20.0f;
#endif
    const vreal size = v_min(v_set1(saturated), v_abs(x));
    vreal scale;
    const vreal p = FL_NAME(expm1_reduced)(FL_NAME(reduce_minus)(2, size, &scale));
    return v_fnma(scale, p, v_sub(v_set1(1), scale));
}

/* sigmoid(x) = 1 / (1 + e), e = exp(-x). Keeps its relative accuracy down to the smallest normal
 * number, since e does; e = infinity gives exactly 0, e < epsilon/2 exactly 1. */
FL_INLINE vreal FL_NAME(v_sigmoid)(vreal x) {
    const vreal one = v_set1(1);
    return v_div(one, v_add(one, FL_NAME(v_exp_minus)(x)));
}

/* tanh(x) = sign(x) q / (2 - q), q = 1 - exp(-2|x|). Computed as one number q, so that nothing
 * cancels near 0; odd by construction; q rounds to 1 when saturated. */
FL_INLINE vreal FL_NAME(v_tanh)(vreal x) {
    const vreal q = FL_NAME(v_one_minus_exp)(x);
    return v_copysign(v_div(q, v_sub(v_set1(2), q)), x);
}

/* sigmoid(x) * tanh(y) as one quotient, since division is what activations cost. Nothing overflows
 * that should not: an infinite denominator is a closed gate, and the product is 0. */
FL_INLINE vreal FL_NAME(v_sigmoid_tanh)(vreal x, vreal y) {
    const vreal one = v_set1(1), q = FL_NAME(v_one_minus_exp)(y);
    const vreal denominator = v_mul(v_add(one, FL_NAME(v_exp_minus)(x)), v_sub(v_set1(2), q));
    return v_copysign(v_div(q, denominator), y);
}

/* The cell, gates before activation in z (4): c = f * c + i * g, and returns h = o * tanh(c). */
FL_INLINE vreal FL_NAME(v_cell)(const vreal *z, vreal *c) {
    const vreal f = FL_NAME(v_sigmoid)(z[1]);
    const vreal input = FL_NAME(v_sigmoid_tanh)(z[0], z[2]); /* i * g */
    *c = v_fma(f, *c, input);
    return FL_NAME(v_sigmoid_tanh)(z[3], *c);
}
