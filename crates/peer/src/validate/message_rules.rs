//! Rules of SPDM outside of sessions: negotiation, certificates, challenges, measurements.

use spdm::algorithm::Version;
use spdm::crypto::aws_lc::AwsLc;
use spdm::crypto::hash;
use spdm::message::{
    Capabilities, Certificate, Code, ErrorCode, GetCertificate, Limits, OPERATION_ALL, Shape,
    VersionResponse, decode, encode,
};
use spdm::requester::{Ask, Outcome};

use super::lab::refusal;
use super::{Lab, Rule, Stop, fail};

pub(super) static RULES: &[Rule] = &[
    Rule {
        id: "version-as-1.0",
        says: "VERSION comes as 1.0, whatever is spoken later, and lists a version",
        source: "DSP0274, GET_VERSION",
        check: version_as_1_0,
    },
    Rule {
        id: "version-only-1.0",
        says: "GET_VERSION of another version is refused with VersionMismatch",
        source: "DSP0274, GET_VERSION",
        check: version_only_1_0,
    },
    Rule {
        id: "order-of-negotiation",
        says: "a request that comes too early is refused with UnexpectedRequest",
        source: "DSP0274, message processing order",
        check: order_of_negotiation,
    },
    Rule {
        id: "version-of-capabilities",
        says: "GET_CAPABILITIES of a version not listed is refused with VersionMismatch",
        source: "DSP0274, GET_CAPABILITIES",
        check: version_of_capabilities,
    },
    Rule {
        id: "capabilities-sizes",
        says: "a message of 42 bytes is received, and no transfer is longer than a message",
        source: "DSP0274, CAPABILITIES",
        check: capabilities_sizes,
    },
    Rule {
        id: "algorithms-of-those-offered",
        says: "one algorithm of each kind is selected, of those that were offered",
        source: "DSP0274, ALGORITHMS",
        check: algorithms_of_those_offered,
    },
    Rule {
        id: "version-after-negotiation",
        says: "a request of another version than was negotiated is refused with VersionMismatch",
        source: "DSP0274, ERROR",
        check: version_after_negotiation,
    },
    Rule {
        id: "unknown-request",
        says: "a request that is not known is refused with UnsupportedRequest",
        source: "DSP0274, ERROR",
        check: unknown_request,
    },
    Rule {
        id: "truncated-request",
        says: "a request that ends too early is refused with InvalidRequest",
        source: "DSP0274, ERROR",
        check: truncated_request,
    },
    Rule {
        id: "digest-of-chain",
        says: "the digest of a slot is the hash of its chain",
        source: "DSP0274, DIGESTS",
        check: digest_of_chain,
    },
    Rule {
        id: "certificate-in-portions",
        says: "a chain that is fetched in portions is the same as the whole",
        source: "DSP0274, GET_CERTIFICATE",
        check: certificate_in_portions,
    },
    Rule {
        id: "certificate-past-the-end",
        says: "a portion past the end of the chain is refused with InvalidRequest",
        source: "DSP0274, GET_CERTIFICATE",
        check: certificate_past_the_end,
    },
    Rule {
        id: "certificate-of-empty-slot",
        says: "the chain of a slot that has none is refused with InvalidRequest",
        source: "DSP0274, GET_CERTIFICATE",
        check: certificate_of_empty_slot,
    },
    Rule {
        id: "challenge-is-signed",
        says: "CHALLENGE_AUTH is signed by the key of the chain, over all that was said",
        source: "DSP0274, CHALLENGE_AUTH",
        check: challenge_is_signed,
    },
    Rule {
        id: "measurements-are-signed",
        says: "MEASUREMENTS are signed by the key of the chain, over all that was asked",
        source: "DSP0274, MEASUREMENTS",
        check: measurements_are_signed,
    },
    Rule {
        id: "measurements-are-counted",
        says: "there are as many measurements as MEASUREMENTS says, with ascending numbers",
        source: "DSP0274, MEASUREMENTS",
        check: measurements_are_counted,
    },
    Rule {
        id: "measurement-that-is-not",
        says: "a measurement that there is not is refused with InvalidRequest",
        source: "DSP0274, GET_MEASUREMENTS",
        check: measurement_that_is_not,
    },
];

