//! The ABI of a profile as one C header, for clients that are built where no kernel has it yet.
//!
//! Everything in it comes from the table of commands, the layouts and the constants, their
//! documentation included; nothing is taken from the kernel's headers. It stands in for
//! `<linux/iommufd.h>` and `<linux/vfio.h>`, in either order with them: included first it claims
//! their guards, included later it takes over their names. Takes no lock. Deliberately absent: KVM,
//! other architectures' commands, and the commands of the kernel's own test suite.

mod excerpt;

use std::fmt::{self, Formatter, Write};

pub use self::excerpt::Excerpt;

use crate::{COMMANDS, Command, Constant, Field, FileKind, Layout, Profile};
use crate::{constants, iommufd, layouts, vfio};

/// The C header of a profile. Displays as its text.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    profile: Profile,
}

impl Header {
    /// The header of `profile`.
    pub const fn of(profile: Profile) -> Self {
        Self { profile }
    }
}

/// The commands that `profile` has, by file and number.
pub fn commands_in(profile: Profile) -> impl Iterator<Item = &'static Command> {
    COMMANDS.iter().filter(move |row| row.profiles.contains(profile))
}

/// The structs of iommufd and VFIO that `profile` has: those of its commands, and those that no
/// command takes.
pub fn layouts_in(profile: Profile) -> impl Iterator<Item = &'static Layout> {
    let all = FAMILIES.iter().flat_map(|family| family.layouts).copied().flatten().copied();
    all.filter(move |layout| exists(layout, profile))
}

/// The constants of iommufd and VFIO that `profile` has.
pub fn constants_in(profile: Profile) -> impl Iterator<Item = &'static Constant> {
    let all = FAMILIES.iter().flat_map(|family| family.constants).copied().flatten();
    all.filter(move |constant| constant.profiles.contains(profile))
}

/// The struct's tag in C, where its profile is not in doubt: v5 gave a struct the tag that another
/// one has since.
pub fn tag(layout: &Layout) -> &'static str {
    if layout.name == iommufd::TsmReqV5::LAYOUT.name {
        iommufd::TsmReq::LAYOUT.name
    } else {
        layout.name
    }
}

/// What one header of the kernel's has.
struct Family {
    /// The kernel's header.
    stands_for: &'static str,
    /// Its include guards: as installed, and as in the kernel's tree.
    guards: [&'static str; 2],
    layouts: &'static [&'static [&'static Layout]],
    constants: &'static [&'static [Constant]],
    files: &'static [FileKind],
    /// What request numbers are made of, name and value.
    bases: &'static [(&'static str, &'static str)],
}

const FAMILIES: [Family; 2] = [
    Family {
        stands_for: "<linux/iommufd.h>",
        guards: ["_IOMMUFD_H", "_UAPI_IOMMUFD_H"],
        layouts: iommufd::LAYOUTS,
        constants: iommufd::CONSTANTS,
        files: &[FileKind::Iommufd],
        bases: &[("IOMMUFD_TYPE", "(';')")],
    },
    Family {
        stands_for: "<linux/vfio.h>",
        guards: ["VFIO_H", "_UAPIVFIO_H"],
        layouts: vfio::LAYOUTS,
        constants: vfio::CONSTANTS,
        files: &[
            FileKind::VfioDevice,
            FileKind::VfioGroup,
            FileKind::VfioContainer,
            FileKind::MigrationData,
        ],
        bases: &[("VFIO_TYPE", "(';')"), ("VFIO_BASE", "100")],
    },
];

/// The number that `VFIO_BASE` counts from, and the type that every request has.
const VFIO_BASE: u32 = 100;
const NUMBER_MASK: u32 = 0xff;

fn exists(layout: &Layout, profile: Profile) -> bool {
    let mut takers = COMMANDS
        .iter()
        .filter(|row| row.argument.is_some_and(|argument| argument.name == layout.name))
        .peekable();
    takers.peek().is_none() || takers.any(|row| row.profiles.contains(profile))
}

impl Family {
    fn layouts(&self, profile: Profile) -> impl Iterator<Item = &'static Layout> {
        let all = self.layouts.iter().copied().flatten().copied();
        all.filter(move |layout| exists(layout, profile))
    }

