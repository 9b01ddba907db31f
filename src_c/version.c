/* What this build of the library is. */
#include "fastlstm.h"

#define FL_TEXT_(x) #x
#define FL_TEXT(x) FL_TEXT_(x)

const char *fl_compiler(void) {
#if defined(__clang__)
    return "Clang " __clang_version__;
#elif defined(__GNUC__)
    return "GCC " __VERSION__;
#elif defined(_MSC_VER)
    return "MSVC " FL_TEXT(_MSC_FULL_VER);
#else
    return "unknown";
#endif
}
