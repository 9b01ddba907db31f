/* Structs of the C API with their size set: CONFIG(I, H, L, D, bias, dtype, .proj_size = P), and
 * calls of one struct each, FORWARD(model, .T = T, .B = B, .x = {x, B * I, I}, ...). */
#ifndef CALLS_H
#define CALLS_H

#include "fastlstm.h"

/* clang-format off */
#define CONFIG(...) {sizeof(fl_config), __VA_ARGS__}
/* clang-format on */
#define FORWARD(model, ...) \
    fl_forward(model, &(const fl_forward_call){.size = sizeof(fl_forward_call), __VA_ARGS__})
#define RECORD(model, ...) \
    fl_record(model, &(const fl_record_call){.size = sizeof(fl_record_call), __VA_ARGS__})
#define BACKWARD(model, ...) \
    fl_backward(model, &(const fl_backward_call){.size = sizeof(fl_backward_call), __VA_ARGS__})
#define PUSH(stream, ...)  \
    fl_stream_push(stream, \
                   &(const fl_stream_push_call){.size = sizeof(fl_stream_push_call), __VA_ARGS__})

#endif
