/* Devices through groups: who may have a group and when, copies of its file, and closes in every order.
 * Usage: groups [type1]: with "type1", VFIO's own type1 is behind /dev/vfio/vfio. */
#include <dirent.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "dma_engine.h"

enum { GET_API_VERSION = 0x3b64, CHECK_EXTENSION, SET_IOMMU, GROUP_GET_STATUS, SET_CONTAINER, UNSET_CONTAINER, GET_DEVICE_FD };
enum { GET_INFO = 0x3b6b, HOT_RESET_INFO = 0x3b70, HOT_RESET = 0x3b71, MAP_DMA = 0x3b71, UNMAP_DMA = 0x3b72, DETACH = 0x3b78 };
enum { TYPE1 = 1, TYPE1v2 = 3, NOIOMMU = 8, VIABLE = 1, CONTAINER_SET = 2 };

struct status2 { uint32_t argsz, flags; };
struct dma_map { uint32_t argsz, flags; uint64_t vaddr, iova, size; };
struct dma_unmap { uint32_t argsz, flags; uint64_t iova, size; };
struct hot_reset { uint32_t argsz, flags, count; int32_t groups[4]; };
struct hot_reset_info { uint32_t argsz, flags, count; struct { uint32_t group; uint16_t segment; uint8_t bus, devfn; } devices[4]; };

static int type1;
/* The device alone in its group, and the first of a pair. */
static const char *alone = "b1d0:02:00.0", *pair[2] = { "b1d0:03:00.0", "b1d0:03:00.1" };

static int group_of(const char *address) {
    char link[256], target[256];
    snprintf(link, sizeof link, "/sys/bus/pci/devices/%s/iommu_group", address);
    long length = readlink(link, target, sizeof target - 1);
    must(length > 0, "the link to the group");
    target[length] = 0;
    return atoi(strrchr(target, '/') + 1);
}

static int open_group(const char *address) {
    char path[64];
    snprintf(path, sizeof path, "/dev/vfio/%d", group_of(address));
    return open(path, O_RDWR);
}

static int open_cdev(const char *address) {
    char path[256], name[64] = "";
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/vfio-dev", address);
    DIR *directory = opendir(path);
    must(directory != NULL, path);
    for (struct dirent *entry; (entry = readdir(directory));)
        if (!strncmp(entry->d_name, "vfio", 4))
            snprintf(name, sizeof name, "%.60s", entry->d_name);
    closedir(directory);
    snprintf(path, sizeof path, "/dev/vfio/devices/%s", name);
    return open(path, O_RDWR);
}

static uint32_t status(int group) {
    struct status2 s = { .argsz = sizeof s };
    must(!ioctl(group, GROUP_GET_STATUS, &s), "GROUP_GET_STATUS");
    return s.flags;
}

static int set_container(int group, int container) { return ioctl(group, SET_CONTAINER, &container); }

/* A container with the group in it and an IOMMU. */
static int container_of(int group) {
    int container = open("/dev/vfio/vfio", O_RDWR);
    must(container >= 0, "/dev/vfio/vfio");
    must(!set_container(group, container), "SET_CONTAINER");
    must(!ioctl(container, SET_IOMMU, TYPE1v2), "SET_IOMMU");
    return container;
}

static int get_device(int group, const char *name) { return ioctl(group, GET_DEVICE_FD, name); }

static int works(int fd) {
    struct { uint32_t argsz, flags, regions, irqs; } info = { .argsz = sizeof info };
    return !ioctl(fd, GET_INFO, &info) && info.regions >= 9;
}

