//! The rules of the reference design, each of which can be left out to see what it is for.

/// Which rules hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A device whose end has begun gets no new vdevice.
    pub destroying: bool,
    /// The id of a vdevice that its device took along is never given out again.
    pub tombstone: bool,
    /// An object's end waits for the commands that hold it, and the vdevice holds its device.
    pub wait_count: bool,
    /// Who drops the last hold wakes who waits for it.
    pub wake: bool,
    /// A command drops its user before its hold.
    pub users_first: bool,
    /// A vdevice's end unbinds under the group's lock, while it still holds the device.
    pub unbind_under_group: bool,
}

impl Rules {
    /// All of them.
    pub const ALL: Self = Self {
        destroying: true,
        tombstone: true,
        wait_count: true,
        wake: true,
        users_first: true,
        unbind_under_group: true,
    };

    /// What there was before the link: commands are waited for, nothing else.
    pub const BEFORE: Self = Self { destroying: false, tombstone: false, ..Self::ALL };

    /// The names of the rules.
    pub const NAMES: [&'static str; 6] =
        ["destroying", "tombstone", "wait-cnt", "wake", "put-order", "unbind-under-group"];

    /// All rules but the one of this name.
    pub fn without(name: &str) -> Option<Self> {
        let mut rules = Self::ALL;
        let rule = match name {
            "destroying" => &mut rules.destroying,
            "tombstone" => &mut rules.tombstone,
            "wait-cnt" => &mut rules.wait_count,
            "wake" => &mut rules.wake,
            "put-order" => &mut rules.users_first,
            "unbind-under-group" => &mut rules.unbind_under_group,
            _ => return None,
        };
        *rule = false;
        Some(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_leaves_one_rule_out() {
        for name in Rules::NAMES {
            assert_ne!(Rules::without(name), Some(Rules::ALL), "{name}");
            assert!(Rules::without(name).is_some(), "{name}");
        }
        assert_eq!(Rules::without("gravity"), None);
    }
}
