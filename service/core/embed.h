/* EMBED(name, "path"): the bytes of a file of the project inside the binary, as `name_begin ..
 * name_end`, NUL after them. The path is taken from the project's root, where every compiler call
 * runs. */
#ifndef DESCENT_CORE_EMBED_H
#define DESCENT_CORE_EMBED_H

#define EMBED(name, path)                                                                          \
    __asm__(".pushsection .rodata\n"                                                               \
            ".balign 16\n"                                                                         \
            ".global " #name "_begin\n"                                                            \
            ".global " #name "_end\n" #name "_begin:\n"                                            \
            ".incbin \"" path "\"\n" #name "_end:\n"                                               \
            ".byte 0\n"                                                                            \
            ".popsection\n");                                                                      \
    extern const char name##_begin[], name##_end[]

#endif
