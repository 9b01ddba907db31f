/* Making a model: sizes checked, parameters packed for one instruction set. */
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/caches.h"
#include "memory.h"
#include "model.h"
#include "model_parts.h"
#include "platform.h"
#include "structs.h"

static int is_activation(fl_activation kind) { return kind >= FL_USUAL && kind <= FL_IDENTITY; }

/* 0, or a number that is one inside calls too, where the smallest count as 0. */
static int is_option(double value, fl_dtype dtype) {
    return value == 0 || value >= (dtype == FL_FLOAT64 ? DBL_MIN : (double)FLT_MIN);
}

enum { CONFIG_SIZE = FL_FIRST_SIZE(fl_config, reverse) };

static int config_is_valid(const fl_config *config) {
    return config != NULL && config->input_size >= 1 && config->hidden_size >= 1 &&
           config->num_layers >= 1 &&
           (config->num_directions == 1 || (config->num_directions == 2 && !config->reverse)) &&
           (config->dtype == FL_FLOAT32 || config->dtype == FL_FLOAT64) && config->proj_size >= 0 &&
           config->proj_size < config->hidden_size && is_activation(config->gate_activation) &&
           is_activation(config->cell_activation) && is_activation(config->output_activation) &&
           is_option(config->clip, config->dtype) && is_option(config->cell_clip, config->dtype) &&
           is_option(config->zoneout_h, config->dtype) && config->zoneout_h <= 1 &&
           is_option(config->zoneout_c, config->dtype) && config->zoneout_c <= 1;
}

const fl_config *fl_config_read(const fl_config *given, fl_config *own) {
    const fl_config *config = fl_struct_read(given, own, sizeof *own, CONFIG_SIZE);
    return config_is_valid(config) ? config : NULL;
}

/* *total += count * rows * columns, checked. */
static int add_block(size_t count, size_t rows, size_t columns, size_t *total) {
    size_t block;
    return fl_size_multiply(rows, columns, &block) && fl_size_multiply(block, count, &block) &&
           fl_size_add(*total, block, total);
}

/* Reals of all layers: a matrix with `rows` rows and a column for each input, each hidden state and
 * `biases` more, and `others` besides, for each direction of each layer. */
static int count_reals(const fl_config *config, size_t rows, size_t biases, size_t others,
                       size_t *count) {
    const size_t D = (size_t)config->num_directions, above = (size_t)config->num_layers - 1;
    const size_t P = (size_t)fl_config_output_size(config);
    size_t columns, directions, bytes;
    *count = 0;
    return fl_size_add((size_t)config->input_size, P, &columns) &&
           fl_size_add(columns, biases, &columns) && add_block(D, rows, columns, count) &&
           add_block(D, others, 1, count) && fl_size_multiply(D, P, &columns) &&
           fl_size_add(columns, P, &columns) && fl_size_add(columns, biases, &columns) &&
           fl_size_multiply(D, above, &directions) && add_block(directions, rows, columns, count) &&
           add_block(directions, others, 1, count) &&
           fl_size_multiply(*count, sizeof(double), &bytes);
}

fl_status fl_parameter_count(const fl_config *given, size_t *count) {
    fl_config own;
    const fl_config *config = fl_config_read(given, &own);
    if (config == NULL || config->bits != 0 || count == NULL) return FL_ERROR_ARGUMENT;
    const size_t H = (size_t)config->hidden_size;
    size_t rows, others = 0;
    const int fits =
        fl_size_multiply((size_t)fl_config_gates(config), H, &rows) &&
        add_block(1, (size_t)config->proj_size, H, &others) &&
        add_block(1, (size_t)fl_config_peepholes(config), H, &others) &&
        (!config->layer_norm || (add_block(2, rows, 1, &others) && add_block(2, H, 1, &others))) &&
        count_reals(config, rows, config->has_bias ? 2 : 0, others, count);
    return fits ? FL_OK : FL_ERROR_OVERFLOW;
}

char *fl_pack_weights(const fl_model *model, ptrdiff_t K, const int *blocks, const void *weights,
                      char *packed) {
    const ptrdiff_t H = model->config.hidden_size;
    const int gates = (int)fl_config_gates(&model->config);
    model->kernels->pack_weights(gates, 0, model->panels, H, K, blocks, weights, packed);
    if (model->narrow)
        model->narrow->pack_weights(gates, fl_model_narrow_panel(model), 1, H, K, blocks, weights,
                                    packed);
    return packed + (size_t)(model->z_row * K) * model->kernels->real_bytes;
}

