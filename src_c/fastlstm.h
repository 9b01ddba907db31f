/* fastlstm: long short-term memory networks on CPUs. The C API, complete without Python.
 *
 * Letters: T time steps, B batch, I input size, H hidden size, P size of a hidden state (H, or that
 * of the projection), L layers, D directions (1 or 2), G gates: 4 in the order i, f, g, o, or 3 in
 * the order i, g, o. I_l is the input size of layer l: I for l = 0, D*P above.
 * "real" stands for float or double, by the model's dtype. Arrays are row-major; strides count
 * elements, not bytes.
 *
 * Equations (Hochreiter and Schmidhuber 1997; forget gate: Gers, Schmidhuber and Cummins 2000):
 *
 *     i_t = sigmoid(W_i x_t + U_i h_{t-1} + b_i)      f_t = sigmoid(W_f x_t + U_f h_{t-1} + b_f)
 *     g_t = tanh   (W_g x_t + U_g h_{t-1} + b_g)      o_t = sigmoid(W_o x_t + U_o h_{t-1} + b_o)
 *     c_t = f_t * c_{t-1} + i_t * g_t                 h_t = o_t * tanh(c_t)
 *
 * Exactness: the bits of a result depend on the model and the sequence alone. They do not depend
 * on B, the other sequences, how time is cut into calls, strides, threads, or the instruction set.
 * (NaNs may differ in their payload; arm64 flushes what x86-64 rounds up to the smallest normal.)
 *
 * Structs whose first field is `size` may grow at their end in later versions. Set it to sizeof the
 * struct, and every field that has no value of its own to zero, as designated initialisers do:
 *
 *     const fl_forward_call call = {.size = sizeof call, .T = T, .B = 1, .x = {x, I, I},
 *                                   .y = {y, H, H}, .h_n = h, .c_n = c};
 *     const fl_status status = fl_forward(model, &call);
 *
 * (in C++ before C++20: `fl_forward_call call = {};`, then field by field). A field that the
 * library has and the caller's header has not counts as zero, which asks for nothing new. One that
 * the caller has and the library has not must be zero. Else, and where the size is less than that
 * of the first version, a call returns FL_ERROR_ARGUMENT. Structs without a size never change.
 *
 * Build: C11 with POSIX threads or Windows' own. GCC and Clang need `-ffp-contract=off`, MSVC
 * `/fp:precise`, and no other flag: each kernel file names its instruction set itself.
 *
 *     cc -std=c11 -O3 -ffp-contract=off -I. app.c $(cat sources.txt) -lm -pthread
 *
 * Thread safety: a model is immutable once made. Any number of threads may use one at once.
 */
#ifndef FASTLSTM_H
#define FASTLSTM_H

#include <stddef.h>

/* The version of this header, and so of the library that it comes with. */
#define FL_VERSION_MAJOR 0
#define FL_VERSION_MINOR 1
#define FL_VERSION_PATCH 0

/* What a shared library exports, which is made with FL_SHARED; all else is hidden there. */
#if defined(FL_SHARED) && defined(_WIN32)
#define FL_API __declspec(dllexport)
#elif defined(FL_SHARED)
#define FL_API __attribute__((visibility("default")))
#else
#define FL_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum fl_status {
    FL_OK = 0,
    FL_ERROR_ARGUMENT, /* a size is out of range, a required pointer is NULL, a field unknown */
    FL_ERROR_OVERFLOW, /* a product of sizes does not fit ptrdiff_t */
    FL_ERROR_MEMORY,   /* an allocation failed; nothing was changed */
    FL_ERROR_ISA,      /* the instruction set is unknown, or this machine lacks it */
    FL_ERROR_CANCELLED /* the call was given up, as its fl_watch wanted */
} fl_status;

typedef enum fl_dtype { FL_FLOAT32 = 0, FL_FLOAT64 = 1 } fl_dtype;

typedef enum fl_activation {
    FL_USUAL = 0, /* sigmoid for gates, tanh for g and for c on its way to h */
    FL_SIGMOID,
    FL_TANH,
    FL_RELU,
    FL_HARD_SIGMOID, /* 0.2 x + 0.5, at least 0 and at most 1 */
    FL_IDENTITY
} fl_activation;

