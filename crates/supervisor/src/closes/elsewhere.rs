//! Which files of ours other processes have, as `/proc` tells.
//!
//! Takes no lock. Source: proc_pid_fd(5), proc_pid_maps(5).

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use host::mappings::Mappings;

use crate::process::Identity;

/// Which of `sought` some other process has open or mapped.
pub(super) fn open_somewhere(sought: &HashSet<Identity>) -> HashSet<Identity> {
    let mut found = HashSet::new();
    let own = i32::try_from(std::process::id()).ok();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if Some(pid) == own {
            continue;
        }
        let files = fs::read_dir(process.path().join("fd"));
        for file in files.into_iter().flatten().flatten() {
            let Ok(data) = fs::metadata(file.path()) else { continue };
            found.insert(Identity { device: data.dev(), inode: data.ino() });
        }
        found.extend(mapped_by(pid));
    }
    found.retain(|identity| sought.contains(identity));
    found
}

/// What a process has mapped, by device and inode; nothing where that cannot be seen.
fn mapped_by(pid: i32) -> impl Iterator<Item = Identity> {
    let mappings = Mappings::open(pid).and_then(|mappings| mappings.all()).unwrap_or_default();
    let files = mappings.into_iter().filter(|mapping| mapping.inode != 0);
    files.map(|mapping| {
        let (major, minor) = mapping.device;
        Identity { device: rustix::fs::makedev(major, minor), inode: mapping.inode }
    })
}
