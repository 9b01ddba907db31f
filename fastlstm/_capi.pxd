# The C core as Cython sees it; fastlstm.h and probes.h say what each means.

from libc.stddef cimport size_t


cdef extern from "fastlstm.h" nogil:
    ctypedef enum fl_status:
        FL_OK
        FL_ERROR_ARGUMENT
        FL_ERROR_OVERFLOW
        FL_ERROR_MEMORY
        FL_ERROR_ISA
        FL_ERROR_CANCELLED

    ctypedef enum fl_dtype:
        FL_FLOAT32
        FL_FLOAT64

    ctypedef enum fl_activation:
        FL_USUAL

    ctypedef struct fl_config:
        size_t size
        ptrdiff_t input_size
        ptrdiff_t hidden_size
        ptrdiff_t num_layers
        ptrdiff_t num_directions
        int has_bias
        fl_dtype dtype
        ptrdiff_t proj_size
        int has_peepholes
        int coupled_gates
        fl_activation gate_activation
        fl_activation cell_activation
        fl_activation output_activation
        double clip
        double cell_clip
        double zoneout_h
        double zoneout_c
        int layer_norm
        int reverse
        int bits

    ctypedef struct fl_quantized_matrix:
        const signed char *digits
        const float *units

    ctypedef struct fl_quantized_layer:
        fl_quantized_matrix w
        fl_quantized_matrix u
        fl_quantized_matrix w_hr
        const float *w_real
        const float *x_multipliers
        const float *others

    ctypedef struct fl_masks:
        const void *recurrent
        const void *between
        const void *zoneout_h
        const void *zoneout_c

    ctypedef struct fl_watch:
        int (*is_cancelled)(void *) noexcept nogil
        void *context

    ctypedef struct fl_input:
        const void *data
        ptrdiff_t stride_t
        ptrdiff_t stride_b

    ctypedef struct fl_output:
        void *data
        ptrdiff_t stride_t
        ptrdiff_t stride_b

    ctypedef struct fl_forward_call:
        size_t size
        ptrdiff_t T
        ptrdiff_t B
        const ptrdiff_t *starts
        fl_input x
        const void *h_0
        const void *c_0
        fl_output y
        void *h_n
        void *c_n
        const fl_watch *watch
        const ptrdiff_t *lengths
        const ptrdiff_t *first_rows

    ctypedef struct fl_record_call:
        size_t size
        ptrdiff_t T
        ptrdiff_t B
        const ptrdiff_t *starts
        fl_input x
        const void *h_0
        const void *c_0
        const fl_masks *masks
        fl_output y
        void *h_n
        void *c_n
        void *tape
        const fl_watch *watch

    ctypedef struct fl_backward_call:
        size_t size
        ptrdiff_t T
        ptrdiff_t B
        const ptrdiff_t *starts
        fl_input x
        const void *h_0
        const void *c_0
        const fl_masks *masks
        const void *parameters
        const void *tape
        fl_input dy
        const void *dh_n
        const void *dc_n
        int accumulate
        fl_output dx
        void *dh_0
        void *dc_0
        void *dparameters
        const fl_watch *watch

    ctypedef struct fl_stream_push_call:
        size_t size
        ptrdiff_t T
        fl_input x
        fl_output y
        const fl_watch *watch

    ctypedef struct fl_model:
        pass

    const char *fl_status_message(fl_status)
    int fl_isa_count()
    const char *fl_isa_name(int)
    const char *fl_isa_default()
    size_t fl_cache_size(int)
    const char *fl_compiler()
    int fl_get_num_threads()
    fl_status fl_set_num_threads(int)
    fl_status fl_parameter_count(const fl_config *, size_t *)
    fl_status fl_model_create(const fl_config *, const char *, const void *, fl_model **)
    fl_status fl_quantize_rows(
        int, ptrdiff_t, ptrdiff_t, const float *, signed char *, float *)
    fl_status fl_model_create_quantized(
        const fl_config *, const char *, const fl_quantized_layer *, fl_model **)
    int fl_quantized_isa_count()
    const char *fl_quantized_isa_name(int)
    void fl_model_destroy(fl_model *)
    const char *fl_model_isa(const fl_model *)
    size_t fl_model_bytes(const fl_model *)
    fl_status fl_forward(const fl_model *, const fl_forward_call *)
    fl_status fl_record(const fl_model *, const fl_record_call *)
    fl_status fl_tape_bytes(
        const fl_model *, ptrdiff_t, ptrdiff_t, const ptrdiff_t *, size_t *)
    fl_status fl_backward(const fl_model *, const fl_backward_call *)

    ctypedef struct fl_stream:
        pass

    fl_status fl_stream_create(const fl_model *, ptrdiff_t, fl_stream **)
    void fl_stream_destroy(fl_stream *)
    void fl_stream_step(fl_stream *, const void *, void *)
    fl_status fl_stream_push(fl_stream *, const fl_stream_push_call *)
    void fl_stream_reset(fl_stream *, const unsigned char *)
    void fl_stream_get_state(const fl_stream *, void *, void *)
    void fl_stream_set_state(fl_stream *, const void *, const void *)


cdef extern from "probes.h" nogil:
    fl_status fl_probe_sigmoid(const char *, fl_dtype, ptrdiff_t, const void *, void *)
    fl_status fl_probe_tanh(const char *, fl_dtype, ptrdiff_t, const void *, void *)
    double fl_probe_fma(const char *, fl_dtype, ptrdiff_t)
    double fl_probe_read(const char *, fl_dtype, ptrdiff_t, const void *, ptrdiff_t)


cdef extern from "cpu/features.h" nogil:
    enum:
        FL_FEATURES

    ctypedef unsigned int fl_features

    fl_features fl_features_detect()
    const char *fl_features_name(int)


cdef extern from "rows.h" nogil:
    ctypedef struct fl_sorted:
        ptrdiff_t T
        const ptrdiff_t *order
        const ptrdiff_t *starts
        const ptrdiff_t *first_rows

    fl_status fl_sorted_create(
        fl_sorted *, ptrdiff_t, ptrdiff_t, const ptrdiff_t *, const ptrdiff_t *)
    void fl_sorted_destroy(fl_sorted *)


cdef extern from "linear.h" nogil:
    ctypedef struct fl_linear:
        fl_dtype dtype
        ptrdiff_t rows
        ptrdiff_t K
        ptrdiff_t N
        const void *x
        const void *weight
        const void *bias
        void *z

    fl_status fl_linear_apply(const fl_linear *, const char *)

    ctypedef struct fl_linear_gradient:
        fl_dtype dtype
        ptrdiff_t rows
        ptrdiff_t K
        ptrdiff_t N
        const void *dz
        const void *x
        const void *weight
        void *dweight
        void *dbias
        void *dx

    fl_status fl_linear_backward(const fl_linear_gradient *, const char *)


cdef extern from "softmax.h" nogil:
    ctypedef struct fl_softmax:
        fl_dtype dtype
        ptrdiff_t rows
        ptrdiff_t N
        const void *z
        const void *scales
        void *out
        void *largest
        void *totals
        double *at

    fl_status fl_softmax_apply(const fl_softmax *, const char *)


cdef extern from "vectors.h" nogil:
    ctypedef struct fl_adam:
        fl_dtype dtype
        ptrdiff_t n
        const void *g
        void *p
        void *m
        void *v
        void *v_max
        double beta1
        double beta2
        double eps
        double rate
        double correction
        double keep
        double decay

    double fl_norm(fl_dtype, ptrdiff_t, const void *)
    void fl_adam_step(const fl_adam *)
