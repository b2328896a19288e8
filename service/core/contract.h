/* Asserts that stay on in release: PRE for what the caller owes, POST for what the callee promises.
 * A failure is a bug of ours, never of the input: it prints where and aborts, and the journal heals
 * what was in memory. */
#ifndef DESCENT_CORE_CONTRACT_H
#define DESCENT_CORE_CONTRACT_H

_Noreturn void contract_broken(const char *kind, const char *what, const char *file, int line);

#define PRE(condition)                                                                             \
    ((condition) ? (void)0 : contract_broken("precondition", #condition, __FILE__, __LINE__))
#define POST(condition)                                                                            \
    ((condition) ? (void)0 : contract_broken("postcondition", #condition, __FILE__, __LINE__))

#endif
