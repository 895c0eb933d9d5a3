// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Real files with real permissions, seen as the engine's user. Looking as somebody else needs
//! root; without it the tests say that they skip.

use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};
use whimbrel_model::facts::{Access, Denial};

const NOBODY: UserIds = UserIds { uid: 65534, gid: 65534 };
const ROOT: UserIds = UserIds { uid: 0, gid: 0 };

fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        println!("SKIPPED: looking as another user needs root");
    }
    is_root
}

/// Returns a folder that everybody may enter, with an image of 3 MiB that only its owner may open.
fn folder_with_image() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    set_mode(temp.path(), 0o755);
    let image = temp.path().canonicalize().unwrap().join("web1.img");
    File::create(&image).unwrap().set_len(3 << 20).unwrap();
    set_mode(&image, 0o600);
    (temp, image)
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn path(path: &Path) -> DiskSource {
    DiskSource::Path(path.to_owned())
}

fn seen(of: &Path, engine: UserIds) -> DiskPresent {
    match disk(&path(of), engine, false) {
        DiskState::Present(present) => *present,
        other => panic!("not present: {other:?}"),
    }
}

/// A disk is found with its size, place and number, also through a link; a missing one is missing.
#[tokio::test]
async fn disks_are_looked_at() {
    let (temp, image) = folder_with_image();
    let link = temp.path().join("link.img");
    symlink("web1.img", &link).unwrap();
    let missing = temp.path().join("missing.img");
    let own =
        UserIds { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() };
    let facts = disks(vec![path(&link), path(&missing)], own, false, &[]).await;
    assert_eq!(facts[0].source, path(&link));
    let DiskState::Present(present) = &facts[0].state else { panic!("{:?}", facts[0]) };
    assert_eq!((present.kind, present.size), (FileKind::File, Bytes::mib(3)));
    assert_eq!(present.resolved, image);
    assert_eq!(present.inode, Some(image.metadata().unwrap().ino()));
    assert_eq!((&present.read, &present.write), (&Access::Granted, &Access::Granted));
    assert_eq!(present.mark, Mark::NotTried);
    assert!(present.space.is_some() && !present.file_system.kind.is_empty());
    assert_eq!(facts[1].state, DiskState::Missing);
}

/// Each cause of a refusal is told: the file's mode, a closed folder on the way, also one that
/// only the link's path goes through.
#[test]
fn refusals_are_explained() {
    if !is_root() {
        return;
    }
    let (temp, image) = folder_with_image();
    let denied = Access::Denied;
    let write = |of: &Path| seen(of, NOBODY).write;
    let mode = |mode| denied(Denial::Mode { uid: 0, gid: 0, mode });
    assert_eq!(write(&image), mode(0o600));
    assert_eq!(seen(&image, ROOT).write, Access::Granted);
    set_mode(&image, 0o644);
    assert_eq!(write(&image), mode(0o644));
    assert_eq!(seen(&image, NOBODY).read, Access::Granted);
    set_mode(&image, 0o666);
    assert_eq!(write(&image), Access::Granted);

    std::os::unix::fs::chown(&image, Some(0), Some(NOBODY.gid)).unwrap();
    set_mode(&image, 0o606);
    let expected = Denial::Mode { uid: 0, gid: NOBODY.gid, mode: 0o606 };
    assert_eq!(write(&image), denied(expected), "the group's bits count, not the others'");
    std::os::unix::fs::chown(&image, Some(NOBODY.uid), None).unwrap();
    set_mode(&image, 0o600);
    assert_eq!(write(&image), Access::Granted);

    let closed = temp.path().canonicalize().unwrap().join("closed");
    std::fs::create_dir(&closed).unwrap();
    let link = closed.join("link.img");
    symlink(&image, &link).unwrap();
    set_mode(&closed, 0o700);
    assert_eq!(write(&link), denied(Denial::Folder { path: closed }));
    assert_eq!(write(&image), Access::Granted);
}

