//! What guests do: requests about an interface of theirs, and page tables.

use bindery_fuzz::guest::Asked;
use bindery_fuzz::input::Output;

use crate::write;

pub(crate) fn guest() {
    let ask = |op: u8, payload: &[u8], room| Asked { arch: 0, op, room, payload: payload.to_vec() };
    let state = |state: u32| ask(1, &state.to_le_bytes(), 0);
    let whole_report = [3_u32.to_le_bytes(), [0; 4], [0; 4], [0; 4]].concat();
    let requests = [
        state(1),
        ask(6, &3_u32.to_le_bytes(), 4),
        ask(4, &whole_report, 256),
        state(2),
        ask(0, &[0_u64, 0x1000, 0xc000_0000].map(u64::to_le_bytes).concat(), 0),
        ask(7, &[], 4),
        ask(5, &[3_u64, 1, 0x1000].map(u64::to_le_bytes).concat(), 0),
        ask(8, &[], 8),
        state(0),
    ];
    let mut out = Output::default();
    requests.iter().for_each(|request| request.encode(&mut out));
    write("guest", "life", &out.into_bytes());
}

/// Tables 0 to 3 that lead to page 4, and to 2 MiB; accesses through them, one before they are there.
pub(crate) fn guest_tables() {
    const NEST: [u8; 4] = [0, 0, 0b10, 0];
    let entry = |table: u8, index: u8, target: u8| [3, index << 4 | table, target];
    let access = |how: u8, [low, high]: [u8; 2], through: [u8; 3]| {
        [&[5, how], &[low, high][..], &through].concat()
    };
    let mut steps = Output::default();
    steps.put(&[0b10]);
    steps.put(&NEST);
    steps.put(&access(1 | 8, [0x10, 0], [0; 3]));
    for table in 0..4 {
        steps.put(&entry(table, 0, table + 1));
    }
    steps.put(&entry(2, 1, 0x80));
    steps.put(&access(1 | 8, [0x10, 0], [0; 3]));
    steps.put(&access(0xfc, [0xf0, 0xf], [0, 0x10, 0]));
    steps.put(&[1]);
    steps.put(&[0; 48]);
    steps.put(&[2, 0x84]);
    steps.put(&access(8, [0x10, 0], [0; 3]));
    write("guest_tables", "four-levels", &steps.into_bytes());
}

/// A descriptor in page 0, and tables 1 to 4 that lead to page 5, to 2 MiB, and so from the upper half; what the guest is
/// told, commands, and a page that is gone.
pub(crate) fn guest_streams() {
    const NEST: [u8; 3] = [0, 0, 7];
    let word = |table: u8, index: u8, target: u8| [3, index << 4 | table, target];
    let access = |how: u8, [low, high]: [u8; 2], through: [u8; 3]| {
        [&[6, how], &[low, high][..], &through].concat()
    };
    let mut steps = Output::default();
    steps.put(&[0]);
    steps.put(&NEST);
    steps.put(&access(1 | 8, [0x10, 0], [0; 3]));
    steps.put(&[5, 80]);
    steps.put(&word(0, 0, 0xc0));
    steps.put(&word(0, 1, 0xd1));
    steps.put(&word(0, 2, 0xd1));
    for table in 1..4 {
        steps.put(&word(table, 0, table + 1));
    }
    steps.put(&word(4, 0, 5));
    steps.put(&word(3, 1, 0x60));
    steps.put(&access(1 | 8, [0x10, 0], [0; 3]));
    steps.put(&access(0xfc, [0xf0, 0xf], [0, 0x10, 0]));
    steps.put(&access(1 | 2 | 8, [0x10, 0], [0x0f, 0, 0]));
    steps.put(&[1, 8, 0, 0, 0, 0, 6, 0, 0, 0, 0]);
    steps.put(&[2, 0x85]);
    steps.put(&access(8, [0x10, 0], [0; 3]));
    write("guest_streams", "both-halves", &steps.into_bytes());
}
