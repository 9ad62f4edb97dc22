//! What a scenario's calls are made on, as the explorer wants it: the shipped crates, or a design.
//!
//! Takes no lock.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use designs::{Design, Rules, World};
use explore::Model;

use crate::file::Scenario;
use crate::run::Failure;
use crate::script::{Outcome, Step};
use crate::stand::{Stand, StandSettings};
use crate::words::{Call, Object, Verb};

/// A call, and what it may answer.
#[derive(Clone, Debug)]
pub struct Planned {
    pub(crate) call: Call,
    pub(crate) expected: Option<BTreeSet<Outcome>>,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.call.fmt(f)
    }
}

impl Planned {
    /// Passes the outcome on.
    ///
    /// # Panics
    /// If it is not expected, and `strict`.
    fn answered(&self, outcome: Outcome, strict: bool) -> Outcome {
        if let Some(expected) = self.expected.as_ref().filter(|_| strict) {
            let names = || expected.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            assert!(
                expected.contains(&outcome),
                "{} answers {outcome}, and {} is expected",
                self.call,
                names()
            );
        }
        outcome
    }
}

/// The shipped crates, and a program on them, as a scenario has it.
pub struct Shipped {
    settings: StandSettings,
    devices: usize,
    setup: Vec<Step>,
    /// Whether a call is made that may break a TDI's configuration.
    client_breaks: bool,
    strict: bool,
    impossible: OnceLock<Failure>,
}

impl Shipped {
    /// What `scenario` is made on. Where `strict`, a call that answers what is not expected is a violation.
    pub fn new(scenario: &Scenario, strict: bool) -> Self {
        let calls = || scenario.setup.iter().chain(scenario.threads.iter().flatten());
        let is_made = |verb: Verb| calls().any(|step| step.call.verb == verb);
        let numbers = calls().map(|step| step.call.number);
        let settings = StandSettings::of(scenario);
        let resets_break = is_made(Verb::Reset) && settings.resets_break();
        Self {
            settings,
            devices: numbers.max().unwrap_or(0) + 1,
            setup: scenario.setup.clone(),
            client_breaks: resets_break || is_made(Verb::ClearBusMaster),
            strict,
            impossible: OnceLock::new(),
        }
    }

    /// Whether the set-up answered otherwise than it must.
    pub(crate) fn impossible(&self) -> Option<Failure> {
        self.impossible.get().cloned()
    }
}

impl Model for Shipped {
    type World = Stand;
    type Call = Planned;
    type Outcome = Outcome;

    fn setup(&self) -> Stand {
        let stand = Stand::open(&self.settings, self.devices);
        for (index, step) in self.setup.iter().enumerate() {
            let outcome = stand.call(step.call);
            let is_right = match &step.expected {
                Some(expected) => expected.contains(&outcome),
                None => outcome == Outcome::Ok,
            };
            if !is_right {
                let call = step.call.to_string();
                self.impossible.get_or_init(|| Failure::Setup { index, call, outcome });
                panic!("the set-up is impossible");
            }
        }
        stand.begin();
        stand
    }

    fn call(&self, world: &Stand, planned: &Planned) -> Outcome {
        planned.answered(world.call(planned.call), self.strict)
    }

    fn roles(&self, world: &Stand) -> Vec<(String, String)> {
        world.roles()
    }

    fn check(&self, world: &Stand) {
        world.check(self.client_breaks);
    }
}

/// A design.
pub(crate) struct Drawn {
    design: &'static Design,
    rules: Rules,
    strict: bool,
}

impl Drawn {
    pub(crate) fn new((name, without): &(String, Option<String>), strict: bool) -> Self {
        let design = Design::of(name).expect("the file's design was looked up when it was read");
        let rules = without.as_deref().and_then(Rules::without).unwrap_or(Rules::ALL);
        Self { design, rules, strict }
    }
}

impl Model for Drawn {
    type World = Arc<World>;
    type Call = Planned;
    type Outcome = Outcome;

    fn setup(&self) -> Arc<World> {
        self.design.open(self.rules)
    }

    fn call(&self, world: &Arc<World>, planned: &Planned) -> Outcome {
        let call = in_designs(planned.call).expect("the file's calls were looked up");
        let outcome = match world.call(call) {
            Ok(()) => Some(Outcome::Ok),
            Err(refused) => Outcome::parse(&refused.to_string()),
        };
        planned.answered(outcome.expect("a design answers with names of errnos"), self.strict)
    }

    fn check(&self, world: &Arc<World>) {
        world.finish();
    }
}

/// A call as designs have it; `None` where they do not.
pub(crate) fn in_designs(call: Call) -> Option<designs::Call> {
    if call.number > 0 {
        return None;
    }
    Some(match call.verb {
        Verb::TsmBind => designs::Call::TsmBind,
        Verb::TsmUnbind => designs::Call::TsmUnbind,
        Verb::DestroyVdevice => designs::Call::DestroyVdevice,
        Verb::VdeviceAlloc => designs::Call::VdeviceAlloc,
        Verb::IoasAlloc => designs::Call::IoasAlloc,
        Verb::CloseVfio => designs::Call::CloseVfio,
        Verb::CloseIommu => designs::Call::CloseIommu,
        Verb::TsmDisconnect => designs::Call::TsmUnregister,
        Verb::TsmLock
        | Verb::TsmRun
        | Verb::DestroyViommu
        | Verb::CloseVm
        | Verb::Fork
        | Verb::ExitChild
        | Verb::TsmConnect
        | Verb::Remove
        | Verb::Reset
        | Verb::ClearBusMaster
        | Verb::Attach
        | Verb::Detach
        | Verb::Map
        | Verb::Unmap
        | Verb::Dma => return None,
    })
}

/// How many objects of a kind the machine has.
pub(crate) const fn objects(kind: Object) -> usize {
    match kind {
        Object::Vdevice | Object::Viommu | Object::Device | Object::Vfio => {
            crate::stand::DEVICES_MAX
        }
        Object::Ioas | Object::Iommu | Object::Vm | Object::Program | Object::Child => 1,
    }
}
