/* The least a seccomp-notify supervisor can do: answers every VFIO-type ioctl with 0 after one copy in
 * and, on request, one copy out. The floor that `bindery run` is compared with.
 *
 * usage: noop COPIES LOOKS PROGRAM ARGS...
 *   COPIES 1: in   2: in and out
 *   LOOKS  0: none   1: those that no supervisor of several files and processes can do without: which file the descriptor is, whether a file
 *          was closed before, whether the memory named in the struct is mapped, and before a copy out whether the caller still waits */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif
#define NOTIF_SET_FLAGS SECCOMP_IOW(4, uint64_t)
#define SYNC_WAKE_UP 1UL
#define STRUCT_BYTES 40
#define USER_VA_AT 16
#define SYS_PIDFD_OPEN 434
#define SYS_PIDFD_GETFD 438

struct procmap_query { uint64_t size, flags, address, answer[10]; };
#define PROCMAP_QUERY _IOWR('f', 17, struct procmap_query)

static int send_fd(int socket, int fd) {
    char byte = 'x', control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    return sendmsg(socket, &message, 0) == 1 ? 0 : -1;
}

static int receive_fd(int socket) {
    char byte, control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) <= 0 || !CMSG_FIRSTHDR(&message))
        return -1;
    int fd;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

static void child(int socket, char **program) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_ioctl, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xff00),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x3b00, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {sizeof filter / sizeof *filter, filter};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    int listener = syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER,
                           SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &prog);
    if (listener < 0 || send_fd(socket, listener))
        _exit(125);
    close(listener);
    execvp(program[0], program);
    _exit(127);
}

/* Looks at the descriptor and at closes; a real supervisor remembers both handles by thread, as this does. */
static void look_at_file(const struct seccomp_notif *request, int closes) {
    static int process = -1;
    struct stat file;
    char events[4096];
    if (process < 0)
        process = syscall(SYS_PIDFD_OPEN, request->pid, 0);
    int copy = syscall(SYS_PIDFD_GETFD, process, (int)request->data.args[0], 0);
    fstat(copy, &file);
    close(copy);
    if (read(closes, events, sizeof events) > 0)
        abort();
}

static void look_at_memory(const struct seccomp_notif *request, const char *body) {
    static int maps = -1;
    struct procmap_query query = {.size = sizeof query};
    if (maps < 0) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/maps", request->pid);
        maps = open(path, O_RDONLY | O_CLOEXEC);
    }
    memcpy(&query.address, body + USER_VA_AT, sizeof query.address);
    ioctl(maps, PROCMAP_QUERY, &query);
}

int main(int argc, char **argv) {
    if (argc < 4)
        return 2;
    int copies = atoi(argv[1]), looks = atoi(argv[2]), closes = inotify_init1(IN_NONBLOCK | IN_CLOEXEC), sockets[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
        return 125;
    pid_t pid = fork();
    if (!pid)
        child(sockets[1], argv + 3);
    close(sockets[1]);
    int listener = receive_fd(sockets[0]);
    if (listener < 0)
        return 125;
    ioctl(listener, NOTIF_SET_FLAGS, SYNC_WAKE_UP);
    for (;;) {
        struct seccomp_notif request;
        memset(&request, 0, sizeof request);
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request)) {
            if (errno == EINTR)
                continue;
            break;
        }
        char body[STRUCT_BYTES];
        struct iovec here = {body, sizeof body}, there = {(void *)(uintptr_t)request.data.args[2], sizeof body};
        struct seccomp_notif_resp answer = {.id = request.id};
        if (looks)
            look_at_file(&request, closes);
        if (process_vm_readv(request.pid, &here, 1, &there, 1, 0) != sizeof body)
            answer.error = -EFAULT;
        else if (looks)
            look_at_memory(&request, body);
        if (!answer.error && copies == 2) {
            if (looks && ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &request.id))
                continue;
            if (process_vm_writev(request.pid, &here, 1, &there, 1, 0) != sizeof body)
                answer.error = -EFAULT;
        }
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
        /* the last call of a client is marked by an address of 0: leave before RECV would block for good */
        if (!request.data.args[2])
            break;
    }
    int status;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
