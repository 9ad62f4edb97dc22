/* Eventfds that write to BAR 0: a value lands, one eventfd does two writes, a doorbell rung by an eventfd starts a copy, what was
 * taken back writes no more, and close lets the rest go.
 *
 * usage: ioeventfds */
#include "dma_engine.h"

struct ioeventfd { uint32_t argsz, flags; uint64_t offset, data; int32_t fd; uint32_t reserved; };

enum { IOEVENTFD = 0x3b74, TAKE_BACK = -1, SOON_MS = 5000, NEVER_MS = 100 };

static int ask(uint64_t offset, uint32_t width, uint64_t data, int fd) {
    struct ioeventfd asked = {sizeof asked, width, bar0 + offset, data, fd, 0};
    return ioctl(device, IOEVENTFD, &asked);
}

static uint32_t get_register(uint64_t offset) {
    uint32_t value;
    must(pread(device, &value, sizeof value, bar0 + offset) == sizeof value, "register read");
    return value;
}

static void signal_fd(int fd) {
    uint64_t one = 1;
    must(write(fd, &one, sizeof one) == sizeof one, "write to an eventfd");
}

/* Whether the register reads `value` within `ms`. */
static int becomes(uint64_t offset, uint32_t value, int ms) {
    for (int waited_ms = 0; waited_ms <= ms; waited_ms++) {
        if (get_register(offset) == value)
            return 1;
        nanosleep(&(struct timespec){0, 1000000}, 0);
    }
    return 0;
}

int main(void) {
    assign();
    int fd = event(), bell = event();
    answers(ask(SCRATCH, 3, 1, fd), EINVAL, "two widths");
    answers(ask(SCRATCH, 4, 1, -2), EINVAL, "descriptor -2");
    answers(ask(1 << 30, 4, 1, fd), EINVAL, "past the end of the BAR");
    answers(ask(SCRATCH, 4, 1, TAKE_BACK), ENODEV, "nothing to take back");
    answers(ask(SCRATCH, 4, 1, 999), EBADF, "no descriptor");
    answers(ask(SCRATCH, 4, 1, iommu), EINVAL, "no eventfd");

    answers(ask(SCRATCH, 4, 0x1234, fd), 0, "a write");
    answers(ask(SCRATCH, 4, 0x1234, fd), EEXIST, "the same again");
    signal_fd(fd);
    must(becomes(SCRATCH, 0x1234, SOON_MS), "the eventfd writes");

    set_register(SCRATCH, 0);
    set_command(0);
    signal_fd(fd);
    nanosleep(&(struct timespec){0, NEVER_MS * 1000000}, 0);
    set_command(MEMORY_AND_MASTER);
    must(get_register(SCRATCH) == 0, "nothing is written while memory is not decoded");

    /* One eventfd, two writes. */
    descriptors[1] = (struct descriptor){.operation = NOP};
    answers(ask(DOORBELL, 4, 1, fd), 0, "a second write of the eventfd");
    signal_fd(fd);
    must(end(1) == DONE, "the doorbell rings");
    must(becomes(SCRATCH, 0x1234, SOON_MS), "and the first write is done too");

    /* A duplicate of a descriptor is the same eventfd. */
    int again = dup(bell);
    descriptors[2] = (struct descriptor){.operation = NOP};
    answers(ask(DOORBELL, 4, 2, again), 0, "a write of a duplicate");
    close(again);
    signal_fd(bell);
    must(end(2) == DONE, "the doorbell rings, though the duplicate is closed");

    answers(ask(SCRATCH, 4, 0x1234, TAKE_BACK), 0, "taken back");
    answers(ask(SCRATCH, 4, 0x1234, TAKE_BACK), ENODEV, "taken back twice");
    set_register(SCRATCH, 7);
    statuses[1].state = 0;
    signal_fd(fd);
    must(end(1) == DONE && get_register(SCRATCH) == 7, "the other write goes on alone");

    int count = 0;
    while (count < 998 && !ask(SCRATCH, 4, 0x10000 + count, fd))
        count++;
    must(count == 998, "a thousand, with the two that stand");
    answers(ask(SCRATCH, 4, 1, fd), ENOSPC, "no more");

    /* A mapping of the BAR would keep the file open; and whoever binds the device next finds the close complete. */
    must(!munmap((void *)descriptors, PAGE) && !close(device), "close");
    must((device = open(cdev(), O_RDWR | O_CLOEXEC)) >= 0, "open the device again");
    struct bind bind = {sizeof bind, 0, iommu, 0};
    must(!ioctl(device, BIND, &bind), "BIND again");
    signal_fd(fd), signal_fd(bell);
    must(signals(fd, NEVER_MS) == 1 && signals(bell, NEVER_MS) == 1, "after close nobody takes the count");
    printf("ok\n");
    return 0;
}
