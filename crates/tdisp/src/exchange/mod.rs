//! The requests, each in a file with its response.
//!
//! Fields are plain and open: a value that nobody knows is kept and printed, not refused.
//! Source: [pci_tdisp.h].

mod capabilities;
mod error;
mod lock;
mod p2p;
mod portion;
mod start_stop;
mod state;
mod vdm;
mod version;

pub use capabilities::{Capabilities, GetCapabilities, RequestNumbering, RequestSet};
pub use error::{ErrorCode, ErrorResponse};
pub use lock::{LockFlags, LockInterface, LockInterfaceResponse, NONCE_BYTES, Nonce};
pub use p2p::{
    BindP2pStream, BindP2pStreamResponse, SetMmioAttribute, SetMmioAttributeResponse,
    UnbindP2pStream, UnbindP2pStreamResponse,
};
pub use portion::{GetReport, ReportPortion};
pub use start_stop::{
    StartInterface, StartInterfaceResponse, StopInterface, StopInterfaceResponse,
};
pub use state::{GetState, InterfaceState};
pub use vdm::{VdmRequest, VdmResponse};
pub use version::{GetVersion, Versions};

/// Messages that are a header and nothing else.
macro_rules! empty_bodies {
    ($($(#[$doc:meta])* $body:ident = $kind:ident;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
            pub struct $body;

            impl<'a> crate::Body<'a> for $body {
                const TYPE: crate::MessageType = crate::MessageType::$kind;

                fn read(_: &mut crate::Reader<'a>) -> Result<Self, crate::PeerFault> {
                    Ok(Self)
                }

                fn write(&self, _: &mut crate::Writer<'_>) {}
            }
        )*
    };
}
use empty_bodies;
