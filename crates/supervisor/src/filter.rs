//! Which calls of a program wait for us, as a program of seccomp instructions.
//!
//! The kernel remembers which call numbers a filter always allows without looking at arguments, and
//! does not run the filter for those; so only the numbers whose arguments matter are worth ordering,
//! and they come first. The ioctl type is taken from the command table. Calls made by another
//! convention (32-bit, x32) are allowed: they reach the machine's own kernel.
//!
//! Takes no lock. Source: seccomp(2).

use std::ops::RangeInclusive;

use host::seccomp::{ARCHITECTURE, Instruction, Word, code, verdict};
use uapi::COMMANDS;

/// How eventfds of a program are recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventfdMode {
    /// They are copied from the program when it names one.
    Copied,
    /// Copying is forbidden here: we make them and recognise them later.
    Made,
}

/// Fewest and most bytes of a `write` that may be one to a sysfs attribute. Longer texts do not
/// exist there.
pub(crate) const ATTRIBUTE_WRITE_BYTES: RangeInclusive<u32> = 1..=64;
/// What is written to an eventfd: so frequent that it is let through.
const EVENTFD_BYTES: u32 = 8;

/// High word of the first file offset that is ours, and the last that is not negative.
const OURS_FIRST_HIGH: u32 = (vfio::REGION_BASE >> 32) as u32;
const POSITIVE_LAST_HIGH: u32 = 0x7fff_ffff;

/// Bits of an ioctl number that hold its type.
const IOCTL_TYPE_MASK: u32 = 0xff00;

/// Which reads, writes and mappings at an offset may be of files of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offsets {
    /// Those of device files, whose offsets we choose.
    Devices,
    /// Any: there are files of ours that begin at 0.
    All,
}

/// The filter.
///
/// Reads and writes of descriptors in `event_files` are notified, whatever they move.
pub(crate) fn program(
    eventfds: EventfdMode,
    offsets: Offsets,
    event_files: Option<&RangeInclusive<u32>>,
) -> Vec<Instruction> {
    let mut program = vec![
        load(Word::Architecture),
        jump(code::JUMP_EQUAL, ARCHITECTURE, 1, 0),
        end(verdict::ALLOW),
        load(Word::Number),
    ];
    for &number in calls::WRITE {
        let mut body = event_files.map(of_event_files).unwrap_or_default();
        body.extend(small_write());
        for_call(&mut program, number, body);
    }
    for (&number, event_files) in calls::READ.iter().zip(event_files) {
        let mut body = of_event_files(event_files);
        body.push(end(verdict::ALLOW));
        for_call(&mut program, number, body);
    }
    for &number in calls::AT_OFFSET {
        let body = match offsets {
            Offsets::Devices => at_our_offset(3),
            Offsets::All => vec![end(verdict::NOTIFY)],
        };
        for_call(&mut program, number, body);
    }
    for &number in calls::MMAP {
        let body = match offsets {
            Offsets::Devices => at_our_offset(5),
            Offsets::All => of_a_file(3),
        };
        for_call(&mut program, number, body);
    }
    for &number in calls::IOCTL {
        for_call(&mut program, number, our_command());
    }
    let eventfd_calls = match eventfds {
        EventfdMode::Copied => &[][..],
        EventfdMode::Made => calls::EVENTFD,
    };
    notify_always(&mut program, [calls::ALWAYS, eventfd_calls].concat());
    program
}

/// Notifies what is on a descriptor in `numbers`, and goes on otherwise.
fn of_event_files(numbers: &RangeInclusive<u32>) -> Vec<Instruction> {
    vec![
        load(Word::ArgumentLow(0)),
        jump(code::JUMP_AT_LEAST, *numbers.start(), 0, 2),
        jump(code::JUMP_GREATER, *numbers.end(), 1, 0),
        end(verdict::NOTIFY),
    ]
}

/// A `write` of few bytes, but not of an eventfd's.
fn small_write() -> Vec<Instruction> {
    let (fewest, most) = (*ATTRIBUTE_WRITE_BYTES.start(), *ATTRIBUTE_WRITE_BYTES.end());
    vec![
        load(Word::ArgumentLow(2)),
        jump(code::JUMP_GREATER, most, 5, 0),
        jump(code::JUMP_EQUAL, EVENTFD_BYTES, 4, 0),
        jump(code::JUMP_AT_LEAST, fewest, 0, 3),
        load(Word::ArgumentHigh(2)),
        jump(code::JUMP_EQUAL, 0, 0, 1),
        end(verdict::NOTIFY),
        end(verdict::ALLOW),
    ]
}

