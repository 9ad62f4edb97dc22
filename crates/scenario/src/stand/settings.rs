//! A scenario's settings as the machine takes them.
//!
//! Takes no lock.

use iommufd::Tvm;
use tdisp::FunctionReset;
use tsm::fault::{Fault, Kind, Operation};
use uapi::Profile;
use uapi::iommufd::viommu_type;
use vfio::{ClientClearsBme, CloseOrder, ResetWhileBound};

use crate::file::Scenario;
use crate::script::Step;
use crate::words::Verb;

/// How the machine is.
#[derive(Clone, Debug)]
pub struct StandSettings {
    pub(super) profile: Profile,
    pub(super) tvm: Tvm,
    pub(super) viommu: u32,
    pub(super) close_order: CloseOrder,
    pub(super) flr_while_locked: FunctionReset,
    pub(super) faults: Vec<Fault>,
    /// The device files are linked with a VM.
    /// Whether another process may have the program's files.
    pub(super) forks: bool,
    pub(super) with_vm: bool,
    /// A function that is in use may be without a page table: it is never attached, or a call detaches it.
    pub(super) may_be_unattached: bool,
    reset_while_bound: ResetWhileBound,
    client_clears_bme: ClientClearsBme,
}

impl StandSettings {
    /// The settings of a scenario, which have been checked.
    pub fn of(scenario: &Scenario) -> Self {
        let settings = &scenario.settings;
        let verbs = |steps: &[Step]| steps.iter().map(|step| step.call.verb).collect::<Vec<_>>();
        let (before, after) = (verbs(&scenario.setup), verbs(&scenario.threads.concat()));
        let is_made = |verb: Verb| before.contains(&verb) || after.contains(&verb);
        let value = |key: &str| settings.get(key).map(|setting| setting.value.as_str());
        let tvm = if value("tvm") == Some("kvm") { Tvm::Kvm } else { Tvm::Implicit };
        Self {
            profile: value("uapi").and_then(Profile::from_name).unwrap_or_default(),
            tvm,
            viommu: match value("viommu") {
                Some("realm") => viommu_type::ARM_REALM_SMMUV3,
                _ => viommu_type::ARM_SMMUV3,
            },
            close_order: match value("close_order") {
                Some("linux-7.3") => CloseOrder::Linux73,
                _ => CloseOrder::UnbindFirst,
            },
            flr_while_locked: match value("flr_while_locked") {
                Some("error") => FunctionReset::Breaches,
                _ => FunctionReset::Unlocks,
            },
            reset_while_bound: match value("reset_while_bound") {
                Some("unbind") => ResetWhileBound::Unbind,
                Some("error") => ResetWhileBound::Error,
                _ => ResetWhileBound::Refuse,
            },
            client_clears_bme: match value("client_clears_bme") {
                Some("refuse") => ClientClearsBme::Refuse,
                _ => ClientClearsBme::Error,
            },
            faults: [(Operation::Bind, "bind"), (Operation::Unbind, "unbind")]
                .into_iter()
                .filter_map(|(on, key)| {
                    let kind = kind(value(key)?)?;
                    Some(Fault { on, kind, times: None })
                })
                .collect(),
            forks: is_made(Verb::Fork),
            with_vm: is_made(Verb::CloseVm) || tvm == Tvm::Kvm,
            may_be_unattached: !before.contains(&Verb::Attach) || is_made(Verb::Detach),
        }
    }

    /// Whether a reset reaches a TDI that is bound.
    pub(crate) fn resets_break(&self) -> bool {
        self.reset_while_bound == ResetWhileBound::Error
    }

    /// Whether the device does as it is told by an unbind.
    pub(super) fn unbinds_are_answered(&self) -> bool {
        !self.faults.iter().any(|fault| fault.on == Operation::Unbind)
    }

    pub(super) fn vfio(&self) -> vfio::Settings {
        vfio::Settings {
            profile: self.profile,
            close_order: self.close_order,
            reset_while_bound: self.reset_while_bound,
            client_clears_bme: self.client_clears_bme,
            ..vfio::Settings::default()
        }
    }
}

/// The fault that a setting's value names; `None` where nothing goes wrong.
fn kind(value: &str) -> Option<Kind> {
    match value {
        // How late is the explorer's to choose: any moment before or after the exchange's deadline.
        "slow" => Some(Kind::Slow { ms: 1 }),
        "silent" => Some(Kind::Silent),
        "null" => Some(Kind::NullBind),
        "error-before" => Some(Kind::ErrorBefore),
        "error-after-commit" => Some(Kind::ErrorAfter),
        "refused" => Some(Kind::Refused),
        _ => None,
    }
}