char *fl_pack_bias(const fl_model *model, fl_direction *direction, const char *b_ih, char *packed) {
    const ptrdiff_t H = model->config.hidden_size;
    const int gates = (int)fl_config_gates(&model->config);
    const size_t real = model->kernels->real_bytes;
    if (model->config.layer_norm) b_ih = NULL; /* added to what is normalised */
    const char *b_hh = b_ih ? b_ih + (size_t)(gates * H) * real : NULL;
    model->kernels->pack_bias(gates, 0, model->panels, H, b_ih, b_hh, packed);
    if (model->narrow)
        model->narrow->pack_bias(gates, fl_model_narrow_panel(model), 1, H, b_ih, b_hh, packed);
    direction->bias = packed;
    return packed + (size_t)model->z_row * real;
}

char *fl_pack_options(const fl_model *model, fl_direction *direction, const char *b_ih,
                      const char *options, char *packed) {
    static const int all_peepholes[4] = {0, 1, -1, 2}, coupled_peepholes[3] = {0, -1, 1};
    const fl_config *config = &model->config;
    const size_t real = model->kernels->real_bytes;
    if (config->has_peepholes) {
        direction->peepholes = packed;
        packed = fl_pack_weights(
            model, 1, config->coupled_gates ? coupled_peepholes : all_peepholes, options, packed);
        options += (size_t)(fl_config_peepholes(config) * config->hidden_size) * real;
    }
    if (config->layer_norm) {
        const size_t norm = (size_t)fl_config_norm_size(config) * real;
        const ptrdiff_t columns = fl_config_gate_columns(config);
        const size_t row = (size_t)columns * real;
        memcpy(packed, options, norm);
        memset(packed + norm, 0, row);
        for (int i = 0; b_ih && i < 2; i++)
            model->kernels->put_rows(1, columns, b_ih + i * (ptrdiff_t)row, 0, packed + norm, 0, 1);
        direction->norm = packed;
        packed += 4 * (size_t)model->z_row * real; /* of which 3G + 2 for each unit are needed */
    }
    return packed;
}

/* Reals of a packed projection. */
static int count_projection(const fl_config *config, size_t V, size_t *count) {
    const size_t P = (size_t)config->proj_size;
    return fl_size_multiply((P + V - 1) / V * V, (size_t)config->hidden_size, count);
}

/* Packs every direction of every layer, moving through both vectors as it goes. */
static void pack_all(fl_model *model, const char *parameters) {
    static const int gates[4] = {0, 1, 2, 3};
    const fl_config *config = &model->config;
    const ptrdiff_t H = config->hidden_size, P = model->output_size, D = config->num_directions;
    const size_t real = model->kernels->real_bytes, V = (size_t)model->kernels->lanes;
    const size_t rows = (size_t)fl_config_gate_columns(config) * real;
    char *packed = model->packed;

    for (ptrdiff_t index = 0; index < config->num_layers * D; index++) {
        fl_direction *direction = &model->directions[index];
        direction->w = packed;
        packed = fl_pack_weights(model, direction->input_size, gates, parameters, packed);
        parameters += rows * (size_t)direction->input_size;

        direction->u = packed;
        packed = fl_pack_weights(model, P, gates, parameters, packed);
        parameters += rows * (size_t)P;

        const char *b_ih = config->has_bias ? parameters : NULL;
        packed = fl_pack_bias(model, direction, b_ih, packed);
        parameters += config->has_bias ? 2 * rows : 0;

        if (config->proj_size) { /* W_hr (P, H), transposed */
            size_t reals = 0;
            count_projection(config, V, &reals);
            model->kernels->pack_columns(0, (P - 1) / (4 * (ptrdiff_t)V) + 1, H, P, parameters, 1,
                                         H, packed);
            direction->projection = packed;
            parameters += (size_t)(P * H) * real;
            packed += reals * real;
        }
        packed = fl_pack_options(model, direction, b_ih, parameters, packed);
        parameters += (size_t)fl_config_options_size(config) * real;
    }
}

static fl_activation or_usual(fl_activation kind, fl_activation usual) {
    return kind == FL_USUAL ? usual : kind;
}

/* What the configuration asks for, in the words of the drivers. */
static void set_variant(fl_model *model) {
    fl_config *config = &model->config;
    config->gate_activation = or_usual(config->gate_activation, FL_SIGMOID);
    config->cell_activation = or_usual(config->cell_activation, FL_TANH);
    config->output_activation = or_usual(config->output_activation, FL_TANH);
    model->output_size = fl_config_output_size(config);
    model->needs_rows = config->proj_size > 0 || config->zoneout_h > 0 || config->layer_norm;
    model->is_variant = model->needs_rows || config->has_peepholes || config->coupled_gates ||
                        config->gate_activation != FL_SIGMOID ||
                        config->cell_activation != FL_TANH ||
                        config->output_activation != FL_TANH || config->clip > 0 ||
                        config->cell_clip > 0 || config->zoneout_c > 0;
    model->is_general = model->is_variant || model->digits != NULL;
    const ptrdiff_t H = config->hidden_size, gates = fl_config_gates(config) * H;
    model->record_size = 5 * H + (model->is_variant ? model->output_size : 0) +
                         (config->layer_norm ? 2 * gates + H + 3 : 0);
}

