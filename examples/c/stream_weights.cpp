// The program of stream_weights.c in C++17: the model and its stream are freed by themselves, and
// errors are exceptions.
//
//     c++ -std=c++17 stream_weights.cpp $(pkg-config --cflags --libs fastlstm)
#include <fastlstm.h>

#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

// An LSTM with its state, fed a step at a time.
class Stream {
   public:
    Stream(const fl_config &config, const std::vector<float> &parameters)
        : y_t(config.hidden_size) {
        std::size_t count = 0;
        require(fl_parameter_count(&config, &count));
        if (parameters.size() != count)
            throw std::invalid_argument("got " + std::to_string(parameters.size()) +
                                        " parameters, expected " + std::to_string(count));
        fl_model *made_model = nullptr;
        require(fl_model_create(&config, nullptr, parameters.data(), &made_model));
        model.reset(made_model);
        fl_stream *made_stream = nullptr;
        require(fl_stream_create(made_model, 1, &made_stream));
        stream.reset(made_stream);
    }

    // x_t (I) -> y_t (H), valid until the next step.
    const std::vector<float> &step(const std::vector<float> &x_t) {
        fl_stream_step(stream.get(), x_t.data(), y_t.data());
        return y_t;
    }

   private:
    static void require(fl_status status) {
        if (status != FL_OK) throw std::runtime_error(fl_status_message(status));
    }
    struct Destroy {
        void operator()(fl_model *model) const { fl_model_destroy(model); }
        void operator()(fl_stream *stream) const { fl_stream_destroy(stream); }
    };
    std::unique_ptr<fl_model, Destroy> model;  // outlives the stream, which is destroyed first
    std::unique_ptr<fl_stream, Destroy> stream;
    std::vector<float> y_t;
};

static std::vector<float> read_floats(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    if (!file || bytes.size() % sizeof(float) != 0)
        throw std::runtime_error(path + ": can't be read, or holds no parameters");
    std::vector<float> floats(bytes.size() / sizeof(float));
    bytes.copy(reinterpret_cast<char *>(floats.data()), floats.size() * sizeof(float));
    return floats;
}

int main(int argc, char **argv) try {
    if (argc != 5) throw std::invalid_argument("usage: stream_weights WEIGHTS I H L < inputs.f32");
    fl_config config = {};
    config.size = sizeof config;
    config.input_size = std::stoi(argv[2]);
    config.hidden_size = std::stoi(argv[3]);
    config.num_layers = std::stoi(argv[4]);
    config.num_directions = 1;
    config.has_bias = 1;
    config.dtype = FL_FLOAT32;
    Stream stream(config, read_floats(argv[1]));

    std::vector<float> x_t(config.input_size);
    const auto bytes = static_cast<std::streamsize>(x_t.size() * sizeof(float));
    while (std::cin.read(reinterpret_cast<char *>(x_t.data()), bytes)) {
        const std::vector<float> &y_t = stream.step(x_t);
        for (std::size_t j = 0; j < y_t.size(); j++)
            std::printf("%.9g%c", y_t[j], j + 1 < y_t.size() ? ' ' : '\n');
    }
} catch (const std::exception &error) {
    std::cerr << error.what() << '\n';
    return EXIT_FAILURE;
}
