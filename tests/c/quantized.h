/* The parameters of a quantised model, made of the vector of the model of floats. */
#ifndef QUANTIZED_H
#define QUANTIZED_H

#include <stdlib.h>
#include <string.h>

#include "fastlstm.h"

/* (R, K) in digits, in memory of exactly their size; moves the vector on. */
static fl_quantized_matrix quantized_matrix(int bits, ptrdiff_t R, ptrdiff_t K,
                                            const float **vector) {
    signed char *digits = malloc((size_t)(bits / 8 * R * K));
    float *units = malloc((size_t)R * sizeof *units);
    if (fl_quantize_rows(bits, R, K, *vector, digits, units) != FL_OK) abort();
    *vector += R * K;
    return (fl_quantized_matrix){digits, units};
}

static float *reals_copied(const float *from, ptrdiff_t count) {
    float *copy = malloc((size_t)count * sizeof *copy + 1);
    memcpy(copy, from, (size_t)count * sizeof *copy);
    return copy;
}

/* All layers of config->bits. real_inputs: W stays as it is; else x has multipliers. */
static fl_quantized_layer *quantized_layers(const fl_config *config, const float *vector,
                                            int real_inputs) {
    const ptrdiff_t H = config->hidden_size, D = config->num_directions;
    const ptrdiff_t P = config->proj_size ? config->proj_size : H;
    const ptrdiff_t G = config->coupled_gates ? 3 : 4, biases = config->has_bias ? 2 * G * H : 0;
    const ptrdiff_t options =
        (config->has_peepholes ? (G - 1) * H : 0) + (config->layer_norm ? (2 * G + 2) * H : 0);
    fl_quantized_layer *layers = calloc((size_t)(config->num_layers * D), sizeof *layers);
    for (ptrdiff_t index = 0; index < config->num_layers * D; index++) {
        const ptrdiff_t I = index < D ? config->input_size : D * P;
        fl_quantized_layer *layer = &layers[index];
        if (real_inputs) {
            layer->w_real = reals_copied(vector, G * H * I);
            vector += G * H * I;
        } else {
            layer->w = quantized_matrix(config->bits, G * H, I, &vector);
            layer->x_multipliers = reals_copied(layer->w.units, I < G * H ? I : G * H);
            if (I > G * H || index % 2) { /* and without any */
                free((void *)layer->x_multipliers);
                layer->x_multipliers = NULL;
            }
        }
        layer->u = quantized_matrix(config->bits, G * H, P, &vector);
        float *others = malloc((size_t)(biases + options) * sizeof *others + 1);
        layer->others = others;
        memcpy(others, vector, (size_t)biases * sizeof *others);
        vector += biases;
        if (config->proj_size) layer->w_hr = quantized_matrix(config->bits, P, H, &vector);
        memcpy(others + biases, vector, (size_t)options * sizeof *others);
        vector += options;
    }
    return layers;
}

static void free_quantized_layers(const fl_config *config, fl_quantized_layer *layers) {
    for (ptrdiff_t index = 0; index < config->num_layers * config->num_directions; index++) {
        const fl_quantized_layer *layer = &layers[index];
        const void *blocks[] = {layer->w.digits, layer->w.units,       layer->u.digits,
                                layer->u.units,  layer->w_hr.digits,   layer->w_hr.units,
                                layer->w_real,   layer->x_multipliers, layer->others};
        for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) free((void *)blocks[i]);
    }
    free(layers);
}

#endif
