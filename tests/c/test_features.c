/* Tests of what is found out about a processor: on pretended ones, and against the system's own
 * list on the real one. */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* syscall */
#endif
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "cpu/features.h"
#include "fastlstm.h"
#include "kernels/kernels.h"
#include "platform.h"

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum { HASWELL = FL_FEATURE_FMA | FL_FEATURE_AVX2 };

/* Words as those processors give them, but for bits that nothing here reads. */
static void test_pretended_x86(void) {
    const uint32_t fma_avx = 1u << 12 | 1u << 27 | 1u << 28;
    const struct {
        fl_x86_words words;
        fl_features expected;
    } processors[] = {
        /* Nehalem: neither AVX nor XSAVE. */
        {{0}, 0},
        /* Sandy Bridge: AVX alone. */
        {{.leaf_1_ecx = 1u << 27 | 1u << 28, .xcr0 = 0x7}, 0},
        /* Haswell, on systems that save its registers, and that don't. */
        {{.leaf_1_ecx = fma_avx, .leaf_7_0_ebx = 0x000027ab, .xcr0 = 0x7}, HASWELL},
        {{.leaf_1_ecx = fma_avx, .leaf_7_0_ebx = 0x000027ab, .xcr0 = 0x3}, 0},
        {{.leaf_1_ecx = fma_avx, .leaf_7_0_ebx = 0x000027ab, .xcr0 = 0}, 0},
        /* Skylake-SP, and where the system leaves out one of the states of AVX-512. */
        {{.leaf_1_ecx = fma_avx, .leaf_7_0_ebx = 0xd39ffffb, .xcr0 = 0xe7},
         HASWELL | FL_FEATURE_AVX512F},
        {{.leaf_1_ecx = fma_avx, .leaf_7_0_ebx = 0xd39ffffb, .xcr0 = 0x67}, HASWELL},
        {{.leaf_1_ecx = fma_avx, .leaf_7_0_ebx = 0xd39ffffb, .xcr0 = 0xa7}, HASWELL},
        {{.leaf_1_ecx = fma_avx, .leaf_7_0_ebx = 0xd39ffffb, .xcr0 = 0xc7}, HASWELL},
        /* Ice Lake: AVX512-VNNI. */
        {{fma_avx, .leaf_7_0_ebx = 0xf3bfffff, .leaf_7_0_ecx = 0x00405f4e, .xcr0 = 0xe7},
         HASWELL | FL_FEATURE_AVX512F | FL_FEATURE_AVX512_VNNI},
        /* Alder Lake: AVX-VNNI without AVX-512. */
        {{fma_avx, 0x239c27eb, 0x984007ac, 0xfc18c410, .leaf_7_1_eax = 0x00401c30, .xcr0 = 0x7},
         HASWELL | FL_FEATURE_AVX_VNNI},
        /* Sapphire Rapids, and where the system saves no tiles, or only their layout. */
        {{fma_avx, 0xf3bfbfff, 0xfb417ffe, 0xffdd4432, 0x00001c30, .xcr0 = 0x602e7},
         HASWELL | FL_FEATURE_AVX512F | FL_FEATURE_AVX_VNNI | FL_FEATURE_AVX512_VNNI |
             FL_FEATURE_AMX_INT8},
        {{fma_avx, 0xf3bfbfff, 0xfb417ffe, 0xffdd4432, 0x00001c30, .xcr0 = 0x2e7},
         HASWELL | FL_FEATURE_AVX512F | FL_FEATURE_AVX_VNNI | FL_FEATURE_AVX512_VNNI},
        {{fma_avx, 0xf3bfbfff, 0xfb417ffe, 0xffdd4432, 0x00001c30, .xcr0 = 0x202e7},
         HASWELL | FL_FEATURE_AVX512F | FL_FEATURE_AVX_VNNI | FL_FEATURE_AVX512_VNNI},
        /* The same with tiles for bfloat16 alone, and with no tiles for their integers. */
        {{fma_avx, 0xf3bfbfff, 0xfb417ffe, 0xfddd4432, 0x00001c30, .xcr0 = 0x602e7},
         HASWELL | FL_FEATURE_AVX512F | FL_FEATURE_AVX_VNNI | FL_FEATURE_AVX512_VNNI},
        {{fma_avx, 0xf3bfbfff, 0xfb417ffe, 0xfedd4432, 0x00001c30, .xcr0 = 0x602e7},
         HASWELL | FL_FEATURE_AVX512F | FL_FEATURE_AVX_VNNI | FL_FEATURE_AVX512_VNNI},
    };
    for (size_t i = 0; i < sizeof processors / sizeof *processors; i++)
        CHECK(fl_features_of_x86(&processors[i].words) == processors[i].expected);
}

