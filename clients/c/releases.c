/* Ends a device's file, its iommufd or its process while the TDI is being bound or is bound, and looks at how long
 * that takes and whom it holds up. The platform has faults that make it slow (tests/releases.rs). The functions are
 * the virtual function vfio1 behind b1d0:01:00.0, and the physical function of another device.
 *
 * usage: releases close-device | close-iommu | kill | others PATH-OF-THE-OTHER */
#include "tdi.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

static uint32_t vdevice;

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static void prepare_vf(void) {
    must((iommu = open("/dev/iommu", O_RDWR | O_CLOEXEC)) >= 0, "open /dev/iommu");
    must((device = open("/dev/vfio/devices/vfio1", O_RDWR | O_CLOEXEC)) >= 0, "open the device");
    vdevice = prepare(device, 0x10);
}

static void *bind_in_vain(void *unused) {
    answers(tsm_op(TSM_BIND, vdevice), EINTR, "the bind that was given up");
    return unused;
}

static void wait_ms(long ms) { nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, 0); }

static void quick(double begun, double seconds, const char *what) {
    double took = now() - begun;
    if (took <= seconds)
        return;
    fprintf(stderr, "%s took %.3f s\n", what, took);
    exit(1);
}

/* Closes `fd` while the bind waits for a device that does not answer. */
static void close_under(int fd) {
    pthread_t thread;
    must(!pthread_create(&thread, 0, bind_in_vain, 0), "pthread_create");
    wait_ms(200);
    double begun = now();
    close(fd);
    pthread_join(thread, 0);
    quick(begun, 2, "the end of the bind");
}

/* The device is free again: a bind of its TDI succeeds. */
static void use_again(double begun) {
    prepare_vf();
    answers(tsm_op(TSM_BIND, vdevice), 0, "bind");
    answers(tsm_op(TSM_UNBIND, vdevice), 0, "unbind");
    quick(begun, 2, "to use the device again");
}

static void killed(void) {
    pid_t child = fork();
    if (!child) {
        prepare_vf();
        tsm_op(TSM_BIND, vdevice);
        _exit(0);
    }
    wait_ms(300);
    double begun = now();
    kill(child, SIGKILL);
    waitpid(child, 0, 0);
    use_again(begun);
}

/* One device's unbind takes its time, as its file is closed; the other's bind in the same iommufd does not. */
static void others(const char *other) {
    prepare_vf();
    int other_device = open(other, O_RDWR | O_CLOEXEC);
    must(other_device >= 0, "open the other");
    uint32_t other_vdevice = prepare(other_device, 0x20);
    answers(tsm_op(TSM_BIND, vdevice), 0, "bind");
    close(device);
    double begun = now();
    answers(tsm_op(TSM_BIND, other_vdevice), 0, "the other's bind");
    quick(begun, 0.2, "the other's bind");
    answers(tsm_op(TSM_BIND, vdevice), ENOENT, "bind of what is being released");
    quick(begun, 0.4, "that it is gone");
    must(open("/dev/iommu", O_RDWR) >= 0, "open");
    quick(begun, 0.4, "an open");
    uint32_t word;
    must(pread(other_device, &word, sizeof word, CONFIG * (1ull << 40) + (1ull << 62)) == sizeof word, "read of config space");
    quick(begun, 0.4, "a read of the other");
    answers(tsm_op(TSM_UNBIND, other_vdevice), 0, "the other's unbind");
    quick(begun, 0.6, "all of the other");
    /* What does depend on it waits for it. */
    must((device = open("/dev/vfio/devices/vfio1", O_RDWR | O_CLOEXEC)) >= 0, "open again");
    struct bind again = {sizeof again, 0, iommu, 0};
    must(!ioctl(device, BIND, &again), "BIND again");
    double took = now() - begun;
    must(took > 0.6, "the release was not slow");
    quick(begun, 3, "the release");
}

int main(int count, char **words) {
    must(count >= 2, "usage");
    connect_tsm("b1d0:01:00.0");
    if (!strcmp(words[1], "close-device")) {
        prepare_vf();
        close_under(device);
        answers(tsm_op(TSM_BIND, vdevice), ENOENT, "bind of what is gone");
        close(iommu);
        use_again(now());
    } else if (!strcmp(words[1], "close-iommu")) {
        prepare_vf();
        close_under(iommu);
        double begun = now();
        close(device);
        use_again(begun);
    } else if (!strcmp(words[1], "kill")) {
        killed();
    } else {
        must(count == 3, "usage");
        connect_tsm("b1d0:04:00.0");
        others(words[2]);
    }
    printf("ok\n");
    return 0;
}
