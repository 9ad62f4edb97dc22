//! The TSM commands, in each profile; where one has no such command, its number is another's or nobody's.
//!
//! Source: [tsm-rfc-v5], [tsm-rfc-v7], [tsm-rfc-2025-05].

use iommufd::{ContextSettings, Tvm};
use uapi::Profile;
use uapi::iommufd::{tsm_request, tvm_arch, viommu_type};

use super::*;
use crate::support::{Confidential, GUEST_ID, Platform};

/// The ids of what [`Confidential`] makes, in this order.
const DEVICE: u64 = 1;
const VIOMMU: u64 = 4;
const PARENT: u64 = 3;
const VDEVICE: u64 = 5;
/// A device without a vdevice.
const OTHER: u64 = 6;
const SMMU: u64 = viommu_type::ARM_SMMUV3 as u64;
const REALM: u64 = viommu_type::ARM_REALM_SMMUV3 as u64;
const CCA: u64 = tvm_arch::CCA as u64;
const SET_STATE: u64 = tsm_request::SET_TDI_STATE as u64;
const SEV_ONLY: u64 = tsm_request::SEV_ENABLE_DMA as u64;
/// More than any request, or any answer, may have.
const TOO_MUCH: u64 = u32::MAX as u64;

pub(super) fn with_vdevice() -> World {
    of(Profile::Rfc)
}

pub(super) fn with_vdevice_v5() -> World {
    of(Profile::RfcV5_2026_05)
}

pub(super) fn with_vdevice_v7() -> World {
    of(Profile::RfcV7_2026_10)
}

pub(super) fn with_vdevice_2025() -> World {
    of(Profile::Rfc2025_05)
}

pub(super) fn with_vdevice_linux() -> World {
    of(Profile::Linux73)
}

fn of(profile: Profile) -> World {
    made(Confidential::new(profile))
}

pub(super) fn without_vm() -> World {
    let settings = ContextSettings { profile: Profile::Rfc, tvm: Tvm::Kvm };
    made(Confidential::with(settings, viommu_type::ARM_SMMUV3))
}

fn made(fixture: Confidential) -> World {
    let vdevice = fixture.vdevice();
    let ids = [fixture.device.id(), fixture.viommu, vdevice].map(u64::from);
    assert_eq!(ids, [DEVICE, VIOMMU, VDEVICE]);
    let Confidential { client, platform, tee, device, .. } = fixture;
    let [other, last] = platform.bind_pair(&client);
    assert_eq!(u64::from(other.id()), OTHER);
    World { client, _kept: Box::new((platform, tee, [device, other, last])) }
}

pub(super) fn without_tsm() -> World {
    let client = Client::open_as(Profile::Rfc);
    let platform = Platform::new();
    let device = platform.bind(&client);
    let hwpt = client.nest_parent(device.id());
    let viommu = client.viommu(viommu_type::ARM_SMMUV3, device.id(), hwpt).unwrap();
    assert_eq!(client.vdevice(viommu, device.id(), 1).map(u64::from), Ok(VDEVICE));
    World { client, _kept: Box::new((platform, device)) }
}

pub(super) const ROWS: &[Row] = &[
    (C::VdeviceTsmOp, &[("flags", 1), ("vdevice_id", MISSING), ("type", 3)], E::EOPNOTSUPP),
    (C::VdeviceTsmOp, &[("vdevice_id", MISSING), ("type", 3)], E::ENOENT),
    (C::VdeviceTsmOp, &[("vdevice_id", VIOMMU), ("type", 3)], E::ENOENT),
    (C::VdeviceTsmOp, &[("vdevice_id", VDEVICE), ("type", 3)], E::EINVAL),
    (C::VdeviceTsmOp, &[("vdevice_id", VDEVICE)], E::EINVAL),
    (C::VdeviceTsmReq, &[("vdevice_id", MISSING), ("tvm_arch", 9)], E::ENOENT),
    (C::VdeviceTsmReq, &[("vdevice_id", VIOMMU), ("tvm_arch", 9)], E::ENOENT),
    (C::VdeviceTsmReq, &[("vdevice_id", VDEVICE), ("op", 9), ("req_len", TOO_MUCH)], E::EINVAL),
    (
        C::VdeviceTsmReq,
        &[("vdevice_id", VDEVICE), ("tvm_arch", CCA), ("op", SEV_ONLY), ("req_len", TOO_MUCH)],
        E::EINVAL,
    ),
    (
        C::VdeviceTsmReq,
        &[("vdevice_id", VDEVICE), ("tvm_arch", CCA), ("op", SET_STATE), ("req_len", TOO_MUCH)],
        E::E2BIG,
    ),
    (
        C::VdeviceTsmReq,
        &[
            ("vdevice_id", VDEVICE),
            ("tvm_arch", CCA),
            ("op", SET_STATE),
            ("req_len", 4),
            ("resp_len", TOO_MUCH),
        ],
        E::E2BIG,
    ),
    (
        C::VdeviceTsmReq,
        &[("vdevice_id", VDEVICE), ("tvm_arch", CCA), ("op", SET_STATE), ("req_len", 4)],
        E::EFAULT,
    ),
    (
        C::VdeviceTsmReq,
        &[
            ("vdevice_id", VDEVICE),
            ("tvm_arch", CCA),
            ("op", SET_STATE),
            ("req_len", 4),
            ("req_uptr", AT),
        ],
        E::ENXIO,
    ),
];

