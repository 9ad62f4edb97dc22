//! IOMMU groups: those that the platform names, and one of its own for every other function.
//!
//! Takes no lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use iommufd::Group;

use crate::platform::{FunctionEntry, GroupName, Platform};

/// Numbers of IOMMU groups, and the groups.
pub(super) struct Groups {
    /// Numbers that the platform names.
    named: BTreeSet<u32>,
    labels: BTreeMap<String, u32>,
    groups: BTreeMap<u32, Arc<Group>>,
    /// The next number that is not named.
    next: u32,
}

/// Above what machines have, so that the machine's groups and ours are told apart.
const FIRST_GROUP: u32 = 1000;

impl Groups {
    pub(super) fn of(platform: &Platform) -> Self {
        let names = platform.functions.iter().filter_map(|entry| entry.group.as_ref());
        let named = names.filter_map(|name| match name {
            GroupName::Number(number) => Some(*number),
            GroupName::Label(_) => None,
        });
        Self {
            named: named.collect(),
            labels: BTreeMap::new(),
            groups: BTreeMap::new(),
            next: FIRST_GROUP,
        }
    }

    /// The number of an entry's group.
    pub(super) fn id(&mut self, entry: &FunctionEntry) -> u32 {
        match &entry.group {
            Some(GroupName::Number(number)) => *number,
            Some(GroupName::Label(label)) => match self.labels.get(label) {
                Some(id) => *id,
                None => {
                    let id = self.own();
                    self.labels.insert(label.clone(), id);
                    id
                }
            },
            None => self.own(),
        }
    }

    /// A number for a group of one.
    pub(super) fn own(&mut self) -> u32 {
        while self.named.contains(&self.next) {
            self.next += 1;
        }
        self.next += 1;
        self.next - 1
    }

    pub(super) fn group(&mut self, id: u32) -> Arc<Group> {
        Arc::clone(self.groups.entry(id).or_insert_with(|| Group::new(id)))
    }
}
