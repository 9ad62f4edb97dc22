//! From a request number to its handler.
//!
//! The rows are those of [`uapi::COMMANDS`]; here each one that is served has its handler. Takes no lock
//! itself.

use std::sync::Arc;

use iommufd::Resource;
use uapi::{CommandId, FileKind};

use crate::argument::Argument;
use crate::{
    Device, DeviceFile, Refusal, bind, feature, hot_reset, info, ioeventfd, reset, set_irqs, tsm,
};

/// Runs a command.
///
/// # Errors
/// - [`Refusal::NotBound`] – any command but BIND on a file that is not bound (`EINVAL`).
/// - [`Refusal::NoSuchCommand`] – unknown, or not served (`ENOTTY`).
/// - The handler's.
pub(crate) fn run(
    file: &Arc<DeviceFile>,
    request: u32,
    argument: &Argument<'_>,
) -> Result<u32, Refusal> {
    let device = file.device();
    let command = uapi::lookup(FileKind::VfioDevice, device.settings().profile, request);
    if command.is_some_and(|command| command.id == CommandId::DeviceBindIommufd) {
        return bind::bind(file, argument);
    }
    file.check_bound()?;
    device.wake();
    let is_alone = |command: &&uapi::Command| {
        ![CommandId::DeviceAttachIommufdPt, CommandId::DeviceDetachIommufdPt].contains(&command.id)
    };
    let served = command.filter(|command| command.served);
    // What a group's devices translate through is the group's to say.
    let served = served.filter(|command| !file.is_of_group() || is_alone(command));
    let handler = served.and_then(|command| handler_of(command.id));
    let handler = handler.ok_or(Refusal::NoSuchCommand { request })?;
    handler(&Bound { file, device }, argument)
}

/// A file that is bound.
pub(crate) struct Bound<'a> {
    pub(crate) file: &'a DeviceFile,
    pub(crate) device: &'a Arc<Device>,
}

impl Bound<'_> {
    /// Asks for something that the command uses up.
    ///
    /// # Errors
    /// [`Refusal::Iommufd`] – there is no more (`ENOMEM`).
    pub(crate) fn admit(&self, resource: Resource) -> Result<(), Refusal> {
        Ok(self.file.bound()?.admit(resource)?)
    }
}

type Handler = fn(&Bound<'_>, &Argument<'_>) -> Result<u32, Refusal>;

const HANDLERS: &[(CommandId, Handler)] = &[
    (CommandId::DeviceGetInfo, info::device_info),
    (CommandId::DeviceGetRegionInfo, info::region_info),
    (CommandId::DeviceGetIrqInfo, info::irq_info),
    (CommandId::DeviceSetIrqs, set_irqs::set_irqs),
    (CommandId::DeviceReset, reset::reset),
    (CommandId::DeviceGetPciHotResetInfo, hot_reset::info),
    (CommandId::DevicePciHotReset, hot_reset::reset),
    (CommandId::DeviceIoeventfd, ioeventfd::ioeventfd),
    (CommandId::DeviceFeature, feature::feature),
    (CommandId::DeviceAttachIommufdPt, bind::attach),
    (CommandId::DeviceDetachIommufdPt, bind::detach),
    (CommandId::DeviceTsmBind, tsm::bind),
    (CommandId::DeviceTsmUnbind, tsm::unbind),
];

fn handler_of(id: CommandId) -> Option<Handler> {
    HANDLERS.iter().find(|(row, _)| *row == id).map(|&(_, handler)| handler)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_served_rows_have_handlers() {
        for command in uapi::COMMANDS {
            let is_ours = command.file == FileKind::VfioDevice && command.served;
            let is_bind = command.id == CommandId::DeviceBindIommufd;
            let has_handler = handler_of(command.id).is_some();
            assert_eq!(has_handler, is_ours && !is_bind, "{}", command.name);
        }
    }
}
