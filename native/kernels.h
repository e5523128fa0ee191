/* Kernels of sarrapipe._native: plain C, no Python inside, so that each can be read and tested alone.
 *
 * native/README.md lists every kernel with the measurement that put it here; sarrapipe/_twin.py holds the
 * Python twin of each, and both pass the same tests (tests/unit/test_native.py).
 */
#ifndef SARRAPIPE_KERNELS_H
#define SARRAPIPE_KERNELS_H

#include <stdint.h>
#include <sys/types.h>

/* 64-bit words in memory that several processes map; `word` is aligned to 8 bytes. */
uint64_t sp_atomic_load(const uint64_t *word);
void sp_atomic_store(uint64_t *word, uint64_t value);
uint64_t sp_atomic_add(uint64_t *word, uint64_t delta); /* the value after the addition, modulo 2^64 */
int sp_atomic_cas(uint64_t *word, uint64_t expected, uint64_t desired); /* 1 if it was swapped */

/* openat2(2) with RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS: a descriptor, or -1 and errno. */
int sp_open_beneath(int dir_fd, const char *path, int flags, mode_t mode);

/* syncfs(2): 0, or -1 and errno. */
int sp_sync_file_system(int fd);

#endif
