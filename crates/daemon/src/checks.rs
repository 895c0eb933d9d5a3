// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Is this host fit? What `whimbrel doctor` shows.

use crate::daemon::Daemon;
use std::time::Duration;
use whimbrel_api::plan::{Finding, Severity};
use whimbrel_engine::{EngineError, EngineFacts};
use whimbrel_host::dirs::UserIds;
use whimbrel_host::machine;
use whimbrel_model::facts::{Firewall, MemoryFacts, SecurityFacts, UserFacts};
use whimbrel_model::passport::Accelerator;
use whimbrel_model::plan::OnMiss;
use whimbrel_model::plan::firewall::open_port;
use whimbrel_model::plan::postcopy;
use whimbrel_model::problem::Remedy;
use whimbrel_model::units::Bytes;

/// Below this the state directory is about to be in trouble.
const STATE_SPACE_MIN: Bytes = Bytes::mib(256);
/// How long paired hosts may take to say that they are there.
const PEER_MAX: Duration = Duration::from_secs(2);

/// What was seen of the host, to be judged.
#[derive(Clone, Debug)]
struct Seen {
    kernel: String,
    engine_user: Option<u32>,
    memory: MemoryFacts,
    state_root: String,
    state_space: Result<Bytes, String>,
    /// None: the daemon may not look.
    bridges: Option<Vec<String>>,
    allow_bridges: Vec<String>,
    /// None: the kernel does not say.
    is_clock_kept: Option<bool>,
    port: u16,
    is_port_open: bool,
    firewall: Option<Firewall>,
    is_in_maintenance: bool,
    /// The user engines run as, who must handle page faults for post-copy.
    fault_user: UserFacts,
    /// Migrations of this host fall back on post-copy, by its configuration.
    is_postcopy_wanted: bool,
    security: SecurityFacts,
    /// The paired hosts, and why one does not answer.
    peers: Vec<(String, Option<String>)>,
}

pub(crate) async fn all(
    daemon: &Daemon,
    engine: Result<&EngineFacts, &EngineError>,
) -> Vec<Finding> {
    daemon.memory.look(&*daemon.engine).await;
    let config = daemon.config();
    let bridges = daemon.network.bridges().await.ok();
    let fault_user = daemon.engine_user_facts();
    let ids = UserIds { uid: fault_user.uid, gid: fault_user.gid };
    let security = whimbrel_host::security::facts(ids);
    let seen = Seen {
        kernel: machine::system().kernel,
        engine_user: daemon.run_as().map(|user| user.uid),
        memory: daemon.memory.facts(),
        state_root: daemon.layout().root().display().to_string(),
        state_space: daemon.layout().free_space().map_err(|error| error.to_string()),
        bridges: bridges.map(|bridges| bridges.into_iter().map(|bridge| bridge.name).collect()),
        allow_bridges: config.relocation.allow_bridges.clone(),
        is_clock_kept: machine::is_clock_kept(),
        port: config.relocation.port,
        is_port_open: daemon.peers.is_open().await,
        firewall: security.firewall,
        is_in_maintenance: config.is_in_maintenance,
        fault_user,
        is_postcopy_wanted: config.bargain.on_miss == OnMiss::Postcopy,
        security,
        peers: peers(daemon).await,
    };
    let mut findings = vec![versions(&seen, engine), accelerator(engine)];
    findings.extend(engine.ok().map(|engine| faults(&seen, &engine.version)));
    findings.extend(judge(&seen));
    findings
}

/// Asks every paired host, all at once, whether it is there.
async fn peers(daemon: &Daemon) -> Vec<(String, Option<String>)> {
    let asked = daemon.peers.all().into_iter().map(|host| async move {
        let asking = async {
            let connection = daemon.peers.connect(host).await?;
            connection.ping().await.map_err(|error| error.problem())
        };
        let why = match tokio::time::timeout(PEER_MAX, asking).await {
            Ok(Ok(_)) => None,
            Ok(Err(problem)) => Some(problem.text),
            Err(_) => Some(format!("it did not answer within {} s", PEER_MAX.as_secs())),
        };
        (daemon.peers.name_of(host).to_string(), why)
    });
    let mut peers = futures::future::join_all(asked).await;
    peers.sort();
    peers
}

