// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What paired hosts have to say about guests: their lists, logs and consoles.
//!
//! Everybody is asked at once, and nobody waits for a host that is down.

mod follow;

pub(crate) use follow::follow;

use crate::daemon::Daemon;
use crate::guests::Papers;
use crate::http::ConsoleStream;
use futures::future::join_all;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use whimbrel_api::Problem;
use whimbrel_api::console::ConsoleQuery;
use whimbrel_api::guest::{Fit, GuestList, GuestRef, GuestSummary, HostSilent};
use whimbrel_api::host::{Baseline, Beyond};
use whimbrel_api::log::{LogLine, LogPage};
use whimbrel_handoff::ownership::Answer;
use whimbrel_link::wire;
use whimbrel_model::guest::DiskSource;
use whimbrel_model::id::{GuestId, HostId};

/// How long a peer may take to answer a question that somebody waits for.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Most lines that are taken from one peer's log.
const LINES_MAX: usize = 10_000;

/// Asks one question of every paired host at once.
async fn ask_all<T, A>(
    daemon: &Daemon,
    ask: impl Fn(HostId) -> A,
) -> Vec<(HostId, Result<T, Problem>)>
where
    A: Future<Output = Result<T, Problem>>,
{
    let asked = daemon.peers.all().into_iter().map(|host| {
        let asking = tokio::time::timeout(ANSWER_MAX, ask(host));
        async move {
            let answer = asking.await.unwrap_or_else(|_| Err(silent()));
            (host, answer)
        }
    });
    join_all(asked).await
}

fn silent() -> Problem {
    Problem::new(
        whimbrel_api::Kind::Failed,
        "peer/silent",
        format!("it did not answer within {} s", ANSWER_MAX.as_secs()),
        "look whether it is up: `whimbrel host list`",
    )
}

fn silence(daemon: &Daemon, host: HostId, problem: &Problem) -> HostSilent {
    HostSilent { host: daemon.peers.name_of(host).to_string(), reason: problem.text.clone() }
}

pub(crate) async fn add_guests(daemon: &Daemon, list: &mut GuestList) {
    let answers = ask_all(daemon, |host| async move {
        let json = daemon.peers.connect(host).await?.guests().await.map_err(|e| e.problem())?;
        serde_json::from_slice::<Vec<GuestSummary>>(&json).map_err(|_| silent())
    });
    for (host, answer) in answers.await {
        match answer {
            Ok(guests) => list.guests.extend(guests.into_iter().map(|guest| GuestSummary {
                // Its number means nothing here.
                id: None,
                ..guest
            })),
            Err(problem) => list.hosts_silent.push(silence(daemon, host, &problem)),
        }
    }
}

pub(crate) async fn add_log(
    daemon: &Daemon,
    guest: GuestId,
    since_ms: Option<u64>,
    page: &mut LogPage,
) {
    let query =
        wire::LogQuery { guest: Some(guest), since_ms: since_ms.unwrap_or(0), follow: false };
    let answers = ask_all(daemon, |host| async move {
        let connection = daemon.peers.connect(host).await?;
        let mut lines = connection.log(query).await.map_err(|error| error.problem())?;
        let mut found: Vec<LogLine> = Vec::new();
        while found.len() < LINES_MAX
            && let Some(json) = lines.next().await.map_err(|error| error.problem())?
        {
            found.extend(serde_json::from_slice::<LogLine>(&json).ok());
        }
        Ok(found)
    });
    for (host, answer) in answers.await {
        match answer {
            Ok(lines) => page.lines.extend(lines),
            Err(problem) => page.hosts_silent.push(silence(daemon, host, &problem)),
        }
    }
}

/// Attaches to the console of a guest that is on a paired host, if one has it.
pub(crate) async fn console(
    daemon: &Arc<Daemon>,
    guest: &GuestRef,
    query: ConsoleQuery,
) -> Option<Box<dyn ConsoleStream>> {
    let mut list = GuestList { guests: Vec::new(), hosts_silent: Vec::new() };
    add_guests(daemon, &mut list).await;
    let mut theirs = list.guests.into_iter().filter(|found| !found.is_foreign);
    let found = theirs.find(|found| match guest {
        GuestRef::Name(name) => found.name == name.as_str(),
        GuestRef::Uuid(id) => found.uuid == id.to_string(),
        GuestRef::Number(_) => false,
    })?;
    let host = daemon.peers.find(&found.host)?.host;
    let id: GuestId = found.uuid.parse().ok()?;
    let connection = daemon.peers.connect(host).await.ok()?;
    let query = wire::ConsoleQuery {
        guest: id,
        takes_over: query.force,
        is_read_only: query.read_only,
        scrollback_bytes: query.scrollback_bytes,
    };
    let stream = connection.console(query).await.ok()?;
    Some(Box::new(stream))
}

