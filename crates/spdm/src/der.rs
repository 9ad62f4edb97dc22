//! As much of DER as certificates need beside webpki: their ends, names of other forms, and values to
//! make them of.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const UTF8_STRING: u8 = 0x0c;
pub(crate) const SEQUENCE: u8 = 0x30;
/// `[0]`, constructed: otherName in a list of names, and the value in an otherName.
pub(crate) const CONTEXT_0: u8 = 0xa0;
/// `[3]`, constructed: the extensions of a certificate.
pub(crate) const CONTEXT_3: u8 = 0xa3;
/// subjectAltName: 2.5.29.17.
pub(crate) const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// One value: its tag and its contents.
#[derive(Clone, Copy)]
pub(crate) struct Value<'a> {
    tag: u8,
    contents: &'a [u8],
}

/// Takes a value off the front of `bytes`. `None` if its length does not fit.
pub(crate) fn split(bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    const LONG_FORM: u8 = 0x80;
    let (&[tag, first], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match first {
        short if short < LONG_FORM => (usize::from(short), rest),
        0x81 => {
            let (&length, rest) = rest.split_first()?;
            (usize::from(length), rest)
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((Value { tag, contents }, rest))
}

/// A value.
pub(crate) fn encode(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let bytes = length.to_be_bytes();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let digits = bytes.get(zeros..).unwrap_or_default();
    let mut value = Vec::with_capacity(length + 2 + digits.len());
    value.push(tag);
    match digits {
        [] => value.push(0),
        [short @ ..0x80] => value.push(*short),
        long => {
            value.push(0x80 | long.len().to_le_bytes()[0]);
            value.extend_from_slice(long);
        }
    }
    value.extend_from_slice(contents);
    value
}

/// The names of `certificate`'s subject that have the form with this object identifier.
pub(crate) fn other_names(certificate: &[u8], form: &[u8]) -> Vec<String> {
    names(certificate, form).unwrap_or_default()
}

fn names(certificate: &[u8], form: &[u8]) -> Option<Vec<String>> {
    let outer = expect(certificate, SEQUENCE)?;
    let signed = expect(outer, SEQUENCE)?;
    let extensions = values(signed).find(|value| value.tag == CONTEXT_3)?;
    let alternative = values(expect(extensions.contents, SEQUENCE)?).find_map(|extension| {
        let mut fields = values(extension.contents);
        let id = fields.next()?;
        let value = fields.find(|value| value.tag == OCTET_STRING)?;
        (id.tag == OBJECT_IDENTIFIER && id.contents == SUBJECT_ALT_NAME).then_some(value)
    })?;
    let list = expect(alternative.contents, SEQUENCE)?;
    let others = values(list).filter(|name| name.tag == CONTEXT_0);
    Some(others.filter_map(|name| text(name.contents, form)).collect())
}

/// The text of an otherName with this form.
fn text(name: &[u8], form: &[u8]) -> Option<String> {
    let (id, rest) = split(name)?;
    if id.tag != OBJECT_IDENTIFIER || id.contents != form {
        return None;
    }
    let text = expect(expect(rest, CONTEXT_0)?, UTF8_STRING)?;
    core::str::from_utf8(text).ok().map(ToString::to_string)
}

/// The contents of the first value, which has this tag.
fn expect(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let (value, _) = split(bytes)?;
    (value.tag == tag).then_some(value.contents)
}

fn values(mut bytes: &[u8]) -> impl Iterator<Item = Value<'_>> {
    core::iter::from_fn(move || {
        let (value, rest) = split(bytes)?;
        bytes = rest;
        Some(value)
    })
}
