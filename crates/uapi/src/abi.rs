//! How an ABI struct is written down: once, with its C name, size and every offset.
//!
//! [`abi!`] turns such a table into a `repr(C)` struct, lets the compiler check size and offsets,
//! and leaves a [`Layout`] behind, from which traces print a command and tests compare with the
//! kernel's headers. [`constants!`] does the same for flag bits and enumerators. Takes no lock.
//! Deliberately absent: what any field means to a command.

use std::fmt;

/// The shape of one ABI struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The struct's tag in C: `"iommu_ioas_map"`.
    pub name: &'static str,
    /// Bytes: C's `sizeof`.
    pub size: usize,
    /// Fields by ascending offset. They cover the struct without a gap.
    pub fields: &'static [Field],
    /// What follows it in memory, as many as a field says: C's flexible array member.
    pub tail: Option<Tail>,
    /// The name of the Rust struct.
    pub rust_name: &'static str,
    /// What the documentation of the Rust struct says, a line each.
    pub about: &'static [&'static str],
}

/// A struct's flexible array member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Its name in C.
    pub name: &'static str,
    /// The C type of an element.
    pub element: &'static str,
}

impl Layout {
    /// Decodes the fields that lie wholly in `bytes`, in order. A field that is an array appears
    /// once per element. A negative value is sign-extended to 64 bits; [`Field::show`] undoes that.
    pub fn fields_of<'b>(
        &self,
        bytes: &'b [u8],
    ) -> impl Iterator<Item = (&'static Field, u64)> + use<'b> {
        self.fields.iter().flat_map(move |field| {
            let whole = bytes.get(field.offset..field.offset + field.size);
            whole
                .unwrap_or_default()
                .chunks_exact(field.width)
                .map(move |element| (field, field.decode(element)))
        })
    }

    /// Finds a field by its C name.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// One field of an ABI struct. Displays as its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The field's name in C, with a dot where it lies in a struct within.
    pub name: &'static str,
    /// A second name for the same bytes: C's anonymous union.
    pub alias: Option<&'static str>,
    /// Bytes from the start of the struct.
    pub offset: usize,
    /// Bytes, of all elements if the field is an array.
    pub size: usize,
    /// Bytes of one element: 1, 2, 4 or 8.
    pub width: usize,
    /// Who fills it in.
    pub direction: Direction,
    /// How people read it.
    pub radix: Radix,
}

impl Field {
    /// Whether the kernel may change it: what is worth printing after the command.
    pub const fn is_output(&self) -> bool {
        matches!(self.direction, Direction::Out | Direction::InOut)
    }

    /// Whether the caller fills it in: what is worth printing before the command.
    pub const fn is_input(&self) -> bool {
        matches!(self.direction, Direction::In | Direction::InOut)
    }

    /// Whether it is reserved space, which only a mistaken caller sets.
    pub fn is_reserved(&self) -> bool {
        self.name.starts_with("__reserved") || matches!(self.name, "reserved" | "pad" | "__pad")
    }

    /// Prints a value as [`Layout::fields_of`] gives it, in the field's own radix.
    pub const fn show(&self, value: u64) -> Shown {
        Shown { radix: self.radix, value }
    }

    fn decode(&self, element: &[u8]) -> u64 {
        let mut wide = [0; 8];
        wide[..element.len()].copy_from_slice(element);
        let value = u64::from_le_bytes(wide);
        match self.radix {
            Radix::Hex | Radix::Decimal => value,
            Radix::Signed => {
                let unused_bits = 64 - 8 * element.len();
                ((value << unused_bits).cast_signed() >> unused_bits).cast_unsigned()
            }
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

/// Who fills a field in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The caller.
    In,
    /// The kernel.
    Out,
    /// The caller, and the kernel answers in the same place.
    InOut,
}

/// How people read a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Radix {
    /// Addresses, lengths, flags.
    Hex,
    /// Ids, counts, indexes.
    Decimal,
    /// Numbers that may be negative: file descriptors.
    Signed,
}

/// A field's value, ready to print.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    radix: Radix,
    value: u64,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.radix {
            Radix::Hex => write!(f, "{:#x}", self.value),
            Radix::Decimal => fmt::Display::fmt(&self.value, f),
            Radix::Signed => fmt::Display::fmt(&self.value.cast_signed(), f),
        }
    }
}

/// A flag bit or enumerator under its C name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constant {
    /// The name in C: `"IOMMU_IOAS_MAP_FIXED_IOVA"`.
    pub name: &'static str,
    /// The value.
    pub value: u64,
    /// Bytes of the field that holds it. C's value may have more; they are a sign.
    pub size: usize,
    /// The name of the Rust constant.
    pub rust_name: &'static str,
    /// The value as it is written here.
    pub expression: &'static str,
    /// The module of its constants, such as `map_flags`.
    pub module: &'static str,
    /// What the module's documentation says, a line each.
    pub about: &'static [&'static str],
    /// What the constant's own documentation says, a line each.
    pub note: &'static [&'static str],
    /// Where it exists.
    pub profiles: crate::Profiles,
}

