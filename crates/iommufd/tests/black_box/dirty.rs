//! `IOMMU_HWPT_SET_DIRTY_TRACKING` and `IOMMU_HWPT_GET_DIRTY_BITMAP`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use iommufd::Device;
use pci::Dma;
use uapi::iommufd::{HwptGetDirtyBitmap, HwptSetDirtyTracking, hwpt_flags};
use uapi::{CommandId, Errno};

use crate::support::{Client, PAGE, PAGE_BYTES, Platform, READ_ONLY};

const VA: u64 = 0x10_0000;
const IOVA: u64 = 0x40_0000;
const BITMAP: u64 = 0x30_0000;
const PAGES: u64 = 256;
const NO_CLEAR: u32 = 1;

struct Tracked {
    client: Client,
    device: Arc<Device>,
    ioas: u32,
    hwpt: u32,
}

impl Tracked {
    /// 256 pages of writable memory at [`IOVA`], through a page table that logs.
    fn new() -> Self {
        let client = Client::open();
        let device = Platform::new().bind(&client);
        let ioas = client.ioas();
        let hwpt = client.hwpt(device.id(), ioas, hwpt_flags::DIRTY_TRACKING).unwrap();
        device.attach(hwpt).unwrap();
        client.map_at(ioas, IOVA, VA, PAGES * PAGE).unwrap();
        Self { client, device, ioas, hwpt }
    }

    fn enable(&self, flags: u32) -> Result<(), Errno> {
        set(&self.client, self.hwpt, flags)
    }

    /// The numbers of the bits that reading sets, of units of `page_size` from `iova`.
    fn read(&self, flags: u32, iova: u64, length: u64, page_size: u64) -> Vec<u64> {
        let bytes = usize::try_from((length / page_size).div_ceil(8)).unwrap();
        self.client.memory.write(BITMAP, &vec![0; bytes + 1]).unwrap();
        get(&self.client, self.hwpt, flags, [iova, length, page_size, BITMAP]).unwrap();
        let mut seen = vec![0; bytes + 1];
        self.client.memory.read(BITMAP, &mut seen).unwrap();
        assert_eq!(seen[bytes], 0, "past the bitmap");
        let bit = |bit: &u64| seen[usize::try_from(bit / 8).unwrap()] & 1 << (bit % 8) != 0;
        (0..bytes as u64 * 8).filter(bit).collect()
    }

    fn read_all(&self) -> Vec<u64> {
        self.read(0, IOVA, PAGES * PAGE, PAGE)
    }
}

fn set(client: &Client, hwpt_id: u32, flags: u32) -> Result<(), Errno> {
    let argument = HwptSetDirtyTracking { hwpt_id, flags, ..HwptSetDirtyTracking::default() };
    client.call(CommandId::HwptSetDirtyTracking, argument).map(|_| ())
}

fn get(
    client: &Client,
    hwpt_id: u32,
    flags: u32,
    [iova, length, page_size, data]: [u64; 4],
) -> Result<(), Errno> {
    let argument = HwptGetDirtyBitmap {
        hwpt_id,
        flags,
        iova,
        length,
        page_size,
        data,
        ..HwptGetDirtyBitmap::default()
    };
    client.call(CommandId::HwptGetDirtyBitmap, argument).map(|_| ())
}

#[test]
fn writes_are_told_of_once() {
    let it = Tracked::new();
    it.device.write(IOVA, &[1]).unwrap();
    assert_eq!(it.read_all(), [], "not tracked");
    it.enable(1).unwrap();
    it.device.write(IOVA + 5 * PAGE - 1, &[1; 2]).unwrap();
    it.device.write(IOVA + 200 * PAGE, &[1; 3 * PAGE_BYTES]).unwrap();
    it.device.read(IOVA + 9 * PAGE, &mut [0; 5000]).unwrap();
    let dirty = [4, 5, 200, 201, 202];
    assert_eq!(it.read(NO_CLEAR, IOVA, PAGES * PAGE, PAGE), dirty);
    assert_eq!(it.read_all(), dirty);
    assert_eq!(it.read_all(), []);
    it.device.write(IOVA + 7 * PAGE, &[1]).unwrap();
    it.enable(0).unwrap();
    it.device.write(IOVA + 8 * PAGE, &[1]).unwrap();
    assert_eq!(it.read(NO_CLEAR, IOVA, PAGES * PAGE, PAGE), [7], "a stop keeps what was noted");
    it.enable(1).unwrap();
    assert_eq!(it.read_all(), [], "a start does not");
}

