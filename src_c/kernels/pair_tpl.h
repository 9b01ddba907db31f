/* One step of two rows with weights of their own, side by side: two directions of a layer, or two
 * layers of a stack. A tiny step is one long chain of operations that wait for each other, and a
 * processor looks ahead less than a step; so each operation is followed here by the other row's.
 *
 * A vocabulary of pairs: each operation is the single one on either half, and the activations of
 * math_tpl.h follow for pairs. This file comes last, since it changes FL_NAME. */
#undef FL_SUFFIX
#if FL_DOUBLE
#define FL_SUFFIX _f64_pair
#define FL_ONE(name) name##_f64
#else
#define FL_SUFFIX _f32_pair
#define FL_ONE(name) name##_f32
#endif

typedef struct vreal {
    FL_ONE(vreal) a, b;
} vreal;

#define FL_PAIR_OF_1(op) \
    FL_INLINE vreal v_##op(vreal x) { return (vreal){FL_ONE(v_##op)(x.a), FL_ONE(v_##op)(x.b)}; }
#define FL_PAIR_OF_2(op)                                                    \
    FL_INLINE vreal v_##op(vreal x, vreal y) {                              \
        return (vreal){FL_ONE(v_##op)(x.a, y.a), FL_ONE(v_##op)(x.b, y.b)}; \
    }
#define FL_PAIR_OF_3(op)                                                              \
    FL_INLINE vreal v_##op(vreal x, vreal y, vreal z) {                               \
        return (vreal){FL_ONE(v_##op)(x.a, y.a, z.a), FL_ONE(v_##op)(x.b, y.b, z.b)}; \
    }
FL_INLINE vreal v_set1(FL_REAL s) { return (vreal){FL_ONE(v_set1)(s), FL_ONE(v_set1)(s)}; }
FL_PAIR_OF_2(add)
FL_PAIR_OF_2(sub)
FL_PAIR_OF_2(mul)
FL_PAIR_OF_2(div)
FL_PAIR_OF_3(fma)
FL_PAIR_OF_3(fnma)
FL_PAIR_OF_3(fnms)
FL_PAIR_OF_2(min)
FL_PAIR_OF_2(max)
FL_PAIR_OF_1(abs)
FL_PAIR_OF_2(copysign)
FL_PAIR_OF_1(pow2)
#undef FL_PAIR_OF_1
#undef FL_PAIR_OF_2
#undef FL_PAIR_OF_3

#include "kernels/math_tpl.h"

/* n is FL_V, or what is left at the end of a row. */
FL_INLINE vreal FL_NAME(load)(const FL_REAL *a, const FL_REAL *b, ptrdiff_t n) {
    return (vreal){FL_ONE(load)(a, n), FL_ONE(load)(b, n)};
}
FL_INLINE void FL_NAME(store)(FL_REAL *a, FL_REAL *b, vreal x, ptrdiff_t n) {
    FL_ONE(store)(a, x.a, n);
    FL_ONE(store)(b, x.b, n);
}

static void FL_NAME(step)(ptrdiff_t first_panel, ptrdiff_t panels, ptrdiff_t H,
                          const fl_side *sides) {
    const FL_REAL *h_a = sides[0].h, *h_b = sides[1].h;
    for (ptrdiff_t panel = first_panel; panel < first_panel + panels; panel++) {
        const ptrdiff_t unit = panel * FL_V, n = H - unit < FL_V ? H - unit : FL_V;
        const FL_REAL *z_a = (const FL_REAL *)sides[0].z + panel * FL_PANEL;
        const FL_REAL *z_b = (const FL_REAL *)sides[1].z + panel * FL_PANEL;
        const FL_REAL *u_a = (const FL_REAL *)sides[0].u + panel * H * FL_PANEL;
        const FL_REAL *u_b = (const FL_REAL *)sides[1].u + panel * H * FL_PANEL;
        FL_REAL *c_a = (FL_REAL *)sides[0].c + unit, *c_b = (FL_REAL *)sides[1].c + unit;
        vreal acc[4];
        FL_UNROLL
        for (int gate = 0; gate < 4; gate++)
            acc[gate] = FL_NAME(load)(z_a + gate * FL_V, z_b + gate * FL_V, FL_V);
        for (ptrdiff_t k = 0; k < H; k++, u_a += FL_PANEL, u_b += FL_PANEL) {
            const vreal h = {FL_ONE(v_set1)(h_a[k]), FL_ONE(v_set1)(h_b[k])};
            FL_UNROLL
            for (int gate = 0; gate < 4; gate++)
                acc[gate] =
                    v_fma(h, FL_NAME(load)(u_a + gate * FL_V, u_b + gate * FL_V, FL_V), acc[gate]);
        }
        vreal c = FL_NAME(load)(c_a, c_b, n);
        const vreal h = FL_NAME(v_cell)(acc, &c);
        FL_NAME(store)(c_a, c_b, c, n);
        FL_NAME(store)((FL_REAL *)sides[0].h_out + unit, (FL_REAL *)sides[1].h_out + unit, h, n);
        if (sides[0].record == NULL) continue;
        FL_REAL *record_a = (FL_REAL *)sides[0].record + unit;
        FL_REAL *record_b = (FL_REAL *)sides[1].record + unit;
        const vreal recorded[5] = {FL_NAME(v_sigmoid)(acc[0]), FL_NAME(v_sigmoid)(acc[1]),
                                   FL_NAME(v_tanh)(acc[2]), FL_NAME(v_sigmoid)(acc[3]), c};
        FL_UNROLL
        for (int i = 0; i < 5; i++)
            FL_NAME(store)(record_a + i * H, record_b + i * H, recorded[i], n);
    }
}
#undef FL_ONE