    fn constants(&self, profile: Profile) -> impl Iterator<Item = &'static Constant> {
        let all = self.constants.iter().copied().flatten();
        all.filter(move |constant| constant.profiles.contains(profile))
    }

    fn commands(&self, profile: Profile) -> impl Iterator<Item = &'static Command> {
        commands_in(profile).filter(|row| self.files.contains(&row.file))
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.opening(f)?;
        for family in &FAMILIES {
            self.guards(f, family)?;
        }
        for family in &FAMILIES {
            writeln!(f, "\n/* ==== What {} has ==== */", family.stands_for)?;
            self.constants(f, family)?;
            for layout in family.layouts(self.profile) {
                structure(f, layout)?;
            }
            self.requests(f, family)?;
        }
        self.assertions(f)?;
        f.write_str("\n#endif /* BINDERY_UAPI_H */\n")
    }
}

impl Header {
    fn opening(self, f: &mut Formatter<'_>) -> fmt::Result {
        let profile = self.profile;
        writeln!(f, "/* SPDX-License-Identifier: Apache-2.0 OR MIT */")?;
        writeln!(f, "/*\n * iommufd and VFIO for a client in C or C++: profile {profile}.")?;
        writeln!(f, " * Printed by `bindery uapi --header {profile}`; change that, not this.\n *")?;
        paragraph(f, "Source: ", profile.source())?;
        paragraph(f, "Reconstructed: ", profile.reconstruction())?;
        f.write_str(ADVICE)?;
        f.write_str("#ifndef BINDERY_UAPI_H\n#define BINDERY_UAPI_H\n\n")?;
        f.write_str("#include <linux/ioctl.h>\n#include <linux/types.h>\n#include <stddef.h>\n\n")?;
        writeln!(f, "#define BINDERY_UAPI_PROFILE \"{profile}\"")?;
        write!(f, "#define BINDERY_UAPI_")?;
        for c in profile.name().chars() {
            f.write_char(if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })?;
        }
        f.write_str(" 1\n")
    }

    /// Where the kernel's header came first, its names become ours; else it will not come.
    fn guards(self, f: &mut Formatter<'_>, family: &Family) -> fmt::Result {
        let [installed, in_tree] = family.guards;
        writeln!(f, "\n#if defined({installed}) || defined({in_tree})")?;
        writeln!(f, "/* {} came first: take its names over. */", family.stands_for)?;
        let names = family.constants(self.profile).map(|constant| constant.name);
        let names = names.chain(family.commands(self.profile).map(|row| row.name));
        for name in names.chain(family.bases.iter().map(|(name, _)| *name)) {
            writeln!(f, "#undef {name}")?;
        }
        for layout in family.layouts(self.profile) {
            writeln!(f, "#define {0} bindery_{0}", tag(layout))?;
        }
        f.write_str("#else\n")?;
        for guard in family.guards {
            writeln!(f, "#define {guard}")?;
        }
        f.write_str("#endif\n")
    }

    fn constants(self, f: &mut Formatter<'_>, family: &Family) -> fmt::Result {
        let mut module = "";
        for constant in family.constants(self.profile) {
            if constant.module != module {
                module = constant.module;
                f.write_char('\n')?;
                comment(f, "", constant.name, constant.about)?;
            }
            comment(f, "", constant.name, constant.note)?;
            writeln!(f, "#define {} {}", constant.name, Expression(constant))?;
        }
        Ok(())
    }

    fn requests(self, f: &mut Formatter<'_>, family: &Family) -> fmt::Result {
        f.write_str("\n/* Requests. */\n")?;
        base(f, family)?;
        family.commands(self.profile).try_for_each(|row| request(f, row))
    }

    fn assertions(self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(ASSERTION)?;
        for layout in layouts_in(self.profile) {
            let tag = tag(layout);
            holds(f, &format!("sizeof(struct {tag}) == {}", layout.size))?;
            for field in layout.fields {
                let names = [Some(field.name), field.alias];
                for name in names.into_iter().flatten() {
                    let offset = field.offset;
                    holds(f, &format!("offsetof(struct {tag}, {name}) == {offset}"))?;
                }
            }
        }
        f.write_str("#undef BINDERY_HOLDS\n")
    }
}

/// What request numbers are made of.
fn base(f: &mut Formatter<'_>, family: &Family) -> fmt::Result {
    family.bases.iter().try_for_each(|(name, value)| writeln!(f, "#define {name} {value}"))
}

fn request(f: &mut Formatter<'_>, row: &Command) -> fmt::Result {
    let number = row.request & NUMBER_MASK;
    match row.file {
        FileKind::Iommufd => writeln!(f, "#define {} _IO(IOMMUFD_TYPE, {number:#x})", row.name),
        FileKind::VfioDevice
        | FileKind::VfioGroup
        | FileKind::VfioContainer
        | FileKind::MigrationData => {
            let above = number - VFIO_BASE;
            writeln!(f, "#define {} _IO(VFIO_TYPE, VFIO_BASE + {above})", row.name)
        }
    }
}

