//! Interrupts: what a device has, and how a caller hears them; ioeventfds, the way back.
//!
//! Source: [uapi/vfio.h]. Takes no lock.

use crate::abi::{abi, constants};

abi! {
    /// `VFIO_DEVICE_GET_IRQ_INFO`: says what interrupt kind `index` is.
    struct IrqInfo ["vfio_irq_info", 16] {
        0x00 in dec argsz: u32,
        0x04 out hex flags: u32,
        0x08 in dec index: u32,
        0x0c out dec count: u32,
    }

    /// `VFIO_DEVICE_SET_IRQS`: sets up, masks or fires interrupts `start..start + count` of a kind.
    /// Data follows: nothing, a byte each, or an `i32` file descriptor each.
    struct IrqSet ["vfio_irq_set", 20] {
        0x00 in dec argsz: u32,
        0x04 in hex flags: u32,
        0x08 in dec index: u32,
        0x0c in dec start: u32,
        0x10 in dec count: u32,
    } then "__u8" "data"

    /// `VFIO_DEVICE_IOEVENTFD`: writes `data` to the device whenever eventfd `fd` is signalled.
    struct Ioeventfd ["vfio_device_ioeventfd", 32] {
        0x00 in dec argsz: u32,
        0x04 in hex flags: u32,
        0x08 in hex offset: u64,
        0x10 in hex data: u64,
        0x18 in signed fd: i32,
        0x1c in hex reserved: u32,
    }
}

constants! {
    /// `flags` of [`IrqInfo`].
    mod irq_flags: u32 {
        EVENTFD = 1 << 0, "VFIO_IRQ_INFO_EVENTFD";
        MASKABLE = 1 << 1, "VFIO_IRQ_INFO_MASKABLE";
        /// Masks itself when it fires.
        AUTOMASKED = 1 << 2, "VFIO_IRQ_INFO_AUTOMASKED";
        /// The number in use is fixed when the first is set up.
        NORESIZE = 1 << 3, "VFIO_IRQ_INFO_NORESIZE";
    }

    /// `flags` of [`IrqSet`].
    mod irq_set: u32 {
        DATA_NONE = 1 << 0, "VFIO_IRQ_SET_DATA_NONE";
        DATA_BOOL = 1 << 1, "VFIO_IRQ_SET_DATA_BOOL";
        DATA_EVENTFD = 1 << 2, "VFIO_IRQ_SET_DATA_EVENTFD";
        ACTION_MASK = 1 << 3, "VFIO_IRQ_SET_ACTION_MASK";
        ACTION_UNMASK = 1 << 4, "VFIO_IRQ_SET_ACTION_UNMASK";
        ACTION_TRIGGER = 1 << 5, "VFIO_IRQ_SET_ACTION_TRIGGER";
        /// All data kinds.
        DATA_TYPE_MASK = 0x07, "VFIO_IRQ_SET_DATA_TYPE_MASK";
        /// All actions.
        ACTION_TYPE_MASK = 0x38, "VFIO_IRQ_SET_ACTION_TYPE_MASK";
    }

    /// `index` of [`IrqInfo`] and [`IrqSet`] for PCI devices.
    mod irq_index: u32 {
        INTX = 0, "VFIO_PCI_INTX_IRQ_INDEX";
        MSI = 1, "VFIO_PCI_MSI_IRQ_INDEX";
        MSIX = 2, "VFIO_PCI_MSIX_IRQ_INDEX";
        /// The device reported an uncorrectable error.
        ERR = 3, "VFIO_PCI_ERR_IRQ_INDEX";
        /// The host wants the device back.
        REQ = 4, "VFIO_PCI_REQ_IRQ_INDEX";
        /// How many there are.
        COUNT = 5, "VFIO_PCI_NUM_IRQS";
    }

    /// `flags` of [`Ioeventfd`]: the width of the write, in bits.
    mod ioeventfd_flags: u32 {
        BITS_8 = 1 << 0, "VFIO_DEVICE_IOEVENTFD_8";
        BITS_16 = 1 << 1, "VFIO_DEVICE_IOEVENTFD_16";
        BITS_32 = 1 << 2, "VFIO_DEVICE_IOEVENTFD_32";
        BITS_64 = 1 << 3, "VFIO_DEVICE_IOEVENTFD_64";
        SIZE_MASK = 0xf, "VFIO_DEVICE_IOEVENTFD_SIZE_MASK";
    }
}
