/* Sums of products of digits by VNNI: four products of an unsigned and a signed byte, added to 32
 * bits. FL_WIDTH 512: AVX512-VNNI; 256: AVX-VNNI. See digits_tpl.h. */
#define FL_DIGIT_OFFSET 128
#if FL_WIDTH == 512
/* 32 registers: up to 24 sums, the digits of the rows, one vector of weights. Sums take five cycles
 * and two begin in each. */
#define FL_DIGIT_ROWS(n, S, T) ((n) == 1 || (T) == 1 ? 4 : (S) == 2 ? 3 : 2)
#define FL_DIGITS_APART(n, T) 1
#define FL_DIGIT_SPLIT(n, T) ((n) == 1 ? 4 : (T) == 1 ? 2 : 1)
#define FL_DPBUSD _mm512_dpbusd_epi32
#else
/* 16 registers: up to 12 sums. */
#define FL_DIGIT_ROWS(n, S, T) ((T) == 1 ? ((n) == 1 ? 4 : 2) : (n) == 1 ? 3 : 1)
#define FL_DIGITS_APART(n, T) ((T) == 1)
#define FL_DIGIT_SPLIT(n, T) ((n) == 1 ? ((T) == 1 ? 4 : 2) : 1)
#define FL_DPBUSD _mm256_dpbusd_avx_epi32
#endif
#include "kernels/x86/rows_x86.h"

typedef FL_MM_INT_T vdots;
typedef FL_MM_INT_T vfour;
typedef FL_MM_INT_T vweights;

FL_INLINE vdots d_zero(void) { return FL_I_BITS(setzero)(); }
FL_INLINE vdots d_add(vdots a, vdots b) { return FL_I(add_epi32)(a, b); }
FL_INLINE vfour d_four(const int n, const uint8_t *p) {
    int32_t four;
    (void)n;
    memcpy(&four, p, sizeof four);
    return FL_SET1_EPI32(four);
}
FL_INLINE vweights d_weights(const int n, const int8_t *p) {
    (void)n;
    return FL_I_BITS(loadu)((const FL_MM_INT_T *)(const void *)p);
}
FL_INLINE vdots d_dot(const int n, vdots sums, vfour four, vweights weights) {
    (void)n;
#if !defined(__GNUC__) || defined(__clang__)
    return FL_DPBUSD(sums, four, weights);
#elif FL_WIDTH == 512 /* of its own function GCC makes copies of sums, and runs out of registers \
                       */
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(four), "v"(weights));
    return sums;
#else
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums) : "x"(four), "xm"(weights));
    return sums;
#endif
}
FL_INLINE vreal d_real(vdots sums, const int32_t *starts) {
    const FL_MM_INT_T all = FL_I_BITS(loadu)((const FL_MM_INT_T *)(const void *)starts);
    return FL_I(cvtepi32_ps)(FL_I(add_epi32)(all, sums));
}
#undef FL_DPBUSD
