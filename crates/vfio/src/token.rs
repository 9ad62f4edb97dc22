//! VF tokens: what the user of a virtual function and that of its physical function show each other.
//!
//! A physical function has a token that nobody knows until somebody sets it: its own user, when he opens it or by the
//! feature. Once virtual functions that vfio-pci made are open, the physical one is opened only with that token, and
//! they are opened only with it. Those that were there before vfio-pci took the physical function have none.
//!
//! Takes `MEMORY`. Source: [uapi/vfio.h].

use std::sync::Arc;

use crate::device::VfToken;
use crate::{Device, Refusal};

/// Says whether a device may be opened with this token, or without.
///
/// Of a physical function none of whose virtual ones is open, what is given is its token from now on, even if the open
/// then fails.
///
/// # Errors
/// - [`Refusal::TokenMissing`], [`Refusal::TokenWrong`] (`EACCES`)
/// - [`Refusal::TokenNotTaken`] (`EINVAL`)
pub(crate) fn check(device: &Device, given: Option<VfToken>) -> Result<(), Refusal> {
    if device.facts().virtual_function.is_some() {
        return match device.token_holder() {
            Some(physical) => physical.check_against(given),
            None if given.is_some() => Err(Refusal::TokenNotTaken),
            None => Ok(()),
        };
    }
    if device.facts().sriov.is_none() {
        return if given.is_some() { Err(Refusal::TokenNotTaken) } else { Ok(()) };
    }
    if device.memory().lock().token_users > 0 {
        return device.check_against(given);
    }
    if given.is_some() {
        device.memory().lock().token = given;
    }
    Ok(())
}

/// The token in what follows a device's name: words parted by blanks, of which one is known.
///
/// # Errors
/// [`Refusal::DeviceOptions`] – another word, a second token, or one that is no UUID (`EINVAL`).
pub(crate) fn of_options(options: &str) -> Result<Option<VfToken>, Refusal> {
    let mut found = None;
    for word in options.split(' ').filter(|word| !word.is_empty()) {
        let text = word.strip_prefix("vf_token=").ok_or(Refusal::DeviceOptions)?;
        let token = parse(text).ok_or(Refusal::DeviceOptions)?;
        if found.replace(token).is_some() {
            return Err(Refusal::DeviceOptions);
        }
    }
    Ok(found)
}

impl Device {
    /// Says that the function is a virtual one that vfio-pci made for `physical`, which it has; or, with `None`, that
    /// it is not. Takes `MEMORY`.
    pub fn set_physical_function(&self, physical: Option<&Arc<Self>>) {
        self.memory().lock().physical = physical.map(Arc::downgrade).unwrap_or_default();
    }

    /// Whose token opens it.
    pub(crate) fn token_holder(&self) -> Option<Arc<Self>> {
        self.memory().lock().physical.upgrade()
    }

    /// Notes that the token is in use, until [`drop_token_user`](Self::drop_token_user).
    pub(crate) fn use_token(&self) {
        let Some(physical) = self.token_holder() else { return };
        physical.memory().lock().token_users += 1;
        self.memory().lock().uses_token_of = Some(physical);
    }

    pub(crate) fn drop_token_user(&self) {
        let physical = self.memory().lock().uses_token_of.take();
        if let Some(physical) = physical {
            physical.memory().lock().token_users -= 1;
        }
    }

    fn check_against(&self, given: Option<VfToken>) -> Result<(), Refusal> {
        let given = given.ok_or(Refusal::TokenMissing)?;
        let token = self.memory().lock().token;
        if token == Some(given) { Ok(()) } else { Err(Refusal::TokenWrong) }
    }
}

/// Where the groups of a UUID's digits end with a dash.
const DASHES: [usize; 4] = [8, 13, 18, 23];
/// Characters of a UUID.
const UUID_LENGTH: usize = 36;

/// A UUID in the order in which it is written.
fn parse(text: &str) -> Option<VfToken> {
    let text = text.as_bytes();
    if text.len() != UUID_LENGTH || DASHES.iter().any(|&at| text[at] != b'-') {
        return None;
    }
    let mut token = VfToken::default();
    let mut digits = text.iter().enumerate().filter(|(at, _)| !DASHES.contains(at));
    for byte in &mut token {
        let mut digit = || char::from(*digits.next()?.1).to_digit(16);
        *byte = u8::try_from(digit()? << 4 | digit()?).ok()?;
    }
    Some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_one_token_between_blanks() {
        let token = [
            0x52, 0xac, 0x9b, 0xff, 0x3a, 0x88, 0x4f, 0xbd, 0x90, 0x1a, 0x0d, 0x76, 0x7c, 0x3b,
            0x6c, 0x97,
        ];
        let text = " vf_token=52ac9bff-3a88-4fbd-901a-0d767c3b6c97";
        assert_eq!(of_options(text), Ok(Some(token)));
        assert_eq!(
            of_options(&format!("  {} ", text.to_uppercase().replace("VF_TOKEN", "vf_token"))),
            Ok(Some(token))
        );
        assert_eq!(of_options("  "), Ok(None));
        for wrong in [
            " token=52ac9bff-3a88-4fbd-901a-0d767c3b6c97",
            " vf_token=52ac9bff-3a88-4fbd-901a-0d767c3b6c9",
            " vf_token=52ac9bff-3a88-4fbd-901a-0d767c3b6c97x",
            " vf_token=52ac9bff+3a88-4fbd-901a-0d767c3b6c97",
            " vf_token=52ac9bff-3a88-4fbd-901a-0d767c3b6cg7",
            " vf_token=",
            " nonsense",
        ] {
            assert_eq!(of_options(wrong), Err(Refusal::DeviceOptions), "{wrong}");
        }
        assert_eq!(of_options(&[text, text].concat()), Err(Refusal::DeviceOptions));
    }
}
