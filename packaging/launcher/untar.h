/* Unpacks a ustar stream piece by piece. Paths that would leave the folder are refused. */
#ifndef K3S_UNTAR_H
#define K3S_UNTAR_H
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct untar {
    const char *folder;
    char path[PATH_MAX];
    unsigned char header[512];
    size_t have;            /* bytes of the header that came */
    unsigned long long left; /* bytes of the file that are to come */
    unsigned padding;       /* bytes after the file up to a whole block */
    int file;
    int empty;              /* empty blocks seen: two end the archive */
};

static void untar_start(struct untar *tar, const char *folder) {
    memset(tar, 0, sizeof *tar);
    tar->folder = folder;
    tar->file = -1;
}

static int untar_done(const struct untar *tar) { return tar->empty >= 2; }

static int untar_leaves(const char *name) {
    if (*name == '/' || strchr(name, '\\')) return 1;
    for (const char *at = name; at; at = strchr(at, '/') ? strchr(at, '/') + 1 : NULL)
        if (!strncmp(at, "..", 2) && (at[2] == '/' || !at[2])) return 1;
    return 0;
}

static const char *untar_header(struct untar *tar) {
    const char *header = (const char *)tar->header;
    char name[257] = "", number[13] = "", link[101] = "";
    int blank = 1;
    for (int i = 0; i < 512; i++) blank &= !header[i];
    if (blank) {
        tar->empty++;
        return NULL;
    }
    if (header[345]) snprintf(name, sizeof name, "%.155s/%.100s", header + 345, header);
    else snprintf(name, sizeof name, "%.100s", header);
    memcpy(number, header + 124, 12);
    unsigned long long size = strtoull(number, NULL, 8);
    memset(number, 0, sizeof number);
    memcpy(number, header + 100, 8);
    mode_t mode = strtoul(number, NULL, 8) & 0777;
    memcpy(link, header + 157, 100);
    snprintf(tar->path, sizeof tar->path, "%s/%s", tar->folder, name);
    if (untar_leaves(name)) return "its path leaves the folder";
    char kind = header[156];
    if (kind == '5') {
        size_t end = strlen(tar->path);
        if (end && tar->path[end - 1] == '/') tar->path[end - 1] = 0;
        if (mkdir(tar->path, 0755) && errno != EEXIST) return strerror(errno);
    } else if (kind == '2') {
        if (symlink(link, tar->path)) return strerror(errno);
    } else if (kind == '1') {
        char target[PATH_MAX];
        if (untar_leaves(link)) return "its link leaves the folder";
        snprintf(target, sizeof target, "%s/%s", tar->folder, link);
        if (linkat(AT_FDCWD, target, AT_FDCWD, tar->path, 0)) return strerror(errno);
    } else if (kind == '0' || !kind) {
        tar->file = open(tar->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (tar->file < 0 || fchmod(tar->file, mode)) return strerror(errno);
        tar->left = size;
        tar->padding = (512 - size % 512) % 512;
        if (!size) {
            close(tar->file);
            tar->file = -1;
        }
    } else {
        return "it is of a kind that payloads do not have";
    }
    return NULL;
}

/* Takes the next bytes; NULL, or what is wrong with `path`. */
static const char *untar_feed(struct untar *tar, const unsigned char *data, size_t size) {
    while (size) {
        size_t step = size;
        if (tar->left) {
            if (step > tar->left) step = tar->left;
            for (size_t done = 0; done < step;) {
                ssize_t wrote = write(tar->file, data + done, step - done);
                if (wrote < 0) return strerror(errno);
                done += wrote;
            }
            tar->left -= step;
            if (!tar->left) {
                if (close(tar->file)) return strerror(errno);
                tar->file = -1;
            }
        } else if (tar->padding) {
            if (step > tar->padding) step = tar->padding;
            tar->padding -= step;
        } else {
            if (step > 512 - tar->have) step = 512 - tar->have;
            memcpy(tar->header + tar->have, data, step);
            tar->have += step;
            if (tar->have == 512) {
                tar->have = 0;
                const char *wrong = untar_header(tar);
                if (wrong) return wrong;
            }
        }
        data += step;
        size -= step;
    }
    return NULL;
}
#endif
