//! What is varied: the profile and how it binds, and the host's policies.

use std::fmt;

/// A profile, and whether the client takes a confidential guest's vIOMMU, whose vdevices bind as they are
/// made.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) profile: &'static str,
    pub(crate) is_realm: bool,
}

/// Every way in which a profile binds.
pub(crate) const SHAPES: &[Shape] = &[
    Shape { profile: "rfc", is_realm: false },
    Shape { profile: "rfc", is_realm: true },
    Shape { profile: "rfc-v5-2026-05", is_realm: false },
    Shape { profile: "rfc-v7-2026-10", is_realm: true },
    Shape { profile: "rfc-2025-05", is_realm: false },
    Shape { profile: "linux-7.3", is_realm: false },
];

impl Shape {
    /// Whether there is anything to bind.
    pub(crate) fn has_tsm(&self) -> bool {
        self.profile != "linux-7.3"
    }

    /// The client's further arguments.
    pub(crate) fn arguments(&self) -> &'static str {
        if self.is_realm { " realm" } else { "" }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.profile)?;
        if self.profile == "rfc" {
            f.write_str(if self.is_realm { " (VDEVICE_ALLOC)" } else { " (TSM_OP)" })?;
        }
        Ok(())
    }
}

/// How the host behaves, in the words of a platform file.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) close_order: &'static str,
    pub(crate) reset_while_bound: &'static str,
    pub(crate) client_clears_bme: &'static str,
    pub(crate) flr_while_locked: &'static str,
    pub(crate) tvm: &'static str,
    /// Which orders are run under it.
    pub(crate) runs: Runs,
}

/// How much is run under a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runs {
    /// Every order, also with a bind in flight.
    Everything,
    /// Every order, with the TDI in RUN.
    Settled,
    /// One order, also with a bind in flight.
    Only(&'static str),
}

/// Each value of each policy at least once, and the default ones with all else.
pub(crate) const POLICIES: &[Policy] = &[
    Policy {
        close_order: "unbind-first",
        reset_while_bound: "refuse",
        client_clears_bme: "error",
        flr_while_locked: "unlocked",
        tvm: "implicit",
        runs: Runs::Everything,
    },
    Policy {
        close_order: "linux-7.3",
        reset_while_bound: "unbind",
        client_clears_bme: "refuse",
        flr_while_locked: "unlocked",
        tvm: "implicit",
        runs: Runs::Settled,
    },
    Policy {
        close_order: "unbind-first",
        reset_while_bound: "unbind",
        client_clears_bme: "error",
        flr_while_locked: "unlocked",
        tvm: "implicit",
        runs: Runs::Only("reset"),
    },
    Policy {
        close_order: "unbind-first",
        reset_while_bound: "error",
        client_clears_bme: "error",
        flr_while_locked: "unlocked",
        tvm: "implicit",
        runs: Runs::Only("reset"),
    },
    Policy {
        close_order: "unbind-first",
        reset_while_bound: "error",
        client_clears_bme: "error",
        flr_while_locked: "error",
        tvm: "implicit",
        runs: Runs::Only("reset"),
    },
    Policy {
        close_order: "unbind-first",
        reset_while_bound: "refuse",
        client_clears_bme: "error",
        flr_while_locked: "unlocked",
        tvm: "kvm",
        runs: Runs::Only("vm"),
    },
];

impl Policy {
    /// The lines of a platform file's `[settings]`, key and value.
    pub(crate) fn settings(&self) -> [(&'static str, &'static str); 5] {
        [
            ("close_order", self.close_order),
            ("reset_while_bound", self.reset_while_bound),
            ("client_clears_bme", self.client_clears_bme),
            ("flr_while_locked", self.flr_while_locked),
            ("tvm", self.tvm),
        ]
    }

    /// Those of its values on which an order depends.
    pub(crate) fn deciding(&self, order: &str) -> String {
        match order {
            "reset" if self.reset_while_bound == "error" => {
                format!("reset_while_bound = error (flr_while_locked = {})", self.flr_while_locked)
            }
            "reset" => format!("reset_while_bound = {}", self.reset_while_bound),
            "bus-master" => format!("client_clears_bme = {}", self.client_clears_bme),
            "vm" if self.tvm == "kvm" => "tvm = kvm".to_owned(),
            _ => format!("close_order = {}", self.close_order),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.settings().map(|(_, value)| value);
        f.write_str(&values.join("/"))
    }
}
