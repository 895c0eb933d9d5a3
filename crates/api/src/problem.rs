// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Errors as people and scripts see them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use whimbrel_model::problem as model;

/// What a problem means for the guest, and the exit code of a command that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nothing was changed: a check, a policy or a limit said no. Exit code 1.
    Refused,
    /// The request was not understood. Exit code 2.
    Usage,
    /// Something broke on the way, and the guest is where and as it was. Exit code 3.
    Failed,
    /// Who owns the guest is not known yet: `whimbrel recover` explains. Exit code 4.
    InDoubt,
}

impl Kind {
    /// Returns the exit code of a command that met a problem of this kind.
    pub fn exit_code(self) -> u8 {
        model::Kind::from(self).exit_code()
    }
}

/// A problem a person can act on: the body of every response that is not a success
/// (`application/problem+json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What it means for the guest.
    pub kind: Kind,
    /// Stable and documented, `area/words-with-dashes`: scripts match on this, never on the text.
    pub code: String,
    /// The error and its causes, outermost first.
    pub text: String,
    /// The next thing to try, as an instruction. Backticks mark commands.
    pub remedy: String,
}

impl Problem {
    /// Returns a problem with these parts.
    pub fn new(
        kind: Kind,
        code: impl Into<String>,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { kind, code: code.into(), text: text.into(), remedy: remedy.into() }
    }

    /// Returns the problem that `error` is to a person.
    pub fn of<E: model::Remedy>(error: &E) -> Self {
        model::Problem::from(error).into()
    }

    /// Returns the problem of a guest that nobody here knows. The command line adds similar names.
    pub fn guest_not_found(guest: &str) -> Self {
        Self::new(
            Kind::Refused,
            code::GUEST_NOT_FOUND,
            format!("there is no guest `{guest}` here"),
            "see the guests of this host with `whimbrel list`, and those of all paired hosts with \
             `whimbrel list --all-hosts`",
        )
    }

    /// Returns the problem of a host that is not paired with this one.
    pub fn host_not_found(host: &str) -> Self {
        Self::new(
            Kind::Refused,
            code::HOST_NOT_FOUND,
            format!("no paired host is called `{host}`"),
            "see the paired hosts with `whimbrel host list`, or pair with it: `whimbrel host \
             invite` there, `whimbrel host join` here",
        )
    }
}

/// Codes that more than one program must agree on.
pub mod code {
    /// There is no such guest.
    pub const GUEST_NOT_FOUND: &str = "guest/not-found";
    /// There is no such paired host.
    pub const HOST_NOT_FOUND: &str = "host/not-found";
    /// The daemon does not run, or its socket is elsewhere.
    pub const DAEMON_NOT_REACHABLE: &str = "api/daemon-not-reachable";
    /// The caller may not use the socket.
    pub const NOT_PERMITTED: &str = "api/not-permitted";
    /// The connection to the daemon ended in the middle.
    pub const CONNECTION_LOST: &str = "api/connection-lost";
    /// The daemon answered with something that is not this contract.
    pub const BAD_ANSWER: &str = "api/bad-answer";
    /// The daemon did not understand the request.
    pub const BAD_REQUEST: &str = "api/bad-request";
    /// The daemon knows no such path.
    pub const NO_SUCH_PATH: &str = "api/no-such-path";
    /// The console has nothing more to show: its guest moved or stopped.
    pub const CONSOLE_ENDED: &str = "console/ended";
    /// As many clients as possible are attached to the console.
    pub const CONSOLE_TOO_MANY_CLIENTS: &str = "console/too-many-clients";
    /// The request is larger than the daemon accepts.
    pub const TOO_LARGE: &str = "api/too-large";
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Problem {}

impl From<model::Kind> for Kind {
    fn from(kind: model::Kind) -> Self {
        match kind {
            model::Kind::Refused => Kind::Refused,
            model::Kind::Usage => Kind::Usage,
            model::Kind::Failed => Kind::Failed,
            model::Kind::InDoubt => Kind::InDoubt,
        }
    }
}

impl From<Kind> for model::Kind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Refused => model::Kind::Refused,
            Kind::Usage => model::Kind::Usage,
            Kind::Failed => model::Kind::Failed,
            Kind::InDoubt => model::Kind::InDoubt,
        }
    }
}

impl From<model::Problem> for Problem {
    fn from(problem: model::Problem) -> Self {
        let model::Problem { kind, code, text, remedy } = problem;
        Self { kind: kind.into(), code, text, remedy }
    }
}

impl From<Problem> for model::Problem {
    fn from(problem: Problem) -> Self {
        let Problem { kind, code, text, remedy } = problem;
        Self { kind: kind.into(), code, text, remedy }
    }
}
