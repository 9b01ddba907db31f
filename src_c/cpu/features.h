/* What the processor and the operating system together let a program use: a bit set. */
#ifndef FL_FEATURES_H
#define FL_FEATURES_H

#include <stdint.h>

/* Bits of a set. An instruction set is available where all that it needs is there. */
typedef enum fl_feature {
    FL_FEATURE_FMA = 1 << 0,
    FL_FEATURE_AVX2 = 1 << 1,
    FL_FEATURE_AVX512F = 1 << 2,
    FL_FEATURE_AVX_VNNI = 1 << 3,    /* products of 8-bit integers, 256 bits */
    FL_FEATURE_AVX512_VNNI = 1 << 4, /* the same, 512 bits */
    FL_FEATURE_AMX_INT8 = 1 << 5,    /* the same, tiles; to be used after fl_amx_request */
    FL_FEATURE_NEON = 1 << 6,        /* arm64 always has it */
    FL_FEATURE_DOTPROD = 1 << 7,     /* arm64's products of 8-bit integers, four at a time */
    FL_FEATURE_I8MM = 1 << 8         /* the same, of matrices of 2 x 8 */
} fl_feature;
enum { FL_FEATURES = 9 };
typedef uint32_t fl_features;

/* The features of this machine. The processor is asked once. */
fl_features fl_features_detect(void);

/* The name of bit `index`, in lower case, or NULL when index is not in [0, FL_FEATURES). */
const char *fl_features_name(int index);

/* What an x86-64 processor and its system say: registers of CPUID by leaf and subleaf, and the
 * register states that the system saves (0 when it says nothing of them). */
typedef struct fl_x86_words {
    uint32_t leaf_1_ecx, leaf_7_0_ebx, leaf_7_0_ecx, leaf_7_0_edx, leaf_7_1_eax;
    uint64_t xcr0;
} fl_x86_words;
fl_features fl_features_of_x86(const fl_x86_words *words);

/* The same for arm64, by the words that Linux hands to a program (AT_HWCAP and AT_HWCAP2). */
fl_features fl_features_of_arm64(uint64_t hwcap, uint64_t hwcap2);

/* Asks the system to let this process use AMX's tiles. Linux does so on demand alone, since they
 * add eight kilobytes to the saved state of a thread. Returns whether they may be used. */
int fl_amx_request(void);

#endif
