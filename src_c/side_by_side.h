/* Two directions of a layer, or two layers of a stack, side by side: a tiny step is one chain of
 * operations that wait for each other, and while those of one wait, those of the other run. The
 * second layer is some steps behind the first, whose output it reads. Nothing changes a bit. */
#ifndef FL_SIDE_BY_SIDE_H
#define FL_SIDE_BY_SIDE_H

#include <stddef.h>

#include "kernels/kernels.h"
#include "memory.h"
#include "model.h"
#include "rows.h"
#include "threads.h"

enum {
    /* Steps of a lane between two input products, a tile of rows; by so many a layer is behind the
     * one below it. Fewer make small products, more leave the two less time together: of 16 steps
     * of two layers, 6 took 1.45 times the time of one layer, 8 took 1.50, 16 took 1.82. */
    FL_LANE_STEPS = 6,
    /* The most that U of one lane may take, so that both stay in an L1 cache of 32 KiB. Measured
     * with one of 48 KiB, two directions took 1.28 times the time of one with 4 KiB (H = 16), 1.65
     * with 16 KiB (H = 32), 1.91 with 25 KiB, and 2.16 with 36 KiB, where one after the other took
     * 2.0. */
    FL_LANE_BYTES = 16 * 1024
};

/* One direction of one layer over the steps of a sequence. */
typedef struct fl_lane {
    const fl_direction *direction;
    int reverse;
    fl_rows x, y; /* in (T, 1, I_l), out (T, 1, H) */
    fl_rows tape; /* out (T, 1, R); data NULL for none, in both lanes */
    char *h, *c;  /* (H), the state, in and out */
    char *z;      /* scratch (fl_lanes_steps, panels, G, V) */
} fl_lane;

/* Steps of z that each of two lanes needs over T steps of B sequences, of one length if starts is
 * NULL; 0 where they are not worth running so. */
static inline ptrdiff_t fl_lanes_steps(const fl_model *model, ptrdiff_t T, ptrdiff_t B,
                                       const ptrdiff_t *starts) {
    const fl_config *config = &model->config;
    const int pay =
        B == 1 && starts == NULL && !model->is_general &&
        (config->num_directions == 2 || (config->num_layers > 1 && T > FL_LANE_STEPS)) &&
        model->z_row * config->hidden_size * (ptrdiff_t)model->kernels->real_bytes <= FL_LANE_BYTES;
    return pay ? fl_size_min(T, FL_LANE_STEPS) : 0;
}

/* Runs two lanes over T steps. are_layers: the second reads what the first writes. Returns early
 * when the call is given up. */
void fl_lanes_run(const fl_model *model, const fl_lane *lanes, ptrdiff_t T, int are_layers,
                  fl_stop *stop, int thread);

#endif
