//! One call as one line, with its arguments by name.

use std::fmt::{self, Write};

use uapi::vfio::irq_set;
use uapi::{Command, CommandId, Direction, Errno, Field, FileKind, Layout, Profile};

use super::names::{Named, region_name};
use crate::findings::name_of;
use crate::observer::{Call, OpenFile, command_on};

/// Bytes of a read or write that are printed; the rest is elided.
const BYTES_SHOWN: usize = 16;
/// Elements of a trailing array that are printed.
const ELEMENTS_SHOWN: usize = 16;

/// A call and its answer, ready to print.
pub(super) struct Line<'a> {
    pub(super) call: &'a Call<'a>,
    pub(super) answer: Result<u64, Errno>,
    pub(super) profile: Profile,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name_of(self.call, self.profile))?;
        match *self.call {
            Call::Open { path, .. } => write!(f, "({path:?}){}", Answer(self.answer)),
            Call::Ioctl { fd, file, request, argument, sent, returned } => {
                f.write_char('(')?;
                descriptor(f, fd, file)?;
                match command_on(file.kind, self.profile, request) {
                    Some(command) => self.command(f, command, argument, sent, returned)?,
                    None => write!(f, ", {argument:#x}){}", Answer(self.answer))?,
                }
                if self.answer.is_err() { self.elsewhere(f, file.kind, request) } else { Ok(()) }
            }
            Call::Read { fd, file, offset, count, bytes } => {
                f.write_char('(')?;
                descriptor(f, fd, file)?;
                write!(f, ", {}, {count}){}", Place(offset), Answer(self.answer))?;
                if bytes.is_empty() { Ok(()) } else { write!(f, " {{{}}}", Bytes(bytes)) }
            }
            Call::Write { fd, file, offset, count, bytes } => {
                f.write_char('(')?;
                descriptor(f, fd, file)?;
                write!(f, ", {}, {count}", Place(offset))?;
                if !bytes.is_empty() {
                    write!(f, ", {}", Bytes(bytes))?;
                }
                write!(f, "){}", Answer(self.answer))
            }
            Call::Map { fd, file, offset, length } => {
                f.write_char('(')?;
                descriptor(f, fd, file)?;
                write!(f, ", {}, length={length:#x}){}", Place(offset), Answer(self.answer))
            }
        }
    }
}

impl Line<'_> {
    /// The rest of the line after the descriptor, from the command's row.
    fn command(
        &self,
        f: &mut fmt::Formatter<'_>,
        command: &Command,
        argument: u64,
        sent: &[u8],
        returned: &[u8],
    ) -> fmt::Result {
        let Some(layout) = command.argument else {
            // A command without a struct: its argument, if any, is the value itself.
            if argument != 0 {
                write!(f, ", {argument:#x}")?;
            }
            return write!(f, "){}", Answer(self.answer));
        };
        if sent.is_empty() {
            return write!(f, ", {argument:#x}){}", Answer(self.answer));
        }
        for (field, value) in layout.fields_of(sent).filter(|(field, value)| {
            field.is_input() && !is_expected(layout, field, *value, argument_size(command, sent))
        }) {
            write!(f, ", {}={}", field.name, Named { layout, field, value })?;
        }
        if command.id == CommandId::DeviceSetIrqs {
            vectors(f, layout, sent)?;
        }
        write!(f, "){}", Answer(self.answer))?;
        answered(f, layout, sent, returned)
    }
}

impl Line<'_> {
    /// What the number means in other profiles, where this one does not serve it.
    fn elsewhere(&self, f: &mut fmt::Formatter<'_>, kind: FileKind, request: u32) -> fmt::Result {
        let ours = command_on(kind, self.profile, request);
        if ours.is_some_and(|command| command.served) {
            return Ok(());
        }
        let meant = |profile: &Profile| {
            let command = command_on(kind, *profile, request)?;
            let other = ours.is_none_or(|ours| ours.id != command.id);
            other.then_some((command.name, profile.name()))
        };
        let mut others: Vec<_> = Profile::ALL.iter().filter_map(meant).collect();
        others.sort_by_key(|(name, _)| *name);
        let mut said = None;
        for (name, profile) in &others {
            let separator = match said {
                None => format!(" ({name} exists in "),
                Some(before) if before == name => ", ".to_owned(),
                Some(_) => format!(", {name} in "),
            };
            write!(f, "{separator}{profile}")?;
            said = Some(name);
        }
        match said {
            Some(_) => write!(f, "; this run serves {})", self.profile.name()),
            None => Ok(()),
        }
    }
}

/// What the caller stated of the size: as many bytes as were read, beyond which a tail follows.
fn argument_size(command: &Command, sent: &[u8]) -> u64 {
    u64::from(command.size).max(sent.len() as u64)
}

