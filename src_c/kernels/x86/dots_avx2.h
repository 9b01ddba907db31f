/* Sums of products of digits without an instruction of their own: AVX2's products of 8 bits are
 * added in pairs in 16, where the sum may be too large, so that all but 8-bit layers take those of
 * 16 bits. See digits_tpl.h. */
#define FL_DIGIT_OFFSET 0
#define FL_DIGIT_ROWS(n, S, T) ((n) == 1 ? ((T) == 1 ? 4 : 2) : 1)
#define FL_DIGITS_APART(n, T) 0
#define FL_DIGIT_SPLIT(n, T) 1
#include "kernels/x86/rows_x86.h"

typedef __m256i vdots;
/* Columns 0 and 2 of each unit, in 16 bits, and columns 1 and 3; or, with one digit, the bytes, and
 * of weights their magnitudes: two products with a magnitude of at most 127 on one side fit 16
 * bits. */
typedef struct vfour {
    __m256i even, odd;
} vfour;
typedef vfour vweights;

FL_INLINE vdots d_zero(void) { return _mm256_setzero_si256(); }
FL_INLINE vdots d_add(vdots a, vdots b) { return _mm256_add_epi32(a, b); }
FL_INLINE vfour FL_DIGITS(d_wide)(__m256i bytes) {
    return (vfour){_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8), _mm256_srai_epi16(bytes, 8)};
}
FL_INLINE vfour d_four(const int n, const uint8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    const __m256i bytes = _mm256_set1_epi32(four);
    return n == 1 ? (vfour){bytes, bytes} : FL_DIGITS(d_wide)(bytes);
}
FL_INLINE vweights d_weights(const int n, const int8_t *p) {
    const __m256i bytes = _mm256_loadu_si256((const __m256i *)(const void *)p);
    return n == 1 ? (vfour){bytes, _mm256_abs_epi8(bytes)} : FL_DIGITS(d_wide)(bytes);
}
FL_INLINE vdots d_dot(const int n, vdots sums, vfour four, vweights weights) {
    if (n == 1) {
        const __m256i signs = _mm256_sign_epi8(four.even, weights.even);
        const __m256i pairs = _mm256_maddubs_epi16(weights.odd, signs);
        return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    const __m256i even = _mm256_madd_epi16(four.even, weights.even);
    const __m256i odd = _mm256_madd_epi16(four.odd, weights.odd);
    return _mm256_add_epi32(sums, _mm256_add_epi32(even, odd));
}
FL_INLINE vreal d_real(vdots sums, const int32_t *starts) {
    (void)starts; /* 0, since the digits of rows have no offset */
    return _mm256_cvtepi32_ps(sums);
}
