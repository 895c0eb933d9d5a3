// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A report as one page that needs nothing else: words, figures, and a plot for each question.
//! Lines are drawn by hand: a plotting crate would bring fonts and a dozen dependencies for them.

use crate::format;
use std::fmt::Write as _;
use whimbrel_api::migration::{Phase, Report, Sample};
use whimbrel_api::plan::Range;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:62em;\
    padding:0 1em;color:#222;background:#fff}h1{font-size:1.5em}h2{font-size:1.1em;margin-top:2em}\
    table{border-collapse:collapse}td,th{padding:.2em 1em .2em 0;text-align:left;\
    vertical-align:top}th{font-weight:600;color:#555}pre{white-space:pre-wrap;background:#f6f6f4;\
    padding:1em}svg{width:100%;height:auto}.no{color:#a33}.yes{color:#276b3c}";
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 22.0;
/// Names of phases closer than this to each other would overlap, in the plot's units.
const NAME_APART: f64 = 52.0;

/// A line of a plot.
struct Line {
    name: &'static str,
    colour: &'static str,
    of: fn(&Sample) -> u64,
}

const REMAINING: &[Line] =
    &[Line { name: "still to send", colour: "#1f5fa8", of: |sample| sample.remaining_bytes }];
const RATES: &[Line] = &[
    Line { name: "sent", colour: "#1f5fa8", of: |sample| sample.rate_bytes_per_second },
    Line { name: "written by the guest", colour: "#d98324", of: |s| s.dirty_bytes_per_second },
];
const THROTTLE: &[Line] =
    &[Line { name: "slowed down", colour: "#a33", of: |sample| sample.throttle_percent.into() }];

/// Renders the whole page.
pub(super) fn page(report: &Report) -> String {
    let Report { guest, source, target, result, .. } = report;
    let title = escape(&format!("{guest}: {source} to {target}, {result}"));
    let plots = if report.samples.is_empty() {
        "<p>Nothing was measured over time: memory did not travel, or not for long enough.</p>"
            .to_owned()
    } else {
        plot(report, "Memory still to send", REMAINING, format::size)
            + &plot(report, "Rates", RATES, format::rate)
            + &plot(report, "Guest slowed down", THROTTLE, |percent| format!("{percent} %"))
    };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n<h2>Forecast and outcome</h2>\n\
         {}\n<h2>Where the pause went</h2>\n{}\n<h2>Over time</h2>\n{plots}\n\
         <h2>The report</h2>\n<pre>{}</pre>\n</body></html>\n",
        outcome(report),
        pause(report),
        escape(&super::render(report)),
    )
}

fn outcome(report: &Report) -> String {
    let mut rows = String::from("<table><tr><th></th><th>promised</th><th>expected</th>");
    rows.push_str("<th>happened</th></tr>");
    let bargain = report.bargain;
    let forecast = report.forecast.as_ref();
    let mut row =
        |what, promise: Option<String>, range: Option<Range>, seen: Option<u64>, f: Words| {
            let expected = range.map(|range| format::range(range, f)).unwrap_or_default();
            let class = match (range, seen) {
                (Some(range), Some(seen)) if seen < range.min || seen > range.max => "no",
                _ => "yes",
            };
            let seen = seen.map(f).unwrap_or_default();
            let promise = promise.unwrap_or_default();
            let _ = write!(
                rows,
                "<tr><th>{what}</th><td>{promise}</td><td>{expected}</td>\
             <td class=\"{class}\">{seen}</td></tr>"
            );
        };
    let most = |ms| format!("at most {}", format::ms(ms));
    let pause = report.pause_ms.or(report.rehearsed_pause_ms);
    row(
        "whole time",
        bargain.map(|bargain| most(bargain.deadline_ms)),
        forecast.map(|forecast| forecast.total_ms),
        Some(report.total_ms),
        format::ms,
    );
    row(
        "pause",
        bargain.map(|bargain| most(bargain.pause_ms_max)),
        forecast.map(|forecast| forecast.pause_ms),
        pause,
        format::ms,
    );
    row(
        "on the wire",
        None,
        forecast.map(|forecast| forecast.wire_bytes),
        Some(report.wire_bytes),
        format::size,
    );
    rows + "</table>"
}

