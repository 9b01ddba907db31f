/* Vocabulary of arm64's Advanced SIMD (NEON), 128 bits. See precision.h. */
#undef FL_V
#undef FL_LANE
#define FL_V (16 / (ptrdiff_t)sizeof(FL_REAL))
#if FL_DOUBLE
#define FL_LANE f64
#else
#define FL_LANE f32
#endif

#ifndef FL_Q
/* vaddq_f32 for FL_Q(add), vdupq_n_f32 for FL_QN(dup), and so on by precision. */
#define FL_Q(op) FL_CAT(v##op##q_, FL_LANE)
#define FL_QN(op) FL_CAT(v##op##q_n_, FL_LANE)
/* 32 registers: 24 accumulators, one panel of weights (4), one broadcast. */
#define FL_TILE_ROWS 6
#define FL_TILE_PANELS 4
#define FL_GROUP_ALWAYS 1
#endif

#if FL_DOUBLE
typedef float64x2_t vreal;
#else
typedef float32x4_t vreal;
#endif

FL_INLINE vreal v_set1(FL_REAL s) { return FL_QN(dup)(s); }
FL_INLINE vreal v_load(const FL_REAL *p) { return FL_Q(ld1)(p); }
FL_INLINE void v_store(FL_REAL *p, vreal a) { FL_Q(st1)(p, a); }
FL_INLINE vreal v_load_n(const FL_REAL *p, ptrdiff_t n) {
    FL_REAL lanes[16 / sizeof(FL_REAL)] = {0};
    for (ptrdiff_t j = 0; j < n; j++) lanes[j] = p[j];
    return v_load(lanes);
}
FL_INLINE void v_store_n(FL_REAL *p, vreal a, ptrdiff_t n) {
    FL_REAL lanes[16 / sizeof(FL_REAL)];
    v_store(lanes, a);
    for (ptrdiff_t j = 0; j < n; j++) p[j] = lanes[j];
}
FL_INLINE vreal v_add(vreal a, vreal b) { return FL_Q(add)(a, b); }
FL_INLINE vreal v_sub(vreal a, vreal b) { return FL_Q(sub)(a, b); }
FL_INLINE vreal v_mul(vreal a, vreal b) { return FL_Q(mul)(a, b); }
FL_INLINE vreal v_div(vreal a, vreal b) { return FL_Q(div)(a, b); }
FL_INLINE vreal v_fma(vreal a, vreal b, vreal c) { return FL_Q(fma)(c, a, b); }
FL_INLINE vreal v_fnma(vreal a, vreal b, vreal c) { return FL_Q(fms)(c, a, b); }
FL_INLINE vreal v_fnms(vreal a, vreal b, vreal c) { return FL_Q(neg)(FL_Q(fma)(c, a, b)); }
FL_INLINE vreal v_min(vreal a, vreal b) { return FL_Q(min)(a, b); }
FL_INLINE vreal v_max(vreal a, vreal b) { return FL_Q(max)(a, b); }
FL_INLINE vreal v_where_less(vreal a, vreal b, vreal x, vreal y) {
    return FL_Q(bsl)(FL_Q(clt)(a, b), x, y);
}
FL_INLINE vreal v_abs(vreal a) { return FL_Q(abs)(a); }
#if FL_DOUBLE
FL_INLINE vreal v_copysign(vreal a, vreal s) {
    return vbslq_f64(vdupq_n_u64((uint64_t)1 << 63), s, a);
}
FL_INLINE vreal v_pow2(vreal m) {
    const int64x2_t biased = vaddq_s64(vreinterpretq_s64_f64(m), vdupq_n_s64(FL_EXPONENT_BIAS));
    return vreinterpretq_f64_s64(vshlq_n_s64(biased, FL_MANTISSA_BITS));
}
FL_INLINE vreal v_exponent(vreal m) {
    return vreinterpretq_f64_s64(vshlq_n_s64(vreinterpretq_s64_f64(m), FL_MANTISSA_BITS));
}
#else
FL_INLINE vreal v_copysign(vreal a, vreal s) {
    return vbslq_f32(vdupq_n_u32((uint32_t)1 << 31), s, a);
}
FL_INLINE vreal v_pow2(vreal m) {
    const int32x4_t biased = vaddq_s32(vreinterpretq_s32_f32(m), vdupq_n_s32(FL_EXPONENT_BIAS));
    return vreinterpretq_f32_s32(vshlq_n_s32(biased, FL_MANTISSA_BITS));
}
FL_INLINE vreal v_exponent(vreal m) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vreinterpretq_s32_f32(m), FL_MANTISSA_BITS));
}
#endif
