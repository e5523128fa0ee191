/* Opening below a directory that nothing in the path can lead out of.
 *
 * Python has no openat2(2). The C library of Debian 12 has no wrapper either, so the system call is made by
 * number; where the kernel headers do not know it, ENOSYS sends the caller to the Python twin.
 */
#define _GNU_SOURCE
#include "kernels.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef SYS_openat2
#include <linux/openat2.h>

/* Whether one of the components is "..": openat2 lets "a/.." pass, which nobody here needs. */
static int goes_up(const char *path)
{
    for (const char *at = path; (at = strstr(at, "..")) != NULL; at += 2)
        if ((at == path || at[-1] == '/') && (at[2] == '/' || at[2] == '\0'))
            return 1;
    return 0;
}

int sp_open_beneath(int dir_fd, const char *path, int flags, mode_t mode)
{
    struct open_how how = {
        .flags = (uint64_t)(unsigned int)flags,
        .mode = mode,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };

    if (goes_up(path)) {
        errno = EXDEV;
        return -1;
    }
    return (int)syscall(SYS_openat2, dir_fd, path, &how, sizeof how);
}

#else

int sp_open_beneath(int dir_fd, const char *path, int flags, mode_t mode)
{
    (void)dir_fd, (void)path, (void)flags, (void)mode;
    errno = ENOSYS;
    return -1;
}

#endif
