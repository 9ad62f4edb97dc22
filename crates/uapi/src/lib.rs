//! What the Linux kernel publishes about iommufd and VFIO: numbers, structs, error numbers, and the
//! one table of commands. The words are those of Linux 7.3 on x86-64.
//!
//! | To find | Look at |
//! |---|---|
//! | a command: number, argument, size rule, whether it is served | [`COMMANDS`], [`lookup`] |
//! | an argument's struct and its flags | [`iommufd`], [`vfio`], [`kvm`] |
//! | an error number | [`Errno`] |
//! | the shape of a struct as data | [`Layout`], each struct's `LAYOUT`, [`layouts`] |
//! | which shape of the TSM series a client meets | [`Profile`] |
//! | all of it as a C header | [`Header`] |
//!
//! Invariant: this crate knows no behaviour. It says that `IOMMU_IOAS_MAP` takes 40 bytes, and
//! nothing about mapping. What is refused, in which order and why, stands in `iommufd` and `vfio`;
//! whether memory can be read, in the front end.
//!
//! Takes no lock, allocates nothing, and does no IO. Little-endian machines only, as Linux is on
//! x86-64. Deliberately absent: other architectures' commands, 32-bit compatibility, and the rest
//! of KVM.
#![forbid(unsafe_code)]

mod abi;
mod command;
mod errno;
mod header;
pub mod iommufd;
pub mod kvm;
mod profile;
pub mod vfio;

pub use abi::{Constant, Direction, Field, Layout, Radix, Shown, Tail};
pub use command::{COMMANDS, Command, CommandId, FileKind, SizeRule, lookup};
pub use errno::Errno;
pub use header::{Excerpt, Header, commands_in, constants_in, layouts_in, tag};
pub use profile::{Profile, Profiles};

#[cfg(target_endian = "big")]
compile_error!("structs are shared with clients byte for byte, and all of them are little-endian");

/// The shape of every ABI struct of this crate.
pub fn layouts() -> impl Iterator<Item = &'static Layout> {
    let files = iommufd::LAYOUTS.iter().chain(vfio::LAYOUTS).chain([&kvm::LAYOUTS]);
    files.copied().flatten().copied()
}

/// Every flag bit and enumerator of this crate, under its C name.
pub fn constants() -> impl Iterator<Item = &'static Constant> {
    let files = iommufd::CONSTANTS.iter().chain(vfio::CONSTANTS).chain([&kvm::CONSTANTS]);
    files.copied().flatten()
}
