//! A header against a profile: everything that has another value, is missing, or is another profile's.
//!
//! Takes no lock. Deliberately absent: what Bindery does not have and no profile of it does, of
//! which the kernel's headers hold much.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use uapi::{Profile, commands_in, constants_in, layouts_in, tag};

use super::compiler::{Compiler, Failure};
use super::tree::{Place, Tree};

/// Compares `header` with `profile`, or with the profile from which it differs least.
pub(crate) fn check(header: &Path, profile: Option<Profile>) -> Result<Comparison, Failure> {
    let compiler = Compiler::of(header)?;
    let tree = Tree::read(&compiler.preprocessed()?);
    let families: Vec<Family> =
        [Family::Iommufd, Family::Vfio].into_iter().filter(|family| family.is_in(&tree)).collect();
    if families.is_empty() {
        return Err(Failure::Foreign { path: header.display().to_string() });
    }
    let seen = measured(&compiler, &tree)?;
    let candidates = profile.as_ref().map_or(Profile::ALL, std::slice::from_ref);
    let compare = |&profile| Comparison {
        header: header.display().to_string(),
        profile,
        chosen: candidates.len() > 1,
        compared: expected(profile).filter(|one| one.is_of(&families)).count(),
        differences: differences(profile, &families, &tree, &seen),
    };
    let comparisons = candidates.iter().map(compare);
    comparisons
        .min_by_key(|comparison| comparison.differences.len())
        .ok_or_else(|| Failure::Foreign { path: header.display().to_string() })
}

/// What came out.
pub(crate) struct Comparison {
    header: String,
    profile: Profile,
    /// Whether the profile was found and not given.
    chosen: bool,
    compared: usize,
    differences: Vec<Difference>,
}

impl Comparison {
    /// Whether nothing is different.
    pub(crate) fn is_clean(&self) -> bool {
        self.differences.is_empty()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { header, profile, .. } = self;
        for Difference { place, told } in &self.differences {
            match place {
                Some(place) => writeln!(f, "{place}: {told}")?,
                None => writeln!(f, "{header}: {told}")?,
            }
        }
        match self.differences.len() {
            0 => {
                write!(f, "{header}: as in profile {profile} ({} numbers compared)", self.compared)?
            }
            1 => write!(f, "1 difference from profile {profile}")?,
            count => write!(f, "{count} differences from profile {profile}")?,
        }
        f.write_str(if self.chosen { ", the closest (--profile names another)\n" } else { "\n" })
    }
}

struct Difference {
    place: Option<Place>,
    told: String,
}

/// The kernel's two headers: a tree's one is not held against the other's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Iommufd,
    Vfio,
}

impl Family {
    fn of(name: &str) -> Self {
        let start = name.trim_start_matches('_').get(..4).unwrap_or_default();
        if start.eq_ignore_ascii_case("vfio") { Self::Vfio } else { Self::Iommufd }
    }

    fn is_in(self, tree: &Tree) -> bool {
        let mut commands = Profile::ALL.iter().copied().flat_map(commands_in);
        commands.any(|row| Self::of(row.name) == self && tree.name(row.name).is_some())
    }
}

/// Something that a profile says about a C program.
struct Expected {
    subject: Subject,
    value: u64,
    /// Bytes of it that count.
    size: usize,
    /// Whether a tree may lack it: padding, which need not have a name.
    optional: bool,
}

#[derive(Clone, Copy, Debug)]
enum Subject {
    Request(&'static str),
    Constant(&'static str),
    StructSize(&'static str),
    FieldOffset(&'static str, &'static str),
    FieldSize(&'static str, &'static str),
}

impl Subject {
    /// The name of the macro, enumerator or struct.
    fn name(self) -> &'static str {
        match self {
            Self::Request(name)
            | Self::Constant(name)
            | Self::StructSize(name)
            | Self::FieldOffset(name, _)
            | Self::FieldSize(name, _) => name,
        }
    }

    fn expression(self) -> String {
        match self {
            Self::Request(name) | Self::Constant(name) => name.to_owned(),
            Self::StructSize(tag) => format!("sizeof(struct {tag})"),
            Self::FieldOffset(tag, field) => format!("offsetof(struct {tag}, {field})"),
            Self::FieldSize(tag, field) => format!("sizeof(((struct {tag} *)0)->{field})"),
        }
    }

    fn place(self, tree: &Tree) -> Option<&Place> {
        match self {
            Self::Request(name) | Self::Constant(name) => tree.name(name),
            Self::StructSize(tag) => tree.structure(tag),
            Self::FieldOffset(tag, field) | Self::FieldSize(tag, field) => tree.field(tag, field),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(name) => write!(f, "request {name}"),
            Self::Constant(name) => write!(f, "constant {name}"),
            Self::StructSize(tag) => write!(f, "size of struct {tag}"),
            Self::FieldOffset(tag, field) => write!(f, "offset of struct {tag}.{field}"),
            Self::FieldSize(tag, field) => write!(f, "size of struct {tag}.{field}"),
        }
    }
}

impl Expected {
    fn is_of(&self, families: &[Family]) -> bool {
        families.contains(&Family::of(self.subject.name()))
    }
}

/// All that a profile says. A struct comes before its fields.
fn expected(profile: Profile) -> impl Iterator<Item = Expected> {
    let requests = commands_in(profile).map(|row| Expected {
        subject: Subject::Request(row.name),
        value: row.request.into(),
        size: 4,
        optional: false,
    });
    let constants = constants_in(profile).map(|constant| Expected {
        subject: Subject::Constant(constant.name),
        value: constant.value,
        size: constant.size,
        optional: false,
    });
    let structs = layouts_in(profile).flat_map(|layout| {
        let tag = tag(layout);
        let whole = length(Subject::StructSize(tag), layout.size, false);
        let fields = layout.fields.iter().flat_map(move |field| {
            let names = [Some(field.name), field.alias].into_iter().flatten();
            let optional = field.is_reserved();
            names.flat_map(move |name| {
                [
                    length(Subject::FieldOffset(tag, name), field.offset, optional),
                    length(Subject::FieldSize(tag, name), field.size, optional),
                ]
            })
        });
        std::iter::once(whole).chain(fields)
    });
    requests.chain(constants).chain(structs)
}

fn length(subject: Subject, bytes: usize, optional: bool) -> Expected {
    Expected { subject, value: bytes as u64, size: 8, optional }
}

/// What the compiler says of everything that any profile has and the tree seems to have.
fn measured(compiler: &Compiler, tree: &Tree) -> Result<BTreeMap<String, u64>, Failure> {
    let all = Profile::ALL.iter().copied().flat_map(expected);
    let present = all.filter(|one| one.subject.place(tree).is_some());
    let wanted: BTreeSet<String> = present.map(|one| one.subject.expression()).collect();
    let wanted: Vec<String> = wanted.into_iter().collect();
    let values = compiler.values(&wanted)?;
    Ok(wanted.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?))).collect())
}