static void a_group_is_had_once(void) {
    int group = open_group(alone);
    must(group >= 0, "open a group");
    answers(open_group(alone), EBUSY, "open it twice");
    must(status(group) == VIABLE, "viable, no container");
    answers(ioctl(group, UNSET_CONTAINER), EINVAL, "unset without a container");
    answers(set_container(group, 900), EBADF, "a closed container");
    answers(set_container(group, 0), EBADFD, "a file that is no container");
    answers(ioctl(group, SET_CONTAINER, NULL), EFAULT, "no pointer");
    answers(get_device(group, "b1d0:0f:00.0"), ENODEV, "a device of no group");
    answers(get_device(group, pair[0]), ENODEV, "a device of another group");
    answers(get_device(group, "b1d0:02:00.0 nonsense"), EINVAL, "an option that is none");
    answers(get_device(group, "b1d0:02:00.0x"), ENODEV, "a longer name");
    answers(get_device(group, NULL), EFAULT, "no name");
    answers(get_device(group, alone), EINVAL, "a device without a container");
    answers(ioctl(group, 0x3b6b, NULL), ENOTTY, "a device's command");
    int copy = dup(group);
    close(group);
    answers(open_group(alone), EBUSY, "a copy keeps it");
    close(copy);
    group = open_group(alone);
    must(group >= 0, "open it when it was closed");
    close(group);
}

static void one_way_or_the_other(void) {
    int iommufd = open("/dev/iommu", O_RDWR), group = open_group(pair[0]), cdev = open_cdev(pair[1]);
    must(iommufd >= 0 && group >= 0 && cdev >= 0, "open all three");
    struct bind b = { .argsz = sizeof b, .iommufd = iommufd };
    answers(ioctl(cdev, BIND, &b), EBUSY, "bind while the group is open");
    close(group);
    answers(ioctl(cdev, BIND, &b), 0, "bind when it is closed");
    answers(open_group(pair[0]), EBUSY, "open the group of a bound device");
    close(cdev);
    group = open_group(pair[0]);
    must(group >= 0, "open it when the device is closed");
    close(group);
    close(iommufd);
}

static void the_container_says_what_it_is(void) {
    int container = open("/dev/vfio/vfio", O_RDWR), group = open_group(alone);
    must(container >= 0 && group >= 0, "open both");
    answers(ioctl(container, GET_API_VERSION), 0, "API version");
    must(ioctl(container, CHECK_EXTENSION, TYPE1) == 1 && ioctl(container, CHECK_EXTENSION, TYPE1v2) == 1, "both versions");
    answers(ioctl(container, CHECK_EXTENSION, NOIOMMU), 0, "no no-IOMMU mode");
    answers(ioctl(container, SET_IOMMU, TYPE1v2), type1 ? EINVAL : ENODEV, "an IOMMU without a group");
    struct dma_map map = { .argsz = sizeof map, .flags = 3, .vaddr = (uintptr_t)&map & ~4095UL, .iova = 0x1000, .size = 4096 };
    answers(ioctl(container, MAP_DMA, &map), type1 ? EINVAL : ENODEV, "map without an IOMMU");
    must(!set_container(group, container), "SET_CONTAINER");
    must(status(group) == (VIABLE | CONTAINER_SET), "a container");
    answers(set_container(group, container), EINVAL, "a second container");
    answers(ioctl(container, SET_IOMMU, NOIOMMU), type1 ? ENODEV : EINVAL, "no-IOMMU mode");
    if (type1)
        answers(get_device(group, alone), EINVAL, "a device before there is an IOMMU");
    answers(ioctl(container, SET_IOMMU, TYPE1v2), 0, "SET_IOMMU");
    answers(ioctl(container, SET_IOMMU, TYPE1v2), type1 ? EINVAL : 0, "SET_IOMMU again");
    answers(ioctl(container, MAP_DMA, &map), 0, "map");
    answers(ioctl(container, MAP_DMA, &map), EEXIST, "map again");
    answers(ioctl(group, UNSET_CONTAINER), 0, "take the group out");
    answers(ioctl(container, MAP_DMA, &map), type1 ? EINVAL : EEXIST, "what was mapped is the last group's, or the context's");
    close(container);
    close(group);
}

