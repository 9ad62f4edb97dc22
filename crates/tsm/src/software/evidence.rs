//! Evidence objects: bytes that a guest judges, with the making of them that they are.
//!
//! The interface report is the TDI's own. What the device has shown of itself, which all its TDIs
//! share, can be had from an SPDM session only: policy `absent-evidence`.

use std::hash::{Hash, Hasher};

use sync::Contents;
use tdisp::Nonce;

use crate::{EvidenceObject, ObjectKind, ObjectView, Refusal};

/// The evidence about one interface.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    report: Option<Object>,
    /// How often a report was made.
    generation: u64,
}

/// An object.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) kind: ObjectKind,
    pub(super) generation: u64,
    /// The guest's, where it gave one for this making.
    pub(super) nonce: Option<Nonce>,
    pub(super) bytes: Vec<u8>,
}

impl Object {
    pub(super) fn view(&self) -> ObjectView {
        ObjectView {
            kind: self.kind,
            generation: self.generation,
            length: self.bytes.len(),
            has_nonce: self.nonce.is_some(),
        }
    }
}

impl Contents for Evidence {
    fn contents(&self, mut into: &mut dyn Hasher) {
        self.generation.hash(&mut into);
        if let Some(report) = &self.report {
            let nonce = report.nonce.as_ref().map(|nonce| nonce.0);
            (report.kind, report.generation, nonce, &report.bytes).hash(&mut into);
        }
    }
}

impl Object {
    /// The object, whole.
    pub(super) fn shown(&self) -> EvidenceObject {
        EvidenceObject {
            kind: self.kind,
            generation: self.generation,
            nonce: self.nonce.map(|nonce| nonce.0),
            bytes: self.bytes.clone(),
        }
    }
}

impl Evidence {
    /// The report as an object, if there is one.
    pub(super) fn report_object(&self) -> Option<&Object> {
        self.report.as_ref()
    }

    /// Keeps a new report.
    pub(super) fn keep_report(&mut self, bytes: Vec<u8>, nonce: Option<Nonce>) {
        self.generation += 1;
        let (kind, generation) = (ObjectKind::InterfaceReport, self.generation);
        self.report = Some(Object { kind, generation, nonce, bytes });
    }

    /// Drops the report: the interface is not locked any more.
    pub(super) fn drop_report(&mut self) {
        self.report = None;
    }

    /// The report, if there is one.
    pub(super) fn report(&self) -> Option<&[u8]> {
        self.report.as_ref().map(|object| object.bytes.as_slice())
    }

    /// The bytes of an object, the interface's or one of `device`.
    ///
    /// # Errors
    /// [`Refusal::NoObject`] (`ENODATA`).
    pub(super) fn bytes<'a>(
        &'a self,
        kind: ObjectKind,
        device: &'a [Object],
    ) -> Result<&'a [u8], Refusal> {
        let mut objects = self.report.iter().chain(device);
        let found = objects.find(|object| object.kind == kind);
        found.map(|object| object.bytes.as_slice()).ok_or(Refusal::NoObject { kind })
    }

    pub(super) fn views(&self) -> Vec<ObjectView> {
        self.report.iter().map(Object::view).collect()
    }
}
