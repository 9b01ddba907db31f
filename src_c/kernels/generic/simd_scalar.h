/* Vocabulary of one lane: portable C with explicit fused multiply-adds. See precision.h. */
#include <math.h>
#include <string.h>

#undef FL_V
#undef FL_TILE_ROWS
#undef FL_TILE_PANELS
#undef FL_GROUP_ALWAYS
#undef FL_LIBM

#define FL_V 1
#define FL_TILE_ROWS 2
#define FL_TILE_PANELS 2
#define FL_GROUP_ALWAYS 1
#if FL_DOUBLE
#define FL_LIBM(name) name
#else
#define FL_LIBM(name) name##f
#endif

typedef FL_REAL vreal;

FL_INLINE vreal v_set1(FL_REAL s) { return s; }
FL_INLINE vreal v_load(const FL_REAL *p) { return *p; }
FL_INLINE void v_store(FL_REAL *p, vreal a) { *p = a; }
FL_INLINE vreal v_load_n(const FL_REAL *p, ptrdiff_t n) {
    (void)n;
    return *p;
}
FL_INLINE void v_store_n(FL_REAL *p, vreal a, ptrdiff_t n) {
    (void)n;
    *p = a;
}
FL_INLINE vreal v_add(vreal a, vreal b) { return a + b; }
FL_INLINE vreal v_sub(vreal a, vreal b) { return a - b; }
FL_INLINE vreal v_mul(vreal a, vreal b) { return a * b; }
FL_INLINE vreal v_div(vreal a, vreal b) { return a / b; }
FL_INLINE vreal v_fma(vreal a, vreal b, vreal c) { return FL_LIBM(fma)(a, b, c); }
FL_INLINE vreal v_fnma(vreal a, vreal b, vreal c) { return FL_LIBM(fma)(-a, b, c); }
FL_INLINE vreal v_fnms(vreal a, vreal b, vreal c) { return FL_LIBM(fma)(-a, b, -c); }
FL_INLINE vreal v_min(vreal a, vreal b) { return a < b ? a : b; }
FL_INLINE vreal v_max(vreal a, vreal b) { return a > b ? a : b; }
FL_INLINE vreal v_where_less(vreal a, vreal b, vreal x, vreal y) { return a < b ? x : y; }
FL_INLINE vreal v_abs(vreal a) { return FL_LIBM(fabs)(a); }
FL_INLINE vreal v_copysign(vreal a, vreal s) { return FL_LIBM(copysign)(a, s); }
FL_INLINE vreal v_pow2(vreal m) {
    FL_BITS bits;
    memcpy(&bits, &m, sizeof bits);
    bits = (FL_BITS)(bits + FL_EXPONENT_BIAS) << FL_MANTISSA_BITS;
    memcpy(&m, &bits, sizeof bits);
    return m;
}
FL_INLINE vreal v_exponent(vreal m) {
    FL_BITS bits;
    memcpy(&bits, &m, sizeof bits);
    bits <<= FL_MANTISSA_BITS;
    memcpy(&m, &bits, sizeof bits);
    return m;
}
