/* Counts what a process does to the files below one folder, and lets the n-th of these calls fail or be the last.
 *
 * Loaded with LD_PRELOAD by faults.py. Counted are the calls through which Python, numpy, pyarrow and torch change
 * files: creating, writing, syncing, renaming, removing. Every counted call is written to the log before it is made.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NOTHING, KILL, TORN, FAIL, FULL, READONLY };
enum { PASS, HALF, THEN_DIE, REFUSE };

static char prefix[4096];
static size_t prefix_length;
static int mode = NOTHING, log_descriptor = -1;
static long target = -1;
static atomic_long count;

void faults_arm(const char *folder, int how, long at, int descriptor) {
    strncpy(prefix, folder, sizeof prefix - 1);
    prefix_length = strlen(prefix);
    mode = how;
    target = at;
    log_descriptor = descriptor;
    atomic_store(&count, 0);
}

long faults_count(void) { return atomic_load(&count); }

static int inside(const char *path) {
    return prefix_length && strncmp(path, prefix, prefix_length) == 0;
}

static void of_descriptor(int descriptor, char *path) {
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(name, path, 4095);
    path[length < 0 ? 0 : length] = 0;
}

static void full_path(int directory, const char *name, char *path) {
    if (name[0] == '/') { snprintf(path, 4096, "%s", name); return; }
    if (directory == AT_FDCWD) { if (!getcwd(path, 4096)) path[0] = 0; }
    else of_descriptor(directory, path);
    size_t length = strlen(path);
    snprintf(path + length, 4096 - length, "/%s", name);
}

static void die(void) { syscall(SYS_kill, syscall(SYS_getpid), SIGKILL); pause(); }

/* What is to happen with this call: made as it is, made by half, made and then the end, or refused. */
static int decide(const char *what, const char *path, const char *other, int grows, int writes) {
    if (!inside(path)) return PASS;
    long now = atomic_fetch_add(&count, 1);
    if (log_descriptor >= 0) {
        char line[9000];
        int length = snprintf(line, sizeof line, "%s\t%s\t%s\n", what, path, other);
        syscall(SYS_write, log_descriptor, line, length);
    }
    if (mode == KILL && now == target) die();
    if (mode == TORN && now == target) return writes ? HALF : THEN_DIE;
    if (mode == FAIL && now == target) { errno = grows ? ENOSPC : EIO; return REFUSE; }
    if (mode == FULL && now >= target && grows) { errno = ENOSPC; return REFUSE; }
    if (mode == READONLY && now >= target) { errno = EROFS; return REFUSE; }
    return PASS;
}

#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) real = dlsym(RTLD_NEXT, name)
#define DONE(verdict, call) \
    do { if (verdict == REFUSE) return -1; \
         __typeof__(call) made = call; if (verdict == THEN_DIE) die(); return made; } while (0)

ssize_t write(int descriptor, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    char path[4096];
    if (!prefix_length) return real(descriptor, data, size);
    of_descriptor(descriptor, path);
    int verdict = decide("write", path, "", 1, 1);
    if (verdict == HALF) { real(descriptor, data, size / 2); die(); }
    DONE(verdict, real(descriptor, data, size));
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    char path[4096];
    of_descriptor(descriptor, path);
    int verdict = decide("write", path, "", 1, 1);
    if (verdict == HALF) { real(descriptor, data, size / 2, at); die(); }
    DONE(verdict, real(descriptor, data, size, at));
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t at) {
    return pwrite64(descriptor, data, size, at);
}

ssize_t writev(int descriptor, const struct iovec *parts, int n) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    char path[4096];
    of_descriptor(descriptor, path);
    int verdict = decide("write", path, "", 1, 1);
    if (verdict == HALF) { real(descriptor, parts, n / 2); die(); }
    DONE(verdict, real(descriptor, parts, n));
}

size_t fwrite(const void *data, size_t size, size_t n, FILE *file) {
    REAL(size_t, "fwrite", const void *, size_t, size_t, FILE *);
    char path[4096];
    if (!prefix_length) return real(data, size, n, file);
    of_descriptor(fileno(file), path);
    int verdict = decide("write", path, "", 1, 1);
    if (verdict == REFUSE) return 0;
    if (verdict == HALF) { real(data, size, n / 2, file); fflush(file); die(); }
    return real(data, size, n, file);
}

ssize_t sendfile64(int out, int in, off64_t *at, size_t size) {
    REAL(ssize_t, "sendfile64", int, int, off64_t *, size_t);
    char path[4096];
    of_descriptor(out, path);
    int verdict = decide("write", path, "", 1, 1);
    if (verdict == HALF) { real(out, in, at, 100); die(); }
    DONE(verdict, real(out, in, at, size));
}

ssize_t sendfile(int out, int in, off_t *at, size_t size) { return sendfile64(out, in, at, size); }

int ftruncate64(int descriptor, off64_t size) {
    REAL(int, "ftruncate64", int, off64_t);
    char path[4096];
    of_descriptor(descriptor, path);
    int verdict = decide("write", path, "", 0, 0);
    DONE(verdict, real(descriptor, size));
}

int ftruncate(int descriptor, off_t size) { return ftruncate64(descriptor, size); }

static int opened(int directory, const char *name, int flags, mode_t rights) {
    if (!prefix_length || !(flags & (O_CREAT | O_TRUNC))) return syscall(SYS_openat, directory, name, flags, rights);
    char path[4096];
    full_path(directory, name, path);
    int verdict = decide("write", path, "", 1, 0);
    DONE(verdict, (int)syscall(SYS_openat, directory, name, flags, rights));
}

#define RIGHTS(flags) \
    mode_t rights = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); rights = va_arg(rest, mode_t); va_end(rest); }

int open(const char *name, int flags, ...) { RIGHTS(flags) return opened(AT_FDCWD, name, flags, rights); }
int open64(const char *name, int flags, ...) { RIGHTS(flags) return opened(AT_FDCWD, name, flags, rights); }
int openat(int directory, const char *name, int flags, ...) { RIGHTS(flags) return opened(directory, name, flags, rights); }
int openat64(int directory, const char *name, int flags, ...) { RIGHTS(flags) return opened(directory, name, flags, rights); }

static int synced(const char *name, int descriptor) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    char path[4096];
    of_descriptor(descriptor, path);
    int verdict = decide("sync", path, "", 0, 0);
    DONE(verdict, real(descriptor));
}

int fsync(int descriptor) { return synced("fsync", descriptor); }
int fdatasync(int descriptor) { return synced("fdatasync", descriptor); }

int renameat(int from_directory, const char *from, int to_directory, const char *to) {
    char path[4096], other[4096];
    full_path(from_directory, from, path);
    full_path(to_directory, to, other);
    int verdict = decide("rename", path, other, 0, 0);
    DONE(verdict, (int)syscall(SYS_renameat2, from_directory, from, to_directory, to, 0));
}

int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

int unlinkat(int directory, const char *name, int flags) {
    char path[4096];
    full_path(directory, name, path);
    int verdict = decide("remove", path, "", 0, 0);
    DONE(verdict, (int)syscall(SYS_unlinkat, directory, name, flags));
}

int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdirat(int directory, const char *name, mode_t rights) {
    char path[4096];
    full_path(directory, name, path);
    int verdict = decide("mkdir", path, "", 1, 0);
    DONE(verdict, (int)syscall(SYS_mkdirat, directory, name, rights));
}

int mkdir(const char *name, mode_t rights) { return mkdirat(AT_FDCWD, name, rights); }
