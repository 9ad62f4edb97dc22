//! What the TSM is asked for, seen where it is asked: the host's own counters say what it means to have done.
//!
//! Between a bind that may have been done and the next, or the end of the connection, is one unbind (I3). Takes no
//! lock: a session has one caller at a time, and what is noted here follows from what that caller did with it.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use pci::Address;
use sync::Contents;
use tdisp::State;
use tsm::{
    Backend, Exchange, Failure, FunctionFacts, GuestRequest, GuestResponse, Memory, Opened,
    Refusal, Session, TdiRecord,
};

/// A TSM, watched.
pub(super) struct Witness(pub(super) Arc<dyn Backend>);

struct Watched {
    session: Box<dyn Session>,
    /// Functions whose TDI the TSM may have.
    bound: BTreeSet<Address>,
}

impl Backend for Witness {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn open(&self, dsm: &FunctionFacts) -> Result<Opened, Refusal> {
        let Opened { session, transport } = self.0.open(dsm)?;
        let session = Box::new(Watched { session, bound: BTreeSet::new() });
        Ok(Opened { session, transport })
    }
}

impl Watched {
    fn assert_unbound(&self, function: Address, what: &str) {
        let is_bound = self.bound.contains(&function);
        assert!(!is_bound, "I3: {function} is {what} and was bound without an unbind since");
    }
}

impl Contents for Watched {
    fn contents(&self, mut into: &mut dyn Hasher) {
        self.bound.hash(&mut into);
        if let Some(session) = self.session.as_contents() {
            session.contents(into);
        }
    }
}

impl Session for Watched {
    fn as_contents(&self) -> Option<&dyn Contents> {
        self.session.as_contents().map(|_| self as &dyn Contents)
    }

    fn connect(&mut self, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        self.session.connect(exchange)
    }

    fn disconnect(&mut self, exchange: &mut Exchange<'_>) {
        for function in &self.bound {
            self.assert_unbound(*function, "disconnected");
        }
        self.session.disconnect(exchange);
    }

    fn probe(
        &mut self,
        function: &FunctionFacts,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Failure> {
        self.session.probe(function, exchange)
    }

    fn forget(&mut self, function: &FunctionFacts) {
        self.assert_unbound(function.address, "forgotten");
        self.session.forget(function);
    }

    fn bind(
        &mut self,
        function: &FunctionFacts,
        guest_id: u64,
        exchange: &mut Exchange<'_>,
    ) -> Result<Option<State>, Failure> {
        self.assert_unbound(function.address, "bound");
        let bound = self.session.bind(function, guest_id, exchange);
        if matches!(&bound, Ok(Some(_))) || bound.is_err_and(Failure::is_unknown) {
            self.bound.insert(function.address);
        }
        bound
    }

    fn unbind(
        &mut self,
        function: &FunctionFacts,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Failure> {
        self.bound.remove(&function.address);
        self.session.unbind(function, exchange)
    }

    fn settle(
        &mut self,
        function: &FunctionFacts,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Failure> {
        self.session.settle(function, exchange)
    }

    fn request(
        &mut self,
        function: &FunctionFacts,
        request: &GuestRequest<'_>,
        memory: &dyn Memory,
        exchange: &mut Exchange<'_>,
    ) -> Result<GuestResponse, Failure> {
        self.session.request(function, request, memory, exchange)
    }

    fn observe(&mut self, function: Address, state: State) {
        self.session.observe(function, state);
    }

    fn record(&self, function: &FunctionFacts) -> TdiRecord {
        self.session.record(function)
    }

    fn keys(&self) -> usize {
        self.session.keys()
    }
}
