// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A console from the keyboard to the engine: the program, the API, the real hub, and an engine
//! that is a socket.

use crate::lab::{Captured, Lab};
use insta::assert_snapshot;
use std::io::{self, Read, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long anything may take, on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keys that a test presses when it likes.
struct Keyboard(mpsc::Receiver<Vec<u8>>);

impl Read for Keyboard {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Ok(keys) = self.0.recv() else { return Ok(0) };
        buffer[..keys.len()].copy_from_slice(&keys);
        Ok(keys.len())
    }
}

fn keyboard() -> (mpsc::Sender<Vec<u8>>, Keyboard) {
    let (sender, receiver) = mpsc::channel();
    (sender, Keyboard(receiver))
}

impl Lab {
    /// Gives `web1` a console, and returns the engine's end of it.
    fn engine(&self, socket: &str) -> UnixStream {
        let listener = UnixListener::bind(self.directory.path().join(socket)).unwrap();
        self.block_on(async { self.fake.new_hub(socket) });
        let (engine, _) = listener.accept().unwrap();
        engine.set_read_timeout(Some(PATIENCE)).unwrap();
        engine
    }
}

fn reads(engine: &mut UnixStream, text: &str) {
    let mut buffer = vec![0; text.len()];
    engine.read_exact(&mut buffer).unwrap();
    assert_eq!(String::from_utf8(buffer).unwrap(), text);
}

fn wait_for(shown: &Captured, text: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !shown.text().contains(text) {
        assert!(Instant::now() < deadline, "no `{text}` in `{}`", shown.text());
        std::thread::yield_now();
    }
}

/// What is typed reaches the guest, what it shows reaches the terminal, and Ctrl+] leaves.
#[test]
fn a_console_is_used_and_left() {
    let lab = Lab::new();
    let mut engine = lab.engine("console.sock");
    let (keys, keyboard) = keyboard();
    let shown = Captured::default();
    let ran = std::thread::scope(|scope| {
        // Dropped with this closure: a failed wait must not leave the console waiting for keys.
        let keys = keys;
        let run = lab.prepare().terminal().keyboard(keyboard).out(shown.clone());
        let ran = scope.spawn(|| run.run(&["console", "web1"]));
        engine.write_all(b"login: ").unwrap();
        wait_for(&shown, "login: ");
        keys.send(b"root\r".to_vec()).unwrap();
        reads(&mut engine, "root\r");
        engine.write_all(b"Password: ").unwrap();
        wait_for(&shown, "Password: ");
        keys.send(b"\x1d".to_vec()).unwrap();
        ran.join().unwrap()
    });
    assert_snapshot!(ran.to_string().replace('\r', "<CR>"), @r#"
    exit code: 0
    ----- stdout -----
    login: Password: ----- stderr -----
    Attached to web1; Ctrl+] leaves.<CR>
    <CR>
    Left the console of web1.<CR>
    "#);
}

/// A guest that moves takes its console along: the user sees what it shows on the other host, and
/// nothing twice.
#[test]
fn a_console_follows_its_guest() {
    let lab = Lab::new();
    let mut source = lab.engine("source.sock");
    let (keys, keyboard) = keyboard();
    let shown = Captured::default();
    let ran = std::thread::scope(|scope| {
        // Dropped with this closure: a failed wait must not leave the console waiting for keys.
        let keys = keys;
        let run = lab.prepare().terminal().keyboard(keyboard).out(shown.clone());
        let ran = scope.spawn(|| run.run(&["console", "web1"]));
        source.write_all(b"one\r\n").unwrap();
        wait_for(&shown, "one");
        let old = lab.fake.hub.lock().unwrap().clone().unwrap();
        let mut target = lab.engine("target.sock");
        target.write_all(b"two\r\n").unwrap();
        old.moved(&"beta".parse().unwrap());
        wait_for(&shown, "two");
        keys.send(b"x".to_vec()).unwrap();
        reads(&mut target, "x");
        keys.send(b"\x1d".to_vec()).unwrap();
        ran.join().unwrap()
    });
    assert_eq!(ran.out, "one\r\ntwo\r\n");
    assert!(ran.err.contains("web1 has moved to beta."), "{ran}");
    assert_eq!(ran.code, 0);
}

/// A console outlives the daemon: once there is one again it goes on, and shows what the guest said
/// meanwhile (from the engine's log) without repeating a line.
#[test]
fn a_console_survives_the_daemon() {
    let lab = Lab::new();
    let mut engine = lab.engine("console.sock");
    let (keys, keyboard) = keyboard();
    let shown = Captured::default();
    let ran = std::thread::scope(|scope| {
        // Dropped with this closure: a failed wait must not leave the console waiting for keys.
        let keys = keys;
        let run = lab.prepare().terminal().keyboard(keyboard).out(shown.clone());
        let ran = scope.spawn(|| run.run(&["console", "web1"]));
        engine.write_all(b"one\r\n").unwrap();
        wait_for(&shown, "one");
        lab.file("console.log", "one\r\ntwo\r\n");
        drop(lab.fake.hub.lock().unwrap().take());
        let mut engine = lab.engine("again.sock");
        wait_for(&shown, "two");
        engine.write_all(b"three\r\n").unwrap();
        wait_for(&shown, "three");
        keys.send(b"\x1d".to_vec()).unwrap();
        ran.join().unwrap()
    });
    assert_eq!((ran.code, ran.out.as_str()), (0, "one\r\ntwo\r\nthree\r\n"));
}

/// Without a terminal nothing is typed into the void; watching works, until the guest ends.
#[test]
fn without_a_terminal_one_can_only_watch() {
    let lab = Lab::new();
    assert_snapshot!(lab.run(&["console", "web1"]), @r#"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: a console needs a terminal to type at and to show it

    help: run this in a terminal, or only watch: `whimbrel console web1 --read-only`
    code: console/no-terminal
    "#);
    let mut engine = lab.engine("console.sock");
    engine.write_all(b"booting\r\n").unwrap();
    let shown = Captured::default();
    let ran = std::thread::scope(|scope| {
        let run = lab.prepare().out(shown.clone());
        let ran = scope.spawn(|| run.run(&["console", "web1", "--read-only"]));
        wait_for(&shown, "booting\r\n");
        lab.fake.hub.lock().unwrap().clone().unwrap().end("web1 was stopped");
        ran.join().unwrap()
    });
    assert_eq!((ran.code, ran.out.as_str()), (0, "booting\r\n"));
    assert!(ran.err.ends_with("The console has ended: web1 was stopped.\n"), "{ran}");
}

/// `create -c` shows the guest from its first line.
#[test]
fn a_guest_is_created_with_its_console() {
    let lab = Lab::new();
    let file = lab.file("web1.toml", "name = \"web1\"");
    let mut engine = lab.engine("console.sock");
    engine.write_all(b"first line\r\n").unwrap();
    let (keys, keyboard) = keyboard();
    let shown = Captured::default();
    let ran = std::thread::scope(|scope| {
        // Dropped with this closure: a failed wait must not leave the console waiting for keys.
        let keys = keys;
        let run = lab.prepare().terminal().keyboard(keyboard).out(shown.clone());
        let ran = scope.spawn(|| run.run(&["create", &file, "-c"]));
        wait_for(&shown, "first line\r\n");
        keys.send(b"\x1d".to_vec()).unwrap();
        ran.join().unwrap()
    });
    assert_eq!((ran.code, ran.out.as_str()), (0, "first line\r\n"));
}