#[test]
fn parts_are_read_and_made_clean_alone() {
    let it = Tracked::new();
    it.enable(1).unwrap();
    for page in [0, 3, 60, 61, 200] {
        it.device.write(IOVA + page * PAGE, &[1]).unwrap();
    }
    assert_eq!(it.read(0, IOVA + 3 * PAGE, 58 * PAGE, PAGE), [0, 57]);
    assert_eq!(it.read(NO_CLEAR, IOVA, PAGES * PAGE, PAGE), [0, 61, 200]);
    assert_eq!(it.read(NO_CLEAR, IOVA, PAGES * PAGE, 8 * PAGE), [0, 7, 25], "folded");
    assert_eq!(it.read(NO_CLEAR, IOVA, PAGES * PAGE, PAGE * PAGES), [0]);
    let small = it.read(NO_CLEAR, IOVA + 61 * PAGE, PAGE, 512);
    assert_eq!(small, (0..8).collect::<Vec<_>>(), "units smaller than a page");
    assert_eq!(it.read_all(), [0, 61, 200]);
}

#[test]
fn bits_are_added_to_what_the_client_has_wherever_that_lies() {
    let it = Tracked::new();
    it.enable(1).unwrap();
    it.device.write(IOVA + 11 * PAGE, &[1]).unwrap();
    it.client.memory.write(BITMAP + 3, &[0xf0, 0x01, 0x80]).unwrap();
    get(&it.client, it.hwpt, 0, [IOVA, PAGES * PAGE, PAGE, BITMAP + 3]).unwrap();
    let mut seen = [0; 3];
    it.client.memory.read(BITMAP + 3, &mut seen).unwrap();
    assert_eq!(seen, [0xf0, 0x09, 0x80]);
    it.device.write(IOVA + 11 * PAGE, &[1]).unwrap();
    let lost = get(&it.client, it.hwpt, 0, [IOVA, PAGES * PAGE, PAGE, READ_ONLY.start]);
    assert_eq!(lost, Ok(()), "a bitmap that cannot be written loses its bits");
    assert_eq!(it.read_all(), []);
}

#[test]
fn reading_ends_at_the_first_hole() {
    let it = Tracked::new();
    it.enable(1).unwrap();
    let next = IOVA + (PAGES + 1) * PAGE;
    it.client.map_at(it.ioas, next, VA, PAGE).unwrap();
    it.device.write(IOVA + PAGE, &[1]).unwrap();
    it.device.write(next, &[1]).unwrap();
    assert_eq!(it.read(0, IOVA, (PAGES + 2) * PAGE, PAGE), [1]);
    assert_eq!(it.read(0, IOVA - PAGE, (PAGES + 2) * PAGE, PAGE), [], "a hole at once");
    assert_eq!(it.read(0, next, PAGE, PAGE), [0], "it was not made clean");
    it.client.map_at(it.ioas, next - PAGE, VA, PAGE).unwrap();
    it.device.write(next - PAGE, &[1; PAGE_BYTES + 1]).unwrap();
    assert_eq!(it.read(0, IOVA, (PAGES + 2) * PAGE, PAGE), [256, 257], "several areas");
}