static void a_device_keeps_what_it_needs(void) {
    int group = open_group(alone), container = container_of(group), fd = get_device(group, alone);
    must(fd >= 0 && works(fd), "a device");
    must(fcntl(fd, F_GETFD) & FD_CLOEXEC, "closed on exec");
    answers(ioctl(fd, BIND, &(struct bind){ .argsz = 24 }), EINVAL, "bind a group's file");
    answers(ioctl(fd, ATTACH, &(struct attach){ .argsz = 12 }), ENOTTY, "attach it");
    answers(ioctl(fd, DETACH, &(struct attach){ .argsz = 12 }), ENOTTY, "detach it");
    answers(ioctl(group, UNSET_CONTAINER), type1 ? EBUSY : 0, "take the group out under it");
    must(works(fd), "it works on");
    close(container);
    close(group);
    must(works(fd), "without its group and container");
    int again = open_group(alone);
    answers(again < 0 ? -1 : 0, type1 ? EBUSY : 0, "open the group under it");
    close(fd);
    if (again < 0)
        again = open_group(alone);
    must(again >= 0, "open the group after it");
    close(again);
}

static void opened_twice_it_is_one_device(void) {
    int group = open_group(alone), container = container_of(group), one = get_device(group, alone), two = get_device(group, alone);
    must(one >= 0 && two >= 0 && one != two, "two descriptors");
    uint32_t mark = 0x600df00d, seen = 0;
    uint64_t window = (1ULL << 62) + SCRATCH;
    uint16_t command = MEMORY_AND_MASTER;
    must(pwrite(one, &command, 2, (1ULL << 62) + (7ULL << 40) + COMMAND) == 2, "memory on");
    must(pwrite(one, &mark, 4, window) == 4 && pread(two, &seen, 4, window) == 4 && seen == mark, "one register");
    close(one);
    must(works(two), "the first close ends nothing");
    int three = get_device(group, alone);
    seen = 0;
    must(three >= 0 && pread(three, &seen, 4, window) == 4 && seen == mark, "opened again it is as it was");
    close(two);
    close(three);
    int four = get_device(group, alone);
    must(four >= 0 && pwrite(four, &command, 2, (1ULL << 62) + (7ULL << 40) + COMMAND) == 2, "opened anew");
    must(pread(four, &seen, 4, window) == 4 && seen == 0, "it was reset");
    close(four);
    close(group);
    close(container);
}

/* Every order of the three last closes, with a child that has copies of all. */
static void closes_in_any_order(void) {
    static const int orders[6][3] = { { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 }, { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 } };
    for (int order = 0; order < 6; order++) {
        int group = open_group(alone), container = container_of(group), fds[3] = { group, container, get_device(group, alone) };
        must(fds[2] >= 0, "a device");
        int go[2];
        must(!pipe(go), "a pipe");
        pid_t child = fork();
        if (!child) {
            char byte;
            close(go[1]);
            _exit(read(go[0], &byte, 1) == 0 && works(fds[2]) ? 0 : 1);
        }
        for (int at = 0; at < 3; at++)
            close(fds[orders[order][at]]);
        answers(open_group(alone), EBUSY, "the child has it");
        close(go[0]);
        close(go[1]);
        int ended;
        must(waitpid(child, &ended, 0) == child && ended == 0, "the device works in the child");
        int again = open_group(alone);
        must(again >= 0, "all is free when the child has ended");
        close(again);
    }
}

