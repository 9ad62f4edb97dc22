//! What people and programs write: platforms, options, paths, scenarios; and calls to be told of in words.

use bindery_fuzz::input::Output;
use bindery_fuzz::overlay_path::Question;
use bindery_fuzz::trace_decode::Told;
use uapi::vfio::IrqSet;
use uapi::{Command, CommandId};
use zerocopy::IntoBytes;

use crate::write;

pub(crate) fn platform() {
    let bare: String = supervisor::platform::DEFAULT_TOML
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect();
    write("platform", "default", bare.as_bytes());
    for (name, text) in [
        ("type", "[settings]\nuapi = 3\n"),
        ("value", "[settings]\nuapi = 'rfx'\nclose_order = \"linux-7.3\"\n"),
        ("span", "[iommu]\naperture = { first = 0x1000, last = 0xfff }\n"),
        ("function", "[[function]]\naddress = 'b1d0:02:00.0'\nmodel = \"dma-engine\"\ngroup = 7\n"),
        ("syntax", "[settings\r\n\tuapi = \"\u{e4}\"\n"),
    ] {
        write("platform", name, text.as_bytes());
    }
    for (name, text) in [
        ("plain", "dma-engine"),
        ("keys", "dma-engine,bar0=32,tee=on,serial=0x10,vendor=0x1b36,device=17,vfs=2"),
        ("address", "dma-engine,address=b1d0:09:00.0,group=7,driver=none\ndma-engine"),
        ("wrong", "dma-engine,\nnvme\ndma-engine,bar0=16\ndma-engine,tee=on,tee=on\n\u{1f600}=,"),
    ] {
        write("device_option", name, text.as_bytes());
    }
}

pub(crate) fn overlay_path() {
    const READ: u32 = 0;
    const WRITE: u32 = 1;
    const DIRECTORY: u32 = 0o200_000;
    const PATH: u32 = 0o10_000_000;
    let device = "sys/bus/pci/devices/b1d0:01:00.0";
    let attributes =
        ["vendor", "config", "resource", "iommu_group/type", "driver_override", "uevent"];
    let attributes: Vec<_> = attributes.map(|name| (READ, format!("{device}/{name}"), "")).into();
    save_questions("attributes", &attributes);
    save_questions(
        "directories",
        &[
            (DIRECTORY, "dev/vfio/devices".to_owned(), ""),
            (DIRECTORY, format!("{device}/vfio-dev"), ""),
            (PATH, "sys/class/vfio-dev/vfio0/device/../driver".to_owned(), ""),
            (READ, "sys/kernel//iommu_groups/./1000/devices/".to_owned(), ""),
            (READ, "dev/vfio/devices/vfio0".to_owned(), ""),
            (READ, "dev/iommu".to_owned(), ""),
        ],
    );
    let driver = "sys/bus/pci/drivers/vfio-pci";
    save_questions(
        "writes",
        &[
            (WRITE, format!("{driver}/unbind"), "b1d0:02:00.0"),
            (WRITE, format!("{device}/driver_override"), "vfio-pci\n"),
            (WRITE, format!("{driver}/bind"), "b1d0:02:00.0\n"),
            (WRITE, format!("{driver}/new_id"), "1234 b1d0"),
            (WRITE, format!("{device}/reset"), "1"),
            (WRITE, format!("{device}/sriov_numvfs"), "0"),
            (WRITE, "sys/bus/pci/drivers_probe".to_owned(), "b1d0:02:00.0"),
        ],
    );
}

fn save_questions(name: &str, questions: &[(u32, String, &str)]) {
    let mut out = Output::default();
    for (flags, path, written) in questions {
        let (path, written) = (path.clone().into_bytes(), written.as_bytes().to_vec());
        Question { flags: *flags, path, written }.encode(&mut out);
    }
    write("overlay_path", name, &out.into_bytes());
}

pub(crate) fn trace_decode() {
    const EINVAL: u8 = 22;
    let told = |call, id: CommandId| Told {
        call,
        row: id as u8,
        request: 0,
        errno: 0,
        offset: 0x4000_0700_0000_0004,
        count: 4,
        sent: vec![1; Command::of(id).size as usize],
        returned: vec![2; Command::of(id).size as usize],
    };
    let vectors = IrqSet { argsz: 28, flags: 0x24, index: 2, start: 0, count: 2 };
    let told_vectors = Told {
        sent: [vectors.as_bytes(), &[9, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]].concat(),
        errno: EINVAL,
        ..told(0, CommandId::DeviceSetIrqs)
    };
    let mut out = Output::default();
    out.put(&[0]);
    for line in [
        told(0, CommandId::IoasMap),
        told_vectors,
        told(0, CommandId::DeviceFeature),
        told(0, CommandId::HwptAlloc),
        Told { request: 0x3bff, ..told(0, CommandId::DeviceReset) },
        Told { sent: b"/dev/iommu".to_vec(), ..told(1, CommandId::IoasMap) },
        told(2, CommandId::DeviceReset),
        told(3, CommandId::DeviceReset),
        told(4, CommandId::DeviceReset),
    ] {
        line.encode(&mut out);
    }
    write("trace_decode", "calls", &out.into_bytes());
}

pub(crate) fn words() {
    let file = "title = \"a race\"\nnumber = \"S12\"\nexpect = \"safe\"\n[settings]\nbind = \"slow\"\n\
                [setup]\ncalls = [\"tsm_bind vdev0\"]\n[[thread]]\ncalls = [\"destroy vdev0 -> ok\"]\n";
    for (name, text) in [
        ("file", file),
        ("line", "tsm_bind vdev0; tsm_unbind vdev0 | destroy vdev0 -> ok, EBUSY | close vfio0"),
        ("fault", "bind=slow:500*2"),
        ("wrong", "close vdev0 -> ok, EFOO | ; |\u{e4}"),
    ] {
        write("words", name, text.as_bytes());
    }
}
