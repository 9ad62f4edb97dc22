//! A header as the preprocessor leaves it: which names it has, and in which file and line.
//!
//! Takes no lock. Deliberately absent: values; the compiler has those.

use std::collections::BTreeMap;
use std::fmt;

/// A place in the user's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    file: String,
    line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// What a header has.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    names: BTreeMap<String, Place>,
    structs: BTreeMap<String, Struct>,
}

#[derive(Debug)]
struct Struct {
    place: Place,
    fields: BTreeMap<String, Place>,
}

impl Tree {
    /// Reads what `cc -E -dD` printed.
    pub(crate) fn read(preprocessed: &str) -> Self {
        let mut tree = Self::default();
        let mut place = Place { file: String::new(), line: 0 };
        let mut open: Option<(String, usize)> = None;
        for line in preprocessed.lines() {
            if let Some(marker) = marker(line) {
                place = marker;
                continue;
            }
            tree.line(line, &place, &mut open);
            place.line += 1;
        }
        tree
    }

    fn line(&mut self, line: &str, place: &Place, open: &mut Option<(String, usize)>) {
        if open.is_none()
            && let Some(name) = struct_opened(line)
        {
            let fields = BTreeMap::new();
            self.structs
                .entry(name.clone())
                .or_insert_with(|| Struct { place: place.clone(), fields });
            *open = Some((name, 0));
        }
        for word in words(line.strip_prefix("#define").map_or(line, first_word)) {
            if let Some((name, _)) = open
                && let Some(holder) = self.structs.get_mut(name)
            {
                holder.fields.entry(word.to_owned()).or_insert_with(|| place.clone());
            }
            self.names.entry(word.to_owned()).or_insert_with(|| place.clone());
        }
        if let Some((_, depth)) = open {
            *depth += line.matches('{').count();
            *depth = depth.saturating_sub(line.matches('}').count());
            if *depth == 0 && line.contains('}') {
                *open = None;
            }
        }
    }

    /// Where a macro or enumerator is first named.
    pub(crate) fn name(&self, name: &str) -> Option<&Place> {
        self.names.get(name)
    }

    /// Where a struct is defined.
    pub(crate) fn structure(&self, tag: &str) -> Option<&Place> {
        self.structs.get(tag).map(|found| &found.place)
    }

    /// Where a struct's field is named, by its name in C.
    pub(crate) fn field(&self, tag: &str, field: &str) -> Option<&Place> {
        self.structs.get(tag)?.fields.get(field.split('.').next()?)
    }
}

/// The file and line that the next line comes from: `# LINE "FILE" FLAGS`.
fn marker(line: &str) -> Option<Place> {
    let (number, rest) = line.strip_prefix("# ")?.split_once(' ')?;
    let file = rest.strip_prefix('"')?.rsplit_once('"')?.0;
    Some(Place { file: file.to_owned(), line: number.parse().ok()? })
}

/// The tag of the struct whose definition begins on this line.
fn struct_opened(line: &str) -> Option<String> {
    let (tag, rest) = line.trim_start().strip_prefix("struct ")?.trim_start().split_once(' ')?;
    rest.trim_start().starts_with('{').then(|| tag.to_owned())
}

/// What a `#define` defines.
fn first_word(definition: &str) -> &str {
    words(definition).next().unwrap_or_default()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# 1 \"<stdin>\"\n# 1 \"/x/a.h\" 1\n#define A_B 1\n\
                        enum e {\n C_D = 2,\n};\nstruct s {\n __u32 size;\n union {\n  __u32 one;\n };\n};\n\
                        # 30 \"/x/a.h\"\nstruct s *pointer;\n";

    #[test]
    fn places_are_those_of_the_file() {
        let tree = Tree::read(TEXT);
        let at = |place: Option<&Place>| place.unwrap().to_string();
        assert_eq!(at(tree.name("A_B")), "/x/a.h:1");
        assert_eq!(at(tree.name("C_D")), "/x/a.h:3");
        assert_eq!(at(tree.structure("s")), "/x/a.h:5");
        assert_eq!(at(tree.field("s", "one")), "/x/a.h:8");
        assert_eq!(at(tree.field("s", "size.of")), "/x/a.h:6");
        assert_eq!(at(tree.name("pointer")), "/x/a.h:30");
        assert_eq!(tree.structure("e"), None);
        assert_eq!(tree.field("s", "pointer"), None);
    }
}
