/* The executable's own code: unpacks the payload once, then becomes k3s.
 *
 * The file is this program, then a payload (a tar compressed with zstd), then a trailer that says where the payload is
 * and what its SHA-256 is. Without a trailer the program is the one inside an unpacked payload, and unpacks nothing.
 *
 *   <data-dir>/data/<hash>/   one unpacked payload     <data-dir>/data/.lock      held while one is unpacked
 *   <data-dir>/data/current   the newest               <data-dir>/data/previous   the one before
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sha256.h"
#include "untar.h"
#include "zstd.h"

#define MAGIC "k3s-payload-1\n"
#define SYSTEM_DIR "/var/lib/rancher/k3s"
#define CONFIG_FILE "/etc/rancher/k3s/config.yaml"
#define PYTHON_CODE "import sys;sys.argv[:1]=['k3s'];from k3s.cli.main import main;main()"

struct trailer {
    char magic[16];
    char digest[64];
    unsigned long long offset;
    unsigned long long size;
};

static void fail(const char *text, ...) {
    va_list more;
    va_start(more, text);
    fputs("k3s: ", stderr);
    vfprintf(stderr, text, more);
    fputc('\n', stderr);
    va_end(more);
    exit(1);
}

static char *joined(const char *first, const char *second) {
    char *out;
    if (asprintf(&out, "%s/%s", first, second) < 0) fail("out of memory");
    return out;
}

static void make_folders(const char *path, mode_t mode) {
    char *copy = strdup(path);
    for (char *at = copy + 1; *at; at++) {
        if (*at != '/') continue;
        *at = 0;
        if (mkdir(copy, mode) && errno != EEXIST) fail("cannot make the folder %s: %s", copy, strerror(errno));
        *at = '/';
    }
    if (mkdir(copy, mode) && errno != EEXIST) fail("cannot make the folder %s: %s", copy, strerror(errno));
    free(copy);
}

/* The value of `data-dir` in a config file: a plain `key: value` line, as the file has it. NULL when there is none. */
static char *configured(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file) return NULL;
    static char line[PATH_MAX + 64];
    char *found = NULL;
    while (fgets(line, sizeof line, file)) {
        char *at = line;
        if (*at == '"' || *at == '\'') at++;
        if (strncmp(at, "data-dir", 8)) continue;
        at += 8;
        while (*at == '"' || *at == '\'' || *at == ' ') at++;
        if (*at++ != ':') continue;
        at += strspn(at, " \t\"'");
        at[strcspn(at, "\"'\r\n#")] = 0;
        size_t end = strlen(at);
        while (end && at[end - 1] == ' ') at[--end] = 0;
        if (end) found = strdup(at);
    }
    fclose(file);
    return found;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Programs whose flags are their own. */
static int passes_on(const char *word) {
    return !strcmp(word, "kubectl") || !strcmp(word, "ctr") || !strcmp(word, "crictl");
}

/* The data folder: the last of the flags, the environment, the config file, the default of the user. */
static char *data_dir(int argc, char **argv) {
    const char *config = getenv("K3S_CONFIG_FILE");
    char *found = NULL;
    int command = 0;
    for (int i = 1; i < argc && !passes_on(base_name(argv[0])); i++) {
        const char *word = argv[i];
        if (!strcmp(word, "--")) break;
        if (!strncmp(word, "--data-dir=", 11)) found = strdup(word + 11);
        else if (!strncmp(word, "-d=", 3)) found = strdup(word + 3);
        else if ((!strcmp(word, "--data-dir") || !strcmp(word, "-d")) && i + 1 < argc) found = strdup(argv[++i]);
        else if (!strncmp(word, "--config=", 9)) config = word + 9;
        else if ((!strcmp(word, "--config") || !strcmp(word, "-c")) && i + 1 < argc) config = argv[++i];
        else if (*word != '-' && !command++ && passes_on(word)) break;
    }
    if (!found && getenv("K3S_DATA_DIR") && *getenv("K3S_DATA_DIR")) found = strdup(getenv("K3S_DATA_DIR"));
    if (!found) found = configured(config ? config : CONFIG_FILE);
    if (!found && geteuid() == 0) found = strdup(SYSTEM_DIR);
    if (!found) found = joined(getenv("HOME") ? getenv("HOME") : "/tmp", ".rancher/k3s");
    return found;
}

static int complete(const char *folder) {
    char *mark = joined(folder, ".complete");
    int found = access(mark, F_OK) == 0;
    free(mark);
    return found;
}

