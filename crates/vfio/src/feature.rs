//! DEVICE_FEATURE: what only some devices can do.
//!
//! Served as by vfio-pci for a device without a migration driver: low power, the VF token of a physical function, BARs as
//! dma-bufs (`dma_buf.rs`), and the refusals of all else.
//!
//! Low power has no effect but its protocol: an emulated function does not sleep, and mapped BARs stay
//! mapped. Takes `MEMORY`. Source: [uapi/vfio.h].

use sync::{Guard, rank};
use uapi::vfio::{Feature, LowPowerEntryWithWakeup, feature_flags, feature_id};
use zerocopy::{FromZeros, IntoBytes};

use crate::argument::Argument;
use crate::command::Bound;
use crate::device::{LowPower, Memory, VfToken};
use crate::irq::Trigger;
use crate::{Device, DmaBufs, Refusal, dma_buf};

/// `VFIO_DEVICE_FEATURE`: gets, sets or probes a feature.
///
/// # Errors
/// In this order:
/// - [`Refusal::Unreachable`], [`Refusal::Argsz`], [`Refusal::Flags`] – the argument (`EFAULT`, `EINVAL`).
/// - [`Refusal::NoSuchFeature`] (`ENOTTY`), [`Refusal::NoPrecopy`] (`EINVAL`).
/// - [`Refusal::FeatureOperation`] – it cannot be got, or not set, or neither is asked (`EINVAL`).
/// - [`Refusal::Argsz`], [`Refusal::Unreachable`] – the feature's data (`EINVAL`, `EFAULT`).
/// - The feature's own.
pub(crate) fn feature(bound: &Bound<'_>, argument: &Argument<'_>) -> Result<u32, Refusal> {
    let asked: Feature = argument.read(size_of::<Feature>())?;
    let known =
        feature_flags::MASK | feature_flags::GET | feature_flags::SET | feature_flags::PROBE;
    let both = feature_flags::GET | feature_flags::SET;
    let is_probe = asked.flags & feature_flags::PROBE != 0;
    if asked.flags & !known != 0 || (asked.flags & both == both && !is_probe) {
        return Err(Refusal::Flags { flags: asked.flags });
    }
    let device = bound.device;
    match asked.flags & feature_flags::MASK {
        feature_id::PCI_VF_TOKEN if device.facts().sriov.is_some() => {
            set_token(device, argument, asked)
        }
        feature_id::LOW_POWER_ENTRY => {
            let entry = check_set(asked, 0)?;
            if entry { device.enter_low_power(LowPower::Engaged) } else { Ok(()) }
        }
        feature_id::LOW_POWER_ENTRY_WITH_WAKEUP => enter_with_wakeup(device, argument, asked),
        feature_id::LOW_POWER_EXIT => {
            if check_set(asked, 0)? {
                device.exit_low_power();
            }
            Ok(())
        }
        feature_id::DMA_BUF if device.settings().dma_bufs == DmaBufs::Linux73 => {
            return dma_buf::export(bound, argument, asked);
        }
        feature_id::MIG_PRECOPY_INFO_V2 => Err(Refusal::NoPrecopy),
        feature => Err(Refusal::NoSuchFeature { feature }),
    }?;
    Ok(0)
}

/// Checks the operation on a feature that can only be set; `false` where it is only probed.
fn check_set(asked: Feature, data_size: usize) -> Result<bool, Refusal> {
    check(asked, feature_flags::SET, data_size)
}

/// Checks the operation on a feature that takes only `supported`, GET or SET; `false` where it is only probed.
///
/// # Errors
/// [`Refusal::FeatureOperation`], [`Refusal::Argsz`] (`EINVAL`).
pub(crate) fn check(asked: Feature, supported: u32, data_size: usize) -> Result<bool, Refusal> {
    let operations = asked.flags & (feature_flags::GET | feature_flags::SET);
    let refusal = Refusal::FeatureOperation {
        feature: asked.flags & feature_flags::MASK,
        flags: asked.flags,
    };
    if operations & !supported != 0 {
        return Err(refusal);
    }
    if asked.flags & feature_flags::PROBE != 0 {
        return Ok(false);
    }
    if operations == 0 {
        return Err(refusal);
    }
    let least = size_of::<Feature>() + data_size;
    if (asked.argsz as usize) < least {
        let least = u32::try_from(least).unwrap_or(u32::MAX);
        return Err(Refusal::Argsz { given: asked.argsz, least });
    }
    Ok(true)
}

fn set_token(device: &Device, argument: &Argument<'_>, asked: Feature) -> Result<(), Refusal> {
    if !check_set(asked, size_of::<VfToken>())? {
        return Ok(());
    }
    let mut token = VfToken::default();
    argument.read_at(size_of::<Feature>(), &mut token)?;
    device.memory().lock().token = Some(token);
    Ok(())
}

fn enter_with_wakeup(
    device: &Device,
    argument: &Argument<'_>,
    asked: Feature,
) -> Result<(), Refusal> {
    if !check_set(asked, size_of::<LowPowerEntryWithWakeup>())? {
        return Ok(());
    }
    let mut entry = LowPowerEntryWithWakeup::new_zeroed();
    argument.read_at(size_of::<Feature>(), entry.as_mut_bytes())?;
    let fd = entry.wakeup_eventfd;
    if fd < 0 {
        return Err(Refusal::NegativeFd { fd });
    }
    let wakeup = argument.caller.eventfd(fd).map_err(|fault| Refusal::of_eventfd(fd, fault))?;
    device.enter_low_power(LowPower::WakesWith(wakeup))
}

impl Device {
    fn enter_low_power(&self, entry: LowPower) -> Result<(), Refusal> {
        let mut memory = self.memory().lock();
        if !matches!(memory.low_power, LowPower::Off) {
            drop(memory);
            return Err(Refusal::LowPowerEngaged);
        }
        memory.low_power = entry;
        self.end_low_power_change(memory);
        Ok(())
    }

    fn exit_low_power(&self) {
        let mut memory = self.memory().lock();
        let before = std::mem::replace(&mut memory.low_power, LowPower::Off);
        self.end_low_power_change(memory);
        drop(before);
    }

    fn end_low_power_change(&self, memory: Guard<'_, rank::Memory, Memory>) {
        let lends = memory.lent.is_any();
        drop(memory);
        if lends {
            self.settle_lent();
        }
    }
}

impl LowPower {
    /// An access wakes the device: what is to be signalled for it.
    pub(crate) fn wake(&mut self) -> Option<Trigger> {
        match std::mem::replace(self, Self::Off) {
            Self::Off => None,
            Self::Engaged => {
                *self = Self::Engaged;
                None
            }
            Self::WakesWith(trigger) => Some(trigger),
        }
    }
}
