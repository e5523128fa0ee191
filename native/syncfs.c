/* Writing out a whole file system at once, which Python's os module has no function for. */
#define _GNU_SOURCE
#include "kernels.h"

#include <unistd.h>

int sp_sync_file_system(int fd)
{
    return syncfs(fd);
}