#[test]
fn what_is_mapped_anew_is_clean() {
    let it = Tracked::new();
    it.enable(1).unwrap();
    it.device.write(IOVA + 3 * PAGE, &[1]).unwrap();
    it.client.unmap_all(it.ioas).unwrap();
    it.client.map_at(it.ioas, IOVA + 2 * PAGE, VA, 2 * PAGE).unwrap();
    assert_eq!(it.read(0, IOVA + 2 * PAGE, 2 * PAGE, PAGE), []);
    it.device.write(IOVA + 2 * PAGE, &[1]).unwrap();
    assert_eq!(it.read(0, IOVA + 2 * PAGE, 2 * PAGE, PAGE), [0]);
}

#[test]
fn each_page_table_has_a_log_of_its_own() {
    let it = Tracked::new();
    let other = it.client.hwpt(it.device.id(), it.ioas, hwpt_flags::DIRTY_TRACKING).unwrap();
    it.enable(1).unwrap();
    set(&it.client, other, 1).unwrap();
    it.device.write(IOVA, &[1]).unwrap();
    it.device.attach(other).unwrap();
    it.device.write(IOVA + PAGE, &[1]).unwrap();
    assert_eq!(it.read_all(), [0]);
    let other = Tracked { hwpt: other, ..it };
    assert_eq!(other.read_all(), [1]);
}

#[test]
fn checks_come_in_the_order_of_linux() {
    let it = Tracked::new();
    let plain = it.client.hwpt(it.device.id(), it.ioas, 0).unwrap();
    assert_eq!(set(&it.client, 77, 2), Err(Errno::EOPNOTSUPP));
    assert_eq!(set(&it.client, it.ioas, 1), Err(Errno::ENOENT));
    assert_eq!(set(&it.client, plain, 0), Err(Errno::EOPNOTSUPP));
    let get = |hwpt, numbers: [u64; 3]| {
        let [iova, length, page_size] = numbers;
        get(&it.client, hwpt, 0, [iova, length, page_size, BITMAP])
    };
    assert_eq!(get(77, [0; 3]), Err(Errno::ENOENT));
    assert_eq!(get(plain, [1, 0, 0]), Err(Errno::EINVAL), "no length");
    assert_eq!(get(plain, [u64::MAX, 2, 0]), Err(Errno::EOVERFLOW));
    for numbers in [[1, PAGE, PAGE], [0, 1, PAGE], [0, PAGE, 0], [PAGE, 2 * PAGE, 2 * PAGE]] {
        assert_eq!(get(plain, numbers), Err(Errno::EINVAL), "{numbers:?}");
    }
    assert_eq!(get(plain, [0, PAGE, PAGE]), Err(Errno::EOPNOTSUPP));
    assert_eq!(get(it.hwpt, [0, PAGE, PAGE]), Ok(()), "nothing is mapped there");
}

/// Whoever reads the log and then looks at the page sees what was written, or is told again.
#[test]
fn no_write_is_lost_between_two_readings() {
    let it = Tracked::new();
    it.enable(1).unwrap();
    let stop = AtomicBool::new(false);
    let mut copied = [0_u64; 256];
    let look = |copied: &mut [u64], reader: &Tracked| {
        for page in reader.read_all() {
            let mut value = [0; 8];
            reader.client.memory.read(VA + page * PAGE, &mut value).unwrap();
            copied[usize::try_from(page).unwrap()] = u64::from_ne_bytes(value);
        }
    };
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = [0_u64; 256];
            let mut turn = 0_u64;
            while !stop.load(SeqCst) || turn < 2000 {
                turn += 1;
                let page = turn * 97 % PAGES;
                it.device.write(IOVA + page * PAGE, &turn.to_ne_bytes()).unwrap();
                written[usize::try_from(page).unwrap()] = turn;
            }
            written
        });
        for _ in 0..200 {
            look(&mut copied, &it);
        }
        stop.store(true, SeqCst);
        writer.join().unwrap()
    });
    look(&mut copied, &it);
    assert_eq!(copied, written);
}