/* What a model is, apart from its parameters. Fields from proj_size to layer_norm are variants of
 * the cell; 0 is the usual LSTM:
 *
 *     i = gate(clip(z_i + p_i * c_{t-1}))          f = gate(clip(z_f + p_f * c_{t-1})), or 1 - i
 *     g = cell(clip(z_g))                          c~ = cell_clip(f * c_{t-1} + i * g)
 *     o = gate(clip(z_o + p_o * c~))               h~ = o * output(c~)
 *     c_t = zoneout_c * c_{t-1} + (1 - zoneout_c) * c~
 *     h_t = zoneout_h * h_{t-1} + (1 - zoneout_h) * h~, or of W_hr h~
 *
 * With layer normalisation z = LN(W x_t) s_W + LN(U h_{t-1}) s_U + b and h~ = o * output(LN(c~) s_c
 * + b_c), where LN(v) = (v - mean(v)) / sqrt(variance(v) + 1e-5) over all numbers of v. Clips and
 * rates are 0 or normal numbers of the dtype.
 */
typedef struct fl_config {
    size_t size;              /* sizeof(fl_config) */
    ptrdiff_t input_size;     /* I >= 1 */
    ptrdiff_t hidden_size;    /* H >= 1 */
    ptrdiff_t num_layers;     /* L >= 1 */
    ptrdiff_t num_directions; /* D: 1 forward in time, or reverse; 2 forward and reverse */
    int has_bias;             /* 0: the parameters hold no biases and b = 0 */
    fl_dtype dtype;           /* of parameters, inputs, states and results */
    ptrdiff_t proj_size;      /* P < H of the projection W_hr (Sak et al. 2014), 0 for none */
    int has_peepholes;        /* p_i, p_f, p_o (Gers and Schmidhuber 2000) */
    int coupled_gates;        /* f = 1 - i: no parameters of f, G = 3 */
    fl_activation gate_activation, cell_activation, output_activation;
    double clip;                 /* bound on what goes into gates and g, 0 for none (ONNX) */
    double cell_clip;            /* bound on the cell state, 0 for none (TensorFlow) */
    double zoneout_h, zoneout_c; /* in [0, 1] (Krueger et al. 2016), without masks: expectations */
    int layer_norm; /* of W x, U h and c~ on its way to h (Ba, Kiros and Hinton 2016) */
    int reverse;    /* the one direction runs from the last step to the first; 0 with D = 2 */
    int bits;       /* 0, or 8, 16 or 24: of the products of fl_model_create_quantized */
} fl_config;

/* A model: parameters packed for one instruction set. */
typedef struct fl_model fl_model;

/* Returns a constant English sentence for a status. Never NULL. */
FL_API const char *fl_status_message(fl_status status);

/* Number of instruction sets that this library was built with and this machine can run; >= 1. */
FL_API int fl_isa_count(void);

/* Returns the name of available instruction set `index`, the fastest first ("avx512", "avx2",
 * "neon", "scalar"), or NULL when index is not in [0, fl_isa_count()). */
FL_API const char *fl_isa_name(int index);

/* Returns the name of the instruction set that a model gets when none is asked for: the one that
 * the environment variable FASTLSTM_ISA names when it is set and not empty, else the fastest.
 * NULL when FASTLSTM_ISA names one that is not available. */
FL_API const char *fl_isa_default(void);

/* Size in bytes of the data cache of a level (1, 2 or 3) as the processor or the system reports
 * it; 0 when unknown. */
FL_API size_t fl_cache_size(int level);

/* How many threads a call may use at most, the calling one included. At first what the environment
 * variable FASTLSTM_NUM_THREADS says, else the processors that the process may use (affinity, and
 * a container's share). Calls use fewer where more would not pay, or others use the processors;
 * results are the same to the bit. Set: FL_ERROR_ARGUMENT when count is not in 1..64. */
FL_API int fl_get_num_threads(void);
FL_API fl_status fl_set_num_threads(int count);

/* Returns the name and version of the compiler that built the library. */
FL_API const char *fl_compiler(void);

/* Returns the version of the library, "MAJOR.MINOR.PATCH": that of the header it was built with. */
FL_API const char *fl_version(void);

/* Counts the parameters of a model.
 *
 * config  in.
 * count   out: number of reals in the parameter vector of fl_model_create.
 */
FL_API fl_status fl_parameter_count(const fl_config *config, size_t *count);

/* Makes a model.
 *
 * config      in.
 * isa         in: name of an instruction set, or NULL for fl_isa_default().
 * parameters  in: one vector, in the order of PyTorch's state_dict: for each layer, for each
 *             direction: W (G*H, I_l), U (G*H, P), then with bias b_ih (G*H), b_hh (G*H), with a
 *             projection W_hr (P, H), with peepholes p_i (H), p_f (H) unless gates are coupled, p_o
 *             (H), with layer normalisation scales of W x (G*H), U h (G*H) and c~ (H) and a shift
 *             of c~ (H). The G*H rows are H rows of each gate; b = b_ih + b_hh. Copied: it may be
 *             freed afterwards.
 * model       out: the model, to be freed by fl_model_destroy; NULL on error.
 */
