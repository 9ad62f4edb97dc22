//! Every decoder of SPDM: what is read is written again as it was, and read as the same.

use std::fmt::Debug;

use spdm::algorithm::{Aead, Group, Selected, Suite, Version};
use spdm::certificate::Chain;
use spdm::message::{
    Algorithms, Capabilities, Certificate, Challenge, ChallengeAuth, ChunkGet, ChunkResponse,
    ChunkSend, ChunkSendAck, Digests, EndSession, ErrorMessage, Finish, GetCapabilities,
    GetCertificate, GetMeasurements, KeyExchange, KeyExchangeResponse, KeyUpdate, KeyUpdateAck,
    Measurements, Message, NegotiateAlgorithms, RespondIfReady, Shape, VendorDefined,
    VendorResponse, VersionResponse, decode, encode, read_selected, read_supported,
};

/// Reads `bytes` behind the first as each message there is; the first says what was negotiated.
pub fn run(bytes: &[u8]) {
    let Some((&choice, message)) = bytes.split_first() else { return };
    let shape = shape(choice);
    comes_back::<VersionResponse>(message, &shape);
    comes_back::<GetCapabilities>(message, &shape);
    comes_back::<Capabilities>(message, &shape);
    comes_back::<NegotiateAlgorithms>(message, &shape);
    comes_back::<Algorithms>(message, &shape);
    comes_back::<Digests>(message, &shape);
    comes_back::<GetCertificate>(message, &shape);
    comes_back::<Certificate>(message, &shape);
    comes_back::<Challenge>(message, &shape);
    comes_back::<ChallengeAuth>(message, &shape);
    comes_back::<GetMeasurements>(message, &shape);
    comes_back::<Measurements>(message, &shape);
    comes_back::<KeyExchange>(message, &shape);
    comes_back::<KeyExchangeResponse>(message, &shape);
    comes_back::<Finish>(message, &shape);
    comes_back::<KeyUpdate>(message, &shape);
    comes_back::<KeyUpdateAck>(message, &shape);
    comes_back::<EndSession>(message, &shape);
    comes_back::<VendorDefined>(message, &shape);
    comes_back::<VendorResponse>(message, &shape);
    comes_back::<ErrorMessage>(message, &shape);
    comes_back::<RespondIfReady>(message, &shape);
    comes_back::<ChunkSend>(message, &shape);
    comes_back::<ChunkSendAck>(message, &shape);
    comes_back::<ChunkGet>(message, &shape);
    comes_back::<ChunkResponse>(message, &shape);
    let _ = read_supported(message);
    let _ = read_selected(message);
    if let Ok(chain) = Chain::read(message, Suite::P256Sha256) {
        assert_eq!(chain.certificates.concat().len(), message.len() - 36);
    }
}

/// What was negotiated and asked.
pub fn shape(choice: u8) -> Shape {
    let pick = |bit: u8| choice >> bit & 1 != 0;
    let selected = Selected {
        version: if pick(0) { Version::V12 } else { Version::V13 },
        suite: if pick(1) { Suite::P256Sha256 } else { Suite::P384Sha384 },
        group: if pick(2) { Group::Secp256r1 } else { Group::Secp384r1 },
        aead: Aead::Aes256Gcm,
    };
    Shape { summary: pick(3), signed: pick(4), ..Shape::negotiated(selected) }
}

/// Reserved fields are not kept, so what is written may differ from `bytes`, but not in meaning.
fn comes_back<M: Message + PartialEq + Debug>(bytes: &[u8], shape: &Shape) {
    let Ok((message, length)) = decode::<M>(bytes, shape) else { return };
    assert!(length <= bytes.len());
    let written = encode(&message, shape).expect("what was read can be written");
    assert!(written.len() <= length, "algorithms of others are left away, nothing is added");
    let (again, whole) = decode::<M>(&written, shape).expect("what was written can be read");
    assert_eq!((again, whole), (message, written.len()));
}
