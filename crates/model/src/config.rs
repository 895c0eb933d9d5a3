// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The daemon's configuration, `whimbrel.toml`.

pub mod allow;
mod schema;
pub mod sxp;

use crate::guest::file::{check_bridge, check_nfs};
use crate::id::HostName;
use crate::passport::{Accelerator, EngineKind};
use crate::plan::{Bargain, OnMiss};
use crate::text_file::{self, Fault, Field, FileError, Table, TextFile, check_path, printable};
use crate::units::{self, Bytes};
use allow::{AllowedHosts, HostPattern, Network};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

/// The port of the seed, and ours.
pub const PORT_DEFAULT: u16 = 8002;
/// Where the file is looked for.
pub const PATH_DEFAULT: &str = "/etc/whimbrel/whimbrel.toml";
/// Most entries of `allow_paths` and of `allow_bridges`.
pub const LIST_MAX: usize = 256;

/// Most of the free space that kept memory may take.
pub const BUDGET_PERCENT_MAX: u8 = 90;
/// How long memory may be kept.
pub const EXPIRE_MIN: Duration = Duration::from_secs(60);
pub const EXPIRE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Everything that can be configured, with its default where the file is silent.
#[derive(Clone, Debug)]
pub struct Config {
    /// None: the machine's own host name.
    pub name: Option<HostName>,
    pub state_dir: PathBuf,
    /// What the host keeps for itself when guests arrive.
    pub host_min_memory: Bytes,
    /// No guest is started here and none may come.
    pub is_in_maintenance: bool,
    pub api: Api,
    pub engine: Engine,
    pub relocation: Relocation,
    pub bargain: Bargain,
    pub pages: Pages,
    /// Switches another host off, and knows when it is.
    pub fence: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// None: `api.sock` in the state directory.
    pub socket: Option<PathBuf>,
    /// The group that may use the socket besides root; ignored where it does not exist.
    pub group: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// None: Xen where this is the control domain of a Xen host, else QEMU.
    pub kind: Option<EngineKind>,
    /// The unprivileged user the engine runs as.
    pub user: String,
    /// None: looked for in `PATH`.
    pub qemu: Option<PathBuf>,
    /// Where its firmware lies; none: where it was built for.
    pub qemu_data: Option<PathBuf>,
    /// None: KVM where it really works, else TCG.
    pub accelerator: Option<Accelerator>,
    /// Devices of Xen's guests are plugged in by Whimbrel, and not by Xen's scripts.
    pub plugs_in_on_xen: bool,
}

/// Whether guests may come from other hosts, from which, and what they may bring.
#[derive(Clone, Debug)]
pub struct Relocation {
    pub is_enabled: bool,
    pub address: IpAddr,
    pub port: u16,
    pub hosts_allow: AllowedHosts,
    /// Folders (absolute) and `nfs://` prefixes; disks of an arriving guest must lie in one.
    pub allow_paths: Vec<String>,
    /// Bridges an arriving guest may join.
    pub allow_bridges: Vec<String>,
    /// Bytes a second, for all migrations of this host together; none: as much as fits.
    pub bandwidth: Option<Bytes>,
    /// Peers are reached through this network where they have an address in it.
    pub network: Option<Network>,
}

/// What is kept of the memory of guests that have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    pub is_kept: bool,
    pub budget: Budget,
    /// What is older is dropped.
    pub expire: Duration,
    /// Pages that lie on the guest's disks may travel as references.
    pub are_disks_read: bool,
}

/// How much space kept memory may take in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// Of what would be free if nothing were kept; at most [`BUDGET_PERCENT_MAX`].
    Percent(u8),
    Size(Bytes),
}

