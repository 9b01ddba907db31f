/* Steps that are more than one kernel. */
#include "steps.h"

#include <stdint.h>

#include "memory.h"
#include "quantized.h"

/* Rows of `width` reals from one and a column on; NULL for none. */
static char *rows_from(const fl_model *model, const char *rows, ptrdiff_t row, ptrdiff_t width,
                       ptrdiff_t column) {
    const ptrdiff_t real = (ptrdiff_t)model->kernels->real_bytes;
    return rows ? (char *)(uintptr_t)rows + (row * width + column) * real : NULL;
}

/* z (rows, panels, G, V) of U h alone, from a bias of 0 on. */
static void product_of_h(const fl_model *model, const fl_direction *direction, fl_panels panels,
                         const fl_step *step, char *z, const fl_room *room) {
    if (model->digits)
        fl_quantized_product(model, &direction->u_digits, panels, step->rows, step->h,
                             step->h_stride, direction->bias, 0, z, model->z_row, room);
    else
        fl_model_product(model, panels, step->rows, step->P, step->h, step->h_stride, direction->u,
                         direction->bias, z, model->z_row);
}

/* h (rows, P) = h~ (rows, H) @ W_hr^T for some columns. The rows of z that the cells have read take
 * what kernels of digits write in panels. */
static void project(const fl_model *model, const fl_direction *direction, const fl_columns *own,
                    ptrdiff_t rows, const char *cells, char *z, char *y, ptrdiff_t y_stride,
                    const fl_room *room) {
    const fl_kernels *kernels = model->kernels;
    const ptrdiff_t H = model->config.hidden_size, P = model->output_size;
    if (model->digits == NULL) {
        kernels->multiply(own->panels.first, own->panels.end, rows, H, P, cells, H,
                          direction->projection, y, y_stride, 0, model->near_bytes);
        return;
    }
    if (own->count <= 0) return;
    const ptrdiff_t V = kernels->lanes, first = own->first / V;
    const fl_panels panels = {first, (own->first + own->count - 1) / V + 1 - first, 0};
    fl_quantized_product(model, &direction->projection_digits, panels, rows, cells, H, model->zeros,
                         0, z, model->z_row, room);
    kernels->put_rows(rows, own->count, (const float *)(const void *)z + own->first, model->z_row,
                      (float *)(void *)y + own->first, y_stride, 0);
}

int fl_step_general(const fl_model *model, const fl_direction *direction, const fl_walk *walk,
                    ptrdiff_t s, ptrdiff_t first, ptrdiff_t end, const char *h, ptrdiff_t h_stride,
                    char *z, fl_share *share) {
    const fl_kernels *kernels = model->kernels;
    const fl_config *config = &model->config;
    const size_t real = kernels->real_bytes;
    const fl_direction_scratch *scratch = walk->scratch;
    const ptrdiff_t H = config->hidden_size, P = model->output_size;
    const ptrdiff_t t = fl_walk_time(walk, s), rows = end - first, y_stride = walk->y.stride_b;
    const fl_room room = fl_scratch_room(model, scratch, share->index);
    char *y = fl_rows_at(walk->y, t, first, real);
    z += first * model->z_row * (ptrdiff_t)real;
    char *c = walk->c + first * H * (ptrdiff_t)real;
    if (!model->is_variant && model->digits) {
        fl_quantized_step(model, direction, fl_panels_part(model, share->index, share->count), rows,
                          h, h_stride, z, c, y, y_stride, s % 2 != 0, &room);
        return 0;
    }
    fl_columns own = fl_columns_part(model, P, share);
    const char *recurrent = fl_rows_find(walk->recurrent, 0, first, real);
    char *cells = rows_from(model, scratch->cells, first, H, 0);
    const ptrdiff_t h_row = recurrent ? P : h_stride;
    char *masked = rows_from(model, scratch->masked, first, P, 0);
    if (recurrent) {
        kernels->mask_rows(rows, own.count, rows_from(model, recurrent, 0, P, own.first), P,
                           rows_from(model, h, 0, P, own.first), h_stride, NULL, 0,
                           rows_from(model, masked, 0, P, own.first), P);
        if (fl_share_wait(share)) return 1;
    }
    fl_step step = {.config = config, .rows = rows, .P = P, .h_stride = h_row};
    step.h = recurrent ? masked : h;
    step.u = model->digits ? direction->bias : direction->u; /* not read: P is 0 then */
    step.z = z;
    step.z_stride = model->z_row;
    step.peepholes = direction->peepholes;
    step.zoneout_c = fl_rows_find(walk->zoneout_c, t, first, real);
    step.c = c;
    step.h_out = model->needs_rows ? cells : y;
    step.h_out_stride = model->needs_rows ? H : y_stride;
    step.record = fl_rows_find(walk->tape, t, first, real);
    step.record_stride = model->record_size;
    step.backward = s % 2 != 0;
    char *candidates = rows_from(model, scratch->candidates, first, H, 0);
    step.near_bytes = model->near_bytes;
    if (config->layer_norm) { /* U h is a whole of its own, and the cell begins with it */
        char *product = rows_from(model, scratch->recurrent, first, model->z_row, 0);
        product_of_h(model, direction, fl_panels_part(model, share->index, share->count), &step,
                     product, &room);
        if (fl_share_wait(share)) return 1;
        const fl_norm norm = fl_walk_norm(model, direction, walk, 1, t, first, rows);
        if (fl_share_has_rows(share)) kernels->norm_gates(&norm, model->panels, product, z);
        if (fl_share_wait(share)) return 1;
        step.P = 0;
        step.candidate = candidates;
    }
    const fl_panels panels = fl_panels_part(model, share->index, share->count);
    if (model->digits && step.P > 0) {
        fl_quantized_product(model, &direction->u_digits, panels, rows, h, h_row,
                             (const float *)(const void *)z, model->z_row, z, model->z_row, &room);
        step.P = 0;
    }
    if (model->is_variant) fl_model_variant_step(model, panels, &step);
    else
        fl_model_step(model, direction, panels, rows, step.h, h_row, step.z, step.c, y, y_stride,
                      step.record, step.backward);
    if (!model->needs_rows) return 0;
    if (fl_share_wait(share)) return 1;
    if (config->layer_norm) {
        const fl_norm norm = fl_walk_norm(model, direction, walk, 2, t, first, rows);
        if (fl_share_has_rows(share)) kernels->norm_cell(&norm, cells, candidates, cells, H);
        if (fl_share_wait(share)) return 1;
    }
    own = fl_columns_part(model, P, share);
    char *own_y = rows_from(model, y, 0, P, own.first);
    if (config->proj_size) project(model, direction, &own, rows, cells, z, y, y_stride, &room);
    else
        kernels->put_rows(rows, own.count, rows_from(model, cells, 0, H, own.first), H, own_y,
                          y_stride, 0);
    if (config->zoneout_h > 0)
        kernels->mix_rows(
            rows, own.count,
            rows_from(model, fl_rows_find(walk->zoneout_h, t, first, real), 0, P, own.first), P,
            config->zoneout_h, rows_from(model, h, 0, P, own.first), h_stride, own_y, y_stride,
            own_y, y_stride);
    if (step.record)
        kernels->put_rows(rows, own.count, own_y, y_stride,
                          (char *)step.record + (5 * H + own.first) * (ptrdiff_t)real,
                          step.record_stride, 0);
    return 0;
}
