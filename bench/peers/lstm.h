/* What a shared library has to offer to be a contestant of the grid "precision", for peers that
 * have no Python package: bench/peers/shared_library.py calls it. All arrays are contiguous
 * float32; gates in the order i, f, g, o. */
#ifndef BENCH_PEERS_LSTM_H
#define BENCH_PEERS_LSTM_H

#ifdef __cplusplus
extern "C" {
#endif

/* Makes an LSTM for calls of these sizes: w (4H, I), u (4H, H), b (4H); x (T, B, I), the input
 * that it will be called with, is there to learn scales from. NULL where it has no such sizes. */
void *lstm_new(int T, int B, int I, int H, const float *w, const float *u, const float *b,
               const float *x, int threads);

/* One call: x (T, B, I), h_0 and c_0 (B, H) in; y (T, B, H), h_n and c_n (B, H) out. */
void lstm_run(void *lstm, const float *x, const float *h_0, const float *c_0, float *y, float *h_n,
              float *c_n);

void lstm_delete(void *lstm);

#ifdef __cplusplus
}
#endif

#endif
