/* Device files in every way a process can come by one: dup, fork, vfork, threads, SCM_RIGHTS, exec. Each step prints a line; exits 0 if all held.
 *
 * usage: family */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct bind { uint32_t argsz, flags; int32_t iommufd; uint32_t out_devid; };
struct irq_info { uint32_t argsz, flags, index, count; };
struct region_info { uint32_t argsz, flags, index, cap_offset; uint64_t size, offset; };
enum { REGION_INFO = 0x3b6c, IRQ_INFO = 0x3b6d, BIND = 0x3b76, MSIX = 2, CONFIG = 7 };

static int bad;
static void check(int holds, const char *what) {
    printf("%s: %s\n", what, holds ? "ok" : strerror(errno));
    fflush(stdout);
    bad |= !holds;
}

static int device_path_open(void) {
    const char *path = getenv("BINDERY_CDEV");
    return open(path ? path : "/dev/vfio/devices/vfio0", O_RDWR | O_CLOEXEC);
}

/* An ioctl and a config read, both through `fd`. */
static int works(int fd) {
    struct irq_info irq = {sizeof irq, 0, MSIX, 0};
    struct region_info config = {sizeof config, 0, CONFIG, 0, 0, 0};
    uint32_t id = 0;
    return !ioctl(fd, IRQ_INFO, &irq) && irq.count > 0 && !ioctl(fd, REGION_INFO, &config) &&
           pread(fd, &id, sizeof id, config.offset) == sizeof id && id != 0 && id != UINT32_MAX;
}

static void *thread(void *fd) {
    for (int i = 0; i < 500; i++)
        if (!works(*(int *)fd))
            return fd;
    return 0;
}

static int exited_0(pid_t pid) {
    int status;
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void send_fd(int socket, int fd) {
    char byte = 'x', control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    check(sendmsg(socket, &message, 0) == 1, "sendmsg");
}

static int receive_fd(int socket) {
    char byte, control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    int fd = -1;
    if (recvmsg(socket, &message, 0) == 1 && CMSG_FIRSTHDR(&message))
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

int main(int argc, char **argv) {
    if (argc > 1) /* after exec: the descriptor's number is the argument */
        return works(atoi(argv[1])) ? 0 : 1;
    int iommu = open("/dev/iommu", O_RDWR | O_CLOEXEC), device = device_path_open();
    check(iommu >= 0 && device >= 0, "open");
    struct stat node;
    check(!fstat(device, &node) && S_ISCHR(node.st_mode), "fstat says character device");
    struct bind bind = {sizeof bind, 0, iommu, 0};
    check(!ioctl(device, BIND, &bind), "bind");
    check(works(device), "use");

    int high = fcntl(device, F_DUPFD_CLOEXEC, 200), copy = dup(device);
    check(works(high) && works(copy), "dup, F_DUPFD");
    close(copy);

    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], 0, thread, &high);
    for (int i = 0; i < 4; i++) {
        void *failure;
        pthread_join(threads[i], &failure);
        check(!failure, "thread");
    }

    pid_t child = fork();
    if (!child)
        _exit(works(device) ? 0 : 1);
    check(exited_0(child), "fork");

    child = vfork();
    if (!child)
        _exit(works(device) ? 0 : 1);
    check(exited_0(child), "vfork");

    int kept = dup(device);
    char number[16];
    snprintf(number, sizeof number, "%d", kept);
    child = fork();
    if (!child) {
        execl("/proc/self/exe", argv[0], number, (char *)0);
        _exit(127);
    }
    check(exited_0(child), "exec");

    int sockets[2];
    check(!socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), "socketpair");
    child = fork();
    if (!child) {
        close(device), close(high), close(kept), close(iommu);
        int fd = receive_fd(sockets[0]);
        _exit(works(fd) ? 0 : 1);
    }
    send_fd(sockets[1], device);
    /* The last descriptors here go while the child may still hold one: the device stays bound until it exits. */
    close(device), close(high), close(kept);
    check(exited_0(child), "SCM_RIGHTS");

    device = device_path_open();
    check(device >= 0 && !ioctl(device, BIND, &bind), "bind again after the last holder is gone");
    return bad;
}
