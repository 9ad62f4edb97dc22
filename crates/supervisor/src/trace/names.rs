//! Which constants a field is made of: the names of flags and of enumerated values.
//!
//! The constants themselves, values and names, are `uapi`'s; here stands only which field speaks in
//! which, by the prefix that the kernel gave them.

use std::fmt;

use uapi::{Constant, Field, Layout};

/// A field's value by name where it has one.
pub(super) struct Named<'a> {
    pub(super) layout: &'a Layout,
    pub(super) field: &'a Field,
    pub(super) value: u64,
}

/// How a field is spelled.
#[derive(Clone, Copy, Debug)]
enum Spelling {
    /// Bits, each with a name that begins with one of these.
    Bits(&'static [&'static str]),
    /// One of several values, whose names begin and end with these.
    One(&'static str, &'static str),
    /// A feature's number in the low half, and what to do with it above.
    Feature,
    /// A region's index.
    Region,
}

use Spelling::{Bits, Feature, One, Region};

/// By struct and field, sorted.
const SPELLINGS: &[(&str, &str, Spelling)] = &[
    ("iommu_hw_info", "flags", Bits(&["IOMMU_HW_INFO_FLAG_"])),
    ("iommu_hw_info", "out_capabilities", Bits(&["IOMMU_HW_CAP_"])),
    ("iommu_hw_info", "out_data_type", One("IOMMU_HW_INFO_TYPE_", "")),
    ("iommu_hw_queue_alloc", "type", One("IOMMU_HW_QUEUE_TYPE_", "")),
    ("iommu_hwpt_alloc", "data_type", One("IOMMU_HWPT_DATA_", "")),
    ("iommu_hwpt_alloc", "flags", Bits(&["IOMMU_HWPT_ALLOC_", "IOMMU_HWPT_FAULT_"])),
    ("iommu_hwpt_get_dirty_bitmap", "flags", Bits(&["IOMMU_HWPT_GET_DIRTY_BITMAP_"])),
    ("iommu_hwpt_set_dirty_tracking", "flags", Bits(&["IOMMU_HWPT_DIRTY_TRACKING_"])),
    ("iommu_ioas_copy", "flags", Bits(&["IOMMU_IOAS_MAP_"])),
    ("iommu_ioas_map", "flags", Bits(&["IOMMU_IOAS_MAP_"])),
    ("iommu_ioas_map_file", "flags", Bits(&["IOMMU_IOAS_MAP_"])),
    ("iommu_option", "op", One("IOMMU_OPTION_OP_", "")),
    ("iommu_option", "option_id", One("IOMMU_OPTION_", "")),
    ("iommu_vdevice_tsm_op", "type", One("IOMMU_VDEVICE_TSM_", "")),
    ("iommu_veventq_alloc", "type", One("IOMMU_VEVENTQ_TYPE_", "")),
    ("iommu_vfio_ioas", "op", One("IOMMU_VFIO_IOAS_", "")),
    ("iommu_viommu_alloc", "type", One("IOMMU_VIOMMU_TYPE_", "")),
    ("vfio_device_attach_iommufd_pt", "flags", Bits(&["VFIO_DEVICE_ATTACH_"])),
    ("vfio_device_bind_iommufd", "flags", Bits(&["VFIO_DEVICE_BIND_FLAG_"])),
    ("vfio_device_detach_iommufd_pt", "flags", Bits(&["VFIO_DEVICE_DETACH_"])),
    ("vfio_device_feature", "flags", Feature),
    ("vfio_device_info", "flags", Bits(&["VFIO_DEVICE_FLAGS_"])),
    ("vfio_group_status", "flags", Bits(&["VFIO_GROUP_FLAGS_"])),
    ("vfio_irq_info", "flags", Bits(&["VFIO_IRQ_INFO_"])),
    ("vfio_irq_info", "index", One("VFIO_PCI_", "_IRQ_INDEX")),
    ("vfio_irq_set", "flags", Bits(&["VFIO_IRQ_SET_"])),
    ("vfio_irq_set", "index", One("VFIO_PCI_", "_IRQ_INDEX")),
    ("vfio_pci_hot_reset_info", "flags", Bits(&["VFIO_PCI_HOT_RESET_FLAG_"])),
    ("vfio_region_info", "flags", Bits(&["VFIO_REGION_INFO_FLAG_"])),
    ("vfio_region_info", "index", Region),
];

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = (self.layout.name, self.field.name);
        let found = SPELLINGS.binary_search_by_key(&key, |(layout, field, _)| (layout, field));
        match found.ok().map(|at| SPELLINGS[at].2) {
            Some(Bits(prefixes)) => bits(f, self.value, &bit_names(prefixes)),
            Some(One(prefix, suffix)) => match name_of(self.value, prefix, suffix) {
                Some(name) => f.write_str(name),
                None => self.field.show(self.value).fmt(f),
            },
            Some(Feature) => feature(f, self.value),
            Some(Region) => f.write_str(&region_name(self.value)),
            None => self.field.show(self.value).fmt(f),
        }
    }
}