impl Default for Pages {
    fn default() -> Self {
        let expire = Duration::from_secs(24 * 3600);
        Self { is_kept: true, budget: Budget::Percent(10), expire, are_disks_read: false }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: None,
            state_dir: PathBuf::from("/var/lib/whimbrel"),
            host_min_memory: Bytes::mib(256),
            is_in_maintenance: false,
            api: Api { socket: None, group: "whimbrel".to_owned() },
            engine: Engine {
                kind: None,
                user: "whimbrel".to_owned(),
                qemu: None,
                qemu_data: None,
                accelerator: None,
                plugs_in_on_xen: false,
            },
            relocation: Relocation {
                is_enabled: false,
                address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                port: PORT_DEFAULT,
                hosts_allow: AllowedHosts::any(),
                allow_paths: Vec::new(),
                allow_bridges: Vec::new(),
                bandwidth: None,
                network: None,
            },
            bargain: Bargain::default(),
            pages: Pages::default(),
            fence: None,
        }
    }
}

/// Reads `whimbrel.toml`.
pub fn parse(file: &TextFile<'_>) -> Result<Config, FileError> {
    text_file::open(file, &schema::TOP, |top| {
        let mut config = Config::default();
        if let Some(table) = top.table("host", &schema::HOST)? {
            host(&table, &mut config)?;
        }
        if let Some(table) = top.table("api", &schema::API)? {
            config.api.socket = table.string("socket")?.map(|path| path.path()).transpose()?;
            set(&mut config.api.group, table.string("group")?, |group| group.check(account))?;
        }
        if let Some(table) = top.table("engine", &schema::ENGINE)? {
            engine(&table, &mut config.engine)?;
        }
        if let Some(table) = top.table("relocation", &schema::RELOCATION)? {
            relocation(&table, &mut config.relocation)?;
        }
        if let Some(table) = top.table("migration", &schema::MIGRATION)? {
            migration(&table, &mut config.bargain)?;
        }
        if let Some(table) = top.table("pages", &schema::PAGES)? {
            pages(&table, &mut config.pages)?;
        }
        if let Some(table) = top.table("fence", &schema::FENCE)? {
            config.fence = table.string("command")?.map(|path| path.path()).transpose()?;
        }
        Ok(config)
    })
}

/// Replaces the default where the file says something.
fn set<'a, T>(
    setting: &mut T,
    field: Option<Field<'a, &'a str>>,
    read: impl FnOnce(&Field<'a, &'a str>) -> Result<T, FileError>,
) -> Result<(), FileError> {
    if let Some(field) = field {
        *setting = read(&field)?;
    }
    Ok(())
}

fn host(table: &Table<'_>, config: &mut Config) -> Result<(), FileError> {
    config.name = table.string("name")?.map(|name| name.check(HostName::new)).transpose()?;
    set(&mut config.state_dir, table.string("state_dir")?, Field::path)?;
    config.is_in_maintenance = table.bool("maintenance")?.unwrap_or(config.is_in_maintenance);
    set(&mut config.host_min_memory, table.string("host_min_memory")?, |size| {
        size.check(Bytes::parse)
    })
}

fn engine(table: &Table<'_>, engine: &mut Engine) -> Result<(), FileError> {
    let kinds = [("auto", None), ("qemu", Some(EngineKind::Qemu)), ("xen", Some(EngineKind::Xen))];
    set(&mut engine.kind, table.string("kind")?, |field| field.word(&kinds))?;
    set(&mut engine.user, table.string("user")?, |user| user.check(account))?;
    engine.qemu = table.string("qemu")?.map(|path| path.path()).transpose()?;
    engine.qemu_data = table.string("qemu_data")?.map(|path| path.path()).transpose()?;
    let words = [("auto", None), ("kvm", Some(Accelerator::Kvm)), ("tcg", Some(Accelerator::Tcg))];
    set(&mut engine.accelerator, table.string("accelerator")?, |field| field.word(&words))?;
    let words = [("scripts", false), ("whimbrel", true)];
    set(&mut engine.plugs_in_on_xen, table.string("xen_hotplug")?, |field| field.word(&words))
}

