//! A copy of the workspace, cut down to what the judge is made of, that becomes one mutant after the other.
//!
//! Files are written where they differ only, so that what did not change is not compiled again. Manifests lose what the
//! judge does not need: tests, benches, examples, and what only those depend on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use serde_json::Value;

/// The package of the judge.
const PACKAGE: &str = "bindery-mutants";

/// A copy of the workspace.
pub struct Tree {
    root: PathBuf,
    at: PathBuf,
    /// The directories of its packages, from the root of the workspace.
    packages: Vec<String>,
    keeps_examples: bool,
}

/// Why there is no copy, or it cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    Io {
        /// The file or directory.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// `cargo metadata` says something else than it did.
    #[error("cargo does not tell what the workspace is made of: {0}")]
    Metadata(String),
    /// A manifest is not TOML.
    #[error("{path}: {error}")]
    Manifest {
        /// The file.
        path: String,
        /// Why.
        error: toml::de::Error,
    },
    /// It does not compile.
    #[error("it does not compile:\n{0}")]
    Build(String),
}

type Done<T> = Result<T, TreeError>;

impl Tree {
    /// A copy of the workspace at `root`, in the directory `at`, which may have an older one. `keeps_examples` says
    /// whether the judge's own examples can be built in it, with what they depend on.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn new(root: &Path, at: &Path, keeps_examples: bool) -> Done<Self> {
        let mut tree =
            Self { root: root.to_owned(), at: at.to_owned(), packages: Vec::new(), keeps_examples };
        tree.packages = tree.needed()?;
        Ok(tree)
    }

    /// Makes the copy what the workspace is, but for these files.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn change(&self, files: &BTreeMap<String, String>) -> Done<()> {
        self.write("Cargo.toml", &self.root_manifest()?)?;
        let lock = self.read("Cargo.lock")?;
        // Cargo drops what the copy does not need from its own: hence the other, to see when the workspace's changes.
        if self.write("workspace.lock", &lock)? {
            self.write("Cargo.lock", &lock)?;
        }
        for package in &self.packages {
            let manifest = format!("{package}/Cargo.toml");
            self.write(&manifest, &self.manifest(&manifest)?)?;
            let mut sources = BTreeSet::new();
            self.list(&format!("{package}/src"), &mut sources)?;
            if package == OWN && self.keeps_examples {
                self.list(&format!("{package}/examples"), &mut sources)?;
            }
            for path in sources {
                match files.get(&path) {
                    Some(text) => self.write(&path, text)?,
                    None => self.write(&path, &self.read(&path)?)?,
                };
            }
        }
        Ok(())
    }

    /// Builds what `what` names in cargo's words, and answers in which directory those of each profile are.
    ///
    /// # Errors
    /// [`TreeError::Build`], with what the compiler says.
    pub fn build(&self, what: &[&str]) -> Done<PathBuf> {
        let target = self.at.join("target");
        let output = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--offline", "--package", PACKAGE])
            .args(what)
            .current_dir(&self.at)
            .env("CARGO_TARGET_DIR", &target)
            // The mutant is meant to look like a mistake.
            .env("RUSTFLAGS", "--cap-lints=allow")
            .output()
            .map_err(|error| TreeError::Build(error.to_string()))?;
        if !output.status.success() {
            return Err(TreeError::Build(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        Ok(target)
    }

    /// The directories of the packages that the judge is made of.
    fn needed(&self) -> Done<Vec<String>> {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
            .current_dir(&self.root)
            .output()
            .map_err(|error| TreeError::Metadata(error.to_string()))?;
        let unclear = |what: &str| TreeError::Metadata(what.to_owned());
        let metadata: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| TreeError::Metadata(error.to_string()))?;
        let root = metadata["workspace_root"].as_str().ok_or(unclear("no workspace_root"))?;
        let packages = metadata["packages"].as_array().ok_or(unclear("no packages"))?;
        let relative = |path: &str| {
            let path = Path::new(path).strip_prefix(root).unwrap_or(Path::new(path));
            path.display().to_string()
        };
        let mut depends = BTreeMap::new();
        for package in packages {
            let manifest = package["manifest_path"].as_str().ok_or(unclear("no manifest_path"))?;
            let directory = relative(manifest.trim_end_matches("/Cargo.toml"));
            let dependencies = package["dependencies"].as_array().into_iter().flatten();
            let normal = dependencies.filter(|dependency| dependency["kind"].is_null());
            let paths = normal.filter_map(|dependency| dependency["path"].as_str());
            depends.insert(directory, paths.map(relative).collect::<Vec<_>>());
        }
        let mut needed = BTreeSet::new();
        let mut waiting = vec![OWN.to_owned()];
        while let Some(directory) = waiting.pop() {
            if needed.insert(directory.clone()) {
                waiting.extend(depends.get(&directory).into_iter().flatten().cloned());
            }
        }
        Ok(needed.into_iter().collect())
    }

    fn root_manifest(&self) -> Done<String> {
        let mut manifest = self.table("Cargo.toml")?;
        let members: Vec<_> = self.packages.iter().cloned().map(toml::Value::from).collect();
        if let Some(workspace) = manifest.get_mut("workspace").and_then(toml::Value::as_table_mut) {
            workspace.insert("members".into(), members.into());
            workspace.remove("default-members");
        }
        let profile = toml::from_str::<toml::Table>(PROFILE);
        let profile =
            profile.map_err(|error| TreeError::Manifest { path: "PROFILE".into(), error })?;
        manifest.insert("profile".into(), profile.into());
        Ok(manifest.to_string())
    }

    fn manifest(&self, path: &str) -> Done<String> {
        let mut manifest = self.table(path)?;
        let is_own = Path::new(path).parent() == Some(Path::new(OWN));
        for key in ["dev-dependencies", "example"] {
            if !(is_own && self.keeps_examples) {
                manifest.remove(key);
            }
        }
        for key in ["test", "bench", "target"] {
            manifest.remove(key);
        }
        Ok(manifest.to_string())
    }

    fn table(&self, path: &str) -> Done<toml::Table> {
        let text = self.read(path)?;
        text.parse().map_err(|error| TreeError::Manifest { path: path.to_owned(), error })
    }

    /// Adds the files under a directory, from the root of the workspace, if there is such a directory.
    fn list(&self, directory: &str, into: &mut BTreeSet<String>) -> Done<()> {
        let failed = |error| TreeError::Io { path: directory.to_owned(), error };
        for entry in fs::read_dir(self.root.join(directory)).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = format!("{directory}/{}", entry.file_name().to_string_lossy());
            if entry.file_type().map_err(failed)?.is_dir() {
                self.list(&path, into)?;
            } else {
                into.insert(path);
            }
        }
        Ok(())
    }

    fn read(&self, path: &str) -> Done<String> {
        fs::read_to_string(self.root.join(path))
            .map_err(|error| TreeError::Io { path: path.to_owned(), error })
    }

    /// Writes a file of the copy unless it is so already; says whether it was not.
    fn write(&self, path: &str, text: &str) -> Done<bool> {
        let file = self.at.join(path);
        if fs::read_to_string(&file).is_ok_and(|now| now == text) {
            return Ok(false);
        }
        let directory = file.parent().unwrap_or(&self.at);
        let written = fs::create_dir_all(directory).and_then(|()| fs::write(&file, text));
        written.map_err(|error| TreeError::Io { path: file.display().to_string(), error })?;
        Ok(true)
    }
}

/// The directory of the judge's package.
const OWN: &str = "mutants";

/// What does not change between mutants is worth optimising; what does is compiled fast.
const PROFILE: &str = r#"
[dev]
debug = false
[dev.package."*"]
opt-level = 2
[dev.package.bindery-explore]
opt-level = 2
[dev.package.bindery-sync]
opt-level = 2
[dev.package.bindery-mem]
opt-level = 2
[peers]
inherits = "dev"
opt-level = 2
"#;