static void test_pretended_arm64(void) {
    const uint64_t cortex_a72 = 0xff, cortex_a76 = 0x10ffff, neoverse_v1 = 0xffffffff;
    CHECK(fl_features_of_arm64(cortex_a72, 0) == FL_FEATURE_NEON);
    CHECK(fl_features_of_arm64(cortex_a76, 0) == (FL_FEATURE_NEON | FL_FEATURE_DOTPROD));
    CHECK(fl_features_of_arm64(neoverse_v1, 1u << 13) ==
          (FL_FEATURE_NEON | FL_FEATURE_DOTPROD | FL_FEATURE_I8MM));
}

static void test_names(void) {
    CHECK(fl_features_name(-1) == NULL && fl_features_name(FL_FEATURES) == NULL);
    for (int i = 0; i < FL_FEATURES; i++)
        for (int j = 0; j <= i; j++)
            CHECK((strcmp(fl_features_name(i), fl_features_name(j)) == 0) == (i == j));
    const fl_features found = fl_features_detect();
    CHECK(found >> FL_FEATURES == 0 && found == fl_features_detect());
}

#if defined(__linux__)
/* The first line of /proc/cpuinfo that begins with `key`. Returns whether there is one: an emulator
 * of another processor shows that of the real one. */
static int read_list(const char *key, char *line, int size) {
    FILE *file = fopen("/proc/cpuinfo", "r");
    int found = 0;
    while (file && !found && fgets(line, size, file)) found = strncmp(line, key, strlen(key)) == 0;
    if (file) fclose(file);
    return found;
}

static void test_like_the_system(void) {
    char line[8192], *rest = NULL;
    fl_features listed = 0;
    if (!read_list(FL_X86 ? "flags" : "Features", line, sizeof line)) return;
    for (char *word = strtok_r(line, " \t\n", &rest); word; word = strtok_r(NULL, " \t\n", &rest))
        for (int i = 0; i < FL_FEATURES; i++) {
            const char *name = fl_features_name(i);
            if (strcmp(name, "neon") == 0) name = "asimd";
            if (strcmp(name, "dotprod") == 0) name = "asimddp";
            if (strcmp(name, word) == 0) listed |= (fl_features)1 << i;
        }
    CHECK(fl_features_detect() == listed);
}
#endif

#if defined(__linux__) && FL_X86
/* Whether the system lets this process use tiles, by its own word. */
static int tiles_are_permitted(void) {
    const long arch_get_xcomp_perm = 0x1022, tile_data = 18;
    unsigned long states = 0;
    return syscall(SYS_arch_prctl, arch_get_xcomp_perm, &states) == 0 && states >> tile_data & 1;
}
#endif

static void test_permission(void) {
#if defined(__linux__) && FL_X86
    CHECK(!tiles_are_permitted()); /* nothing before asked for them */
    CHECK(fl_amx_request() == tiles_are_permitted());
#endif
    if (!(fl_features_detect() & FL_FEATURE_AMX_INT8)) CHECK(!fl_amx_request());
}

/* Each instruction set has its tables by dtype and kind of weights, and needs what it needs. */
static void test_tables(void) {
    const fl_features found = fl_features_detect();
    const fl_features avx512 = HASWELL | FL_FEATURE_AVX512F;
    CHECK(!fl_kernels_find("avx2", FL_FLOAT32, FL_WEIGHTS_REAL) == ((found & HASWELL) != HASWELL));
    CHECK(!fl_kernels_find("avx512", FL_FLOAT32, FL_WEIGHTS_REAL) == ((found & avx512) != avx512));
    CHECK(!fl_kernels_find("neon", FL_FLOAT32, FL_WEIGHTS_REAL) == !(found & FL_FEATURE_NEON));
    for (int i = 0; i < fl_isa_count(); i++)
        for (int dtype = FL_FLOAT32; dtype <= FL_FLOAT64; dtype++) {
            const fl_kernels *kernels =
                fl_kernels_find(fl_isa_name(i), (fl_dtype)dtype, FL_WEIGHTS_REAL);
            CHECK(kernels && kernels->dtype == (fl_dtype)dtype);
            CHECK(kernels && strcmp(kernels->isa, fl_isa_name(i)) == 0);
            CHECK(!fl_kernels_find(fl_isa_name(i), (fl_dtype)dtype, FL_WEIGHTS_KINDS));
        }
    CHECK(!fl_kernels_find("scalar", (fl_dtype)2, FL_WEIGHTS_REAL));
    CHECK(!fl_kernels_find("none", FL_FLOAT32, FL_WEIGHTS_REAL));
}

int main(void) {
    test_pretended_x86();
    test_pretended_arm64();
    test_names();
#if defined(__linux__)
    test_like_the_system();
#endif
    test_permission();
    test_tables();
    return checks_report();
}
