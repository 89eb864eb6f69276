//! A panic gives the terminal back before its message is shown.

use std::fs::File;
use std::io::Read;
use std::process::Command;

use banger_tui::app::terminal::Screen;
use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, tcgetattr};

/// Set in the process that panics.
const CHILD: &str = "BANGER_TUI_TEST_PANIC";

#[test]
fn a_panic_gives_the_terminal_back() {
    if std::env::var_os(CHILD).is_some() {
        let _screen = Screen::take().unwrap();
        panic!("as the test wants");
    }
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    rustix::pty::unlockpt(&ours).unwrap();
    let path = rustix::pty::ptsname(&ours, Vec::new()).unwrap();
    let end = File::options().read(true).write(true).open(path.to_str().unwrap()).unwrap();
    let before = tcgetattr(&ours).unwrap().local_modes;
    assert!(before.contains(LocalModes::ICANON | LocalModes::ECHO));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_panic_gives_the_terminal_back", "--nocapture"])
        .env(CHILD, "1")
        .env("TERM", "xterm")
        .stdin(end.try_clone().unwrap())
        .stdout(end.try_clone().unwrap())
        .stderr(end)
        .spawn()
        .unwrap();
    let mut reader = File::from(ours.try_clone().unwrap());
    let reading = std::thread::spawn(move || {
        let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
        // EIO after the child has closed the terminal (pty(7)).
        while let Ok(length) = reader.read(&mut piece) {
            seen.extend_from_slice(&piece[..length]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    });
    assert!(!child.wait().unwrap().success());
    let after = tcgetattr(&ours).unwrap().local_modes;
    let seen = reading.join().unwrap();
    assert_eq!(after, before, "{seen}");
    let entered = seen.find("\x1b[?1049h").expect("the alternate screen");
    let left = entered + seen[entered..].find("\x1b[?1049l").expect("the screen before");
    assert!(seen[left..].contains("as the test wants"), "{seen:?}");
    assert!(seen[left..].contains("\x1b[?25h"), "the cursor is hidden: {seen:?}");
}
