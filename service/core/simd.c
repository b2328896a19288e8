/* Which clones run. */
#include "service/core/simd.h"

const char *simd_path(void)
{
#if KERNEL_CLONES
    /* The question that the loader's resolvers ask, in their order. */
    __builtin_cpu_init();
    if (__builtin_cpu_supports("x86-64-v4"))
        return "avx512";
    if (__builtin_cpu_supports("avx2"))
        return "avx2";
#endif
    return "default";
}