/* Feeds the decompressed payload to the unpacker. */
static void unpack(const unsigned char *payload, size_t size, const char *folder) {
    ZSTD_DStream *stream = ZSTD_createDStream();
    ZSTD_DCtx_setParameter(stream, ZSTD_d_windowLogMax, 31);
    size_t room = ZSTD_DStreamOutSize();
    unsigned char *buffer = malloc(room);
    struct untar tar;
    untar_start(&tar, folder);
    ZSTD_inBuffer in = {payload, size, 0};
    size_t left = 1;
    while (in.pos < in.size || left) {
        ZSTD_outBuffer out = {buffer, room, 0};
        left = ZSTD_decompressStream(stream, &out, &in);
        if (ZSTD_isError(left)) fail("the payload of this file is damaged: %s", ZSTD_getErrorName(left));
        if (!out.pos && in.pos == in.size) break;
        const char *wrong = untar_feed(&tar, buffer, out.pos);
        if (wrong) fail("cannot unpack into %s: %s: %s", folder, tar.path, wrong);
    }
    if (!untar_done(&tar)) fail("the payload of this file is cut off");
    ZSTD_freeDStream(stream);
    free(buffer);
}

/* Writes where the loader is going to be into every program, at the places that the payload lists. */
static void place_interpreters(const char *folder, const char *final) {
    char *list = joined(folder, ".interpreters");
    FILE *file = fopen(list, "r");
    if (!file) fail("the payload has no list of interpreters");
    long offset;
    int size;
    char loader[256], program[1024];
    while (fscanf(file, "%ld %d %255s %1023s", &offset, &size, loader, program) == 4) {
        char *text = calloc(1, size);
        if (snprintf(text, size, "%s/%s", final, loader) >= size)
            fail("the data folder's path is too long: %s", final);
        char *path = joined(folder, program);
        int out = open(path, O_WRONLY);
        if (out < 0 || pwrite(out, text, size, offset) != size || close(out))
            fail("cannot write %s: %s", path, strerror(errno));
        free(path);
        free(text);
    }
    fclose(file);
    free(list);
}

static void remove_tree(const char *path) {
    struct stat about;
    if (lstat(path, &about)) return;
    if (!S_ISDIR(about.st_mode)) {
        unlink(path);
        return;
    }
    DIR *folder = opendir(path);
    if (folder) {
        struct dirent *entry;
        while ((entry = readdir(folder))) {
            if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
            char *inner = joined(path, entry->d_name);
            remove_tree(inner);
            free(inner);
        }
        closedir(folder);
    }
    rmdir(path);
}

/* Whether a process runs a program below a folder. */
static int in_use(const char *folder) {
    DIR *processes = opendir("/proc");
    if (!processes) return 1;
    struct dirent *entry;
    char link[64], target[PATH_MAX];
    size_t length = strlen(folder);
    int used = 0;
    while (!used && (entry = readdir(processes))) {
        if (entry->d_name[0] < '0' || entry->d_name[0] > '9') continue;
        snprintf(link, sizeof link, "/proc/%.20s/exe", entry->d_name);
        ssize_t size = readlink(link, target, sizeof target - 1);
        if (size > (ssize_t)length) used = !strncmp(target, folder, length) && target[length] == '/';
    }
    closedir(processes);
    return used;
}

/* Removes payloads that are neither current nor previous and that nothing runs from. */
static void remove_old(const char *data) {
    char current[PATH_MAX] = "", previous[PATH_MAX] = "";
    char *link = joined(data, "current");
    if (readlink(link, current, sizeof current - 1) < 0) current[0] = 0;
    free(link);
    link = joined(data, "previous");
    if (readlink(link, previous, sizeof previous - 1) < 0) previous[0] = 0;
    free(link);
    DIR *folder = opendir(data);
    if (!folder) return;
    struct dirent *entry;
    while ((entry = readdir(folder))) {
        const char *name = entry->d_name;
        if (strspn(name, "0123456789abcdef") != 64) continue;
        if (strstr(current, name) || strstr(previous, name)) continue;
        char *path = joined(data, name);
        if (!in_use(path)) remove_tree(path);
        free(path);
    }
    closedir(folder);
}

static void point(const char *data, const char *digest) {
    char *current = joined(data, "current"), *previous = joined(data, "previous"), *fresh = joined(data, "current.new");
    char old[PATH_MAX] = "";
    ssize_t size = readlink(current, old, sizeof old - 1);
    if (size > 0 && strncmp(old, digest, 64)) rename(current, previous);
    unlink(fresh);
    if (symlink(digest, fresh) || rename(fresh, current))
        fail("cannot make the link %s: %s", current, strerror(errno));
    free(current);
    free(previous);
    free(fresh);
}

