// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Between the checked types and the generated ones.

use super::handoff::epoch;
use super::*;

/// A checked type with a generated twin.
pub(crate) trait Wire: Sized {
    type Proto: prost::Message + Default;

    fn to_proto(&self) -> Self::Proto;
    fn from_proto(proto: Self::Proto) -> Result<Self, WireError>;
}

pub(super) fn text(field: &'static str, text: String, max: usize) -> Result<String, WireError> {
    if text.len() > max {
        return Err(WireError::TooLong { field, length: text.len(), max });
    }
    Ok(text)
}

pub(super) fn document(field: &'static str, bytes: Vec<u8>) -> Result<Vec<u8>, WireError> {
    if bytes.len() > DOCUMENT_BYTES_MAX {
        let (length, max) = (bytes.len(), DOCUMENT_BYTES_MAX);
        return Err(WireError::TooLong { field, length, max });
    }
    Ok(bytes)
}

fn exactly<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], WireError> {
    let wrong = |_| WireError::Length { field, length: bytes.len(), expected: N };
    bytes.try_into().map_err(wrong)
}

pub(super) fn guest(bytes: &[u8]) -> Result<GuestId, WireError> {
    Ok(GuestId(uuid::Uuid::from_bytes(exactly("guest", bytes)?)))
}

pub(super) fn handoff(bytes: &[u8]) -> Result<HandoffId, WireError> {
    Ok(HandoffId(uuid::Uuid::from_bytes(exactly("handoff", bytes)?)))
}

pub(super) fn host(bytes: &[u8]) -> Result<HostId, WireError> {
    Ok(HostId(exactly("host", bytes)?))
}

pub(crate) fn proof(bytes: &[u8]) -> Result<[u8; 32], WireError> {
    exactly("proof", bytes)
}

pub(crate) fn host_name(name: String) -> Result<HostName, WireError> {
    let found = name.clone();
    HostName::new(name).map_err(|_| WireError::Value { field: "host_name", found })
}

pub(super) fn missing(field: &'static str) -> WireError {
    WireError::Missing { field }
}

impl Wire for Hello {
    type Proto = proto::Hello;

    fn to_proto(&self) -> proto::Hello {
        proto::Hello {
            version_min: self.version_min,
            version_max: self.version_max,
            software: self.software.clone(),
            host_name: self.host_name.to_string(),
        }
    }

    fn from_proto(proto: proto::Hello) -> Result<Self, WireError> {
        let proto::Hello { version_min, version_max, software, host_name: name } = proto;
        if version_min == 0 || version_max < version_min {
            let found = format!("{version_min} to {version_max}");
            return Err(WireError::Value { field: "version", found });
        }
        Ok(Hello {
            version_min,
            version_max,
            software: text("software", software, 200)?,
            host_name: host_name(name)?,
        })
    }
}

impl Wire for Problem {
    type Proto = proto::Problem;

    fn to_proto(&self) -> proto::Problem {
        let kind = match self.kind {
            Kind::Refused => proto::ProblemKind::Refused,
            Kind::Usage => proto::ProblemKind::Usage,
            Kind::Failed => proto::ProblemKind::Failed,
            Kind::InDoubt => proto::ProblemKind::InDoubt,
        };
        proto::Problem {
            kind: kind.into(),
            code: shorten(&self.code, 200),
            text: shorten(&self.text, TEXT_BYTES_MAX),
            remedy: shorten(&self.remedy, TEXT_BYTES_MAX),
        }
    }

    fn from_proto(proto: proto::Problem) -> Result<Self, WireError> {
        let kind = match proto.kind() {
            proto::ProblemKind::Refused => Kind::Refused,
            proto::ProblemKind::Usage => Kind::Usage,
            proto::ProblemKind::Failed => Kind::Failed,
            proto::ProblemKind::InDoubt => Kind::InDoubt,
            proto::ProblemKind::Unspecified => {
                let found = proto.kind.to_string();
                return Err(WireError::Value { field: "problem.kind", found });
            }
        };
        Ok(Problem {
            kind,
            code: text("problem.code", proto.code, 200)?,
            text: text("problem.text", proto.text, TEXT_BYTES_MAX)?,
            remedy: text("problem.remedy", proto.remedy, TEXT_BYTES_MAX)?,
        })
    }
}

/// A problem is never too long to be told.
fn shorten(text: &str, max: usize) -> String {
    text[..text.floor_char_boundary(max)].to_owned()
}

impl Wire for Request {
    type Proto = proto::Request;

