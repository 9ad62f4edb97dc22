//! Evidence objects: bytes that a guest judges, with the making of them that they are.
//!
//! Only the interface report can be had without an SPDM session: policy `absent-evidence`.

use tdisp::Nonce;

use crate::{ObjectKind, ObjectView, Refusal};

/// The evidence about one interface.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    report: Option<Object>,
    /// How often a report was made.
    generation: u64,
}

#[derive(Debug)]
struct Object {
    generation: u64,
    /// The guest's, where it gave one for this making.
    nonce: Option<Nonce>,
    bytes: Vec<u8>,
}

impl Evidence {
    /// Keeps a new report.
    pub(super) fn keep_report(&mut self, bytes: Vec<u8>, nonce: Option<Nonce>) {
        self.generation += 1;
        self.report = Some(Object { generation: self.generation, nonce, bytes });
    }

    /// Drops the report: the interface is not locked any more.
    pub(super) fn drop_report(&mut self) {
        self.report = None;
    }

    /// The report, if there is one.
    pub(super) fn report(&self) -> Option<&[u8]> {
        self.report.as_ref().map(|object| object.bytes.as_slice())
    }

    /// An object's bytes.
    ///
    /// # Errors
    /// [`Refusal::NoObject`] (`ENODATA`).
    pub(super) fn bytes(&self, kind: ObjectKind) -> Result<&[u8], Refusal> {
        let bytes = match kind {
            ObjectKind::InterfaceReport => self.report(),
            ObjectKind::Vca | ObjectKind::Certificate | ObjectKind::Measurement => None,
        };
        bytes.ok_or(Refusal::NoObject { kind })
    }

    pub(super) fn views(&self) -> Vec<ObjectView> {
        let view = |object: &Object| ObjectView {
            kind: ObjectKind::InterfaceReport,
            generation: object.generation,
            length: object.bytes.len(),
            has_nonce: object.nonce.is_some(),
        };
        self.report.iter().map(view).collect()
    }
}
