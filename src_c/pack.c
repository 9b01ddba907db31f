/* Making a model: sizes checked, parameters packed for one instruction set. */
#include <stdint.h>
#include <stdlib.h>

#include "model.h"
#include "platform.h"

const char *fl_status_message(fl_status status) {
    switch (status) {
        case FL_OK: return "success";
        case FL_ERROR_ARGUMENT: return "an argument is out of range or a null pointer";
        case FL_ERROR_OVERFLOW: return "a product of sizes does not fit";
        case FL_ERROR_MEMORY: return "out of memory";
        case FL_ERROR_ISA: return "the instruction set is unknown or not available";
    }
    return "unknown status";
}

static int config_is_valid(const fl_config *config) {
    return config != NULL && config->input_size >= 1 && config->hidden_size >= 1 &&
           config->num_layers >= 1 &&
           (config->num_directions == 1 || config->num_directions == 2) &&
           (config->dtype == FL_FLOAT32 || config->dtype == FL_FLOAT64);
}

/* *total += count * 4 * rows * columns, checked. */
static int add_blocks(size_t count, size_t rows, size_t columns, size_t *total) {
    size_t block;
    return fl_multiply_sizes(rows, 4, &block) && fl_multiply_sizes(block, columns, &block) &&
           fl_multiply_sizes(block, count, &block) && fl_add_sizes(*total, block, total);
}

/* Counts reals with H units a layer: the unpacked parameters with units = H and biases = 2 or 0,
 * the packed ones with units = panels*V and biases = 1. */
static int count_reals(const fl_config *config, size_t units, size_t biases, size_t *count) {
    const size_t D = (size_t)config->num_directions, above = (size_t)config->num_layers - 1;
    const size_t H = (size_t)config->hidden_size;
    size_t columns, directions, bytes;
    *count = 0;
    /* Columns of W, U and the biases: of the first layer, then of each layer above. */
    return fl_add_sizes((size_t)config->input_size, H, &columns) &&
           fl_add_sizes(columns, biases, &columns) && add_blocks(D, units, columns, count) &&
           fl_multiply_sizes(D, H, &columns) && fl_add_sizes(columns, H, &columns) &&
           fl_add_sizes(columns, biases, &columns) && fl_multiply_sizes(D, above, &directions) &&
           add_blocks(directions, units, columns, count) &&
           fl_multiply_sizes(*count, sizeof(double), &bytes);
}

fl_status fl_parameter_count(const fl_config *config, size_t *count) {
    if (!config_is_valid(config) || count == NULL) return FL_ERROR_ARGUMENT;
    const size_t biases = config->has_bias ? 2 : 0;
    return count_reals(config, (size_t)config->hidden_size, biases, count) ? FL_OK
                                                                           : FL_ERROR_OVERFLOW;
}

static void pack_weights(const fl_model *model, ptrdiff_t K, const void *weights, void *packed) {
    const ptrdiff_t H = model->config.hidden_size;
    model->kernels->pack_weights(0, model->panels, H, K, weights, packed);
    if (model->narrow)
        model->narrow->pack_weights(fl_narrow_panel(model), 1, H, K, weights, packed);
}

static void pack_bias(const fl_model *model, const void *b_ih, const void *b_hh, void *packed) {
    const ptrdiff_t H = model->config.hidden_size;
    model->kernels->pack_bias(0, model->panels, H, b_ih, b_hh, packed);
    if (model->narrow) model->narrow->pack_bias(fl_narrow_panel(model), 1, H, b_ih, b_hh, packed);
}

/* Packs every direction of every layer, moving through both vectors as it goes. */
static void pack_all(fl_model *model, const char *parameters) {
    const ptrdiff_t H = model->config.hidden_size, D = model->config.num_directions;
    const size_t real = model->kernels->real_bytes, rows = 4 * (size_t)H * real;
    const size_t packed_rows = (size_t)model->z_row * real;
    char *packed = model->packed;

    for (ptrdiff_t index = 0; index < model->config.num_layers * D; index++) {
        fl_direction *direction = &model->directions[index];
        direction->input_size = index < D ? model->config.input_size : D * H;
        const size_t input_size = (size_t)direction->input_size;

        pack_weights(model, direction->input_size, parameters, packed);
        direction->w = packed;
        parameters += rows * input_size;
        packed += packed_rows * input_size;

        pack_weights(model, H, parameters, packed);
        direction->u = packed;
        parameters += rows * (size_t)H;
        packed += packed_rows * (size_t)H;

        const char *b_ih = model->config.has_bias ? parameters : NULL;
        pack_bias(model, b_ih, b_ih ? b_ih + rows : NULL, packed);
        direction->bias = packed;
        parameters += model->config.has_bias ? 2 * rows : 0;
        packed += packed_rows;
    }
}

fl_status fl_model_create(const fl_config *config, const char *isa, const void *parameters,
                          fl_model **model) {
    if (model == NULL) return FL_ERROR_ARGUMENT;
    *model = NULL;
    if (!config_is_valid(config) || parameters == NULL) return FL_ERROR_ARGUMENT;
    const fl_kernels *kernels = fl_kernels_find(isa, config->dtype);
    if (kernels == NULL) return FL_ERROR_ISA;

    const size_t H = (size_t)config->hidden_size, V = (size_t)kernels->lanes;
    const int narrow = kernels->half != NULL && H % V != 0 && H % V <= V / 2;
    const size_t panels = narrow ? H / V : (H - 1) / V + 1;
    size_t units, reals, directions, bytes;
    if (!fl_multiply_sizes(panels, V, &units) || !fl_add_sizes(units, narrow ? V / 2 : 0, &units) ||
        !count_reals(config, units, 1, &reals) ||
        !fl_multiply_sizes((size_t)config->num_layers, (size_t)config->num_directions,
                           &directions) ||
        !fl_multiply_sizes(directions, sizeof(fl_direction), &bytes) ||
        !fl_add_sizes(bytes, sizeof(fl_model), &bytes))
        return FL_ERROR_OVERFLOW;

    fl_model *made = calloc(1, bytes);
    if (made == NULL) return FL_ERROR_MEMORY;
    made->packed = fl_alloc_aligned(reals, kernels->real_bytes);
    if (made->packed == NULL) {
        free(made);
        return FL_ERROR_MEMORY;
    }
    made->config = *config;
    made->kernels = kernels;
    made->panels = (ptrdiff_t)panels;
    made->narrow = narrow ? kernels->half : NULL;
    made->z_row = (ptrdiff_t)(4 * units);
    made->bytes = bytes + reals * kernels->real_bytes;
    const fl_fp_state saved = fl_fp_enter();
    pack_all(made, parameters);
    fl_fp_leave(saved);
    *model = made;
    return FL_OK;
}

void fl_model_destroy(fl_model *model) {
    if (model == NULL) return;
    fl_free_aligned(model->packed);
    free(model);
}

const char *fl_model_isa(const fl_model *model) { return model->kernels->isa; }

size_t fl_model_bytes(const fl_model *model) { return model->bytes; }
