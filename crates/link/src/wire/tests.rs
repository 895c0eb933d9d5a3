// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Every message survives the wire, in exactly the bytes it had in the first release.

use super::convert::Wire;
use super::*;
use prost::Message as _;
use whimbrel_handoff::message::{Body, Kind as HandoffKind, Message, Reason};
use whimbrel_model::run_state::RunState;

fn ids() -> (GuestId, HandoffId, HostId) {
    let id = uuid::Uuid::from_u128;
    (GuestId(id(0xaa)), HandoffId(id(0xbb)), HostId([0xcc; 32]))
}

/// Checks that a value survives, and its bytes.
fn check<W: Wire + PartialEq + std::fmt::Debug>(value: &W, golden: &str) {
    let bytes = value.to_proto().encode_to_vec();
    let decoded = W::Proto::decode(&bytes[..]).unwrap();
    assert_eq!(&W::from_proto(decoded).unwrap(), value);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden, "{value:?}");
}

#[test]
fn requests_have_these_bytes() {
    let (guest, handoff, _) = ids();
    let facts = FactsQuery {
        definition: "a".to_owned(),
        passport: b"{}".to_vec(),
        ..FactsQuery::default()
    };
    let probed = FactsQuery { token: Some([9; 16]), is_proved: true, ..facts.clone() };
    let called = FactsQuery { is_called_back: true, ..facts.clone() };
    let offer = Offer {
        definition: "a".to_owned(),
        passport: b"{}".to_vec(),
        channels: 1,
        is_compressed: true,
        is_stop_and_copy: true,
        bandwidth: Some(Bytes(5)),
        pause_max: Duration::from_millis(300),
        is_transient: true,
        carrier: CarrierKind::Pages,
        has_urgent_channel: false,
    };
    let epoch = Epoch(7);
    let opening = |offer| Request::Handoff(Opening { handoff, guest, epoch, offer });
    let console =
        ConsoleQuery { guest, takes_over: true, is_read_only: true, scrollback_bytes: Some(0) };
    let host_name = HostName::new("alpha").unwrap();
    let software = "whimbrel 0.1.0".to_owned();
    check(
        &Hello { version_min: 1, version_max: 1, software, host_name },
        "080110011a0e7768696d6272656c20302e312e302205616c706861",
    );
    check(&Request::Ping, "0a00");
    check(&Request::Facts(facts), "12070a016112027b7d");
    check(&Request::Facts(probed), "121b0a016112027b7d1a10090909090909090909090909090909092001");
    check(&Request::Facts(called), "12090a016112027b7d2801");
    check(
        &Request::WhoOwns(WhoOwns { guest, handoff: None }),
        "1a120a10000000000000000000000000000000aa",
    );
    check(
        &Request::WhoOwns(WhoOwns { guest, handoff: Some(handoff) }),
        "1a240a10000000000000000000000000000000aa121000000000000000000000\
             0000000000bb",
    );
    check(
        &opening(None),
        "22260a10000000000000000000000000000000bb121000000000000000000000\
             0000000000aa1807",
    );
    check(
        &opening(Some(offer.clone())),
        "223e0a10000000000000000000000000000000bb121000000000000000000000\
             0000000000aa180722160a016112027b7d180120012801300538ac0240014802",
    );
    check(
        &opening(Some(Offer { has_urgent_channel: true, ..offer })),
        "22400a10000000000000000000000000000000bb121000000000000000000000\
             0000000000aa180722180a016112027b7d180120012801300538ac02400148025001",
    );
    check(
        &Request::Log(LogQuery { guest: Some(guest), since_ms: 9, follow: true }),
        "2a160a10000000000000000000000000000000aa10091801",
    );
    check(&Request::Log(LogQuery { guest: None, since_ms: 0, follow: false }), "2a00");
    check(&Request::Guests, "3200");
    check(&Request::Console(console), "3a180a10000000000000000000000000000000aa100118012000");
    check(&Request::Unpair, "4200");
    check(&Request::Papers, "5200");
    let report = |first_packet_ms| Request::Report(ReportQuery { handoff, first_packet_ms });
    check(&report(None), "4a120a10000000000000000000000000000000bb");
    check(&report(Some(7)), "4a140a10000000000000000000000000000000bb1007");
    check(&Request::Measure, "5a00");
}

#[test]
fn responses_have_these_bytes() {
    let (_, _, host) = ids();
    let problem = Problem {
        kind: Kind::InDoubt,
        code: "a/b".to_owned(),
        text: "c".to_owned(),
        remedy: "d".to_owned(),
    };
    let status = PeerStatus {
        software: "s".to_owned(),
        engine: "e".to_owned(),
        memory_free: Bytes(1),
        memory_total: Bytes(2),
        guest_count: 3,
        is_in_maintenance: false,
    };
    let closed = PeerStatus { is_in_maintenance: true, ..status.clone() };
    let epoch = Epoch(7);
    check(&Response::Problem(problem), "0a0d08041203612f621a0163220164");
    check(&Response::Status(status), "120c0a0173120165180120022803");
    check(&Response::Status(closed), "120e0a01731201651801200228033001");
    check(&Response::Document(b"{}".to_vec()), "1a040a027b7d");
    check(&Response::Owner(Answer::NoRecord), "22020a00");
    check(&Response::Owner(Answer::Damaged), "22022200");
    check(
        &Response::Owner(Answer::Owner { owner: host, epoch, consumed: Epoch(8) }),
        "222812260a20cccccccccccccccccccccccccccccccccccccccccccccccccccc\
             cccccccccccc10071808",
    );
    check(
        &Response::Owner(Answer::Moving { from: host, to: host, epoch }),
        "22481a460a20cccccccccccccccccccccccccccccccccccccccccccccccccccc\
             cccccccccccc1220cccccccccccccccccccccccccccccccccccccccccccccccc\
             cccccccccccccccc1807",
    );
    check(&Response::Done, "2a00");
    check(&Response::Line(b"{}".to_vec()), "32040a027b7d");
}

