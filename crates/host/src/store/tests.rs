// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What goes in comes out, stays within its bounds, and a store from elsewhere is refused.

use super::*;

fn open() -> (tempfile::TempDir, Tables) {
    let temp = tempfile::tempdir().unwrap();
    let tables = Tables::open(&temp.path().join("store.sqlite")).unwrap();
    (temp, tables)
}

fn id(number: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(number)
}

fn guest(number: u128, name: &str) -> NewGuest {
    NewGuest {
        guest: GuestId(id(number)),
        name: name.into(),
        definition: "name = \"web1\"\n".into(),
        passport: None,
        autostart: true,
        transient: false,
        desired: Desired::Running,
    }
}

fn event(guest: Option<u128>, ms: u64, text: &str) -> EventRow {
    EventRow {
        id: 0,
        at: UNIX_EPOCH + Duration::from_millis(ms),
        guest: guest.map(id).map(GuestId),
        guest_name: guest.map(|_| "web1".into()),
        handoff: Some(HandoffId(id(9))),
        host: "alpha".into(),
        actor_uid: Some(1000),
        level: "info".into(),
        code: None,
        text: text.into(),
    }
}

/// A guest is added, changed, found and removed; names and uuids are refused when taken.
#[test]
fn guests_come_and_go() {
    let (_temp, mut tables) = open();
    let added = tables.add_guest(&guest(1, "web1")).unwrap();
    assert_eq!((added.local_id, added.desired), (LocalId(1), Desired::Running));
    assert_eq!(tables.guest(added.guest).unwrap(), Some(added.clone()));

    let taken = tables.add_guest(&guest(2, "web1")).unwrap_err();
    assert!(matches!(&taken, StoreError::NameTaken { name } if name == "web1"));
    assert_eq!(taken.kind(), Kind::Refused);
    let taken = tables.add_guest(&guest(1, "web2"));
    assert!(matches!(taken, Err(StoreError::GuestTaken { .. })));

    let renamed = NewGuest { passport: Some("{}".into()), ..guest(1, "web9") };
    tables.update_guest(&renamed).unwrap();
    tables.set_desired(added.guest, Desired::Stopped).unwrap();
    let expected = GuestRow {
        name: "web9".into(),
        passport: Some("{}".into()),
        desired: Desired::Stopped,
        ..added
    };
    assert_eq!(tables.guests().unwrap(), std::slice::from_ref(&expected));
    tables.add_guest(&guest(2, "web1")).unwrap();
    assert!(matches!(tables.update_guest(&guest(2, "web9")), Err(StoreError::NameTaken { .. })));
    assert!(matches!(tables.update_guest(&guest(3, "new")), Err(StoreError::NoGuest { .. })));

    tables.remove_guest(expected.guest).unwrap();
    tables.remove_guest(expected.guest).unwrap();
    assert_eq!(tables.guest(expected.guest).unwrap(), None);
}

/// A local id is never used twice, also when the newest guest was removed and the store reopened.
#[test]
fn local_ids_are_never_reused() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store.sqlite");
    for expected in 1..4 {
        let mut tables = Tables::open(&path).unwrap();
        let added = tables.add_guest(&guest(1, "web1")).unwrap();
        assert_eq!(added.local_id, LocalId(expected));
        tables.remove_guest(added.guest).unwrap();
    }
}

/// A peer comes back as it was put, also as forgotten.
#[test]
fn peers_are_kept() {
    let (_temp, mut tables) = open();
    let mut peer = PeerRow {
        host: HostId([7; 32]),
        name: "beta".into(),
        addresses: vec!["10.0.0.2:8002".into(), "[fd00::2]:8002".into()],
        network: Some("storage".into()),
        certificate: vec![0x30, 0x82],
        pinned_at: UNIX_EPOCH + Duration::from_millis(1_234_567),
        is_forgotten: false,
    };
    tables.put_peer(&peer).unwrap();
    assert_eq!(tables.peer(peer.host).unwrap(), Some(peer.clone()));
    peer.is_forgotten = true;
    tables.put_peer(&peer).unwrap();
    assert_eq!(tables.peers().unwrap(), [peer]);
    assert_eq!(tables.peer(HostId([8; 32])).unwrap(), None);
}