/// What a field may be made of: integers, and arrays of them.
pub(crate) trait Elements {
    /// Bytes of one element.
    const WIDTH: usize;
}

macro_rules! elements {
    ($($integer:ty),*) => {$(
        impl Elements for $integer {
            const WIDTH: usize = size_of::<Self>();
        }
    )*};
}
elements!(u8, u16, u32, u64, i32);

impl<T: Elements, const N: usize> Elements for [T; N] {
    const WIDTH: usize = T::WIDTH;
}

/// Bytes of the field that `_get` returns.
pub(crate) const fn size_of_field<T, F>(_get: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// Declares ABI structs: `offset direction radix field: type`, where the C name follows in
/// parentheses if it is not the field's, and after a slash a second C name of the same bytes.
/// Directions are `in`, `out`, `inout`; radices `hex`, `dec`, `signed`. After the struct, `then`
/// names a flexible array member by element type and name. A struct comes after those that it
/// holds. Leaves `LAYOUTS`, the list of all structs declared.
macro_rules! abi {
    ($(
        $(#[doc = $about:literal])*
        struct $name:ident [$c_name:literal, $size:literal] {
            $( $offset:literal $direction:ident $radix:ident
               $field:ident $(($c_field:literal))? $(/ $alias:literal)? : $type:ty ),* $(,)?
        } $(then $element:literal $tail:literal)?
    )*) => {
        $(
            $(#[doc = $about])*
            #[doc = concat!("\n\nC name: `struct ", $c_name, "`, ", stringify!($size), " bytes.")]
            #[repr(C)]
            #[derive(
                Clone, Copy, Debug, Default, PartialEq, Eq,
                zerocopy::FromBytes, zerocopy::Immutable, zerocopy::IntoBytes,
                zerocopy::KnownLayout,
            )]
            pub struct $name {
                $(
                    #[doc = concat!("At byte ", stringify!($offset), ".")]
                    pub $field: $type,
                )*
            }

            impl $name {
                /// The struct's shape.
                pub const LAYOUT: $crate::Layout = $crate::Layout {
                    name: $c_name,
                    size: $size,
                    fields: &[$($crate::Field {
                        name: $crate::abi::c_name!($field $($c_field)?),
                        alias: $crate::abi::optional!($($alias)?),
                        offset: $offset,
                        size: size_of::<$type>(),
                        width: <$type as $crate::abi::Elements>::WIDTH,
                        direction: $crate::abi::direction!($direction),
                        radix: $crate::abi::radix!($radix),
                    }),*],
                    tail: $crate::abi::optional!(
                        $($crate::abi::Tail { name: $tail, element: $element })?
                    ),
                    rust_name: stringify!($name),
                    about: &[$($about),*],
                };
            }

            const _: () = assert!(size_of::<$name>() == $size);
            $( const _: () = assert!(std::mem::offset_of!($name, $field) == $offset); )*
        )*

        /// The shapes of all structs declared here.
        pub(crate) const LAYOUTS: &[&$crate::Layout] = &[$(&$name::LAYOUT),*];
    };
}
pub(crate) use abi;

macro_rules! c_name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $c_name:literal) => {
        $c_name
    };
}
pub(crate) use c_name;

macro_rules! optional {
    () => {
        None
    };
    ($value:expr) => {
        Some($value)
    };
}
pub(crate) use optional;

macro_rules! direction {
    (in) => {
        $crate::Direction::In
    };
    (out) => {
        $crate::Direction::Out
    };
    (inout) => {
        $crate::Direction::InOut
    };
}
pub(crate) use direction;

macro_rules! radix {
    (hex) => {
        $crate::Radix::Hex
    };
    (dec) => {
        $crate::Radix::Decimal
    };
    (signed) => {
        $crate::Radix::Signed
    };
}
pub(crate) use radix;

