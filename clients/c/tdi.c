/* A TDI's whole life: connect, bind, LOCK, report, RUN, trusted DMA; then one way to end it. Prints a line for each step: its name, what it
 * answered, and milliseconds; "--" where the end begins. Exits with 1 where there is nothing to end, with 3 where the machine was too busy.
 *
 * usage: tdi ORDER [realm] [inflight]
 *   realm      a vIOMMU of a confidential guest: IOMMU_VDEVICE_ALLOC binds
 *   inflight   the end begins while the bind is under way
 * TDI_CDEV and TDI_PF name the device file and the physical function; else BINDERY_CDEV and BINDERY_BDF do. TDI_PF_CDEV names the physical
 * function's device file where a virtual function may want its token. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int iommu = -1, device = -1, vm = -1, vm_device = -1;
static uint32_t viommu, vdevice;
static int is_realm, is_inflight;

#include "tdi_profile.h"
#include <linux/kvm.h>

enum { PAGE = 4096, IOVA = 0x100000, VIRT_ID = 8, UNDER_WAY_MS = 150, SECOND_MS = 1000, MOMENT_PASSED = 3 };
static const char REALM[] = "realm", INFLIGHT[] = "inflight";

static int binds_at_alloc(void) { return BINDS_AT_ALLOC || is_realm; }

/* ---- steps ------------------------------------------------------------------------------------------------- */

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static void told(const char *name, const char *answer, double since) { printf("%s\t%s\t%.0f\n", name, answer, now_ms() - since); }

static const char *answer(long result) {
    const char *name = result < 0 ? strerrorname_np(errno) : "0";
    return name ? name : "?";
}

/* Does a step and tells it. */
#define STEP(name, call) \
    do { \
        double since = now_ms(); \
        told(name, answer(call), since); \
    } while (0)

/* Does a step of the way up, without which there is nothing to end. */
#define NEED(name, call) \
    do { \
        double since = now_ms(); \
        long result = (call); \
        told(name, answer(result), since); \
        if (result < 0) \
            exit(1); \
    } while (0)

static const char *from_environment(const char *ours, const char *given) {
    const char *value = getenv(ours);
    return value ? value : getenv(given);
}

static int write_attribute(const char *attribute, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/%s", from_environment("TDI_PF", "BINDERY_BDF"), attribute);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int result = write(fd, text, strlen(text)) < 0 ? -1 : 0, error = errno;
    close(fd);
    return errno = error, result;
}

/* Whoever was here before may have left it connected. */
static int connect_tsm(void) {
    int result = write_attribute("tsm/connect", "tsm0\n");
    return result < 0 && errno == EBUSY ? 0 : result;
}

static int shut(int *fd) {
    int result = close(*fd);
    *fd = -1;
    return result;
}

static int destroy(uint32_t id) {
    struct iommu_destroy destroy = {.size = sizeof destroy, .id = id};
    return ioctl(iommu, IOMMU_DESTROY, &destroy);
}

/* ---- the way up -------------------------------------------------------------------------------------------- */

static int open_device(void) { return device = open(from_environment("TDI_CDEV", "BINDERY_CDEV"), O_RDWR | O_CLOEXEC); }
static int open_iommu(void) { return iommu = open("/dev/iommu", O_RDWR | O_CLOEXEC); }

/* A virtual machine, linked with the device file as the kernel wants it: before BIND. */
static int link_vm(void) {
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    vm = ioctl(kvm, KVM_CREATE_VM, 0);
    close(kvm);
    struct kvm_create_device create = {.type = KVM_DEV_TYPE_VFIO};
    if (vm < 0 || ioctl(vm, KVM_CREATE_DEVICE, &create) < 0)
        return -1;
    vm_device = create.fd;
    int32_t fd = device;
    /* The attribute of files has the number and the place of the older one of groups. */
    struct kvm_device_attr add = {.group = KVM_DEV_VFIO_GROUP, .attr = KVM_DEV_VFIO_GROUP_ADD, .addr = (uintptr_t)&fd};
    return ioctl(vm_device, KVM_SET_DEVICE_ATTR, &add);
}

static uint32_t dev_id;
static int bind_file(int file, const char *token) {
    struct vfio_device_bind_iommufd bind = {.argsz = sizeof bind, .iommufd = iommu};
    if (token) {
        bind.flags = VFIO_DEVICE_BIND_FLAG_TOKEN;
        bind.token_uuid_ptr = (uintptr_t)token;
    }
    int result = ioctl(file, VFIO_DEVICE_BIND_IOMMUFD, &bind);
    dev_id = bind.out_devid;
    return result;
}

