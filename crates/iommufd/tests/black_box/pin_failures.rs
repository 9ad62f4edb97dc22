//! Each pin of a sequence fails once: what is refused leaves all as it was.

use uapi::Errno;

use crate::support::{Client, PAGE, Platform};

const VA: u64 = 0x10_0000;

/// Runs `action` with its first pin failing, then its second, until none is left to fail. Each refusal must
/// leave the client's counts, pins and ranges as they were. Returns how many failures there were.
fn sweep(client: &Client, ioas: u32, action: impl Fn() -> Result<(), Errno>) -> u64 {
    let state = || (client.ctx.counts(), client.memory.pinned(), client.ranges(ioas));
    let before = state();
    for successes in 0.. {
        client.memory.fail_pin_after(successes);
        let answer = action();
        if client.memory.call_off_failure() {
            answer.unwrap();
            return successes;
        }
        assert_eq!(answer, Err(Errno::ENOMEM), "pin {successes}");
        assert_eq!(state(), before, "pin {successes}");
    }
    unreachable!("an action pins finitely often")
}

fn client_with_areas() -> (Client, u32) {
    let client = Client::open();
    let ioas = client.ioas();
    for page in 0..4 {
        client.map_at(ioas, 0x1000 + 3 * page * PAGE, VA + page * PAGE, PAGE).unwrap();
    }
    (client, ioas)
}

#[test]
fn of_a_mapping() {
    let (client, ioas) = client_with_areas();
    let device = Platform::new().bind(&client);
    device.attach(ioas).unwrap();
    let failures = sweep(&client, ioas, || client.map_anywhere(ioas, VA, 8 * PAGE).map(|_| ()));
    assert_eq!(failures, 1);
}

#[test]
fn of_a_page_table() {
    let (client, ioas) = client_with_areas();
    let device = Platform::new().bind(&client);
    let failures = sweep(&client, ioas, || client.hwpt(device.id(), ioas, 0).map(|_| ()));
    assert_eq!(failures, 4);
}

#[test]
fn of_an_attachment() {
    let (client, ioas) = client_with_areas();
    let [first, second] = Platform::new().bind_pair(&client);
    let attach = || first.attach(ioas).map(|_| ()).map_err(|refusal| refusal.errno());
    assert_eq!(sweep(&client, ioas, attach), 4);
    second.attach(ioas).unwrap();
    // The replacement of both devices' page table.
    let (other, pages) = (client.ioas(), 3);
    for page in 0..pages {
        client.map_at(other, page * PAGE, VA + page * PAGE, PAGE).unwrap();
    }
    let replace = || first.attach(other).map(|_| ()).map_err(|refusal| refusal.errno());
    assert_eq!(sweep(&client, other, replace), pages);
}