/// A file offset in argument `index` that is 2^62 or more. -1 means "where the file stands".
fn at_our_offset(index: u8) -> Vec<Instruction> {
    vec![
        load(Word::ArgumentHigh(index)),
        jump(code::JUMP_AT_LEAST, OURS_FIRST_HIGH, 0, 2),
        jump(code::JUMP_GREATER, POSITIVE_LAST_HIGH, 1, 0),
        end(verdict::NOTIFY),
        end(verdict::ALLOW),
    ]
}

/// A mapping of a file, by the flags in argument `index`.
fn of_a_file(index: u8) -> Vec<Instruction> {
    const ANONYMOUS: u32 = libc::MAP_ANONYMOUS.cast_unsigned();
    vec![
        load(Word::ArgumentLow(index)),
        mask(ANONYMOUS),
        jump(code::JUMP_EQUAL, 0, 0, 1),
        end(verdict::NOTIFY),
        end(verdict::ALLOW),
    ]
}

/// An ioctl of the command table's type, or KVM's about VFIO files.
fn our_command() -> Vec<Instruction> {
    let our_type = COMMANDS[0].request & IOCTL_TYPE_MASK;
    vec![
        load(Word::ArgumentLow(1)),
        jump(code::JUMP_EQUAL, uapi::kvm::request::SET_DEVICE_ATTR, 2, 0),
        mask(IOCTL_TYPE_MASK),
        jump(code::JUMP_EQUAL, our_type, 0, 1),
        end(verdict::NOTIFY),
        end(verdict::ALLOW),
    ]
}

/// Adds `body`, which ends with a verdict on every way, for calls of one number.
fn for_call(program: &mut Vec<Instruction>, number: i64, body: Vec<Instruction>) {
    let length = u8::try_from(body.len()).unwrap_or_else(|_| unreachable!("bodies are short"));
    program.push(jump(code::JUMP_EQUAL, call_word(number), 0, length));
    program.extend(body);
}

/// Notifies the numbers given and allows all others.
fn notify_always(program: &mut Vec<Instruction>, numbers: Vec<i64>) {
    let count = numbers.len();
    for (index, number) in numbers.into_iter().enumerate() {
        // Over the comparisons that are left and the verdict for "none of them".
        let skip = u8::try_from(count - index)
            .unwrap_or_else(|_| unreachable!("fewer numbers than a jump can skip"));
        program.push(jump(code::JUMP_EQUAL, call_word(number), skip, 0));
    }
    program.push(end(verdict::ALLOW));
    program.push(end(verdict::NOTIFY));
}

fn call_word(number: i64) -> u32 {
    u32::try_from(number).unwrap_or_else(|_| unreachable!("call numbers are small"))
}

fn load(word: Word) -> Instruction {
    Instruction { code: code::LOAD, skip_if: 0, skip_else: 0, operand: word.offset() }
}

fn mask(operand: u32) -> Instruction {
    Instruction { code: code::AND, skip_if: 0, skip_else: 0, operand }
}

fn jump(code: u16, operand: u32, skip_if: u8, skip_else: u8) -> Instruction {
    Instruction { code, skip_if, skip_else, operand }
}

fn end(verdict: u32) -> Instruction {
    Instruction { code: code::RETURN, skip_if: 0, skip_else: 0, operand: verdict }
}

/// Call numbers, by what is asked of their arguments.
pub(crate) mod calls {
    /// Reads at the file's own position.
    pub(crate) const READ: &[i64] = &[libc::SYS_read];

    /// Writes at the file's own position.
    pub(crate) const WRITE: &[i64] = &[libc::SYS_write];

    /// Reads and writes with the offset in argument 3.
    pub(crate) const AT_OFFSET: &[i64] = &[
        libc::SYS_pread64,
        libc::SYS_pwrite64,
        libc::SYS_preadv,
        libc::SYS_pwritev,
        libc::SYS_preadv2,
        libc::SYS_pwritev2,
    ];

    /// Mappings, with the offset in argument 5.
    pub(crate) const MMAP: &[i64] = &[libc::SYS_mmap];

    /// Commands.
    pub(crate) const IOCTL: &[i64] = &[libc::SYS_ioctl];

    /// What makes an eventfd.
    #[cfg(target_arch = "x86_64")]
    pub(crate) const EVENTFD: &[i64] = &[libc::SYS_eventfd, libc::SYS_eventfd2];
    /// What makes an eventfd.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) const EVENTFD: &[i64] = &[libc::SYS_eventfd2];