/* A virtual function that was made anew is for those who share a token with the physical one's user, whom we play as well. */
static int bind_device(void) {
    static const char token[16] = "a token of tdi.c";
    const char *physical_path = getenv("TDI_PF_CDEV");
    int result = bind_file(device, 0);
    if (result == 0 || errno != EACCES || !physical_path)
        return result;
    int physical = open(physical_path, O_RDWR | O_CLOEXEC);
    if (physical < 0 || bind_file(physical, token) < 0 || close(physical) < 0)
        return -1;
    return bind_file(device, token);
}

static uint32_t ioas, hwpt;
static int make_ioas(void) {
    struct iommu_ioas_alloc alloc = {.size = sizeof alloc};
    int result = ioctl(iommu, IOMMU_IOAS_ALLOC, &alloc);
    ioas = alloc.out_ioas_id;
    return result;
}

static char *buffer;
static int map_buffer(void) {
    buffer = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer == MAP_FAILED)
        return -1;
    struct iommu_ioas_map map = {.size = sizeof map, .flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE, .ioas_id = ioas, .user_va = (uintptr_t)buffer, .length = PAGE, .iova = IOVA};
    return ioctl(iommu, IOMMU_IOAS_MAP, &map);
}

static int make_hwpt(void) {
    struct iommu_hwpt_alloc alloc = {.size = sizeof alloc, .flags = IOMMU_HWPT_ALLOC_NEST_PARENT, .dev_id = dev_id, .pt_id = ioas};
    int result = ioctl(iommu, IOMMU_HWPT_ALLOC, &alloc);
    hwpt = alloc.out_hwpt_id;
    return result;
}

static int attach(void) {
    struct vfio_device_attach_iommufd_pt attach = {.argsz = sizeof attach, .pt_id = hwpt};
    return ioctl(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach);
}

static int make_viommu(void) {
#ifdef IOMMU_VIOMMU_TYPE_ARM_REALM_SMMUV3
    uint32_t type = binds_at_alloc() ? IOMMU_VIOMMU_TYPE_ARM_REALM_SMMUV3 : IOMMU_VIOMMU_TYPE_ARM_SMMUV3;
#else
    uint32_t type = IOMMU_VIOMMU_TYPE_ARM_SMMUV3;
#endif
    struct iommu_viommu_alloc alloc = {.size = sizeof alloc, .type = type, .dev_id = dev_id, .hwpt_id = hwpt};
    int result = ioctl(iommu, IOMMU_VIOMMU_ALLOC, &alloc);
    viommu = alloc.out_viommu_id;
    return result;
}

static int make_vdevice(void) {
    struct iommu_vdevice_alloc alloc = {.size = sizeof alloc, .viommu_id = viommu, .dev_id = dev_id, .virt_id = VIRT_ID};
    int result = ioctl(iommu, IOMMU_VDEVICE_ALLOC, &alloc);
    vdevice = alloc.out_vdevice_id;
    return result;
}

#include "tdi_engine.h"

static void tell_dma(void) {
    double since = now_ms();
    told("DMA", dma(HAS_TSM ? TRUSTED : 0), since);
}

/* ---- a bind in flight -------------------------------------------------------------------------------------- */

static pthread_t binder;
static int is_binding;
static volatile int is_entering;

static int bind_by_profile(void) { return binds_at_alloc() ? make_vdevice() : bind_tdi(); }

static void *bind_under_way(void *unused) {
    is_entering = 1;
    STEP("bind", bind_by_profile());
    return unused;
}

/* A machine so busy that the moment has passed shows nothing: then whoever started this tries again. */
static void start_binder(void) {
    is_binding = !pthread_create(&binder, 0, bind_under_way, 0);
    while (is_binding && !is_entering)
        usleep(1000);
    double since = now_ms();
    usleep(UNDER_WAY_MS * 1000);
    if (now_ms() - since > 2 * UNDER_WAY_MS)
        exit(MOMENT_PASSED);
}

static void join_binder(void) {
    if (is_binding)
        pthread_join(binder, 0);
    is_binding = 0;
}

/* ---- ends -------------------------------------------------------------------------------------------------- */

