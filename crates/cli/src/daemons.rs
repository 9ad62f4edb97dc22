//! Programs that hand their work to a daemon outside the process tree, where nobody is supervised.

use std::ffi::OsStr;
use std::path::Path;

/// What to say of `program`, where it is such a program.
pub(crate) fn warning(program: &[impl AsRef<OsStr>]) -> Option<String> {
    let words: Vec<_> = program.iter().map(|word| word.as_ref().to_string_lossy()).collect();
    let (name, arguments) = effective(&words)?;
    let advice = match name {
        "docker" | "nerdctl" => "run bindery inside the container: docker run … bindery run -- …",
        "podman" if arguments.contains(&"--remote") || arguments.contains(&"-r") => {
            "use podman without --remote, or run bindery inside the container"
        }
        "virsh" | "virt-install" => "start the VMM itself: bindery run -- qemu-system-x86_64 …",
        "systemd-run" if !arguments.contains(&"--scope") => {
            "add --scope, or run systemd-run … bindery run -- …"
        }
        "systemctl" | "machinectl" => "put bindery run -- into the unit's ExecStart=",
        "flatpak" | "snap" | "lxc" | "incus" => "run bindery inside the sandbox",
        "at" | "batch" | "crontab" => "put bindery run -- into the job itself",
        _ => return None,
    };
    Some(format!(
        "warning: {name} may start programs outside this process tree, where Bindery's devices \
         do not exist; {advice}"
    ))
}

/// The program that does the work, behind `sudo` and `env`, and its arguments.
fn effective(words: &[impl AsRef<str>]) -> Option<(&str, Vec<&str>)> {
    let mut words = words.iter().map(AsRef::as_ref);
    let mut name = base_name(words.next()?);
    while matches!(name, "sudo" | "env" | "nohup" | "setsid") {
        name = base_name(words.find(|word| !word.starts_with('-') && !word.contains('='))?);
    }
    Some((name, words.collect()))
}

fn base_name(path: &str) -> &str {
    Path::new(path).file_name().and_then(OsStr::to_str).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_daemons_are_known() {
        for program in [
            &["docker", "run", "x"][..],
            &["/usr/bin/docker", "run"],
            &["sudo", "-n", "docker", "run"],
            &["env", "A=b", "systemd-run", "vmm"],
            &["podman", "--remote", "run"],
            &["virsh", "start", "vm"],
        ] {
            assert!(warning(program).is_some(), "{program:?}");
        }
    }

    #[test]
    fn what_stays_in_the_tree_is_not_warned_of() {
        for program in [
            &["qemu-system-x86_64", "docker"][..],
            &["systemd-run", "--scope", "vmm"],
            &["podman", "run"],
            &["sudo"],
            &[],
        ] {
            assert_eq!(warning(program), None, "{program:?}");
        }
    }
}
