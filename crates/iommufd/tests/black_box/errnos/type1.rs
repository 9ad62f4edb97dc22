//! A container's commands, on a context.

use iommufd::Context;
use uapi::vfio::extension;

use super::*;

const UPDATE: u64 = 4;
const ALL: u64 = 2;
const DIRTY_BITMAP: u64 = 1;

pub(super) fn without_ioas() -> World {
    World { client: Client::open(), _kept: Box::new(()) }
}

/// One that a group brought along, with two pages mapped.
pub(super) fn with_ioas() -> World {
    let world = without_ioas();
    let ctx = &world.client.ctx;
    Context::ensure_compat_ioas(ctx).unwrap();
    world.client.map_at(ctx.compat_ioas_id().unwrap(), IOVA, VA, 2 * PAGE).unwrap();
    world
}

pub(super) const WITHOUT_IOAS: &[Row] = &[
    (C::CheckExtension, &[(VALUE, extension::DMA_CC_IOMMU)], E::ENODEV),
    (C::SetIommu, &[(VALUE, 99)], E::EINVAL),
    (C::SetIommu, &[(VALUE, extension::TYPE1_IOMMU)], E::ENODEV),
    (C::IommuGetInfo, &[(VALUE, 0)], E::EFAULT),
    (C::IommuGetInfo, &[("argsz", 15)], E::EINVAL),
    (C::IommuGetInfo, &[], E::ENODEV),
    (C::IommuMapDma, &[("argsz", 31), ("flags", UPDATE)], E::EINVAL),
    (C::IommuMapDma, &[("flags", UPDATE)], E::EINVAL),
    (C::IommuMapDma, &[("vaddr", TOP), ("size", 2)], E::ENODEV),
    (C::IommuUnmapDma, &[("argsz", 23), ("flags", UPDATE)], E::EINVAL),
    (C::IommuUnmapDma, &[("flags", DIRTY_BITMAP)], E::EINVAL),
    (C::IommuUnmapDma, &[("flags", ALL), ("size", 1)], E::ENODEV),
    (C::IommuDirtyPages, &[(VALUE, 0)], E::ENOTTY),
];

pub(super) const WITH_IOAS: &[Row] = &[
    (C::SetIommu, &[(VALUE, extension::NOIOMMU_IOMMU)], E::EINVAL),
    (C::IommuMapDma, &[("vaddr", TOP), ("size", 2)], E::EOVERFLOW),
    (C::IommuMapDma, &[("iova", TOP)], E::EINVAL),
    (C::IommuMapDma, &[("iova", TOP), ("size", 2)], E::EOVERFLOW),
    (C::IommuMapDma, &[("iova", IOVA + PAGE), ("size", PAGE), ("vaddr", UNMAPPED)], E::EEXIST),
    (C::IommuUnmapDma, &[("flags", ALL), ("size", 1)], E::EINVAL),
    (C::IommuUnmapDma, &[("iova", TOP)], E::EINVAL),
    (C::IommuUnmapDma, &[("iova", TOP), ("size", 2)], E::EOVERFLOW),
    (C::IommuUnmapDma, &[("iova", IOVA), ("size", PAGE)], E::ENOENT),
];