FL_API fl_status fl_model_create(const fl_config *config, const char *isa, const void *parameters,
                                 fl_model **model);

/* A matrix in 8, 16 or 24 bits: number (r, k) is units[r] times the integer whose digits in base
 * 256, each from -128 to 127, are digits[0][r][k], the most significant, to digits[n - 1][r][k], n
 * = bits/8. */
typedef struct fl_quantized_matrix {
    const signed char *digits; /* in (n, R, K) */
    const float *units;        /* in (R); what is NaN makes all that follows of it NaN */
} fl_quantized_matrix;

/* The parameters of one direction of one layer, quantised. */
typedef struct fl_quantized_layer {
    fl_quantized_matrix w;    /* (G*H, I_l); digits NULL: W is w_real */
    fl_quantized_matrix u;    /* (G*H, P) */
    fl_quantized_matrix w_hr; /* (P, H) of a projection */
    const float *w_real;      /* in (G*H, I_l) in place of w: W x stays in float32 */
    const float
        *x_multipliers;  /* in (I_l), x is multiplied by them first; or NULL. Not with w_real */
    const float *others; /* in: b_ih, b_hh, peepholes, layer normalisation: what the vector of
                            fl_model_create has besides matrices, in that order. NULL: none */
} fl_quantized_layer;

/* Quantises weights (R, K), each row by its own largest magnitude: unit = largest / M rounded to
 * float, M = 127, 32639 or 8355711, and number / unit rounded to the nearest integer. Denormals
 * count as 0, and so does a row whose unit would be one. A row with a NaN or an infinity has digits
 * of 0 and a unit of NaN.
 *
 * digits  out (bits/8, R, K).      units  out (R).
 */
FL_API fl_status fl_quantize_rows(int bits, ptrdiff_t R, ptrdiff_t K, const float *weights,
                                  signed char *digits, float *units);

/* Makes a model whose products are of config->bits bits; dtype is FL_FLOAT32. Sums of products of
 * digits are exact, and all else is float32 in an order of its own, so that the rule of exactness
 * holds: docs/reference/low-precision.md. fl_forward and streams take it as any other; fl_record
 * and fl_backward return FL_ERROR_ARGUMENT. So does this, where a matrix has more columns than sums
 * of products have room for: 131,071 of 8 bits, 65,535 of 16, 43,690 of 24.
 *
 * isa     in: one of those that fl_quantized_isa_name names, or an instruction set, which stands
 * for the fastest of its own, or NULL. layers  in (L*D), index l*D + d. Copied.
 */
FL_API fl_status fl_model_create_quantized(const fl_config *config, const char *isa,
                                           const fl_quantized_layer *layers, fl_model **model);

/* Names of the instruction sets for such models, as fl_isa_count and fl_isa_name: "avx512_amx",
 * "avx512_vnni", "avx2_vnni", "avx2", "neon_dotprod", "neon", "scalar". FASTLSTM_ISA may be one of
 * them, too; other models then take the instruction set that it belongs to. */
FL_API int fl_quantized_isa_count(void);
FL_API const char *fl_quantized_isa_name(int index);

/* Frees a model. NULL is allowed. */
FL_API void fl_model_destroy(fl_model *model);

/* Returns the name of the instruction set that a model runs on. */
FL_API const char *fl_model_isa(const fl_model *model);

/* Bytes held by a model: its packed parameters and bookkeeping. */
FL_API size_t fl_model_bytes(const fl_model *model);

/* By which a long call can be given up: is_cancelled(context) is called again and again, by the
 * calling thread, in the floating-point environment that it called in: every few million
 * multiply-adds, or where products are larger every 20 to 30 ms or so, and often while it waits
 * for other threads. When it returns non-zero the call returns FL_ERROR_CANCELLED soon after: each
 * thread first ends what it is at, at most a step of some sequences. So does a call that has
 * threads and whose is_cancelled forks, in the child. Results then hold anything. */
typedef struct fl_watch {
    int (*is_cancelled)(void *context);
    void *context;
} fl_watch;

/* Rows of reals, read or written: element k of sequence b at step t is
 *
 *     data[t*stride_t + b*stride_b + k]            or, in a call with starts (fl_forward_call),
 *     data[(starts[t] + b)*stride_b + k]
 *
 * Strides of what is read may be zero or negative; of what is written no two elements may overlap.
 */
