//! `bindery uapi`: printed headers as C and C++ compilers take them, alone and next to the kernel's,
//! and what `--check` finds in them, in changed ones, and in Linux 7.3's where
//! `BINDERY_UAPI_HEADERS` names those.

mod programs;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::{env, fs};

use libtest_mimic::{Arguments, Failed, Trial};
use programs::{BINDERY, Scratch, succeed, told};
use uapi::{Profile, commands_in, constants_in, layouts_in, tag};

fn main() -> ExitCode {
    let mut trials = Vec::new();
    for &profile in Profile::ALL {
        trials.push(trial(format!("{profile} compiles"), move || compiles(profile)));
        trials.push(trial(format!("{profile} holds our numbers"), move || holds(profile)));
        trials.push(trial(format!("{profile} is clean"), move || is_clean(profile)));
    }
    trials.push(trial("differences have their place".to_owned(), differences));
    trials.push(trial("other profiles' names are told".to_owned(), other_profiles));
    trials.push(trial("failures are explained".to_owned(), failures));
    trials.push(match linux_73() {
        Some(folder) => {
            trial("Linux 7.3 is linux-7.3".to_owned(), move || kernel_is_clean(&folder))
        }
        None => Trial::test("Linux 7.3 (skipped: BINDERY_UAPI_HEADERS is not set)", || {
            Err("BINDERY_UAPI_HEADERS is not set".into())
        })
        .with_ignored_flag(true),
    });
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(name: String, run: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || -> Result<(), Failed> {
        run();
        Ok(())
    })
}

const LANGUAGES: [&[&str]; 3] = [
    &["cc", "-x", "c", "-std=c11"],
    &["c++", "-x", "c++", "-std=c++11"],
    &["c++", "-x", "c++", "-std=c++20"],
];

/// Alone, and with the kernel's headers before it, after it and around it: the system's, which may
/// be years old, and Linux 7.3's.
fn compiles(profile: Profile) {
    let scratch = Scratch::new();
    let header = header(&scratch, profile);
    let ours = format!("#include \"{}\"\n", header.display());
    let kernels = "#include <linux/vfio.h>\n#if __has_include(<linux/iommufd.h>)\n\
                   #include <linux/iommufd.h>\n#endif\n";
    // Whatever came first, these are ours.
    let uses = format!(
        "_Static_assert(sizeof(struct vfio_device_info) == 24, \"\");\n\
         _Static_assert(IOMMU_HWPT_ALLOC_PASID == 8, \"\");\n\
         _Static_assert(BINDERY_UAPI_{} == 1, \"\");\n",
        profile.name().to_uppercase().replace(['-', '.'], "_")
    );
    for language in LANGUAGES {
        let assertion = if language[0] == "cc" { "_Static_assert" } else { "static_assert" };
        let uses = uses.replace("_Static_assert", assertion);
        let trees = [None, linux_73()];
        for tree in &trees {
            let options: Vec<String> = tree
                .iter()
                .flat_map(|tree| ["-I".to_owned(), tree.display().to_string()])
                .collect();
            for (before, after) in [("", ""), (kernels, ""), ("", kernels), (kernels, kernels)] {
                accepted(language, &options, &format!("{before}{ours}{after}{ours}{uses}"));
            }
        }
    }
}

fn holds(profile: Profile) {
    let scratch = Scratch::new();
    let header = header(&scratch, profile);
    let mut source = format!("#include <stddef.h>\n#include \"{}\"\n", header.display());
    let mut assert = |what: String| source += &format!("_Static_assert({what}, \"\");\n");
    for layout in layouts_in(profile) {
        let tag = tag(layout);
        assert(format!("sizeof(struct {tag}) == {}", layout.size));
        for field in layout.fields {
            for name in [Some(field.name), field.alias].into_iter().flatten() {
                assert(format!("offsetof(struct {tag}, {name}) == {}", field.offset));
                assert(format!("sizeof(((struct {tag} *)0)->{name}) == {}", field.size));
            }
        }
    }
    for constant in constants_in(profile) {
        let mask = u64::MAX >> (64 - 8 * constant.size);
        assert(format!("({} & {mask:#x}ull) == {:#x}ull", constant.name, constant.value));
    }
    for row in commands_in(profile) {
        assert(format!("{} == {:#x}", row.name, row.request));
    }
    assert!(source.lines().count() > 900, "{source}");
    accepted(LANGUAGES[0], &[], &source);
}

fn is_clean(profile: Profile) {
    let scratch = Scratch::new();
    let header = header(&scratch, profile);
    let printed = succeed(check(&header).args(["--profile", profile.name()]));
    assert!(printed.contains(&format!("as in profile {profile} (")), "{printed}");
    let found = succeed(&mut check(&header));
    assert!(found.contains(&format!("as in profile {profile} (")), "{found}");
    assert!(found.contains("the closest"), "{found}");
}

