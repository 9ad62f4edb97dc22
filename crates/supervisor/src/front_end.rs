//! What all listeners share: the machine, the files open on it, and the program's processes.
//!
//! Absent on purpose: what each call does, which is in [`requests`](crate::requests).

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use host::notify::Listener;
use iommufd::Counts;
use rustix::process::Pid;
use uapi::Profile;
use vfio::{DeviceFile, GroupFile};

use crate::closes::{Closes, Release};
use crate::descendants;
use crate::eventfds::Eventfds;
use crate::files::{File, Files, Object};
use crate::locked_memory::LockedMemory;
use crate::machine::Machine;
use crate::observer::{Left, Observer};
use crate::overlay::Overlay;
use crate::process::{Identity, Tasks};
use crate::reach::{Place, Reach, Touch};
use crate::vms::Vms;

/// The front end of one run.
pub(crate) struct FrontEnd {
    pub(crate) listener: Listener,
    pub(crate) machine: Arc<Machine>,
    pub(crate) overlay: Overlay,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) profile: Profile,
    pub(crate) files: Arc<Files>,
    pub(crate) closes: Closes,
    pub(crate) tasks: Tasks,
    pub(crate) eventfds: Arc<Eventfds>,
    pub(crate) vms: Vms,
    pub(crate) locked_memory: Arc<LockedMemory>,
    /// Numbers that descriptors of event files get.
    pub(crate) event_numbers: RangeInclusive<u32>,
    /// Whether mappings of device files are refused as memory for DMA.
    pub(crate) refuses_device_memory: bool,
    /// Whether the program ever got a directory of the overlay, so that relative paths may be ours.
    pub(crate) directories_out: AtomicBool,
}

impl FrontEnd {
    /// Completes the release of every closed file that a call about `touch` could miss. Calls
    /// `before_waiting` where releases that another thread has begun are still running.
    pub(crate) fn complete_closes(&self, touch: Touch, before_waiting: impl FnOnce()) {
        self.closes.complete(self, touch, before_waiting);
    }

    /// Completes releases as closes happen, for as long as this process lives.
    pub(crate) fn watch_closes(self: &Arc<Self>) -> ! {
        self.closes.serve(&**self, &|| self.help_releasing())
    }

    /// Releases every file there is: the tree has ended.
    pub(crate) fn release_all(&self) {
        self.complete_closes(Touch::All, || ());
        for (identity, _) in self.files.all() {
            self.release(identity);
        }
    }

    /// Makes a thread that releases what nobody has begun to release; says whether there is one.
    fn help_releasing(self: &Arc<Self>) -> bool {
        let front = Arc::clone(self);
        let helper = move || front.closes.release_left(&*front);
        thread::Builder::new().name("release".to_owned()).spawn(helper).is_ok()
    }

    fn device_reach(&self, number: usize, file: &DeviceFile, busy: bool) -> Reach {
        let Some(device) = self.machine.devices.get(number) else { return Reach::of_itself(busy) };
        let bound = file.iommufd();
        let context = bound.as_ref().map(|bound| bound.context());
        let binding = self.machine.tsm.binding(device.address);
        let slow = busy || (bound.is_some() && binding.is_bound());
        Reach::of_device(Place::of(device), context, slow)
    }

    fn group_reach(&self, group: &GroupFile, busy: bool) -> Reach {
        let Some(member) = self.machine.member_of(group.group().number()) else {
            return Reach::of_itself(busy);
        };
        Reach::of_device(Place::of(member), group.group().iommufd().as_ref(), busy)
    }

    /// Where device files are looked up that may not be mapped for DMA.
    pub(crate) fn refused_device_files(&self) -> Option<Arc<Files>> {
        self.refuses_device_memory.then(|| Arc::clone(&self.files))
    }

    /// Notes that the program has a directory of the overlay.
    pub(crate) fn hand_out_directory(&self) {
        self.directories_out.store(true, Ordering::Relaxed);
    }
}

impl Release for FrontEnd {
    fn reach(&self, identity: Identity) -> Reach {
        let Some(file) = self.files.find(identity) else { return Reach::default() };
        let busy = file.is_busy();
        match &file.object {
            Object::Vfio { number, file } => self.device_reach(*number, file, busy),
            Object::Group(group) => self.group_reach(group, busy),
            Object::Access(access) => Reach::of_context(access.context(), busy),
            Object::Events(events) => Reach::of_context(events.context(), busy),
            Object::Iommufd(_)
            | Object::Container(_)
            | Object::DmaBuf(_)
            | Object::Attribute(_) => Reach::of_itself(busy),
        }
    }

    /// Releases one file, if it is there. What runs on it is cancelled, and waited for.
    fn release(&self, identity: Identity) {
        let Some(file) = self.files.remove(identity) else { return };
        let left = match &file.object {
            Object::Iommufd(context) => {
                context.cancel_commands();
                file.outwait_commands();
                let mut counts = context.counts();
                // What came with the first group is not the client's to destroy.
                counts.ioases -= usize::from(counts.ioases > 0 && context.compat_ioas_id().is_ok());
                let left = left(&counts, &file);
                context.put_file();
                left
            }
            Object::Vfio { file: device, .. } => {
                // Cancels what waits on the file itself, so it comes before the waiting here.
                device.release();
                file.outwait_commands();
                left(&Counts::default(), &file)
            }
            Object::Group(group) => {
                file.outwait_commands();
                group.release();
                left(&Counts::default(), &file)
            }
            Object::Container(_) | Object::DmaBuf(_) => {
                file.outwait_commands();
                left(&Counts::default(), &file)
            }
            Object::Access(access) => {
                file.outwait_commands();
                access.release();
                left(&Counts::default(), &file)
            }
            Object::Events(events) => {
                file.outwait_commands();
                events.release();
                left(&Counts::default(), &file)
            }
            Object::Attribute(_) => return,
        };
        self.observer.released(&file.told, &left);
    }
}

fn left(counts: &Counts, file: &File) -> Left {
    let opener = Pid::from_raw(file.told.opener).and_then(descendants::stat);
    // A bound device is not left over, nor its vdevice: the close of the device's own file ends both.
    let objects = [("ioas", counts.ioases), ("hwpt", counts.hwpts), ("viommu", counts.viommus)];
    Left {
        objects: objects
            .into_iter()
            .filter(|&(_, count)| count > 0)
            .map(|(name, count)| (name, count as u64))
            .collect(),
        maps: counts.areas,
        mapped_bytes: counts.mapped_bytes,
        at_exit: opener.is_none_or(|stat| stat.exiting),
    }
}

/// The kernel's errno of a failed call of ours, to be passed on.
pub(crate) fn errno(error: &io::Error) -> uapi::Errno {
    error.raw_os_error().and_then(uapi::Errno::from_raw).unwrap_or(uapi::Errno::EIO)
}
