//! Key logs: the secrets of key exchanges, in the words that spdm_dump takes on its command line.
//!
//! `--dhe_secret HEX` is the secret of one KEY_EXCHANGE, in the order of the capture; `--psk HEX` is
//! of sessions that nobody here opens, and is passed over. Whoever has such a file reads the
//! sessions: it is made on request only. Takes no lock and does no IO.

use spdm::crypto::Secret;
use thiserror::Error;

const DHE: &str = "--dhe_secret";
const PSK: &str = "--psk";

/// What is no key log.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoKeyLog {
    /// A word that is none of it.
    #[error("line {line}: {word:?}; known are {DHE} HEX and {PSK} HEX")]
    Word {
        /// The line, from 1.
        line: usize,
        /// The word.
        word: String,
    },
    /// A secret that is no string of whole bytes in hexadecimal, or missing.
    #[error("line {line}: no bytes in hexadecimal follow {word}")]
    Secret {
        /// The line, from 1.
        line: usize,
        /// The word before it.
        word: String,
    },
}

/// The secrets of key exchanges, in their order.
///
/// # Errors
/// [`NoKeyLog`].
pub fn read(text: &str) -> Result<Vec<Secret>, NoKeyLog> {
    let lines = text.lines().enumerate();
    let mut words =
        lines.flat_map(|(line, text)| text.split_whitespace().map(move |word| (line + 1, word)));
    let mut secrets = Vec::new();
    while let Some((line, word)) = words.next() {
        if word != DHE && word != PSK {
            return Err(NoKeyLog::Word { line, word: word.to_owned() });
        }
        let secret = words.next().and_then(|(_, digits)| unhex(digits));
        let secret = secret.ok_or_else(|| NoKeyLog::Secret { line, word: word.to_owned() })?;
        if word == DHE {
            secrets.push(Secret::new(secret));
        }
    }
    Ok(secrets)
}

/// A line for one secret.
pub fn line(secret: &Secret) -> String {
    let digits: String = secret.expose().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{DHE} {digits}\n")
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if digits.is_empty() || !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = digits.chunks_exact(2);
    pairs.map(|pair| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_in_order_and_written_again() {
        let secrets = read(" --dhe_secret 00ff --psk 11\n--dhe_secret Ab").unwrap();
        let exposed: Vec<_> = secrets.iter().map(Secret::expose).collect();
        assert_eq!(exposed, [&[0x00, 0xff][..], &[0xab]]);
        let again: String = secrets.iter().map(line).collect();
        assert_eq!(again, "--dhe_secret 00ff\n--dhe_secret ab\n");
        assert_eq!(read(&again).unwrap().len(), 2);
    }

    #[test]
    fn mistakes_have_a_line() {
        let word = read("--psk 00\n--key 11").unwrap_err();
        assert_eq!(word, NoKeyLog::Word { line: 2, word: "--key".into() });
        for text in ["--dhe_secret", "--dhe_secret 0", "--dhe_secret +1", "--dhe_secret é0"] {
            let secret = NoKeyLog::Secret { line: 1, word: DHE.into() };
            assert_eq!(read(text).unwrap_err(), secret, "{text}");
        }
    }
}
