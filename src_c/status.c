/* What a status means, in words. */
#include "fastlstm.h"

const char *fl_status_message(fl_status status) {
    switch (status) {
        case FL_OK: return "success";
        case FL_ERROR_ARGUMENT: return "an argument is out of range or a null pointer";
        case FL_ERROR_OVERFLOW: return "a product of sizes does not fit";
        case FL_ERROR_MEMORY: return "out of memory";
        case FL_ERROR_ISA: return "the instruction set is unknown or not available";
        case FL_ERROR_CANCELLED: return "the call was given up";
    }
    return "unknown status";
}