static void two_groups_share_a_container(void) {
    int one = open_group(alone), other = open_group(pair[0]), container = container_of(one);
    must(other >= 0 && !set_container(other, container), "a second group");
    int fds[3] = { get_device(one, alone), get_device(other, pair[0]), get_device(other, pair[1]) };
    must(fds[0] >= 0 && fds[1] >= 0 && fds[2] >= 0, "three devices");
    struct hot_reset_info info = { .argsz = sizeof info };
    answers(ioctl(fds[1], HOT_RESET_INFO, &info), 0, "HOT_RESET_INFO");
    must(info.count == 2 && info.flags == 0, "two devices, told by group");
    must((int)info.devices[0].group == group_of(pair[0]) && (int)info.devices[1].group == group_of(pair[1]), "their group");
    struct hot_reset reset = { .argsz = sizeof reset, .count = 0 };
    answers(ioctl(fds[1], HOT_RESET, &reset), EINVAL, "reset without a group");
    reset = (struct hot_reset){ .argsz = sizeof reset, .count = 3, .groups = { other, other, other } };
    answers(ioctl(fds[1], HOT_RESET, &reset), EINVAL, "more groups than devices");
    reset = (struct hot_reset){ .argsz = sizeof reset, .count = 1, .groups = { 900 } };
    answers(ioctl(fds[1], HOT_RESET, &reset), EBADF, "a closed group");
    reset.groups[0] = container;
    answers(ioctl(fds[1], HOT_RESET, &reset), EINVAL, "no group");
    reset.groups[0] = one;
    answers(ioctl(fds[1], HOT_RESET, &reset), EINVAL, "another group");
    reset.groups[0] = other;
    answers(ioctl(fds[1], HOT_RESET, &reset), 0, "its group");
    close(fds[1]);
    close(fds[2]);
    close(other);
    must(works(fds[0]), "the other group stays");
    close(fds[0]);
    close(one);
    close(container);
}

/* A group's file, and a device's, in another process by SCM_RIGHTS. */
static void another_process_gets_the_group(void) {
    int ends[2];
    must(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends), "a socket pair");
    int group = open_group(alone), container = container_of(group);
    pid_t child = fork();
    if (!child) {
        char byte, space[CMSG_SPACE(sizeof(int))];
        close(group);
        close(container);
        struct iovec piece = { &byte, 1 };
        struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space };
        must(recvmsg(ends[1], &message, 0) == 1, "recvmsg");
        int got = *(int *)CMSG_DATA(CMSG_FIRSTHDR(&message)), fd = get_device(got, alone);
        must(fd >= 0 && works(fd), "a device from a group that was sent");
        _exit(0);
    }
    char byte = 0, space[CMSG_SPACE(sizeof(int))] = { 0 };
    struct iovec piece = { &byte, 1 };
    struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space };
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    *head = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
    *(int *)CMSG_DATA(head) = group;
    must(sendmsg(ends[0], &message, 0) == 1, "sendmsg");
    int ended;
    must(waitpid(child, &ended, 0) == child && ended == 0, "the other process");
    close(group);
    close(container);
    close(ends[0]);
    close(ends[1]);
}

/* Virtual functions that this program makes take the physical function's token. */
static void made_functions_take_a_token(void) {
    static const char *physical = "b1d0:01:00.0", *virtual = "b1d0:01:00.1";
    static const char right[] = "52ac9bff-3a88-4fbd-901a-0d767c3b6c97", wrong[] = "88594674-90a0-47a9-aea8-9d9b352ac08a";
    char name[96];
    int group = open_group(virtual), container = container_of(group), fd = get_device(group, virtual);
    must(fd >= 0, "the host's own virtual function takes none");
    close(fd);
    snprintf(name, sizeof name, "%s vf_token=%s", virtual, right);
    answers(get_device(group, name), EINVAL, "and refuses one");
    close(group);
    close(container);
    int number = open("/sys/bus/pci/devices/b1d0:01:00.0/sriov_numvfs", O_WRONLY);
    must(number >= 0 && write(number, "0", 1) == 1 && write(number, "2", 1) == 1, "make them anew");
    close(number);
    int of_physical = open_group(physical), first = container_of(of_physical);
    snprintf(name, sizeof name, "%s vf_token=%s", physical, right);
    int pf = get_device(of_physical, name);
    must(pf >= 0, "the physical function says its token");
    group = open_group(virtual);
    must(!set_container(group, first), "one container for both");
    answers(get_device(group, virtual), EACCES, "without the token");
    snprintf(name, sizeof name, "%s vf_token=%s", virtual, wrong);
    answers(get_device(group, name), EACCES, "with another");
    snprintf(name, sizeof name, "%s vf_token=%s", virtual, right);
    fd = get_device(group, name);
    must(fd >= 0, "with the token");
    close(pf);
    answers(get_device(of_physical, physical), EACCES, "the physical function while a virtual one is open");
    snprintf(name, sizeof name, "%s vf_token=%s", physical, right);
    pf = get_device(of_physical, name);
    must(pf >= 0, "with the token");
    close(fd);
    close(pf);
    pf = get_device(of_physical, physical);
    must(pf >= 0, "when none is open");
    close(pf);
    close(group);
    close(of_physical);
    close(first);
}