/// Declares modules of constants: `NAME = value, "C_NAME"`, where a set of profiles follows after
/// `in` if not all have it. Leaves `CONSTANTS`, the list of all.
macro_rules! constants {
    ($(
        $(#[doc = $about:literal])*
        mod $module:ident: $type:ty {
            $(
                $(#[doc = $note:literal])*
                $name:ident = $value:expr, $c_name:literal $(in $profiles:ident)?;
            )*
        }
    )*) => {
        $(
            $(#[doc = $about])*
            pub mod $module {
                $(
                    #[doc = concat!("`", $c_name, "`.")]
                    $(#[doc = $note])*
                    pub const $name: $type = $value;
                )*

                pub(super) const ABOUT: &[&str] = &[$($about),*];
            }
        )*

        /// All constants declared here, under their C names.
        pub(crate) const CONSTANTS: &[$crate::Constant] = &[$($(
            $crate::Constant {
                name: $c_name,
                value: $module::$name as u64,
                size: size_of::<$type>(),
                rust_name: stringify!($name),
                expression: stringify!($value),
                module: stringify!($module),
                about: $module::ABOUT,
                note: &[$($note),*],
                profiles: $crate::abi::profiles!($($profiles)?),
            },
        )*)*];
    };
}
pub(crate) use constants;

macro_rules! profiles {
    () => {
        $crate::Profiles::ALL
    };
    ($profiles:ident) => {
        $crate::command::profiles::$profiles
    };
}
pub(crate) use profiles;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    use crate::{constants, iommufd, kvm, layouts, vfio};

    #[test]
    fn fields_cover_their_struct() {
        for layout in layouts() {
            let mut end = 0;
            for field in layout.fields {
                assert_eq!(field.offset, end, "{}.{}", layout.name, field.name);
                assert_eq!(field.size % field.width, 0, "{}.{}", layout.name, field.name);
                end += field.size;
            }
            assert_eq!(end, layout.size, "{}", layout.name);
        }
    }

    #[test]
    fn names_are_unique() {
        let mut seen = BTreeSet::new();
        let structs = layouts().map(|layout| layout.name);
        for name in structs.chain(constants().map(|constant| constant.name)) {
            assert!(seen.insert(name), "{name} is declared twice");
        }
    }

    #[test]
    fn what_the_kernel_names_an_output_is_one() {
        for layout in layouts() {
            for field in layout.fields.iter().filter(|field| field.name.starts_with("out_")) {
                assert!(field.is_output(), "{}.{}", layout.name, field.name);
            }
        }
    }

    #[test]
    fn a_command_prints_as_people_read_it() {
        let map = iommufd::IoasMapFile {
            size: 40,
            flags: iommufd::map_flags::READABLE,
            ioas_id: 1,
            fd: -1,
            length: 0x1000,
            ..Default::default()
        };
        let shown: Vec<_> = iommufd::IoasMapFile::LAYOUT
            .fields_of(map.as_bytes())
            .map(|(field, value)| format!("{field}={}", field.show(value)))
            .collect();
        assert_eq!(
            shown.join(" "),
            "size=40 flags=0x4 ioas_id=1 fd=-1 start=0x0 length=0x1000 iova=0x0"
        );
    }

    #[test]
    fn an_array_appears_once_per_element() {
        let entry = iommufd::HwptArmSmmuv3 { ste: [1, u64::MAX] };
        let values: Vec<_> = iommufd::HwptArmSmmuv3::LAYOUT
            .fields_of(entry.as_bytes())
            .map(|(field, value)| (field.name, value))
            .collect();
        assert_eq!(values, [("ste", 1), ("ste", u64::MAX)]);
    }

    #[test]
    fn fields_know_who_fills_them_in() {
        let field = |name| iommufd::IoasMap::LAYOUT.field(name).copied();
        let (iova, user_va) = (field("iova").unwrap(), field("user_va").unwrap());
        assert!(iova.is_input() && iova.is_output());
        assert!(user_va.is_input() && !user_va.is_output());
        assert!(field("__reserved").unwrap().is_reserved());
        assert_eq!(field("reserved"), None);
        let devid = vfio::BindIommufd::LAYOUT.field("out_devid").unwrap();
        assert!(devid.is_output() && !devid.is_input() && !devid.is_reserved());
        assert_eq!(kvm::DeviceAttr::LAYOUT.size, 24);
    }

    proptest! {
        /// Against bytes taken one by one: every whole field appears, and nothing past the end.
        #[test]
        fn any_bytes_decode(
            which in any::<prop::sample::Index>(),
            bytes in prop::collection::vec(any::<u8>(), 0..96),
        ) {
            let layout = layouts().nth(which.index(layouts().count())).unwrap();
            let mut expected = Vec::new();
            for field in layout.fields.iter().filter(|f| f.offset + f.size <= bytes.len()) {
                for at in (field.offset..field.offset + field.size).step_by(field.width) {
                    let mut value = 0;
                    for byte in (0..field.width).rev() {
                        value = value << 8 | u64::from(bytes[at + byte]);
                    }
                    let negative = field.radix == super::Radix::Signed
                        && bytes[at + field.width - 1] >= 0x80;
                    if negative && field.width < 8 {
                        value |= u64::MAX << (8 * field.width);
                    }
                    expected.push((field.name, value));
                }
            }
            let decoded = layout.fields_of(&bytes).map(|(field, value)| (field.name, value));
            prop_assert_eq!(decoded.collect::<Vec<_>>(), expected);
        }
    }
}
