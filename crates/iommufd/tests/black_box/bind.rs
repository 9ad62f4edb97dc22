//! Binding functions to contexts, and who owns a group's DMA.

use iommufd::{Device, HotResetView, Refusal};
use uapi::Errno;

use crate::support::{Client, Platform, plain};

fn refusal(client: &Client, platform: &Platform) -> Option<Errno> {
    Device::bind(&client.ctx, &platform.single).err().map(|refusal| refusal.errno())
}

#[test]
fn an_unsafe_platform_is_refused_in_the_kernels_order() {
    let client = Client::open();
    let mut geometry = plain();
    geometry.msi_isolated = false;
    assert_eq!(refusal(&client, &Platform::behind(geometry.clone())), Some(Errno::EPERM));
    geometry.cache_coherent = false;
    assert_eq!(refusal(&client, &Platform::behind(geometry)), Some(Errno::EINVAL));
    assert_eq!(client.ctx.counts().objects(), 0);
    assert_eq!(client.ioas(), 1, "no id is lost");
}

#[test]
fn a_group_belongs_to_one_context_at_a_time() {
    let (one, other) = (Client::open(), Client::open());
    let platform = Platform::new();
    let [first, second] = platform.bind_pair(&one);
    let foreign = || Device::bind(&other.ctx, &platform.pair[1]);
    assert_eq!(foreign().err(), Some(Refusal::OwnedElsewhere { group: 2 }));
    first.end();
    assert_eq!(foreign().err().map(|refusal| refusal.errno()), Some(Errno::EPERM));
    second.end();
    foreign().unwrap();
}

#[test]
fn a_bound_device_keeps_its_id_until_it_ends() {
    let client = Client::open();
    let platform = Platform::new();
    let device = platform.bind(&client);
    assert_eq!((device.id(), client.ioas()), (1, 2));
    device.begin_end();
    device.begin_end();
    assert_eq!(device.attach(2), Err(Refusal::NoObject { id: 1 }));
    device.end();
    assert_eq!(platform.bind(&client).id(), 1);
}

#[test]
fn what_resets_together_is_seen_by_context() {
    let (client, other) = (Client::open(), Client::open());
    let platform = Platform::new();
    let [near, far] = &platform.pair;
    let single = platform.bind(&client);
    assert_eq!(single.hot_reset_view(near), HotResetView::NotOwned);
    let bound = Device::bind(&client.ctx, near).unwrap();
    assert_eq!(single.hot_reset_view(near), HotResetView::Bound { id: bound.id() });
    assert_eq!(single.hot_reset_view(far), HotResetView::Owned);
    bound.end();
    let elsewhere = Device::bind(&other.ctx, near).unwrap();
    assert_eq!(single.hot_reset_view(near), HotResetView::NotOwned);
    assert_eq!(single.hot_reset_view(far), HotResetView::NotOwned);
    elsewhere.end();
}
