/* A contestant of the grid "precision" by bench/peers/lstm.h, computed in double. */
#include "lstm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct lstm {
    int T, B, I, H;
    const float *w, *u;
    float *b;
};

/* Refuses more than 64 hidden units, as one whose sizes are compiled in would. */
void *lstm_new(int T, int B, int I, int H, const float *w, const float *u, const float *b,
               const float *x, int threads) {
    (void)x, (void)threads;
    struct lstm *one = H > 64 ? NULL : malloc(sizeof *one);
    if (one == NULL) {
        return NULL;
    }
    float *copy = malloc(sizeof *copy * 4 * H * (I + H + 1));
    *one = (struct lstm){T, B, I, H, copy, copy + 4 * H * I, copy + 4 * H * (I + H)};
    memcpy(copy, w, sizeof *copy * 4 * H * I);
    memcpy(copy + 4 * H * I, u, sizeof *copy * 4 * H * H);
    memcpy(one->b, b, sizeof *copy * 4 * H);
    return one;
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

void lstm_run(void *lstm, const float *x, const float *h_0, const float *c_0, float *y, float *h_n,
              float *c_n) {
    const struct lstm *s = lstm;
    memcpy(c_n, c_0, sizeof *c_n * s->B * s->H);
    for (int t = 0; t < s->T; t++) {
        const float *h = t ? y + (size_t)(t - 1) * s->B * s->H : h_0;
        for (int row = 0; row < s->B; row++) {
            for (int unit = 0; unit < s->H; unit++) {
                double z[4];
                for (int gate = 0; gate < 4; gate++) {
                    int at = gate * s->H + unit;
                    z[gate] = s->b[at];
                    for (int k = 0; k < s->I; k++) {
                        z[gate] += s->w[at * s->I + k] * x[(t * s->B + row) * s->I + k];
                    }
                    for (int k = 0; k < s->H; k++) {
                        z[gate] += s->u[at * s->H + k] * h[row * s->H + k];
                    }
                }
                float *c = &c_n[row * s->H + unit];
                *c = (float)(sigmoid(z[1]) * *c + sigmoid(z[0]) * tanh(z[2]));
                y[(t * s->B + row) * s->H + unit] = (float)(sigmoid(z[3]) * tanh(*c));
            }
        }
    }
    memcpy(h_n, y + (size_t)(s->T - 1) * s->B * s->H, sizeof *h_n * s->B * s->H);
}

void lstm_delete(void *lstm) {
    free((void *)((struct lstm *)lstm)->w);
    free(lstm);
}
