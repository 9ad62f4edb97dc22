/* Device nodes and sysfs by every call that takes a path or a descriptor: absolute, relative to a directory, by link.
 *
 * usage: nodes */
#define _GNU_SOURCE
#include "dma_engine.h"
#include <dirent.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

static struct stat node;

static void is_node(const struct stat *got, const char *what) {
    errno = 0;
    must(S_ISCHR(got->st_mode) && got->st_rdev == node.st_rdev && (got->st_mode & 0777) == 0600, what);
}

static int by_openat2(int at, const char *path, uint64_t flags, uint64_t resolve) {
    struct open_how how = {.flags = flags, .resolve = resolve};
    return syscall(SYS_openat2, at, path, &how, sizeof how);
}

/* An IOMMUFD command answers only on an iommufd; EINVAL is what an unbound device says to all. */
static void is_device(int fd, const char *what) {
    must(fd >= 0, what);
    answers(ioctl(fd, RESET), EINVAL, what);
    close(fd);
}

static void of_node(int directory) {
    const char *name = strrchr(cdev(), '/') + 1;
    struct stat got;
    struct statx more;
    must(!stat(cdev(), &node) && S_ISCHR(node.st_mode) && node.st_rdev, "stat");
    must(!lstat(cdev(), &got), "lstat"), is_node(&got, "lstat");
    must(!fstatat(directory, name, &got, 0), "fstatat"), is_node(&got, "fstatat");
    must(!statx(directory, name, 0, STATX_BASIC_STATS, &more), "statx");
    must(makedev(more.stx_rdev_major, more.stx_rdev_minor) == node.st_rdev, "statx");
    int fd = open(cdev(), O_RDWR);
    must(fd >= 0 && !fstat(fd, &got), "fstat"), is_node(&got, "fstat");
    must(!fstatat(fd, "", &got, AT_EMPTY_PATH), "fstatat without a path"), is_node(&got, "fstatat without a path");
    must(!statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &more) && S_ISCHR(more.stx_mode), "statx without a path");
    close(fd);

    must(!access(cdev(), R_OK | W_OK) && !faccessat(directory, name, R_OK, 0), "access");
    answers(access(cdev(), X_OK), EACCES, "access to execute");
    answers(readlink(cdev(), (char[8]){0}, 8), EINVAL, "readlink of a node");
    answers(open("/dev/vfio/devices/vfio999", O_RDWR), ENOENT, "a device that is not there");
    answers(open(cdev(), O_RDWR | O_DIRECTORY), ENOTDIR, "a node as a directory");
    answers(open("/dev/vfio/devices", O_RDWR), EISDIR, "a directory to write");
    answers(open(cdev(), O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST, "a new node");

    is_device(open(cdev(), O_RDWR), "open");
    is_device(openat(directory, name, O_RDWR), "openat");
    is_device(openat(directory, "../devices/./vfio0", O_RDWR), "openat by a way around");
    is_device(by_openat2(directory, name, O_RDWR, 0), "openat2");
    is_device(by_openat2(directory, name, O_RDWR, RESOLVE_BENEATH), "openat2 beneath");
    answers(by_openat2(directory, "../../iommu", O_RDWR, RESOLVE_BENEATH), EXDEV, "openat2 not beneath");
    answers(by_openat2(directory, name, O_RDWR, 1ull << 40), EINVAL, "openat2 with a flag nobody knows");
    char path[64];
    snprintf(path, sizeof path, "/dev/char/%u:%u", major(node.st_rdev), minor(node.st_rdev));
    is_device(open(path, O_RDWR), "open by number");
    must((fd = open(cdev(), O_PATH)) >= 0, "O_PATH");
    must(!fstat(fd, &got), "fstat of O_PATH"), is_node(&got, "fstat of O_PATH");
    close(fd);
}

static void of_directory(void) {
    DIR *directory = opendir("/dev/vfio/devices");
    must(directory != 0, "opendir");
    int seen = 0, others = 0;
    for (struct dirent *entry; (entry = readdir(directory));)
        if (entry->d_name[0] != '.')
            strncmp(entry->d_name, "vfio", 4) ? others++ : seen++;
    must(seen >= 5 && !others, "readdir shows vfioN and nothing else");
    closedir(directory);
}

static void read_is(int fd, const char *text, const char *what) {
    char got[256] = {0};
    must(fd >= 0 && read(fd, got, sizeof got - 1) > 0 && !strncmp(got, text, strlen(text)), what);
    close(fd);
}

static void of_sysfs(void) {
    char path[256], link[256], dev[32];
    const char *bdf = getenv("BINDERY_BDF");
    must(bdf != 0, "BINDERY_BDF");
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s", bdf);
    struct stat got;
    must(!lstat(path, &got) && S_ISLNK(got.st_mode), "lstat of a link");
    must(!stat(path, &got) && S_ISDIR(got.st_mode), "stat of what it leads to");
    ssize_t length = readlink(path, link, sizeof link);
    must(length > 0 && !strncmp(link, "../../../devices/pci", 20), "readlink");
    must(readlink(path, link, 4) == 4 && !memcmp(link, "../.", 4), "readlink cut short");
    answers(readlink(path, link, 0), EINVAL, "readlink into nothing");
    int directory = open(path, O_RDONLY | O_DIRECTORY), up = openat(directory, "..", O_PATH | O_DIRECTORY);
    must(directory >= 0 && up >= 0, "open of a directory");
    read_is(openat(directory, "vendor", O_RDONLY), "0x1234\n", "vendor");
    snprintf(dev, sizeof dev, "%u:%u\n", major(node.st_rdev), minor(node.st_rdev));
    snprintf(path, sizeof path, "vfio-dev/%s/dev", strrchr(cdev(), '/') + 1);
    read_is(openat(directory, path, O_RDONLY), dev, "dev");
    length = readlinkat(directory, "driver", link, sizeof link - 1);
    must(length > 0 && (link[length] = 0, !strcmp(strrchr(link, '/'), "/vfio-pci")), "readlinkat of driver");
    must(!fstatat(directory, "driver", &got, AT_SYMLINK_NOFOLLOW) && S_ISLNK(got.st_mode), "fstatat of a link");
    must(!fstatat(directory, "driver", &got, 0) && S_ISDIR(got.st_mode), "fstatat of what it leads to");
    must(!faccessat(directory, "config", R_OK, 0), "faccessat");
    answers(faccessat(directory, "nothing", F_OK, 0), ENOENT, "an attribute that is not there");
    answers(openat(directory, "vendor/x", O_RDONLY), ENOTDIR, "below a file");
    answers(openat(directory, "driver", O_RDONLY | O_NOFOLLOW), ELOOP, "a link that is not followed");
    must(realpath("/sys/class/vfio-dev/vfio0", link) && strstr(link, "/sys/devices/pci"), "realpath");
    answers(stat((char *)8, &got), EFAULT, "a path in a hole");
    answers(stat("", &got), ENOENT, "no path");
}

int main(void) {
    int directory = open("/dev/vfio/devices", O_RDONLY | O_DIRECTORY);
    must(directory >= 0, "open /dev/vfio/devices");
    of_node(directory);
    of_directory();
    of_sysfs();
    printf("ok\n");
    return 0;
}
