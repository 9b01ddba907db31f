/* What the vocabularies of sums of products on x86-64 have in common, which is digits of rows.
 * FL_WIDTH is 256 or 512, FL_DIGIT_OFFSET 0 or 128. See digits_tpl.h. */
#ifndef FL_I
/* _mm256_add_epi32 for FL_I(add_epi32), and so on by width. */
#define FL_I(op) FL_MM5(_mm, FL_WIDTH, _##op, , )
#define FL_I_BITS(op) FL_MM5(_mm, FL_WIDTH, _##op##_si, FL_WIDTH, )
#endif

typedef FL_MM_INT_T vlargest;

FL_INLINE vlargest d_none(void) { return FL_I_BITS(setzero)(); }
FL_INLINE vlargest d_larger(vlargest largest, vreal x) {
    const FL_MM_INT_T bits = FL_I_BITS(castps)(x);
    return FL_I(max_epi32)(largest, FL_I_BITS (and)(bits, FL_SET1_EPI32(0x7fffffff)));
}
FL_INLINE uint32_t d_largest(vlargest largest) {
#if FL_WIDTH == 512
    return (uint32_t)_mm512_reduce_max_epi32(largest);
#else
    __m128i four =
        _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
#endif
}

/* With half of 256 added to each digit, digits are bytes. */
FL_INLINE void d_put(const int n, vreal x, uint8_t *p, ptrdiff_t apart) {
    FL_MM_INT_T q = FL_I(add_epi32)(FL_I(cvtps_epi32)(x), FL_SET1_EPI32(0x808080));
#if FL_DIGIT_OFFSET == 0
    q = FL_I_BITS(xor)(q, FL_SET1_EPI32(0x808080));
#endif
#if FL_WIDTH == 512
    _mm_storeu_si128((__m128i *)(void *)(p + (n - 1) * apart), _mm512_cvtepi32_epi8(q));
    if (n > 1)
        _mm_storeu_si128((__m128i *)(void *)(p + (n - 2) * apart),
                         _mm512_cvtepi32_epi8(_mm512_srli_epi32(q, 8)));
    if (n > 2)
        _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(_mm512_srli_epi32(q, 16)));
#else
    /* Bytes of the same place in their number side by side. */
    const __m256i places = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m256i halves = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    q = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(q, places), halves);
    const __m128i low = _mm256_castsi256_si128(q);
    _mm_storel_epi64((__m128i *)(void *)(p + (n - 1) * apart), low);
    if (n > 1)
        _mm_storel_epi64((__m128i *)(void *)(p + (n - 2) * apart), _mm_unpackhi_epi64(low, low));
    if (n > 2) _mm_storel_epi64((__m128i *)(void *)p, _mm256_extracti128_si256(q, 1));
#endif
}