/// Events come oldest first, the newest of them where there is a limit, and only those asked for.
#[test]
fn events_are_filtered() {
    let (_temp, mut tables) = open();
    for (guest, ms, text) in
        [(Some(1), 1000, "a"), (Some(2), 2000, "b"), (None, 3000, "c"), (Some(1), 4000, "d")]
    {
        tables.add_event(&event(guest, ms, text)).unwrap();
    }
    let texts = |filter: EventFilter| -> String {
        tables.events(&filter).unwrap().into_iter().map(|event| event.text).collect()
    };
    let all = EventFilter::default();
    assert_eq!(texts(all.clone()), "abcd");
    assert_eq!(texts(EventFilter { guest: Some(GuestId(id(1))), ..all.clone() }), "ad");
    assert_eq!(texts(EventFilter { since: Some(from_ms(2500)), ..all.clone() }), "cd");
    assert_eq!(texts(EventFilter { after: Some(1), ..all.clone() }), "bcd");
    assert_eq!(texts(EventFilter { limit: Some(2), ..all.clone() }), "cd");
    let last = tables.events(&EventFilter { limit: Some(1), ..all }).unwrap().remove(0);
    assert_eq!(last, EventRow { id: 4, ..event(Some(1), 4000, "d") });
}

/// Events are bounded in number and length, and their ids go on growing.
#[test]
fn events_are_bounded() {
    let (_temp, mut tables) = open();
    for _ in 0..20 {
        tables.add_event(&event(None, 0, "x")).unwrap();
    }
    tables.prune_events(5).unwrap();
    let kept = tables.events(&EventFilter::default()).unwrap();
    assert_eq!(kept.iter().map(|event| event.id).collect::<Vec<_>>(), [16, 17, 18, 19, 20]);
    tables.prune_events(0).unwrap();
    let id = tables.add_event(&event(None, 0, &"ä".repeat(EVENT_TEXT_BYTES_MAX))).unwrap();
    assert_eq!(id, 21);
    let long = tables.events(&EventFilter::default()).unwrap().remove(0);
    assert_eq!(long.text.len(), EVENT_TEXT_BYTES_MAX);
}

/// Reports are kept by handoff, newest first; the later version of one replaces the earlier.
#[test]
fn reports_are_kept() {
    let (_temp, mut tables) = open();
    let report = |handoff, text: &str| ReportRow {
        handoff: HandoffId(id(handoff)),
        guest: GuestId(id(1)),
        guest_name: "web1".into(),
        at: from_ms(5000),
        report: text.into(),
    };
    for (handoff, text) in [(1, "{}"), (2, "{\"a\":1}"), (1, "{\"b\":2}")] {
        tables.put_report(&report(handoff, text)).unwrap();
    }
    let [second, first] = [report(2, "{\"a\":1}"), report(1, "{\"b\":2}")];
    assert_eq!(tables.reports(Some(GuestId(id(1))), 10).unwrap(), [second.clone(), first.clone()]);
    assert_eq!(tables.reports(Some(GuestId(id(1))), 1).unwrap(), [second]);
    assert_eq!(tables.report(first.handoff).unwrap(), Some(first));
    assert_eq!(tables.report(HandoffId(id(3))).unwrap(), None);
}

/// A setting outlives the daemon.
#[test]
fn settings_are_kept() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store.sqlite");
    Tables::open(&path).unwrap().put_setting("relocation.enabled", "true").unwrap();
    let tables = Tables::open(&path).unwrap();
    assert_eq!(tables.setting("relocation.enabled").unwrap().as_deref(), Some("true"));
    assert_eq!(tables.setting("other").unwrap(), None);
}

