/* What differs between compilers and architectures, in one place. */
#ifndef FL_PLATFORM_H
#define FL_PLATFORM_H

#include <float.h>
#include <stdint.h>

#if defined(__x86_64__) || defined(_M_X64)
#define FL_X86 1
#else
#define FL_X86 0
#endif

#if defined(__aarch64__) || defined(_M_ARM64)
#define FL_ARM64 1
#else
#define FL_ARM64 0
#endif

#if defined(__FAST_MATH__)
#error "-ffast-math would change the bits of results: build fastlstm without it"
#endif
#if FLT_EVAL_METHOD != 0
#error \
    "fastlstm needs float and double arithmetic without excess precision (on 32-bit x86: -msse2 -mfpmath=sse)"
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define FL_INLINE static __forceinline
#define FL_THREAD_LOCAL __declspec(thread)
#define FL_NOINLINE __declspec(noinline)
#define FL_NOCLONE __declspec(noinline)
#define FL_UNROLL
#define FL_UNROLL_4
#define FL_PREFETCH(p) ((void)(p))
#define FL_PREFETCH_FAR(p) ((void)(p))
#pragma fp_contract(off)
#else
#define FL_INLINE static inline __attribute__((always_inline))
#define FL_THREAD_LOCAL _Thread_local
#define FL_NOINLINE __attribute__((noinline))
/* The compiler makes copies of functions for constant arguments, up to a share of a file's size. A
 * function that is not to take of that share has no copies. */
#if defined(__clang__)
#define FL_NOCLONE __attribute__((noinline))
#else
#define FL_NOCLONE __attribute__((noinline, noclone))
#endif
/* Register tiles are small arrays: every loop over one must be unrolled to stay in registers. Of
 * loops that are as long as rows, those that cost little else go by four. */
#if defined(__clang__)
#define FL_UNROLL _Pragma("clang loop unroll(full)")
#define FL_UNROLL_4 _Pragma("clang loop unroll_count(4)")
#else
#define FL_UNROLL _Pragma("GCC unroll 32")
#define FL_UNROLL_4 _Pragma("GCC unroll 4")
#endif
#define FL_PREFETCH(p) __builtin_prefetch(p)
#define FL_PREFETCH_FAR(p) __builtin_prefetch(p, 0, 2) /* not as far as the smallest cache */
#endif

/* Visible from outside even where the library is built with hidden symbols. */
#if defined(_WIN32)
#define FL_EXPORT __declspec(dllexport)
#else
#define FL_EXPORT __attribute__((visibility("default")))
#endif

enum { FL_LINE = 64 /* bytes: a cache line, and the widest vector */ };

#define FL_CAT_(a, b) a##b
#define FL_CAT(a, b) FL_CAT_(a, b)

/* FL_TARGET_BEGIN(feature list) ... FL_TARGET_END: the functions between may use these x86
 * features, whatever the flags of the compilation are. MSVC needs no permission. */
#define FL_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define FL_TARGET_BEGIN(features) \
    FL_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define FL_TARGET_END FL_PRAGMA(clang attribute pop)
#elif defined(__GNUC__)
#define FL_TARGET_BEGIN(features) FL_PRAGMA(GCC push_options) FL_PRAGMA(GCC target(features))
#define FL_TARGET_END FL_PRAGMA(GCC pop_options)
#else
#define FL_TARGET_BEGIN(features)
#define FL_TARGET_END
#endif

/* Whether the compiler knows AVX-VNNI: 8-bit products in 256 bits, on processors since 2021. */
#if defined(__clang__)
#define FL_AVX_VNNI (FL_X86 && __clang_major__ >= 12)
#elif defined(__GNUC__)
#define FL_AVX_VNNI (FL_X86 && __GNUC__ >= 11)
#else
#define FL_AVX_VNNI (FL_X86 && _MSC_VER >= 1930)
#endif

/* Whether there can be AMX: compilers know it, and Linux is asked for it (cpu/features.h). */
#if !defined(__linux__) || !FL_X86
#define FL_AMX 0
#elif defined(__clang__)
#define FL_AMX (__clang_major__ >= 12)
#else
#define FL_AMX (__GNUC__ >= 11)
#endif

/* The floating-point environment inside a call: round to nearest, no traps, denormal inputs and
 * results are zero. fl_fp_enter returns the caller's, for fl_fp_leave. A result that would round up
 * to the smallest normal number is kept by x86-64, which looks after rounding, and flushed by
 * arm64, which looks before: there alone the two can differ. */
#if FL_X86
#include <immintrin.h>
typedef unsigned int fl_fp_state;
FL_INLINE fl_fp_state fl_fp_enter(void) {
    const unsigned int all_masked = 0x1f80, flush_to_zero = 0x8000, denormals_are_zero = 0x0040;
    fl_fp_state saved = _mm_getcsr();
    _mm_setcsr(all_masked | flush_to_zero | denormals_are_zero);
    return saved;
}
FL_INLINE void fl_fp_leave(fl_fp_state saved) { _mm_setcsr(saved); }
#elif FL_ARM64 && defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
typedef int64_t fl_fp_state;
FL_INLINE fl_fp_state fl_fp_enter(void) {
    fl_fp_state saved = _ReadStatusReg(ARM64_FPCR);
    _WriteStatusReg(ARM64_FPCR, (int64_t)1 << 24);
    return saved;
}
FL_INLINE void fl_fp_leave(fl_fp_state saved) { _WriteStatusReg(ARM64_FPCR, saved); }
#elif FL_ARM64
typedef uint64_t fl_fp_state;
FL_INLINE fl_fp_state fl_fp_enter(void) {
    const uint64_t flush_to_zero = (uint64_t)1 << 24;
    fl_fp_state saved;
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
    __asm__ volatile("msr fpcr, %0" : : "r"(flush_to_zero) : "memory");
    return saved;
}
FL_INLINE void fl_fp_leave(fl_fp_state saved) {
    __asm__ volatile("msr fpcr, %0" : : "r"(saved) : "memory");
}
#else
/* Elsewhere the environment is left alone: exact too, but denormals are kept, so that the smallest
 * results can differ from those of x86-64 and arm64. */
typedef int fl_fp_state;
FL_INLINE fl_fp_state fl_fp_enter(void) { return 0; }
FL_INLINE void fl_fp_leave(fl_fp_state saved) { (void)saved; }
#endif

#endif
