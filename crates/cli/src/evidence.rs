//! `bindery evidence` and `bindery verify`: what a connected device has shown of itself, as files, and those
//! files judged without the device.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use ::spdm::algorithm::Suite;
use ::spdm::certificate::{DeviceName, LeafUsage, Trust};
use ::spdm::crypto::aws_lc::AwsLc;
use ::spdm::crypto::hash;
use clap::Args;
use peer::evidence::{self, Evidence, Expected, Finding};
use peer::overhear::Check;
use serde::{Deserialize, Serialize};
use supervisor::control::{self, AskError, EvidenceRow};

use crate::exit;
use crate::terminal::{Style, Tone, print};

/// Write the evidence about a connected device into files.
///
/// What it said when its session was made (vca.bin), its certificates (certificates.bin), its signed
/// measurements (measurements.bin) and, of an interface that is locked, the report (report.bin); and
/// evidence.json, which says what each is, with a digest. With --nonce, the device measures itself afresh
/// and signs over it. `bindery verify` judges the files.
///
/// Within a run of Bindery that run is meant, unless --pid names another; elsewhere the only one of yours.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The function, such as b1d0:01:00.0
    function: String,
    /// Where to put the files; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// 32 bytes in hexadecimal, or `random`
    #[arg(long, value_name = "NONCE")]
    nonce: Option<String>,
    /// Ask this process; bindery ls shows them
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
}

/// Judge evidence without the device.
///
/// Says in words what the files hold: algorithms, certificates, measurements, interface report; what was
/// verified, what does not hold, and what cannot be known from files.
///
/// Exits with 0 where everything that could be checked holds, 1 where something does not, 2 where there is
/// nothing to judge.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The directory that `bindery evidence` wrote
    directory: PathBuf,
    /// The root that the certificates must lead to, in DER; without it, the one that they show
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// The name that the certificate must have: pci:Vendor=… or dmtf:ACME:WIDGET:1
    #[arg(long, value_name = "NAME", value_parser = crate::spdm::device_name)]
    name: Option<DeviceName>,
    /// The nonce that the measurements must be signed over, in hexadecimal
    #[arg(long, value_name = "NONCE")]
    nonce: Option<String>,
}

/// What the files are: evidence.json.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    function: String,
    /// When they were written, in seconds since 1970.
    written_at_s: u64,
    objects: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    kind: String,
    file: String,
    generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
    sha384: String,
}

const MANIFEST: &str = "evidence.json";
const FILES: [(&str, &str); 4] = [
    ("VCA", "vca.bin"),
    ("CERT", "certificates.bin"),
    ("MEASUREMENT", "measurements.bin"),
    ("INTERFACE_REPORT", "report.bin"),
];

pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { function, out, nonce, pid } = arguments;
    let nonce = match nonce.as_deref() {
        Some("random") => match random_nonce() {
            Ok(nonce) => Some(nonce),
            Err(error) => return fail(exit::OURS, &error),
        },
        _ => nonce,
    };
    match control::evidence(crate::tsm::chosen(pid), function.clone(), nonce.clone()) {
        Ok(rows) => match write_all(&out, &function, rows) {
            Ok(text) => {
                print(&text);
                if let Some(nonce) = nonce {
                    print(&format!("measurements signed over {nonce}\n"));
                }
                ExitCode::SUCCESS
            }
            Err(error) => fail(exit::OURS, &error),
        },
        Err(error @ AskError::Refused(_)) => fail(1, &format!("{function}: {error}")),
        Err(error) => fail(exit::OURS, &error.to_string()),
    }
}

fn random_nonce() -> Result<String, String> {
    use ::spdm::crypto::Entropy;
    let mut nonce = [0; 32];
    let filled = ::spdm::crypto::aws_lc::SystemEntropy.fill(&mut nonce);
    filled.map(|()| hex(&nonce)).map_err(|fault| fault.to_string())
}

fn fail(status: u8, what: &str) -> ExitCode {
    eprintln!("bindery: {what}");
    ExitCode::from(status)
}