/// A store of a newer schema and a database of somebody else are refused and left as they were.
#[test]
fn foreign_and_newer_stores_are_refused() {
    let (temp, tables) = open();
    tables.connection.pragma_update(None, "user_version", 99).unwrap();
    drop(tables);
    let path = temp.path().join("store.sqlite");
    for opened in [Tables::open(&path), Tables::open_read_only(&path)] {
        assert!(matches!(opened, Err(StoreError::Newer { found: 99, known: 2, .. })));
    }

    let path = temp.path().join("other.sqlite");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE mine (a)").unwrap();
    assert!(matches!(Tables::open(&path), Err(StoreError::Foreign { .. })));
    std::fs::write(&path, "not a database, but long enough to look like one\n".repeat(9)).unwrap();
    assert!(matches!(Tables::open(&path), Err(StoreError::Sqlite { .. })));
}

/// The log can be read beside a daemon that writes, after it has ended, and where nothing can be
/// written; reading changes nothing.
#[test]
fn the_log_can_be_read_without_the_daemon() {
    let (temp, mut tables) = open();
    let path = temp.path().join("store.sqlite");
    tables.add_event(&event(Some(1), 1000, "a")).unwrap();
    let count =
        || Tables::open_read_only(&path).unwrap().events(&EventFilter::default()).unwrap().len();
    assert_eq!(count(), 1);
    tables.add_event(&event(Some(1), 2000, "b")).unwrap();
    assert_eq!(count(), 2);
    drop(tables);
    assert_eq!(count(), 2);
    let immutable = Connection::open_with_flags(
        immutable_uri(&path),
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI,
    );
    assert_eq!(schema::version(&immutable.unwrap()).unwrap(), 2);

    let mut reader = Tables::open_read_only(&path).unwrap();
    assert!(matches!(reader.put_setting("a", "b"), Err(StoreError::Sqlite { .. })));
    assert!(Tables::open_read_only(&temp.path().join("nothing.sqlite")).is_err());
    assert!(!temp.path().join("nothing.sqlite").exists());
}

/// A store of the release before is brought up to date, and loses nothing.
#[test]
fn an_older_store_is_brought_up_to_date() {
    let (temp, mut tables) = open();
    tables.put_setting("a", "b").unwrap();
    tables.connection.execute_batch("DROP TABLE kept").unwrap();
    tables.connection.pragma_update(None, "user_version", 1).unwrap();
    drop(tables);
    let tables = Tables::open(&temp.path().join("store.sqlite")).unwrap();
    assert_eq!(tables.setting("a").unwrap().as_deref(), Some("b"));
    assert_eq!(tables.kept().unwrap(), []);
}

/// What is kept of a host's guests is replaced as a whole; the newest owner of a guest comes first.
#[test]
fn papers_of_other_hosts_are_kept() {
    let (_temp, mut tables) = open();
    let kept = |host: u8, guest: u128, epoch| KeptRow {
        host: HostId([host; 32]),
        guest: GuestId(uuid::Uuid::from_u128(guest)),
        name: format!("guest{guest}"),
        epoch: Epoch(epoch),
        definition: "memory = \"1 GiB\"".to_owned(),
        passport: None,
        transient: false,
        kept_at: from_ms(1000),
    };
    tables.replace_kept(HostId([1; 32]), &[kept(1, 1, 4), kept(1, 2, 1)]).unwrap();
    tables.replace_kept(HostId([2; 32]), &[kept(2, 1, 5)]).unwrap();
    assert_eq!(tables.kept().unwrap(), [kept(2, 1, 5), kept(1, 1, 4), kept(1, 2, 1)]);
    tables.replace_kept(HostId([1; 32]), &[kept(1, 2, 1)]).unwrap();
    assert_eq!(tables.kept().unwrap(), [kept(2, 1, 5), kept(1, 2, 1)]);
}

/// Nobody but the daemon's user can read the store.
#[test]
fn the_store_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let (temp, mut tables) = open();
    tables.put_setting("a", "b").unwrap();
    for name in ["store.sqlite", "store.sqlite-wal"] {
        let mode = temp.path().join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

/// The async front runs the work and gives back what it gave back.
#[tokio::test]
async fn work_runs_on_the_tables() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(&temp.path().join("store.sqlite")).unwrap();
    store.call(|tables| tables.put_setting("a", "b")).await.unwrap();
    let value = store.clone().call(|tables| tables.setting("a")).await.unwrap();
    assert_eq!(value.as_deref(), Some("b"));
}
