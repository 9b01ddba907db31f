/* A packed model, as the drivers see it. */
#ifndef FL_MODEL_H
#define FL_MODEL_H

#include <stddef.h>

#include "fastlstm.h"
#include "kernels/digits.h"
#include "kernels/kernels.h"

/* The parameters of one layer in one direction. NULL: the model has none. */
typedef struct fl_direction {
    ptrdiff_t input_size;  /* I_l */
    const void *w;         /* (panels, I_l, G, V) */
    const void *u;         /* (panels, P, G, V) */
    const void *bias;      /* (panels, G, V) */
    const void *peepholes; /* (panels, G, V), those of g 0 */
    const void *norm; /* scales of W x and U h (G*H each) and c~ (H), shifts of c~ (H), z (G*H) */
    const void *projection; /* columns of W_hr^T (H, P), packed as fl_kernels.multiply takes them */
    fl_digits w_digits, u_digits, projection_digits; /* of a quantised model, in place of the three;
                                                        but where W is of reals, w is there */
} fl_direction;

/* z of a chunk of time takes about so many bytes, so that it is still in a core's cache when it is
 * read. */
enum { FL_CHUNK_BYTES = 128 * 1024 };

struct fl_model {
    fl_config config; /* activations are named: none is FL_USUAL */
    const fl_kernels *kernels;
    const fl_digit_kernels *digits; /* of a quantised model, or NULL */
    ptrdiff_t panels;               /* of V units each */
    const fl_kernels *narrow;       /* has the remaining units in one panel of its own, or NULL */
    ptrdiff_t z_row;       /* reals of a row of pre-activations, G for each unit and padding */
    ptrdiff_t output_size; /* P */
    ptrdiff_t record_size; /* R, reals of a record on the tape */
    int is_variant;        /* whether its cells are fl_kernels.variant_step's */
    int is_general;        /* whether its steps are fl_step_general's */
    int needs_rows;        /* whether a step goes on after its cells, with whole rows */
    ptrdiff_t near_bytes;  /* as in fl_kernels */
    ptrdiff_t left_bytes;  /* of these, what U and z of a usual chunk leave to W */
    size_t bytes;          /* of the whole model */
    void *packed;          /* all packed parameters, one block */
    /* Of a quantised model: */
    ptrdiff_t digit_row;       /* bytes of a row quantised for any of its products, at most */
    const float *zeros;        /* (panels, V), what a projection starts from */
    fl_direction directions[]; /* L*D of them, index l*D + d */
};

/* G, gates with parameters; those with peepholes; G*H. */
static inline ptrdiff_t fl_config_gates(const fl_config *config) {
    return config->coupled_gates ? 3 : 4;
}
static inline ptrdiff_t fl_config_peepholes(const fl_config *config) {
    return config->has_peepholes ? fl_config_gates(config) - 1 : 0;
}

static inline ptrdiff_t fl_config_gate_columns(const fl_config *config) {
    return fl_config_gates(config) * config->hidden_size;
}

/* Scales and shifts of layer normalisation that are parameters. */
static inline ptrdiff_t fl_config_norm_size(const fl_config *config) {
    return config->layer_norm ? (2 * fl_config_gates(config) + 2) * config->hidden_size : 0;
}

/* P. */
static inline ptrdiff_t fl_config_output_size(const fl_config *config) {
    return config->proj_size ? config->proj_size : config->hidden_size;
}

/* Whether direction d runs from the last step to the first. */
static inline int fl_config_is_reverse(const fl_config *config, ptrdiff_t d) {
    return d == 1 || config->reverse;
}

/* Bytes of a packed matrix of K columns for all gates, as most of a model's are. */
static inline ptrdiff_t fl_model_matrix_bytes(const fl_model *model, ptrdiff_t K) {
    return model->z_row * K *
           (model->digits ? model->config.bits / 8 : (ptrdiff_t)model->kernels->real_bytes);
}

