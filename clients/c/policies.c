/* What a platform's settings decide: how a mapped BAR as DMA memory is answered, which numbers are commands, how a device is closed.
 * Prints a line for each question.
 *
 * usage: policies */
#include "dma_engine.h"

static const char *answer(int result) {
    return result == 0                ? "0"
           : errno == EFAULT          ? "EFAULT"
           : errno == ENOTTY          ? "ENOTTY"
           : errno == EINVAL          ? "EINVAL"
                                      : strerror(errno);
}

int main(void) {
    assign();
    char *window = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, device, bar0 + WINDOW);
    must(window != MAP_FAILED, "mmap of the window");
    int mapped = try_map(window, PAGE, 0x100000, MAP_ALL);
    printf("IOAS_MAP of a BAR: %s\n", answer(mapped));
    if (!mapped) {
        start(0, (struct descriptor){.operation = FILL, .length = 64, .destination = 0x100000, .pattern = 0x6b6b6b6b6b6b6b6b});
        must(end(0) == DONE && window[0] == 0x6b && window[63] == 0x6b, "DMA into the BAR");
    }
    uint32_t probe_dma_buf[2] = {8, 1 << 18 | 11};
    printf("dma-bufs of BARs: %s\n", answer(ioctl(device, 0x3b75, probe_dma_buf)));
    /* A number with a command looks at its argument first; one without never does. */
    printf("0x95: %s\n", answer(ioctl(iommu, 0x3b95, (void *)8)));
    printf("0x96: %s\n", answer(ioctl(iommu, 0x3b96, (void *)8)));
    printf("0x97: %s\n", answer(ioctl(iommu, 0x3b97, (void *)8)));
    start(1, (struct descriptor){.operation = FILL, .length = 64, .destination = 0x900000});
    must(end(1) == FAULT, "DMA to a hole");

    /* Whatever comes first in a close: afterwards the function is as new, and can be bound. */
    munmap(window, PAGE), munmap((void *)descriptors, PAGE);
    close(device), close(iommu);
    must((device = open(cdev(), O_RDWR)) >= 0 && (iommu = open("/dev/iommu", O_RDWR)) >= 0, "open again");
    struct bind bind = {sizeof bind, 0, iommu, 0};
    must(!ioctl(device, BIND, &bind), "BIND again");
    uint32_t faults;
    printf("COMMAND after close: %#x\n", command());
    set_command(MEMORY_AND_MASTER);
    must(pread(device, &faults, sizeof faults, bar0 + 0x48) == sizeof faults && !faults, "the engine was reset");
    return 0;
}