static void nodes_are_as_linux_has_them(void) {
    struct stat node;
    char path[64], link[64];
    must(!stat("/dev/vfio/vfio", &node) && node.st_mode == (S_IFCHR | 0666) && node.st_rdev == (10 << 8 | 196), "the container's node");
    snprintf(path, sizeof path, "/dev/vfio/%d", group_of(alone));
    must(!stat(path, &node) && node.st_mode == (S_IFCHR | 0600), "a group's node");
    snprintf(link, sizeof link, "/sys/class/vfio/%d/dev", group_of(alone));
    must(!access(link, R_OK), link);
    int group = open(path, O_RDWR);
    struct stat again;
    must(group >= 0 && !fstat(group, &again) && again.st_rdev == node.st_rdev && S_ISCHR(again.st_mode), "the open node");
    int container = container_of(group), fd = get_device(group, alone);
    must(fd >= 0 && !fstat(fd, &again) && !S_ISCHR(again.st_mode), "a group's device has no node");
    close(fd);
    close(container);
    close(group);
}

/* Threads that open the device through one group and close it, with others that still have it and with none. */
static void *open_and_close(void *group) {
    for (int round = 0; round < 300; round++) {
        int fd = get_device(*(int *)group, alone);
        must(fd >= 0 && works(fd), "a device among threads");
        int copy = round % 3 ? -1 : dup(fd);
        close(fd);
        must(copy < 0 || works(copy), "a copy among threads");
        if (copy >= 0)
            close(copy);
    }
    return NULL;
}

static void many_threads_have_one_device(void) {
    int group = open_group(alone), container = container_of(group);
    pthread_t threads[4];
    for (int at = 0; at < 4; at++)
        must(!pthread_create(&threads[at], NULL, open_and_close, &group), "a thread");
    for (int at = 0; at < 4; at++)
        pthread_join(threads[at], NULL);
    answers(ioctl(group, UNSET_CONTAINER), 0, "nothing is left open");
    close(group);
    close(container);
}

static void put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY);
    must(fd >= 0 && write(fd, text, strlen(text)) == (long)strlen(text), path);
    close(fd);
}

/* An open group gives nothing that vfio-pci does not have. */
static void a_group_without_its_driver(void) {
    int group = open_group(alone), container = container_of(group);
    put("/sys/bus/pci/drivers/vfio-pci/unbind", alone);
    answers(open_group(alone), ENOENT, "the node is gone");
    answers(get_device(group, alone), ENODEV, "a device without its driver");
    answers(ioctl(group, GROUP_GET_STATUS, &(struct status2){ .argsz = 8 }), ENODEV, "the state of no group");
    put("/sys/bus/pci/drivers/vfio-pci/bind", alone);
    int fd = get_device(group, alone);
    must(fd >= 0 && works(fd), "the device when it is back");
    close(fd);
    close(group);
    close(container);
}

int main(int count, char **arguments) {
    type1 = count > 1 && !strcmp(arguments[1], "type1");
    a_group_is_had_once();
    one_way_or_the_other();
    the_container_says_what_it_is();
    a_device_keeps_what_it_needs();
    opened_twice_it_is_one_device();
    closes_in_any_order();
    two_groups_share_a_container();
    another_process_gets_the_group();
    made_functions_take_a_token();
    nodes_are_as_linux_has_them();
    many_threads_have_one_device();
    a_group_without_its_driver();
    puts("groups: ok");
    return 0;
}
