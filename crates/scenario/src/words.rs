//! The words of scenarios: calls, objects, outcomes. One table for files, for the command line, and for help.
//!
//! Takes no lock.

use std::fmt;

use thiserror::Error;

/// What a thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// What is done.
    pub verb: Verb,
    /// To which of the objects of its kind; 0 where there is one.
    pub number: usize,
}

macro_rules! verbs {
    ($($verb:ident $word:literal $object:ident, $doc:literal;)+) => {
        /// What can be done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Verb {
            $(#[doc = $doc] $verb,)+
        }

        impl Verb {
            /// All, in the order of help.
            pub const ALL: &[Self] = &[$(Self::$verb,)+];

            /// The words that call it, without a number.
            pub const fn words(self) -> &'static str {
                match self {
                    $(Self::$verb => $word,)+
                }
            }

            /// What it does, in a line.
            pub const fn summary(self) -> &'static str {
                match self {
                    $(Self::$verb => $doc,)+
                }
            }

            /// The kind of object that follows the words.
            pub const fn object(self) -> Object {
                match self {
                    $(Self::$verb => Object::$object,)+
                }
            }
        }
    };
}

verbs! {
    TsmBind "tsm_bind" Vdevice, "IOMMU_VDEVICE_TSM_OP: bind.";
    TsmUnbind "tsm_unbind" Vdevice, "IOMMU_VDEVICE_TSM_OP: unbind.";
    TsmLock "tsm_lock" Vdevice, "IOMMU_VDEVICE_TSM_REQ: SET_TDI_STATE to LOCKED.";
    TsmRun "tsm_run" Vdevice, "IOMMU_VDEVICE_TSM_REQ: SET_TDI_STATE to RUN.";
    DestroyVdevice "destroy" Vdevice, "IOMMU_DESTROY of the vdevice.";
    DestroyViommu "destroy" Viommu, "IOMMU_DESTROY of the vIOMMU.";
    VdeviceAlloc "vdevice_alloc" Device, "IOMMU_VDEVICE_ALLOC for the device.";
    IoasAlloc "ioas_alloc" Iommu, "IOMMU_IOAS_ALLOC: takes the lowest free id.";
    CloseVfio "close" Vfio, "Closes the device's file.";
    CloseIommu "close" Iommu, "Closes /dev/iommu.";
    CloseVm "close" Vm, "Closes the VM's file.";
    Fork "fork" Program, "Forks: a child has all that is open, and is one at a time.";
    ExitChild "exit" Child, "The child ends, and closes what it has.";
    TsmConnect "tsm_connect" Device, "Writes tsm0 to the device's tsm/connect.";
    TsmDisconnect "tsm_disconnect" Device, "Writes tsm0 to the device's tsm/disconnect.";
    Remove "remove" Device, "Takes the function away, as disabling VFs does.";
    Reset "reset" Vfio, "VFIO_DEVICE_RESET.";
    ClearBusMaster "clear_bus_master" Vfio, "A config write that clears bus master enable.";
    Attach "attach" Vfio, "VFIO_DEVICE_ATTACH_IOMMUFD_PT to the IOAS.";
    Detach "detach" Vfio, "VFIO_DEVICE_DETACH_IOMMUFD_PT.";
    Map "map" Ioas, "IOMMU_IOAS_MAP of one page.";
    Unmap "unmap" Ioas, "IOMMU_IOAS_UNMAP of that page.";
    Dma "dma" Device, "A DMA read of that page by the device.";
}

/// A kind of object that calls name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    /// `vdev0`
    Vdevice,
    /// `viommu0`
    Viommu,
    /// `dev0`
    Device,
    /// `vfio0`
    Vfio,
    /// `ioas`
    Ioas,
    /// `iommu`
    Iommu,
    /// `vm`
    Vm,
    /// `program`
    Program,
    /// `child`
    Child,
}

impl Object {
    const fn name(self) -> &'static str {
        match self {
            Self::Vdevice => "vdev",
            Self::Viommu => "viommu",
            Self::Device => "dev",
            Self::Vfio => "vfio",
            Self::Ioas => "ioas",
            Self::Iommu => "iommu",
            Self::Vm => "vm",
            Self::Program => "program",
            Self::Child => "child",
        }
    }

    /// Whether there may be several, and a number follows.
    const fn is_numbered(self) -> bool {
        matches!(self, Self::Vdevice | Self::Viommu | Self::Device | Self::Vfio)
    }

    /// Whether a call may leave it out where there is one.
    const fn may_be_left_out(self) -> bool {
        matches!(self, Self::Ioas | Self::Device | Self::Program)
    }
}