int fl_cut_units(const fl_config *config, const fl_kernels *kernels, int may_be_narrow,
                 fl_cut *cut) {
    const size_t H = (size_t)config->hidden_size, V = (size_t)kernels->lanes;
    size_t units;
    cut->narrow = may_be_narrow && kernels->half != NULL && H % V != 0 && H % V <= V / 2;
    cut->panels = cut->narrow ? H / V : (H - 1) / V + 1;
    return fl_size_multiply(cut->panels, V, &units) &&
           fl_size_add(units, cut->narrow ? V / 2 : 0, &units) &&
           fl_size_multiply(units, (size_t)fl_config_gates(config), &cut->z_row);
}

fl_status fl_model_begin(const fl_config *config, const fl_kernels *kernels,
                         const fl_digit_kernels *digits, const fl_cut *cut, size_t packed_bytes,
                         fl_model **made) {
    size_t directions, bytes;
    if (!fl_size_multiply((size_t)config->num_layers, (size_t)config->num_directions,
                          &directions) ||
        !fl_size_multiply(directions, sizeof(fl_direction), &bytes) ||
        !fl_size_add(bytes, sizeof(fl_model), &bytes))
        return FL_ERROR_OVERFLOW;
    fl_model *model = calloc(1, bytes);
    if (model == NULL) return FL_ERROR_MEMORY;
    model->packed = fl_memory_alloc(packed_bytes, 1);
    if (model->packed == NULL) {
        free(model);
        return FL_ERROR_MEMORY;
    }
    model->config = *config;
    model->config.size = sizeof *config;
    model->kernels = kernels;
    model->digits = digits;
    model->panels = (ptrdiff_t)cut->panels;
    model->narrow = cut->narrow ? kernels->half : NULL;
    model->z_row = (ptrdiff_t)cut->z_row;
    set_variant(model);
    const ptrdiff_t D = config->num_directions;
    for (ptrdiff_t index = 0; index < (ptrdiff_t)directions; index++)
        model->directions[index].input_size =
            index < D ? config->input_size : D * model->output_size;
    model->near_bytes = fl_cache_near();
    model->left_bytes =
        model->near_bytes - FL_CHUNK_BYTES - fl_model_matrix_bytes(model, model->output_size);
    model->bytes = bytes + packed_bytes;
    *made = model;
    return FL_OK;
}

fl_status fl_model_create(const fl_config *given, const char *isa, const void *parameters,
                          fl_model **model) {
    if (model == NULL) return FL_ERROR_ARGUMENT;
    *model = NULL;
    fl_config own;
    const fl_config *config = fl_config_read(given, &own);
    if (config == NULL || config->bits != 0 || parameters == NULL) return FL_ERROR_ARGUMENT;
    const fl_kernels *kernels = fl_kernels_find(isa, config->dtype, FL_WEIGHTS_REAL);
    if (kernels == NULL) return FL_ERROR_ISA;

    fl_cut cut;
    size_t projection, others, reals;
    if (!fl_cut_units(config, kernels, 1, &cut) ||
        !count_projection(config, (size_t)kernels->lanes, &projection) ||
        !fl_size_multiply(cut.z_row, fl_config_packed_rows(config) - 1, &others) ||
        !fl_size_add(others, projection, &others) ||
        !count_reals(config, cut.z_row, 1, others, &reals))
        return FL_ERROR_OVERFLOW;

    fl_model *made = NULL;
    const fl_status status =
        fl_model_begin(config, kernels, NULL, &cut, reals * kernels->real_bytes, &made);
    if (status != FL_OK) return status;
    const fl_fp_state saved = fl_fp_enter();
    pack_all(made, parameters);
    fl_fp_leave(saved);
    *model = made;
    return FL_OK;
}

void fl_model_destroy(fl_model *model) {
    if (model == NULL) return;
    fl_memory_free(model->packed);
    free(model);
}

const char *fl_model_isa(const fl_model *model) {
    return model->digits ? model->digits->isa : model->kernels->isa;
}

size_t fl_model_bytes(const fl_model *model) { return model->bytes; }
