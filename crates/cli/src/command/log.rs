// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel log`

use crate::context::{Context, End};
use crate::printer::{Printer, Style};
use crate::{Done, format};
use time::macros::format_description;
use time::{Date, PrimitiveDateTime, Time};
use whimbrel_api::event::Event;
use whimbrel_api::log::{Level, LogLine, LogPage, LogQuery};
use whimbrel_api::problem::code;
use whimbrel_model::units::parse_duration;

/// Show what happened: on this host and, for moves, on the other one. Times are UTC.
///
/// Works without the daemon, too, from what this host has stored.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only lines about this guest.
    guest: Option<String>,
    /// Go on with new lines as they come.
    #[arg(short, long)]
    follow: bool,
    /// Only lines since then: `10m` ago, or `2026-11-22`, or `2026-11-22T21:04` (UTC).
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<u64>,
    /// Only the newest lines, this many.
    #[arg(short = 'n', long, value_name = "COUNT")]
    lines: Option<u32>,
}

fn since(text: &str) -> Result<u64, String> {
    if let Ok(ago) = parse_duration(text) {
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        return Ok(format::now_ms().saturating_sub(ago));
    }
    let text = text.trim().trim_end_matches('Z').replace('T', " ");
    let day = format_description!("[year]-[month]-[day]");
    let minute = format_description!("[year]-[month]-[day] [hour]:[minute]");
    let second = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    let at = PrimitiveDateTime::parse(&text, &second)
        .or_else(|_| PrimitiveDateTime::parse(&text, &minute))
        .or_else(|_| Date::parse(&text, &day).map(|day| day.with_time(Time::MIDNIGHT)))
        .map_err(|_| "write `10m`, `2h`, `2026-11-22` or `2026-11-22T21:04`".to_owned())?;
    let ms = at.assume_utc().unix_timestamp_nanos() / 1_000_000;
    u64::try_from(ms).map_err(|_| "the log begins after 1970".to_owned())
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    let query = LogQuery {
        guest: args.guest,
        since_at_ms: args.since,
        limit: args.lines,
        follow: args.follow,
    };
    print(cx, query).await
}

/// Prints the log, from the daemon or, without one, from the store.
pub(crate) async fn print(cx: &mut Context, query: LogQuery) -> Done {
    if let Some(guest) = &query.guest {
        cx.about(guest);
    }
    if query.follow {
        return follow(cx, &query).await;
    }
    let page = match cx.client.log(&query).await {
        Err(problem) if problem.code == code::DAEMON_NOT_REACHABLE => {
            let stored = (cx.hooks.stored_log)(&cx.place.state_directory, &query);
            // What is wrong is that the daemon does not run; the store is only the next best.
            let stored = stored.map_err(|_| problem)?;
            cx.printer.note("the daemon does not run: these are the lines of this host alone");
            stored
        }
        page => page?,
    };
    if cx.printer.is_json {
        cx.printer.json(&page);
        return Ok(End::Done);
    }
    let LogPage { lines, hosts_silent } = page;
    for line in &lines {
        let text = render(&cx.printer, line);
        cx.printer.data(&text);
    }
    for silent in &hosts_silent {
        let text = format!("the lines of `{}` are missing: {}", silent.host, silent.reason);
        cx.printer.warning(&text);
    }
    Ok(End::Done)
}

async fn follow(cx: &mut Context, query: &LogQuery) -> Done {
    let mut events = cx.client.follow_log(query).await?;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = cx.interrupts.next() => return Ok(End::Done),
        };
        match event.transpose()? {
            Some(Event::Log(line)) if cx.printer.is_json => cx.printer.json_line(&line),
            Some(Event::Log(line)) => {
                let text = render(&cx.printer, &line);
                cx.printer.data(&text);
            }
            Some(Event::Missed(missed)) => {
                let count = format::count(missed.event_count, "line");
                cx.printer.warning(&format!("{count} missed: they came too fast"));
            }
            Some(_) => {}
            None => {
                cx.printer.note("the daemon has ended");
                return Ok(End::Done);
            }
        }
        if cx.printer.is_out_closed() {
            return Ok(End::Done);
        }
    }
}

/// Returns `2026-11-22 21:04:05.123Z alpha  web1: warning: text`.
fn render(printer: &Printer, line: &LogLine) -> String {
    let guest = line.guest.as_ref().map(|guest| format!("{guest}: ")).unwrap_or_default();
    let level = match line.level {
        Level::Debug | Level::Info => String::new(),
        Level::Warning => printer.paint(Style::Warning, "warning: "),
        Level::Error => printer.paint(Style::Error, "error: "),
    };
    let code = line.code.as_ref().map(|code| format!(" [{code}]")).unwrap_or_default();
    let at = format::date_exact(line.at_ms);
    format!("{at} {:<8} {guest}{level}{}{code}", line.host, line.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(since("2008-06-11 15:46:02"), Ok(1_213_199_162_000));
        assert_eq!(since("2008-06-11T15:46:02Z"), Ok(1_213_199_162_000));
        assert_eq!(since("2008-06-11T15:46"), Ok(1_213_199_160_000));
        assert_eq!(since("1970-01-02"), Ok(86_400_000));
        assert!(since("10m").unwrap() < format::now_ms());
        assert!(since("yesterday").is_err());
        assert!(since("1969-01-01").is_err());
    }
}
