// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Runs `xl`, which fits whatever Xen is installed, and reads what it says.

use crate::error::EngineError;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use whimbrel_model::id::GuestId;
use whimbrel_model::run_state::RunState;
use whimbrel_model::units::Bytes;

pub(super) const PROGRAM: &str = "xl";
/// Its own settings.
pub(super) const CONFIG: &str = "/etc/xen/xl.conf";
/// What the control domain has just now, in KiB, by its own kernel.
const OWN_MEMORY: &str = "/sys/devices/system/xen_memory/xen_memory0/info/current_kb";
/// Longest a command may take; the scripts that plug a guest's devices in are slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// A domain, as `xl list -v` shows it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Domain {
    pub(super) name: String,
    pub(super) number: u32,
    pub(super) memory: Bytes,
    pub(super) cpu_count: u32,
    pub(super) is_paused: bool,
    /// It has stopped for good, for this reason.
    pub(super) ended: Option<Reason>,
    pub(super) cpu_time: Duration,
    pub(super) id: String,
}

impl Domain {
    /// What the guest in it does.
    pub(super) fn run(&self) -> RunState {
        match self.ended {
            Some(Reason::PowerOff) => RunState::ShutDown,
            Some(Reason::Crash) => RunState::Panicked,
            Some(Reason::Reboot | Reason::Suspend) => RunState::Paused,
            None if self.is_paused => RunState::Paused,
            None => RunState::Running,
        }
    }
}

/// Why a domain shut down, by Xen's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    PowerOff,
    Reboot,
    /// It stands still to be moved.
    Suspend,
    Crash,
}

/// Runs `xl` to its end and returns what it wrote to its standard output.
pub(super) async fn run(guest: &str, arguments: &[&str]) -> Result<String, EngineError> {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let word = arguments.first().copied().unwrap_or_default().to_owned();
    let output = match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(EngineError::NotInstalled { program: PROGRAM.to_owned() });
        }
        Ok(Err(source)) => {
            return Err(EngineError::File { action: "run", path: PROGRAM.into(), source });
        }
        Err(_) => {
            let (guest, seconds) = (guest.to_owned(), PATIENCE.as_secs());
            return Err(EngineError::Silent { guest, command: format!("xl {word}"), seconds });
        }
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let reason = reason(&String::from_utf8_lossy(&output.stderr)).to_owned();
    Err(EngineError::Refused { guest: guest.to_owned(), command: format!("xl {word}"), reason })
}

/// Picks the line that says why: the first error is the cause, and what follows is the undoing.
pub(super) fn reason(said: &str) -> &str {
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines().find(|line| line.contains("error:"));
    first.or_else(|| lines().next_back()).unwrap_or("it says nothing")
}

/// Returns all domains of this host, the control domain among them.
pub(super) async fn domains(guest: &str) -> Result<Vec<Domain>, EngineError> {
    let text = run(guest, &["list", "-v"]).await?;
    Ok(text.lines().skip(1).filter_map(parse).collect())
}

/// Finds the domain that is a guest.
pub(super) async fn find(guest: &str, id: GuestId) -> Result<Option<Domain>, EngineError> {
    let id = id.to_string();
    Ok(domains(guest).await?.into_iter().find(|domain| domain.id == id))
}

/// Reads a line of `xl list -v`: name, number, MiB, vCPUs, state, seconds, UUID, reason, label.
pub(super) fn parse(line: &str) -> Option<Domain> {
    // From the right, as names may hold anything.
    let mut rest = line.trim_end();
    let mut word = || {
        let (left, word) = rest.rsplit_once(char::is_whitespace)?;
        rest = left.trim_end();
        Some(word)
    };
    let [_label, reason, id, seconds] = [word()?, word()?, word()?, word()?];
    let [state, cpu_count, memory, number] = [word()?, word()?, word()?, word()?];
    let is_shut_down = state.contains('s') || state.contains('c');
    Some(Domain {
        name: rest.to_owned(),
        number: number.parse().ok()?,
        memory: Bytes::mib(memory.parse::<u32>().ok()?.into()),
        cpu_count: cpu_count.parse().ok()?,
        is_paused: state.contains('p'),
        ended: match reason {
            "0" if is_shut_down => Some(Reason::PowerOff),
            "1" => Some(Reason::Reboot),
            "2" => Some(Reason::Suspend),
            "-" | "0" => None,
            _ => Some(Reason::Crash),
        },
        cpu_time: Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?,
        id: id.to_owned(),
    })
}

/// What this Xen says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) version: String,
    /// `pv`, `hvm`, `pvh`, and what it can do for them.
    pub(super) abilities: Vec<String>,
    pub(super) total: Bytes,
    /// What no domain has: the control domain's own memory is not among it.
    pub(super) free: Bytes,
    /// What Xen was booted with.
    pub(super) command_line: String,
    /// What the processor can do.
    pub(super) cpu_features: Vec<String>,
}

/// The words of `hw_caps`, as xen-cpuid(8) names them: the leaf of CPUID and the register.
const CPUID_WORDS: [&str; 8] = ["1d", "1c", "e1d", "e1c", "Da1", "7b0", "7c0", "e7d"];

/// Reads `1789fbff:818ab1f9:…`: each bit that is set is a feature, `1c.20` bit 20 of the second.
fn cpu_features(words: &str) -> Vec<String> {
    let words = words.split(':').map(|word| u32::from_str_radix(word.trim(), 16).unwrap_or(0));
    let words = words.zip(CPUID_WORDS);
    let bits = words.flat_map(|(word, name)| {
        (0..u32::BITS)
            .filter(move |bit| word >> bit & 1 == 1)
            .map(move |bit| format!("{name}.{bit}"))
    });
    bits.collect()
}

