//! What a client allows where it leaves the choice of an address to us.

use span::Span;

use super::AddressSpace;
use crate::Refusal;

impl AddressSpace {
    /// Lets addresses be chosen in `spans` only, which are ascending and apart; with none, anywhere. Until that
    /// changes, nothing there can be reserved.
    ///
    /// # Errors
    /// [`Refusal::ReservedAllowed`] (`EADDRINUSE`): one meets a reserved span. All is as before then.
    pub(crate) fn allow(&mut self, spans: Vec<Span>) -> Result<(), Refusal> {
        for allowed in &spans {
            if let Some(reserved) = self.reserved.meeting(*allowed) {
                return Err(Refusal::ReservedAllowed { reserved, allowed: *allowed });
            }
        }
        self.allowed = joined(spans);
        Ok(())
    }

    /// Why `reserved` cannot be reserved, if what is allowed stands in the way.
    pub(super) fn meeting_allowed(&self, reserved: Span) -> Option<Refusal> {
        let allowed = self.allowed.iter().copied().find(|allowed| allowed.intersects(reserved))?;
        Some(Refusal::ReservedAllowed { reserved, allowed })
    }
}

/// Ascending spans, of which those that touch are one: what is chosen may lie across the boundary.
fn joined(spans: Vec<Span>) -> Vec<Span> {
    let mut joined: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        let before =
            joined.last_mut().filter(|before| before.last().checked_add(1) == Some(span.start()));
        match before
            .and_then(|before| Some((Span::from_ends(before.start(), span.last())?, before)))
        {
            Some((both, before)) => *before = both,
            None => joined.push(span),
        }
    }
    joined
}
