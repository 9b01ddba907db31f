/* What was built, and by what. */
#include "fastlstm.h"

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

const char *fl_version(void) {
    return TEXT(FL_VERSION_MAJOR) "." TEXT(FL_VERSION_MINOR) "." TEXT(FL_VERSION_PATCH);
}

const char *fl_compiler(void) {
#if defined(__clang__)
    return "Clang " __clang_version__;
#elif defined(__GNUC__)
    return "GCC " __VERSION__;
#elif defined(_MSC_VER)
    return "MSVC " TEXT(_MSC_FULL_VER);
#else
    return "unknown";
#endif
}
