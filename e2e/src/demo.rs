// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `./x demo`: two hosts on this machine, and a guest that moves between them while it works.

mod alone;

pub use alone::alone;

use crate::lab::{Host, Lab, Lines, Remains, guard};
use crate::scene::{Cast, SOON, Scene, invite, json};
use crate::setting::Setting;
use crate::witness::{Held, Status, Witness};
use anyhow::{Context as _, Result, ensure};
use std::process::Command;
use std::time::{Duration, Instant};

/// The lab's name: one demo at a time, so that a kept one can be found again. Stories about the
/// demo give it another, and leave alone what a person has kept.
fn name() -> String {
    std::env::var("E2E_DEMO_NAME").unwrap_or_else(|_| "demo".to_owned())
}

/// How long the console is shown.
const CONSOLE_GLIMPSE: Duration = Duration::from_secs(3);

/// Shows it all; `is_kept` leaves the hosts and the guest standing.
pub fn demo(is_kept: bool) -> Result<()> {
    guard();
    let started = Instant::now();
    let setting = Setting::find()?;
    if Remains::named(&name()).exist() {
        say("removing the hosts of an earlier demo");
    }
    say("two hosts, alpha and beta, as namespaces on one bridge");
    let lab = Lab::named(&name(), &setting.program()?)?;
    let image = setting.image()?.copy_to(&lab.shared)?;
    say("a daemon on each, with relocation enabled");
    let mut scene = Scene::furnish(lab, image)?;
    pair(&scene)?;
    let cast = Cast::web1().with_memory(512, 128).dirtying("text", 4);
    let witness = boot(&scene, &cast)?;
    type_on(scene.alpha(), &["list"])?;

    let mut held = witness.hold()?;
    let before = held.status()?;
    travel(scene.alpha(), scene.beta(), &witness)?;
    went_on(&mut held, &before)?;
    type_on(scene.beta(), &["list"])?;

    say("and back again");
    travel(scene.beta(), scene.alpha(), &witness)?;
    show_report(scene.alpha(), &setting)?;
    let after = went_on(&mut held, &before)?;
    ensure!(after.boot(0)? == before.boot(0)?, "the guest was booted anew");
    if is_kept {
        scene.lab.keep();
        say_how_to_talk(&scene);
    } else {
        say("cleaning up: no process and no namespace stays, and of all files that page");
        drop(scene);
        ensure!(!Remains::named(&name()).exist(), "the demo left something behind");
    }
    say(&format!("done, in {:.0} s", started.elapsed().as_secs_f64()));
    Ok(())
}

fn say(text: &str) {
    println!("\n== {text}");
}

/// Types a command on a host for everybody to see.
fn type_on(host: &Host, arguments: &[&str]) -> Result<()> {
    println!("{}# whimbrel {}", host.name, arguments.join(" "));
    let status = host.watch_whimbrel(arguments)?;
    ensure!(status.success(), "that failed ({status}): {}", host.daemon_said());
    Ok(())
}

fn pair(scene: &Scene) -> Result<()> {
    say("pairing them: beta joins with alpha's invitation");
    println!("alpha# whimbrel host invite");
    let token = invite(scene.alpha())?;
    println!("beta# whimbrel host join   (reads the token)");
    let joined = scene.beta().whimbrel_reading(&["host", "join"], &format!("{token}\n"))?;
    print!("{}{}", joined.stderr, joined.stdout);
    joined.ok()?;
    type_on(scene.beta(), &["host", "list"])
}

/// Creates the guest and shows its console for a moment.
fn boot<'a>(scene: &'a Scene, cast: &Cast) -> Result<Witness<'a>> {
    say("a Linux guest of 512 MiB with two disks that both hosts can reach, and its console");
    let file = scene.guest_file(cast)?;
    type_on(scene.alpha(), &["create", &file])?;
    println!("alpha# whimbrel console web1   (for a moment)");
    let mut console = Command::new("script");
    let typed = format!("{} console web1", scene.alpha().program().display());
    console.args(["-qefc", &typed, "/dev/null"]);
    let mut child = scene.alpha().spawn(console)?;
    let lines = Lines::of(child.stdout.take().context("the output was asked for")?);
    let witness = scene.witness(cast);
    witness.wait()?;
    // A glimpse, also where the guest had said it all already.
    let _ = lines.wait_for("witness: up", SOON.min(CONSOLE_GLIMPSE * 3));
    child.kill()?;
    child.wait()?;
    let shown: Vec<_> =
        lines.so_far().into_iter().filter(|line| line.contains("witness")).collect();
    shown.iter().for_each(|line| println!("    | {}", line.trim_end()));
    Ok(witness)
}

/// Plans and makes a move, and tells how a client saw it.
fn travel(source: &Host, target: &Host, witness: &Witness<'_>) -> Result<()> {
    say(&format!("web1 moves from {} to {} while it works", source.name, target.name));
    type_on(source, &["plan", "web1", &target.name])?;
    say_forecast(source, target)?;
    let ticker = witness.watch()?;
    type_on(source, &["migrate", "web1", &target.name])?;
    let ticks = ticker.stop();
    let silence_ms = ticks.longest_silence.as_millis();
    println!("a client that asked every millisecond waited {silence_ms} ms at most");
    Ok(())
}

/// The same for a script, and what it reads of it.
fn say_forecast(source: &Host, target: &Host) -> Result<()> {
    let plan = json(source, &["plan", "web1", &target.name])?;
    println!("{}# whimbrel plan web1 {} --json   (its forecast)", source.name, target.name);
    println!("    {}", plan["forecast"]);
    Ok(())
}

/// Asks over the connection that was opened before the move.
fn went_on(held: &mut Held, before: &Status) -> Result<Status> {
    let after = held.is_well().context("the open connection broke, or the guest is damaged")?;
    let (old0, new0) = (before.counter(0)?, after.counter(0)?);
    let (old1, new1) = (before.counter(1)?, after.counter(1)?);
    ensure!(new0 > old0 && new1 > old1, "a disk does not count on: {after:?}");
    println!("the TCP connection opened before the move still answers:");
    println!("  counter on the first disk {old0} -> {new0}, on the second {old1} -> {new1}");
    println!("  all checked memory pages whole ({} pages)", after.number("pages")?);
    Ok(after)
}

/// The report of the last move as one page that needs nothing else. It alone stays.
fn show_report(host: &Host, setting: &Setting) -> Result<()> {
    let page = setting.figures().join(format!("{}-report.html", name()));
    std::fs::create_dir_all(setting.figures())?;
    type_on(host, &["report", "web1", "--html", &page.display().to_string()])?;
    let text = std::fs::read_to_string(&page).context("the page cannot be read")?;
    ensure!(text.contains("<svg"), "no plots in {}", page.display());
    Ok(())
}

fn say_how_to_talk(scene: &Scene) {
    say("the hosts stay; how to talk to them:");
    for host in [scene.alpha(), scene.beta()] {
        if let Some(pid) = host.daemon_pid() {
            println!("  on {}:  nsenter --target {pid} --mount --net --uts", host.name);
        }
    }
    println!("  there:     {} list", scene.alpha().program().display());
    println!("  `./x demo` removes them and shows it again; `./x demo --clean` only removes them");
}

/// Removes a kept demo.
pub fn clean() {
    Remains::named(&name()).remove();
}
