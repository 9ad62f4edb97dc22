//! MSI and MSI-X vectors.
//!
//! Setting them up allocates a run of vectors from 0 on; MSI-X can grow where the machine allows it.
//! A vector without an eventfd is masked in the function (MSI-X) or dropped and counted (MSI).
//!
//! Everything here runs under the `IRQ` lock and leaves signals to [`After`].

use pci::Interrupt;

use super::{Active, After, Table, Trigger};
use crate::Refusal;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageKind {
    Msi,
    Msix,
}

/// The vectors that are set up.
pub(super) struct Vectors {
    kind: MessageKind,
    /// As long as the vectors allocated.
    triggers: Vec<Option<Trigger>>,
}

/// Which vectors are heard, from `first` on: what the function's registers are to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Armed {
    pub(crate) kind: MessageKind,
    pub(crate) first: u16,
    pub(crate) vectors: Vec<bool>,
}

/// How far a run of vectors may grow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VectorRules {
    /// Whether it may.
    pub(crate) grows: bool,
    /// As many as the host has.
    pub(crate) limit: u16,
}

impl MessageKind {
    pub(super) fn interrupt(self, vector: u16) -> Interrupt {
        match self {
            Self::Msi => Interrupt::Msi(vector),
            Self::Msix => Interrupt::Msix(vector),
        }
    }
}

impl Table {
    /// Which kind of message is set up.
    pub(crate) fn message_kind(&self) -> Option<MessageKind> {
        match &self.active {
            Active::Message(vectors) => Some(vectors.kind),
            Active::None | Active::Intx(_) => None,
        }
    }

    /// Allocates vectors `0..count`, none of them heard yet. Nothing else is set up.
    pub(crate) fn enable_messages(&mut self, kind: MessageKind, count: u16) {
        assert!(self.is_idle(), "one kind of interrupt at a time");
        let triggers = vec![None; usize::from(count)];
        self.active = Active::Message(Vectors { kind, triggers });
    }

    /// Ends the set-up of messages.
    pub(crate) fn disable_messages(&mut self, after: &mut After) {
        match std::mem::take(&mut self.active) {
            Active::Message(vectors) => vectors.let_go(after),
            other @ (Active::None | Active::Intx(_)) => self.active = other,
        }
    }

    /// Sets who hears vectors `first..`, one after the other. What was heard before ends for each vector
    /// before the new one is looked at; on a refusal those reached so far are left unheard.
    ///
    /// # Errors
    /// - [`Refusal::VectorFixed`] – past those allocated, and the run does not grow (`EINVAL`).
    /// - [`Refusal::VectorsExhausted`] – the host has no more (`ENOSPC`).
    /// - What stands in place of an eventfd (`EBADF`, `EINVAL`).
    pub(crate) fn set_vectors(
        &mut self,
        first: u16,
        triggers: Vec<Result<Option<Trigger>, Refusal>>,
        rules: VectorRules,
        after: &mut After,
    ) -> Result<(), Refusal> {
        let Active::Message(vectors) = &mut self.active else { return Ok(()) };
        let first = usize::from(first);
        for (vector, trigger) in (first..).zip(triggers) {
            if let Err(refusal) = vectors.set(vector, trigger, rules, after) {
                for vector in first..=vector {
                    vectors.take(vector, after);
                }
                return Err(refusal);
            }
        }
        Ok(())
    }

    /// Signals one vector as if the function had, if it is heard.
    pub(crate) fn fire_vector(&mut self, vector: u16, after: &mut After) {
        if let Active::Message(vectors) = &self.active {
            after.fire.extend(vectors.triggers.get(usize::from(vector)).cloned().flatten());
        }
    }

    /// Which vectors are heard; `None` where messages are not set up.
    pub(crate) fn armed(&self) -> Option<Armed> {
        match &self.active {
            Active::Message(vectors) => Some(vectors.armed(0, vectors.triggers.len())),
            Active::None | Active::Intx(_) => None,
        }
    }

    /// The same for vectors `first..first + count`, as far as they are allocated.
    pub(crate) fn armed_among(&self, first: u16, count: usize) -> Option<Armed> {
        match &self.active {
            Active::Message(vectors) => Some(vectors.armed(first, count)),
            Active::None | Active::Intx(_) => None,
        }
    }

    /// Who hears a vector.
    pub(super) fn vector(&self, kind: MessageKind, vector: u16) -> Option<Trigger> {
        match &self.active {
            Active::Message(vectors) if vectors.kind == kind => {
                vectors.triggers.get(usize::from(vector)).cloned().flatten()
            }
            Active::None | Active::Intx(_) | Active::Message(_) => None,
        }
    }
}

impl Vectors {
    pub(super) fn let_go(self, after: &mut After) {
        after.let_go.extend(self.triggers.into_iter().flatten());
    }

    fn set(
        &mut self,
        vector: usize,
        trigger: Result<Option<Trigger>, Refusal>,
        rules: VectorRules,
        after: &mut After,
    ) -> Result<(), Refusal> {
        self.take(vector, after);
        if matches!(trigger, Ok(None)) {
            return Ok(());
        }
        if vector >= self.triggers.len() {
            let vector_number = u32::try_from(vector).unwrap_or(u32::MAX);
            if !rules.grows {
                return Err(Refusal::VectorFixed { vector: vector_number });
            }
            if vector >= usize::from(rules.limit) {
                return Err(Refusal::VectorsExhausted { vector: vector_number });
            }
            self.triggers.resize(vector + 1, None);
        }
        self.triggers[vector] = trigger?;
        Ok(())
    }

    fn take(&mut self, vector: usize, after: &mut After) {
        after.let_go.extend(self.triggers.get_mut(vector).and_then(Option::take));
    }

    fn armed(&self, first: u16, count: usize) -> Armed {
        let vectors = self.triggers.iter().skip(usize::from(first)).take(count);
        Armed { kind: self.kind, first, vectors: vectors.map(Option::is_some).collect() }
    }
}
