//! How many places an explorer has to stop at in a TSM call, in this crate and in the TSM core.

use std::cell::RefCell;
use std::rc::Rc;

use sync::hook::{self, Hook, Operation};
use sync::rank::{self, Rank};
use uapi::CommandId;
use uapi::Profile;
use uapi::iommufd::{TsmReq, tsm_request, tvm_arch, viommu_type};

use crate::support::{Confidential, GUEST_ID};

/// What an explorer can afford of a call about a TDI.
const CALL_MAX: usize = 15;

/// Of one that makes a vdevice too, or ends its device: it changes three tables and several counts more.
const MORE_MAX: usize = 25;

/// Notes every scheduling point of its thread.
#[derive(Default)]
struct Points(RefCell<Vec<String>>);

impl Hook for Points {
    fn before(&self, operation: Operation) {
        // The client's memory and the device are the tests' own.
        let counts = operation.is_scheduling_point() && operation.name != rank::DeviceSet::NAME;
        if counts {
            self.0.borrow_mut().push(format!("{} {:?}", operation.name, operation.kind));
        }
    }
}

fn points_of(call: impl FnOnce()) -> Vec<String> {
    let points = Rc::new(Points::default());
    let installed = hook::install(Rc::clone(&points) as Rc<dyn Hook>);
    call();
    drop(installed);
    points.0.take()
}

#[test]
fn no_tsm_call_has_too_many() {
    let fixture = Confidential::new(Profile::Rfc);
    let vdevice_id = fixture.vdevice();
    let client = &fixture.client;
    let request = TsmReq {
        vdevice_id,
        op: tsm_request::SET_TDI_STATE,
        tvm_arch: tvm_arch::CCA,
        req_len: 4,
        req_uptr: 0x10_0000,
        ..TsmReq::default()
    };
    let realm = Confidential::behind(Profile::Rfc, viommu_type::ARM_REALM_SMMUV3);
    let calls: [(&str, usize, &dyn Fn()); 7] = [
        ("bind", CALL_MAX, &|| client.tsm_bind(vdevice_id).unwrap()),
        ("bind again", CALL_MAX, &|| client.tsm_bind(vdevice_id).unwrap()),
        ("request", CALL_MAX, &|| _ = client.call(CommandId::VdeviceTsmReq, request).unwrap()),
        ("unbind", CALL_MAX, &|| client.tsm_unbind(vdevice_id).unwrap()),
        ("destroy", CALL_MAX, &|| client.destroy(vdevice_id).unwrap()),
        ("make and bind", MORE_MAX, &|| {
            realm.client.vdevice(realm.viommu, realm.device.id(), GUEST_ID).unwrap();
        }),
        ("begin_end of a bound device", MORE_MAX, &|| realm.device.begin_end()),
    ];
    for (name, most, call) in calls {
        let points = points_of(call);
        println!("{name}: {} scheduling points", points.len());
        assert!((1..=most).contains(&points.len()), "{name} has {points:#?}");
    }
}