/// A mark that was left beside an image is found by whoever looks at the same folder, is kept
/// while it is fresh, and is not in a copy.
#[test]
fn marks_prove_one_folder() {
    let (temp, image) = folder_with_image();
    let Beside::Place(place) = Place::of(&path(&image)).unwrap() else { panic!("no place") };
    let mark_of = |image: &Path| match disk(&path(image), ROOT, true) {
        DiskState::Present(present) => present.mark,
        other => panic!("not present: {other:?}"),
    };
    assert_eq!(mark_of(&image), Mark::Absent);
    let text = place.leave_mark().unwrap();
    assert_eq!(mark_of(&image), Mark::Found { text: text.clone() });
    assert_eq!(place.leave_mark().unwrap(), text, "two plans at once see the same mark");

    let copy = temp.path().join("copy.img");
    std::fs::copy(&image, &copy).unwrap();
    assert_eq!(mark_of(&copy), Mark::Absent);

    let file = temp.path().join(".whimbrel/web1.img.mark");
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
    assert_ne!(place.leave_mark().unwrap(), text, "a mark that is old may have been copied");
    std::fs::write(&file, "x".repeat(1 << 20)).unwrap();
    assert_eq!(mark_of(&image), Mark::Absent, "what is not a mark is none");
}

/// Boot files are compared by content; what the engine could not read is not passed off as there.
#[tokio::test]
async fn boot_files_are_compared_by_content() {
    let (temp, image) = folder_with_image();
    let own =
        UserIds { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() };
    let files = vec![
        (BootRole::Kernel, image.clone()),
        (BootRole::Ramdisk, temp.path().join("missing")),
        (BootRole::Firmware, temp.path().to_owned()),
    ];
    let facts = boot_files(files, own).await;
    let blake3 = *blake3::hash(&vec![0; 3 << 20]).as_bytes();
    assert_eq!(facts[0].state, BootFileState::Present { bytes: 3 << 20, blake3 });
    assert_eq!(facts[1].state, BootFileState::Missing);
    assert_eq!(facts[2].state, BootFileState::Unreadable { reason: "it is not a file".into() });
    if is_root() {
        let state = boot_file(&image, NOBODY);
        let reason = "the engine's user (uid 65534) may not read it".to_owned();
        assert_eq!(state, BootFileState::Unreadable { reason });
    }
}

/// Storage that hangs is given up and named, and does not hold up the rest.
#[tokio::test]
async fn what_hangs_is_given_up() {
    let (_held, hung) = std::sync::mpsc::channel::<()>();
    let given_up = within(Duration::from_millis(20), move || hung.recv()).await;
    assert!(given_up.is_none());
    assert_eq!(within(LOOK_MAX, || 7).await, Some(7));
}

/// A server that is not there is named with its port.
#[test]
fn a_silent_server_is_named() {
    let DiskState::Unknown { reason } =
        disk(&DiskSource::Nfs("nfs://127.0.0.1/xen/a.img".into()), ROOT, true)
    else {
        println!("SKIPPED: an NFS server runs here");
        return;
    };
    assert!(
        reason.starts_with("the server `127.0.0.1` does not answer on port 2049: "),
        "{reason}"
    );
}

/// The helper thread takes the other user's rights with it: afterwards we have our own.
#[test]
fn looking_as_another_user_changes_nobody_else() {
    if !is_root() {
        return;
    }
    let (_temp, image) = folder_with_image();
    assert!(access::may(&image, nix::unistd::AccessFlags::R_OK, NOBODY).is_err());
    File::open(&image).unwrap();
}

/// A hole is room that the image may still want; a qcow2 image is as large as its header says.
#[test]
fn images_say_how_much_they_may_grow() {
    let temp = tempfile::tempdir().unwrap();
    let grows = |name: &str| {
        let path = temp.path().join(name);
        growth(&path, &path.metadata().unwrap())
    };
    File::create(temp.path().join("holes")).unwrap().set_len(1 << 20).unwrap();
    assert_eq!(grows("holes"), Some(Bytes::mib(1)));
    std::fs::write(temp.path().join("full"), vec![1; 8192]).unwrap();
    assert_eq!(grows("full"), Some(Bytes(0)));
    let mut qcow2 = b"QFI\xfb".to_vec();
    qcow2.resize(24, 0);
    qcow2.extend(Bytes::mib(8).0.to_be_bytes());
    std::fs::write(temp.path().join("qcow2"), qcow2).unwrap();
    let left = grows("qcow2").unwrap();
    assert!(left <= Bytes::mib(8) && left >= Bytes::mib(7), "{left}");
}