fn say(body: Body) -> HandoffFrame {
    let (guest, handoff, _) = ids();
    HandoffFrame::Message(Message { guest, handoff, epoch: Epoch(7), body })
}

#[test]
fn messages_of_a_source_have_these_bytes() {
    let offer = |kind| say(Body::Offer { owned: Epoch(6), kind });
    check(
        &offer(HandoffKind::PreCopy),
        "1a2c0a10000000000000000000000000000000aa121000000000000000000000\
             0000000000bb1807520408061001",
    );
    check(
        &offer(HandoffKind::PostCopy),
        "1a2c0a10000000000000000000000000000000aa121000000000000000000000\
             0000000000bb1807520408061002",
    );
    check(
        &offer(HandoffKind::Stopped),
        "1a2c0a10000000000000000000000000000000aa121000000000000000000000\
             0000000000bb1807520408061003",
    );
    check(
        &say(Body::Cede { run: None }),
        "1a280a10000000000000000000000000000000aa121000000000000000000000\
             0000000000bb18075a00",
    );
    check(
        &say(Body::Cede { run: Some(RunState::Running) }),
        "1a2a0a10000000000000000000000000000000aa121000000000000000000000\
             0000000000bb18075a020801",
    );
    check(
        &say(Body::Cede { run: Some(RunState::IoError) }),
        "1a2a0a10000000000000000000000000000000aa121000000000000000000000\
             0000000000bb18075a020806",
    );
    check(
        &say(Body::Abort),
        "1a280a10000000000000000000000000000000aa121000000000000000000000\
             0000000000bb18076200",
    );
}

#[test]
fn messages_of_a_target_have_these_bytes() {
    let (_, _, host) = ids();
    check(
        &say(Body::Accepted),
        "1a280a10000000000000000000000000000000aa121000000000000000000000\
             0000000000bb18076a00",
    );
    check(
        &say(Body::Ready),
        "1a280a10000000000000000000000000000000aa121000000000000000000000\
             0000000000bb18077200",
    );
    check(
        &say(Body::Started),
        "1a280a10000000000000000000000000000000aa121000000000000000000000\
             0000000000bb18077a00",
    );
    check(
        &say(Body::Refused { reason: Reason::Failed }),
        "1a2b0a10000000000000000000000000000000aa121000000000000000000000\
             0000000000bb18078201020801",
    );
    check(
        &say(Body::Refused { reason: Reason::ClaimLost }),
        "1a2b0a10000000000000000000000000000000aa121000000000000000000000\
             0000000000bb18078201020809",
    );
    check(
        &say(Body::Returned),
        "1a290a10000000000000000000000000000000aa121000000000000000000000\
             0000000000bb18078a0100",
    );
    check(
        &say(Body::WhoOwns),
        "1a290a10000000000000000000000000000000aa121000000000000000000000\
             0000000000bb1807920100",
    );
    check(
        &say(Body::NoRecord),
        "1a290a10000000000000000000000000000000aa121000000000000000000000\
             0000000000bb18079a0100",
    );
    check(
        &say(Body::Owner { owner: host, epoch: Epoch(9) }),
        "1a4d0a10000000000000000000000000000000aa121000000000000000000000\
             0000000000bb1807a201240a20cccccccccccccccccccccccccccccccccccccc\
             cccccccccccccccccccccccccc1009",
    );
}

/// What is beyond a limit of its own is refused, even where the frame would carry it.
#[test]
fn limits_hold() {
    let refused = |request: Request| Request::from_proto(request.to_proto()).unwrap_err();
    let definition = "x".repeat(DEFINITION_BYTES_MAX + 1);
    let long = FactsQuery { definition, ..FactsQuery::default() };
    let length = DEFINITION_BYTES_MAX + 1;
    assert_eq!(
        refused(Request::Facts(long)),
        WireError::TooLong { field: "definition", length, max: DEFINITION_BYTES_MAX }
    );
    let (guest, handoff, _) = ids();
    let late = Opening { handoff, guest, epoch: Epoch(u64::MAX), offer: None };
    assert!(matches!(refused(Request::Handoff(late)), WireError::Value { field: "epoch", .. }));
}

/// A problem is told even if it is far too long, and letters stay whole.
#[test]
fn a_long_problem_is_shortened() {
    let problem = Problem {
        kind: Kind::Failed,
        code: "a/b".to_owned(),
        text: "ü".repeat(TEXT_BYTES_MAX),
        remedy: String::new(),
    };
    let told = Problem::from_proto(problem.to_proto()).unwrap();
    assert_eq!(told.text, "ü".repeat(TEXT_BYTES_MAX / 2));
}

/// The highest common version, if there is one.
#[test]
fn versions_are_agreed_on() {
    let speaks = |version_min, version_max| Hello {
        version_min,
        version_max,
        ..Hello::ours(HostName::new("alpha").unwrap())
    };
    let check = |ours: (u32, u32), theirs: (u32, u32), common| {
        let (ours, theirs) = (speaks(ours.0, ours.1), speaks(theirs.0, theirs.1));
        assert_eq!(ours.common_version(&theirs), common);
        assert_eq!(theirs.common_version(&ours), common);
    };
    check((1, 1), (1, 1), Some(1));
    check((1, 3), (2, 5), Some(3));
    check((1, 2), (3, 4), None);
}
