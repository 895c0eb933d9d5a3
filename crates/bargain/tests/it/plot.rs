// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The table of `docs/bargain.md` as a picture: for each trace when the guest had moved and how
//! long it stood still, on logarithmic scales, with what was promised as lines.

use crate::rivals::{DEADLINE, PAUSE};
use crate::world::{End, SWITCHOVER};
use std::fmt::Write as _;

const LABELS: f64 = 190.0;
const PANEL: f64 = 330.0;
const GAP: f64 = 40.0;
const ROW: f64 = 18.0;
const TOP: f64 = 70.0;

/// One of the two scales: where it begins, and from what to what, in seconds.
struct Scale {
    left: f64,
    least: f64,
    most: f64,
    marks: &'static [(f64, &'static str)],
    promised: f64,
    title: &'static str,
}

const TIME: Scale = Scale {
    left: LABELS,
    least: 20.0,
    most: 6000.0,
    marks: &[(60.0, "1 min"), (600.0, "10 min"), (3600.0, "1 h")],
    promised: DEADLINE,
    title: "whole time",
};
const STILL: Scale = Scale {
    left: LABELS + PANEL + GAP,
    least: 0.05,
    most: 100.0,
    marks: &[(0.1, "0.1 s"), (1.0, "1 s"), (10.0, "10 s")],
    promised: PAUSE + SWITCHOVER,
    title: "the guest stands still",
};

/// Who, how it is drawn, and where the circles of those who agree stand apart.
const WHO: [(&str, &str, f64); 3] =
    [("the bargain", "#1b7837", -4.0), ("QEMU", "#2166ac", 0.0), ("Proxmox VE", "#b2182b", 4.0)];

impl Scale {
    fn x(&self, seconds: f64) -> f64 {
        let share = (seconds / self.least).ln() / (self.most / self.least).ln();
        self.left + share.clamp(0.0, 1.0) * PANEL
    }

    fn frame(&self, height: f64) -> String {
        let (x, promised) = (self.left, self.x(self.promised));
        let mut text = format!(
            "<text x=\"{x}\" y=\"40\">{} (line: as promised)</text>\n<line x1=\"{promised:.1}\" \
             y1=\"{TOP}\" x2=\"{promised:.1}\" y2=\"{height}\" stroke=\"black\"/>\n",
            self.title
        );
        for (seconds, name) in self.marks {
            let x = self.x(*seconds);
            let _ = writeln!(
                text,
                "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{height}\" stroke=\"#ddd\"/>\
                 <text x=\"{x:.1}\" y=\"60\" text-anchor=\"middle\" fill=\"#555\">{name}</text>"
            );
        }
        text
    }
}

/// Draws how each trace ended for each of [`WHO`].
pub(crate) fn picture(ends: &[(&str, [End; 3])]) -> String {
    let rows = f64::from(u32::try_from(ends.len()).expect("there are few traces"));
    let (width, height) = (STILL.left + PANEL + 20.0, TOP + rows * ROW + 8.0);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut x = LABELS;
    for (name, colour, _) in WHO {
        let _ = writeln!(
            text,
            "<circle cx=\"{x}\" cy=\"16\" r=\"4\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"20\">{name}</text>",
            x + 9.0
        );
        x += 110.0;
    }
    let _ = writeln!(text, "<text x=\"{x}\" y=\"20\">\u{d7}: said no, or never</text>");
    text += &TIME.frame(height - 8.0);
    text += &STILL.frame(height - 8.0);
    let mut y = TOP + ROW / 2.0;
    for (name, ends) in ends {
        let base = y + 4.0;
        let _ = writeln!(text, "<text x=\"8\" y=\"{base}\">{name}</text>");
        for (end, (_, colour, apart)) in ends.iter().zip(WHO) {
            draw(&mut text, *end, colour, y + apart);
        }
        y += ROW;
    }
    text + "</svg>\n"
}

fn draw(text: &mut String, end: End, colour: &str, y: f64) {
    let dot = |x: f64| format!("<circle cx=\"{x:.1}\" cy=\"{y}\" r=\"3\" fill=\"{colour}\"/>\n");
    let cross = |x: f64| {
        let base = y + 4.0;
        format!(
            "<text x=\"{x:.1}\" y=\"{base}\" text-anchor=\"middle\" fill=\"{colour}\">\u{d7}</text>\n"
        )
    };
    *text += &match end {
        End::Moved { at, pause } => dot(TIME.x(at)) + &dot(STILL.x(pause)),
        End::Cancelled { at } => cross(TIME.x(at)),
        End::Never => cross(TIME.x(TIME.most)),
    };
}