    /// What names a file, or asks what a file is; and exec, which ends an address space.
    #[cfg(target_arch = "x86_64")]
    pub(crate) const ALWAYS: &[i64] = &[
        libc::SYS_openat,
        libc::SYS_newfstatat,
        libc::SYS_fstat,
        libc::SYS_open,
        libc::SYS_stat,
        libc::SYS_lstat,
        libc::SYS_access,
        libc::SYS_readlink,
        libc::SYS_creat,
        libc::SYS_openat2,
        libc::SYS_statx,
        libc::SYS_readlinkat,
        libc::SYS_faccessat,
        libc::SYS_faccessat2,
        libc::SYS_getxattr,
        libc::SYS_lgetxattr,
        libc::SYS_listxattr,
        libc::SYS_llistxattr,
        libc::SYS_execve,
        libc::SYS_execveat,
    ];
    /// What names a file, or asks what a file is; and exec, which ends an address space.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) const ALWAYS: &[i64] = &[
        libc::SYS_openat,
        libc::SYS_newfstatat,
        libc::SYS_fstat,
        libc::SYS_openat2,
        libc::SYS_statx,
        libc::SYS_readlinkat,
        libc::SYS_faccessat,
        libc::SYS_faccessat2,
        libc::SYS_getxattr,
        libc::SYS_lgetxattr,
        libc::SYS_listxattr,
        libc::SYS_llistxattr,
        libc::SYS_execve,
        libc::SYS_execveat,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel shows a filter.
    #[derive(Clone, Copy)]
    struct Call {
        number: i64,
        architecture: u32,
        arguments: [u64; 6],
    }

    impl Call {
        fn new(number: i64, arguments: [u64; 6]) -> Self {
            Self { number, architecture: ARCHITECTURE, arguments }
        }

        fn word(&self, offset: u32) -> u32 {
            match offset {
                0 => call_word(self.number),
                4 => self.architecture,
                16..64 if offset.is_multiple_of(4) => {
                    let argument = self.arguments[(offset as usize - 16) / 8];
                    u32::try_from((argument >> (8 * (offset % 8))) & 0xffff_ffff).unwrap()
                }
                _ => panic!("no word at {offset}"),
            }
        }
    }

    /// Runs a filter as the kernel would. Returns its verdict and whether it saw an argument.
    fn run(program: &[Instruction], call: Call) -> (u32, bool) {
        let (mut at, mut accumulator, mut saw_argument) = (0, 0, false);
        loop {
            let step = program[at];
            let test = match step.code {
                code::LOAD => {
                    saw_argument |= step.operand >= 16;
                    accumulator = call.word(step.operand);
                    None
                }
                code::AND => {
                    accumulator &= step.operand;
                    None
                }
                code::JUMP_EQUAL => Some(accumulator == step.operand),
                code::JUMP_GREATER => Some(accumulator > step.operand),
                code::JUMP_AT_LEAST => Some(accumulator >= step.operand),
                code::RETURN => return (step.operand, saw_argument),
                other => panic!("no instruction {other:#x}"),
            };
            let skip = test.map_or(0, |holds| if holds { step.skip_if } else { step.skip_else });
            at += 1 + usize::from(skip);
        }
    }

    fn notifies(number: i64, arguments: [u64; 6]) -> bool {
        let call = Call::new(number, arguments);
        match run(&program(EventfdMode::Copied, Offsets::Devices, None), call).0 {
            verdict::NOTIFY => true,
            verdict::ALLOW => false,
            other => panic!("verdict {other:#x}"),
        }
    }

    #[test]
    fn every_command_is_notified_and_others_are_not() {
        for command in COMMANDS {
            assert!(notifies(libc::SYS_ioctl, [3, command.request.into(), 0, 0, 0, 0]));
        }
        // Only the low half of the number counts, as in the kernel.
        assert!(notifies(libc::SYS_ioctl, [3, 0xffff_ffff_0000_3b81, 0, 0, 0, 0]));
        assert!(notifies(libc::SYS_ioctl, [3, 0x4018_aee1, 0, 0, 0, 0]));
        for other in [0x5401, 0xae80, 0x4018_aee2, 0x3a81, 0x3c81, 0x8004_5430] {
            assert!(!notifies(libc::SYS_ioctl, [3, other, 0, 0, 0, 0]), "{other:#x}");
        }
    }