    fn to_proto(&self) -> proto::Request {
        use proto::request::Request as P;
        let request = match self {
            Request::Ping => P::Ping(proto::Ping {}),
            Request::Facts(query) => P::Facts(proto::FactsQuery {
                definition: query.definition.clone(),
                passport: query.passport.clone(),
                token: query.token.map(Vec::from).unwrap_or_default(),
                is_proved: query.is_proved,
                is_called_back: query.is_called_back,
            }),
            Request::WhoOwns(query) => P::WhoOwns(proto::WhoOwns {
                guest: query.guest.0.as_bytes().to_vec(),
                handoff: query.handoff.map(|id| id.0.as_bytes().to_vec()).unwrap_or_default(),
            }),
            Request::Handoff(opening) => P::Handoff(opening.to_proto()),
            Request::Log(query) => P::Log(proto::LogQuery {
                guest: query.guest.map(|id| id.0.as_bytes().to_vec()).unwrap_or_default(),
                since_ms: query.since_ms,
                follow: query.follow,
            }),
            Request::Guests => P::Guests(proto::GuestsQuery {}),
            Request::Console(query) => P::Console(proto::ConsoleQuery {
                guest: query.guest.0.as_bytes().to_vec(),
                takes_over: query.takes_over,
                is_read_only: query.is_read_only,
                scrollback_bytes: query.scrollback_bytes,
            }),
            Request::Unpair => P::Unpair(proto::Unpair {}),
            Request::Report(query) => P::Report(proto::ReportQuery {
                handoff: query.handoff.0.as_bytes().to_vec(),
                first_packet_ms: query.first_packet_ms,
            }),
            Request::Papers => P::Papers(proto::PapersQuery {}),
            Request::Measure => P::Measure(proto::Measure {}),
        };
        proto::Request { request: Some(request) }
    }

    fn from_proto(proto: proto::Request) -> Result<Self, WireError> {
        use proto::request::Request as P;
        Ok(match proto.request.ok_or(missing("request"))? {
            P::Ping(_) => Request::Ping,
            P::Facts(query) => Request::Facts(FactsQuery {
                definition: text("definition", query.definition, DEFINITION_BYTES_MAX)?,
                passport: document("passport", query.passport)?,
                token: some(&query.token).map(token).transpose()?,
                is_proved: query.is_proved,
                is_called_back: query.is_called_back,
            }),
            P::WhoOwns(query) => Request::WhoOwns(WhoOwns {
                guest: guest(&query.guest)?,
                handoff: some(&query.handoff).map(handoff).transpose()?,
            }),
            P::Handoff(opening) => Request::Handoff(Opening::from_proto(opening)?),
            P::Log(query) => Request::Log(LogQuery {
                guest: some(&query.guest).map(guest).transpose()?,
                since_ms: query.since_ms,
                follow: query.follow,
            }),
            P::Guests(_) => Request::Guests,
            P::Console(query) => Request::Console(ConsoleQuery {
                guest: guest(&query.guest)?,
                takes_over: query.takes_over,
                is_read_only: query.is_read_only,
                scrollback_bytes: query.scrollback_bytes,
            }),
            P::Unpair(_) => Request::Unpair,
            P::Papers(_) => Request::Papers,
            P::Report(query) => Request::Report(ReportQuery {
                handoff: handoff(&query.handoff)?,
                first_packet_ms: query.first_packet_ms,
            }),
            P::Measure(_) => Request::Measure,
        })
    }
}

/// Empty bytes stand for something that is not there.
fn token(bytes: &[u8]) -> Result<[u8; 16], WireError> {
    exactly("token", bytes)
}

fn some(bytes: &[u8]) -> Option<&[u8]> {
    (!bytes.is_empty()).then_some(bytes)
}

impl Wire for Response {
    type Proto = proto::Response;

    fn to_proto(&self) -> proto::Response {
        use proto::response::Response as P;
        let response = match self {
            Response::Problem(problem) => P::Problem(problem.to_proto()),
            Response::Status(status) => P::Status(proto::PeerStatus {
                software: status.software.clone(),
                engine: status.engine.clone(),
                memory_free_bytes: status.memory_free.0,
                memory_total_bytes: status.memory_total.0,
                guest_count: status.guest_count,
                is_in_maintenance: status.is_in_maintenance,
            }),
            Response::Document(json) => P::Document(proto::Document { json: json.clone() }),
            Response::Owner(answer) => P::Owner(answer.to_proto()),
            Response::Done => P::Done(proto::Done {}),
            Response::Line(json) => P::Line(proto::Line { json: json.clone() }),
        };
        proto::Response { response: Some(response) }
    }

    fn from_proto(proto: proto::Response) -> Result<Self, WireError> {
        use proto::response::Response as P;
        Ok(match proto.response.ok_or(missing("response"))? {
            P::Problem(problem) => Response::Problem(Problem::from_proto(problem)?),
            P::Status(status) => Response::Status(PeerStatus {
                software: text("software", status.software, 200)?,
                engine: text("engine", status.engine, 200)?,
                memory_free: Bytes(status.memory_free_bytes),
                memory_total: Bytes(status.memory_total_bytes),
                guest_count: status.guest_count,
                is_in_maintenance: status.is_in_maintenance,
            }),
            P::Document(found) => Response::Document(document("document", found.json)?),
            P::Owner(answer) => Response::Owner(Answer::from_proto(answer)?),
            P::Done(_) => Response::Done,
            P::Line(line) => Response::Line(document("line", line.json)?),
        })
    }
}