/// A region of a PCI device in a word.
pub(super) fn region_name(index: u64) -> String {
    match index {
        0..=5 => format!("bar{index}"),
        6 => "rom".to_owned(),
        7 => "config".to_owned(),
        8 => "vga".to_owned(),
        _ => format!("region{index}"),
    }
}

/// Single bits by name; masks over several are no names for a bit.
fn bit_names(prefixes: &[&str]) -> Vec<(u64, &'static str)> {
    let named = |constant: &Constant| {
        prefixes.iter().find_map(|prefix| {
            let short = constant.name.strip_prefix(prefix)?;
            // A prefix that ends inside a name (`IOMMU_HWPT_FAULT_`) is kept to its last word.
            Some((constant.value, short))
        })
    };
    constants().filter(|constant| constant.value.is_power_of_two()).filter_map(named).collect()
}

/// Bits by name, the rest as a number; 0 as `0`.
fn bits(f: &mut fmt::Formatter<'_>, value: u64, names: &[(u64, &str)]) -> fmt::Result {
    let mut rest = value;
    let mut separator = "";
    for (bit, name) in names {
        if value & bit != 0 {
            write!(f, "{separator}{name}")?;
            separator = "|";
            rest &= !bit;
        }
    }
    if rest != 0 {
        return write!(f, "{separator}{rest:#x}");
    }
    f.write_str(if separator.is_empty() { "0" } else { "" })
}

fn name_of(value: u64, prefix: &str, suffix: &str) -> Option<&'static str> {
    constants().find_map(|constant| {
        let name = constant.name.strip_prefix(prefix)?.strip_suffix(suffix)?;
        (constant.value == value).then_some(name)
    })
}

fn feature(f: &mut fmt::Formatter<'_>, flags: u64) -> fmt::Result {
    /// Below this, the feature's number; above, bits.
    const NUMBER_BITS: u32 = 16;
    const PREFIX: &str = "VFIO_DEVICE_FEATURE_";
    let number = flags & ((1 << NUMBER_BITS) - 1);
    match name_of(number, PREFIX, "") {
        Some(name) => f.write_str(name)?,
        None => write!(f, "{number}")?,
    }
    let mut verbs = bit_names(&[PREFIX]);
    verbs.retain(|(bit, _)| *bit >= 1 << NUMBER_BITS);
    if flags == number {
        return Ok(());
    }
    f.write_str("|")?;
    bits(f, flags - number, &verbs)
}

fn constants() -> impl Iterator<Item = &'static Constant> {
    uapi::constants()
}

#[cfg(test)]
mod tests {
    use uapi::Command;

    use super::*;

    /// The struct of some command.
    fn layout(name: &str) -> &'static Layout {
        let mut layouts = uapi::COMMANDS.iter().filter_map(|row: &Command| row.argument);
        layouts.find(|layout| layout.name == name).unwrap_or_else(|| panic!("no struct {name}"))
    }

    fn spelled(name: &str, field: &str, value: u64) -> String {
        let layout = layout(name);
        let field = layout.field(field).unwrap_or_else(|| panic!("no {field} in {name}"));
        Named { layout, field, value }.to_string()
    }

    #[test]
    fn every_spelling_names_a_field_and_has_constants() {
        assert!(SPELLINGS.is_sorted_by_key(|(layout, field, _)| (*layout, *field)));
        for (name, field, spelling) in SPELLINGS {
            assert!(layout(name).field(field).is_some(), "{name}.{field}");
            let prefixes: &[&str] = match spelling {
                Bits(prefixes) => prefixes,
                One(prefix, _) => &[prefix],
                Feature | Region => &[],
            };
            for prefix in prefixes {
                assert!(constants().any(|constant| constant.name.starts_with(prefix)), "{prefix}");
            }
        }
    }

    #[test]
    fn flags_print_by_name_and_strangers_as_numbers() {
        assert_eq!(spelled("iommu_ioas_map", "flags", 0), "0");
        assert_eq!(spelled("iommu_ioas_map", "flags", 7), "FIXED_IOVA|WRITEABLE|READABLE");
        assert_eq!(spelled("iommu_ioas_map", "flags", 0x14), "READABLE|0x10");
        assert_eq!(spelled("vfio_irq_set", "flags", 0x24), "DATA_EVENTFD|ACTION_TRIGGER");
        assert_eq!(spelled("vfio_irq_set", "index", 2), "MSIX");
        assert_eq!(spelled("vfio_irq_set", "index", 9), "9");
        assert_eq!(spelled("vfio_device_feature", "flags", 0x1_0001), "MIGRATION|GET");
        assert_eq!(spelled("vfio_device_feature", "flags", 0x4_fffe), "65534|PROBE");
        assert_eq!(spelled("vfio_region_info", "index", 7), "config");
    }
}
