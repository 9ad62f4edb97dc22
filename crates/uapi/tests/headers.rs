//! The ABI of this crate against the kernel's own headers.
//!
//! A C probe, built from the crate's layouts, prints sizes, offsets and numbers as a C compiler
//! sees them in `/usr/include/linux` or in the directory that `BINDERY_UAPI_HEADERS` names. Headers
//! older than Linux 7.3 know less: a struct, command or constant that they lack is shown as ignored
//! with that reason, and of a struct that has grown since, the older fields are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, ExitCode, Stdio};

use bindery_uapi::{self as uapi, COMMANDS, Constant, Field, Layout};
use libtest_mimic::{Arguments, Failed, Trial};

const HEADERS: [&str; 3] = ["linux/iommufd.h", "linux/vfio.h", "linux/kvm.h"];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = match (compiler(None).arg("--version").output(), Headers::read()) {
        (Err(reason), _) => vec![skipped("all", &format!("no C compiler `cc`: {reason}"))],
        (Ok(_), Err(reason)) => vec![Trial::test("headers can be read", || Err(reason.into()))],
        (Ok(_), Ok(headers)) => trials(&headers),
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trials(headers: &Headers) -> Vec<Trial> {
    let probed = headers.probe();
    let mut trials = Vec::new();
    for layout in uapi::layouts() {
        let name = format!("struct {}", layout.name);
        trials.push(match headers.fields(layout) {
            Some(known) => {
                let probed = probed.clone();
                Trial::test(name, move || compare_struct(layout, &known, &probed?))
            }
            None => skipped(&name, "not in these headers"),
        });
    }
    for (name, value, size) in numbers() {
        trials.push(if headers.words.contains(name) {
            let probed = probed.clone();
            Trial::test(name, move || compare_number(name, value, size, &probed?))
        } else {
            skipped(name, "not in these headers")
        });
    }
    trials
}

/// A trial that shows up as ignored, and fails if somebody insists on running it.
fn skipped(what: &str, reason: &str) -> Trial {
    let message = format!("cannot be compared: {reason}");
    Trial::test(format!("{what} (skipped: {reason})"), || Err(message.into()))
        .with_ignored_flag(true)
}

/// Every number with a C name: name, value, bytes that count.
fn numbers() -> impl Iterator<Item = (&'static str, u64, usize)> {
    let mut commands = BTreeMap::new();
    for row in COMMANDS {
        commands.insert(row.name, u64::from(row.request));
    }
    let commands = commands.into_iter().map(|(name, request)| (name, request, 4));
    commands.chain(uapi::constants().map(|&Constant { name, value, size, .. }| (name, value, size)))
}

fn compare_struct(
    layout: &Layout,
    known: &[&'static Field],
    probed: &BTreeMap<String, u64>,
) -> Result<(), Failed> {
    let seen = |what: &str| probed.get(what).copied().ok_or(format!("{what} was not probed"));
    for field in known {
        let path = format!("{}.{}", layout.name, field.name);
        expect(&format!("offset of {path}"), seen(&format!("{path}@"))?, field.offset as u64)?;
        expect(&format!("size of {path}"), seen(&format!("{path}#"))?, field.size as u64)?;
    }
    let size = seen(&format!("{}#", layout.name))?;
    let grown = known.len() < layout.fields.len() && size < layout.size as u64;
    if grown { Ok(()) } else { expect(layout.name, size, layout.size as u64) }
}

fn compare_number(
    name: &str,
    value: u64,
    size: usize,
    probed: &BTreeMap<String, u64>,
) -> Result<(), Failed> {
    let seen = probed.get(name).ok_or(format!("{name} was not probed"))?;
    let unused_bits = 64 - 8 * size;
    expect(name, seen << unused_bits >> unused_bits, value)
}

fn expect(what: &str, in_headers: u64, here: u64) -> Result<(), Failed> {
    if in_headers == here {
        return Ok(());
    }
    Err(format!("{what}: {in_headers:#x} in the headers, {here:#x} here").into())
}

/// The kernel's headers after the C preprocessor, which keeps `#define` lines.
struct Headers {
    directory: Option<PathBuf>,
    text: String,
    words: BTreeSet<String>,
}

impl Headers {
    fn read() -> Result<Self, String> {
        let directory = std::env::var_os("BINDERY_UAPI_HEADERS").map(PathBuf::from);
        if let Some(directory) = directory.as_deref()
            && !directory.join("linux/vfio.h").is_file()
        {
            return Err(format!(
                "BINDERY_UAPI_HEADERS: no linux/vfio.h in {}",
                directory.display()
            ));
        }
        let output = compiler(directory.as_deref())
            .args(["-E", "-dD", "-P", "-x", "c", "-"])
            .feed(includes())?;
        let text = String::from_utf8_lossy(&output).into_owned();
        let words = words(&text).map(str::to_owned).collect();
        Ok(Self { directory, text, words })
    }

    /// The fields of a struct that the headers know; `None` if they do not know the struct.
    fn fields(&self, layout: &'static Layout) -> Option<Vec<&'static Field>> {
        let start = self.text.find(&format!("struct {} {{", layout.name))?;
        let body: BTreeSet<_> = words(block(&self.text[start..])).collect();
        let known =
            |field: &&Field| field.name.split('.').next().is_some_and(|first| body.contains(first));
        Some(layout.fields.iter().filter(known).collect())
    }

    /// Asks the compiler for everything that the headers know.
    fn probe(&self) -> Result<BTreeMap<String, u64>, Failed> {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let program = directory.join(format!("uapi-probe-{}", std::process::id()));
        let built = compiler(self.directory.as_deref())
            .args(["-x", "c", "-", "-o"])
            .arg(&program)
            .feed(self.probe_source());
        let printed = built.and_then(|_| Program::new(&program).feed(String::new()));
        std::fs::remove_file(&program).ok();
        let printed = printed.map_err(|error| format!("C probe: {error}"))?;
        Ok(String::from_utf8_lossy(&printed)
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(what, value)| Some((what.to_owned(), value.parse().ok()?)))
            .collect())
    }

    fn probe_source(&self) -> String {
        let mut source = includes();
        source +=
            "#include <stddef.h>\n#include <stdio.h>\n#include <sys/ioctl.h>\nint main(void) {\n";
        let mut print = |what: &str, expression: &str| {
            source += &format!("printf(\"{what} %llu\\n\", (unsigned long long)({expression}));\n");
        };
        for layout in uapi::layouts() {
            let Some(known) = self.fields(layout) else { continue };
            let name = layout.name;
            print(&format!("{name}#"), &format!("sizeof(struct {name})"));
            for Field { name: field, .. } in known {
                print(&format!("{name}.{field}@"), &format!("offsetof(struct {name}, {field})"));
                print(
                    &format!("{name}.{field}#"),
                    &format!("sizeof(((struct {name} *)0)->{field})"),
                );
            }
        }
        for (name, ..) in numbers().filter(|(name, ..)| self.words.contains(*name)) {
            print(name, name);
        }
        source + "return 0; }\n"
    }
}

fn includes() -> String {
    HEADERS
        .map(|header| format!("#if __has_include(<{header}>)\n#include <{header}>\n#endif\n"))
        .concat()
}

fn compiler(headers: Option<&Path>) -> Program {
    let mut compiler = Program::new("cc");
    if let Some(directory) = headers {
        compiler.arg("-I").arg(directory);
    }
    compiler
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The text up to the brace that closes the first one in it.
fn block(text: &str) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return &text[..at],
            '}' => depth -= 1,
            _ => {}
        }
    }
    text
}

trait Feed {
    /// Runs the program with `input` on its standard input and returns what it printed.
    fn feed(&mut self, input: String) -> Result<Vec<u8>, String>;
}

impl Feed for Program {
    fn feed(&mut self, input: String) -> Result<Vec<u8>, String> {
        let mut run = || {
            let mut child =
                self.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
            // A program that ends early explains itself on stderr, better than a broken pipe does.
            child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
            child.wait_with_output()
        };
        let output = run().map_err(|error: std::io::Error| error.to_string())?;
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}
