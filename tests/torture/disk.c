/* A disk that tells what it was asked and fails when it is told to; preloaded into a process (LD_PRELOAD).
 *
 *   DISK_ROOT   the folder whose files are meant; everything else is left alone
 *   DISK_TRACE  a file that gets one record for each change and each sync, in the order in which they were done
 *   DISK_FAULT  a file whose first byte is what goes wrong: 0 nothing, 1 no space, 2 read-only, 3 syncs fail
 *
 * Each call is made and recorded under one lock, so the order of the records is the order of the calls.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#define FILES 65536
enum { CREATE = 1, WRITE, TRUNCATE, SYNC, UNLINK };
enum { FULL = 1, READ_ONLY, NO_SYNC };
struct record { uint32_t what, path; uint64_t at, size; };

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static char *names[FILES];
static const char *root;
static int trace = -1;
static volatile unsigned char *fault;
static int (*real_open)(const char *, int, ...);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_fsync)(int), (*real_fdatasync)(int), (*real_ftruncate)(int, off_t);
static int (*real_unlink)(const char *), (*real_close)(int);

/* Other libraries' constructors may call before this one's. */
__attribute__((constructor)) static void begin(void) {
    if (real_close) return;
    real_open = dlsym(RTLD_NEXT, "open");
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_close = dlsym(RTLD_NEXT, "close");
    root = getenv("DISK_ROOT");
    if (getenv("DISK_TRACE")) trace = real_open(getenv("DISK_TRACE"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (getenv("DISK_FAULT")) {
        int control = real_open(getenv("DISK_FAULT"), O_RDONLY | O_CLOEXEC);
        if (control >= 0) {
            void *page = mmap(NULL, 1, PROT_READ, MAP_SHARED, control, 0);
            if (page != MAP_FAILED) fault = page;
            real_close(control);
        }
    }
}

static int ours(const char *path) { return root && path && strncmp(path, root, strlen(root)) == 0; }
static const char *name_of(int fd) { return fd >= 0 && fd < FILES ? names[fd] : NULL; }
static int goes_wrong(int kind) { return fault && *fault == kind; }

static void put(const void *data, size_t size) {
    const char *at = data;
    while (size > 0) {
        ssize_t done = real_write(trace, at, size);
        if (done <= 0) abort();
        at += done;
        size -= done;
    }
}

static void tell(uint32_t what, const char *path, uint64_t at, uint64_t size, const void *data) {
    if (trace < 0) return;
    struct record head = {what, strlen(path), at, size};
    put(&head, sizeof head);
    put(path, head.path);
    if (data) put(data, size);
}

static int opened(const char *path, int flags, mode_t mode) {
    begin();
    if (!ours(path)) return real_open(path, flags, mode);
    pthread_mutex_lock(&turn);
    int fresh = (flags & O_CREAT) && access(path, F_OK) != 0;
    int fd = -1;
    if (goes_wrong(READ_ONLY) && (fresh || (flags & O_ACCMODE) != O_RDONLY)) errno = EROFS;
    else if (goes_wrong(FULL) && fresh) errno = ENOSPC;
    else fd = real_open(path, flags, mode);
    if (fd >= 0 && fd < FILES) {
        names[fd] = strdup(path);
        if (fresh) tell(CREATE, path, 0, 0, NULL);
        else if (flags & O_TRUNC) tell(TRUNCATE, path, 0, 0, NULL);
    }
    int kept = errno;
    pthread_mutex_unlock(&turn);
    errno = kept;
    return fd;
}

#define OPENS(name)                                 \
    int name(const char *path, int flags, ...) {    \
        va_list more;                               \
        va_start(more, flags);                      \
        mode_t mode = va_arg(more, mode_t);         \
        va_end(more);                               \
        return opened(path, flags, mode);           \
    }
OPENS(open)
OPENS(open64)

int close(int fd) {
    begin();
    if (name_of(fd)) {
        pthread_mutex_lock(&turn);
        free(names[fd]);
        names[fd] = NULL;
        pthread_mutex_unlock(&turn);
    }
    return real_close(fd);
}

static int refused(void) {
    if (goes_wrong(FULL)) return ENOSPC;
    if (goes_wrong(READ_ONLY)) return EROFS;
    return 0;
}

static ssize_t written(int fd, const void *data, size_t size, off_t at, int placed) {
    begin();
    const char *name = name_of(fd);
    if (!name) return placed ? real_pwrite(fd, data, size, at) : real_write(fd, data, size);
    int why = refused();
    if (why) {
        errno = why;
        return -1;
    }
    pthread_mutex_lock(&turn);
    if (!placed) at = lseek(fd, 0, SEEK_CUR);
    ssize_t done = placed ? real_pwrite(fd, data, size, at) : real_write(fd, data, size);
    int kept = errno;
    if (done > 0) tell(WRITE, name, at, done, data);
    pthread_mutex_unlock(&turn);
    errno = kept;
    return done;
}

ssize_t write(int fd, const void *data, size_t size) { return written(fd, data, size, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return written(fd, data, size, at, 1); }
ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) { return written(fd, data, size, at, 1); }

static int synced(int fd, int data_only) {
    begin();
    int (*call)(int) = data_only ? real_fdatasync : real_fsync;
    const char *name = name_of(fd);
    if (!name) return call(fd);
    if (goes_wrong(NO_SYNC)) {
        errno = EIO;
        return -1;
    }
    pthread_mutex_lock(&turn);
    int done = call(fd), kept = errno;
    if (done == 0) tell(SYNC, name, 0, 0, NULL);
    pthread_mutex_unlock(&turn);
    errno = kept;
    return done;
}

int fsync(int fd) { return synced(fd, 0); }
int fdatasync(int fd) { return synced(fd, 1); }

static int truncated(int fd, off_t size) {
    begin();
    const char *name = name_of(fd);
    if (!name) return real_ftruncate(fd, size);
    int why = refused();
    if (why) {
        errno = why;
        return -1;
    }
    pthread_mutex_lock(&turn);
    int done = real_ftruncate(fd, size), kept = errno;
    if (done == 0) tell(TRUNCATE, name, size, 0, NULL);
    pthread_mutex_unlock(&turn);
    errno = kept;
    return done;
}

int ftruncate(int fd, off_t size) { return truncated(fd, size); }
int ftruncate64(int fd, off_t size) { return truncated(fd, size); }

int unlink(const char *path) {
    begin();
    if (!ours(path)) return real_unlink(path);
    pthread_mutex_lock(&turn);
    int done = real_unlink(path), kept = errno;
    if (done == 0) tell(UNLINK, path, 0, 0, NULL);
    pthread_mutex_unlock(&turn);
    errno = kept;
    return done;
}
