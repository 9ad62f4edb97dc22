/* INTx, MSI, MSI-X, ERR and REQ by eventfd: delivery, automask, unmask by every way, the level signalled again, resizing.
 *
 * usage: interrupts */
#include "dma_engine.h"

enum { SOON_MS = 5000, NEVER_MS = 100 };

/* The engine raises `vector` (of INTx: its cause) and its status is done. */
static void raise_vector(uint32_t vector) {
    start(0, (struct descriptor){.operation = NOP, .flags = INTERRUPT, .vector = vector});
    must(end(0) == DONE, "NOP");
}

/* Clears the cause, and gives the pin the moment that it takes to fall: the fall is a message of its own. */
static void lower(void) {
    set_register(CAUSE, 1);
    nanosleep(&(struct timespec){0, NEVER_MS * 1000000}, 0);
}

static void intx(void) {
    int fd = event(), other = event(), unmask = event(), none = -1;
    struct irq_info info = {sizeof info, 0, INTX, 0};
    must(!ioctl(device, IRQ_INFO, &info) && info.count == 1 && info.flags == 7, "INTx is one, eventfd, maskable, automasked");
    answers(set_irqs(INTX, DATA_NONE | MASK, 0, 1, 0), EINVAL, "mask before there is an interrupt");
    answers(set_irqs(INTX, DATA_EVENTFD | TRIGGER, 0, 1, &iommu), EINVAL, "no eventfd");
    answers(set_irqs(INTX, DATA_EVENTFD | TRIGGER, 0, 1, &fd), 0, "trigger");
    answers(set_irqs(MSIX, DATA_EVENTFD | TRIGGER, 0, 1, &other), EINVAL, "MSI-X beside INTx");
    raise_vector(0);
    must(signals(fd, SOON_MS) == 1, "INTx arrives");
    must(signals(fd, NEVER_MS) == 0, "it masks itself");

    answers(set_irqs(INTX, DATA_NONE | UNMASK, 0, 1, 0), 0, "unmask");
    must(signals(fd, SOON_MS) == 1, "the level is still high: once more");
    lower();
    answers(set_irqs(INTX, DATA_NONE | UNMASK, 0, 1, 0), 0, "unmask");
    must(signals(fd, NEVER_MS) == 0, "the level is low");
    answers(set_irqs(INTX, DATA_NONE | MASK, 0, 1, 0), 0, "mask");
    raise_vector(0);
    must(signals(fd, NEVER_MS) == 0, "masked");
    answers(set_irqs(INTX, DATA_NONE | UNMASK, 0, 1, 0), 0, "unmask");
    must(signals(fd, SOON_MS) == 1, "what came while masked");

    answers(set_irqs(INTX, DATA_EVENTFD | MASK, 0, 1, &unmask), ENOTTY, "no mask by eventfd");
    answers(set_irqs(INTX, DATA_EVENTFD | UNMASK, 0, 1, &unmask), 0, "unmask by eventfd");
    answers(set_irqs(INTX, DATA_EVENTFD | UNMASK, 0, 1, &other), EBUSY, "a second one");
    uint64_t one = 1;
    must(write(unmask, &one, sizeof one) == sizeof one, "write to an eventfd");
    must(signals(fd, SOON_MS) == 1, "unmasked by eventfd: the level is still high");
    lower();
    must(write(unmask, &one, sizeof one) == sizeof one, "write to an eventfd");
    must(signals(fd, NEVER_MS) == 0, "unmasked by eventfd: the level is low");
    raise_vector(0);
    must(signals(fd, SOON_MS) == 1, "a new interrupt");
    answers(set_irqs(INTX, DATA_EVENTFD | UNMASK, 0, 1, &none), 0, "without unmask eventfd");

    set_command(command() | INTX_DISABLE);
    answers(set_irqs(INTX, DATA_NONE | UNMASK, 0, 1, 0), 0, "unmask");
    must(signals(fd, NEVER_MS) == 0, "INTx Disable");
    set_command(command() & ~INTX_DISABLE);
    must(signals(fd, SOON_MS) == 1, "INTx Disable is off again");

    answers(set_irqs(INTX, DATA_EVENTFD | TRIGGER, 0, 1, &other), 0, "another eventfd");
    answers(set_irqs(INTX, DATA_NONE | TRIGGER, 0, 1, 0), 0, "loopback");
    must(signals(other, SOON_MS) >= 1 && signals(fd, NEVER_MS) == 0, "the other hears it");
    lower();
    answers(set_irqs(INTX, DATA_NONE | TRIGGER, 0, 0, 0), 0, "disable");
    answers(set_irqs(INTX, DATA_NONE | TRIGGER, 0, 0, 0), EINVAL, "disable twice");
    close(fd), close(other), close(unmask);
}

