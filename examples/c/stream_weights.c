/* Streams a trained LSTM from C: parameters from a file, inputs from standard input, outputs to
 * standard output, a line for each step.
 *
 *     stream_weights WEIGHTS I H L [BITS] < inputs.f32
 *
 * WEIGHTS holds the float32 parameters of an LSTM with I inputs, H units and L layers, as Python
 * writes them: lstm.parameters.tofile("weights.f32"). Inputs are float32 too, I for each step;
 * without end, if they come from a sensor or a microphone. Both in this machine's byte order. Nine
 * digits, as printed here, give each float32 back exactly. With BITS (8, 16 or 24) the weights are
 * quantised first, as fastlstm.quantize(lstm, bits) does.
 *
 *     cc -std=c11 stream_weights.c $(pkg-config --cflags --libs fastlstm)
 */
#include <fastlstm.h>
#include <stdio.h>
#include <stdlib.h>

/* Prints what went wrong and ends the program. */
static void fail(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

static void require(fl_status status, const char *what) {
    if (status != FL_OK) fail(what, fl_status_message(status));
}

static float *allocate(size_t count) {
    float *floats = malloc(count * sizeof(float));
    if (floats == NULL) fail("memory", fl_status_message(FL_ERROR_MEMORY));
    return floats;
}

/* The parameters in a file, which must hold just those of the config. */
static float *read_parameters(const char *path, const fl_config *config) {
    size_t count;
    require(fl_parameter_count(config, &count), "sizes");
    float *parameters = allocate(count);
    FILE *file = fopen(path, "rb");
    if (file == NULL) fail(path, "can't be opened");
    if (fread(parameters, sizeof(float), count, file) != count || fgetc(file) != EOF)
        fail(path, "is not as long as the parameters of these sizes");
    fclose(file);
    return parameters;
}

/* (R, K) weights in digits; `weights` moves on. */
static fl_quantized_matrix quantize(int bits, size_t R, size_t K, const float **weights) {
    signed char *digits = malloc((size_t)bits / 8 * R * K);
    float *units = allocate(R);
    if (digits == NULL) fail("memory", fl_status_message(FL_ERROR_MEMORY));
    require(fl_quantize_rows(bits, (ptrdiff_t)R, (ptrdiff_t)K, *weights, digits, units), "digits");
    *weights += R * K;
    return (fl_quantized_matrix){digits, units};
}

/* A model in config->bits bits. Where there are few inputs, W stays as it is. */
static fl_model *make_quantized(const fl_config *config, const float *parameters) {
    const size_t H = (size_t)config->hidden_size, L = (size_t)config->num_layers;
    fl_quantized_layer *layers = calloc(L, sizeof *layers);
    if (layers == NULL) fail("memory", fl_status_message(FL_ERROR_MEMORY));
    for (size_t l = 0; l < L; l++) {
        const size_t I = l == 0 ? (size_t)config->input_size : H;
        if (I <= 16) {
            layers[l].w_real = parameters;
            parameters += 4 * H * I;
        } else {
            layers[l].w = quantize(config->bits, 4 * H, I, &parameters);
        }
        layers[l].u = quantize(config->bits, 4 * H, H, &parameters);
        layers[l].others = parameters; /* both biases */
        parameters += 2 * 4 * H;
    }
    fl_model *model;
    require(fl_model_create_quantized(config, NULL, layers, &model), "model");
    for (size_t l = 0; l < L; l++) { /* the model has its own, packed */
        free((void *)layers[l].w.digits);
        free((void *)layers[l].w.units);
        free((void *)layers[l].u.digits);
        free((void *)layers[l].u.units);
    }
    free(layers);
    return model;
}

int main(int argc, char **argv) {
    if (argc != 5 && argc != 6) fail("usage", "stream_weights WEIGHTS I H L [BITS] < inputs.f32");
    fl_config config = {
        .size = sizeof config,
        .input_size = atoi(argv[2]),
        .hidden_size = atoi(argv[3]),
        .num_layers = atoi(argv[4]),
        .num_directions = 1,
        .has_bias = 1,
        .dtype = FL_FLOAT32,
    };
    float *parameters = read_parameters(argv[1], &config);
    fl_model *model;
    fl_stream *stream;
    if (argc == 6) {
        config.bits = atoi(argv[5]);
        model = make_quantized(&config, parameters);
    } else {
        require(fl_model_create(&config, NULL, parameters, &model), "model");
    }
    free(parameters); /* the model has its own, packed */
    require(fl_stream_create(model, 1, &stream), "stream");

    const size_t I = (size_t)config.input_size, H = (size_t)config.hidden_size;
    float *x_t = allocate(I), *y_t = allocate(H);
    while (fread(x_t, sizeof(float), I, stdin) == I) {
        fl_stream_step(stream, x_t, y_t); /* allocates nothing, and can't fail */
        for (size_t j = 0; j < H; j++) printf("%.9g%c", y_t[j], j + 1 < H ? ' ' : '\n');
    }
    free(x_t);
    free(y_t);
    fl_stream_destroy(stream);
    fl_model_destroy(model);
    return EXIT_SUCCESS;
}
