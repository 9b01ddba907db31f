// The C API from C++17: the header by itself, structs set field by field, all calls linked.
#include <fastlstm.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

static long passed, failed;

static void check(bool condition, const char *what) {
    if (condition) ++passed;
    else std::fprintf(stderr, "failed: %s\n", what), ++failed;
}

int main() {
    const ptrdiff_t T = 5, B = 2, I = 3, H = 4;
    fl_config config = {};
    config.size = sizeof config;
    config.input_size = I;
    config.hidden_size = H;
    config.num_layers = 1;
    config.num_directions = 1;
    config.has_bias = 1;
    config.dtype = FL_FLOAT32;
    size_t count = 0, tape_bytes = 0;
    check(fl_parameter_count(&config, &count) == FL_OK, "parameter count");
    std::vector<float> parameters(count), x(T * B * I), y(T * B * H), again(T * B * H);
    std::vector<float> h(B * H), c(B * H), gradient(count);
    for (size_t j = 0; j < count; j++) parameters[j] = static_cast<float>(j % 11) / 10 - 0.5f;
    for (size_t j = 0; j < x.size(); j++) x[j] = static_cast<float>(j % 5) - 2;
    fl_model *model = nullptr;
    check(fl_model_create(&config, nullptr, parameters.data(), &model) == FL_OK, "model");

    fl_forward_call forward = {};
    forward.size = sizeof forward;
    forward.T = T;
    forward.B = B;
    forward.x = {x.data(), B * I, I};
    forward.y = {y.data(), B * H, H};
    forward.h_n = h.data();
    forward.c_n = c.data();
    check(fl_forward(model, &forward) == FL_OK, "forward");

    check(fl_tape_bytes(model, T, B, nullptr, &tape_bytes) == FL_OK, "tape");
    std::vector<char> tape(tape_bytes);
    fl_record_call record = {};
    record.size = sizeof record;
    record.T = T;
    record.B = B;
    record.x = forward.x;
    record.y = {again.data(), B * H, H};
    record.h_n = h.data();
    record.c_n = c.data();
    record.tape = tape.data();
    check(fl_record(model, &record) == FL_OK, "record");
    check(std::memcmp(y.data(), again.data(), y.size() * sizeof(float)) == 0, "record: bits");

    fl_backward_call backward = {};
    backward.size = sizeof backward;
    backward.T = T;
    backward.B = B;
    backward.x = forward.x;
    backward.parameters = parameters.data();
    backward.tape = tape.data();
    backward.dy = {y.data(), B * H, H};
    backward.dparameters = gradient.data();
    check(fl_backward(model, &backward) == FL_OK && gradient[0] != 0, "backward");

    fl_stream *stream = nullptr;
    check(fl_stream_create(model, B, &stream) == FL_OK, "stream");
    fl_stream_push_call push = {};
    push.size = sizeof push;
    push.T = T;
    push.x = forward.x;
    push.y = {again.data(), B * H, H};
    check(fl_stream_push(stream, &push) == FL_OK, "push");
    check(std::memcmp(y.data(), again.data(), y.size() * sizeof(float)) == 0, "push: bits");
    fl_stream_destroy(stream);
    fl_model_destroy(model);

    config.bits = 8;
    std::vector<signed char> w(4 * H * I), u(4 * H * H);
    std::vector<float> w_units(4 * H), u_units(4 * H);
    const float *others = parameters.data() + 4 * H * (I + H);
    check(fl_quantize_rows(8, 4 * H, I, parameters.data(), w.data(), w_units.data()) == FL_OK &&
              fl_quantize_rows(8, 4 * H, H, parameters.data() + 4 * H * I, u.data(),
                               u_units.data()) == FL_OK,
          "digits");
    fl_quantized_layer layer = {};
    layer.w = {w.data(), w_units.data()};
    layer.u = {u.data(), u_units.data()};
    layer.others = others;
    check(fl_model_create_quantized(&config, fl_quantized_isa_name(0), &layer, &model) == FL_OK,
          "quantised model");
    forward.y = {again.data(), B * H, H};
    check(fl_quantized_isa_count() > 0 && fl_forward(model, &forward) == FL_OK, "quantised");
    for (size_t j = 0; j < y.size(); j++) check(std::fabs(y[j] - again[j]) < 0.02f, "8 bits");
    fl_model_destroy(model);
    check(std::string(fl_status_message(FL_OK)) == "success", "status");
    std::printf("%ld checks passed, %ld failed\n", passed, failed);
    return failed != 0;
}
