/* Names that depend on the precision, set anew for each: FL_DOUBLE is 0 (float) or 1 (double). */
#undef FL_REAL
#undef FL_BITS
#undef FL_SUFFIX
#undef FL_MANTISSA_BITS
#undef FL_EXPONENT_BIAS
#undef FL_SQRT

#if FL_DOUBLE
#define FL_REAL double
#define FL_BITS uint64_t
#define FL_SUFFIX _f64
#define FL_MANTISSA_BITS 52
#define FL_EXPONENT_BIAS 1023
#define FL_SQRT sqrt
#else
#define FL_REAL float
#define FL_BITS uint32_t
#define FL_SUFFIX _f32
#define FL_MANTISSA_BITS 23
#define FL_EXPONENT_BIAS 127
#define FL_SQRT sqrtf
#endif

/* What follows expands by the precision in force where it is used. */
#ifndef FL_NAME
#define FL_NAME(name) FL_CAT(name, FL_SUFFIX)

/* 1.5 * 2^FL_MANTISSA_BITS. Added to a number of small magnitude, it leaves the nearest integer in
 * the low bits of the mantissa; subtracted again, that integer as a real. */
#define FL_ROUND_MAGIC ((FL_REAL)(3 * ((int64_t)1 << (FL_MANTISSA_BITS - 1))))

/* The vocabulary: what every simd_*.h defines, for one precision at a time. Besides FL_V, the
 * number of lanes, all of it means the same everywhere, bit for bit:
 *
 *     vreal                         vector of FL_V reals
 *     v_set1(s)                     all lanes s
 *     v_load(p), v_store(p, a)      FL_V reals, any alignment
 *     v_load_n(p, n)                the first n reals, 1 <= n <= FL_V; the other lanes are 0
 *     v_store_n(p, a, n)            the first n lanes; memory beyond is not touched
 *     v_add v_sub v_mul v_div       one rounding
 *     v_fma(a, b, c)                a*b + c, one rounding
 *     v_fnma(a, b, c)               c - a*b, one rounding
 *     v_fnms(a, b, c)               -c - a*b, one rounding
 *     v_min(a, b), v_max(a, b)      the smaller, the larger; NaN when b is NaN (a never is)
 *     v_where_less(a, b, x, y)      x where a < b, else y
 *     v_abs(a), v_copysign(a, s)    |a|; |a| with the sign of s
 *     v_pow2(m)                     2^n for m = FL_ROUND_MAGIC + n; n from -127 to 128 (float) or
 *                                   -1023 to 1024 (double), of which the ends give 0 and infinity
 *     v_exponent(m)                 the same for m = FL_ROUND_MAGIC + FL_EXPONENT_BIAS + n
 */
#define vreal FL_NAME(vreal)
#define v_set1 FL_NAME(v_set1)
#define v_load FL_NAME(v_load)
#define v_store FL_NAME(v_store)
#define v_load_n FL_NAME(v_load_n)
#define v_store_n FL_NAME(v_store_n)
#define v_add FL_NAME(v_add)
#define v_sub FL_NAME(v_sub)
#define v_mul FL_NAME(v_mul)
#define v_div FL_NAME(v_div)
#define v_fma FL_NAME(v_fma)
#define v_fnma FL_NAME(v_fnma)
#define v_fnms FL_NAME(v_fnms)
#define v_min FL_NAME(v_min)
#define v_max FL_NAME(v_max)
#define v_where_less FL_NAME(v_where_less)
#define v_abs FL_NAME(v_abs)
#define v_copysign FL_NAME(v_copysign)
#define v_pow2 FL_NAME(v_pow2)
#define v_exponent FL_NAME(v_exponent)
#endif
