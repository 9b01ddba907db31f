/* Sums of products of digits on arm64: by its instruction for them where FL_DOTPROD is 1, else
 * from products in 16 bits, two vectors of sums for four units. See digits_tpl.h. */
#define FL_DIGIT_OFFSET 0
#if FL_DOTPROD
/* 32 registers: up to 24 sums, the digits of the rows, one vector of weights. */
#define FL_DIGIT_ROWS(n, S, T) ((n) == 1 || (T) == 1 ? 4 : (S) == 2 ? 3 : 2)
#define FL_DIGITS_APART(n, T) 1
#define FL_DIGIT_SPLIT(n, T) ((n) == 1 ? 4 : (T) == 1 ? 2 : 1)
typedef int32x4_t vdots;

FL_INLINE vdots d_zero(void) { return vdupq_n_s32(0); }
FL_INLINE vdots d_add(vdots a, vdots b) { return vaddq_s32(a, b); }
#else
#define FL_DIGIT_ROWS(n, S, T) ((n) == 1 || (T) == 1 ? 2 : 1)
#define FL_DIGITS_APART(n, T) 0
#define FL_DIGIT_SPLIT(n, T) 1
typedef struct vdots {
    int32x4_t low, high; /* of units 0 and 1, and 2 and 3: columns 0 and 1, and 2 and 3, of each */
} vdots;

FL_INLINE vdots d_zero(void) { return (vdots){vdupq_n_s32(0), vdupq_n_s32(0)}; }
FL_INLINE vdots d_add(vdots a, vdots b) {
    return (vdots){vaddq_s32(a.low, b.low), vaddq_s32(a.high, b.high)};
}
#endif
typedef int8x16_t vfour;
typedef int8x16_t vweights;
typedef uint32x4_t vlargest;

FL_INLINE vfour d_four(const int n, const uint8_t *p) {
    int32_t four;
    (void)n;
    memcpy(&four, p, sizeof four);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
}
FL_INLINE vweights d_weights(const int n, const int8_t *p) {
    (void)n;
    return vld1q_s8(p);
}
FL_INLINE vdots d_dot(const int n, vdots sums, vfour four, vweights weights) {
    (void)n;
#if FL_DOTPROD && defined(__clang__) && !defined(__ARM_FEATURE_DOTPROD)
    /* Before version 16, Clang hides the intrinsic unless the whole file is for such processors. */
    __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(sums) : "w"(weights), "w"(four));
    return sums;
#elif FL_DOTPROD
    return vdotq_s32(sums, weights, four);
#else
    const int16x8_t low = vmull_s8(vget_low_s8(weights), vget_low_s8(four));
    const int16x8_t high = vmull_high_s8(weights, four);
    return (vdots){vpadalq_s16(sums.low, low), vpadalq_s16(sums.high, high)};
#endif
}
FL_INLINE vreal d_real(vdots sums, const int32_t *starts) {
    (void)starts; /* 0, since the digits of rows have no offset */
#if FL_DOTPROD
    return vcvtq_f32_s32(sums);
#else
    return vcvtq_f32_s32(vpaddq_s32(sums.low, sums.high));
#endif
}

FL_INLINE vlargest d_none(void) { return vdupq_n_u32(0); }
FL_INLINE vlargest d_larger(vlargest largest, vreal x) {
    return vmaxq_u32(largest, vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x7fffffff)));
}
FL_INLINE uint32_t d_largest(vlargest largest) { return vmaxvq_u32(largest); }

/* With half of 256 in place of each digit's sign, digits are bytes. */
FL_INLINE void d_put(const int n, vreal x, uint8_t *p, ptrdiff_t apart) {
    static const uint8_t places[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
    const int32x4_t half = vdupq_n_s32(0x808080);
    const int32x4_t q = veorq_s32(vaddq_s32(vcvtnq_s32_f32(x), half), half);
    const uint32x4_t digits =
        vreinterpretq_u32_u8(vqtbl1q_u8(vreinterpretq_u8_s32(q), vld1q_u8(places)));
    const uint32_t first = vgetq_lane_u32(digits, 0), second = vgetq_lane_u32(digits, 1),
                   third = vgetq_lane_u32(digits, 2);
    memcpy(p + (n - 1) * apart, &first, sizeof first);
    if (n > 1) memcpy(p + (n - 2) * apart, &second, sizeof second);
    if (n > 2) memcpy(p, &third, sizeof third);
}
#undef FL_DOTPROD