fn holds(f: &mut Formatter<'_>, what: &str) -> fmt::Result {
    writeln!(f, "BINDERY_HOLDS({what});")
}

const ADVICE: &str = " *
 * Stands in for <linux/iommufd.h> and <linux/vfio.h> and needs neither; of the kernel's headers it
 * includes <linux/types.h> and <linux/ioctl.h> only, of any version. Where a program includes the
 * kernel's too, whichever version: before this one, their other names stay and this one's structs
 * and numbers hold from here on; after this one, they add nothing.
 */
";

const ASSERTION: &str = "
/* Sizes in bytes and offsets, as the kernel's side sees them. */
#ifdef __cplusplus
#define BINDERY_HOLDS(what) static_assert(what, #what)
#else
#define BINDERY_HOLDS(what) _Static_assert(what, #what)
#endif
";

/// A sentence in a C comment, in lines of about a hundred characters.
fn paragraph(f: &mut Formatter<'_>, head: &str, text: &str) -> fmt::Result {
    write!(f, " * {head}")?;
    let mut column = 3 + head.len();
    for (index, word) in text.split_whitespace().enumerate() {
        if column + word.len() >= 99 {
            f.write_str("\n *   ")?;
            column = 5;
        } else if index > 0 {
            f.write_char(' ')?;
            column += 1;
        }
        f.write_str(word)?;
        column += word.len();
    }
    f.write_char('\n')
}

/// A struct with its comment.
fn structure(f: &mut Formatter<'_>, layout: &Layout) -> fmt::Result {
    f.write_char('\n')?;
    comment(f, "", layout.name, layout.about)?;
    writeln!(f, "struct {} {{", tag(layout))?;
    let mut rest = layout.fields;
    while let Some((field, others)) = rest.split_first() {
        rest = match field.name.split_once('.') {
            Some((holder, _)) => {
                let inner = rest.iter().take_while(|field| is_in(field, holder)).count();
                let (within, others) = rest.split_at(inner);
                writeln!(f, "\tstruct {} {holder};", held(layout, within))?;
                others
            }
            None => {
                member(f, field)?;
                others
            }
        };
    }
    if let Some(tail) = layout.tail {
        writeln!(f, "\t{} {}[];", tail.element, tail.name)?;
    }
    f.write_str("};\n")
}

fn is_in(field: &Field, holder: &str) -> bool {
    field.name.split_once('.').is_some_and(|(first, _)| first == holder)
}

/// The tag of the struct whose fields `within` are.
fn held(holder: &Layout, within: &[Field]) -> &'static str {
    let alike = |layout: &&Layout| {
        layout.name != holder.name
            && layout.fields.len() == within.len()
            && layout.fields.iter().zip(within).all(|(own, field)| {
                field.size == own.size
                    && field.name.split_once('.').is_some_and(|(_, n)| n == own.name)
            })
    };
    layouts().find(alike).map_or("", |layout| layout.name)
}

fn member(f: &mut Formatter<'_>, field: &Field) -> fmt::Result {
    if let Some(alias) = field.alias {
        f.write_str("\tunion {\n")?;
        for name in [field.name, alias] {
            writeln!(f, "\t\t{};", Declared { field, name })?;
        }
        return f.write_str("\t};\n");
    }
    writeln!(f, "\t{};", Declared { field, name: field.name })
}

/// A field's declaration in C.
struct Declared<'f> {
    field: &'f Field,
    name: &'f str,
}

impl fmt::Display for Declared<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Field { size, width, radix, .. } = *self.field;
        f.write_str(match (radix, width) {
            (crate::Radix::Signed, 4) => "__s32",
            (crate::Radix::Signed, _) => "__s64",
            (_, 1) => "__u8",
            (_, 2) => "__u16",
            (_, 4) => "__u32",
            _ => "__aligned_u64",
        })?;
        write!(f, " {}", self.name)?;
        if size > width { write!(f, "[{}]", size / width) } else { Ok(()) }
    }
}

/// A constant's value in C.
struct Expression(&'static Constant);

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Constant { expression, value, size, .. } = *self.0;
        let all_ones = u64::MAX >> (64 - 8 * size);
        if value == all_ones {
            f.write_str("(-1)")
        } else if expression.contains(' ') {
            write!(f, "({expression})")
        } else {
            f.write_str(expression)
        }
    }
}