static void destroy_both(void) {
    STEP("DESTROY(vdevice)", destroy(vdevice));
    STEP("DESTROY(viommu)", destroy(viommu));
}

static void close_vfio(void) { STEP("close(vfio)", shut(&device)); }
static void close_iommu(void) { STEP("close(iommu)", shut(&iommu)); }

/* The close gives up a bind in flight; until that has returned it is a user of what it was given, and DESTROY says EBUSY. */
static void vfio_first(void) {
    close_vfio();
    join_binder();
    destroy_both();
    close_iommu();
}

static void vdevice_first(void) {
    destroy_both();
    close_vfio();
    close_iommu();
}

static void viommu_first(void) {
    STEP("DESTROY(viommu)", destroy(viommu));
    vdevice_first();
}

/* A bind in flight goes first, and then there is nothing left of it; whether the TDI can be bound anew is another question. */
static void unbind_first(void) {
    if (binds_at_alloc()) {
        STEP("STOP", set_state(UNLOCKED));
    } else {
        STEP("UNBIND", unbind_tdi());
        join_binder();
        STEP("bind anew", bind_tdi());
    }
    vdevice_first();
}

static void iommu_first(void) {
    close_iommu();
    close_vfio();
}

static void vm_first(void) {
    STEP("close(VM)", shut(&vm_device) | shut(&vm));
    vfio_first();
}

static void after_disconnect(void) {
    STEP("disconnect", write_attribute("tsm/disconnect", "tsm0\n"));
    if (!is_inflight) {
        tell_dma();
        STEP("LOCK", set_state(LOCKED));
    }
    vfio_first();
}

static void after_reset(void) {
    STEP("RESET", ioctl(device, VFIO_DEVICE_RESET));
    if (!is_inflight)
        tell_dma();
    vfio_first();
}

static void after_bus_master(void) {
    STEP("bus master off", set_command(MEMORY));
    if (!is_inflight)
        tell_dma();
    vfio_first();
}

/* ---- ends that take another process or thread --------------------------------------------------------------- */

static int to_other[2];

static void send_files(void) {
    char byte = 'x', control[CMSG_SPACE(2 * sizeof(int))] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(2 * sizeof(int));
    memcpy(CMSG_DATA(header), (int[]){device, iommu}, 2 * sizeof(int));
    NEED("SCM_RIGHTS", sendmsg(to_other[1], &message, 0));
}

static int receive_files(void) {
    char byte, control[CMSG_SPACE(2 * sizeof(int))];
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (recvmsg(to_other[0], &message, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&message))
        return -1;
    int fds[2];
    memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fds);
    device = fds[0], iommu = fds[1];
    return 0;
}

/* The process that has the last descriptors: it gets them, waits until the first one has closed its own, and shows that all still lives. */
static pid_t other;
static void start_other(void) {
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, to_other) || (other = fork()) < 0)
        exit(1);
    if (other) {
        close(to_other[0]);
        return;
    }
    close(to_other[1]);
    if (receive_files())
        exit(1);
    char byte;
    if (read(to_other[0], &byte, 1) != 1)
        exit(1);
    struct vfio_device_info info = {.argsz = sizeof info};
    STEP("GET_INFO elsewhere", ioctl(device, VFIO_DEVICE_GET_INFO, &info));
    STEP("close(iommu) elsewhere", shut(&iommu));
    STEP("close(vfio) elsewhere", shut(&device));
    fflush(stdout);
    _exit(0);
}

static void last_elsewhere(void) {
    iommu_first();
    fflush(stdout);
    if (write(to_other[1], "x", 1) != 1)
        exit(1);
    waitpid(other, 0, 0);
}

/* The host takes the virtual function away; the client is asked to let go, and does when the TDI is seen to be unbound. */
static int asked_to_let_go;
static void *take_vfs_away(void *unused) {
    STEP("sriov_numvfs = 0", write_attribute("sriov_numvfs", "0\n"));
    return unused;
}

static int hear_requests(void) {
    struct { struct vfio_irq_set set; int32_t fd; } irqs = {{.argsz = sizeof irqs, .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, .index = VFIO_PCI_REQ_IRQ_INDEX, .count = 1}, 0};
    asked_to_let_go = eventfd(0, EFD_CLOEXEC);
    irqs.fd = asked_to_let_go;
    return ioctl(device, VFIO_DEVICE_SET_IRQS, &irqs);
}

