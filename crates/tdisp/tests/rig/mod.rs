//! A DSM with a physical function and a virtual one, the device behind it, and who asks.

use bindery_tdisp::exchange::{GetState, LockInterface, StartInterface, StopInterface};
use bindery_tdisp::report::{self, Extent, FirstPage, Function, MemoryBar};
use bindery_tdisp::{
    Answer, Change, Device, DeviceRefusal, Dsm, ErrorCode, InterfaceId, LockFlags, Nonce,
    REPORT_BYTES_MAX, Refused, RequestBody, Requester, SessionId, Settings, State,
};

pub(crate) const PF: u16 = 0x0100;
pub(crate) const VF: u16 = 0x0101;
pub(crate) const US: SessionId = SessionId(1);
pub(crate) const OTHER: SessionId = SessionId(2);

const BAR: MemoryBar = MemoryBar {
    number: 0,
    address: 0xfe00_0000,
    length: 0x8000,
    msix_table: Some(Extent { offset: 0x2000, length: 0x800 }),
    msix_pba: Some(Extent { offset: 0x3000, length: 0x10 }),
    non_tee: false,
};

/// A device that does as it is told, and tells what it was told.
#[derive(Default)]
pub(crate) struct Obedient {
    drawn: u8,
    pub(crate) dry: bool,
    pub(crate) refuses: Option<DeviceRefusal>,
    pub(crate) told: Vec<(&'static str, u16)>,
}

impl Device for Obedient {
    fn nonce(&mut self) -> Option<Nonce> {
        self.drawn += 1;
        (!self.dry).then_some(Nonce([self.drawn; 32]))
    }

    fn lock(
        &mut self,
        requester_id: u16,
        parameters: &LockInterface,
        report: &mut [u8; REPORT_BYTES_MAX],
    ) -> Result<usize, DeviceRefusal> {
        self.told.push(("lock", requester_id));
        self.refuses.map_or(Ok(()), Err)?;
        let function = Function {
            bars: &[BAR],
            device_specific: &[7; 60],
            msix_control: 3,
            ..Function::default()
        };
        report::describe(&function, parameters, FirstPage::Address, report)
            .map_err(|_| DeviceRefusal::Misconfigured)
    }

    fn start(&mut self, requester_id: u16) -> Result<(), DeviceRefusal> {
        self.told.push(("start", requester_id));
        self.refuses.map_or(Ok(()), Err)
    }

    fn stop(&mut self, requester_id: u16) {
        self.told.push(("stop", requester_id));
    }
}

/// A DSM with a PF and a VF, and its device.
pub(crate) struct Rig {
    pub(crate) dsm: Dsm<2>,
    pub(crate) device: Obedient,
    pub(crate) change: Option<Change>,
}

impl Rig {
    pub(crate) fn new(settings: Settings) -> Self {
        let mut dsm = Dsm::new(settings);
        dsm.add(PF).unwrap();
        dsm.add(VF).unwrap();
        Self { dsm, device: Obedient::default(), change: None }
    }

    /// Sends bytes and returns the response.
    pub(crate) fn send(&mut self, session: SessionId, request: &[u8]) -> Vec<u8> {
        let mut response = [0; 128];
        let answer = self.dsm.respond(session, request, &mut self.device, &mut response);
        let Answer { length, change } = answer.unwrap();
        self.change = change;
        response[..length].to_vec()
    }

    /// Asks, and gives what was answered to `read`.
    pub(crate) fn ask<B: RequestBody<'static>, T>(
        &mut self,
        session: SessionId,
        function: u16,
        body: B,
        read: impl FnOnce(B::Response<'_>) -> T,
    ) -> Result<T, Refused> {
        let requester = Requester::new(InterfaceId::new(function));
        let mut request = [0; 64];
        let length = requester.request(&body, &mut request).unwrap();
        let response = self.send(session, &request[..length]);
        requester.response::<B>(&response).map(read)
    }

    pub(crate) fn lock(&mut self, function: u16, flags: LockFlags) -> Result<Nonce, Refused> {
        let lock = LockInterface { flags, ..LockInterface::default() };
        self.ask(US, function, lock, |response| response.nonce)
    }

    pub(crate) fn start(
        &mut self,
        session: SessionId,
        function: u16,
        nonce: Nonce,
    ) -> Result<(), Refused> {
        self.ask(session, function, StartInterface { nonce }, drop)
    }

    pub(crate) fn stop(&mut self, function: u16) -> Result<(), Refused> {
        self.ask(US, function, StopInterface, drop)
    }

    pub(crate) fn state(&mut self, function: u16) -> State {
        self.ask(OTHER, function, GetState, |state| State::try_from(state).unwrap()).unwrap()
    }
}

pub(crate) fn refused<T>(code: ErrorCode) -> Result<T, Refused> {
    Err(Refused::Error { code, data: 0 })
}

/// The code of a response that must be an ERROR.
pub(crate) fn error(response: &[u8]) -> (ErrorCode, u32) {
    assert_eq!((response[0], response[1], response.len()), (0x10, 0x7f, 24));
    let word = |at: usize| u32::from_le_bytes(response[at..at + 4].try_into().unwrap());
    (ErrorCode(word(16)), word(20))
}