static void messages(uint32_t index, uint32_t vectors) {
    int fds[3] = {event(), -1, event()}, late = event();
    struct irq_info info = {sizeof info, 0, index, 0};
    must(!ioctl(device, IRQ_INFO, &info) && info.count == vectors, "number of vectors");
    answers(set_irqs(index, DATA_EVENTFD | TRIGGER, vectors - 1, 2, fds), EINVAL, "beyond the last");
    answers(set_irqs(index, DATA_EVENTFD | TRIGGER, 0, 3, fds), 0, "trigger");
    answers(set_irqs(index, DATA_NONE | MASK, 0, 1, 0), ENOTTY, "no mask");
    raise_vector(2);
    must(signals(fds[2], SOON_MS) == 1 && signals(fds[0], NEVER_MS) == 0, "vector 2 and no other");
    raise_vector(0), raise_vector(0);
    must(signals(fds[0], SOON_MS) >= 1 && signals(fds[2], NEVER_MS) == 0, "vector 0 and no other");
    raise_vector(1);
    answers(set_irqs(index, DATA_EVENTFD | TRIGGER, 1, 1, &late), 0, "an eventfd for vector 1");
    signals(late, NEVER_MS); /* what fired before may wait or be lost */
    raise_vector(1);
    must(signals(late, SOON_MS) == 1, "vector 1");
    answers(set_irqs(index, DATA_NONE | TRIGGER, 2, 1, 0), 0, "loopback");
    must(signals(fds[2], SOON_MS) == 1, "loopback signals");
    if (index == MSI)
        answers(set_irqs(index, DATA_EVENTFD | TRIGGER, 3, 1, &late), EINVAL, "MSI does not grow");
    must(!ioctl(device, RESET), "RESET");
    set_command(MEMORY_AND_MASTER), set_register(CONTROL, 1);
    raise_vector(2);
    must(signals(fds[2], SOON_MS) == 1, "vectors are kept through a reset");
    answers(set_irqs(index, DATA_NONE | TRIGGER, 0, 0, 0), 0, "disable");
    answers(set_irqs(index, DATA_NONE | TRIGGER, 0, 0, 0), EINVAL, "disable twice");
    close(fds[0]), close(fds[2]), close(late);
}

static void of_the_host(uint32_t index) {
    int fd = event(), none = -1;
    answers(set_irqs(index, DATA_NONE | TRIGGER, 0, 1, 0), EINVAL, "none is set");
    answers(set_irqs(index, DATA_EVENTFD | TRIGGER, 0, 1, &fd), 0, "trigger");
    answers(set_irqs(index, DATA_EVENTFD | MASK, 0, 1, &fd), ENOTTY, "no mask");
    answers(set_irqs(index, DATA_NONE | TRIGGER, 0, 1, 0), 0, "loopback");
    must(signals(fd, SOON_MS) == 1, "loopback signals");
    answers(set_irqs(index, DATA_EVENTFD | TRIGGER, 0, 1, &none), 0, "remove");
    close(fd);
}

int main(void) {
    assign();
    intx();
    messages(MSI, 8);
    messages(MSIX, 16);
    intx();
    of_the_host(ERR);
    of_the_host(REQ);
    printf("ok\n");
    return 0;
}