/// Whether a field says nothing that the reader does not know: the size, or a clean reserved field.
fn is_expected(layout: &Layout, field: &Field, value: u64, size: u64) -> bool {
    let is_size = field.offset == 0 && matches!(field.name, "size" | "argsz");
    (is_size && (value == size || value == layout.size as u64))
        || (field.is_reserved() && value == 0)
}

/// The fields that the answer filled in or changed.
fn answered(
    f: &mut fmt::Formatter<'_>,
    layout: &Layout,
    sent: &[u8],
    returned: &[u8],
) -> fmt::Result {
    let mut before = layout.fields_of(sent);
    let mut separator = " {";
    for (field, value) in layout.fields_of(returned) {
        let was = before.next().map(|(_, value)| value);
        let told = field.direction == Direction::Out || was.is_none_or(|was| was != value);
        if told && !field.is_reserved() {
            write!(f, "{separator}{}={}", field.name, Named { layout, field, value })?;
            separator = ", ";
        }
    }
    f.write_str(if separator == " {" { "" } else { "}" })
}

/// What follows a `vfio_irq_set`: file descriptors or booleans.
fn vectors(f: &mut fmt::Formatter<'_>, layout: &Layout, sent: &[u8]) -> fmt::Result {
    let flags = layout.fields_of(sent).find(|(field, _)| field.name == "flags");
    let flags = flags.map_or(0, |(_, flags)| flags);
    let tail = sent.get(layout.size..).unwrap_or_default();
    if flags & u64::from(irq_set::DATA_EVENTFD) != 0 {
        let fds = tail.chunks_exact(4).map(|fd| i32::from_le_bytes([fd[0], fd[1], fd[2], fd[3]]));
        list(f, "eventfds", fds)
    } else if flags & u64::from(irq_set::DATA_BOOL) != 0 {
        list(f, "bools", tail.iter())
    } else {
        Ok(())
    }
}

fn list(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    mut elements: impl Iterator<Item = impl fmt::Display>,
) -> fmt::Result {
    write!(f, ", {name}=[")?;
    let mut separator = "";
    for element in elements.by_ref().take(ELEMENTS_SHOWN) {
        write!(f, "{separator}{element}")?;
        separator = ", ";
    }
    f.write_str(if elements.next().is_some() { ", …]" } else { "]" })
}

/// A descriptor with the file behind it, as strace prints it with `-y`.
fn descriptor(f: &mut fmt::Formatter<'_>, fd: i32, file: &OpenFile) -> fmt::Result {
    write!(f, "{fd}<{}>", file.path)
}

struct Answer(Result<u64, Errno>);

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ok(value) => write!(f, " = {value}"),
            Err(errno) => write!(f, " = -1 {errno}"),
        }
    }
}

/// A file offset as region and offset in it.
struct Place(u64);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(inside) = self.0.checked_sub(vfio::REGION_BASE) else {
            return write!(f, "offset {:#x}", self.0);
        };
        let offset = inside & ((1 << vfio::REGION_SHIFT) - 1);
        write!(f, "{}+{offset:#x}", region_name(inside >> vfio::REGION_SHIFT))
    }
}

/// A register's value where the length is a register's, else bytes in the order of memory.
struct Bytes<'a>(&'a [u8]);