fn relocation(table: &Table<'_>, relocation: &mut Relocation) -> Result<(), FileError> {
    relocation.is_enabled = table.bool("enabled")?.unwrap_or(relocation.is_enabled);
    set(&mut relocation.address, table.string("address")?, |address| {
        address.check(|text| {
            text.parse::<IpAddr>().map_err(|_| format!("`{text}` is not an IP address"))
        })
    })?;
    if let Some(port) = table.number("port", 1..=u32::from(u16::MAX))? {
        relocation.port = u16::try_from(port).expect("the range was checked");
    }
    let hosts = table.strings("hosts_allow")?;
    hosts.iter().try_for_each(|host| host.check(HostPattern::new).map(drop))?;
    relocation.hosts_allow = AllowedHosts::new(hosts.iter().map(|host| host.value))
        .map_err(|error| table.error(Some("hosts_allow"), bad(error)))?;
    relocation.allow_paths = list(table, "allow_paths", allowed_path)?;
    relocation.allow_bridges = list(table, "allow_bridges", |name| match name {
        "*" => Ok(name.to_owned()),
        _ => check_bridge(name),
    })?;
    relocation.bandwidth =
        table.string("bandwidth")?.map(|rate| rate.check(units::parse_rate)).transpose()?;
    relocation.network =
        table.string("network")?.map(|network| network.check(str::parse::<Network>)).transpose()?;
    Ok(())
}

fn list(
    table: &Table<'_>,
    key: &str,
    check: impl Fn(&str) -> Result<String, String>,
) -> Result<Vec<String>, FileError> {
    let fields = table.strings(key)?;
    if fields.len() > LIST_MAX {
        let text = format!("{} entries are too many; at most {LIST_MAX} are allowed", fields.len());
        return Err(table.error(Some(key), bad(text)));
    }
    fields.iter().map(|field| field.check(&check)).collect()
}

fn bad(text: impl ToString) -> Fault {
    Fault::BadValue { text: text.to_string() }
}

fn allowed_path(text: &str) -> Result<String, String> {
    match text.starts_with("nfs://") {
        true => check_nfs(text),
        false => check_path(text, None).map(|path| path.display().to_string()),
    }
}

/// Checks the name of a user or a group.
fn account(name: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match (1..=32).contains(&name.len()) && !name.starts_with('-') && name.chars().all(allowed) {
        true => Ok(name.to_owned()),
        false => Err(format!("`{}` is not the name of a user or a group", printable(name))),
    }
}

fn migration(table: &Table<'_>, bargain: &mut Bargain) -> Result<(), FileError> {
    let duration = |field: &Field<'_, &str>| field.check(units::parse_duration);
    set(&mut bargain.pause_max, table.string("max_pause")?, duration)?;
    set(&mut bargain.deadline, table.string("deadline")?, duration)?;
    if let Some(percent) = table.number("max_slowdown", 0..=99)? {
        bargain.slowdown_percent_max = u8::try_from(percent).expect("the range was checked");
    }
    set(&mut bargain.on_miss, table.string("on_miss")?, |field| field.word(&OnMiss::WORDS))
}

fn pages(table: &Table<'_>, pages: &mut Pages) -> Result<(), FileError> {
    pages.is_kept = table.bool("keep")?.unwrap_or(pages.is_kept);
    pages.are_disks_read = table.bool("read_disks")?.unwrap_or(pages.are_disks_read);
    set(&mut pages.budget, table.string("budget")?, |field| field.check(budget))?;
    set(&mut pages.expire, table.string("expire")?, |field| {
        let expire = field.check(units::parse_duration)?;
        match (EXPIRE_MIN..=EXPIRE_MAX).contains(&expire) {
            true => Ok(expire),
            false => Err(field.bad(format!(
                "{} is not between {} and {}",
                units::format_duration(expire),
                units::format_duration(EXPIRE_MIN),
                units::format_duration(EXPIRE_MAX)
            ))),
        }
    })
}

