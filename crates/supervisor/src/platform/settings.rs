//! `[settings]`: how the host behaves where Linux, or a standard, leaves a choice.
//!
//! Takes no lock. What a setting does lives where it acts; here stands only how it is spelled.

use iommufd::{Hardware, Tvm};
use tdisp::FunctionReset;
use tsm::software::Dialect;
use uapi::Profile;
use vfio::{ClientClearsBme, CloseOrder, DmaBufs, Doe, ResetWhileBound, TdiErrorEvent};

use super::fields::{Fields, Read};

/// How the host behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What hardware the IOMMU is.
    pub hardware: Hardware,
    /// Which kernel's numbers are served.
    pub uapi: Profile,
    /// In which order the last close of a device file takes things down.
    pub close_order: CloseOrder,
    /// What a reset of a function with a bound TDI does.
    pub reset_while_bound: ResetWhileBound,
    /// What clearing bus master enable does while the TDI is LOCKED or in RUN.
    pub client_clears_bme: ClientClearsBme,
    /// What a TDI becomes when a function-level reset reaches it while LOCKED or in RUN.
    pub flr_while_locked: FunctionReset,
    /// Whether a TDI can be bound for a client that named no virtual machine.
    pub tvm: Tvm,
    /// What `IOMMU_IOAS_MAP` of a mapped BAR answers.
    pub p2p_map: P2pMap,
    /// Whether BARs can be lent as dma-bufs.
    pub dma_bufs: DmaBufs,
    /// What serves `/dev/vfio/vfio`.
    pub vfio_container: VfioContainer,
    /// Whether clients see DOE mailboxes in config space.
    pub doe: Doe,
    /// How long one exchange with a device's security manager may take, in milliseconds.
    pub exchange_timeout_ms: u64,
    /// Whose guest requests the TSM understands.
    pub tsm_dialect: Dialect,
    /// Whether LOCK also locks the MSI-X table.
    pub lock_msix: bool,
    /// What a client hears when its TDI goes to ERROR.
    pub tdi_error_event: TdiErrorEvent,
    /// Which capabilities count as held.
    pub capabilities: Capabilities,
}

/// Which capabilities a thread of the program counts as holding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Capabilities {
    /// All that it has not dropped since it was started: what whoever runs Bindery lacks is no fault of the program's.
    #[default]
    UnlessDropped,
    /// Those that it holds.
    Mirror,
}

/// What `IOMMU_IOAS_MAP` of a mapped BAR answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum P2pMap {
    /// It is mapped.
    Accept,
    /// `EFAULT`, as Linux 7.3 does.
    Linux73,
}

/// What serves `/dev/vfio/vfio`. `/dev/iommu` can be a group's container either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VfioContainer {
    /// An iommufd does: a kernel with `CONFIG_IOMMUFD_VFIO_CONTAINER`.
    #[default]
    Iommufd,
    /// The module `vfio_iommu_type1` does: a kernel with `CONFIG_VFIO_CONTAINER`.
    Type1,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hardware: Hardware::Plain,
            uapi: Profile::Rfc,
            close_order: CloseOrder::UnbindFirst,
            reset_while_bound: ResetWhileBound::Refuse,
            client_clears_bme: ClientClearsBme::Error,
            flr_while_locked: FunctionReset::Unlocks,
            tvm: Tvm::Implicit,
            p2p_map: P2pMap::Accept,
            dma_bufs: DmaBufs::Linux73,
            vfio_container: VfioContainer::Iommufd,
            doe: Doe::Hidden,
            exchange_timeout_ms: 1000,
            tsm_dialect: Dialect::Any,
            lock_msix: false,
            tdi_error_event: TdiErrorEvent::Err,
            capabilities: Capabilities::UnlessDropped,
        }
    }
}

const KEYS: &[&str] = &[
    "uapi",
    "iommu",
    "close_order",
    "reset_while_bound",
    "client_clears_bme",
    "flr_while_locked",
    "tvm",
    "p2p_map",
    "dma_buf",
    "vfio_container",
    "doe",
    "exchange_timeout_ms",
    "tsm_dialect",
    "lock_msix",
    "tdi_error_event",
    "capabilities",
];

const IOMMUS: &[(&str, Hardware)] = &[
    ("plain", Hardware::Plain),
    ("vtd", Hardware::Vtd),
    ("smmuv3", Hardware::Smmuv3),
    ("mock", Hardware::Mock),
];
const CLOSE_ORDERS: &[(&str, CloseOrder)] =
    &[("unbind-first", CloseOrder::UnbindFirst), ("linux-7.3", CloseOrder::Linux73)];