/// What a tree has changed is told with file and line: a struct, a field, a number; what it lacks,
/// with its name.
fn differences() {
    let scratch = Scratch::new();
    let path = header(&scratch, Profile::Rfc);
    let text = fs::read_to_string(&path).unwrap();
    let changed = text
        .replace("#define IOMMU_VDEVICE_TSM_BIND 1", "#define IOMMU_VDEVICE_TSM_BIND 3")
        .replace(
            "#define IOMMU_VDEVICE_TSM_OP _IO(IOMMUFD_TYPE, 0x95)",
            "#define IOMMU_VDEVICE_TSM_OP _IO(IOMMUFD_TYPE, 0x97)",
        )
        .replace("#define IOMMU_HWPT_DATA_VTD_S1 1\n", "")
        .replace("\t__u32 tvm_arch;\n", "")
        .replace("\t__u32 veventq_depth;\n", "\t__u16 veventq_depth;\n\t__u16 veventq_more;\n");
    let changed: String = changed
        .lines()
        .filter(|line| !line.starts_with("BINDERY_HOLDS("))
        .flat_map(|line| [line, "\n"])
        .collect();
    fs::write(&path, &changed).unwrap();

    let output = check(&path).args(["--profile", "rfc"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let line = |text: &str| changed.lines().position(|line| line.contains(text)).unwrap() + 1;
    let here = path.display();
    let expected = [
        format!("{here}:{}: request IOMMU_VDEVICE_TSM_OP is 0x3b97, not 0x3b95", line("0x97)")),
        format!("{here}:{}: constant IOMMU_VDEVICE_TSM_BIND is 0x3, not 0x1", line("TSM_BIND 3")),
        format!("{here}: constant IOMMU_HWPT_DATA_VTD_S1 is missing: 0x1"),
        format!(
            "{here}:{}: field tvm_arch of struct iommu_vdevice_tsm_req is missing: at byte 12",
            line("struct iommu_vdevice_tsm_req {")
        ),
        format!(
            "{here}:{}: size of struct iommu_veventq_alloc.veventq_depth is 2, not 4",
            line("veventq_depth;")
        ),
    ];
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    for difference in expected {
        assert!(printed.lines().any(|line| line == difference), "{difference} in\n{printed}");
    }
    // Two fields have moved into the place of the one that went; nothing else is told.
    assert!(printed.ends_with("7 differences from profile rfc\n"), "{printed}");
}

fn other_profiles() {
    let scratch = Scratch::new();
    let path = header(&scratch, Profile::Rfc2025_05);
    let output = check(&path).args(["--profile", "rfc-v5-2026-05"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    for difference in [
        "request IOMMU_VDEVICE_TSM_OP is missing: 0x3b95",
        "struct iommu_vdevice_tsm_req is missing: 40 bytes",
        "struct vfio_pci_tsm_bind is not in rfc-v5-2026-05; it is in rfc-2025-05",
        "request IOMMU_VDEVICE_TSM_GUEST_REQUEST is not in rfc-v5-2026-05; it is in rfc-2025-05",
    ] {
        assert!(printed.contains(difference), "{difference} in\n{printed}");
    }
}

fn failures() {
    let scratch = Scratch::new();
    let path = header(&scratch, Profile::Rfc);
    refused(check(&path).env("PATH", "/nonexistent"), "the C compiler `cc` cannot be run: ");
    refused(&mut check(&scratch.path().join("none.h")), "No such file or directory");
    fs::write(&path, "struct {").unwrap();
    refused(&mut check(&path), "does not compile:\n");
    fs::write(&path, "#define SOMETHING_ELSE 1\n").unwrap();
    refused(&mut check(&path), "has neither iommufd's commands nor VFIO's");
}

fn refused(command: &mut Command, reason: &str) {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{}", told(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("bindery: ") && said.contains(reason), "{reason} in\n{said}");
}

fn kernel_is_clean(folder: &Path) {
    for name in ["linux/iommufd.h", "linux/vfio.h"] {
        succeed(check(&folder.join(name)).args(["--profile", "linux-7.3"]));
    }
    let iommufd = folder.join("linux/iommufd.h");
    let found = succeed(&mut check(&iommufd));
    assert!(found.contains("as in profile linux-7.3 ("), "{found}");
    let output = check(&iommufd).args(["--profile", "rfc"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
}

/// Prints the header of a profile into a file.
fn header(scratch: &Scratch, profile: Profile) -> PathBuf {
    let path = scratch.path().join("bindery-uapi.h");
    let text = succeed(Command::new(BINDERY).args(["uapi", "--header", profile.name()]));
    fs::write(&path, text).unwrap();
    path
}

fn check(header: &Path) -> Command {
    let mut command = Command::new(BINDERY);
    command.args(["uapi", "--check"]).arg(header);
    command
}

fn linux_73() -> Option<PathBuf> {
    env::var_os("BINDERY_UAPI_HEADERS").map(PathBuf::from)
}

/// `source` must compile without a warning.
fn accepted(language: &[&str], options: &[String], source: &str) {
    let mut command = Command::new(language[0]);
    command.args(&language[1..]).args(options);
    command.args(["-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-"]);
    let output = fed(&mut command, source);
    assert!(output.status.success(), "{command:?}: {}", told(&output));
}

fn fed(command: &mut Command, input: &str) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("compilers are installed");
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}