/// Reads `10%` or a size.
fn budget(text: &str) -> Result<Budget, String> {
    let Some(percent) = text.trim().strip_suffix('%') else {
        let read = Bytes::parse(text).map(Budget::Size);
        return read.map_err(|_| {
            format!("`{}` is neither a part nor a size; write `10%` or `20 GiB`", printable(text))
        });
    };
    let percent = percent.trim_end().parse().ok().filter(|p| (1..=BUDGET_PERCENT_MAX).contains(p));
    percent
        .map(Budget::Percent)
        .ok_or_else(|| format!("`{}` is not between 1% and {BUDGET_PERCENT_MAX}%", printable(text)))
}

/// Returns the file with `[relocation] enabled` set, its comments and order kept.
pub fn with_relocation(file: &TextFile<'_>, is_enabled: bool) -> Result<String, FileError> {
    parse(file)?;
    let mut document: toml_edit::DocumentMut = file.text.parse().map_err(|error| {
        let text = toml_edit::TomlError::message(&error).to_owned();
        FileError::whole(file, Fault::Syntax { text })
    })?;
    let table = document.entry("relocation").or_insert_with(toml_edit::table);
    let old = table.get_mut("enabled").and_then(|item| item.as_value_mut());
    match old {
        // Comments on the line belong to the value.
        Some(value) => {
            let decor = value.decor().clone();
            *value = is_enabled.into();
            *value.decor_mut() = decor;
        }
        None => table["enabled"] = toml_edit::value(is_enabled),
    }
    Ok(document.to_string())
}

/// Returns the reference page of the format, `docs/reference/configuration.md`.
pub fn reference() -> String {
    text_file::render("The configuration", schema::INTRO, &schema::SECTIONS)
}

#[cfg(test)]
mod tests {
    //! The documented defaults hold, everything can be set, and every mistake is named.

    use super::*;

    fn read(text: &str) -> Result<Config, FileError> {
        parse(&TextFile { name: "whimbrel.toml", text, base: None })
    }

    #[test]
    fn an_empty_file_is_the_default_and_closed() {
        let config = read("").unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
        assert!(!config.relocation.is_enabled);
        assert!(config.relocation.allow_paths.is_empty());
    }

    #[test]
    fn everything_can_be_set() {
        let config = read(
            r#"
            [host]
            name = "alpha"
            state_dir = "/tmp/a"
            host_min_memory = "512M"
            maintenance = true
            [api]
            socket = "/run/a.sock"
            group = "admins"
            [engine]
            user = "qemu"
            qemu = "/opt/qemu/bin/qemu-system-x86_64"
            accelerator = "tcg"
            xen_hotplug = "whimbrel"
            [relocation]
            enabled = true
            address = "::"
            port = 9002
            hosts_allow = "beta ^node-[0-9]+$"
            allow_paths = ["/xen/", "nfs://10.0.0.1/xen"]
            allow_bridges = ["br0", "*"]
            bandwidth = "1 Gbit/s"
            network = "192.168.7.0/24"
            [migration]
            max_pause = "100ms"
            deadline = "10m"
            max_slowdown = 30
            on_miss = "throttle"
            [pages]
            keep = false
            budget = "25 %"
            expire = "2h 30m"
            read_disks = true
            "#,
        )
        .unwrap();
        assert_eq!(config.name.unwrap().as_str(), "alpha");
        assert_eq!(config.state_dir, PathBuf::from("/tmp/a"));
        assert_eq!(config.host_min_memory, Bytes::mib(512));
        assert!(config.is_in_maintenance);
        assert_eq!(config.api.socket, Some("/run/a.sock".into()));
        assert_eq!(config.engine.accelerator, Some(Accelerator::Tcg));
        assert!(config.engine.plugs_in_on_xen && !Config::default().engine.plugs_in_on_xen);
        let relocation = config.relocation;
        assert!(relocation.is_enabled && relocation.address.is_ipv6());
        assert_eq!(relocation.port, 9002);
        assert_eq!(relocation.hosts_allow.patterns().count(), 2);
        assert!(relocation.hosts_allow.allows("node-17", "10.0.0.1".parse().unwrap()));
        assert_eq!(relocation.allow_paths, ["/xen", "nfs://10.0.0.1/xen"]);
        assert_eq!(relocation.bandwidth, Some(Bytes(125_000_000)));
        assert_eq!(relocation.network.unwrap().to_string(), "192.168.7.0/24");
        let expected = Bargain {
            pause_max: Duration::from_millis(100),
            deadline: Duration::from_secs(600),
            slowdown_percent_max: 30,
            on_miss: OnMiss::Throttle,
        };
        assert_eq!(config.bargain, expected);
        let expire = Duration::from_secs(9_000);
        let expected =
            Pages { is_kept: false, budget: Budget::Percent(25), expire, are_disks_read: true };
        assert_eq!(config.pages, expected);
        let size = read("[pages]\nbudget = \"20 GiB\"").unwrap().pages.budget;
        assert_eq!(size, Budget::Size(Bytes::mib(20 << 10)));
    }