const RESETS_WHILE_BOUND: &[(&str, ResetWhileBound)] = &[
    ("refuse", ResetWhileBound::Refuse),
    ("unbind", ResetWhileBound::Unbind),
    ("error", ResetWhileBound::Error),
];
const CLIENT_CLEARS_BME: &[(&str, ClientClearsBme)] =
    &[("error", ClientClearsBme::Error), ("refuse", ClientClearsBme::Refuse)];
const FLR_WHILE_LOCKED: &[(&str, FunctionReset)] =
    &[("unlocked", FunctionReset::Unlocks), ("error", FunctionReset::Breaches)];
const TVMS: &[(&str, Tvm)] = &[("implicit", Tvm::Implicit), ("kvm", Tvm::Kvm)];
const P2P_MAPS: &[(&str, P2pMap)] = &[("accept", P2pMap::Accept), ("linux-7.3", P2pMap::Linux73)];
const DMA_BUFS: &[(&str, DmaBufs)] = &[("linux-7.3", DmaBufs::Linux73), ("off", DmaBufs::Off)];
const VFIO_CONTAINERS: &[(&str, VfioContainer)] =
    &[("iommufd", VfioContainer::Iommufd), ("vfio_iommu_type1", VfioContainer::Type1)];
const DOES: &[(&str, Doe)] = &[("hidden", Doe::Hidden), ("exposed", Doe::Exposed)];
const TSM_DIALECTS: &[(&str, Dialect)] =
    &[("any", Dialect::Any), ("cca", Dialect::Cca), ("sev", Dialect::Sev), ("tdx", Dialect::Tdx)];
const TDI_ERROR_EVENTS: &[(&str, TdiErrorEvent)] =
    &[("err", TdiErrorEvent::Err), ("req", TdiErrorEvent::Req), ("none", TdiErrorEvent::None)];
const CAPABILITIES: &[(&str, Capabilities)] =
    &[("unless-dropped", Capabilities::UnlessDropped), ("mirror", Capabilities::Mirror)];
/// A device that needs longer than a minute is as good as silent.
const EXCHANGE_TIMEOUT_MS_MOST: u64 = 60_000;

/// Reads the table.
pub(super) fn read(mut fields: Fields<'_>) -> Read<Settings> {
    fields.allow(KEYS, &[])?;
    let profiles: Vec<_> = Profile::ALL.iter().map(|profile| (profile.name(), *profile)).collect();
    let hardware = fields.choice("iommu", IOMMUS)?;
    let default = Settings::default();
    Ok(Settings {
        hardware: hardware.unwrap_or(default.hardware),
        uapi: choice(&mut fields, "uapi", &profiles, default.uapi)?,
        close_order: choice(&mut fields, "close_order", CLOSE_ORDERS, default.close_order)?,
        reset_while_bound: choice(
            &mut fields,
            "reset_while_bound",
            RESETS_WHILE_BOUND,
            default.reset_while_bound,
        )?,
        client_clears_bme: choice(
            &mut fields,
            "client_clears_bme",
            CLIENT_CLEARS_BME,
            default.client_clears_bme,
        )?,
        flr_while_locked: choice(
            &mut fields,
            "flr_while_locked",
            FLR_WHILE_LOCKED,
            default.flr_while_locked,
        )?,
        tvm: choice(&mut fields, "tvm", TVMS, default.tvm)?,
        p2p_map: choice(&mut fields, "p2p_map", P2P_MAPS, default.p2p_map)?,
        dma_bufs: choice(&mut fields, "dma_buf", DMA_BUFS, default.dma_bufs)?,
        vfio_container: choice(
            &mut fields,
            "vfio_container",
            VFIO_CONTAINERS,
            default.vfio_container,
        )?,
        doe: choice(&mut fields, "doe", DOES, default.doe)?,
        exchange_timeout_ms: fields
            .number("exchange_timeout_ms", 1..=EXCHANGE_TIMEOUT_MS_MOST, "1 to 60000")?
            .unwrap_or(default.exchange_timeout_ms),
        tsm_dialect: choice(&mut fields, "tsm_dialect", TSM_DIALECTS, default.tsm_dialect)?,
        lock_msix: fields.switch("lock_msix")?.unwrap_or(default.lock_msix),
        tdi_error_event: choice(
            &mut fields,
            "tdi_error_event",
            TDI_ERROR_EVENTS,
            default.tdi_error_event,
        )?,
        capabilities: choice(&mut fields, "capabilities", CAPABILITIES, default.capabilities)?,
    })
}

fn choice<T: Copy>(
    fields: &mut Fields<'_>,
    key: &'static str,
    values: &[(&'static str, T)],
    default: T,
) -> Read<T> {
    Ok(fields.choice(key, values)?.unwrap_or(default))
}
