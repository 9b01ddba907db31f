/* Two directions of a layer, or two layers of a stack, side by side. */
#include <string.h>

#include "side_by_side.h"
#include "kernels/kernels.h"
#include "memory.h"
#include "model.h"

/* A lane at one of its chunks: n steps from `first` on, which are the times from t on. */
typedef struct place {
    ptrdiff_t first, n, t;
} place;

static ptrdiff_t time_of(const fl_lane *lane, ptrdiff_t T, ptrdiff_t s) {
    return lane->reverse ? T - 1 - s : s;
}

/* Goes to the chunk of steps from `first` on, of which there may be none, and makes its z. Returns
 * whether the call is given up. */
static int begin_chunk(const fl_model *model, const fl_lane *lane, ptrdiff_t T, ptrdiff_t first,
                       fl_stop *stop, int thread, place *at) {
    const ptrdiff_t I = lane->direction->input_size;
    const ptrdiff_t n = first < 0 ? 0 : fl_size_min(FL_LANE_STEPS, T - first);
    *at = (place){first, n, lane->reverse ? T - first - n : first};
    if (n <= 0) return 0;
    const double row = (double)model->z_row * (double)(I + model->output_size);
    if (fl_stop_check(stop, thread, row * (double)n)) return 1;
    fl_model_product(model, fl_panels_all(model), n, I,
                     fl_rows_at(lane->x, at->t, 0, model->kernels->real_bytes), lane->x.stride_t,
                     lane->direction->w, lane->direction->bias, lane->z, model->z_row);
    return 0;
}

/* What step s works on. */
FL_INLINE fl_side side_of(const fl_model *model, const fl_lane *lane, ptrdiff_t T, place at,
                          ptrdiff_t s) {
    const size_t real = model->kernels->real_bytes;
    const ptrdiff_t t = time_of(lane, T, s);
    fl_side side = {.u = lane->direction->u, .c = lane->c};
    side.h = s > 0 ? fl_rows_at(lane->y, time_of(lane, T, s - 1), 0, real) : lane->h;
    side.z = lane->z + (t - at.t) * model->z_row * (ptrdiff_t)real;
    side.h_out = fl_rows_at(lane->y, t, 0, real);
    side.record = fl_rows_find(lane->tape, t, 0, real);
    return side;
}

static void take_one(const fl_model *model, const fl_lane *lane, ptrdiff_t T, place at,
                     ptrdiff_t s) {
    const fl_side side = side_of(model, lane, T, at, s);
    fl_model_step(model, lane->direction, fl_panels_all(model), 1, side.h, 0, side.z, side.c,
                  side.h_out, 0, side.record, 0);
}

void fl_lanes_run(const fl_model *model, const fl_lane *lanes, ptrdiff_t T, int are_layers,
                  fl_stop *stop, int thread) {
    const ptrdiff_t lag = are_layers ? FL_LANE_STEPS : 0;
    for (ptrdiff_t now = 0; now < T + lag; now += FL_LANE_STEPS) {
        place a, b;
        if (begin_chunk(model, &lanes[0], T, now, stop, thread, &a) ||
            begin_chunk(model, &lanes[1], T, now - lag, stop, thread, &b))
            return;
        ptrdiff_t i = 0;
        for (; i < fl_size_min(a.n, b.n); i++) {
            const fl_side sides[2] = {side_of(model, &lanes[0], T, a, a.first + i),
                                      side_of(model, &lanes[1], T, b, b.first + i)};
            fl_model_step_pair(model, sides);
        }
        for (ptrdiff_t s = i; s < a.n; s++) take_one(model, &lanes[0], T, a, a.first + s);
        for (ptrdiff_t s = i; s < b.n; s++) take_one(model, &lanes[1], T, b, b.first + s);
    }
    for (int i = 0; i < 2; i++)
        memcpy(lanes[i].h,
               fl_rows_at(lanes[i].y, time_of(&lanes[i], T, T - 1), 0, model->kernels->real_bytes),
               (size_t)model->output_size * model->kernels->real_bytes);
}
