// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Is this host fit? What `whimbrel doctor` shows.

use crate::daemon::Daemon;
use whimbrel_api::plan::{Finding, Severity};
use whimbrel_engine::{EngineError, EngineFacts};
use whimbrel_model::passport::Accelerator;
use whimbrel_model::problem::Remedy;
use whimbrel_model::units::Bytes;

/// Below this the state directory is about to be in trouble.
const STATE_SPACE_MIN: Bytes = Bytes::mib(256);

pub(crate) async fn all(
    daemon: &Daemon,
    engine: Result<&EngineFacts, &EngineError>,
) -> Vec<Finding> {
    vec![
        engine_there(engine),
        accelerator(engine),
        engine_user(daemon),
        memory(daemon),
        state_space(daemon),
        port(daemon).await,
        pairs(daemon),
    ]
}

fn finding(severity: Severity, code: &str, text: String, remedy: &str) -> Finding {
    let remedy = Some(remedy.to_owned()).filter(|remedy| !remedy.is_empty());
    Finding { severity, code: code.to_owned(), text, remedy }
}

fn engine_there(engine: Result<&EngineFacts, &EngineError>) -> Finding {
    match engine {
        Ok(engine) => {
            let text = format!("QEMU {} can be used", engine.version);
            finding(Severity::Ok, "doctor/engine", text, "")
        }
        Err(error) => {
            finding(Severity::Blocker, "doctor/engine", error.to_string(), &error.remedy())
        }
    }
}

fn accelerator(engine: Result<&EngineFacts, &EngineError>) -> Finding {
    let code = "doctor/accelerator";
    match engine {
        Ok(engine) if engine.accelerator == Accelerator::Kvm => {
            finding(Severity::Ok, code, engine.accelerator_reason.clone(), "")
        }
        Ok(engine) => finding(
            Severity::Warning,
            code,
            engine.accelerator_reason.clone(),
            "guests run, but slowly; switch virtualisation on in the firmware where there is any",
        ),
        Err(_) => finding(Severity::Warning, code, "not known without an engine".to_owned(), ""),
    }
}

fn engine_user(daemon: &Daemon) -> Finding {
    let code = "doctor/engine-user";
    match daemon.run_as() {
        Some(user) => {
            let text = format!("engines run as the unprivileged uid {}", user.uid);
            finding(Severity::Ok, code, text, "")
        }
        None => finding(
            Severity::Warning,
            code,
            "the daemon is not root: engines run as its own user, without bridges".to_owned(),
            "run the daemon as root to give guests bridges and a user of their own",
        ),
    }
}

fn memory(daemon: &Daemon) -> Finding {
    let memory = daemon.memory.facts();
    let text = format!(
        "{} of {} are free, of which {} are kept for the host",
        memory.free, memory.total, memory.host_min_memory
    );
    let severity =
        if memory.free > memory.host_min_memory { Severity::Ok } else { Severity::Warning };
    let remedy = if severity == Severity::Ok { "" } else { "stop or move guests" };
    finding(severity, "doctor/memory", text, remedy)
}

fn state_space(daemon: &Daemon) -> Finding {
    let code = "doctor/state-space";
    let root = daemon.layout().root().display();
    match daemon.layout().free_space() {
        Ok(free) if free >= STATE_SPACE_MIN => {
            finding(Severity::Ok, code, format!("{free} are free below {root}"), "")
        }
        Ok(free) => finding(
            Severity::Warning,
            code,
            format!("only {free} are free below {root}"),
            "make room there; no handoff fails for it, but logs and reports will",
        ),
        Err(error) => finding(Severity::Warning, code, error.to_string(), &error.remedy()),
    }
}

async fn port(daemon: &Daemon) -> Finding {
    let port = daemon.config().relocation.port;
    if daemon.peers.is_open().await {
        let text = format!("TCP port {port} is open to paired hosts");
        return finding(Severity::Ok, "doctor/port", text, "");
    }
    finding(
        Severity::Warning,
        "doctor/port",
        format!("TCP port {port} is closed: no guest can come or go"),
        "`whimbrel relocation enable` opens it for paired hosts",
    )
}

fn pairs(daemon: &Daemon) -> Finding {
    match daemon.peers.all().len() {
        0 => finding(
            Severity::Warning,
            "doctor/pairs",
            "this host is paired with no other".to_owned(),
            "`whimbrel host invite` there, `whimbrel host join` here",
        ),
        count => finding(Severity::Ok, "doctor/pairs", format!("paired with {count} hosts"), ""),
    }
}
