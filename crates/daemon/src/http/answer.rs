// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! From HTTP to the contract's types and back; everything that goes wrong is a [`Problem`].

use super::Caller;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use whimbrel_api::guest::GuestRef;
use whimbrel_api::limits::BODY_BYTES_MAX;
use whimbrel_api::problem::code;
use whimbrel_api::{Kind, Problem};

/// What a handler returns.
pub(super) type Answer<T> = Result<axum::Json<T>, Refusal>;

/// A problem on its way out.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(problem) = self;
        let json = serde_json::to_vec(&problem).expect("a problem is plain data");
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        (status(&problem), content_type, json).into_response()
    }
}

/// Returns the status that says roughly what the problem says exactly.
fn status(problem: &Problem) -> StatusCode {
    match (problem.kind, problem.code.as_str()) {
        (_, code::TOO_LARGE) => StatusCode::PAYLOAD_TOO_LARGE,
        (_, code::NO_SUCH_PATH) => StatusCode::NOT_FOUND,
        (Kind::Refused, code) if code.ends_with("/not-found") => StatusCode::NOT_FOUND,
        (Kind::Usage, _) => StatusCode::BAD_REQUEST,
        (Kind::Refused | Kind::InDoubt, _) => StatusCode::CONFLICT,
        (Kind::Failed, _) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn bad_request(text: impl Into<String>) -> Refusal {
    let remedy = "see the contract in `openapi.json`";
    Refusal(Problem::new(Kind::Usage, code::BAD_REQUEST, text, remedy))
}

pub(super) async fn no_such_path(method: Method, uri: Uri) -> Refusal {
    let text = format!("the API has no `{method} {}`", uri.path());
    let remedy = "check that the daemon and this program have the same version: `whimbrel info`, \
                  `whimbrel --version`";
    Refusal(Problem::new(Kind::Usage, code::NO_SUCH_PATH, text, remedy))
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    no_such_path(method, uri).await
}

/// The body of a request, as JSON.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bytes = Bytes::from_request(request, state).await.map_err(unread)?;
        let unreadable = |error| bad_request(format!("the request cannot be read: {error}"));
        serde_json::from_slice(&bytes).map(Self).map_err(unreadable)
    }
}

fn unread(rejection: BytesRejection) -> Refusal {
    if rejection.status() != StatusCode::PAYLOAD_TOO_LARGE {
        return bad_request(rejection.body_text());
    }
    Refusal(Problem::new(
        Kind::Usage,
        code::TOO_LARGE,
        format!("the request has more than {BODY_BYTES_MAX} bytes"),
        "send a smaller one",
    ))
}

/// The query of a request.
pub(super) struct Ask<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Ask<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let unreadable = |rejection: QueryRejection| bad_request(rejection.body_text());
        let Query(query) = Query::from_request_parts(parts, state).await.map_err(unreadable)?;
        Ok(Self(query))
    }
}

/// The one parameter in the path of a request.
pub(super) struct Segment(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let unreadable = |rejection: PathRejection| bad_request(rejection.body_text());
        let Path(text) = Path::from_request_parts(parts, state).await.map_err(unreadable)?;
        Ok(Self(text))
    }
}

/// The guest in the path of a request.
pub(super) struct OfGuest(pub(super) GuestRef);

impl<S: Send + Sync> FromRequestParts<S> for OfGuest {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Segment(text) = Segment::from_request_parts(parts, state).await?;
        guest(&text).map(Self)
    }
}

/// Reads how a caller names a guest; what cannot be a guest's name is nobody's.
pub(super) fn guest(text: &str) -> Result<GuestRef, Refusal> {
    text.parse().map_err(|_| Problem::guest_not_found(text).into())
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(*parts.extensions.get::<Self>().expect("every connection has a caller"))
    }
}
