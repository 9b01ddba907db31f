/* oneDNN's LSTM in 8 bits, called directly: the shared library of the contestant "onednn-int8".
 *
 * x is in unsigned 8 bits and converted from float32 with each call; its scale, which the library
 * shares with h, is from the largest magnitude of x. Weights are in signed 8 bits with a scale for
 * each unit of each gate; states, y and the cell are float32. */
#include <oneapi/dnnl/dnnl.hpp>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "lstm.h"

using namespace dnnl;
using Type = memory::data_type;
using Tag = memory::format_tag;

namespace {

struct Lstm {
    engine cpu{engine::kind::cpu, 0};
    stream queue{cpu};
    memory::desc x_desc, state_desc, y_desc;
    memory x_real, x, w, u, b, h_0, c_0, y, h_n, c_n;
    reorder quantize_x;
    lstm_forward lstm;

    Lstm(int T, int B, int I, int H, const float *weights, const float *recurrent,
         const float *bias, const float *sample) {
        x_desc = {{T, B, I}, Type::f32, Tag::tnc};
        state_desc = {{1, 1, B, H}, Type::f32, Tag::ldnc};
        y_desc = {{T, B, H}, Type::f32, Tag::tnc};
        const memory::desc w_any{{1, 1, I, 4, H}, Type::s8, Tag::any};
        const memory::desc u_any{{1, 1, H, 4, H}, Type::s8, Tag::any};
        const memory::desc b_desc{{1, 1, 4, H}, Type::f32, Tag::ldgo};

        float largest = 1.0F;
        for (int k = 0; k < T * B * I; k++) {
            largest = std::max(largest, std::fabs(sample[k]));
        }
        std::vector<float> scales(4 * H);
        for (int row = 0; row < 4 * H; row++) {
            float most = 1e-30F;
            for (int k = 0; k < I; k++) {
                most = std::max(most, std::fabs(weights[row * I + k]));
            }
            for (int k = 0; k < H; k++) {
                most = std::max(most, std::fabs(recurrent[row * H + k]));
            }
            scales[row] = 127.0F / most;
        }
        primitive_attr attr;
        attr.set_rnn_data_qparams(127.0F / largest, 128.0F);
        attr.set_rnn_weights_qparams((1 << 3) + (1 << 4), scales);

        const memory::desc x_u8{{T, B, I}, Type::u8, Tag::tnc};
        lstm_forward::primitive_desc desc(
            cpu, prop_kind::forward_inference, rnn_direction::unidirectional_left2right, x_u8,
            state_desc, state_desc, w_any, u_any, b_desc, y_desc, state_desc, state_desc, attr);
        lstm = lstm_forward(desc);
        x = memory(desc.src_layer_desc(), cpu);
        w = memory(desc.weights_layer_desc(), cpu);
        u = memory(desc.weights_iter_desc(), cpu);
        b = memory(b_desc, cpu, nullptr);
        bias_.assign(bias, bias + 4 * H);
        b.set_data_handle(bias_.data());
        for (memory *state : {&h_0, &c_0, &h_n, &c_n}) {
            *state = memory(state_desc, cpu, nullptr);
        }
        y = memory(y_desc, cpu, nullptr);
        x_real = memory(x_desc, cpu, nullptr);
        quantize_x = reorder(reorder::primitive_desc(cpu, x_desc, cpu, x.get_desc(), attr));
        load(weights, I, H, w, attr);
        load(recurrent, H, H, u, attr);
    }

    /* Quantises a matrix (4H, K), which the library wants as (K, 4, H). */
    void load(const float *rows, int K, int H, memory &to, const primitive_attr &attr) {
        std::vector<float> columns(static_cast<size_t>(4 * H) * K);
        for (int row = 0; row < 4 * H; row++) {
            for (int k = 0; k < K; k++) {
                columns[static_cast<size_t>(k) * 4 * H + row] =
                    rows[static_cast<size_t>(row) * K + k];
            }
        }
        const memory::desc plain{{1, 1, K, 4, H}, Type::f32, Tag::ldigo};
        memory from(plain, cpu, columns.data());
        reorder(reorder::primitive_desc(cpu, plain, cpu, to.get_desc(), attr))
            .execute(queue, from, to);
        queue.wait();
    }

    std::vector<float> bias_;
};

}  // namespace

void *lstm_new(int T, int B, int I, int H, const float *w, const float *u, const float *b,
               const float *x, int /* threads: OMP_NUM_THREADS */) {
    try {
        return new Lstm(T, B, I, H, w, u, b, x);
    } catch (const dnnl::error &) {
        return nullptr;
    }
}

void lstm_run(void *lstm, const float *x, const float *h_0, const float *c_0, float *y, float *h_n,
              float *c_n) {
    auto &one = *static_cast<Lstm *>(lstm);
    one.x_real.set_data_handle(const_cast<float *>(x));
    one.h_0.set_data_handle(const_cast<float *>(h_0));
    one.c_0.set_data_handle(const_cast<float *>(c_0));
    one.y.set_data_handle(y);
    one.h_n.set_data_handle(h_n);
    one.c_n.set_data_handle(c_n);
    one.quantize_x.execute(one.queue, one.x_real, one.x);
    one.lstm.execute(one.queue, {{DNNL_ARG_SRC_LAYER, one.x},
                                 {DNNL_ARG_SRC_ITER, one.h_0},
                                 {DNNL_ARG_SRC_ITER_C, one.c_0},
                                 {DNNL_ARG_WEIGHTS_LAYER, one.w},
                                 {DNNL_ARG_WEIGHTS_ITER, one.u},
                                 {DNNL_ARG_BIAS, one.b},
                                 {DNNL_ARG_DST_LAYER, one.y},
                                 {DNNL_ARG_DST_ITER, one.h_n},
                                 {DNNL_ARG_DST_ITER_C, one.c_n}});
    one.queue.wait();
}

void lstm_delete(void *lstm) { delete static_cast<Lstm *>(lstm); }
