/* Sums of products of digits in portable C, one unit at a time. See digits_tpl.h. */
#define FL_DIGIT_OFFSET 0
#define FL_DIGIT_ROWS(n, S, T) 1
#define FL_DIGIT_SPLIT(n, T) 1
#define FL_DIGITS_APART(n, T) 0

typedef int32_t vdots;
typedef const uint8_t *vfour;
typedef const int8_t *vweights;
typedef uint32_t vlargest;

FL_INLINE vdots d_zero(void) { return 0; }
FL_INLINE vdots d_add(vdots a, vdots b) { return a + b; }
FL_INLINE vfour d_four(const int n, const uint8_t *p) {
    (void)n;
    return p;
}
FL_INLINE vweights d_weights(const int n, const int8_t *p) {
    (void)n;
    return p;
}
FL_INLINE vdots d_dot(const int n, vdots sums, vfour four, vweights weights) {
    (void)n;
    for (int j = 0; j < 4; j++) sums += (int8_t)four[j] * weights[j];
    return sums;
}
FL_INLINE vreal d_real(vdots sums, const int32_t *starts) { return (float)(*starts + sums); }

FL_INLINE vlargest d_none(void) { return 0; }
FL_INLINE vlargest d_larger(vlargest largest, vreal x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits &= 0x7fffffffu;
    return bits > largest ? bits : largest;
}
FL_INLINE uint32_t d_largest(vlargest largest) { return largest; }

FL_INLINE void d_put(const int n, vreal x, uint8_t *p, ptrdiff_t apart) {
    const double magic = 0x1.8p52; /* the sum has the nearest integer in its lowest bits */
    const double rounded = ((double)x + magic) - magic;
    /* With half of 256 in place of each digit's sign, the digits are bytes. */
    const uint32_t q = (uint32_t)((int32_t)rounded + 0x808080);
    for (int i = 0; i < n; i++) p[i * apart] = (uint8_t)(q >> 8 * (n - 1 - i)) ^ 0x80;
}
