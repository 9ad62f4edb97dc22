//! The overlay of the default platform, asked as the front end asks it, over a made-up machine.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bindery_supervisor::machine::Machine;
use bindery_supervisor::overlay::{Attribute, Node, Opened, Overlay};
use bindery_supervisor::platform::Platform;
use pci::{Address, DmaFault, Interrupt, Notices};
use proptest::prelude::*;
use rustix::fs::OFlags;
use uapi::Errno;
use vfio::{BarPages, DeviceFile};

struct Silent;

impl Notices for Silent {
    fn dma_fault(&self, _: Address, _: &DmaFault) {}
    fn interrupt_unheard(&self, _: Address, _: Interrupt) {}
}

/// A machine that has one PCI device, some classes, and a device node of its own.
struct Host {
    root: PathBuf,
}

impl Host {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("host-{}-{number}", std::process::id());
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        for directory in [
            "dev/vfio",
            "sys/block",
            "sys/bus/pci/devices",
            "sys/bus/pci/drivers/nvme",
            "sys/class/net",
            "sys/dev/char",
            "sys/devices/pci0000:00/0000:00:01.0",
            "sys/devices/virtual/misc",
            "sys/kernel/iommu_groups",
            "sys/module/nvme",
        ] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::write(root.join("sys/devices/pci0000:00/0000:00:01.0/vendor"), "0x8086\n").unwrap();
        fs::write(root.join("dev/vfio/vfio"), "").unwrap();
        symlink(
            "../../../devices/pci0000:00/0000:00:01.0",
            root.join("sys/bus/pci/devices/0000:00:01.0"),
        )
        .unwrap();
        Self { root }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).unwrap();
    }
}

/// An overlay with what must outlive it.
struct Laid {
    overlay: Overlay,
    machine: Machine,
    host: Host,
}

impl Laid {
    fn new() -> Self {
        Self::of(&Platform::default())
    }

    fn of(platform: &Platform) -> Self {
        let host = Host::new();
        let machine = Machine::build(platform, Arc::new(Silent));
        let overlay = Overlay::over(&host.root, &machine).unwrap();
        Self { overlay, machine, host }
    }

    fn open(&self, path: &str, flags: OFlags) -> Opened {
        self.overlay.open(path.as_bytes(), u64::from(flags.bits()))
    }

    fn file(&self, path: &str, flags: OFlags) -> File {
        let opened = self.open(path, flags);
        let told = name(&opened);
        let Opened::File(file) = opened else { panic!("{path}: {told}") };
        File::from(file)
    }

