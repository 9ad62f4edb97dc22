//! Certificates made here: for emulated devices, and for tests.
//!
//! [`issue`] signs one, and a chain is a root that signs itself and a leaf that it signs. Takes no
//! lock and does no IO. Deliberately absent: requests for certificates, revocation, other names
//! than a common one and that of a device.
//!
//! Source: RFC 5280; the names that PCIe 6.1 section 6.31.3 and \[DSP0274\] want.

use alloc::vec::Vec;
use core::time::Duration;

use crate::algorithm::Suite;
use crate::certificate::DeviceName;
use crate::crypto::{CryptoFault, Signer};
use crate::der::{
    BIT_STRING, BOOLEAN, CONTEXT_0, CONTEXT_3, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE,
    UTF8_STRING, encode,
};

/// What a certificate says.
#[derive(Clone, Debug)]
pub struct Contents<'a> {
    /// Who signs: a common name.
    pub issuer: &'a str,
    /// Whose it is: a common name.
    pub subject: &'a str,
    /// What the subject's key signs with.
    pub suite: Suite,
    /// Both coordinates of the subject's key.
    pub public: &'a [u8],
    /// Told from every other of the issuer's; the first bit is ignored.
    pub serial: [u8; 8],
    /// From when it holds, since 1970, in whole seconds; before 2050.
    pub not_before: Duration,
    /// Until when; for ever where it is `None`.
    pub not_after: Option<Duration>,
    /// What the subject is.
    pub role: Role,
}

/// What the subject of a certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It signs certificates.
    Authority,
    /// It responds in SPDM, under this name.
    Device(DeviceName),
}

/// A certificate, in DER.
///
/// # Errors
/// [`CryptoFault::NoSignature`].
pub fn issue(contents: &Contents<'_>, signer: &dyn Signer) -> Result<Vec<u8>, CryptoFault> {
    let algorithm = signature_algorithm(signer.suite());
    let mut serial = contents.serial;
    serial[0] = serial[0] & 0x7f | 0x40;
    let end = contents.not_after.map_or(encode(GENERALIZED_TIME, FOREVER), time);
    let body = [
        encode(CONTEXT_0, &encode(INTEGER, &[VERSION_3])),
        encode(INTEGER, &serial),
        algorithm.clone(),
        common_name(contents.issuer),
        encode(SEQUENCE, &[time(contents.not_before), end].concat()),
        common_name(contents.subject),
        public_key(contents.suite, contents.public),
        encode(CONTEXT_3, &encode(SEQUENCE, &extensions(&contents.role))),
    ];
    let body = encode(SEQUENCE, &body.concat());
    let signature = two_integers(&signer.sign(&body)?);
    let signature = encode(BIT_STRING, &[&[0], signature.as_slice()].concat());
    Ok(encode(SEQUENCE, &[body, algorithm, signature].concat()))
}

const VERSION_3: u8 = 2;
const SET: u8 = 0x31;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// RFC 5280: no end is known.
const FOREVER: &[u8] = b"99991231235959Z";

fn extensions(role: &Role) -> Vec<u8> {
    match role {
        Role::Authority => {
            let is_authority = encode(SEQUENCE, &encode(BOOLEAN, &[0xff]));
            extension(BASIC_CONSTRAINTS, true, &is_authority)
        }
        Role::Device(name) => {
            let usage = encode(SEQUENCE, &encode(OBJECT_IDENTIFIER, RESPONDER));
            let usage = extension(EXTENDED_KEY_USAGE, false, &usage);
            let (form, text) = match name {
                DeviceName::Any => return usage,
                DeviceName::Pci(text) => (crate::certificate::PCI_NAME, text),
                DeviceName::Dmtf(text) => (crate::certificate::DMTF_NAME, text),
            };
            let text = encode(CONTEXT_0, &encode(UTF8_STRING, text.as_bytes()));
            let name = [encode(OBJECT_IDENTIFIER, form), text].concat();
            let names = encode(SEQUENCE, &encode(CONTEXT_0, &name));
            [usage, extension(crate::der::SUBJECT_ALT_NAME, false, &names)].concat()
        }
    }
}