impl fmt::Display for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(self.0.len(), 1 | 2 | 4 | 8) {
            f.write_str("0x")?;
            return self.0.iter().rev().try_for_each(|byte| write!(f, "{byte:02x}"));
        }
        let mut separator = "";
        for byte in self.0.iter().take(BYTES_SHOWN) {
            write!(f, "{separator}{byte:02x}")?;
            separator = " ";
        }
        f.write_str(if self.0.len() > BYTES_SHOWN { " …" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(kind: FileKind) -> OpenFile {
        let path = if kind == FileKind::Iommufd { "/dev/iommu" } else { "/dev/vfio/devices/vfio0" };
        OpenFile { serial: 1, kind, path: path.to_owned(), opener: 41 }
    }

    fn line(call: &Call<'_>, answer: Result<u64, Errno>) -> String {
        Line { call, answer, profile: Profile::Linux73 }.to_string()
    }

    /// Words in the order of memory.
    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn ioctl(
        kind: FileKind,
        id: CommandId,
        sent: &[u8],
        returned: &[u8],
        answer: Result<u64, Errno>,
    ) -> String {
        let request = Command::of(id).request;
        let file = file(kind);
        line(&Call::Ioctl { fd: 7, file: &file, request, argument: 0x7fff, sent, returned }, answer)
    }

    #[test]
    fn map_names_its_flags_and_what_came_back() {
        let sent = words(&[40, 6, 2, 0, 0x1000, 0, 0x2000, 0, 0, 0]);
        let returned = words(&[40, 6, 2, 0, 0x1000, 0, 0x2000, 0, 0x8000, 0]);
        assert_eq!(
            ioctl(FileKind::Iommufd, CommandId::IoasMap, &sent, &returned, Ok(0)),
            "IOMMU_IOAS_MAP(7</dev/iommu>, flags=WRITEABLE|READABLE, ioas_id=2, user_va=0x1000, \
             length=0x2000, iova=0x0) = 0 {iova=0x8000}"
        );
    }

    #[test]
    fn a_wrong_size_and_dirty_reserved_fields_show() {
        let sent = words(&[39, 0, 2, 5, 0, 0, 0, 0, 0, 0]);
        let text = ioctl(FileKind::Iommufd, CommandId::IoasMap, &sent, &[], Err(Errno::EINVAL));
        assert!(text.contains("size=39"), "{text}");
        assert!(text.contains("__reserved=0x5"), "{text}");
        assert!(text.ends_with(") = -1 EINVAL"), "{text}");
    }

    #[test]
    fn eventfds_of_set_irqs_are_listed() {
        let sent = words(&[28, 0x24, 2, 0, 2, 9, u32::MAX]);
        assert_eq!(
            ioctl(FileKind::VfioDevice, CommandId::DeviceSetIrqs, &sent, &[], Ok(0)),
            "VFIO_DEVICE_SET_IRQS(7</dev/vfio/devices/vfio0>, flags=DATA_EVENTFD|ACTION_TRIGGER, \
             index=MSIX, start=0, count=2, eventfds=[9, -1]) = 0"
        );
    }

    #[test]
    fn what_has_no_row_or_no_bytes_prints_its_numbers() {
        let file = file(FileKind::Iommufd);
        let (sent, returned): (&[u8], &[u8]) = (&[], &[]);
        let unknown =
            Call::Ioctl { fd: 7, file: &file, request: 0x3bfe, argument: 5, sent, returned };
        assert_eq!(
            line(&unknown, Err(Errno::ENOTTY)),
            "ioctl 0x3bfe(7</dev/iommu>, 0x5) = -1 ENOTTY"
        );
        assert_eq!(
            ioctl(FileKind::Iommufd, CommandId::IoasMap, sent, returned, Err(Errno::EFAULT)),
            "IOMMU_IOAS_MAP(7</dev/iommu>, 0x7fff) = -1 EFAULT"
        );
    }

    #[test]
    fn a_call_that_another_profile_serves_is_named() {
        let told = |file, id, profile| {
            let file = self::file(file);
            let request = Command::of(id).request;
            let (sent, returned): (&[u8], &[u8]) = (&[], &[]);
            let call = Call::Ioctl { fd: 7, file: &file, request, argument: 5, sent, returned };
            Line { call: &call, answer: Err(Errno::ENOTTY), profile }.to_string()
        };
        let text = told(FileKind::Iommufd, CommandId::VdeviceTsmOp, Profile::RfcV7_2026_10);
        let expected = "(IOMMU_IOAS_NOIOMMU_GET_PA exists in linux-7.3, IOMMU_VDEVICE_TSM_OP in \
                        rfc, rfc-v5-2026-05; this run serves rfc-v7-2026-10)";
        assert!(text.ends_with(expected), "{text}");
        let text = told(FileKind::VfioDevice, CommandId::DeviceTsmBind, Profile::Rfc);
        let expected = "(VFIO_DEVICE_TSM_BIND exists in rfc-2025-05; this run serves rfc)";
        assert!(text.ends_with(expected), "{text}");
        let text = told(FileKind::Iommufd, CommandId::VdeviceTsmOp, Profile::Rfc);
        assert!(!text.contains("exists"), "{text}");
    }

    #[test]
    fn regions_print_by_name_and_registers_as_numbers() {
        let file = file(FileKind::VfioDevice);
        let offset = vfio::REGION_BASE + (7 << vfio::REGION_SHIFT) + 4;
        let read = Call::Read { fd: 8, file: &file, offset, count: 2, bytes: &[6, 0] };
        assert_eq!(
            line(&read, Ok(2)),
            "pread(8</dev/vfio/devices/vfio0>, config+0x4, 2) = 2 {0x0006}"
        );
        let offset = vfio::REGION_BASE + 0x1c;
        let write = Call::Write { fd: 8, file: &file, offset, count: 3, bytes: &[1, 2, 3] };
        assert_eq!(
            line(&write, Ok(3)),
            "pwrite(8</dev/vfio/devices/vfio0>, bar0+0x1c, 3, 01 02 03) = 3"
        );
        let map = Call::Map { fd: 8, file: &file, offset, length: 0x1000 };
        assert_eq!(
            line(&map, Err(Errno::EINVAL)),
            "mmap(8</dev/vfio/devices/vfio0>, bar0+0x1c, length=0x1000) = -1 EINVAL"
        );
    }

    #[test]
    fn any_bytes_for_any_command_print() {
        for command in uapi::COMMANDS {
            for length in 0..=usize::try_from(command.size).unwrap() + 9 {
                let bytes = vec![0xff; length];
                let text = ioctl(command.file, command.id, &bytes, &bytes, Ok(0));
                assert!(!text.contains('\n'), "{text}");
            }
        }
    }
}