    #[test]
    fn offsets_of_device_regions_are_notified() {
        let ours = [1 << 62, (1 << 62) + (7 << 40) + 4, i64::MAX.cast_unsigned()];
        let others = [0, 4096, (1 << 62) - 1, 1 << 63, u64::MAX, u64::MAX - 1];
        for &number in calls::AT_OFFSET {
            for at in ours {
                assert!(notifies(number, [3, 0, 4, at, 0, 0]), "{number} {at:#x}");
            }
            for at in others {
                assert!(!notifies(number, [3, 0, 4, at, 0, 0]), "{number} {at:#x}");
            }
        }
        for at in ours {
            assert!(notifies(libc::SYS_mmap, [0, 4096, 3, 1, 5, at]));
        }
        for at in others {
            assert!(!notifies(libc::SYS_mmap, [0, 4096, 3, 1, 5, at]));
        }
    }

    #[test]
    fn reads_and_writes_at_any_offset_are_notified_where_files_of_ours_begin_at_zero() {
        for &number in calls::AT_OFFSET {
            let answer = |offsets| {
                run(&program(EventfdMode::Copied, offsets, None), Call::new(number, [0; 6])).0
            };
            assert_eq!(answer(Offsets::All), verdict::NOTIFY, "{number}");
            assert_eq!(answer(Offsets::Devices), verdict::ALLOW, "{number}");
        }
    }

    #[test]
    fn mappings_of_files_are_notified_where_files_of_ours_begin_at_zero() {
        let answer = |flags| {
            let call = Call::new(libc::SYS_mmap, [0, 4096, 3, flags, 5, 4096]);
            run(&program(EventfdMode::Copied, Offsets::All, None), call).0
        };
        let [shared, private, anonymous] =
            [libc::MAP_SHARED, libc::MAP_PRIVATE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS]
                .map(|flags| u64::from(flags.cast_unsigned()));
        assert_eq!([shared, private].map(answer), [verdict::NOTIFY; 2]);
        assert_eq!(answer(anonymous), verdict::ALLOW);
    }

    #[test]
    fn small_writes_are_notified_but_no_eventfds() {
        for count in 0..100_u64 {
            let expected = (1..=64).contains(&count) && count != 8;
            assert_eq!(notifies(libc::SYS_write, [1, 0, count, 0, 0, 0]), expected, "{count}");
        }
        assert!(!notifies(libc::SYS_write, [1, 0, (1 << 32) + 5, 0, 0, 0]));
    }

    #[test]
    fn reads_and_writes_of_event_files_are_notified() {
        let program = program(EventfdMode::Copied, Offsets::Devices, Some(&(896..=1023)));
        for number in [libc::SYS_read, libc::SYS_write] {
            for (fd, expected) in
                [(0, false), (895, false), (896, true), (1023, true), (1024, false)]
            {
                for count in [0, 8, 4096] {
                    let call = Call::new(number, [fd, 0, count, 0, 0, 0]);
                    assert_eq!(run(&program, call).0 == verdict::NOTIFY, expected, "{fd}");
                }
            }
        }
    }

    #[test]
    fn calls_that_name_files_are_notified() {
        for &number in calls::ALWAYS {
            assert!(notifies(number, [0; 6]), "{number}");
        }
    }

    #[test]
    fn eventfds_are_notified_only_where_we_make_them() {
        for &number in calls::EVENTFD {
            let call = Call::new(number, [0; 6]);
            assert_eq!(
                run(&program(EventfdMode::Copied, Offsets::Devices, None), call).0,
                verdict::ALLOW
            );
            assert_eq!(
                run(&program(EventfdMode::Made, Offsets::Devices, None), call).0,
                verdict::NOTIFY
            );
        }
    }

    #[test]
    fn all_else_is_allowed_without_a_look_at_arguments() {
        let seen = [calls::WRITE, calls::AT_OFFSET, calls::MMAP, calls::IOCTL, calls::ALWAYS];
        for number in (0..600).filter(|number| !seen.iter().any(|calls| calls.contains(number))) {
            let answer = run(
                &program(EventfdMode::Copied, Offsets::Devices, None),
                Call::new(number, [u64::MAX; 6]),
            );
            assert_eq!(answer, (verdict::ALLOW, false), "{number}");
        }
    }

    #[test]
    fn other_conventions_are_allowed() {
        let call = Call { architecture: 0x4000_0003, ..Call::new(libc::SYS_openat, [0; 6]) };
        assert_eq!(
            run(&program(EventfdMode::Copied, Offsets::Devices, None), call),
            (verdict::ALLOW, false)
        );
        let x32 = Call::new(0x4000_0000 | libc::SYS_openat, [0; 6]);
        assert_eq!(
            run(&program(EventfdMode::Copied, Offsets::Devices, None), x32),
            (verdict::ALLOW, false)
        );
    }
}
