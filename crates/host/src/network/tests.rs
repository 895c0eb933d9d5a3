// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Taps and bridges of the real kernel, in a network namespace that belongs to the test's thread
//! and goes with it. Without root there is no such namespace, and the tests say that they skip.

use super::*;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::LinkBridge;
use whimbrel_model::id::LocalId;

const TAP: TapName = TapName { guest: LocalId(7), index: 0 };

/// Returns the network of a fresh namespace with two bridges: `br0` of MTU 1400, and `br1`, down.
async fn own_network() -> Option<Network> {
    if unshare(CloneFlags::CLONE_NEWNET).is_err() {
        println!("SKIPPED: a network namespace of its own needs root");
        return None;
    }
    let network = Network::open().unwrap();
    let links = || network.handle.link();
    links().add(LinkBridge::new("br0").mtu(1400).up().build()).execute().await.unwrap();
    links().add(LinkBridge::new("br1").down().build()).execute().await.unwrap();
    Some(network)
}

/// Bridges are told from other links, and one that is missing is named with those there are.
#[tokio::test]
async fn bridges_are_listed() {
    let Some(network) = own_network().await else { return };
    let bridges = network.bridges().await.unwrap();
    let seen: Vec<_> =
        bridges.iter().map(|b| (b.name.as_str(), b.mtu, b.is_up, b.has_stp)).collect();
    assert_eq!(seen, [("br0", 1400, true, false), ("br1", 1500, false, false)]);

    let missing = network.bridge("xenbr0").await.unwrap_err();
    assert_eq!(
        missing.to_string(),
        "there is no bridge `xenbr0` on this host, which has `br0`, `br1`"
    );
    assert_eq!(missing.code(), "network/no-bridge");
}

/// The life of a tap: made with the bridge's MTU and on no bridge, attached (twice), moved, taken
/// off (twice), and gone when its descriptor is closed, without anybody deleting it.
#[tokio::test]
async fn a_tap_lives_as_long_as_its_descriptor() {
    let Some(network) = own_network().await else { return };
    assert_eq!(network.taps().await.unwrap(), []);
    let descriptor = network.create_tap(TAP, "br0").await.unwrap();
    assert_eq!(network.taps().await.unwrap(), [TAP]);
    assert_eq!(network.bridge_of(TAP).await.unwrap(), None);
    let links = network.links().await.unwrap();
    let tap = links.iter().find(|link| link_name(link) == Some("wb7n0")).unwrap();
    assert!(tap.attributes.contains(&LinkAttribute::Mtu(1400)));
    assert!(tap.header.flags.contains(LinkFlags::Up));

    for bridge in ["br0", "br0", "br1"] {
        network.attach(TAP, bridge).await.unwrap();
        assert_eq!(network.bridge_of(TAP).await.unwrap().as_deref(), Some(bridge));
    }
    for _ in 0..2 {
        network.detach(TAP).await.unwrap();
        assert_eq!(network.bridge_of(TAP).await.unwrap(), None);
    }

    // The daemon's copy is closed, the engine's keeps the tap.
    let engine = descriptor.try_clone().unwrap();
    drop(descriptor);
    assert_eq!(network.taps().await.unwrap(), [TAP]);
    drop(engine);
    assert_eq!(network.taps().await.unwrap(), []);
    network.detach(TAP).await.unwrap();
    assert!(matches!(network.attach(TAP, "br0").await, Err(NetworkError::NoLink { .. })));
}

/// A link that another program has made, as Xen's card of a guest: on the bridge, up, with its MTU
/// and an address that no bridge takes for its own; and off again, however often.
#[tokio::test]
async fn a_link_of_others_is_joined_and_left() {
    let Some(network) = own_network().await else { return };
    let pair = rtnetlink::LinkVeth::new("vif3.0", "peer").build();
    network.handle.link().add(pair).execute().await.unwrap();
    let state = async || {
        let links = network.links().await.unwrap();
        let link = links.iter().find(|link| link_name(link) == Some("vif3.0")).unwrap().clone();
        let bridge = links
            .iter()
            .filter_map(as_bridge)
            .find(|bridge| link.attributes.contains(&LinkAttribute::Controller(bridge.index)));
        (link, bridge.map(|bridge| bridge.name))
    };
    for (mtu, expected) in [(None, 1400), (None, 1400), (Some(1300), 1300)] {
        assert_eq!(network.join("vif3.0", "br0", mtu).await.unwrap(), expected);
        let (link, bridge) = state().await;
        assert_eq!(bridge.as_deref(), Some("br0"));
        assert!(link.header.flags.contains(LinkFlags::Up));
        assert!(link.attributes.contains(&LinkAttribute::Mtu(expected)));
        assert!(link.attributes.contains(&LinkAttribute::Address(PORT_ADDRESS.to_vec())));
    }
    for _ in 0..2 {
        network.leave("vif3.0").await.unwrap();
        let (link, bridge) = state().await;
        assert_eq!((link.header.flags.contains(LinkFlags::Up), bridge), (false, None));
    }
    network.leave("vif9.0").await.unwrap();
    let missing = network.join("vif9.0", "br0", None).await;
    assert!(matches!(missing, Err(NetworkError::NoLink { .. })));
    let missing = network.join("vif3.0", "xenbr0", None).await.unwrap_err();
    assert_eq!(missing.code(), "network/no-bridge");
}

/// A tap that somebody else holds is not taken over, and one can be deleted under its holder.
#[tokio::test]
async fn a_taken_tap_is_refused_and_a_leftover_deleted() {
    let Some(network) = own_network().await else { return };
    let _held = network.create_tap(TAP, "br0").await.unwrap();
    assert!(matches!(network.create_tap(TAP, "br0").await, Err(NetworkError::Taken { .. })));
    network.delete(TAP).await.unwrap();
    network.delete(TAP).await.unwrap();
    assert_eq!(network.taps().await.unwrap(), []);
    network.create_tap(TAP, "br0").await.unwrap();
}

/// A tap asked for on a bridge that is not there leaves nothing behind.
#[tokio::test]
async fn no_bridge_no_tap() {
    let Some(network) = own_network().await else { return };
    let made = network.create_tap(TAP, "nowhere").await;
    assert!(matches!(made, Err(NetworkError::NoBridge { .. })));
    assert_eq!(network.taps().await.unwrap(), []);
}

/// Guests that arrive at the same moment all look for their bridge, and none is told that the
/// kernel is busy.
#[tokio::test]
async fn many_list_at_once() {
    let network = Network::open().unwrap();
    let listing = (0..64).map(|_| network.bridges());
    for bridges in futures::future::join_all(listing).await {
        bridges.unwrap();
    }
}
