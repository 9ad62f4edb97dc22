//! The names that the overlay adds to the machine's file systems, and how paths lead to them.
//!
//! A tree of directories, links, attributes and device nodes, walked as the kernel walks: `.`, `..`,
//! links relative and absolute, at most 40 of them. A path that leaves the tree is *elsewhere*: the
//! machine's own, and the kernel answers for it. A directory that the machine has too stands on the
//! machine's [`Ground`].
//!
//! Takes no lock. Touches no file.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use uapi::Errno;

use super::Attribute;
use super::Node;

/// As many links as Linux follows in one path.
const LINKS_MOST: usize = 40;
/// As long as Linux lets a path be, its terminating zero included.
const PATH_BYTES_MOST: usize = 4096;
/// As long as Linux lets a name be.
const NAME_BYTES_MOST: usize = 255;

/// What a name stands for.
#[derive(Debug)]
pub(super) enum Entry {
    Directory(Directory),
    /// A symbolic link with its text.
    Link(String),
    Attribute(AttributeFile),
    Node(Node),
}

/// Names and what they stand for.
#[derive(Debug, Default)]
pub(super) struct Directory {
    entries: BTreeMap<String, Entry>,
    ground: Ground,
}

/// Whether the machine has the directory too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ground {
    /// It does not: the directory is the overlay's alone.
    #[default]
    Ours,
    /// It does, and the overlay adds names to it.
    Merged,
    /// It does, with every name that the overlay has there: the machine's own serves.
    Machine,
}

/// A file of a few bytes, as sysfs has them.
pub(super) struct AttributeFile {
    /// Permission bits.
    pub(super) mode: u32,
    /// The size that `stat` tells, in bytes.
    pub(super) size: u64,
    /// What reading gives, now.
    pub(super) show: Box<dyn Fn() -> Vec<u8> + Send + Sync>,
    /// What writing does.
    pub(super) store: Option<Arc<dyn Attribute>>,
}

impl fmt::Debug for AttributeFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AttributeFile({:o})", self.mode)
    }
}

/// Where a path led.
#[derive(Debug)]
pub(super) enum Walk<'t> {
    /// To an entry; its own path, without links.
    Found(String, &'t Entry),
    /// Out of the tree.
    Elsewhere(Elsewhere),
    /// Nowhere, for this reason.
    Refused(Errno),
}

/// Where a path leaves the tree.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Elsewhere {
    /// The last directory of the tree on the way.
    pub(super) at: String,
    /// The names after it. None where the path ends at a directory that is the machine's.
    pub(super) rest: String,
    /// Whether the way led through names that the machine does not have, so that the kernel cannot go it.
    pub(super) strayed: bool,
}

/// What is done with a link at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastLink {
    Follow,
    Stay,
}

impl Directory {
    /// What stands right here under a name.
    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// Every name here, in order.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    pub(super) fn ground(&self) -> Ground {
        self.ground
    }

    /// The directory at a path without links, whosever it is.
    pub(super) fn directory(&self, path: &str) -> Option<&Self> {
        let mut here = self;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let Entry::Directory(below) = here.get(name)? else { return None };
            here = below;
        }
        Some(here)
    }

    /// Says for this directory and those below whether the machine has them, which `has` knows by
    /// path. `/dev` is left to the machine: what is listed there changes all the time.
    pub(super) fn survey(&mut self, path: &str, has: &dyn Fn(&str) -> bool) {
        let below = |name: &str| format!("{}/{name}", path.trim_end_matches('/'));
        let shared =
            |name: &str, entry: &Entry| matches!(entry, Entry::Directory(_)) && has(&below(name));
        let adds = self.entries.iter().any(|(name, entry)| !shared(name, entry));
        self.ground = if adds && path != "/dev" { Ground::Merged } else { Ground::Machine };
        for (name, entry) in &mut self.entries {
            let path = below(name);
            if let Entry::Directory(directory) = entry
                && has(&path)
            {
                directory.survey(&path, has);
            }
        }
    }

    /// Puts an entry at a path, and directories above it where there are none. What stood there
    /// goes. A path through something that is no directory is not taken.
    pub(super) fn put(&mut self, path: &str, entry: Entry) {
        let mut names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        let Some(last) = names.pop() else { return };
        let mut here = self;
        for name in names {
            let below = here.entries.entry(name.to_owned()).or_insert_with(Entry::empty);
            let Entry::Directory(below) = below else { return };
            here = below;
        }
        here.entries.insert(last.to_owned(), entry);
    }

    /// Takes away what stands at a path.
    pub(super) fn remove(&mut self, path: &str) -> Option<Entry> {
        let (above, name) = path.rsplit_once('/')?;
        let mut here = self;
        for name in above.split('/').filter(|name| !name.is_empty()) {
            let Entry::Directory(below) = here.entries.get_mut(name)? else { return None };
            here = below;
        }
        here.entries.remove(name)
    }

    /// Walks an absolute path. One that is not absolute is elsewhere.
    pub(super) fn walk(&self, path: &[u8], last: LastLink) -> Walk<'_> {
        let path = std::str::from_utf8(path).ok().filter(|path| path.starts_with('/'));
        let Some(path) = path else { return Walk::Elsewhere(Elsewhere::default()) };
        if path.len() >= PATH_BYTES_MOST {
            return Walk::Refused(Errno::ENAMETOOLONG);
        }
        let ahead = names(path).collect();
        Walker { root: self, at: Vec::new(), ahead, links: 0, strayed: false }.run(last)
    }
}

