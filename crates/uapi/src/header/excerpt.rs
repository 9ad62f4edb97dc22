//! Parts of a header, for a program that is one file and includes neither of the kernel's headers.

use std::fmt::{self, Formatter};

use super::{
    ASSERTION, Expression, FAMILIES, Family, Header, base, comment, holds, request, structure,
};
use crate::{CommandId, Constant, Profile, commands_in, constants_in, tag};

/// The definitions that some commands need. Displays as C.
#[derive(Clone, Copy, Debug)]
pub struct Excerpt<'n> {
    pub(super) profile: Profile,
    pub(super) commands: &'n [CommandId],
    pub(super) constants: &'n [&'n str],
}

impl Header {
    /// The part of the header that has these commands, their structs, the structs called so and these constants.
    /// What the profile does not have is left out.
    pub const fn excerpt<'n>(
        self,
        commands: &'n [CommandId],
        constants: &'n [&'n str],
    ) -> Excerpt<'n> {
        Excerpt { profile: self.profile, commands, constants }
    }
}

impl Excerpt<'_> {
    /// The first command or constant that the profile does not have, by its name in C.
    pub fn missing(&self) -> Option<&str> {
        let has = |id: &CommandId| commands_in(self.profile).any(|row| row.id == *id);
        let command = self.commands.iter().find(|id| !has(id));
        let constant = |name: &&&str| !constants_in(self.profile).any(|it| it.name == **name);
        command
            .map(|id| crate::Command::of(*id).name)
            .or_else(|| self.constants.iter().find(constant).copied())
    }

    fn constants<'f>(&'f self, family: &'f Family) -> impl Iterator<Item = &'static Constant> + 'f {
        family.constants(self.profile).filter(|constant| self.constants.contains(&constant.name))
    }

    fn family(&self, f: &mut Formatter<'_>, family: &Family) -> fmt::Result {
        for constant in self.constants(family) {
            comment(f, "", constant.name, constant.note)?;
            writeln!(f, "#define {} {}", constant.name, Expression(constant))?;
        }
        let rows = || family.commands(self.profile).filter(|row| self.commands.contains(&row.id));
        let layouts = || {
            let layouts = family.layouts(self.profile);
            layouts.filter(|layout| rows().any(|row| row.argument == Some(*layout)))
        };
        for layout in layouts() {
            structure(f, layout)?;
        }
        if rows().next().is_some() {
            writeln!(f)?;
            base(f, family)?;
        }
        for row in rows() {
            request(f, row)?;
        }
        if layouts().next().is_some() {
            f.write_str(ASSERTION)?;
            for layout in layouts() {
                holds(f, &format!("sizeof(struct {}) == {}", tag(layout), layout.size))?;
            }
            f.write_str("#undef BINDERY_HOLDS\n")?;
        }
        Ok(())
    }
}

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        FAMILIES.iter().try_for_each(|family| self.family(f, family))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_what_was_asked_for_and_nothing_else() {
        let commands = [CommandId::Destroy, CommandId::VdeviceTsmOp];
        let constants = ["IOMMU_VDEVICE_TSM_BIND"];
        let excerpt = Header::of(Profile::Rfc).excerpt(&commands, &constants);
        let text = excerpt.to_string();
        for there in [
            "struct iommu_destroy {",
            "#define IOMMU_VDEVICE_TSM_OP _IO(IOMMUFD_TYPE, 0x95)",
            "#define IOMMU_VDEVICE_TSM_BIND 1",
            "BINDERY_HOLDS(sizeof(struct iommu_vdevice_tsm_op) == 16);",
        ] {
            assert!(text.contains(there), "{there}\n{text}");
        }
        assert!(!text.contains("vfio") && !text.contains("UNBIND 2"), "{text}");
        assert_eq!(excerpt.missing(), None);
        let older = Header::of(Profile::Linux73).excerpt(&commands, &constants);
        assert_eq!(older.missing(), Some("IOMMU_VDEVICE_TSM_OP"));
    }
}