static int is_asked(void) {
    struct pollfd waiting = {asked_to_let_go, POLLIN, 0};
    return poll(&waiting, 1, 5 * SECOND_MS) == 1 ? 0 : (errno = ETIMEDOUT, -1);
}

/* The host unbinds on its own, so nobody is told when: until then LOCK finds a TDI that is in RUN. */
static int lock_once_unbound(void) {
    int result = -1;
    for (double since = now_ms(); now_ms() - since < SECOND_MS;)
        if ((result = set_state(LOCKED)) == 0 || errno != EIO)
            break;
    return result;
}

static void vf_taken(void) {
    pthread_t thread;
    pthread_create(&thread, 0, take_vfs_away, 0);
    STEP("REQ", is_asked());
    if (HAS_TSM && !is_inflight)
        STEP("LOCK", lock_once_unbound());
    vfio_first();
    pthread_join(thread, 0);
}

/* ---- putting it together ------------------------------------------------------------------------------------ */

struct order {
    const char *name;
    void (*end)(void);
};

static void killed(void) { raise(SIGKILL); }

static const struct order ORDERS[] = {
    {"vfio", vfio_first}, {"vdevice", vdevice_first}, {"viommu", viommu_first}, {"unbind", unbind_first}, {"iommu", iommu_first},
    {"elsewhere", last_elsewhere}, {"vm", vm_first}, {"kill", killed}, {"disconnect", after_disconnect}, {"vf", vf_taken},
    {"reset", after_reset}, {"bus-master", after_bus_master},
};

static void way_up(const struct order *order) {
    if (HAS_TSM)
        NEED("connect", connect_tsm());
    NEED("open(iommu)", open_iommu());
    NEED("open(vfio)", open_device());
    if (order->end == vm_first)
        NEED("FILE_ADD", link_vm());
    NEED("BIND", bind_device());
    NEED("IOAS_ALLOC", make_ioas());
    NEED("IOAS_MAP", map_buffer());
    NEED("HWPT_ALLOC", make_hwpt());
    NEED("ATTACH", attach());
    NEED("bus master on", set_command(MEMORY | BUS_MASTER));
    if (order->end == vf_taken)
        NEED("SET_IRQS", hear_requests());
    NEED("VIOMMU_ALLOC", make_viommu());
    if (!binds_at_alloc())
        NEED("VDEVICE_ALLOC", make_vdevice());
    if (order->end == last_elsewhere)
        send_files();
}

static void to_run(void) {
    NEED("bind", bind_by_profile());
    NEED("LOCK", set_state(LOCKED));
    NEED("report", report());
    NEED("RUN", set_state(RUN));
}

static void live_and_end(const struct order *order) {
    if (order->end == last_elsewhere)
        start_other();
    way_up(order);
    if (is_inflight) {
        start_binder();
    } else {
        if (HAS_TSM)
            to_run();
        else if (binds_at_alloc())
            NEED("VDEVICE_ALLOC", make_vdevice());
        tell_dma();
    }
    printf("--\n");
    fflush(stdout);
    double since = now_ms();
    order->end();
    join_binder();
    told("in all", "0", since);
}

/* What was ended is free: somebody else can have it. */
static void again(void) {
    STEP("open(iommu) again", open_iommu());
    STEP("open(vfio) again", open_device());
    STEP("BIND again", bind_device());
    shut(&device), shut(&iommu);
}

/* The one who is killed is another process; it leaves one who tells how it went. */
static void let_be_killed(const struct order *order) {
    pid_t child = fork();
    if (!child)
        live_and_end(order), _exit(1);
    int status;
    waitpid(child, &status, 0);
    if (!WIFSIGNALED(status))
        exit(WEXITSTATUS(status));
}

int main(int argc, char **argv) {
    const struct order *order = 0;
    for (int i = 1; i < argc; i++) {
        is_realm |= !strcmp(argv[i], REALM);
        is_inflight |= !strcmp(argv[i], INFLIGHT);
    }
    for (size_t i = 0; argc > 1 && i < sizeof ORDERS / sizeof *ORDERS; i++)
        if (!strcmp(argv[1], ORDERS[i].name))
            order = &ORDERS[i];
    if (!order)
        return fprintf(stderr, "usage: tdi ORDER [realm] [inflight]\n"), 2;
    setvbuf(stdout, 0, _IOLBF, 0);
    if (order->end == killed)
        let_be_killed(order);
    else
        live_and_end(order);
    if (order->end != vf_taken)
        again();
    return 0;
}
