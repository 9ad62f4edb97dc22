//! What objects are called where people read of them.
//!
//! An explorer knows an object by its kind and number, which is the same in equal runs and what schedules are
//! written in. Its owner may have named it as well ([`sync::Named`]), and the model may know what part the owner
//! plays ([`Model::roles`](crate::Model::roles)). Takes no lock.

use std::collections::{BTreeMap, BTreeSet};

use crate::picture::Event;

/// What the objects of an execution are called, by kind and number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(BTreeMap<String, String>);

/// That an object was named.
pub(crate) struct Called {
    /// Its kind and number.
    pub(crate) numbered: String,
    pub(crate) owner: String,
    /// Which part of the owner it is; empty for the owner itself.
    pub(crate) part: &'static str,
}

impl Names {
    /// Of several objects with one name the later ones have a number: `vdev0.users`, `vdev0.users~2`; those that
    /// `tale` tells of come first.
    pub(crate) fn of(mut called: Vec<Called>, roles: &[(String, String)], tale: &[Event]) -> Self {
        let told: BTreeSet<&str> = tale.iter().flat_map(|event| event.what.split(' ')).collect();
        called.sort_by_key(|called| !told.contains(called.numbered.as_str()));
        let roles: BTreeMap<&str, &str> =
            roles.iter().map(|(owner, role)| (owner.as_str(), role.as_str())).collect();
        let mut uses: BTreeMap<String, usize> = BTreeMap::new();
        let mut names = BTreeMap::new();
        for Called { numbered, owner, part } in called {
            let owner = roles.get(owner.as_str()).copied().unwrap_or(&owner);
            let name = if part.is_empty() { owner.to_owned() } else { format!("{owner}.{part}") };
            let uses = uses.entry(name.clone()).or_default();
            *uses += 1;
            let name = if *uses == 1 { name } else { format!("{name}~{uses}") };
            names.insert(numbered, name);
        }
        Self(names)
    }

    /// `text`, in which each object is a word that may be followed by punctuation, with the names that there are.
    pub fn apply(&self, text: &str) -> String {
        let words = text.split(' ').map(|word| {
            let bare = word.trim_end_matches([';', ',', '.', ':']);
            let rest = &word[bare.len()..];
            self.0.get(bare).map_or_else(|| word.to_owned(), |name| format!("{name}{rest}"))
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_owner_role_and_part_and_are_different() {
        let what = "inc_not_zero Refcount#4".to_owned();
        let tale = [Event { thread: Some(0), what, at: None, is_step: true }];
        let called = [
            ("Refcount#2", "vdevice5", "users"),
            ("Life#3", "vdevice5", ""),
            ("Refcount#4", "vdevice5", "users"),
            ("Mutex#9", "group0", "lock"),
        ];
        let called = called.map(|(numbered, owner, part)| {
            let (numbered, owner) = (numbered.to_owned(), owner.to_owned());
            Called { numbered, owner, part }
        });
        let roles = [("vdevice5".to_owned(), "vdev0".to_owned())];
        let names = Names::of(called.into(), &roles, &tale);
        let text = "Life#3 used; inc Refcount#4, Refcount#2: lock Mutex#9 not Mutex#99";
        let named = "vdev0 used; inc vdev0.users, vdev0.users~2: lock group0.lock not Mutex#99";
        assert_eq!(names.apply(text), named);
    }
}
