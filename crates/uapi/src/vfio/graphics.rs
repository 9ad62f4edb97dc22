//! Graphics planes of mediated devices.
//!
//! Source: [uapi/vfio.h]. Takes no lock. No PCI device answers these commands.

use crate::abi::{abi, constants};

abi! {
    /// `VFIO_DEVICE_QUERY_GFX_PLANE`: describes what a plane shows. `region_index` shares its bytes
    /// with `dmabuf_id`.
    struct GfxPlaneInfo ["vfio_device_gfx_plane_info", 64] {
        0x00 in dec argsz: u32,
        0x04 in hex flags: u32,
        0x08 in dec drm_plane_type: u32,
        0x0c out hex drm_format: u32,
        0x10 out hex drm_format_mod: u64,
        0x18 out dec width: u32,
        0x1c out dec height: u32,
        0x20 out dec stride: u32,
        0x24 out hex size: u32,
        0x28 out dec x_pos: u32,
        0x2c out dec y_pos: u32,
        0x30 out dec x_hot: u32,
        0x34 out dec y_hot: u32,
        0x38 out dec region_index / "dmabuf_id": u32,
        0x3c in hex reserved: u32,
    }
}

constants! {
    /// `flags` of [`GfxPlaneInfo`].
    mod gfx_plane_flags: u32 {
        PROBE = 1 << 0, "VFIO_GFX_PLANE_TYPE_PROBE";
        DMABUF = 1 << 1, "VFIO_GFX_PLANE_TYPE_DMABUF";
        REGION = 1 << 2, "VFIO_GFX_PLANE_TYPE_REGION";
    }
}