/// Which paired hosts could take a guest, by its passport: their CPU and engine.
pub(crate) async fn fits(daemon: &Daemon, papers: &Papers) -> Vec<Fit> {
    let Some(passport) = &papers.passport else { return Vec::new() };
    let row = papers.to_row();
    let query = wire::FactsQuery {
        definition: row.definition,
        passport: row.passport.unwrap_or_default().into_bytes(),
        ..wire::FactsQuery::default()
    };
    let answers = ask_all(daemon, |host| {
        let query = query.clone();
        async move {
            let connection = daemon.peers.connect(host).await?;
            let json = connection.facts(query).await.map_err(|error| error.problem())?;
            crate::migrate::read_host_facts(&json)
        }
    });
    let fit = |(host, answer): (HostId, Result<whimbrel_model::facts::HostFacts, Problem>)| {
        let host = daemon.peers.name_of(host).to_string();
        let reason = match answer {
            Ok(facts) => whimbrel_model::plan::engine::misfit(passport, &facts),
            Err(problem) => Some(problem.text),
        };
        Fit { host, is_fit: reason.is_none(), reason }
    };
    answers.await.into_iter().map(fit).collect()
}

/// What fits this host and every paired one that answers.
pub(crate) async fn baseline(daemon: &Daemon) -> Result<Baseline, Problem> {
    let mut hosts = vec![crate::migrate::host_facts(daemon, None).await?];
    let answers = ask_all(daemon, |host| async move {
        let connection = daemon.peers.connect(host).await?;
        let json = connection.facts(wire::FactsQuery::default()).await;
        crate::migrate::read_host_facts(&json.map_err(|error| error.problem())?)
    });
    let mut hosts_silent = Vec::new();
    for (host, answer) in answers.await {
        match answer {
            Ok(facts) => hosts.push(facts),
            Err(problem) => hosts_silent.push(silence(daemon, host, &problem)),
        }
    }
    hosts[1..].sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
    let found = whimbrel_model::plan::baseline::baseline(&hosts).ok_or_else(no_engine)?;
    Ok(Baseline {
        hosts: found.hosts.iter().map(ToString::to_string).collect(),
        cpu_model: found.cpu_model,
        machine: found.machine,
        features: found.features,
        beyond: found
            .beyond
            .into_iter()
            .filter(|(_, features)| !features.is_empty())
            .map(|(host, features)| Beyond { host: host.to_string(), features })
            .collect(),
        differ: found.differ,
        hosts_silent,
    })
}

fn no_engine() -> Problem {
    Problem::new(
        whimbrel_api::Kind::Refused,
        "peer/no-engine",
        "one of these hosts has no engine",
        "`whimbrel doctor` on each of them says what is missing",
    )
}

/// Says in words what a peer answered about who owns a guest.
pub(crate) fn say(daemon: &Daemon, answer: Answer) -> String {
    let name = |host: HostId| {
        if host == daemon.host_id() {
            format!("`{}`", daemon.name)
        } else {
            format!("`{}`", daemon.peers.name_of(host))
        }
    };
    match answer {
        Answer::NoRecord => "it has never heard of this guest".to_owned(),
        Answer::Damaged => "its record of this guest is damaged".to_owned(),
        Answer::Owner { owner, epoch, .. } => format!("{} owns it (epoch {epoch})", name(owner)),
        Answer::Acquiring { epoch } => format!("it is about to take it (epoch {epoch})"),
        Answer::Moving { from, to, epoch } => {
            format!("it is on its way from {} to {} (epoch {epoch})", name(from), name(to))
        }
    }
}

/// Whether a disk lies where guests from other hosts may have their disks. Symbolic links are
/// followed, so that none leads out.
pub(crate) fn is_allowed(disk: &DiskSource, allow_paths: &[String]) -> bool {
    match disk {
        DiskSource::Nfs(url) => allow_paths.iter().any(|allowed| is_below_url(url, allowed)),
        DiskSource::Path(path) => {
            let Ok(real) = path.canonicalize() else { return false };
            allow_paths.iter().any(|allowed| real.starts_with(resolved(Path::new(allowed))))
        }
    }
}

fn resolved(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn is_below_url(url: &str, allowed: &str) -> bool {
    let allowed = allowed.trim_end_matches('/');
    let below =
        url.strip_prefix(allowed).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    below && allowed.starts_with("nfs://") && !url.split('/').any(|part| part == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A symbolic link does not lead out of what is allowed, nor does `..` in a URL, nor a folder
    /// whose name merely begins like an allowed one.
    #[test]
    fn only_allowed_disks_come_in() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        for folder in ["in", "inner", "out"] {
            std::fs::create_dir(root.join(folder)).unwrap();
            std::fs::write(root.join(folder).join("disk"), "").unwrap();
        }
        std::os::unix::fs::symlink(root.join("out/disk"), root.join("in/link")).unwrap();
        let allow =
            [root.join("in").to_string_lossy().into_owned(), "nfs://10.0.0.1/xen".to_owned()];
        let path = |name: &str| is_allowed(&DiskSource::Path(root.join(name)), &allow);
        assert!(path("in/disk"));
        assert!(!path("in/link"));
        assert!(!path("inner/disk"));
        assert!(!path("in/missing"));
        let url = |url: &str| is_allowed(&DiskSource::Nfs(url.to_owned()), &allow);
        assert!(url("nfs://10.0.0.1/xen/a.img"));
        assert!(!url("nfs://10.0.0.1/xenon/a.img"));
        assert!(!url("nfs://10.0.0.1/xen/../etc/a.img"));
    }
}