fn judge(seen: &Seen) -> Vec<Finding> {
    let mut findings = vec![
        engine_user(seen.engine_user),
        memory(&seen.memory),
        state_space(seen),
        bridges(seen),
        clock(seen.is_clock_kept),
        port(seen),
    ];
    findings.extend(maintenance(seen.is_in_maintenance));
    findings.extend(pairs(&seen.peers));
    findings
}

fn finding(severity: Severity, code: &str, text: String, remedy: &str) -> Finding {
    let remedy = Some(remedy.to_owned()).filter(|remedy| !remedy.is_empty());
    Finding { severity, code: code.to_owned(), text, remedy }
}

fn versions(seen: &Seen, engine: Result<&EngineFacts, &EngineError>) -> Finding {
    let code = "doctor/engine";
    let ours = env!("CARGO_PKG_VERSION");
    match engine {
        Ok(engine) => {
            let text = format!(
                "{} {} can be used, by Whimbrel {ours} on Linux {}; new guests get the machine \
                 type {} and the CPU model {}",
                engine.kind.name(),
                engine.version,
                seen.kernel,
                engine.machine_default,
                engine.cpu_model
            );
            finding(Severity::Ok, code, text, "")
        }
        Err(error) => finding(Severity::Blocker, code, error.to_string(), &error.remedy()),
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
            format!("guests are emulated: {}", engine.accelerator_reason),
            "guests run, but slowly; switch virtualisation on in the firmware where there is any, \
             then `modprobe kvm_intel || modprobe kvm_amd`",
        ),
        Err(_) => finding(
            Severity::Warning,
            code,
            "not known without an engine".to_owned(),
            "`apt install qemu-system-x86` (or this distribution's package)",
        ),
    }
}