/// A call that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WordError {
    /// No call begins so.
    #[error("there is no call {word:?}; calls are {}", known())]
    Verb {
        /// What stands there.
        word: String,
    },
    /// The call is not done to such an object.
    #[error("{verb} is done to {expected}, not to {found:?}")]
    Object {
        /// The call.
        verb: String,
        /// What it is done to.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// The call names an object too many.
    #[error("nothing can follow {before:?}, but {found:?} does")]
    Rest {
        /// What was understood.
        before: String,
        /// What stands there.
        found: String,
    },
}

fn known() -> String {
    let mut words: Vec<_> = Verb::ALL.iter().map(|verb| verb.words()).collect();
    words.dedup();
    words.join(", ")
}

/// Objects of one kind that a scenario can have.
pub const OBJECTS_MAX: usize = 10;

impl Call {
    /// Reads a call: `destroy vdev0`.
    ///
    /// # Errors
    /// [`WordError`].
    pub fn parse(text: &str) -> Result<Self, WordError> {
        let mut words = text.split_whitespace();
        let first = words.next().unwrap_or_default();
        let second = words.next();
        if let Some(rest) = words.next() {
            let before = format!("{first} {}", second.unwrap_or_default());
            return Err(WordError::Rest { before, found: rest.to_owned() });
        }
        let verbs: Vec<_> = Verb::ALL.iter().filter(|verb| verb.words() == first).collect();
        if verbs.is_empty() {
            return Err(WordError::Verb { word: first.to_owned() });
        }
        let found = verbs.iter().find_map(|verb| {
            let number = number(verb.object(), second)?;
            Some(Self { verb: **verb, number })
        });
        found.ok_or_else(|| WordError::Object {
            verb: first.to_owned(),
            expected: verbs
                .iter()
                .map(|verb| example(verb.object()))
                .collect::<Vec<_>>()
                .join(" or "),
            found: second.unwrap_or_default().to_owned(),
        })
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = self.verb.object();
        write!(f, "{} {}", self.verb.words(), object.name())?;
        if object.is_numbered() { write!(f, "{}", self.number) } else { Ok(()) }
    }
}

fn number(object: Object, word: Option<&str>) -> Option<usize> {
    let Some(word) = word else { return object.may_be_left_out().then_some(0) };
    let digits = word.strip_prefix(object.name())?;
    if !object.is_numbered() {
        return digits.is_empty().then_some(0);
    }
    let number: usize = digits.parse().ok()?;
    // One spelling only: no sign, no leading zero.
    (number < OBJECTS_MAX && digits.len() == 1).then_some(number)
}

fn example(object: Object) -> String {
    if object.is_numbered() { format!("{}N", object.name()) } else { object.name().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_reads_back_as_it_prints() {
        for &verb in Verb::ALL {
            let number = usize::from(verb.object().is_numbered());
            let call = Call { verb, number };
            assert_eq!(Call::parse(&call.to_string()), Ok(call), "{call}");
        }
    }

    #[test]
    fn what_may_be_left_out_is_the_first() {
        assert_eq!(
            Call::parse("tsm_disconnect"),
            Ok(Call { verb: Verb::TsmDisconnect, number: 0 })
        );
        assert_eq!(Call::parse(" map "), Ok(Call { verb: Verb::Map, number: 0 }));
    }

    #[test]
    fn mistakes_say_what_there_is() {
        let message = |text| Call::parse(text).unwrap_err().to_string();
        assert!(message("bind vdev0").contains("tsm_bind"));
        assert_eq!(
            message("destroy vfio0"),
            "destroy is done to vdevN or viommuN, not to \"vfio0\""
        );
        assert_eq!(message("close"), "close is done to vfioN or iommu or vm, not to \"\"");
        assert!(message("destroy vdev01").contains("vdevN"));
        assert!(message("destroy vdev0 now").contains("now"));
    }
}