fn differences(
    profile: Profile,
    families: &[Family],
    tree: &Tree,
    seen: &BTreeMap<String, u64>,
) -> Vec<Difference> {
    let mut told = Vec::new();
    let mut missing = BTreeSet::new();
    for one in expected(profile).filter(|one| one.is_of(families)) {
        let Expected { subject, value, size, optional } = one;
        let place = subject.place(tree).cloned();
        match seen.get(&subject.expression()) {
            Some(found) if masked(*found, size) == value => {}
            Some(found) => told.push(Difference {
                place,
                told: format!(
                    "{subject} is {}, not {}",
                    shown(subject, *found),
                    shown(subject, value)
                ),
            }),
            // What is missing as a whole is told once.
            None if optional || missing.contains(subject.name()) => {}
            None => told.extend(absence(subject, value, tree, &mut missing)),
        }
    }
    told.extend(of_others(profile, families, tree));
    told
}

fn absence(
    subject: Subject,
    value: u64,
    tree: &Tree,
    missing: &mut BTreeSet<&'static str>,
) -> Option<Difference> {
    let told = match subject {
        Subject::Request(_) | Subject::Constant(_) => {
            format!("{subject} is missing: {}", shown(subject, value))
        }
        Subject::StructSize(tag) => {
            missing.insert(tag);
            format!("struct {tag} is missing: {value} bytes")
        }
        Subject::FieldOffset(tag, field) => {
            format!("field {field} of struct {tag} is missing: at byte {value}")
        }
        // Told with its offset.
        Subject::FieldSize(..) => return None,
    };
    let place = match subject {
        Subject::FieldOffset(tag, _) => tree.structure(tag).cloned(),
        Subject::Request(_)
        | Subject::Constant(_)
        | Subject::StructSize(_)
        | Subject::FieldSize(..) => None,
    };
    Some(Difference { place, told })
}

/// Names in the tree that this profile lacks and another has.
fn of_others(profile: Profile, families: &[Family], tree: &Tree) -> Vec<Difference> {
    let own: BTreeSet<_> = expected(profile).map(|one| one.subject.name()).collect();
    let mut others: BTreeMap<&str, (Subject, Vec<&str>)> = BTreeMap::new();
    for &other in Profile::ALL {
        for one in expected(other).filter(|one| one.is_of(families)) {
            let name = one.subject.name();
            if !own.contains(name) && one.subject.place(tree).is_some() {
                let (_, holders) = others.entry(name).or_insert((one.subject, Vec::new()));
                if holders.last() != Some(&other.name()) {
                    holders.push(other.name());
                }
            }
        }
    }
    let differences = others.into_values().map(|(subject, holders)| {
        let what = match subject {
            Subject::StructSize(tag) => format!("struct {tag}"),
            Subject::Request(_)
            | Subject::Constant(_)
            | Subject::FieldOffset(..)
            | Subject::FieldSize(..) => subject.to_string(),
        };
        Difference {
            place: subject.place(tree).cloned(),
            told: format!("{what} is not in {profile}; it is in {}", holders.join(", ")),
        }
    });
    differences.collect()
}

fn masked(value: u64, bytes: usize) -> u64 {
    let unused_bits = 64 - 8 * bytes;
    value << unused_bits >> unused_bits
}

/// A number as people read it there: lengths decimal, the rest hexadecimal.
fn shown(subject: Subject, value: u64) -> String {
    match subject {
        Subject::Request(_) | Subject::Constant(_) => format!("{value:#x}"),
        Subject::StructSize(_) | Subject::FieldOffset(..) | Subject::FieldSize(..) => {
            value.to_string()
        }
    }
}