fn write_all(out: &Path, function: &str, rows: Vec<EvidenceRow>) -> Result<String, String> {
    let cannot = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    fs::create_dir_all(out).map_err(|error| cannot(out, error))?;
    let mut objects = Vec::new();
    for EvidenceRow { kind, generation, nonce, bytes } in rows {
        let named = FILES.iter().find(|(known, _)| *known == kind);
        let file =
            named.map_or_else(|| format!("{}.bin", kind.to_lowercase()), |(_, f)| (*f).into());
        let bytes = unhex(&bytes).ok_or("the run answers something that is no evidence")?;
        let path = out.join(&file);
        fs::write(&path, &bytes).map_err(|error| cannot(&path, error))?;
        objects.push(Entry { kind, file, generation, nonce, sha384: digest(&bytes) });
    }
    let written_at_s =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let lines = objects.iter().map(|object| format!("{:<18} {}\n", object.kind, object.file));
    let text: String = lines.collect();
    let manifest = Manifest { function: function.to_owned(), written_at_s, objects };
    let json = serde_json::to_string_pretty(&manifest).map_err(|error| error.to_string())?;
    let path = out.join(MANIFEST);
    fs::write(&path, json + "\n").map_err(|error| cannot(&path, error))?;
    Ok(text)
}

pub(crate) fn verify(arguments: &Verify) -> ExitCode {
    match judged(arguments) {
        Ok((text, holds)) => {
            print(&text);
            ExitCode::from(u8::from(!holds))
        }
        Err(mistake) => fail(exit::USAGE, &mistake),
    }
}

fn judged(arguments: &Verify) -> Result<(String, bool), String> {
    let read = |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let path = arguments.directory.join(MANIFEST);
    let manifest: Manifest = serde_json::from_slice(&read(&path)?)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut changed = Vec::new();
    for Entry { kind, file, sha384, .. } in &manifest.objects {
        if file.contains(['/', '\\']) {
            return Err(format!("{}: {file:?} is no name of a file in there", path.display()));
        }
        let bytes = read(&arguments.directory.join(file))?;
        if digest(&bytes) != *sha384 {
            changed.push(file.clone());
        }
        files.push((kind.clone(), bytes));
    }
    let find = |wanted: &str| {
        files.iter().find(|(kind, _)| kind == wanted).map(|(_, bytes)| bytes.as_slice())
    };
    let evidence = Evidence {
        vca: find("VCA"),
        chain: find("CERT"),
        measurements: find("MEASUREMENT"),
        report: find("INTERFACE_REPORT"),
    };
    let roots = match &arguments.root {
        Some(path) => Some(vec![read(path)?]),
        None => None,
    };
    let nonce = match &arguments.nonce {
        Some(text) => {
            let nonce = unhex(text).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            Some(nonce.ok_or("a nonce is 32 bytes in hexadecimal")?)
        }
        None => None,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = arguments.name.clone().unwrap_or(DeviceName::Any);
    let trust = Trust { roots, now, usage: LeafUsage::Responder, name };
    let expected = Expected { trust, nonce, measurements: Vec::new() };
    let findings = evidence::judge(&AwsLc, &evidence, &expected);
    let holds = evidence::holds(&findings) && changed.is_empty();
    Ok((told(&manifest, &findings, &changed, holds), holds))
}

fn told(manifest: &Manifest, findings: &[Finding], changed: &[String], holds: bool) -> String {
    let style = Style::of_stdout();
    let mut lines = vec![format!("evidence about {}", manifest.function)];
    for Finding { about, words, checks } in findings {
        lines.push(style.paint(Tone::Bold, about));
        lines.extend(words.iter().map(|word| format!("    {word}")));
        lines.extend(checks.iter().map(|check| match check {
            Check::Holds(what) => style.paint(Tone::Green, format!("  holds: {what}")),
            Check::Fails(what) => style.paint(Tone::Red, format!("  DOES NOT HOLD: {what}")),
            Check::NotMade(why) => style.paint(Tone::Yellow, format!("  not known: {why}")),
        }));
    }
    lines.extend(changed.iter().map(|file| {
        style.paint(Tone::Red, format!("{file} is not what evidence.json has the digest of"))
    }));
    let verdict =
        if holds { "nothing speaks against this device" } else { "this evidence DOES NOT HOLD" };
    lines.push(verdict.into());
    lines.join("\n") + "\n"
}

fn digest(bytes: &[u8]) -> String {
    hex(&hash(&AwsLc, Suite::P384Sha384, bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks_exact(2);
    pairs.map(|pair| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()).collect()
}
