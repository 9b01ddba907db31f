/* All kernels of one instruction set in both precisions, and their table.
 *
 * The including file defines FL_ISA (its name, a bare word) and FL_VOCABULARY (a simd_*.h); and
 * FL_HALF, the name of an instruction set with half the lanes, where every machine has that too.
 */
#include <stddef.h>

#define FL_STRING_(word) #word
#define FL_STRING(word) FL_STRING_(word)

#define FL_DOUBLE 0
#include "kernels/all_tpl.h"
#define FL_DOUBLE 1
#include "kernels/all_tpl.h"

#ifdef FL_HALF
extern const fl_kernels FL_CAT(fl_kernels_, FL_HALF)[2];
#define FL_HALF_TABLE(type_) (&FL_CAT(fl_kernels_, FL_HALF)[type_])
#else
#define FL_HALF_TABLE(type_) NULL
#endif
/* There are no doubles of 8 or 16 bits. */
#define apply_low_sigmoid_f64 NULL
#define apply_low_tanh_f64 NULL
#define apply_low_cell_f64 NULL
#define FL_TABLE(type_, real, suffix)                               \
    {                                                               \
        .isa = FL_STRING(FL_ISA),                                   \
        .dtype = type_,                                             \
        .lanes = FL_CAT(lanes, suffix),                             \
        .real_bytes = sizeof(real),                                 \
        .half = FL_HALF_TABLE(type_),                               \
        .pack_weights = FL_CAT(pack_weights, suffix),               \
        .pack_bias = FL_CAT(pack_bias, suffix),                     \
        .product = FL_CAT(product, suffix),                         \
        .step = FL_CAT(step, suffix),                               \
        .step_pair = FL_CAT(FL_CAT(step, suffix), _pair),           \
        .variant_step = FL_CAT(variant_step, suffix),               \
        .cell_backward = FL_CAT(cell_backward, suffix),             \
        .variant_backward = FL_CAT(variant_backward, suffix),       \
        .hidden = FL_CAT(hidden, suffix),                           \
        .pack_columns = FL_CAT(pack_columns, suffix),               \
        .multiply = FL_CAT(multiply, suffix),                       \
        .add_outer = FL_CAT(add_outer, suffix),                     \
        .add_rows = FL_CAT(add_rows, suffix),                       \
        .put_rows = FL_CAT(put_rows, suffix),                       \
        .softmax = FL_CAT(softmax, suffix),                         \
        .norm_gates = FL_CAT(norm_gates, suffix),                   \
        .norm_cell = FL_CAT(norm_cell, suffix),                     \
        .norm_gates_backward = FL_CAT(norm_gates_backward, suffix), \
        .norm_cell_backward = FL_CAT(norm_cell_backward, suffix),   \
        .mask_rows = FL_CAT(mask_rows, suffix),                     \
        .mix_rows = FL_CAT(mix_rows, suffix),                       \
        .sigmoid = FL_CAT(apply_sigmoid, suffix),                   \
        .tanh = FL_CAT(apply_tanh, suffix),                         \
        .low_sigmoid = FL_CAT(apply_low_sigmoid, suffix),           \
        .low_tanh = FL_CAT(apply_low_tanh, suffix),                 \
        .low_cell = FL_CAT(apply_low_cell, suffix),                 \
        .limit_fma = FL_CAT(limit_fma, suffix),                     \
        .limit_read = FL_CAT(limit_read, suffix),                   \
    }
const fl_kernels FL_CAT(fl_kernels_, FL_ISA)[2] = {
    FL_TABLE(FL_FLOAT32, float, _f32),
    FL_TABLE(FL_FLOAT64, double, _f64),
};

#undef FL_STRING_
#undef FL_STRING
#undef FL_HALF_TABLE
#undef apply_low_sigmoid_f64
#undef apply_low_tanh_f64
#undef apply_low_cell_f64
#undef FL_TABLE