pub(super) async fn info() -> Result<Info, EngineError> {
    parse_info(&run("", &["info"]).await?).ok_or_else(|| EngineError::Refused {
        guest: String::new(),
        command: "xl info".to_owned(),
        reason: "its answer cannot be read".to_owned(),
    })
}

fn parse_info(text: &str) -> Option<Info> {
    let value = |key: &str| {
        let found = text.lines().filter_map(|line| line.split_once(':'));
        found.map(|(name, value)| (name.trim(), value.trim())).find(|(name, _)| *name == key)
    };
    let (_, version) = value("xen_version")?;
    let abilities = value("virt_caps").map_or("", |(_, words)| words);
    let mib = |key: &str| value(key)?.1.parse().ok().map(Bytes::mib);
    Some(Info {
        version: version.to_owned(),
        abilities: abilities.split_whitespace().map(str::to_owned).collect(),
        total: mib("total_memory")?,
        free: mib("free_memory")?,
        cpu_features: cpu_features(value("hw_caps").map_or("", |(_, words)| words)),
        command_line: value("xen_commandline").map_or("", |(_, words)| words).to_owned(),
    })
}

/// Returns how much memory the control domain has. Its own kernel knows.
pub(super) fn own_memory() -> Result<Bytes, EngineError> {
    let failed = |source| EngineError::File { action: "read", path: OWN_MEMORY.into(), source };
    let kib: u64 = match std::fs::read_to_string(OWN_MEMORY).map_err(failed)?.trim().parse() {
        Ok(kib) => kib,
        Err(error) => return Err(failed(std::io::Error::other(error))),
    };
    Ok(Bytes(kib << 10))
}

/// Whether xl takes memory from the control domain for a guest: `autoballoon` in its settings;
/// unless that says, where Xen was not told how much the control domain is to have (xl.conf(5)).
pub(super) fn gives_own_memory(config: &str, command_line: &str) -> bool {
    let settings = config.lines().filter_map(|line| line.split_once('='));
    let mut set = settings.filter(|(key, _)| key.trim() == "autoballoon");
    match set.next_back().map(|(_, value)| value.trim().trim_matches(['"', '\''])) {
        Some("on" | "1") => true,
        Some("off" | "0") => false,
        _ => !command_line.split_whitespace().any(|word| word.starts_with("dom0_mem=")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines as Xen 4.17 prints them.
    #[test]
    fn domains_are_read() {
        let id = "6f3f7a52-61c2-4b7e-9f3e-0a4f0f6a0001";
        let line = |state: &str, reason: &str| {
            parse(&format!("web 1  12  128  2  {state}  4.5  {id}  {reason}  -")).unwrap()
        };
        let running = line("-b----", "-");
        assert_eq!((running.name.as_str(), running.cpu_count), ("web 1", 2));
        assert_eq!((running.memory, running.id.as_str()), (Bytes::mib(128), id));
        assert_eq!((running.number, running.is_paused, running.ended), (12, false, None));
        assert_eq!(running.cpu_time, Duration::from_millis(4500));
        assert!(line("--p---", "-").is_paused);
        assert_eq!(line("---s--", "0").ended, Some(Reason::PowerOff));
        assert_eq!(line("---s--", "1").ended, Some(Reason::Reboot));
        assert_eq!(line("---s--", "2").ended, Some(Reason::Suspend));
        assert_eq!(line("---sc-", "3").ended, Some(Reason::Crash));
        assert_eq!(parse("Name   ID   Mem VCPUs State Time(s)"), None);
    }

    /// What a guest without enough memory for its kernel gets to hear.
    #[test]
    fn the_cause_comes_first() {
        let said = "Parsing config from xl.cfg\nxc: error: panic: xc_dom_core.c:360: xc_dom_boot_\
                    mem_init: failed to find free memory\nlibxl: error: libxl_dom.c:757: \
                    xc_dom_mem_init failed\nlibxl: error: libxl_domain.c:1064: Destruction failed\n";
        assert!(reason(said).starts_with("xc: error: panic"), "{}", reason(said));
        assert_eq!(
            reason("\nweb1 is an invalid domain identifier\n"),
            "web1 is an invalid domain identifier"
        );
        assert_eq!(reason(""), "it says nothing");
    }

    #[test]
    fn the_host_is_read() {
        let text = "host : xen1\ntotal_memory : 1023\nfree_memory            : 421\nxen_version            : 4.17.6\n\
                    virt_caps              : pv hvm hap shadow\n\
                    hw_caps                : 80000001:00100000:00000000\n\
                    xen_commandline        : console=com1 dom0_mem=512M\n";
        let info = parse_info(text).unwrap();
        assert_eq!(info.version, "4.17.6");
        assert_eq!((info.total, info.free), (Bytes::mib(1023), Bytes::mib(421)));
        assert!(info.abilities.contains(&"hvm".to_owned()));
        assert_eq!(info.cpu_features, ["1d.0", "1d.31", "1c.20"]);
        assert_eq!(info.command_line, "console=com1 dom0_mem=512M");
        assert_eq!(parse_info("release : 6.1"), None);
    }

    #[test]
    fn xl_may_take_from_the_control_domain() {
        let fixed = "console=com1 dom0_mem=512M,max:512M";
        for (config, command_line, expected) in [
            ("", "console=com1", true),
            ("", fixed, false),
            ("# autoballoon=\"on\"\nautoballoon = \"auto\"", fixed, false),
            ("autoballoon=\"on\"", fixed, true),
            ("autoballoon=1", fixed, true),
            ("autoballoon='off'", "", false),
        ] {
            assert_eq!(gives_own_memory(config, command_line), expected, "{config} {command_line}");
        }
    }
}
