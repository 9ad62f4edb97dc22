//! The C compiler: what it makes of a header, and what a program built on the header prints.
//!
//! Takes no lock. Deliberately absent: what is asked of the header.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{env, fs, io, process};

use thiserror::Error;

/// Why nothing can be said about a header.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// There is no `cc`.
    #[error("the C compiler `cc` cannot be run: {0}")]
    NoCompiler(io::Error),
    /// The header is not there.
    #[error("{path}: {reason}")]
    Unreadable { path: String, reason: io::Error },
    /// The compiler refuses it.
    #[error("{path} does not compile:\n{told}")]
    Refused { path: String, told: String },
    /// It has nothing that could be compared.
    #[error("{path} has neither iommufd's commands nor VFIO's")]
    Foreign { path: String },
    /// What the compiler made cannot be run.
    #[error("a program built on the header cannot be run: {0}")]
    NotRun(io::Error),
}

/// `cc`, with the options under which a header compiles.
pub(crate) struct Compiler {
    options: Vec<String>,
    include: String,
}

impl Compiler {
    /// Finds the options: first the header's own tree before the system's headers; then the
    /// system's alone, with the kernel's annotations defined away, as a header needs that was never
    /// installed.
    pub(crate) fn of(header: &Path) -> Result<Self, Failure> {
        let unreadable =
            |reason| Failure::Unreadable { path: header.display().to_string(), reason };
        let header = fs::canonicalize(header).map_err(unreadable)?;
        fs::File::open(&header).map_err(unreadable)?;
        let include = format!("#include \"{}\"\n", header.display());
        let annotations = ["-D__counted_by(x)=", "-D__user=", "-D__force="].map(str::to_owned);
        let attempts = [tree_of(&header), annotations.to_vec()];
        let mut told = String::new();
        for options in attempts {
            let compiler = Self { options, include: include.clone() };
            match compiler.compile("", &["-fsyntax-only"])? {
                Ok(_) => return Ok(compiler),
                Err(said) if told.is_empty() => told = said,
                Err(_) => {}
            }
        }
        Err(Failure::Refused { path: header.display().to_string(), told })
    }

    /// The header after the preprocessor, with line markers and `#define`s.
    pub(crate) fn preprocessed(&self) -> Result<String, Failure> {
        let output = self.compile("", &["-E", "-dD"])?;
        output
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .map_err(|told| Failure::Refused { path: "the header".to_owned(), told })
    }

    /// The values of C expressions, `None` for one that the compiler does not take.
    pub(crate) fn values(&self, expressions: &[String]) -> Result<Vec<Option<u64>>, Failure> {
        let mut refused = BTreeSet::new();
        let program = Scratch::new();
        let arguments = ["-w", "-fmax-errors=0", "-o", program.text()];
        while let Err(told) = self.compile(&source(expressions, &refused), &arguments)? {
            let before = refused.len();
            refused.extend(lines_named(&told, expressions.len()));
            if refused.len() == before {
                return Err(Failure::Refused { path: "a program on the header".to_owned(), told });
            }
        }
        let output = Command::new(program.text()).output().map_err(Failure::NotRun)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut printed = text.lines().filter_map(|line| line.parse().ok());
        let value = |index| if refused.contains(&index) { None } else { printed.next() };
        Ok((0..expressions.len()).map(value).collect())
    }

    /// What the compiler wrote to stdout, or what it said against the program.
    fn compile(&self, body: &str, arguments: &[&str]) -> Result<Result<Vec<u8>, String>, Failure> {
        let mut command = Command::new("cc");
        command.args(["-x", "c", "-std=gnu11"]).args(&self.options).args(arguments).arg("-");
        let output =
            feed(&mut command, &format!("{}{body}", self.include)).map_err(Failure::NoCompiler)?;
        let told = || String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(if output.status.success() { Ok(output.stdout) } else { Err(told()) })
    }
}

/// The option that makes the tree of `…/linux/NAME.h` come first.
fn tree_of(header: &Path) -> Vec<String> {
    match header.parent() {
        Some(folder) if folder.ends_with("linux") => {
            let root = folder.parent().map(|root| root.display().to_string());
            root.map(|root| vec!["-I".to_owned(), root]).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

/// Marks the program's lines, so that complaints name expressions.
const MARK: &str = "bindery-probe";

/// A program that prints each expression's value, but for those refused.
fn source(expressions: &[String], refused: &BTreeSet<usize>) -> String {
    let mut source = "#include <stddef.h>\n#include <stdio.h>\n#include <sys/ioctl.h>\n\
                      int main(void) {\n"
        .to_owned();
    let wanted = expressions.iter().enumerate().filter(|(index, _)| !refused.contains(index));
    for (index, expression) in wanted {
        source += &format!("#line {} \"{MARK}\"\n", index + 1);
        source += &format!("printf(\"%llu\\n\", (unsigned long long)({expression}));\n");
    }
    source + "return 0; }\n"
}

/// The indexes of the expressions that a compiler's complaints name.
fn lines_named(told: &str, expressions: usize) -> impl Iterator<Item = usize> + '_ {
    told.lines().filter_map(move |line| {
        let (number, _) = line.strip_prefix(MARK)?.strip_prefix(':')?.split_once(':')?;
        let index = number.parse::<usize>().ok()?.checked_sub(1)?;
        (index < expressions && line.contains("error")).then_some(index)
    })
}

fn feed(command: &mut Command, input: &str) -> io::Result<Output> {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.env("LC_ALL", "C").spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A compiler that ends early explains itself on stderr, better than a broken pipe does.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output()
}

/// Where a program is built, gone with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        Self(env::temp_dir().join(format!("bindery-uapi-{}", process::id())))
    }

    fn text(&self) -> &str {
        self.0.to_str().unwrap_or("bindery-uapi-probe")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_name_expressions() {
        let told = "<stdin>:3:1: error: x\nbindery-probe:2:40: error: no such\n\
                    bindery-probe:2:1: note: once\nbindery-probe:9:1: error: beyond\n";
        assert_eq!(lines_named(told, 3).collect::<Vec<_>>(), [1]);
    }
}
