/* Structs of a caller, whose compiler may have known fewer fields of them, or more. */
#ifndef FL_STRUCTS_H
#define FL_STRUCTS_H

#include <stddef.h>
#include <string.h>

#include "platform.h"

/* Size of a struct that ended with field `last` in the first version that had it. */
#define FL_FIRST_SIZE(type, last) (offsetof(type, last) + sizeof((type *)0)->last)

/* Returns the struct at `given`, which begins with its size, as the library knows it: `given`
 * itself where the two agree, else a copy in `own`, where what the caller does not know is zero.
 * NULL where there is none, where it is smaller than first_size, or where a field that the library
 * does not know is set. */
FL_INLINE const void *fl_struct_read(const void *given, void *own, size_t own_size,
                                     size_t first_size) {
    size_t size;
    if (given == NULL) return NULL;
    memcpy(&size, given, sizeof size);
    if (size == own_size) return given;
    if (size < first_size) return NULL;
    for (size_t i = own_size; i < size; i++)
        if (((const char *)given)[i] != 0) return NULL;
    memset(own, 0, own_size);
    memcpy(own, given, size < own_size ? size : own_size);
    return own;
}

#endif
