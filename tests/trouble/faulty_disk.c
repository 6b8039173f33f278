/* A disk that fails: preloaded, it lets the n-th write or sync of a file in one folder fail, or all from there on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { ONCE = 0, LASTING = 1, TORN = 2 };

static char folder[4096];
static atomic_long calls, first;
static atomic_int error_number, mode;

/* Begins to count the calls on files of a folder, at 1. The call `at` fails; 0 is none. */
void disk_arm(const char *path, long at, int error, int how) {
    strncpy(folder, path, sizeof folder - 1);
    calls = 0, first = at, error_number = error, mode = how;
}

long disk_calls(void) { return calls; }

/* 0: the call goes on; 1: it fails; 2: half of it is done (of a write), and what comes after fails. */
static int struck(int fd) {
    char name[64], path[4096];
    int saved = errno;
    if (!folder[0]) return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, sizeof path - 1);
    errno = saved;
    if (length < 0) return 0;
    path[length] = 0;
    if (strncmp(path, folder, strlen(folder))) return 0;
    long number = atomic_fetch_add(&calls, 1) + 1;
    if (!first || number < first || (mode == ONCE && number > first)) return 0;
    if (mode == TORN && number == first) return 2;
    errno = error_number;
    return 1;
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define WRITES(name, parameters, some, all) \
    ssize_t name parameters { REAL(name); int how = struck(fd); return how == 1 ? -1 : how ? real some : real all; }
#define CALLS(name, parameters, all) \
    int name parameters { REAL(name); if (!struck(fd)) return real all; errno = error_number; return -1; }

WRITES(write, (int fd, const void *data, size_t size), (fd, data, size / 2), (fd, data, size))
WRITES(pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size / 2, at), (fd, data, size, at))
WRITES(pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size / 2, at), (fd, data, size, at))
CALLS(fsync, (int fd), (fd))
CALLS(fdatasync, (int fd), (fd))
CALLS(ftruncate, (int fd, off_t size), (fd, size))
CALLS(ftruncate64, (int fd, off64_t size), (fd, size))
