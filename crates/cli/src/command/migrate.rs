// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel migrate`

use crate::context::{Context, End};
use crate::{Done, moves};
use std::time::Duration;
use whimbrel_api::migration::{BargainRequest, MigrateRequest, OnMiss};
use whimbrel_model::codes::{PLAN_CONVERGENCE, PLAN_DEADLINE};
use whimbrel_model::units::{Bytes, parse_duration, parse_rate};

/// Move a guest to another host while it runs.
///
/// What can be known is checked first, and nothing is begun where something stands in the way.
/// Ctrl-C cancels: the guest stays where it is. A paused guest arrives paused; of a stopped guest
/// the definition moves.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The guest's name, its number on this host, or its uuid.
    guest: String,
    /// The paired host it shall go to: its name, or one of its addresses.
    host: String,
    /// Stop the guest first and copy then.
    #[arg(long)]
    stop_and_copy: bool,
    /// The most it may send: `100MiB/s`, `1Gbit/s` [default: as configured].
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    bandwidth: Option<Bytes>,
    #[command(flatten)]
    bargain: BargainArgs,
    /// Try it also where the plan says that the bargain will not be kept, and do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Converge, stay so, and cut over when `whimbrel cutover GUEST` says so.
    #[arg(long, conflicts_with = "stop_and_copy")]
    hold: bool,
    /// Send no frames on the guest's bridges to see whether they reach the target.
    #[arg(long)]
    no_probe: bool,
    /// Do everything but the handing over, clean up, and say what would have happened.
    #[arg(long, conflicts_with_all = ["stop_and_copy", "hold"])]
    rehearse: bool,
    /// How memory travels: `tunnel` or `pages` [default: the planner chooses].
    #[arg(long)]
    carrier: Option<String>,
    /// How many data channels [default: the planner chooses].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=64))]
    channels: Option<u32>,
    /// Do not wait for the end; `whimbrel watch GUEST` shows it.
    #[arg(short, long)]
    detach: bool,
}

/// What the migration shall be.
#[derive(Debug, clap::Args)]
pub(super) struct BargainArgs {
    /// The longest pause the guest may see: `100ms` [default: as configured].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    max_pause: Option<Duration>,
    /// The longest it may take in all: `10m` [default: as configured].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    deadline: Option<Duration>,
    /// How much the guest may be slowed down to be caught up with: `30%` [default: as configured].
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    max_slowdown: Option<u8>,
    /// What happens where that cannot be kept: the guest stays, stands still for longer, is slowed
    /// down further, or runs on the target before its memory is there [default: as configured].
    #[arg(long, value_name = "ACTION")]
    on_miss: Option<Miss>,
}

impl BargainArgs {
    pub(super) fn to_request(&self) -> BargainRequest {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        BargainRequest {
            pause_ms_max: self.max_pause.map(ms),
            deadline_ms: self.deadline.map(ms),
            slowdown_percent_max: self.max_slowdown,
            on_miss: self.on_miss.map(OnMiss::from),
        }
    }
}

/// The words of `--on-miss`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Miss {
    Cancel,
    Pause,
    Throttle,
    Postcopy,
}

impl From<Miss> for OnMiss {
    fn from(miss: Miss) -> Self {
        match miss {
            Miss::Cancel => Self::Cancel,
            Miss::Pause => Self::Pause,
            Miss::Throttle => Self::Throttle,
            Miss::Postcopy => Self::Postcopy,
        }
    }
}

/// Reads `30%` or `30`, of what can be slowed down without standing still.
fn percent(text: &str) -> Result<u8, String> {
    let number = text.trim().trim_end_matches('%').trim_end().parse().ok();
    number.filter(|percent| *percent <= 99).ok_or_else(|| format!("`{text}` is not from 0% to 99%"))
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    cx.about(&args.guest);
    let target = cx.host_meant(&args.host).await?;
    let request = MigrateRequest {
        target,
        is_stop_and_copy: args.stop_and_copy,
        bandwidth_bytes_per_second: args.bandwidth.map(|Bytes(bytes)| bytes),
        bargain: args.bargain.to_request(),
        may_miss: args.yes,
        is_held: args.hold,
        is_unprobed: args.no_probe,
        is_rehearsed: args.rehearse,
        carrier: args.carrier,
        channels: args.channels,
    };
    if !args.detach {
        return watched(cx, &args.guest, request).await;
    }
    let migration = cx.client.migrate(&args.guest, &request).await?;
    if cx.printer.is_json {
        cx.printer.json(&migration);
    } else {
        let (guest, target) = (&migration.guest, &migration.target);
        let text = format!("{guest} is moving to {target}: `whimbrel watch {guest}` shows how.");
        cx.printer.say(&text);
    }
    Ok(End::Done)
}

/// Begins it and shows it to its end. A person whose migration is refused because it would miss is
/// asked whether to try it all the same.
async fn watched(cx: &mut Context, guest: &str, request: MigrateRequest) -> Done {
    let migration = cx.client.migrate(guest, &request).await?;
    let done = moves::follow(cx, migration, moves::OnInterrupt::Cancel).await;
    let Err(problem) = &done else { return done };
    let is_miss = [PLAN_CONVERGENCE, PLAN_DEADLINE].contains(&problem.code.as_str());
    let can_ask = cx.printer.io.is_input_terminal && !cx.printer.is_json;
    if request.may_miss || !is_miss || !can_ask {
        return done;
    }
    cx.printer.warning(&problem.text);
    cx.printer.say(&problem.remedy);
    cx.printer.ask("Try it all the same, and give up when it misses? [y/N] ");
    let answer = cx.printer.read_line().unwrap_or_default();
    if !answer.trim().eq_ignore_ascii_case("y") {
        return done;
    }
    let request = MigrateRequest { may_miss: true, ..request };
    let migration = cx.client.migrate(guest, &request).await?;
    moves::follow(cx, migration, moves::OnInterrupt::Cancel).await
}
