/* Vocabulary of AVX2 with FMA (FL_WIDTH 256) and of AVX-512F (FL_WIDTH 512). See precision.h. */
#undef FL_V
#undef FL_PS
#undef FL_EPI
#define FL_V (FL_WIDTH / 8 / (ptrdiff_t)sizeof(FL_REAL))
#if FL_DOUBLE
#define FL_PS pd
#define FL_EPI epi64
#else
#define FL_PS ps
#define FL_EPI epi32
#endif

#ifndef FL_MM
#define FL_MM5_(a, b, c, d, e) a##b##c##d##e
#define FL_MM5(a, b, c, d, e) FL_MM5_(a, b, c, d, e)
#define FL_SI FL_CAT(si, FL_WIDTH)
#define FL_MM_INT_T FL_MM5(__m, FL_WIDTH, i, , )
/* _mm256_add_ps for FL_MM(add), _mm256_add_epi32 for FL_MM_EPI(add), _mm256_and_si256 for
 * FL_MM_SI(and), and so on by width and precision. */
#define FL_MM(op) FL_MM5(_mm, FL_WIDTH, _##op##_, FL_PS, )
#define FL_MM_EPI(op) FL_MM5(_mm, FL_WIDTH, _##op##_, FL_EPI, )
#define FL_MM_SI(op) FL_MM5(_mm, FL_WIDTH, _##op##_, FL_SI, )
#define FL_AS_INT(a) FL_MM5(_mm, FL_WIDTH, _cast, FL_PS, FL_CAT(_, FL_SI))(a)
#define FL_AS_REAL(a) FL_MM5(_mm, FL_WIDTH, _cast, FL_SI, FL_CAT(_, FL_PS))(a)

#if FL_WIDTH == 512
#define FL_SET1_EPI32(s) _mm512_set1_epi32(s)
#define FL_SET1_EPI64(s) _mm512_set1_epi64(s)
#else
#define FL_SET1_EPI32(s) _mm256_set1_epi32(s)
#define FL_SET1_EPI64(s) _mm256_set1_epi64x(s)
#endif
#endif

#if FL_WIDTH == 512
/* 32 registers: 24 accumulators, one panel of weights (4), one broadcast. For one row, the 4 chains
 * of a panel and what the processor begins of the next hide the latency, and sweeping by single
 * panels leaves the most in the L1 cache for the sweep back; from beyond the core's own caches,
 * several streams of weights at once are read faster than one. */
#define FL_TILE_ROWS 6
#define FL_TILE_PANELS 4
#define FL_GROUP_ALWAYS 0
#else
/* 16 registers: 12 accumulators, 3 broadcasts, one vector of weights. */
#define FL_TILE_ROWS 3
#define FL_TILE_PANELS 2
#define FL_GROUP_ALWAYS 1
#endif

#if FL_WIDTH == 512 && FL_DOUBLE
typedef __m512d vreal;
#elif FL_WIDTH == 512
typedef __m512 vreal;
#elif FL_DOUBLE
typedef __m256d vreal;
#else
typedef __m256 vreal;
#endif

FL_INLINE vreal v_set1(FL_REAL s) { return FL_MM(set1)(s); }
FL_INLINE vreal v_load(const FL_REAL *p) { return FL_MM(loadu)(p); }
FL_INLINE void v_store(FL_REAL *p, vreal a) { FL_MM(storeu)(p, a); }

#if FL_WIDTH == 512
FL_INLINE vreal v_load_n(const FL_REAL *p, ptrdiff_t n) {
    return FL_MM(maskz_loadu)((uint16_t)((1u << n) - 1), p);
}
FL_INLINE void v_store_n(FL_REAL *p, vreal a, ptrdiff_t n) {
    FL_MM(mask_storeu)(p, (uint16_t)((1u << n) - 1), a);
}
#else
/* A window of FL_V integers at the right place of this table selects the first n lanes. */
FL_INLINE __m256i FL_NAME(lane_mask)(ptrdiff_t n) {
    static const int32_t table[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
    const ptrdiff_t words = n * (ptrdiff_t)(sizeof(FL_REAL) / sizeof(int32_t));
    return _mm256_loadu_si256((const __m256i *)(const void *)(table + 8 - words));
}
FL_INLINE vreal v_load_n(const FL_REAL *p, ptrdiff_t n) {
    return FL_MM(maskload)(p, FL_NAME(lane_mask)(n));
}
FL_INLINE void v_store_n(FL_REAL *p, vreal a, ptrdiff_t n) {
    FL_MM(maskstore)(p, FL_NAME(lane_mask)(n), a);
}
#endif

FL_INLINE vreal v_add(vreal a, vreal b) { return FL_MM(add)(a, b); }
FL_INLINE vreal v_sub(vreal a, vreal b) { return FL_MM(sub)(a, b); }
FL_INLINE vreal v_mul(vreal a, vreal b) { return FL_MM(mul)(a, b); }
FL_INLINE vreal v_div(vreal a, vreal b) { return FL_MM(div)(a, b); }
FL_INLINE vreal v_fma(vreal a, vreal b, vreal c) { return FL_MM(fmadd)(a, b, c); }
FL_INLINE vreal v_fnma(vreal a, vreal b, vreal c) { return FL_MM(fnmadd)(a, b, c); }
FL_INLINE vreal v_fnms(vreal a, vreal b, vreal c) { return FL_MM(fnmsub)(a, b, c); }
FL_INLINE vreal v_min(vreal a, vreal b) { return FL_MM(min)(a, b); }
FL_INLINE vreal v_max(vreal a, vreal b) { return FL_MM(max)(a, b); }

FL_INLINE vreal v_where_less(vreal a, vreal b, vreal x, vreal y) {
#if FL_WIDTH == 512
    return FL_MM(mask_blend)(FL_MM5(_mm, FL_WIDTH, _cmp_, FL_PS, _mask)(a, b, _CMP_LT_OQ), y, x);
#else
    return FL_MM(blendv)(y, x, FL_MM(cmp)(a, b, _CMP_LT_OQ));
#endif
}

FL_INLINE FL_MM_INT_T FL_NAME(sign_bit)(void) {
#if FL_DOUBLE
    return FL_SET1_EPI64(INT64_MIN);
#else
    return FL_SET1_EPI32(INT32_MIN);
#endif
}
FL_INLINE vreal v_abs(vreal a) {
    return FL_AS_REAL(FL_MM_SI(andnot)(FL_NAME(sign_bit)(), FL_AS_INT(a)));
}
FL_INLINE vreal v_copysign(vreal a, vreal s) {
    const FL_MM_INT_T sign = FL_MM_SI (and)(FL_NAME(sign_bit)(), FL_AS_INT(s));
    return FL_AS_REAL(FL_MM_SI(or)(sign, FL_AS_INT(v_abs(a))));
}
FL_INLINE vreal v_pow2(vreal m) {
#if FL_DOUBLE
    const FL_MM_INT_T bias = FL_SET1_EPI64(FL_EXPONENT_BIAS);
#else
    const FL_MM_INT_T bias = FL_SET1_EPI32(FL_EXPONENT_BIAS);
#endif
    return FL_AS_REAL(FL_MM_EPI(slli)(FL_MM_EPI(add)(FL_AS_INT(m), bias), FL_MANTISSA_BITS));
}
FL_INLINE vreal v_exponent(vreal m) {
    return FL_AS_REAL(FL_MM_EPI(slli)(FL_AS_INT(m), FL_MANTISSA_BITS));
}