/// 2.5.29.19.
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
/// 2.5.29.37.
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
/// id-DMTF-eku-responder-auth: 1.3.6.1.4.1.412.274.3.
const RESPONDER: &[u8] = crate::certificate::RESPONDER_USAGE;

fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { encode(BOOLEAN, &[0xff]) } else { Vec::new() };
    let fields = [encode(OBJECT_IDENTIFIER, id), critical, encode(OCTET_STRING, value)];
    encode(SEQUENCE, &fields.concat())
}

fn common_name(name: &str) -> Vec<u8> {
    /// 2.5.4.3.
    const COMMON_NAME: &[u8] = &[0x55, 4, 3];
    let attribute =
        [encode(OBJECT_IDENTIFIER, COMMON_NAME), encode(UTF8_STRING, name.as_bytes())].concat();
    encode(SEQUENCE, &encode(SET, &encode(SEQUENCE, &attribute)))
}

/// ecdsa-with-SHA256 or ecdsa-with-SHA384.
fn signature_algorithm(suite: Suite) -> Vec<u8> {
    let hash = match suite {
        Suite::P256Sha256 => 2,
        Suite::P384Sha384 => 3,
    };
    let id = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, hash];
    encode(SEQUENCE, &encode(OBJECT_IDENTIFIER, &id))
}

fn public_key(suite: Suite, coordinates: &[u8]) -> Vec<u8> {
    /// id-ecPublicKey.
    const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    const UNCOMPRESSED: u8 = 4;
    let curve: &[u8] = match suite {
        Suite::P256Sha256 => &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
        Suite::P384Sha384 => &[0x2b, 0x81, 0x04, 0x00, 0x22],
    };
    let kind = [encode(OBJECT_IDENTIFIER, EC), encode(OBJECT_IDENTIFIER, curve)].concat();
    let point = encode(BIT_STRING, &[&[0, UNCOMPRESSED], coordinates].concat());
    encode(SEQUENCE, &[encode(SEQUENCE, &kind), point].concat())
}

/// `r` and `s` in the form that certificates have: two integers, each without zeros before it.
fn two_integers(signature: &[u8]) -> Vec<u8> {
    let integer = |half: &[u8]| {
        let zeros = half.iter().take_while(|byte| **byte == 0).count();
        let digits = half.get(zeros..).unwrap_or_default();
        let positive = digits.first().is_none_or(|first| first & 0x80 != 0);
        let sign: &[u8] = if positive { &[0] } else { &[] };
        encode(INTEGER, &[sign, digits].concat())
    };
    let (r, s) = signature.split_at(signature.len() / 2);
    encode(SEQUENCE, &[integer(r), integer(s)].concat())
}

/// A moment before 2050, as UTCTime.
fn time(since_1970: Duration) -> Vec<u8> {
    const DAY_S: u64 = 86_400;
    let (days, rest) = (since_1970.as_secs() / DAY_S, since_1970.as_secs() % DAY_S);
    let (year, month, day) = date(days);
    let mut text = Vec::with_capacity(13);
    for number in [year % 100, month, day, rest / 3600, rest / 60 % 60, rest % 60] {
        text.extend([number / 10, number % 10].map(|digit| b'0' + digit.to_le_bytes()[0]));
    }
    text.push(b'Z');
    encode(UTC_TIME, &text)
}

/// Year, month and day of so many days after 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    // Years begin in March, so that a leap day is the last of its year.
    const TO_MARCH_YEAR_0: u64 = 719_468;
    const ERA_DAYS: u64 = 146_097;
    let days = days + TO_MARCH_YEAR_0;
    let (era, of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + carry, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, b"700101000000Z"),
            (951_782_400, b"000229000000Z"),
            (1_767_225_599, b"251231235959Z"),
            (1_767_225_600, b"260101000000Z"),
            (2_524_607_999, b"491231235959Z"),
        ] {
            assert_eq!(time(Duration::from_secs(seconds))[2..], text[..], "{seconds}");
        }
    }

    #[test]
    fn integers_are_positive_and_short() {
        assert_eq!(two_integers(&[0, 1, 0x80, 0]), [0x30, 8, 2, 1, 1, 2, 3, 0, 0x80, 0]);
        assert_eq!(two_integers(&[0, 0, 0, 2]), [0x30, 6, 2, 1, 0, 2, 1, 2]);
    }
}