const GET_VERSION: [u8; 4] = [0x10, Code::GET_VERSION.0, 0, 0];

fn version_as_1_0(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let answer = lab.say(&GET_VERSION)?;
    let shape = Shape::unnegotiated(Version::V12);
    match decode::<VersionResponse>(&answer.bytes, &shape) {
        Ok((message, _)) if message.entries.is_empty() => fail("no version is listed"),
        Ok(_) => Ok(()),
        Err(fault) => fail(fault.to_string()),
    }
}

fn version_only_1_0(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.refused(&[0x12, Code::GET_VERSION.0, 0, 0], &[ErrorCode::VERSION_MISMATCH])
}

fn order_of_negotiation(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.say(&GET_VERSION)?;
    lab.refused(&[0x12, Code::GET_DIGESTS.0, 0, 0], &[ErrorCode::UNEXPECTED_REQUEST])
}

fn version_of_capabilities(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.say(&GET_VERSION)?;
    let mut request = [0; 20];
    request[..2].copy_from_slice(&[0x1f, Code::GET_CAPABILITIES.0]);
    lab.refused(&request, &[ErrorCode::VERSION_MISMATCH])
}

fn capabilities_sizes(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let versions = lab.say(&GET_VERSION)?;
    let shape = Shape::unnegotiated(Version::V12);
    let listed = decode::<VersionResponse>(&versions.bytes, &shape);
    let (listed, _) = listed.or_else(|fault| fail(fault.to_string()))?;
    let Some(version) = listed.best(&Version::ALL) else {
        return Err(Stop::NotApplicable("neither 1.2 nor 1.3 is spoken".into()));
    };
    let mut request = vec![version.wire(), Code::GET_CAPABILITIES.0, 0, 0, 0, 0x10, 0, 0];
    for word in [0, 4608_u32, 4608] {
        request.extend(word.to_le_bytes());
    }
    let answer = lab.say(&request)?;
    let Ok((Capabilities(limits), _)) = decode(&answer.bytes, &Shape::unnegotiated(version)) else {
        return fail(format!("{} that is no CAPABILITIES", answer.header.code));
    };
    let Limits { transfer_bytes_max, message_bytes_max, .. } = limits;
    if transfer_bytes_max < Limits::TRANSFER_BYTES_MIN {
        return fail(format!("transfers of at most {transfer_bytes_max} bytes"));
    }
    if message_bytes_max < transfer_bytes_max {
        return fail(format!("{message_bytes_max} bytes in chunks, {transfer_bytes_max} at once"));
    }
    Ok(())
}

fn algorithms_of_those_offered(lab: &mut Lab<'_>) -> Result<(), Stop> {
    // The requester takes nothing else.
    lab.connect().map(drop)
}

fn version_after_negotiation(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let selected = lab.connect()?;
    let other = match selected.version {
        Version::V12 => Version::V13,
        Version::V13 => Version::V12,
    };
    let request = [other.wire(), Code::GET_DIGESTS.0, 0, 0];
    lab.refused(&request, &[ErrorCode::VERSION_MISMATCH])
}

fn unknown_request(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let selected = lab.connect()?;
    let answer = lab.say(&[selected.version.wire(), UNKNOWN_CODE, 0, 0])?;
    refusal(&answer, &[ErrorCode::UNSUPPORTED_REQUEST])?;
    if answer.header.parameter2 == UNKNOWN_CODE {
        Ok(())
    } else {
        fail(format!("the refusal names request {:#04x}", answer.header.parameter2))
    }
}

/// A request of no version.
const UNKNOWN_CODE: u8 = 0xa5;

fn truncated_request(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let selected = lab.connect()?;
    // GET_CERTIFICATE has eight bytes; a mailbox carries whole dwords.
    let request = [selected.version.wire(), Code::GET_CERTIFICATE.0, 0, 0];
    lab.refused(&request, &[ErrorCode::INVALID_REQUEST])
}

fn digest_of_chain(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let (selected, digests, chain) = lab.connect_to_chain()?;
    if digests.of_slot(0) == Some(&hash(&AwsLc, selected.suite, &chain)) {
        Ok(())
    } else {
        fail("the digest of slot 0 is of something else")
    }
}

