//! A client with a device behind a vIOMMU, and a TSM for it.

use std::sync::Arc;

use iommufd::{ContextSettings, Device, Tvm};
use uapi::Profile;
use uapi::iommufd::viommu_type;

use super::platform::single_address;
use super::{Client, Platform, Tee};

/// Everything that a TSM command can name.
pub(crate) struct Confidential {
    pub(crate) client: Client,
    pub(crate) platform: Platform,
    pub(crate) tee: Tee,
    pub(crate) device: Arc<Device>,
    pub(crate) hwpt: u32,
    pub(crate) viommu: u32,
}

impl Confidential {
    /// With an ordinary vIOMMU: nothing is bound as it is made.
    pub(crate) fn new(profile: Profile) -> Self {
        Self::behind(profile, viommu_type::ARM_SMMUV3)
    }

    /// With a vIOMMU of a type.
    pub(crate) fn behind(profile: Profile, r#type: u32) -> Self {
        Self::with(ContextSettings { profile, tvm: Tvm::Implicit }, r#type)
    }

    pub(crate) fn with(settings: ContextSettings, r#type: u32) -> Self {
        let tee = Tee::connected(single_address());
        let platform = Platform::with_tsm(&tee.registry);
        let client = Client::open_with(settings);
        let device = platform.bind(&client);
        let hwpt = client.nest_parent(device.id());
        let viommu = client.viommu(r#type, device.id(), hwpt).unwrap();
        Self { client, platform, tee, device, hwpt, viommu }
    }

    /// Makes the device's vdevice.
    pub(crate) fn vdevice(&self) -> u32 {
        self.client.vdevice(self.viommu, self.device.id(), GUEST_ID).unwrap()
    }
}

/// What the guest knows the device by.
pub(crate) const GUEST_ID: u64 = 0x100;
