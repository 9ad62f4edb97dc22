/* The DMA engine (docs/dma-engine.md) by reads and writes of its device file: nothing is mapped, so a close is the last one. The including
 * program has `device`, `buffer` mapped at IOVA, and answers as text. */

static uint64_t region(uint32_t index) {
    struct vfio_region_info info = {.argsz = sizeof info, .index = index};
    return ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info) ? 0 : info.offset;
}

/* docs/dma-engine.md */
enum { CONTROL = 0x20, CONTROL_ENABLE = 1, DOORBELL = 0x28, DESCRIPTORS = 0x1000, STATUS_BLOCKS = 0x1800 };
enum { FILL = 3, TRUSTED = 2, STATE_DONE = 3, STATE_FAULT = 4, REASON_NOT_IN_RUN = 6, REASON_IN_ERROR = 7 };
struct descriptor { uint32_t operation, flags, vector, length; uint64_t source, destination, pattern; uint32_t window, reserved0; uint64_t cookie, reserved1; };

/* Config space: Command and its bits. */
enum { COMMAND = 4, MEMORY = 2, BUS_MASTER = 4 };

static int set_command(uint16_t value) { return pwrite(device, &value, sizeof value, region(VFIO_PCI_CONFIG_REGION_INDEX) + COMMAND) == sizeof value ? 0 : -1; }

static void set_register(uint64_t bar, uint64_t offset, uint32_t value) {
    if (pwrite(device, &value, sizeof value, bar + offset) < 0)
        return; /* as the status will tell */
}

/* One FILL of the buffer; what became of it. */
static const char *dma(uint32_t flags) {
    uint64_t bar = region(VFIO_PCI_BAR0_REGION_INDEX);
    struct descriptor fill = {.operation = FILL, .flags = flags, .length = 64, .destination = IOVA, .pattern = 0x6b6b6b6b6b6b6b6b};
    uint32_t status[2] = {0, 0};
    buffer[0] = 0;
    set_register(bar, CONTROL, CONTROL_ENABLE);
    if (pwrite(device, &fill, sizeof fill, bar + DESCRIPTORS) < 0)
        return answer(-1);
    set_register(bar, DOORBELL, 0);
    for (double since = now_ms(); now_ms() - since < SECOND_MS;) {
        if (pread(device, status, sizeof status, bar + STATUS_BLOCKS) < 0)
            return answer(-1);
        if (status[0] == UINT32_MAX)
            return "in ERROR";
        if (status[0] == STATE_DONE)
            return buffer[0] == 0x6b ? "0" : "nothing moved";
        if (status[0] == STATE_FAULT)
            return status[1] == REASON_NOT_IN_RUN ? "not in RUN" : status[1] == REASON_IN_ERROR ? "in ERROR" : "fault";
    }
    return "hangs";
}