/* Whether a core's own caches are too small for all of a model. */
static inline int fl_model_is_far(const fl_model *model) {
    return model->bytes > (size_t)model->near_bytes;
}

/* Stages of a forward step: none begins before the one before has all its units. */
static inline int fl_model_stages(const fl_model *model, int masks_h) {
    return 1 + model->needs_rows + 3 * (model->config.layer_norm != 0) + masks_h;
}

/* Which panels of a layer to work on: some of model->panels, and perhaps the narrow one, which
 * follows them all. */
typedef struct fl_panels {
    ptrdiff_t first, count;
    int narrow;
} fl_panels;

static inline fl_panels fl_panels_all(const fl_model *model) {
    return (fl_panels){0, model->panels, model->narrow != NULL};
}

/* Part `index` of `count`: the narrow panel goes to the last part, which then has no more of the
 * others than any. */
static inline fl_panels fl_panels_part(const fl_model *model, ptrdiff_t index, ptrdiff_t count) {
    const ptrdiff_t halves = 2 * model->panels + (model->narrow != NULL);
    const ptrdiff_t first = (halves * index / count + 1) / 2;
    const ptrdiff_t last = (halves * (index + 1) / count + 1) / 2;
    const int is_last = index == count - 1;
    fl_panels panels = {first, (is_last ? model->panels : last) - first, 0};
    panels.narrow = is_last && model->narrow != NULL;
    return panels;
}

/* The narrow panel's place among panels of half the lanes. */
static inline ptrdiff_t fl_model_narrow_panel(const fl_model *model) { return 2 * model->panels; }

/* kernels.h, product and step, over such panels. Inline, since one more call costs a tiny layer a
 * sixth of its step. */
static inline void fl_model_product(const fl_model *model, fl_panels panels, ptrdiff_t rows,
                                    ptrdiff_t K, const void *a, ptrdiff_t a_stride, const void *w,
                                    const void *bias, void *z, ptrdiff_t z_stride) {
    const int gates = (int)fl_config_gates(&model->config);
    if (panels.count > 0)
        model->kernels->product(gates, panels.first, panels.count, rows, K, a, a_stride, w, bias, z,
                                z_stride, model->left_bytes);
    if (panels.narrow)
        model->narrow->product(gates, fl_model_narrow_panel(model), 1, rows, K, a, a_stride, w,
                               bias, z, z_stride, model->left_bytes);
}

static inline void fl_model_step(const fl_model *model, const fl_direction *direction,
                                 fl_panels panels, ptrdiff_t rows, const void *h,
                                 ptrdiff_t h_stride, const void *z, void *c, void *h_out,
                                 ptrdiff_t h_out_stride, void *record, int backward) {
    const ptrdiff_t H = model->config.hidden_size;
    if (panels.count > 0)
        model->kernels->step(panels.first, panels.count, rows, H, h, h_stride, direction->u, z,
                             model->z_row, c, h_out, h_out_stride, record, backward,
                             model->near_bytes);
    if (panels.narrow)
        model->narrow->step(fl_model_narrow_panel(model), 1, rows, H, h, h_stride, direction->u, z,
                            model->z_row, c, h_out, h_out_stride, record, backward,
                            model->near_bytes);
}

/* kernels.h, step_pair, over all panels. */
static inline void fl_model_step_pair(const fl_model *model, const fl_side *sides) {
    const ptrdiff_t H = model->config.hidden_size;
    if (model->panels > 0) model->kernels->step_pair(0, model->panels, H, sides);
    if (model->narrow) model->narrow->step_pair(fl_model_narrow_panel(model), 1, H, sides);
}

/* The same for variants. */
static inline void fl_model_variant_step(const fl_model *model, fl_panels panels,
                                         const fl_step *step) {
    if (panels.count > 0) model->kernels->variant_step(panels.first, panels.count, step);
    if (panels.narrow) model->narrow->variant_step(fl_model_narrow_panel(model), 1, step);
}

#endif