type Words = fn(u64) -> String;

fn pause(report: &Report) -> String {
    let parts = super::pause_parts(report.pause, format::ms);
    match (report.rehearsed_pause_ms, report.pause_ms) {
        (Some(pause_ms), _) => {
            format!("<p>It would have been {}: this was a rehearsal.</p>", format::ms(pause_ms))
        }
        (None, None) => "<p>The guest did not stand still.</p>".to_owned(),
        (None, Some(pause_ms)) => format!(
            "<p>{} in all: {}. Parts that nobody can see from outside the engine are left out.</p>",
            format::ms(pause_ms),
            escape(&parts)
        ),
    }
}

/// Draws lines over the time of the whole migration, with its phases.
fn plot(report: &Report, title: &str, lines: &[Line], words: Words) -> String {
    let samples = &report.samples;
    let values = samples.iter().flat_map(|sample| lines.iter().map(|line| (line.of)(sample)));
    let most = values.max().unwrap_or(0).max(1);
    let last_ms = samples.last().map_or(0, |sample| sample.at_ms);
    let length_ms = report.total_ms.max(last_ms).max(1);
    let x = |at_ms: u64| LEFT + (WIDTH - LEFT - RIGHT) * at_ms as f64 / length_ms as f64;
    let y = |value: u64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - value as f64 / most as f64);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\" \
         font-family=\"system-ui,sans-serif\" font-size=\"11\">\
         <text x=\"0\" y=\"12\" font-size=\"13\" font-weight=\"bold\">{title}</text>"
    );
    for (value, anchor) in [(0, y(0)), (most, y(most) + 4.0)] {
        let text = words(value);
        let end = LEFT - 6.0;
        let _ = write!(
            svg,
            "<text x=\"{end}\" y=\"{anchor:.1}\" text-anchor=\"end\" fill=\"#555\">{text}</text>"
        );
    }
    svg.push_str(&phases(report, &x));
    let mut legend = LEFT + 220.0;
    for Line { name, colour, of } in lines {
        let points = samples.iter().map(|s| format!("{:.1},{:.1}", x(s.at_ms), y(of(s))));
        let points = points.collect::<Vec<_>>().join(" ");
        let _ = write!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"/>\
             <text x=\"{legend}\" y=\"12\" fill=\"{colour}\">{name}</text>"
        );
        legend += 140.0;
    }
    let (base, end) = (HEIGHT - 2.0, WIDTH - RIGHT);
    let whole = format::ms(length_ms);
    let _ = writeln!(
        svg,
        "<line x1=\"{LEFT}\" y1=\"{0}\" x2=\"{end}\" y2=\"{0}\" stroke=\"#999\"/>\
         <text x=\"{end}\" y=\"{base}\" text-anchor=\"end\" fill=\"#555\">{whole}</text></svg>",
        y(0)
    );
    svg
}

/// Draws where each phase began.
fn phases(report: &Report, x: &impl Fn(u64) -> f64) -> String {
    let mut svg = String::new();
    let (mut at_ms, mut free) = (0, 0.0);
    for time in report.phases.iter().filter(|time| time.phase != Phase::Ended) {
        let (at, bottom) = (x(at_ms), HEIGHT - BOTTOM);
        let _ = write!(
            svg,
            "<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\" stroke=\"#ccc\" \
             stroke-dasharray=\"3 3\"/>"
        );
        if at >= free {
            let base = HEIGHT - 8.0;
            let _ =
                write!(svg, "<text x=\"{at:.1}\" y=\"{base}\" fill=\"#777\">{}</text>", time.phase);
            free = at + NAME_APART;
        }
        at_ms += time.duration_ms;
    }
    svg
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_written_is_only_text() {
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
