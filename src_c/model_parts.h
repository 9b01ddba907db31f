/* What making a model is made of, whatever its weights are kept as. */
#ifndef FL_MODEL_PARTS_H
#define FL_MODEL_PARTS_H

#include <stddef.h>

#include "fastlstm.h"
#include "kernels/digits.h"
#include "kernels/kernels.h"
#include "model.h"

/* Returns a caller's configuration as the library knows it, perhaps in `own`; NULL unless it is
 * valid. */
const fl_config *fl_config_read(const fl_config *given, fl_config *own);

/* How the units of a layer are cut. */
typedef struct fl_cut {
    size_t panels;
    int narrow;   /* whether the remaining units have a panel of half the lanes */
    size_t z_row; /* reals of a row of pre-activations */
} fl_cut;

/* 0 when they do not fit ptrdiff_t. */
int fl_cut_units(const fl_config *config, const fl_kernels *kernels, int may_be_narrow,
                 fl_cut *cut);

/* Allocates a model with packed_bytes for its parameters, and sets all but these. digits: NULL, or
 * those of a quantised model. */
fl_status fl_model_begin(const fl_config *config, const fl_kernels *kernels,
                         const fl_digit_kernels *digits, const fl_cut *cut, size_t packed_bytes,
                         fl_model **made);

/* These pack parameters of all gates to `packed` and return what follows there. */

/* weights (G*H, K), or with `blocks` as in fl_kernels.pack_weights. */
char *fl_pack_weights(const fl_model *model, ptrdiff_t K, const int *blocks, const void *weights,
                      char *packed);

/* The bias of a direction. b_ih: in (2, G*H) with b_hh behind it, or NULL. */
char *fl_pack_bias(const fl_model *model, fl_direction *direction, const char *b_ih, char *packed);

/* Its peepholes and layer normalisation, which begin at `options`. */
char *fl_pack_options(const fl_model *model, fl_direction *direction, const char *b_ih,
                      const char *options, char *packed);

/* Reals that fl_pack_bias and fl_pack_options fill, in rows of pre-activations. */
static inline size_t fl_config_packed_rows(const fl_config *config) {
    return (config->has_peepholes ? 2u : 1u) + (config->layer_norm ? 4u : 0u);
}

/* Reals of the options' parameters. */
static inline ptrdiff_t fl_config_options_size(const fl_config *config) {
    return fl_config_peepholes(config) * config->hidden_size + fl_config_norm_size(config);
}

#endif
