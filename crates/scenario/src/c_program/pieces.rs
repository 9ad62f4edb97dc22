//! What the program has to set up, and what each call is in C: the one table from words to system calls.
//!
//! The text of a piece stands in `parts.c` and `calls.c`. Takes no lock.

use uapi::CommandId as Id;

use crate::words::Verb;

/// A part of the set-up, in the order in which it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// A connection of the first device with the TSM.
    Tsm,
    /// A virtual machine that the device files are linked with.
    Vm,
    /// Device files bound to `/dev/iommu`, and an address space: there in every program.
    Files,
    /// Memory decoding and bus master enable.
    Config,
    /// A vIOMMU and a vdevice for each device.
    Vdevices,
    /// A page to map.
    Page,
}

/// A function of the program, and what it needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// Its text, by name.
    pub(super) name: &'static str,
    /// What the set-up calls once.
    pub(super) once: &'static str,
    /// What the set-up calls for each device.
    pub(super) each: &'static str,
    pub(super) parts: &'static [Part],
    pub(super) commands: &'static [Id],
    pub(super) constants: &'static [&'static str],
}

impl Part {
    /// All.
    pub(super) const ALL: [Self; 6] =
        [Self::Tsm, Self::Vm, Self::Files, Self::Config, Self::Vdevices, Self::Page];

    pub(super) const fn piece(self) -> Piece {
        match self {
            Self::Tsm => Piece { once: "connect_tsm();", ..NOTHING.called("tsm") },
            Self::Vm => Piece { once: "make_vm();", ..NOTHING.called("vm") },
            Self::Files => Piece {
                once: "open_iommu();",
                each: "bind_device(&devices[n]);",
                commands: &[Id::DeviceBindIommufd, Id::IoasAlloc, Id::Destroy],
                ..NOTHING.called("files")
            },
            Self::Config => Piece {
                each: "enable(&devices[n]);",
                commands: &[Id::DeviceGetRegionInfo],
                constants: &["VFIO_PCI_CONFIG_REGION_INDEX"],
                ..NOTHING.called("config")
            },
            Self::Vdevices => Piece {
                each: "make_vdevice(&devices[n]);",
                commands: &[Id::HwptAlloc, Id::ViommuAlloc, Id::VdeviceAlloc],
                constants: &["IOMMU_HWPT_ALLOC_NEST_PARENT"],
                ..NOTHING.called("vdevices")
            },
            Self::Page => Piece { once: "make_page();", ..NOTHING.called("page") },
        }
    }
}

/// What a call is in C. `by_vfio` says that the TSM is reached through the device file.
///
/// # Errors
/// Why there is no such call.
pub(super) const fn call(verb: Verb, by_vfio: bool) -> Result<Piece, &'static str> {
    use Part::{Config, Page, Tsm, Vdevices, Vm};
    const TDI: &[Part] = &[Tsm, Config, Vdevices];
    const STATE: &[&str] = &["TSM_REQ_SET_TDI_STATE", "IOMMU_VDEVICE_TSM_TVM_ARCH_CCA"];
    const BIND: &[&str] = &["IOMMU_VDEVICE_TSM_BIND"];
    const UNBIND: &[&str] = &["IOMMU_VDEVICE_TSM_UNBIND"];
    Ok(match verb {
        Verb::TsmBind if by_vfio => needs("tsm_bind_by_vfio", TDI, &[Id::DeviceTsmBind], &[]),
        Verb::TsmUnbind if by_vfio => needs("tsm_unbind_by_vfio", TDI, &[Id::DeviceTsmUnbind], &[]),
        Verb::TsmBind => needs("tsm_bind", TDI, &[Id::VdeviceTsmOp], BIND),
        Verb::TsmUnbind => needs("tsm_unbind", TDI, &[Id::VdeviceTsmOp], UNBIND),
        Verb::TsmLock => needs("tsm_lock", TDI, &[Id::VdeviceTsmReq], STATE),
        Verb::TsmRun => needs("tsm_run", TDI, &[Id::VdeviceTsmReq], STATE),
        Verb::DestroyVdevice => needs("destroy_vdevice", &[Vdevices], &[], &[]),
        Verb::DestroyViommu => needs("destroy_viommu", &[Vdevices], &[], &[]),
        Verb::VdeviceAlloc => needs("vdevice_alloc", &[Vdevices], &[], &[]),
        Verb::IoasAlloc => needs("ioas_alloc", &[], &[], &[]),
        Verb::CloseVfio => needs("close_vfio", &[], &[], &[]),
        Verb::CloseIommu => needs("close_iommu", &[], &[], &[]),
        Verb::CloseVm => needs("close_vm", &[Vm], &[], &[]),
        Verb::TsmConnect => needs("tsm_connect", &[Tsm], &[], &[]),
        Verb::TsmDisconnect => needs("tsm_disconnect", &[Tsm], &[], &[]),
        Verb::Reset => needs("reset", &[Config], &[Id::DeviceReset], &[]),
        Verb::ClearBusMaster => needs("clear_bus_master", &[Config], &[], &[]),
        Verb::Attach => needs("attach", &[], &[Id::DeviceAttachIommufdPt], &[]),
        Verb::Detach => needs("detach", &[], &[Id::DeviceDetachIommufdPt], &[]),
        Verb::Map => needs("map", &[Page], &[Id::IoasMap], MAP_FLAGS),
        Verb::Unmap => needs("unmap", &[Page], &[Id::IoasUnmap], &[]),
        Verb::Fork | Verb::ExitChild => {
            return Err(
                "a process that forks with its threads at work has one thread in the child",
            );
        }
        Verb::Remove => return Err("who takes a function away is the host, not a program"),
        Verb::Dma => return Err("how DMA is started differs from device to device"),
    })
}

const MAP_FLAGS: &[&str] =
    &["IOMMU_IOAS_MAP_FIXED_IOVA", "IOMMU_IOAS_MAP_READABLE", "IOMMU_IOAS_MAP_WRITEABLE"];

const NOTHING: Piece =
    Piece { name: "", once: "", each: "", parts: &[], commands: &[], constants: &[] };

const fn needs(
    name: &'static str,
    parts: &'static [Part],
    commands: &'static [Id],
    constants: &'static [&'static str],
) -> Piece {
    Piece { parts, commands, constants, ..NOTHING.called(name) }
}

impl Piece {
    const fn called(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// The function that makes the call.
    pub(super) fn function(&self) -> &'static str {
        self.name.strip_suffix("_by_vfio").unwrap_or(self.name)
    }

    /// Its C.
    pub(super) fn text(&self) -> &'static str {
        text(self.name)
    }
}

/// The C of this name.
pub(super) fn text(name: &str) -> &'static str {
    let is_named = |piece: &&str| piece.split('\n').next() == Some(name);
    let pieces = [include_str!("parts.c"), include_str!("calls.c")];
    let found = pieces.iter().find_map(|source| source.split("//@ ").find(is_named));
    found.and_then(|piece| piece.split_once('\n')).map_or("", |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_has_its_text() {
        let calls = Verb::ALL.iter().flat_map(|verb| [call(*verb, false), call(*verb, true)]);
        let calls: Vec<_> = calls.flatten().collect();
        // Four have no form in C.
        assert_eq!(calls.len(), 2 * (Verb::ALL.len() - 4));
        for piece in calls.into_iter().chain(Part::ALL.map(Part::piece)) {
            assert!(piece.text().contains("static "), "{}", piece.name);
            assert!(!piece.text().contains("//@"), "{}", piece.name);
        }
    }
}
