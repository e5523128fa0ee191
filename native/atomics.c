/* Atomic 64-bit words in shared memory, sequentially consistent. */
#include "kernels.h"

uint64_t sp_atomic_load(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

void sp_atomic_store(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

uint64_t sp_atomic_add(uint64_t *word, uint64_t delta)
{
    return __atomic_add_fetch(word, delta, __ATOMIC_SEQ_CST);
}

int sp_atomic_cas(uint64_t *word, uint64_t expected, uint64_t desired)
{
    return __atomic_compare_exchange_n(word, &expected, desired, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
