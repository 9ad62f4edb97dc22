//! DEVICE_FEATURE.

use uapi::vfio::{feature_flags, feature_id};
use uapi::{CommandId, Errno};
use vfio::Settings;

use crate::support::{Session, Shape, Stand, config_position};

const GET: u32 = feature_flags::GET;
const SET: u32 = feature_flags::SET;
const PROBE: u32 = feature_flags::PROBE;

fn feature(session: &Session, flags: u32, data: &[u8]) -> Result<u32, Errno> {
    let argsz = 8 + u32::try_from(data.len()).unwrap();
    let mut bytes = argsz.to_le_bytes().to_vec();
    bytes.extend(flags.to_le_bytes());
    bytes.extend(data);
    session.call_bytes(CommandId::DeviceFeature, &mut bytes)
}

#[test]
fn which_features_there_are() {
    let plain = Stand::new();
    let shape = Shape { physical_function: true, ..Shape::default() };
    let physical = Stand::shaped(shape, Settings::default());
    for (stand, token) in [(plain, Err(Errno::ENOTTY)), (physical, Ok(0))] {
        let session = stand.bound();
        for id in 0..20 {
            let (set, got) = match id {
                feature_id::PCI_VF_TOKEN => (token, token.and(Err(Errno::EINVAL))),
                3..=5 => (Ok(0), Err(Errno::EINVAL)),
                feature_id::DMA_BUF => (Err(Errno::EINVAL), Ok(0)),
                feature_id::MIG_PRECOPY_INFO_V2 => (Err(Errno::EINVAL), Err(Errno::EINVAL)),
                _ => (Err(Errno::ENOTTY), Err(Errno::ENOTTY)),
            };
            for (probe, expected) in [(PROBE, set.or(got)), (PROBE | SET, set), (PROBE | GET, got)]
            {
                assert_eq!(feature(&session, probe | id, &[]), expected, "{probe:#x} {id}");
            }
        }
        session.close();
    }
}

#[test]
fn the_order_of_checks() {
    let stand = Stand::new();
    let session = stand.bound();
    for (flags, errno) in [
        (SET | 1 << 19 | 99, Errno::EINVAL),
        (GET | SET | feature_id::LOW_POWER_ENTRY, Errno::EINVAL),
        (GET | SET | 99, Errno::EINVAL),
        (GET | 99, Errno::ENOTTY),
        (feature_id::MIGRATION, Errno::ENOTTY),
        (GET | feature_id::LOW_POWER_ENTRY, Errno::EINVAL),
        (GET | PROBE | feature_id::LOW_POWER_EXIT, Errno::EINVAL),
        (feature_id::LOW_POWER_ENTRY, Errno::EINVAL),
        (SET | feature_id::LOW_POWER_ENTRY_WITH_WAKEUP, Errno::EINVAL),
    ] {
        assert_eq!(feature(&session, flags, &[]), Err(errno), "{flags:#x}");
    }
    session.close();
}

#[test]
fn low_power() {
    let stand = Stand::new();
    let session = stand.bound();
    let (entry, exit) = (SET | feature_id::LOW_POWER_ENTRY, SET | feature_id::LOW_POWER_EXIT);
    assert_eq!(feature(&session, exit, &[]), Ok(0));
    assert_eq!(feature(&session, entry, &[]), Ok(0));
    assert_eq!(feature(&session, entry, &[]), Err(Errno::EINVAL), "engaged already");
    assert_eq!(session.config_word(0), 0x1234, "accesses go on");
    assert_eq!(feature(&session, entry, &[]), Err(Errno::EINVAL), "and it stays engaged");
    assert_eq!(feature(&session, exit, &[]), Ok(0));
    assert_eq!(feature(&session, exit, &[]), Ok(0));
    assert_eq!(feature(&session, entry, &[]), Ok(0));
    session.close();
    let session = stand.bound();
    assert_eq!(feature(&session, entry, &[]), Ok(0), "close ends it");
    session.close();
}

#[test]
fn low_power_until_the_first_access() {
    let stand = Stand::new();
    let mut session = stand.bound();
    let (fd, heard) = session.client.open_eventfd();
    let other = session.client.open_other();
    let entry = SET | feature_id::LOW_POWER_ENTRY_WITH_WAKEUP;
    let with = |fd: i32| {
        let mut data = fd.to_le_bytes().to_vec();
        data.extend([0xff; 4]);
        data
    };
    assert_eq!(feature(&session, entry, &with(-1)), Err(Errno::EINVAL));
    assert_eq!(feature(&session, entry, &with(99)), Err(Errno::EBADF));
    assert_eq!(feature(&session, entry, &with(other)), Err(Errno::EINVAL));
    assert_eq!(feature(&session, entry, &with(fd)), Ok(0), "reserved bytes are not looked at");
    assert_eq!(heard.taken(), 0);
    assert_eq!(session.read(config_position(0), &mut [0; 4]), Ok(4));
    assert_eq!(heard.taken(), 1);
    assert_eq!(session.read(config_position(0), &mut [0; 4]), Ok(4));
    assert_eq!(heard.taken(), 0, "the engagement is over");
    assert_eq!(feature(&session, entry, &with(fd)), Ok(0));
    assert_eq!(feature(&session, entry, &with(fd)), Ok(0), "a command is an access too");
    assert_eq!(heard.taken(), 1);
    session.close();
}

#[test]
fn a_physical_functions_token_is_set() {
    let shape = Shape { physical_function: true, ..Shape::default() };
    let stand = Stand::shaped(shape, Settings::default());
    let session = stand.bound();
    let set = SET | feature_id::PCI_VF_TOKEN;
    assert_eq!(feature(&session, set, &[7; 16]), Ok(0));
    assert_eq!(feature(&session, set, &[7; 15]), Err(Errno::EINVAL));
    assert_eq!(feature(&session, GET | feature_id::PCI_VF_TOKEN, &[7; 16]), Err(Errno::EINVAL));
    session.close();
}