impl Wire for Answer {
    type Proto = proto::OwnerAnswer;

    fn to_proto(&self) -> proto::OwnerAnswer {
        use proto::owner_answer as p;
        let answer = match *self {
            Answer::NoRecord => p::Answer::NoRecord(p::NoRecord {}),
            Answer::Owner { owner, epoch, consumed } => p::Answer::Owner(p::Owner {
                host: owner.0.to_vec(),
                epoch: epoch.0,
                consumed: consumed.0,
            }),
            Answer::Moving { from, to, epoch } => p::Answer::Moving(p::Moving {
                from: from.0.to_vec(),
                to: to.0.to_vec(),
                epoch: epoch.0,
            }),
            Answer::Damaged => p::Answer::Damaged(p::Damaged {}),
            Answer::Acquiring { epoch } => p::Answer::Acquiring(p::Acquiring { epoch: epoch.0 }),
        };
        proto::OwnerAnswer { answer: Some(answer) }
    }

    fn from_proto(proto: proto::OwnerAnswer) -> Result<Self, WireError> {
        use proto::owner_answer::Answer as P;
        Ok(match proto.answer.ok_or(missing("answer"))? {
            P::NoRecord(_) => Answer::NoRecord,
            P::Owner(owner) => Answer::Owner {
                owner: host(&owner.host)?,
                epoch: epoch(owner.epoch)?,
                consumed: epoch(owner.consumed)?,
            },
            P::Moving(moving) => Answer::Moving {
                from: host(&moving.from)?,
                to: host(&moving.to)?,
                epoch: epoch(moving.epoch)?,
            },
            P::Damaged(_) => Answer::Damaged,
            P::Acquiring(taking) => Answer::Acquiring { epoch: epoch(taking.epoch)? },
        })
    }
}

impl Wire for Opening {
    type Proto = proto::HandoffOpening;

    fn to_proto(&self) -> proto::HandoffOpening {
        proto::HandoffOpening {
            handoff: self.handoff.0.as_bytes().to_vec(),
            guest: self.guest.0.as_bytes().to_vec(),
            epoch: self.epoch.0,
            offer: self.offer.as_ref().map(Wire::to_proto),
        }
    }

    fn from_proto(proto: proto::HandoffOpening) -> Result<Self, WireError> {
        Ok(Opening {
            handoff: handoff(&proto.handoff)?,
            guest: guest(&proto.guest)?,
            epoch: epoch(proto.epoch)?,
            offer: proto.offer.map(Offer::from_proto).transpose()?,
        })
    }
}

impl Wire for Offer {
    type Proto = proto::HandoffOffer;

    fn to_proto(&self) -> proto::HandoffOffer {
        proto::HandoffOffer {
            definition: self.definition.clone(),
            passport: self.passport.clone(),
            channels: self.channels,
            is_compressed: self.is_compressed,
            is_stop_and_copy: self.is_stop_and_copy,
            bandwidth: self.bandwidth.map_or(0, |rate| rate.0),
            pause_max_ms: u64::try_from(self.pause_max.as_millis()).unwrap_or(u64::MAX),
            is_transient: self.is_transient,
            carrier: match self.carrier {
                CarrierKind::Tunnel => proto::CarrierKind::Tunnel.into(),
                CarrierKind::Pages => proto::CarrierKind::Pages.into(),
            },
            has_urgent_channel: self.has_urgent_channel,
        }
    }

    fn from_proto(proto: proto::HandoffOffer) -> Result<Self, WireError> {
        let channels_max =
            if proto.carrier == proto::CarrierKind::Pages as i32 { 1 } else { CHANNELS_MAX };
        if !(1..=channels_max).contains(&proto.channels) {
            let found = proto.channels.to_string();
            return Err(WireError::Value { field: "channels", found });
        }
        Ok(Offer {
            definition: text("definition", proto.definition, DEFINITION_BYTES_MAX)?,
            passport: document("passport", proto.passport)?,
            channels: proto.channels,
            is_compressed: proto.is_compressed,
            is_stop_and_copy: proto.is_stop_and_copy,
            bandwidth: (proto.bandwidth != 0).then_some(Bytes(proto.bandwidth)),
            pause_max: Duration::from_millis(proto.pause_max_ms),
            is_transient: proto.is_transient,
            carrier: match proto::CarrierKind::try_from(proto.carrier) {
                Ok(proto::CarrierKind::Tunnel) => CarrierKind::Tunnel,
                Ok(proto::CarrierKind::Pages) => CarrierKind::Pages,
                Ok(proto::CarrierKind::Unspecified) | Err(_) => {
                    let found = proto.carrier.to_string();
                    return Err(WireError::Value { field: "carrier", found });
                }
            },
            has_urgent_channel: proto.has_urgent_channel,
        })
    }
}
