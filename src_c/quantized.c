/* Products of a quantised model. */
#include "quantized.h"

#include "memory.h"

/* A block of rows stays in a core's cache beside the weights of some panels, and has enough of them
 * that weights which come from farther are worth reading once for each block. */
enum { ROOM_BYTES = 128 * 1024, ROOM_ROWS = 32 };

ptrdiff_t fl_room_rows(const fl_model *model, ptrdiff_t rows) {
    if (model->digits == NULL) return 0;
    const ptrdiff_t fit = ROOM_BYTES / model->digit_row / ROOM_ROWS * ROOM_ROWS;
    return fl_size_min(rows, fl_size_max(fit, ROOM_ROWS));
}

void fl_quantized_product(const fl_model *model, const fl_digits *w, fl_panels panels,
                          ptrdiff_t rows, const void *a_, ptrdiff_t a_stride, const void *start_,
                          ptrdiff_t start_stride, void *z_, ptrdiff_t z_stride,
                          const fl_room *room) {
    const float *a = a_, *start = start_;
    float *z = z_;
    if (panels.count <= 0) return;
    for (ptrdiff_t first = 0; first < rows; first += room->rows) {
        const ptrdiff_t n = fl_size_min(room->rows, rows - first);
        model->digits->quantize(w, n, a + first * a_stride, a_stride, &room->digits);
        model->digits->product(w, panels.first, panels.count, n, &room->digits,
                               start + first * start_stride, start_stride, z + first * z_stride,
                               z_stride);
    }
}

void fl_quantized_inputs(const fl_model *model, const fl_direction *direction, fl_panels panels,
                         ptrdiff_t rows, const void *x, ptrdiff_t x_stride, void *z,
                         ptrdiff_t z_stride, const fl_room *room) {
    if (direction->w == NULL)
        fl_quantized_product(model, &direction->w_digits, panels, rows, x, x_stride,
                             direction->bias, 0, z, z_stride, room);
    else
        fl_model_product(model, panels, rows, direction->input_size, x, x_stride, direction->w,
                         direction->bias, z, z_stride);
}

void fl_quantized_step(const fl_model *model, const fl_direction *direction, fl_panels panels,
                       ptrdiff_t rows, const void *h_, ptrdiff_t h_stride, const void *z_, void *c_,
                       void *h_out_, ptrdiff_t h_out_stride, int backward, const fl_room *room) {
    const ptrdiff_t H = model->config.hidden_size;
    const fl_digits *u = &direction->u_digits;
    const float *h = h_, *z = z_;
    float *c = c_, *h_out = h_out_;
    if (panels.count <= 0) return;
    for (ptrdiff_t first = 0; first < rows; first += room->rows) {
        const ptrdiff_t n = fl_size_min(room->rows, rows - first);
        model->digits->quantize(u, n, h + first * h_stride, h_stride, &room->digits);
        model->digits->step(u, panels.first, panels.count, n, H, &room->digits,
                            z + first * model->z_row, model->z_row, c + first * H,
                            h_out + first * h_out_stride, h_out_stride, backward);
    }
}