/* Unpacks the payload below a data folder unless it is there; the folder that it is in. */
static char *extracted(int self, const struct trailer *trailer, const char *digest, const char *dir) {
    char *system = joined(SYSTEM_DIR "/data", digest);
    if (complete(system)) return system;
    free(system);
    make_folders(dir, 0755);
    char real[PATH_MAX];
    if (!realpath(dir, real)) fail("cannot find %s: %s", dir, strerror(errno));
    char *data = joined(real, "data");
    char *final = joined(data, digest);
    if (complete(final)) return final;
    make_folders(data, 0755);
    char *lock_path = joined(data, ".lock");
    int lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0 || flock(lock, LOCK_EX)) fail("cannot lock %s: %s", lock_path, strerror(errno));
    if (!complete(final)) {
        unsigned char *file = mmap(NULL, trailer->offset + trailer->size, PROT_READ, MAP_PRIVATE, self, 0);
        if (file == MAP_FAILED) fail("cannot read this file: %s", strerror(errno));
        const unsigned char *payload = file + trailer->offset;
        char found[65];
        sha256_hex(payload, trailer->size, found);
        if (strcmp(found, digest)) fail("this file is damaged: its payload should be %s and is %s", digest, found);
        char *scratch;
        if (asprintf(&scratch, "%s-tmp", final) < 0) fail("out of memory");
        remove_tree(scratch);
        remove_tree(final);
        make_folders(scratch, 0755);
        unpack(payload, trailer->size, scratch);
        place_interpreters(scratch, final);
        char *mark = joined(scratch, ".complete");
        int made = open(mark, O_WRONLY | O_CREAT, 0644);
        if (made < 0 || close(made)) fail("cannot write %s: %s", mark, strerror(errno));
        if (rename(scratch, final)) fail("cannot publish %s: %s", final, strerror(errno));
        point(data, digest);
        remove_old(data);
        munmap(file, trailer->offset + trailer->size);
    }
    close(lock);
    return final;
}

static void prepare_environment(const char *dir) {
    char *path;
    const char *old = getenv("PATH");
    if (!old || !*old) old = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    const char *bundle = getenv("K3S_BUNDLE_DIR");
    if (!bundle || strcmp(bundle, dir)) {
        if (asprintf(&path, "%s/bin:%s:%s/bin/aux", dir, old, dir) < 0) fail("out of memory");
        setenv("PATH", path, 1);
        setenv("K3S_BUNDLE_DIR", dir, 1);
    }
    if (!getenv("SSL_CERT_FILE") && !getenv("SSL_CERT_DIR")
        && access("/etc/ssl/certs/ca-certificates.crt", R_OK) && access("/etc/pki/tls/certs/ca-bundle.crt", R_OK)
        && access("/etc/ssl/cert.pem", R_OK) && access("/etc/ssl/ca-bundle.pem", R_OK))
        setenv("SSL_CERT_FILE", joined(dir, "etc/ssl/certs/ca-certificates.crt"), 1);
}

/* Programs that need more than a path: the packet filter's fallback finds its extensions beside itself. */
static void run_aux(const char *dir, const char *name, char **argv) {
    if (strncmp(name, "iptables", 8) && strncmp(name, "ip6tables", 9)) return;
    setenv("XTABLES_LIBDIR", joined(dir, "lib/xtables"), 1);
    execv(joined(dir, "libexec/xtables-nft-multi"), argv);
    fail("cannot run %s: %s", name, strerror(errno));
}

static void run(const char *dir, int argc, char **argv) {
    const char *name = base_name(argv[0]);
    prepare_environment(dir);
    run_aux(dir, name, argv);
    char **words = calloc(argc + 8, sizeof *words);
    int count = 0;
    words[count++] = "k3s";
    words[count++] = "-ISB";
    words[count++] = "-c";
    words[count++] = PYTHON_CODE;
    if (!strncmp(name, "k3s-", 4) && strncmp(name, "k3s-arm", 7) && strncmp(name, "k3s-amd", 7)) name += 4;
    if (strncmp(name, "k3s", 3) && strncmp(name, "exe", 3)) words[count++] = (char *)name;
    for (int i = 1; i < argc; i++) words[count++] = argv[i];
    char *python = joined(dir, "bin/python3");
    execv(python, words);
    fail("cannot run %s: %s", python, strerror(errno));
}

int main(int argc, char **argv) {
    char self_path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self_path, sizeof self_path - 1);
    if (length < 0) fail("cannot find this program: /proc is not mounted");
    self_path[length] = 0;
    int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    struct trailer trailer;
    off_t size = lseek(self, 0, SEEK_END);
    if (size > (off_t)sizeof trailer && pread(self, &trailer, sizeof trailer, size - sizeof trailer) == sizeof trailer
        && !strncmp(trailer.magic, MAGIC, sizeof MAGIC - 1)) {
        char digest[65];
        memcpy(digest, trailer.digest, 64);
        digest[64] = 0;
        run(extracted(self, &trailer, digest, data_dir(argc, argv)), argc, argv);
    }
    /* bin/k3s of an unpacked payload */
    *strrchr(self_path, '/') = 0;
    char *slash = strrchr(self_path, '/');
    if (slash) *slash = 0;
    run(self_path, argc, argv);
    return 1;
}