pub(super) const WITHOUT_VM: &[Row] = &[
    (C::VdeviceTsmOp, &[("vdevice_id", MISSING), ("type", 3)], E::ENOENT),
    (C::VdeviceTsmOp, &[("vdevice_id", VDEVICE), ("type", 3)], E::ENODEV),
    (C::ViommuAlloc, &[("type", REALM), ("dev_id", DEVICE), ("hwpt_id", PARENT)], E::EINVAL),
];

pub(super) const WITHOUT_TSM: &[Row] = &[
    (C::VdeviceTsmOp, &[("vdevice_id", VDEVICE), ("type", 3)], E::EINVAL),
    (C::VdeviceTsmOp, &[("vdevice_id", VDEVICE), ("type", 1)], E::EOPNOTSUPP),
    (C::VdeviceTsmOp, &[("vdevice_id", VDEVICE), ("type", 2)], E::EOPNOTSUPP),
    (
        C::VdeviceTsmReq,
        &[("vdevice_id", VDEVICE), ("tvm_arch", CCA), ("op", SET_STATE), ("req_len", 4)],
        E::EFAULT,
    ),
    (
        C::VdeviceTsmReq,
        &[
            ("vdevice_id", VDEVICE),
            ("tvm_arch", CCA),
            ("op", SET_STATE),
            ("req_len", 4),
            ("req_uptr", AT),
        ],
        E::EOPNOTSUPP,
    ),
];

pub(super) const V5: &[Row] = &[
    (C::VdeviceTsmOp, &[("vdevice_id", VDEVICE)], E::EINVAL),
    (C::VdeviceTsmReqV5, &[("__reserved", 1), ("vdevice_id", MISSING)], E::EOPNOTSUPP),
    (C::VdeviceTsmReqV5, &[("vdevice_id", MISSING), ("scope", 4)], E::ENOENT),
    (
        C::VdeviceTsmReqV5,
        &[("vdevice_id", VDEVICE), ("scope", 4), ("req_len", TOO_MUCH)],
        E::EINVAL,
    ),
    (C::VdeviceTsmReqV5, &[("vdevice_id", VDEVICE), ("req_len", TOO_MUCH)], E::E2BIG),
    (C::VdeviceTsmReqV5, &[("vdevice_id", VDEVICE), ("resp_len", TOO_MUCH)], E::E2BIG),
    (C::VdeviceTsmReqV5, &[("vdevice_id", VDEVICE), ("req_len", 4)], E::EFAULT),
    (C::VdeviceTsmReqV5, &[("vdevice_id", VDEVICE), ("req_len", 4), ("req_uptr", AT)], E::ENXIO),
];

pub(super) const V7: &[Row] = &[
    (C::VdeviceTsmOp, &[("vdevice_id", VDEVICE), ("type", 1)], E::ENOTTY),
    (C::VdeviceTsmReq, &[("vdevice_id", MISSING)], E::ENOENT),
    (C::VdeviceTsmReq, &[("vdevice_id", VDEVICE)], E::EINVAL),
];

pub(super) const OF_2025: &[Row] = &[
    (C::VdeviceTsmGuestRequest, &[("vdevice_id", MISSING), ("type", 99)], E::ENOENT),
    (
        C::VdeviceTsmGuestRequest,
        &[("vdevice_id", VDEVICE), ("type", 99), ("resp_len", TOO_MUCH)],
        E::EINVAL,
    ),
    (
        C::VdeviceTsmGuestRequest,
        &[("vdevice_id", VDEVICE), ("type", 1), ("resp_len", TOO_MUCH)],
        E::E2BIG,
    ),
    (C::VdeviceTsmGuestRequest, &[("vdevice_id", VDEVICE), ("type", 1)], E::ENOENT),
    (C::VdeviceTsmOp, &[("vdevice_id", VDEVICE), ("type", 1)], E::ENOTTY),
    (C::VdeviceTsmReq, &[("vdevice_id", VDEVICE)], E::ENOTTY),
];

pub(super) const LINUX: &[Row] = &[
    // The number is that of a command with a longer struct.
    (C::VdeviceTsmOp, &[("vdevice_id", VDEVICE), ("type", 1)], E::EINVAL),
    (C::VdeviceTsmReq, &[("vdevice_id", VDEVICE)], E::ENOTTY),
    (C::VdeviceTsmReqV5, &[("vdevice_id", VDEVICE)], E::ENOTTY),
    (
        C::ViommuAlloc,
        &[("type", SMMU), ("dev_id", DEVICE), ("hwpt_id", PARENT), ("data_len", 1)],
        E::EINVAL,
    ),
    (C::VdeviceAlloc, &[("viommu_id", VIOMMU), ("dev_id", DEVICE), ("virt_id", 2)], E::EEXIST),
    (
        C::VdeviceAlloc,
        &[("viommu_id", VIOMMU), ("dev_id", OTHER), ("virt_id", GUEST_ID)],
        E::EEXIST,
    ),
];
