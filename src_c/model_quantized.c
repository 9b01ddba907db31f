/* Making a quantised model: what a caller hands in checked, and packed for one instruction set. */
#include "digits.h"
#include "fastlstm.h"
#include "kernels/digits.h"
#include "memory.h"
#include "model.h"
#include "model_parts.h"
#include "platform.h"

/* Sums of products of digits are below 2^31 for so many columns, as are all parts of them. */
static ptrdiff_t most_columns(int bits) {
    switch (bits) {
        case 8: return 131071;
        case 16: return 65535;
        case 24: return 43690;
        default: return 0;
    }
}

/* I_l. */
static ptrdiff_t input_size_of(const fl_config *config, ptrdiff_t index) {
    const ptrdiff_t D = config->num_directions;
    return index < D ? config->input_size : D * fl_config_output_size(config);
}

static fl_digits_sizes sizes_of_w(const fl_config *config, const fl_quantized_layer *layer,
                                  ptrdiff_t index) {
    return (fl_digits_sizes){.bits = config->bits,
                             .sums = config->bits / 8,
                             .gates = (int)fl_config_gates(config),
                             .units = config->hidden_size,
                             .K = input_size_of(config, index),
                             .has_multipliers = layer->x_multipliers != NULL};
}

/* With 16 bits what comes back at each step has all its products. */
static fl_digits_sizes sizes_of_u(const fl_config *config) {
    return (fl_digits_sizes){.bits = config->bits,
                             .sums = config->bits == 8 ? 1 : 3,
                             .gates = (int)fl_config_gates(config),
                             .units = config->hidden_size,
                             .K = fl_config_output_size(config)};
}

static fl_digits_sizes sizes_of_projection(const fl_config *config) {
    return (fl_digits_sizes){.bits = config->bits,
                             .sums = config->bits / 8,
                             .gates = 1,
                             .units = config->proj_size,
                             .K = config->hidden_size};
}

/* Whether a matrix is there, and has no more columns than sums have room for. */
static int matrix_is_valid(const fl_digits_sizes *sizes, const fl_quantized_matrix *matrix) {
    return matrix->digits != NULL && matrix->units != NULL && sizes->K <= most_columns(sizes->bits);
}

static int layer_is_valid(const fl_config *config, const fl_quantized_layer *layer,
                          ptrdiff_t index) {
    const fl_digits_sizes w = sizes_of_w(config, layer, index), u = sizes_of_u(config);
    const fl_digits_sizes projection = sizes_of_projection(config);
    const int has_others = config->has_bias || config->has_peepholes || config->layer_norm;
    const int has_w = layer->w_real ? layer->w.digits == NULL && layer->x_multipliers == NULL
                                    : matrix_is_valid(&w, &layer->w);
    return has_w && matrix_is_valid(&u, &layer->u) &&
           (config->proj_size == 0 || matrix_is_valid(&projection, &layer->w_hr)) &&
           (!has_others || layer->others != NULL);
}

/* *total += count * size bytes in whole lines, checked. */
static int add_part(size_t count, size_t size, size_t *total) {
    size_t bytes;
    return fl_size_multiply(count, size, &bytes) && fl_size_add(bytes, FL_LINE - 1, &bytes) &&
           fl_size_add(*total, bytes - bytes % FL_LINE, total);
}

static int add_digits(const fl_digit_kernels *kernels, const fl_digits_sizes *sizes,
                      size_t *total) {
    size_t bytes;
    return fl_digits_count(kernels, sizes, &bytes) && fl_size_add(*total, bytes, total);
}

/* Bytes of one direction of a layer. */
static int add_direction(const fl_config *config, const fl_digit_kernels *kernels,
                         const fl_cut *cut, const fl_quantized_layer *layer, ptrdiff_t index,
                         size_t *total) {
    const fl_digits_sizes w = sizes_of_w(config, layer, index), u = sizes_of_u(config);
    const fl_digits_sizes projection = sizes_of_projection(config);
    size_t row; /* bytes */
    return fl_size_multiply(cut->z_row, sizeof(float), &row) &&
           (layer->w_real ? add_part((size_t)w.K, row, total) : add_digits(kernels, &w, total)) &&
           add_digits(kernels, &u, total) &&
           (config->proj_size == 0 || add_digits(kernels, &projection, total)) &&
           add_part(fl_config_packed_rows(config), row, total);
}

