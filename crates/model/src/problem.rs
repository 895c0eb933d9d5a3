// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Errors as people see them: a stable code, a text, and the next thing to try.

/// What a problem means for the guest and for the exit code of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nothing was changed: a check, a policy or a limit said no. Exit code 1.
    Refused,
    /// The command was not understood. Exit code 2.
    Usage,
    /// Something broke on the way, and the guest is where and as it was. Exit code 3.
    Failed,
    /// Who owns the guest is not known yet: `whimbrel recover` explains. Exit code 4.
    InDoubt,
}

impl Kind {
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Refused => 1,
            Kind::Usage => 2,
            Kind::Failed => 3,
            Kind::InDoubt => 4,
        }
    }
}

/// A problem a person can act on. Everything that reaches a user or an API client implements
/// this; everything below it is an ordinary error.
pub trait Remedy: std::error::Error {
    /// Stable and documented: scripts match on this, never on the text.
    fn code(&self) -> &'static str;

    fn kind(&self) -> Kind;

    /// The next thing to try, as an instruction. Backticks mark commands.
    fn remedy(&self) -> String;
}

/// A problem on its way to a person: between hosts, through the API, in a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub kind: Kind,
    pub code: String,
    /// The error and its sources, outermost first, joined by `: `.
    pub text: String,
    pub remedy: String,
}

impl<E: Remedy> From<&E> for Problem {
    fn from(error: &E) -> Self {
        Problem {
            kind: error.kind(),
            code: error.code().to_owned(),
            text: chain(error),
            remedy: error.remedy(),
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Problem {}

/// Returns the text of an error and of its sources, outermost first.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

/// Declares the problem codes of a crate, each with the sentence that the documentation prints.
///
/// It makes a constant for every code, so that [`Remedy::code`] and the findings of a plan can
/// only name what is in the table, and the table itself as `CODES`, from which
/// `docs/reference/errors.md` is generated.
#[macro_export]
macro_rules! codes {
    ($($name:ident = $code:literal: $text:literal;)*) => {
        $(#[doc = $text] pub const $name: &str = $code;)*
        /// Every code of this crate and what it means, in the order of its area.
        pub const CODES: &[(&str, &str)] = &[$(($code, $text)),*];
    };
}