/// Documentation as a C comment; nothing where there is none.
fn comment(f: &mut Formatter<'_>, indent: &str, of: &str, lines: &[&str]) -> fmt::Result {
    for (index, line) in lines.iter().enumerate() {
        let begin = if index == 0 { "/*" } else { " *" };
        let end = if index + 1 == lines.len() { " */" } else { "" };
        writeln!(f, "{indent}{begin}{}{end}", Prose { text: line, of })?;
    }
    Ok(())
}

/// A line of documentation with C's names for Rust's.
struct Prose<'t> {
    text: &'t str,
    /// The C name of what it is about.
    of: &'t str,
}

impl fmt::Display for Prose<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut rest = self.text;
        while let Some((plain, link)) = rest.split_once("[`") {
            unquoted(f, plain)?;
            let (target, after) = link.split_once("`]").unwrap_or((link, ""));
            self.named(f, target)?;
            rest = match after.strip_prefix('(').and_then(|path| path.split_once(')')) {
                Some((_, after)) => after,
                None => after,
            };
        }
        unquoted(f, rest)
    }
}

impl Prose<'_> {
    fn named(&self, f: &mut Formatter<'_>, target: &str) -> fmt::Result {
        let family = |name: &str| name.get(..4).is_some_and(|start| self.is_of(start));
        let (module, name) = target.rsplit_once("::").unwrap_or(("", target));
        if let Some(layout) = layouts().find(|l| l.rust_name == name && family(l.name)) {
            write!(f, "struct {}", tag(layout))
        } else if let Some(constant) =
            constants().find(|c| c.rust_name == name && c.module == module && family(c.name))
        {
            f.write_str(constant.name)
        } else {
            f.write_str(name)
        }
    }

    fn is_of(&self, start: &str) -> bool {
        self.of.get(..4).is_some_and(|own| own.eq_ignore_ascii_case(start))
    }
}

fn unquoted(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    text.split('`').try_for_each(|part| f.write_str(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nested_struct_is_found_and_declared_before_it_is_held() {
        for &profile in Profile::ALL {
            let text = Header::of(profile).to_string();
            assert!(!text.contains("struct  "), "{profile}");
            for layout in layouts_in(profile) {
                let declared = text.find(&format!("struct {} {{", tag(layout))).unwrap();
                let used = text.find(&format!("\tstruct {} ", tag(layout)));
                assert!(used.is_none_or(|used| declared < used), "{profile} {}", layout.name);
            }
        }
    }

    #[test]
    fn a_profile_has_what_its_commands_take_and_nothing_of_others() {
        let has = |profile, text: &str| Header::of(profile).to_string().contains(text);
        let holders = |text: &str| -> Vec<Profile> {
            Profile::ALL.iter().copied().filter(|profile| has(*profile, text)).collect()
        };
        use Profile::*;
        assert_eq!(holders("struct iommu_vdevice_tsm_op {"), [Rfc, RfcV5_2026_05]);
        assert_eq!(holders("__u32 tvm_arch;"), [Rfc, RfcV7_2026_10]);
        assert_eq!(holders("__u32 scope;"), [RfcV5_2026_05]);
        assert_eq!(holders("define VFIO_DEVICE_TSM_BIND "), [Rfc2025_05]);
        assert_eq!(
            holders("struct iommu_hw_queue_alloc {"),
            [Rfc, Linux73, RfcV5_2026_05, RfcV7_2026_10]
        );
        assert_eq!(holders("define IOMMU_IOAS_NOIOMMU_GET_PA "), [Linux73]);
        assert_eq!(holders("IOMMU_TEST_"), []);
        assert_eq!(holders("_v5"), []);
    }

    #[test]
    fn documentation_speaks_c() {
        let said = |text, of| Prose { text, of }.to_string();
        assert_eq!(said("`flags` of [`IoasMap`].", "IOMMU_X"), "flags of struct iommu_ioas_map.");
        assert_eq!(
            said("[`feature_id::MIGRATION`](super::feature_id::MIGRATION), see", "vfio_x"),
            "VFIO_DEVICE_FEATURE_MIGRATION, see"
        );
        assert_eq!(said("[`IovaRange`]", "vfio_x"), "struct vfio_iova_range");
        assert_eq!(said("[tsm-rfc-v5]", "iommu_x"), "[tsm-rfc-v5]");
    }
}