impl Entry {
    fn empty() -> Self {
        Self::Directory(Directory::default())
    }
}

/// The names of a path; a slash at its end counts as `.`.
fn names(path: &str) -> impl DoubleEndedIterator<Item = String> {
    let end = if path.ends_with('/') { "." } else { "" };
    path.split('/').chain([end]).filter(|name| !name.is_empty()).map(str::to_owned)
}

/// A walk under way.
struct Walker<'t> {
    root: &'t Directory,
    /// From the root to here: names and the directories they stand for.
    at: Vec<(String, &'t Directory)>,
    /// Names still to walk.
    ahead: VecDeque<String>,
    /// Links followed.
    links: usize,
    /// Whether it went through names that the machine does not have.
    strayed: bool,
}

impl<'t> Walker<'t> {
    fn run(mut self, last: LastLink) -> Walk<'t> {
        while let Some(name) = self.ahead.pop_front() {
            if name == "." {
                continue;
            }
            if name == ".." {
                self.at.pop();
                continue;
            }
            if name.len() > NAME_BYTES_MOST {
                return Walk::Refused(Errno::ENAMETOOLONG);
            }
            let here = self.at.last().map_or(self.root, |(_, directory)| directory);
            match here.get(&name) {
                None => {
                    self.ahead.push_front(name);
                    return self.elsewhere();
                }
                Some(Entry::Directory(directory)) => {
                    self.strayed |= directory.ground == Ground::Ours;
                    self.at.push((name, directory));
                }
                Some(entry @ Entry::Link(text)) => {
                    if self.ahead.is_empty() && last == LastLink::Stay {
                        return Walk::Found(self.path(Some(&name)), entry);
                    }
                    if let Err(errno) = self.follow(text) {
                        return Walk::Refused(errno);
                    }
                }
                Some(entry @ (Entry::Attribute(_) | Entry::Node(_))) => {
                    return if self.ahead.is_empty() {
                        Walk::Found(self.path(Some(&name)), entry)
                    } else {
                        Walk::Refused(Errno::ENOTDIR)
                    };
                }
            }
        }
        self.here()
    }

    fn follow(&mut self, text: &str) -> Result<(), Errno> {
        self.links += 1;
        self.strayed = true;
        if self.links > LINKS_MOST {
            return Err(Errno::ELOOP);
        }
        if text.starts_with('/') {
            self.at.clear();
        }
        for name in names(text).rev() {
            self.ahead.push_front(name);
        }
        Ok(())
    }

    /// The directory walked to, unless the machine's own serves.
    fn here(self) -> Walk<'t> {
        let above = match self.at.len().checked_sub(2).and_then(|index| self.at.get(index)) {
            Some((_, directory)) => directory,
            None => self.root,
        };
        match self.at.last().and_then(|(name, _)| above.get(name)) {
            Some(entry @ Entry::Directory(directory)) if directory.ground != Ground::Machine => {
                Walk::Found(self.path(None), entry)
            }
            Some(_) | None => self.elsewhere(),
        }
    }

    fn elsewhere(self) -> Walk<'t> {
        let rest: Vec<&str> = self.ahead.iter().map(String::as_str).collect();
        let rest = rest.join("/");
        Walk::Elsewhere(Elsewhere { at: self.path(None), rest, strayed: self.strayed })
    }

    /// The path walked, with `name` after it.
    fn path(&self, name: Option<&str>) -> String {
        let names = self.at.iter().map(|(name, _)| name.as_str()).chain(name);
        let path: String = names.flat_map(|name| ["/", name]).collect();
        if path.is_empty() { "/".to_owned() } else { path }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Directory {
        let mut root = Directory::default();
        root.put("/sys/devices/a/b", Entry::empty());
        root.put("/sys/devices/a/up", Entry::Link("../../class".to_owned()));
        root.put("/sys/class/x", Entry::Link("../devices/a/b".to_owned()));
        root.put("/sys/class/loop", Entry::Link("loop".to_owned()));
        root.put("/sys/class/out", Entry::Link("/etc/passwd".to_owned()));
        root.put("/dev/n", Entry::Node(Node::Iommu));
        root
    }

    fn walked(path: &str, last: LastLink) -> String {
        let mut tree = tree();
        tree.survey("/", &|path| ["/sys", "/sys/devices", "/dev"].contains(&path));
        match tree.walk(path.as_bytes(), last) {
            Walk::Found(path, _) => path,
            Walk::Elsewhere(Elsewhere { at, rest, strayed }) => {
                format!("{}elsewhere from {at} by {rest}", if strayed { "astray " } else { "" })
            }
            Walk::Refused(errno) => errno.to_string(),
        }
    }

    #[test]
    fn walks_as_the_kernel_does() {
        use LastLink::{Follow, Stay};
        for (path, last, end) in [
            ("/sys/class/x", Follow, "/sys/devices/a/b"),
            ("/sys/class/x", Stay, "/sys/class/x"),
            ("/sys/class/x/", Stay, "/sys/devices/a/b"),
            ("/sys/class/x/../up/x/.", Stay, "/sys/devices/a/b"),
            ("//sys///devices/./a", Follow, "/sys/devices/a"),
            ("/../../sys/class", Follow, "/sys/class"),
            ("/sys/devices/..", Follow, "/sys"),
            ("/sys/class/x/../../../../dev/.", Follow, "astray elsewhere from /dev by "),
            ("/", Follow, "elsewhere from / by "),
            ("/sys/none", Follow, "elsewhere from /sys by none"),
            (
                "/sys/class/x/none/more",
                Follow,
                "astray elsewhere from /sys/devices/a/b by none/more",
            ),
            ("/sys/class/out", Follow, "astray elsewhere from / by etc/passwd"),
            ("/sys/class/loop", Follow, "ELOOP"),
            ("/sys/class/loop", Stay, "/sys/class/loop"),
            ("/dev/n", Follow, "/dev/n"),
            ("/dev/n/", Follow, "ENOTDIR"),
            ("/dev/n/..", Follow, "ENOTDIR"),
            ("sys", Follow, "elsewhere from  by "),
            ("", Follow, "elsewhere from  by "),
        ] {
            assert_eq!(walked(path, last), end, "{path} {last:?}");
        }
        assert_eq!(walked(&"/sys".repeat(1024), Follow), "ENAMETOOLONG");
        assert_eq!(walked(&format!("/{}", "n".repeat(256)), Follow), "ENAMETOOLONG");
    }

    #[test]
    fn a_survey_tells_shared_directories_from_added_ones() {
        let mut root = tree();
        let machine = ["/sys", "/sys/class", "/sys/devices", "/dev"];
        root.survey("/", &|path| machine.contains(&path));
        let ground = |path: &str| root.directory(path).map(Directory::ground);
        assert_eq!(ground("/sys"), Some(Ground::Machine));
        assert_eq!(ground("/sys/class"), Some(Ground::Merged));
        assert_eq!(ground("/sys/devices"), Some(Ground::Merged));
        assert_eq!(ground("/sys/devices/a"), Some(Ground::Ours));
        assert_eq!(ground("/dev"), Some(Ground::Machine));
    }

    #[test]
    fn what_is_removed_is_gone() {
        let mut root = tree();
        assert!(root.remove("/sys/devices/a").is_some());
        assert!(root.remove("/sys/devices/a").is_none());
        assert!(root.remove("/dev/n/x").is_none());
        assert!(matches!(root.walk(b"/sys/class/x", LastLink::Follow), Walk::Elsewhere(_)));
    }
}