    fn bytes(&self, path: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.file(path, OFlags::RDONLY).read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn text(&self, path: &str) -> String {
        String::from_utf8(self.bytes(path)).unwrap()
    }

    fn refused(&self, path: &str, flags: OFlags) -> Errno {
        let opened = self.open(path, flags);
        let Opened::Refused(errno) = opened else { panic!("{path}: {}", name(&opened)) };
        errno
    }

    fn attribute(&self, path: &str) -> (Arc<dyn Attribute>, OwnedFd) {
        let opened = self.open(path, OFlags::WRONLY | OFlags::TRUNC);
        let told = name(&opened);
        let Opened::Attribute { attribute, content } = opened else { panic!("{path}: {told}") };
        (attribute, content)
    }

    fn write(&self, path: &str, text: &str) -> Result<usize, Errno> {
        self.attribute(path).0.write(text.as_bytes())
    }

    fn link(&self, path: &str) -> String {
        let text = self.overlay.readlink(path.as_bytes()).unwrap_or_else(|| panic!("{path}"));
        String::from_utf8(text.unwrap_or_else(|errno| panic!("{path}: {errno}"))).unwrap()
    }

    fn list(&self, path: &str) -> BTreeSet<String> {
        let directory = self.file(path, OFlags::RDONLY | OFlags::DIRECTORY);
        names(directory.into())
    }

    fn is_there(&self, path: &str) -> bool {
        matches!(self.overlay.metadata(path.as_bytes(), false), Some(Ok(_)))
    }
}

/// What a listing of an open directory gives.
fn names(directory: OwnedFd) -> BTreeSet<String> {
    rustix::fs::Dir::read_from(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
        .filter(|name| name != "." && name != "..")
        .collect()
}

fn name(opened: &Opened) -> String {
    match opened {
        Opened::NotOurs => "not ours".to_owned(),
        Opened::Refused(errno) => format!("refused {errno}"),
        Opened::Node(node) => format!("{node:?}"),
        Opened::File(_) => "a file".to_owned(),
        Opened::Attribute { .. } => "an attribute".to_owned(),
    }
}

const FIRST: &str = "/sys/bus/pci/devices/b1d0:01:00.0";
const SECOND: &str = "/sys/bus/pci/devices/b1d0:02:00.0";
const DRIVER: &str = "/sys/bus/pci/drivers/vfio-pci";

#[test]
fn a_client_finds_its_device_node() {
    let laid = Laid::new();
    let entries = laid.list(&format!("{FIRST}/vfio-dev"));
    assert_eq!(entries.into_iter().collect::<Vec<_>>(), ["vfio0"]);
    assert_eq!(laid.text(&format!("{FIRST}/vfio-dev/vfio0/dev")), "511:0\n");
    for path in ["/dev/vfio/devices/vfio0", "/dev/char/511:0"] {
        assert!(matches!(laid.open(path, OFlags::RDWR), Opened::Node(Node::Vfio(0))), "{path}");
    }
    assert!(matches!(laid.open("/dev/iommu", OFlags::RDWR), Opened::Node(Node::Iommu)));
    let node = laid.overlay.metadata(b"/dev/vfio/devices/vfio3", true).unwrap().unwrap();
    assert_eq!((node.mode, node.device_number, node.size), (0o020_600, (511, 3), 0));
    assert_eq!(node.uid, rustix::process::geteuid().as_raw());
}

#[test]
fn attributes_say_what_config_space_says() {
    let laid = Laid::new();
    let config = laid.bytes(&format!("{FIRST}/config"));
    assert_eq!(config.len(), 4096);
    let vendor = u16::from_le_bytes([config[0], config[1]]);
    assert_eq!(laid.text(&format!("{FIRST}/vendor")), format!("{vendor:#06x}\n"));
    let class = u32::from_le_bytes([config[9], config[10], config[11], 0]);
    assert_eq!(laid.text(&format!("{FIRST}/class")), format!("{class:#08x}\n"));
    assert_eq!(laid.text(&format!("{FIRST}/sriov_numvfs")), "2\n");
    assert_eq!(laid.link(&format!("{FIRST}/virtfn1")), "../b1d0:01:00.2");
    assert_eq!(laid.link("/sys/bus/pci/devices/b1d0:01:00.1/physfn"), "../b1d0:01:00.0");
    // A virtual function's own register reads as all ones; the kernel knows better.
    assert_eq!(laid.bytes("/sys/bus/pci/devices/b1d0:01:00.1/config")[..2], [0xff, 0xff]);
    let vf = laid.text("/sys/bus/pci/devices/b1d0:01:00.1/vendor");
    assert_eq!(vf, format!("{vendor:#06x}\n"));
    let stat = laid.overlay.metadata(format!("{FIRST}/vendor").as_bytes(), true);
    let stat = stat.unwrap().unwrap();
    assert_eq!((stat.mode, stat.size), (0o100_444, 4096));
}

#[test]
fn resources_follow_the_bars() {
    let laid = Laid::new();
    let text = laid.text(&format!("{FIRST}/resource"));
    let lines: Vec<Vec<u64>> = text
        .lines()
        .map(|line| {
            let number = |word: &str| u64::from_str_radix(&word[2..], 16).unwrap();
            line.split(' ').map(number).collect()
        })
        .collect();
    assert_eq!(lines.len(), 13);
    assert!(text.lines().all(|line| line.len() == 56), "{text}");
    let function = &laid.machine.devices[0].function;
    for (index, line) in lines.iter().take(6).enumerate() {
        let Some(bar) = function.bar(index) else {
            assert_eq!(line, &[0, 0, 0]);
            continue;
        };
        assert_eq!(line[1] - line[0] + 1, bar.size);
        assert_eq!(line[0] % bar.size, 0);
        let mut register = [0; 4];
        function.config_read(0x10 + 4 * u16::try_from(index).unwrap(), &mut register);
        assert_eq!(u64::from(u32::from_le_bytes(register) & !0xf), line[0]);
    }
    // The virtual functions' part, line 7, is what they have between them.
    let vfs = ["b1d0:01:00.1", "b1d0:01:00.2"].map(|vf| {
        let text = laid.text(&format!("/sys/bus/pci/devices/{vf}/resource"));
        text.lines().next().unwrap()[..37].to_owned()
    });
    assert_eq!(vfs[0][..18], text.lines().nth(7).unwrap()[..18]);
    assert_eq!(vfs[1][19..], text.lines().nth(7).unwrap()[19..37]);
    let bridge = laid.text("/sys/bus/pci/devices/b1d0:00:01.0/resource");
    assert_eq!(bridge.lines().count(), 17);
    let window = bridge.lines().nth(14).unwrap();
    assert!(window[..18] <= text[..18] && window[19..37] >= text[19..37], "{window}");
}

#[test]
fn links_lead_where_they_say() {
    let laid = Laid::new();
    let directory = "/sys/devices/pcib1d0:00/b1d0:00:01.0/b1d0:01:00.0";
    assert_eq!(laid.link(FIRST), "../../../devices/pcib1d0:00/b1d0:00:01.0/b1d0:01:00.0");
    assert_eq!(laid.link(&format!("{FIRST}/driver")), "../../../../bus/pci/drivers/vfio-pci");
    let id = laid.machine.devices[0].group_id;
    let group = laid.link(&format!("{FIRST}/iommu_group"));
    assert_eq!(group, format!("../../../../kernel/iommu_groups/{id}"));
    for path in [
        format!("{FIRST}/driver/b1d0:01:00.0/vendor"),
        format!("{FIRST}/iommu_group/devices/b1d0:01:00.0/vendor"),
        format!("{FIRST}/iommu/devices/b1d0:01:00.0/vendor"),
        "/sys/class/vfio-dev/vfio0/device/vendor".to_owned(),
        "/sys/dev/char/511:0/device/vendor".to_owned(),
        format!("{directory}/subsystem/devices/b1d0:01:00.0/vendor"),
    ] {
        assert_eq!(laid.text(&path), laid.text(&format!("{directory}/vendor")), "{path}");
    }
    assert_eq!(
        laid.text(&format!("/sys/kernel/iommu_groups/{id}/reserved_regions")),
        "0x00000000fee00000 0x00000000feefffff msi\n"
    );
    let (pair, other) = (&laid.machine.devices[4], &laid.machine.devices[5]);
    let members = laid.list(&format!("/sys/kernel/iommu_groups/{}/devices", pair.group_id));
    assert_eq!(members, BTreeSet::from([pair.address.to_string(), other.address.to_string()]));
    assert_eq!(laid.overlay.readlink(directory.as_bytes()), Some(Err(Errno::EINVAL)));
}

#[test]
fn what_the_machine_has_stays_in_sight() {
    let laid = Laid::new();
    let devices = laid.list("/sys/bus/pci/devices");
    assert!(devices.contains("0000:00:01.0") && devices.contains("b1d0:01:00.0"), "{devices:?}");
    assert!(
        laid.list("/sys/bus/pci/drivers")
            .is_superset(&["nvme", "vfio-pci"].map(str::to_owned).into())
    );
    assert!(laid.list("/sys/class").is_superset(&["net", "vfio-dev"].map(str::to_owned).into()));
    assert!(laid.list("/dev/vfio").is_superset(&["vfio", "devices"].map(str::to_owned).into()));
    for path in [
        "/",
        "/sys",
        "/dev",
        "/sys/block",
        "/sys/class/net",
        "/sys/bus/pci/devices/0000:00:01.0",
        "/sys/bus/pci/devices/0000:00:01.0/vendor",
        "/sys/bus/pci/devices/none",
        "/etc/passwd",
        "relative",
    ] {
        assert!(matches!(laid.open(path, OFlags::RDONLY), Opened::NotOurs), "{path}");
        assert_eq!(laid.overlay.metadata(path.as_bytes(), true), None, "{path}");
        assert_eq!(laid.overlay.readlink(path.as_bytes()), None, "{path}");
        assert_eq!(laid.overlay.access(path.as_bytes(), 0), None, "{path}");
    }
}

#[test]
fn a_function_may_stand_where_the_machine_has_one() {
    let mut platform = Platform::parse("p.toml", "").unwrap();
    platform.add_device("dma-engine,address=0000:00:01.0,vendor=0x1b36,driver=none").unwrap();
    platform.add_device("dma-engine,address=0000:00:02.0").unwrap();
    let laid = Laid::of(&platform);
    assert_eq!(laid.text("/sys/bus/pci/devices/0000:00:01.0/vendor"), "0x1b36\n");
    assert!(!laid.is_there("/sys/bus/pci/devices/0000:00:01.0/driver"));
    assert_eq!(laid.link("/sys/class/vfio-dev/vfio1/device"), "../../../0000:00:02.0");
    assert!(!laid.is_there("/dev/vfio/devices/vfio0"), "bound to nothing");
    let both = laid.list("/sys/devices/pci0000:00");
    assert!(both.is_superset(&["0000:00:01.0", "0000:00:02.0"].map(str::to_owned).into()));
    assert_eq!(laid.write("/sys/bus/pci/devices/0000:00:01.0/driver_override", "vfio-pci"), Ok(8));
    assert_eq!(laid.write(&format!("{DRIVER}/bind"), "0000:00:01.0"), Ok(12));
    let node = laid.open("/dev/vfio/devices/vfio0", OFlags::RDWR);
    assert!(matches!(node, Opened::Node(Node::Vfio(0))));
}

#[test]
fn a_way_through_our_names_to_the_machines_files_can_be_gone() {
    let laid = Laid::new();
    let through = "/sys/class/vfio-dev/vfio0/subsystem/../net";
    assert!(laid.list(through).is_empty());
    let stat = laid.overlay.metadata(through.as_bytes(), true).unwrap().unwrap();
    let real = laid.host.root.join("sys/class/net").metadata().unwrap();
    assert_eq!((stat.dev, stat.ino, stat.mode), (real.dev(), real.ino(), real.mode()));
    let device = format!("{FIRST}/subsystem/devices/0000:00:01.0");
    assert_eq!(laid.link(&device), "../../../devices/pci0000:00/0000:00:01.0");
    assert_eq!(laid.text(&format!("{device}/vendor")), "0x8086\n");
    assert_eq!(laid.overlay.access(format!("{device}/vendor").as_bytes(), 4), Some(Ok(())));
    let none = laid.overlay.metadata(format!("{device}/none").as_bytes(), true);
    assert_eq!(none, Some(Err(Errno::ENOENT)));
    // Nothing that the program might not be allowed to do is done for it.
    let written = laid.open(&format!("{device}/vendor"), OFlags::WRONLY);
    assert!(matches!(written, Opened::NotOurs));
    let absent = laid.overlay.metadata(format!("{FIRST}/none").as_bytes(), true);
    assert_eq!(absent, None, "not there, says the kernel");
}

#[test]
fn an_open_directory_leads_to_the_machines_own_files_too() {
    let laid = Laid::new();
    let directory = laid.file("/sys/bus/pci/devices", OFlags::RDONLY | OFlags::DIRECTORY);
    let text = rustix::fs::readlinkat(&directory, "0000:00:01.0", Vec::new()).unwrap();
    assert_eq!(text.to_str(), Ok("../../../devices/pci0000:00/0000:00:01.0"));
    let vendor = rustix::fs::openat(
        &directory,
        "0000:00:01.0/vendor",
        OFlags::RDONLY,
        rustix::fs::Mode::empty(),
    );
    let mut read = String::new();
    File::from(vendor.unwrap()).read_to_string(&mut read).unwrap();
    assert_eq!(read, "0x8086\n");
    assert!(laid.host.root.exists());
}

#[test]
fn an_open_directory_is_the_one_that_stat_tells() {
    let laid = Laid::new();
    for path in ["/sys/bus/pci/devices", FIRST, "/sys/class/vfio-dev", "/dev/vfio/devices"] {
        let open = laid.file(path, OFlags::RDONLY | OFlags::DIRECTORY);
        let stat = laid.overlay.metadata(path.as_bytes(), true).unwrap().unwrap();
        let fstat = open.metadata().unwrap();
        assert_eq!((stat.dev, stat.ino), (fstat.dev(), fstat.ino()), "{path}");
        assert_eq!(stat.mode, 0o040_755);
    }
    // Attributes too, for as long as they say the same.
    let path = format!("{FIRST}/vendor");
    let stat = laid.overlay.metadata(path.as_bytes(), true).unwrap().unwrap();
    let fstat = laid.file(&path, OFlags::RDONLY).metadata().unwrap();
    assert_eq!((stat.dev, stat.ino), (fstat.dev(), fstat.ino()));
    let directory = laid.file(FIRST, OFlags::RDONLY);
    let fd = std::os::fd::AsRawFd::as_raw_fd(&directory);
    let real = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
    let ours = laid.overlay.path_of_directory(&real).unwrap();
    assert_eq!(ours, Path::new("/sys/devices/pcib1d0:00/b1d0:00:01.0/b1d0:01:00.0"));
    let shared = Path::new("/sys/bus/pci/devices");
    assert_eq!(laid.overlay.path_of_directory(shared).as_deref(), Some(shared));
    for path in ["/", "/sys/block", FIRST, "/tmp"] {
        let shared = laid.overlay.path_of_directory(Path::new(path));
        assert!(shared.is_none() || path == "/", "{path}");
    }
}

#[test]
fn opens_are_refused_as_linux_refuses_them() {
    let laid = Laid::new();
    let vendor = format!("{FIRST}/vendor");
    for (path, flags, errno) in [
        (vendor.as_str(), OFlags::WRONLY, Errno::EACCES),
        (&vendor, OFlags::RDWR, Errno::EACCES),
        (&format!("{FIRST}/config"), OFlags::RDWR, Errno::EACCES),
        (&format!("{FIRST}/reset"), OFlags::RDONLY, Errno::EACCES),
        (&format!("{DRIVER}/bind"), OFlags::RDWR, Errno::EACCES),
        (&vendor, OFlags::RDONLY | OFlags::DIRECTORY, Errno::ENOTDIR),
        (&format!("{vendor}/"), OFlags::RDONLY, Errno::ENOTDIR),
        (&format!("{vendor}/x"), OFlags::RDONLY, Errno::ENOTDIR),
        (&vendor, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, Errno::EEXIST),
        (FIRST, OFlags::RDONLY | OFlags::NOFOLLOW, Errno::ELOOP),
        (FIRST, OFlags::RDWR, Errno::EISDIR),
        (FIRST, OFlags::RDWR | OFlags::TMPFILE, Errno::EOPNOTSUPP),
        ("/dev/iommu", OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, Errno::EEXIST),
        ("/dev/iommu", OFlags::RDWR | OFlags::DIRECTORY, Errno::ENOTDIR),
    ] {
        assert_eq!(laid.refused(path, flags), errno, "{path} {flags:?}");
    }
    assert!(matches!(laid.open(FIRST, OFlags::PATH | OFlags::DIRECTORY), Opened::File(_)));
    assert!(matches!(laid.open("/dev/iommu", OFlags::PATH | OFlags::RDWR), Opened::Node(_)));
    assert_eq!(laid.refused(FIRST, OFlags::PATH | OFlags::NOFOLLOW), Errno::ELOOP);
    let read = laid.overlay.access(vendor.as_bytes(), 4);
    let run = laid.overlay.access(vendor.as_bytes(), 1);
    assert_eq!((read, run), (Some(Ok(())), Some(Err(Errno::EACCES))));
    assert_eq!(laid.overlay.access(vendor.as_bytes(), 8), Some(Err(Errno::EINVAL)));
}

#[test]
fn a_write_that_nobody_takes_fails() {
    let laid = Laid::new();
    let (_, content) = laid.attribute(&format!("{FIRST}/driver_override"));
    assert_eq!(rustix::io::write(&content, b"vfio-pci"), Err(rustix::io::Errno::PERM));
}

#[test]
fn unbinding_and_binding_move_the_names() {
    let laid = Laid::new();
    let names = [
        format!("{SECOND}/driver"),
        format!("{SECOND}/vfio-dev/vfio3"),
        format!("{DRIVER}/b1d0:02:00.0"),
        "/sys/class/vfio-dev/vfio3".to_owned(),
        "/sys/dev/char/511:3".to_owned(),
        "/dev/char/511:3".to_owned(),
        "/dev/vfio/devices/vfio3".to_owned(),
    ];
    let all = |there: bool| names.iter().all(|name| laid.is_there(name) == there);
    assert!(all(true) && laid.list("/dev/vfio/devices").contains("vfio3"));
    assert!(laid.text(&format!("{SECOND}/uevent")).starts_with("DRIVER=vfio-pci\n"));
    assert_eq!(laid.write(&format!("{DRIVER}/unbind"), "b1d0:02:00.0\n"), Ok(13));
    assert!(all(false) && !laid.list("/dev/vfio/devices").contains("vfio3"));
    assert!(!laid.list(SECOND).contains("driver"));
    assert!(laid.text(&format!("{SECOND}/uevent")).starts_with("PCI_CLASS="));
    assert_eq!(laid.write(&format!("{DRIVER}/unbind"), "b1d0:02:00.0"), Err(Errno::ENODEV));
    // driver_override is vfio-pci from the start; without it only an ID helps.
    assert_eq!(laid.text(&format!("{SECOND}/driver_override")), "vfio-pci\n");
    assert_eq!(laid.write(&format!("{SECOND}/driver_override"), "\n"), Ok(1));
    assert_eq!(laid.text(&format!("{SECOND}/driver_override")), "(null)\n");
    assert_eq!(laid.write(&format!("{DRIVER}/bind"), "b1d0:02:00.0"), Err(Errno::ENODEV));
    assert_eq!(laid.write(&format!("{SECOND}/driver_override"), "vfio-pci"), Ok(8));
    assert_eq!(laid.write(&format!("{DRIVER}/bind"), "b1d0:02:00.0"), Ok(12));
    assert!(all(true) && laid.list("/dev/vfio/devices").contains("vfio3"));
    assert_eq!(laid.write(&format!("{DRIVER}/bind"), "b1d0:02:00.0"), Err(Errno::EBUSY));
    for nonsense in ["", "0000:00:01.0", "b1d0:00:01.0", "\u{1f600}", "b1d0:02:00.0 "] {
        assert_eq!(laid.write(&format!("{DRIVER}/bind"), nonsense), Err(Errno::ENODEV));
        assert_eq!(laid.write(&format!("{DRIVER}/unbind"), nonsense), Err(Errno::ENODEV));
    }
}

#[test]
fn ids_bind_what_they_match() {
    let laid = Laid::new();
    let id = |name: &str| laid.text(&format!("{SECOND}/{name}")).trim().to_owned();
    let ids = format!("{} {}", id("vendor"), id("device"));
    assert_eq!(laid.write(&format!("{SECOND}/driver_override"), "\n"), Ok(1));
    assert_eq!(laid.write(&format!("{DRIVER}/unbind"), "b1d0:02:00.0"), Ok(12));
    assert_eq!(laid.write(&format!("{DRIVER}/new_id"), "1234"), Err(Errno::EINVAL));
    assert_eq!(laid.write(&format!("{DRIVER}/new_id"), &ids), Ok(ids.len()));
    assert!(laid.is_there(&format!("{SECOND}/driver")));
    assert_eq!(laid.write(&format!("{DRIVER}/new_id"), &ids), Err(Errno::EEXIST));
    assert_eq!(laid.write(&format!("{DRIVER}/remove_id"), &ids), Ok(ids.len()));
    assert_eq!(laid.write(&format!("{DRIVER}/remove_id"), &ids), Err(Errno::ENODEV));
    assert!(laid.is_there(&format!("{SECOND}/driver")), "removing an ID unbinds nothing");
}

#[test]
fn attributes_of_a_function_take_what_the_kernel_takes() {
    let laid = Laid::new();
    let at = |name: &str| format!("{FIRST}/{name}");
    for (name, text, answer) in [
        ("reset", "1\n", Ok(2)),
        ("reset", "0", Err(Errno::EINVAL)),
        ("reset", "yes", Err(Errno::EINVAL)),
        ("sriov_numvfs", "2", Ok(1)),
        ("sriov_numvfs", "3", Err(Errno::ERANGE)),
        ("sriov_numvfs", "65536", Err(Errno::EINVAL)),
        ("sriov_numvfs", "1", Err(Errno::EBUSY)),
        ("sriov_numvfs", "-1", Err(Errno::EINVAL)),
        ("sriov_numvfs", "", Err(Errno::EINVAL)),
        ("enable", "1", Err(Errno::EBUSY)),
        ("enable", "x", Err(Errno::EINVAL)),
        ("d3cold_allowed", "0", Ok(1)),
        ("msi_bus", "1", Ok(1)),
        ("msi_bus", "0", Err(Errno::EPERM)),
        ("uevent", "change\n", Ok(7)),
        ("uevent", "dance", Err(Errno::EINVAL)),
    ] {
        assert_eq!(laid.write(&at(name), text), answer, "{name} {text:?}");
    }
    assert_eq!(laid.text(&at("d3cold_allowed")), "0\n");
    assert_eq!(laid.write(&format!("{DRIVER}/unbind"), "b1d0:01:00.0"), Ok(12));
    assert_eq!(laid.write(&at("sriov_numvfs"), "0"), Err(Errno::ENOENT), "no driver");
    assert_eq!(
        laid.write(&at("sriov_numvfs"), "2"),
        Ok(1),
        "no driver is needed to change nothing"
    );
    assert_eq!(laid.text(&at("enable")), "0\n");
    assert_eq!(laid.write(&at("enable"), "0"), Err(Errno::EIO));
    assert_eq!(laid.write(&at("enable"), "1"), Ok(1));
    assert_eq!(laid.text(&at("enable")), "1\n");
}

/// Everything below a directory: links by their text, attributes by their mode.
fn census(laid: &Laid, path: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut ahead = vec![path.to_owned()];
    while let Some(path) = ahead.pop() {
        for name in laid.list(&path) {
            let path = format!("{path}/{name}");
            let stat = laid.overlay.metadata(path.as_bytes(), false).unwrap().unwrap();
            all.insert(match stat.mode & 0o170_000 {
                0o120_000 => format!("{path} -> {}", laid.link(&path)),
                _ => format!("{path} {:o}", stat.mode),
            });
            if stat.mode & 0o170_000 == 0o040_000 {
                ahead.push(path);
            }
        }
    }
    all
}

const NUMVFS: &str = "/sys/bus/pci/devices/b1d0:01:00.0/sriov_numvfs";
const VF: &str = "/sys/bus/pci/devices/b1d0:01:00.1";

#[test]
fn virtual_functions_go_and_come_back_the_same() {
    let laid = Laid::new();
    let root = "/sys/devices/pcib1d0:00";
    let before = census(&laid, root);
    let group = laid.link(&format!("{VF}/iommu_group"));
    let group = format!("/sys/kernel/iommu_groups/{}", group.rsplit('/').next().unwrap());
    let names = [
        VF,
        &group,
        "/dev/vfio/devices/vfio1",
        "/dev/char/511:1",
        "/sys/class/vfio-dev/vfio1",
        &format!("{FIRST}/virtfn0"),
        &format!("{FIRST}/iommu/devices/b1d0:01:00.1"),
        &format!("{DRIVER}/b1d0:01:00.1"),
    ];
    let all = |there: bool| names.iter().all(|name| laid.is_there(name) == there);
    assert!(all(true));
    assert_eq!(laid.write(NUMVFS, "0\n"), Ok(2));
    assert!(all(false));
    assert_eq!(laid.text(NUMVFS), "0\n");
    assert!(!laid.list("/sys/bus/pci/devices").contains("b1d0:01:00.1"));
    assert!(census(&laid, root).iter().all(|line| !line.contains("01:00.1")));
    assert_eq!(laid.write(&format!("{DRIVER}/bind"), "b1d0:01:00.1"), Err(Errno::ENODEV));
    let config = laid.bytes(&format!("{FIRST}/config"));
    assert_eq!(sriov_registers(&config), (0, 0));

    assert_eq!(laid.write(NUMVFS, "1"), Ok(1));
    assert!(all(true));
    assert_eq!(laid.text(NUMVFS), "1\n");
    assert!(!laid.is_there("/sys/bus/pci/devices/b1d0:01:00.2"));
    assert_eq!(laid.write(NUMVFS, "2"), Err(Errno::EBUSY));
    assert_eq!(laid.write(NUMVFS, "0"), Ok(1));
    assert_eq!(laid.write(NUMVFS, "2"), Ok(1));
    assert_eq!(census(&laid, root), before);
    assert_eq!(sriov_registers(&laid.bytes(&format!("{FIRST}/config"))), (0x9, 2));
    assert!(matches!(laid.open("/dev/vfio/devices/vfio1", OFlags::RDWR), Opened::Node(_)));
    assert_eq!(laid.bytes(&format!("{VF}/config")).len(), 4096);
}

/// Control and NumVFs of the SR-IOV capability in a function's config space.
fn sriov_registers(config: &[u8]) -> (u16, u16) {
    let word = |at: usize| u16::from_le_bytes([config[at], config[at + 1]]);
    let mut at = 0x100;
    while word(at) != 0x10 {
        at = usize::from(word(at + 2) >> 4);
    }
    (word(at + 0x8), word(at + 0x10))
}

#[test]
fn a_function_whose_driver_was_taken_comes_back_with_it() {
    let laid = Laid::new();
    assert_eq!(laid.write(&format!("{DRIVER}/unbind"), "b1d0:01:00.1"), Ok(12));
    assert_eq!(laid.write(&format!("{VF}/driver_override"), "\n"), Ok(1));
    assert_eq!(laid.write(NUMVFS, "0"), Ok(1));
    assert_eq!(laid.write(NUMVFS, "2"), Ok(1));
    assert_eq!(laid.link(&format!("{VF}/driver")), "../../../../bus/pci/drivers/vfio-pci");
}

#[test]
fn taking_functions_waits_for_who_has_them_open_and_for_nobody_else() {
    let laid = Laid::new();
    let device = |number: usize| Arc::clone(&laid.machine.devices[number].vfio);
    let open = |number| DeviceFile::open(&device(number), BarPages::default());
    let file = open(1).unwrap();
    std::thread::scope(|scope| {
        let write = scope.spawn(|| laid.write(NUMVFS, "0"));
        while laid.is_there("/dev/vfio/devices/vfio2") {
            std::thread::yield_now();
        }
        // All are told at once, not one after another.
        assert!(!laid.is_there("/dev/vfio/devices/vfio1"));
        assert!(!laid.is_there(&format!("{FIRST}/virtfn0")));
        assert!(laid.is_there(&format!("{VF}/driver")), "the driver has it until it is closed");
        assert_eq!(laid.text(NUMVFS), "2\n");
        assert_eq!(laid.write(&format!("{DRIVER}/bind"), "b1d0:01:00.1"), Err(Errno::ENODEV));
        assert!(open(1).is_err(), "who has looked the node up before is too late");
        assert_eq!(laid.write(&format!("{DRIVER}/unbind"), "b1d0:02:00.0"), Ok(12));
        assert_eq!(laid.text(&format!("{FIRST}/vendor")).len(), 7);
        assert!(!write.is_finished());
        file.release();
        assert_eq!(write.join().unwrap(), Ok(1));
    });
    assert!(!laid.is_there(VF));
    assert_eq!(laid.write(NUMVFS, "2"), Ok(1));
    assert!(open(1).is_ok());
}

#[test]
fn a_reset_keeps_what_the_kernel_keeps() {
    let laid = Laid::new();
    let before = laid.bytes(&format!("{SECOND}/config"));
    assert!(before[0x10..0x18].iter().any(|byte| *byte & 0xf0 != 0), "its BAR has an address");
    assert_eq!(laid.write(&format!("{SECOND}/reset"), "1"), Ok(1));
    let after = laid.bytes(&format!("{SECOND}/config"));
    assert_eq!(before[..0x40], after[..0x40]);
}

#[test]
fn nothing_is_left_behind() {
    let laid = Laid::new();
    let directory = laid.file(FIRST, OFlags::RDONLY);
    let fd = std::os::fd::AsRawFd::as_raw_fd(&directory);
    let real = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
    let top = real.ancestors().find(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("bindery-overlay-"))
    });
    let top = top.unwrap().to_owned();
    assert_eq!(fs::metadata(&top).unwrap().mode() & 0o777, 0o700);
    // A directory that a killed run left: nobody holds its lock. Other tests look for such ones too.
    let own = std::process::id();
    let made = top.with_file_name(format!("left-by-a-killed-run-{own}"));
    let left = top.with_file_name(format!("bindery-overlay-{own}-left"));
    fs::create_dir_all(made.join("root/sys")).unwrap();
    fs::rename(made, &left).unwrap();
    let other = Laid::new();
    other.list(FIRST);
    let begun = Instant::now();
    while left.exists() {
        assert!(begun.elapsed() < Duration::from_secs(10), "nobody removes it");
    }
    // Not by name, which another test may take as soon as it is gone.
    let links = File::open(&top).unwrap();
    assert_ne!(links.metadata().unwrap().nlink(), 0);
    drop(laid);
    assert_eq!(links.metadata().unwrap().nlink(), 0);
}