typedef struct fl_input {
    const void *data;
    ptrdiff_t stride_t, stride_b;
} fl_input;
typedef struct fl_output {
    void *data;
    ptrdiff_t stride_t, stride_b;
} fl_output;

/* A call of fl_forward. */
typedef struct fl_forward_call {
    size_t size; /* sizeof(fl_forward_call) */

    /* >= 0. With T = 0 the final states are the initial ones; with B = 0 nothing is done. */
    ptrdiff_t T, B;

    /* NULL, or in (T + 1), for sequences of different lengths, the longest first, without padding:
     * step t has the first starts[t + 1] - starts[t] sequences, and row (t, b) of x and y begins at
     * (starts[t] + b) times stride_b; starts[0] = 0. Each sequence ends, and a reverse direction
     * begins, at its own last step; one without steps keeps its states. */
    const ptrdiff_t *starts;

    fl_input x; /* in (T, B, I). Data may be NULL when T or B is 0 */

    /* in (L*D, B, P), (L*D, B, H) contiguous, index l*D + d; or NULL for zeros */
    const void *h_0, *c_0;

    /* out (T, B, D*P): the hidden states of the last layer, forward direction first. May not
     * overlap any input. Data NULL when only h_n and c_n are wanted. */
    fl_output y;

    /* out (L*D, B, P), (L*D, B, H) contiguous: the states after the last step of each direction.
     * h_n may be h_0 and c_n may be c_0; no other overlap is allowed. Required unless B is 0. */
    void *h_n, *c_n;

    /* in: NULL for a call that is never given up. One that was leaves anything in its results. */
    const fl_watch *watch;

    /* NULL, or in (B), in place of starts: the steps of each sequence, from 0 to T, in any order.
     * Rows of x and y beyond them are neither read nor written. first_rows, NULL or in (B), is for
     * sequences that lie elsewhere: row (t, b) begins at t*stride_t + first_rows[b]*stride_b.
     * Both starts and lengths, or first_rows alone, is FL_ERROR_ARGUMENT. */
    const ptrdiff_t *lengths, *first_rows;
} fl_forward_call;

/* Runs a model over B sequences of T steps.
 *
 * Flushes denormals to zero inside the call; the floating-point environment is as before after
 * it. Scratch memory is allocated and freed inside, for each thread that takes sequences: some
 * 8 MiB, or what two steps need where that is more, whatever T is; with D = 2 and L > 1 two arrays
 * as large as y besides; and where sequences have different lengths up to twice as much, T + 2B
 * integers, and states as large as h_n and c_n. On any error but FL_ERROR_CANCELLED nothing is
 * written.
 */
FL_API fl_status fl_forward(const fl_model *model, const fl_forward_call *call);

/* Masks that training drew, reals, contiguous; each NULL for none. With starts, the axes (T, B) are
 * one of starts[T] packed rows. Those of zoneout stand in for the model's rates, which must not be
 * 0 (FL_ERROR_ARGUMENT): 1 keeps the number of the step before, 0 does not.
 */
typedef struct fl_masks {
    const void *recurrent; /* in (L*D, B, P): multiplies h_{t-1} in U h_{t-1} */
    const void *between;   /* in (L - 1, T, B, D*P): multiplies what a layer hands to the next */
    const void *zoneout_h; /* in (L*D, T, B, P) */
    const void *zoneout_c; /* in (L*D, T, B, H) */
} fl_masks;

/* A call of fl_record. */
typedef struct fl_record_call {
    size_t size; /* sizeof(fl_record_call) */

    /* As in fl_forward_call. */
    ptrdiff_t T, B;
    const ptrdiff_t *starts;
    fl_input x;
    const void *h_0, *c_0;

    const fl_masks *masks; /* in, or NULL for none */

    /* As in fl_forward_call. */
    fl_output y;
    void *h_n, *c_n;

    /* out (L*D, T, B, R) contiguous, or with starts (L*D, starts[T], R): i, f, g, o after
     * activation and c of every step, R = 5H; of a variant then h, R = 5H + P; with layer
     * normalisation then W x and U h (G*H each) and c~ (H), normalised, and what each was divided
     * by, inverted. Its size is given by fl_tape_bytes; NULL when that is 0. May overlap nothing
     * else. */
    void *tape;

    const fl_watch *watch; /* as in fl_forward_call */
} fl_record_call;

/* The same as fl_forward, without masks to the bit, and leaves a tape for fl_backward. */
FL_API fl_status fl_record(const fl_model *model, const fl_record_call *call);

