//! Unified diffs, as `git diff` writes them: read, and applied to texts.
//!
//! A hunk is looked for where it says; if the file has grown or shrunk above it, wherever else its lines are, if that is
//! one place. So a patch goes stale only where its own lines change.

use std::collections::BTreeMap;

/// Changes of some files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    files: Vec<File>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    path: String,
    hunks: Vec<Hunk>,
}

/// Some lines, and what takes their place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Hunk {
    /// The first of the lines, from 1.
    line: usize,
    old: Vec<String>,
    new: Vec<String>,
}

/// A text that is no patch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct BadPatch {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// A patch of a file that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// The file is not there.
    #[error("{path} is not there")]
    Gone {
        /// The file.
        path: String,
    },
    /// The lines of a hunk are not there, or in several places.
    #[error("{path}: the lines of hunk {hunk}, once at line {line}, are in {places} places")]
    Moved {
        /// The file.
        path: String,
        /// Which of the file's hunks, from 1.
        hunk: usize,
        /// Where its lines were, from 1.
        line: usize,
        /// In how many places they are.
        places: usize,
    },
}

impl Patch {
    /// Reads a patch. What precedes its first file is left to the caller.
    ///
    /// # Errors
    /// [`BadPatch`].
    pub fn parse(text: &str) -> Result<Self, BadPatch> {
        let mut files: Vec<File> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let bad = |problem| BadPatch { line: index + 1, problem };
            if let Some(path) = line.strip_prefix("+++ b/") {
                files.push(File { path: path.to_owned(), hunks: Vec::new() });
                continue;
            }
            let Some(file) = files.last_mut().filter(|_| !line.starts_with("--- ")) else {
                continue;
            };
            if let Some(place) = line.strip_prefix("@@ -") {
                let number = place.split([',', ' ']).next().and_then(|number| number.parse().ok());
                let line = number.ok_or(bad("a hunk says at which line it begins"))?;
                file.hunks.push(Hunk { line, ..Hunk::default() });
                continue;
            }
            let Some(hunk) = file.hunks.last_mut() else { continue };
            match line.split_at_checked(1) {
                Some((" ", same)) => {
                    hunk.old.push(same.to_owned());
                    hunk.new.push(same.to_owned());
                }
                Some(("-", old)) => hunk.old.push(old.to_owned()),
                Some(("+", new)) => hunk.new.push(new.to_owned()),
                // Between two files, `diff --git` and `index`.
                Some(("d" | "i" | "\\", _)) => {}
                Some(_) | None => return Err(bad("a line of a hunk begins with ' ', '-' or '+'")),
            }
        }
        let is_empty = |file: &File| file.hunks.iter().all(|hunk| hunk.old == hunk.new);
        if files.is_empty() || files.iter().any(is_empty) {
            return Err(BadPatch { line: text.lines().count(), problem: "nothing is changed" });
        }
        Ok(Self { files })
    }

    /// The files that it changes, as they are then. `read` knows what they are now.
    ///
    /// # Errors
    /// [`Stale`].
    pub fn apply(
        &self,
        read: impl Fn(&str) -> Option<String>,
    ) -> Result<BTreeMap<String, String>, Stale> {
        let patched = |file: &File| {
            let text = read(&file.path).ok_or(Stale::Gone { path: file.path.clone() })?;
            Ok((file.path.clone(), file.apply(&text)?))
        };
        self.files.iter().map(patched).collect()
    }
}

impl File {
    fn apply(&self, text: &str) -> Result<String, Stale> {
        let mut lines: Vec<&str> = text.lines().collect();
        let mut done = 0;
        for (index, hunk) in self.hunks.iter().enumerate() {
            let at = hunk.place(&lines, done).map_err(|places| Stale::Moved {
                path: self.path.clone(),
                hunk: index + 1,
                line: hunk.line,
                places,
            })?;
            lines.splice(at..at + hunk.old.len(), hunk.new.iter().map(String::as_str));
            done = at + hunk.new.len();
        }
        Ok(lines.join("\n") + "\n")
    }
}

impl Hunk {
    /// Where its lines are, not before `from`; or in how many places.
    fn place(&self, lines: &[&str], from: usize) -> Result<usize, usize> {
        let said = self.line.saturating_sub(1);
        let windows = lines.windows(self.old.len().max(1)).enumerate();
        let same = windows.filter(|(at, window)| *at >= from && **window == *self.old);
        let places: Vec<usize> = same.map(|(at, _)| at).collect();
        match places.as_slice() {
            [place] => Ok(*place),
            places if places.contains(&said) => Ok(said),
            places => Err(places.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str =
        "Rule: x\n\n--- a/f\n+++ b/f\n@@ -2,3 +2,3 @@ fn\n two\n-three\n+drei\n four\n";

    fn applied(text: &str) -> Result<String, Stale> {
        let files =
            Patch::parse(PATCH).unwrap().apply(|path| (path == "f").then(|| text.into()))?;
        Ok(files["f"].clone())
    }

    #[test]
    fn a_hunk_is_applied_where_its_lines_are() {
        assert_eq!(applied("one\ntwo\nthree\nfour\n").unwrap(), "one\ntwo\ndrei\nfour\n");
        assert_eq!(applied("0\none\ntwo\nthree\nfour\n").unwrap(), "0\none\ntwo\ndrei\nfour\n");
        let twice = "one\ntwo\nthree\nfour\ntwo\nthree\nfour\n";
        assert_eq!(applied(twice).unwrap(), "one\ntwo\ndrei\nfour\ntwo\nthree\nfour\n");
    }

    #[test]
    fn a_stale_hunk_is_named() {
        let stale = |text| applied(text).unwrap_err().to_string();
        let said = "f: the lines of hunk 1, once at line 2, are in 0 places";
        assert_eq!(stale("one\ntwo\n3\nfour\n"), said);
        let twice = "two\nthree\nfour\n\ntwo\nthree\nfour\n";
        assert_eq!(stale(twice), said.replace('0', "2"));
        let gone = Patch::parse(PATCH).unwrap().apply(|_| None).unwrap_err();
        assert_eq!(gone, Stale::Gone { path: "f".into() });
    }

    #[test]
    fn what_changes_nothing_is_no_patch() {
        assert!(Patch::parse("Rule: x\n").is_err());
        assert!(Patch::parse("--- a/f\n+++ b/f\n@@ -1,1 +1,1 @@\n same\n").is_err());
        let garbled = Patch::parse("--- a/f\n+++ b/f\n@@ -1,1 +1,1 @@\n same\n?\n").unwrap_err();
        assert_eq!(garbled.line, 5);
    }
}