/* Where the next part goes. */
static char *next_line(fl_model *model, char *at) {
    const size_t used = (size_t)(at - (char *)model->packed);
    return (char *)model->packed + (used + FL_LINE - 1) / FL_LINE * FL_LINE;
}

static char *pack_digits(fl_model *model, const fl_digits_sizes *sizes,
                         const fl_quantized_matrix *matrix, const float *multipliers, char *packed,
                         fl_digits *digits) {
    size_t bytes = 0;
    fl_digits_count(model->digits, sizes, &bytes);
    fl_digits_pack(model->digits, sizes, matrix, multipliers, packed, digits);
    model->digit_row = fl_size_max(model->digit_row, digits->n * 4 * digits->k_blocks);
    return packed + bytes;
}

static char *pack_direction(fl_model *model, ptrdiff_t index, const fl_quantized_layer *layer,
                            char *packed) {
    static const int gates[4] = {0, 1, 2, 3};
    const fl_config *config = &model->config;
    fl_direction *direction = &model->directions[index];
    const fl_digits_sizes w = sizes_of_w(config, layer, index), u = sizes_of_u(config);
    const fl_digits_sizes projection = sizes_of_projection(config);
    if (layer->w_real) {
        direction->w = packed;
        packed = fl_pack_weights(model, direction->input_size, gates, layer->w_real, packed);
        packed = next_line(model, packed);
    } else
        packed =
            pack_digits(model, &w, &layer->w, layer->x_multipliers, packed, &direction->w_digits);
    packed = pack_digits(model, &u, &layer->u, NULL, packed, &direction->u_digits);
    if (config->proj_size)
        packed = pack_digits(model, &projection, &layer->w_hr, NULL, packed,
                             &direction->projection_digits);

    const ptrdiff_t biases = config->has_bias ? 2 * fl_config_gate_columns(config) : 0;
    const char *others = (const char *)layer->others;
    const char *b_ih = config->has_bias ? others : NULL;
    packed = fl_pack_bias(model, direction, b_ih, packed);
    const char *options = others ? others + biases * (ptrdiff_t)sizeof(float) : NULL;
    packed = fl_pack_options(model, direction, b_ih, options, packed);
    return next_line(model, packed);
}

fl_status fl_model_create_quantized(const fl_config *given, const char *isa,
                                    const fl_quantized_layer *layers, fl_model **model) {
    if (model == NULL) return FL_ERROR_ARGUMENT;
    *model = NULL;
    fl_config own;
    const fl_config *config = fl_config_read(given, &own);
    if (config == NULL || config->dtype != FL_FLOAT32 || most_columns(config->bits) == 0 ||
        layers == NULL)
        return FL_ERROR_ARGUMENT;
    const fl_digit_kernels *kernels = fl_digit_kernels_find(isa);
    if (kernels == NULL) return FL_ERROR_ISA;

    fl_cut cut;
    size_t bytes = 0, zeros = 0, directions;
    if (!fl_cut_units(config, kernels->real, 0, &cut) ||
        !fl_size_multiply((size_t)config->num_layers, (size_t)config->num_directions, &directions))
        return FL_ERROR_OVERFLOW;
    for (size_t index = 0; index < directions; index++) /* sizes first: what they count is read */
        if (!add_direction(config, kernels, &cut, &layers[index], (ptrdiff_t)index, &bytes))
            return FL_ERROR_OVERFLOW;
    if (config->proj_size) zeros = cut.panels * (size_t)kernels->real->lanes;
    if (!add_part(zeros, sizeof(float), &bytes)) return FL_ERROR_OVERFLOW;
    for (size_t index = 0; index < directions; index++)
        if (!layer_is_valid(config, &layers[index], (ptrdiff_t)index)) return FL_ERROR_ARGUMENT;

    fl_model *made = NULL;
    const fl_status status = fl_model_begin(config, kernels->real, kernels, &cut, bytes, &made);
    if (status != FL_OK) return status;
    const fl_fp_state saved = fl_fp_enter();
    char *packed = made->packed;
    for (size_t index = 0; index < directions; index++)
        packed = pack_direction(made, (ptrdiff_t)index, &layers[index], packed);
    fl_fp_leave(saved);
    for (size_t i = 0; i < zeros; i++) ((float *)(void *)packed)[i] = 0;
    made->zeros = (const float *)(const void *)packed;
    *model = made;
    return FL_OK;
}