/* Size of a tape.
 *
 * T, B, starts  in: as in fl_forward_call.
 * bytes         out.
 */
FL_API fl_status fl_tape_bytes(const fl_model *model, ptrdiff_t T, ptrdiff_t B,
                               const ptrdiff_t *starts, size_t *bytes);

/* A call of fl_backward. A result whose pointer is NULL is not wanted, and neither computed. No
 * result may overlap an input or another result. */
typedef struct fl_backward_call {
    size_t size; /* sizeof(fl_backward_call) */

    /* Those of fl_record. The data of x is read only for dparameters, else it may be NULL. */
    ptrdiff_t T, B;
    const ptrdiff_t *starts;
    fl_input x;
    const void *h_0, *c_0;
    const fl_masks *masks;

    const void *parameters; /* in: the vector that the model was made of */
    const void *tape;       /* in: what fl_record wrote */

    fl_input dy;             /* in (T, B, D*P), data NULL for zeros */
    const void *dh_n, *dc_n; /* in (L*D, B, P), (L*D, B, H) contiguous, or NULL for zeros */

    int accumulate; /* whether to add to what the results hold instead of overwriting it */

    fl_output dx;      /* out (T, B, I) */
    void *dh_0, *dc_0; /* out (L*D, B, P), (L*D, B, H) contiguous */
    void *dparameters; /* out: laid out as the parameters. b_ih and b_hh have the same gradient */

    const fl_watch *watch; /* as in fl_forward_call */
} fl_backward_call;

/* Backpropagation through time: the gradients of a scalar with respect to the input, the initial
 * states and the parameters, from those with respect to y, h_n and c_n.
 *
 * Scratch memory is allocated inside, at most two arrays as large as y and what does not grow with
 * T; on any error but FL_ERROR_CANCELLED nothing is written. The bits of a sequence's dx, dh_0 and
 * dc_0 depend on the parameters and that sequence alone; those of dparameters also on the batch,
 * not on threads, strides or instruction set.
 */
FL_API fl_status fl_backward(const fl_model *model, const fl_backward_call *call);

/* A stream: a model fed a few steps at a time. It holds the state and all memory that it needs. One
 * thread at a time may use a stream; the model must outlive it. A step or push of a large layer
 * (from H = 160 or so) is shared out over threads as a call is, within fl_set_num_threads. The
 * first may start threads of the library, and each may wake them: where that is unwelcome, as in a
 * signal's handler or beside sounding audio, set one thread. */
typedef struct fl_stream fl_stream;

/* Makes a stream of `batch` >= 1 sequences, all states zero. FL_ERROR_ARGUMENT for a model with a
 * reverse direction, which would have to begin at the end.
 *
 * stream  out: to be freed by fl_stream_destroy; NULL on error.
 */
FL_API fl_status fl_stream_create(const fl_model *model, ptrdiff_t batch, fl_stream **stream);

/* Frees a stream. NULL is allowed. */
FL_API void fl_stream_destroy(fl_stream *stream);

/* One step. Allocates nothing and can't fail: arguments are not checked, and threads that can't be
 * started are done without.
 *
 * x_t  in (B, I) contiguous.        y_t  out (B, P) contiguous; may not overlap x_t.
 */
FL_API void fl_stream_step(fl_stream *stream, const void *x_t, void *y_t);

/* A call of fl_stream_push. */
typedef struct fl_stream_push_call {
    size_t size; /* sizeof(fl_stream_push_call) */
    ptrdiff_t T; /* >= 0 */
    fl_input x;  /* in (T, B, I). Data may be NULL when T is 0 */
    fl_output y; /* out (T, B, P); may not overlap x. Data may be NULL when T is 0 */

    /* in, or NULL. A push that is given up leaves the state as it was before, and anything in y. */
    const fl_watch *watch;
} fl_stream_push_call;

/* T steps, the same bits as T calls of fl_stream_step. Allocates nothing. */
FL_API fl_status fl_stream_push(fl_stream *stream, const fl_stream_push_call *call);

/* Sets the states of some sequences to zero.
 *
 * mask  in (B): the sequences with a non-zero byte; NULL for all.
 */
FL_API void fl_stream_reset(fl_stream *stream, const unsigned char *mask);

/* Copies the state out and in. h (L, B, P), c (L, B, H) contiguous. */
FL_API void fl_stream_get_state(const fl_stream *stream, void *h, void *c);
FL_API void fl_stream_set_state(fl_stream *stream, const void *h, const void *c);

#ifdef __cplusplus
}
#endif

#endif