fn engine_user(uid: Option<u32>) -> Finding {
    let code = "doctor/engine-user";
    match uid {
        Some(uid) => {
            let text = format!("engines run as the unprivileged uid {uid}");
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

fn memory(memory: &MemoryFacts) -> Finding {
    let text = format!(
        "{} of {} are free, of which {} are kept for the host and {} promised to arriving guests",
        memory.free, memory.total, memory.host_min_memory, memory.promised
    );
    match memory.free > memory.host_min_memory.saturating_add(memory.promised) {
        true => finding(Severity::Ok, "doctor/memory", text, ""),
        false => finding(
            Severity::Warning,
            "doctor/memory",
            text,
            "stop or move guests, or give them a `memory_min`, so that they can be squeezed",
        ),
    }
}

fn maintenance(is_in_maintenance: bool) -> Option<Finding> {
    let text = "`maintenance = true`: no guest may come here, and none is started";
    let remedy = "take it out of `[host]` in whimbrel.toml when the work is done, then `whimbrel \
                  reload`";
    is_in_maintenance
        .then(|| finding(Severity::Warning, "doctor/maintenance", text.to_owned(), remedy))
}

/// Whether guests may come by post-copy. Nobody needs it who does not ask for it.
fn faults(seen: &Seen, version: &str) -> Finding {
    let (code, user) = ("doctor/postcopy", &seen.fault_user);
    match postcopy::hindrance(&seen.security, user, version) {
        None => {
            let text =
                format!("`{}` may handle page faults, so post-copy can come here", user.name);
            finding(Severity::Ok, code, text, "")
        }
        Some(remedy) => {
            let text = format!(
                "`{}`, as whom QEMU {version} runs, may not handle page faults (userfaultfd): no \
                 guest can come by post-copy (`--on-miss postcopy`)",
                user.name
            );
            match seen.is_postcopy_wanted {
                true => finding(Severity::Warning, code, text, &remedy),
                false => {
                    let text = format!("{text}; where it is wanted: {remedy}");
                    finding(Severity::Ok, code, text, "")
                }
            }
        }
    }
}

fn state_space(seen: &Seen) -> Finding {
    let code = "doctor/state-space";
    let root = &seen.state_root;
    match &seen.state_space {
        Ok(free) if *free >= STATE_SPACE_MIN => {
            finding(Severity::Ok, code, format!("{free} are free below {root}"), "")
        }
        Ok(free) => finding(
            Severity::Warning,
            code,
            format!("only {free} are free below {root}, and {STATE_SPACE_MIN} should be"),
            "make room there; no handoff fails for it, but logs and reports will",
        ),
        Err(error) => {
            let remedy = format!("look at it: `df {root}`");
            finding(Severity::Warning, code, error.clone(), &remedy)
        }
    }
}

fn bridges(seen: &Seen) -> Finding {
    let code = "doctor/bridge";
    let allowed = &seen.allow_bridges;
    let Some(bridges) = &seen.bridges else {
        let text = "the bridges of this host cannot be listed".to_owned();
        return finding(Severity::Warning, code, text, "run the daemon as root");
    };
    if let Some(missing) =
        allowed.iter().find(|allowed| *allowed != "*" && !bridges.contains(allowed))
    {
        let remedy = format!(
            "`ip link add {missing} type bridge && ip link set {missing} up`, and a port of the \
             host added to it"
        );
        let text = format!(
            "`allow_bridges` names `{missing}`, and this host has {}",
            if bridges.is_empty() { "no bridge".to_owned() } else { bridges.join(", ") }
        );
        return finding(Severity::Warning, code, text, &remedy);
    }
    match (bridges.as_slice(), allowed.as_slice()) {
        ([], _) => finding(
            Severity::Warning,
            code,
            "there is no bridge: guests have user networking only, which does not survive a move"
                .to_owned(),
            "`ip link add br0 type bridge && ip link set br0 up`, and a port of the host added to \
             it",
        ),
        (bridges, []) => finding(
            Severity::Warning,
            code,
            format!("arriving guests may join none of the bridges {}", bridges.join(", ")),
            "name them in `allow_bridges` under `[relocation]` of whimbrel.toml, then `whimbrel \
             reload`",
        ),
        (_, allowed) => {
            let text = format!("arriving guests may join {}", allowed.join(", "));
            finding(Severity::Ok, code, text, "")
        }
    }
}

fn clock(is_kept: Option<bool>) -> Finding {
    let code = "doctor/clock";
    match is_kept {
        Some(true) => {
            let text = "the clock follows a time server, by the kernel's word".to_owned();
            finding(Severity::Ok, code, text, "")
        }
        Some(false) => finding(
            Severity::Warning,
            code,
            "nothing keeps the clock right, by the kernel's word: a guest's clock jumps where \
             those of two hosts differ"
                .to_owned(),
            "`timedatectl set-ntp true`",
        ),
        None => finding(
            Severity::Warning,
            code,
            "the kernel does not say whether anything keeps the clock right".to_owned(),
            "`timedatectl` shows it",
        ),
    }
}

fn port(seen: &Seen) -> Finding {
    let (code, port) = ("doctor/port", seen.port);
    if !seen.is_port_open {
        return finding(
            Severity::Warning,
            code,
            format!("TCP port {port} is closed: no guest can come or go"),
            "`whimbrel relocation enable` opens it for paired hosts",
        );
    }
    match seen.firewall {
        None => {
            let text = format!("TCP port {port} is open to paired hosts; no firewall was found");
            finding(Severity::Ok, code, text, "")
        }
        // Whether it lets the port in, only another host can tell.
        Some(firewall) => finding(
            Severity::Ok,
            code,
            format!(
                "TCP port {port} is open to paired hosts; where {firewall:?} keeps them out: {}",
                open_port(Some(firewall), port, None)
            ),
            "",
        ),
    }
}

fn pairs(peers: &[(String, Option<String>)]) -> Vec<Finding> {
    let code = "doctor/pairs";
    if peers.is_empty() {
        return vec![finding(
            Severity::Warning,
            code,
            "this host is paired with no other".to_owned(),
            "`whimbrel host invite` there, `whimbrel host join` here",
        )];
    }
    let said = peers.iter().map(|(name, why)| match why {
        None => finding(Severity::Ok, code, format!("paired with `{name}`, which answers"), ""),
        Some(why) => finding(
            Severity::Warning,
            code,
            format!("paired with `{name}`, which does not answer: {why}"),
            &format!("on `{name}`: `whimbrel doctor`"),
        ),
    });
    said.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Seen {
        Seen {
            kernel: "6.1.0".to_owned(),
            engine_user: Some(990),
            memory: MemoryFacts {
                total: Bytes::mib(4096),
                free: Bytes::mib(2048),
                host_min_memory: Bytes::mib(256),
                ..MemoryFacts::default()
            },
            state_root: "/var/lib/whimbrel".to_owned(),
            state_space: Ok(Bytes::mib(9000)),
            bridges: Some(vec!["br0".to_owned()]),
            allow_bridges: vec!["br0".to_owned()],
            is_clock_kept: Some(true),
            port: 8002,
            is_port_open: true,
            firewall: None,
            is_in_maintenance: false,
            fault_user: UserFacts { name: "whimbrel".to_owned(), uid: 990, gid: 990 },
            is_postcopy_wanted: true,
            security: SecurityFacts { may_handle_faults: true, ..SecurityFacts::default() },
            peers: vec![("beta".to_owned(), None)],
        }
    }

    /// A host that is well has nothing but ok lines; each spoilt thing has exactly its finding,
    /// with a remedy.
    #[test]
    fn each_spoilt_thing_has_its_finding() {
        let is_well = judge(&well()).iter().all(|f| f.severity == Severity::Ok);
        assert!(is_well, "{:?}", judge(&well()));
        let check = |code: &str, word: &str, spoil: fn(&mut Seen)| {
            let mut seen = well();
            spoil(&mut seen);
            let found: Vec<_> =
                judge(&seen).into_iter().filter(|f| f.severity != Severity::Ok).collect();
            assert!(matches!(&found[..], [one] if one.code == code), "{code}: {found:?}");
            assert!(found[0].text.contains(word), "{word} is not in {:?}", found[0]);
            assert!(found[0].remedy.as_ref().is_some_and(|remedy| !remedy.is_empty()), "{code}");
        };
        check("doctor/engine-user", "not root", |seen| seen.engine_user = None);
        check("doctor/memory", "200 MiB", |seen| seen.memory.free = Bytes::mib(200));
        check("doctor/memory", "1.8 GiB", |seen| seen.memory.promised = Bytes::mib(1843));
        check("doctor/state-space", "12 MiB", |seen| seen.state_space = Ok(Bytes::mib(12)));
        check("doctor/state-space", "gone", |seen| seen.state_space = Err("gone".to_owned()));
        check("doctor/bridge", "no bridge", |seen| {
            (seen.bridges, seen.allow_bridges) = (Some(Vec::new()), Vec::new());
        });
        check("doctor/bridge", "`br1`", |seen| seen.allow_bridges = vec!["br1".to_owned()]);
        check("doctor/bridge", "none of", |seen| seen.allow_bridges.clear());
        check("doctor/bridge", "cannot be listed", |seen| seen.bridges = None);
        check("doctor/maintenance", "none is started", |seen| seen.is_in_maintenance = true);
        check("doctor/clock", "nothing keeps", |seen| seen.is_clock_kept = Some(false));
        check("doctor/clock", "does not say", |seen| seen.is_clock_kept = None);
        check("doctor/port", "8002", |seen| seen.is_port_open = false);
        check("doctor/pairs", "no other", |seen| seen.peers.clear());
        check("doctor/pairs", "no route", |seen| seen.peers[0].1 = Some("no route".to_owned()));
    }

    /// Which of the two ways QEMU takes depends on its version.
    #[test]
    fn post_copy_needs_what_this_qemu_asks_for() {
        let check = |version: &str, spoil: fn(&mut SecurityFacts), word: Option<&str>| {
            let mut seen = well();
            spoil(&mut seen.security);
            let found = faults(&seen, version);
            let remedy = found.remedy.unwrap_or_default();
            assert_eq!(found.severity == Severity::Ok, word.is_none(), "{}", found.text);
            assert!(word.is_none_or(|word| remedy.contains(word)), "{remedy}");
        };
        check("7.2.22", |_| {}, None);
        check("7.2.22", |s| s.may_handle_faults = false, Some("sysctl -w vm.unpriv"));
        check("10.0.2", |s| s.may_handle_faults = false, Some("setfacl -m u:whimbrel:rw"));
        let device = |s: &mut SecurityFacts| {
            (s.may_handle_faults, s.has_fault_device) = (false, true);
        };
        check("10.0.2", device, None);
        check("7.2.22", device, Some("sysctl"));
        // Who does not want it is not warned, and can read what it takes.
        let mut seen = Seen { is_postcopy_wanted: false, ..well() };
        seen.security.may_handle_faults = false;
        let found = faults(&seen, "7.2.22");
        assert!(found.severity == Severity::Ok && found.text.contains("sysctl -w"), "{found:?}");
    }

    /// A firewall may be well configured; its command is there for when it is not.
    #[test]
    fn the_firewall_s_command_is_named() {
        let seen = Seen { firewall: Some(Firewall::Ufw), ..well() };
        assert!(port(&seen).text.contains("`ufw allow 8002/tcp`"));
    }
}
