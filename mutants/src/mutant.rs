//! A mutant: a patch, and what it says before it.
//!
//! ```text
//! Rule: A command lets go of an object in the order in which a removal looks.
//! Scenario: scenarios/s06-unbind-never-bound.toml
//! Says: is removed while it has users
//!
//! --- a/crates/iommufd/src/registry.rs
//! …
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use crate::{BadPatch, Patch, Stale};

/// A rule of the shipped code that is left out, and how that shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// The name of its file, without the ending.
    pub name: String,
    /// The rule that it breaks.
    pub rule: String,
    /// The scenario in which that shows: a file, from the root of the workspace.
    pub scenario: String,
    /// Words of the violation.
    pub says: String,
    patch: Patch,
}

/// A file that is no mutant.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error("{path}: {error}")]
    Io {
        /// The file or directory.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// It does not say something that it must.
    #[error("{path}: there is no line that begins with `{what}: `")]
    Silent {
        /// The file.
        path: String,
        /// What it does not say.
        what: &'static str,
    },
    /// It has no patch.
    #[error("{path}: {error}")]
    Patch {
        /// The file.
        path: String,
        /// Why.
        error: BadPatch,
    },
}

impl Mutant {
    /// The mutants in the files of a directory, by name.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn all(directory: &Path) -> Result<Vec<Self>, Unusable> {
        let failed = |error| Unusable::Io { path: directory.display().to_string(), error };
        let mut mutants = Vec::new();
        for entry in fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "patch") {
                mutants.push(Self::read(&path)?);
            }
        }
        mutants.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(mutants)
    }

    /// The files that it changes, as they are then, by their paths from the root of the workspace.
    ///
    /// # Errors
    /// [`Stale`].
    pub fn apply(&self, root: &Path) -> Result<BTreeMap<String, String>, Stale> {
        self.patch.apply(|path| fs::read_to_string(root.join(path)).ok())
    }

    fn read(file: &Path) -> Result<Self, Unusable> {
        let path = file.display().to_string();
        let text =
            fs::read_to_string(file).map_err(|error| Unusable::Io { path: path.clone(), error })?;
        let said = |what: &'static str| {
            let mut lines = text.lines().take_while(|line| !line.starts_with("--- a/"));
            let said = lines.find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
            said.map(str::to_owned).ok_or(Unusable::Silent { path: path.clone(), what })
        };
        Ok(Self {
            name: file.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            rule: said("Rule")?,
            scenario: said("Scenario")?,
            says: said("Says")?,
            patch: Patch::parse(&text)
                .map_err(|error| Unusable::Patch { path: path.clone(), error })?,
        })
    }
}
