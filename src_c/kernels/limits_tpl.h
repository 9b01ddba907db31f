/* What the hardware allows, measured with the same vocabulary: peak of the multiply-adds, and the
 * rate at which memory can be read. For benchmarks only. */

enum { FL_NAME(CHAINS) = 12 }; /* enough to hide the latency of two units, few enough to fit */

/* n rounds of CHAINS independent fused multiply-adds. Returns the operations done, two for each
 * lane; *sink is written so that the work must be done. */
static double FL_NAME(limit_fma)(ptrdiff_t n, volatile double *sink) {
    vreal chain[FL_NAME(CHAINS)];
    FL_UNROLL
    for (int j = 0; j < FL_NAME(CHAINS); j++) chain[j] = v_set1((FL_REAL)(j + *sink));
    const vreal a = v_set1((FL_REAL)0.5), b = v_set1((FL_REAL)0.25);
    for (ptrdiff_t i = 0; i < n; i++) {
        FL_UNROLL
        for (int j = 0; j < FL_NAME(CHAINS); j++) chain[j] = v_fma(chain[j], a, b);
    }
    FL_REAL lanes[FL_V];
    FL_UNROLL
    for (int j = 1; j < FL_NAME(CHAINS); j++) chain[0] = v_add(chain[0], chain[j]);
    v_store(lanes, chain[0]);
    *sink = (double)lanes[0];
    return 2.0 * FL_NAME(CHAINS) * (double)FL_V * (double)n;
}

/* Reads x (n) `repeats` times, in vectors; a remainder of up to 8 vectors is left out. Returns the
 * bytes read. */
static double FL_NAME(limit_read)(ptrdiff_t n, const void *x_, ptrdiff_t repeats,
                                  volatile double *sink) {
    const FL_REAL *x = x_;
    const ptrdiff_t whole = n - n % (8 * FL_V);
    FL_REAL lanes[FL_V];
    for (ptrdiff_t repeat = 0; repeat < repeats; repeat++) {
        vreal sum[8];
        FL_UNROLL
        for (int j = 0; j < 8; j++) sum[j] = v_set1(0);
        for (ptrdiff_t i = 0; i < whole; i += 8 * FL_V) {
            FL_UNROLL
            for (int j = 0; j < 8; j++) sum[j] = v_add(sum[j], v_load(x + i + j * FL_V));
        }
        FL_UNROLL
        for (int j = 1; j < 8; j++) sum[0] = v_add(sum[0], sum[j]);
        v_store(lanes, sum[0]);
        *sink = (double)lanes[0];
    }
    return (double)sizeof(FL_REAL) * (double)whole * (double)repeats;
}