    #[test]
    fn mistakes_are_named() {
        let mut all = String::new();
        let mut check = |text: &str| {
            all.push_str(&format!("{}\n", read(text).expect_err(text)));
        };
        check("[relocation]\nenabeld = true");
        check("[relocatoin]\nenabled = true");
        check("enabled = true");
        check("[relocation]\nenabled = \"yes\"");
        check("[relocation]\nport = 0");
        check("[relocation]\naddress = \"alpha\"");
        check("[relocation]\nhosts_allow = [\"beta\", \"^(\"]");
        check("[relocation]\nallow_paths = [\"xen\"]");
        check("[relocation]\nallow_bridges = [1]");
        check("[relocation]\nbandwidth = \"fast\"");
        check("[relocation]\nnetwork = \"10.0.0.1\"");
        check("[host]\nname = \"a b\"");
        check("[host]\nhost_min_memory = 256");
        check("[engine]\naccelerator = \"xen\"");
        check("[engine]\nuser = \"-root\"");
        check("[migration]\ndeadline = \"soon\"");
        check("[migration]\nmax_slowdown = 100");
        check("[pages]\nkeep = 1");
        check("[pages]\nbudget = \"much\"");
        check("[pages]\nbudget = \"0%\"");
        check("[pages]\nbudget = \"91%\"");
        check("[pages]\nbudget = 10");
        check("[pages]\nexpire = \"30s\"");
        check("[pages]\nexpire = \"31d\"");
        insta::assert_snapshot!(all);
    }

    #[test]
    fn relocation_is_switched_and_nothing_else_changes() {
        let switch = |text: &str| {
            let file = TextFile { name: "whimbrel.toml", text, base: None };
            with_relocation(&file, true).unwrap()
        };
        assert_eq!(switch(""), "[relocation]\nenabled = true\n");
        assert_eq!(
            switch("# mine\n[relocation]\nenabled = false # for now\nport = 9\n"),
            "# mine\n[relocation]\nenabled = true # for now\nport = 9\n"
        );
        assert_eq!(
            switch("[relocation]\nport = 9\n[host]\nname = \"a\"\n"),
            "[relocation]\nport = 9\nenabled = true\n[host]\nname = \"a\"\n"
        );
        assert_eq!(
            switch("relocation = { port = 9 }\n"),
            "relocation = { port = 9 , enabled = true }\n"
        );
    }

    #[test]
    fn the_reference_explains_every_key() {
        let page = reference();
        for section in schema::SECTIONS {
            for key in section.keys {
                assert!(page.contains(&format!("### `{}`", key.name)), "{}", key.name);
                assert!(key.about.ends_with('.') && !key.default.is_empty(), "{}", key.name);
            }
        }
        let example = schema::INTRO.split("```toml").nth(1).unwrap().split("```").next().unwrap();
        assert!(read(example).is_ok());
    }
}
