//! Sessions of SPDM, and a message of each shape that a decoder has.

use bindery_fuzz::input::Output;

use crate::write;

/// A whole session, in one piece and in chunks; and one whose last answer loses a bit.
pub(crate) fn spdm_sessions() {
    const CALM: [u8; 2] = [0, 0];
    const BIT: [u8; 4] = [0, 250, 90, 0];
    let whole: [&[u8]; 13] =
        [&[0], &[2], &[3], &[5], &[6], &[7], &[12], &[10], &[11], &[6], &[3], &[2], &[14]];
    for (name, chunks) in [("whole", 0_u8), ("chunks", 1)] {
        let mut out = Output::default();
        out.put(&[chunks]);
        for choice in whole {
            out.put(choice);
            out.put(&CALM);
            match choice[0] {
                3 | 5 => out.put(&[0]),
                6 => out.put(&[0xff, 1]),
                11 => out.put(&[1]),
                12 => out.counted(&[7; 200]),
                _ => {}
            }
        }
        write("spdm_sessions", name, &out.into_bytes());
    }
    let mut out = Output::default();
    out.put(&[0]);
    for choice in [0, 3, 7] {
        out.put(&[choice]);
        out.put(&CALM);
        if choice == 3 {
            out.put(&[0]);
        }
    }
    out.put(&[10]);
    out.put(&BIT);
    out.put(&[10]);
    out.put(&CALM);
    out.put(&[15, 1]);
    out.counted(&[0xff; 40]);
    write("spdm_sessions", "disturbed", &out.into_bytes());
}

/// A message of each shape that a decoder has.
pub(crate) fn spdm_messages() {
    use spdm::algorithm::Version;
    use spdm::message::{
        Block, Capabilities, CapabilityFlags, Certificate, KeyExchange, Limits, Measurements,
        NegotiateAlgorithms, OTHER_PARAMS_OPAQUE_FORMAT_1, Structure, VendorDefined,
        VersionResponse, encode, supported_secured_versions,
    };

    const CHOICE: u8 = 0b0_0111;
    let shape = bindery_fuzz::spdm_messages::shape(CHOICE);
    let structure = |kind| Structure { kind, bits: 1 };
    let limits = Limits {
        timeout_exponent: 10,
        flags: CapabilityFlags::CERTIFICATE,
        transfer_bytes_max: 4608,
        message_bytes_max: 4608,
    };
    let seeds = [
        ("version", encode(&VersionResponse::of(&Version::ALL), &shape)),
        ("capabilities", encode(&Capabilities(limits), &shape)),
        (
            "negotiate",
            encode(
                &NegotiateAlgorithms {
                    measurement_specification: 1,
                    other_params: OTHER_PARAMS_OPAQUE_FORMAT_1,
                    asymmetric: 0x80,
                    hash: 2,
                    log_specification: 0,
                    structures: [Structure::DHE, Structure::AEAD].map(structure).into(),
                },
                &shape,
            ),
        ),
        (
            "certificate",
            encode(
                &Certificate { slot: 0, model: 0, portion: vec![0x30; 9], remainder: 0 },
                &shape,
            ),
        ),
        (
            "measurements",
            encode(
                &Measurements {
                    total: 0,
                    slot_and_change: 0,
                    blocks: vec![Block { index: 1, kind: 1, value: vec![7; 32] }],
                    nonce: [1; 32],
                    opaque: Vec::new(),
                    context: [0; 8],
                    signature: Vec::new(),
                },
                &shape,
            ),
        ),
        (
            "key-exchange",
            encode(
                &KeyExchange {
                    summary: 0,
                    slot: 0,
                    session: 1,
                    policy: 0,
                    random: [2; 32],
                    exchange: vec![3; 64],
                    opaque: supported_secured_versions(),
                },
                &shape,
            ),
        ),
        ("vendor-defined", encode(&VendorDefined::pci_sig(vec![1, 0x10, 0x81]), &shape)),
        ("opaque", Ok(supported_secured_versions())),
    ];
    for (name, message) in seeds {
        let mut out = Output::default();
        out.put(&[CHOICE]);
        out.put(&message.expect("a message that can be written"));
        write("spdm_messages", name, &out.into_bytes());
    }
}
