/* The vectorisation contract. A loop marked KERNEL is plain C over restrict pointers; the compiler
 * makes a clone for AVX-512, AVX2 and the baseline, and the loader picks one. All give the same
 * bits: only IEEE add, subtract, multiply, divide, square root and comparisons, no contraction
 * (-ffp-contract=off), no reassociation. Reductions keep their own fixed lanes. Empty where clones
 * do not exist (not glibc on x86-64; clang 14 gives the resolvers of static clones names that
 * clash) or must not be used: -DDESCENT_SCALAR (`make check-scalar` holds both builds to the same
 * bits; sanitizers cannot run inside the loader's resolver). */
#ifndef DESCENT_CORE_SIMD_H
#define DESCENT_CORE_SIMD_H

#include <stddef.h> /* makes __GLIBC__ known through features.h */
#include <stdint.h>

#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__) && !defined(DESCENT_SCALAR)
#define KERNEL __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#define KERNEL_CLONES 1
#else
#define KERNEL
#define KERNEL_CLONES 0
#endif

/* Which clone the loader picks on this machine: "avx512", "avx2" or "default", which is also what
 * there is without clones. */
const char *simd_path(void);

#endif