fn certificate_in_portions(lab: &mut Lab<'_>) -> Result<(), Stop> {
    const PORTION_BYTES: u16 = 200;
    let (selected, _, chain) = lab.connect_to_chain()?;
    let shape = Shape::negotiated(selected);
    let mut whole = Vec::new();
    loop {
        let offset = u16::try_from(whole.len()).or_else(|_| fail("more than 64 KiB"))?;
        let request = GetCertificate { slot: 0, offset, length: PORTION_BYTES };
        let request = encode(&request, &shape).or_else(|refusal| fail(refusal.to_string()))?;
        let answer = lab.say(&request)?;
        let (message, _) = decode::<Certificate>(&answer.bytes, &shape)
            .or_else(|fault| fail(fault.to_string()))?;
        let length = message.portion.len();
        if length == 0 || length > usize::from(PORTION_BYTES) {
            return fail(format!("a portion of {length} bytes, {PORTION_BYTES} were asked for"));
        }
        whole.extend(message.portion);
        if chain.len() != whole.len() + usize::from(message.remainder) {
            return fail(format!("{} bytes to come after {}", message.remainder, whole.len()));
        }
        if message.remainder == 0 {
            return if whole == chain { Ok(()) } else { fail("other bytes than the whole") };
        }
    }
}

fn certificate_past_the_end(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let (selected, _, chain) = lab.connect_to_chain()?;
    let offset = u16::try_from(chain.len()).or_else(|_| fail("more than 64 KiB"))?;
    let request = GetCertificate { slot: 0, offset, length: 16 };
    let request = encode(&request, &Shape::negotiated(selected));
    let request = request.or_else(|refusal| fail(refusal.to_string()))?;
    lab.refused(&request, &[ErrorCode::INVALID_REQUEST])
}

fn certificate_of_empty_slot(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let (selected, digests, _) = lab.connect_to_chain()?;
    let Some(slot) = (0..8).find(|slot| digests.of_slot(*slot).is_none()) else {
        return Err(Stop::NotApplicable("every slot has a chain".into()));
    };
    let request = GetCertificate { slot, offset: 0, length: 16 };
    let request = encode(&request, &Shape::negotiated(selected));
    let request = request.or_else(|refusal| fail(refusal.to_string()))?;
    lab.refused(&request, &[ErrorCode::INVALID_REQUEST])
}

fn challenge_is_signed(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.connect_to_chain()?;
    // The requester verifies.
    lab.ask(&Ask::Challenge { slot: 0, summary: 0 }).map(drop)
}

fn measurements_are_signed(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.connect_to_chain()?;
    let asked = Ask::Measurements { operation: OPERATION_ALL, signed_by: Some(0), nonce: None };
    lab.ask(&asked).map(drop)
}

fn measurements_are_counted(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.connect_to_chain()?;
    let all = measured(lab, OPERATION_ALL)?;
    let count = usize::from(measured(lab, 0)?.total);
    if all.blocks.len() != count {
        return fail(format!("{} measurements of {count}", all.blocks.len()));
    }
    if !all.blocks.is_sorted_by(|one, next| one.index < next.index) {
        return fail("their numbers do not ascend");
    }
    Ok(())
}

fn measured(lab: &mut Lab<'_>, operation: u8) -> Result<spdm::message::Measurements, Stop> {
    let asked = Ask::Measurements { operation, signed_by: None, nonce: None };
    let Outcome::Measurements(measurements) = lab.ask(&asked)? else {
        return fail("no measurements");
    };
    Ok(measurements)
}

fn measurement_that_is_not(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.connect_to_chain()?;
    let all = measured(lab, OPERATION_ALL)?;
    let taken = |index: &u8| all.blocks.iter().any(|block| block.index == *index);
    let Some(operation) = (1..OPERATION_ALL).find(|index| !taken(index)) else {
        return Err(Stop::NotApplicable("every number has a measurement".into()));
    };
    match lab.try_ask(&Ask::Measurements { operation, signed_by: None, nonce: None })? {
        Err(spdm::Error::Said { code: ErrorCode::INVALID_REQUEST, .. }) => Ok(()),
        other => fail(format!("{other:?} for number {operation}")),
    }
}