proptest! {
    #[test]
    fn no_path_and_no_flag_panics(
        parts in prop::collection::vec(
            prop_oneof![
                Just("sys"), Just("dev"), Just("bus"), Just("pci"), Just("devices"), Just(".."),
                Just("."), Just(""), Just("b1d0:01:00.0"), Just("driver"), Just("vfio-pci"),
                Just("class"), Just("iommu_group"), Just("vfio0"), Just("vendor"), Just("\u{e4}"),
            ],
            0..12,
        ),
        raw in prop::collection::vec(any::<u8>(), 0..40),
        flags in any::<u64>(),
        mode in any::<u32>(),
    ) {
        thread_local! {
            static LAID: Laid = Laid::new();
        }
        let path = format!("/{}", parts.join("/"));
        LAID.with(|laid| {
            for path in [path.as_bytes(), &raw] {
                let _any = laid.overlay.open(path, flags);
                let stat = laid.overlay.metadata(path, true);
                let access = laid.overlay.access(path, 0);
                // Both follow the path to the same end.
                assert_eq!(stat.is_some(), access.is_some());
                let link = laid.overlay.readlink(path);
                let kind = laid.overlay.metadata(path, false).and_then(Result::ok);
                let is_link = kind.is_some_and(|kind| kind.mode & 0o170_000 == 0o120_000);
                assert_eq!(matches!(link, Some(Ok(_))), is_link);
                let _any = laid.overlay.access(path, mode);
            }
        });
    }
}
