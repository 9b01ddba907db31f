/* Activations of whole rows, written once. */

/* y (n) = activation of x (n). */
#define FL_ELEMENTWISE(name, function)                                                     \
    static void FL_NAME(name)(ptrdiff_t n, const void *x_, void *y_) {                     \
        const FL_REAL *x = x_;                                                             \
        FL_REAL *y = y_;                                                                   \
        ptrdiff_t j = 0;                                                                   \
        for (; j + FL_V <= n; j += FL_V) v_store(y + j, FL_NAME(function)(v_load(x + j))); \
        if (j < n) v_store_n(y + j, FL_NAME(function)(v_load_n(x + j, n - j)), n - j);     \
    }
FL_ELEMENTWISE(apply_sigmoid, v_sigmoid)
FL_ELEMENTWISE(apply_tanh, v_tanh)
#undef FL_ELEMENTWISE
