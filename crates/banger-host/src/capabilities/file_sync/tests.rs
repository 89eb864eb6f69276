//! Files and folders in every state.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use banger_agent_proto::boot::{GuestConfig, WriteWhen};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::*;
use crate::testing::{devices, empty_config, parts, plan, spec};

fn synced(host: &Path, guest: &str, mode: Option<u32>) -> SyncedFile {
    SyncedFile { host: host.into(), guest: guest.into(), mode }
}

fn settings(home: &Path, files: Vec<SyncedFile>) -> HandoverSettings {
    HandoverSettings { home: Some(home.into()), files, ..HandoverSettings::default() }
}

/// Path, mode and content of each file, and the reports of the entries.
fn handed(settings: HandoverSettings) -> (Vec<(String, u32, Vec<u8>)>, Handover) {
    handed_with(&settings, None)
}

/// The same for the VM of an agent.
fn handed_with(
    settings: &HandoverSettings,
    login: Option<&AgentLogin>,
) -> (Vec<(String, u32, Vec<u8>)>, Handover) {
    let mut handover = Handover::default();
    let files = files(settings, login, &mut handover);
    let files = files.into_iter().map(|file| {
        assert_eq!((file.uid, file.gid, file.when), (0, 0, WriteWhen::Always));
        (file.path, file.mode, BASE64.decode(file.content).unwrap())
    });
    (files.collect(), handover)
}

fn states(handover: &Handover) -> Vec<HandoverState> {
    handover.reports.iter().map(|one| one.state).collect()
}

#[test]
fn the_login_of_opencode_is_private_in_the_guest() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".local/share/opencode");
    // Without a login there is no warning at each start.
    let (files, handover) = handed(settings(home.path(), Vec::new()));
    assert_eq!((files.len(), states(&handover)), (0, vec![HandoverState::Missing]));
    assert!(handover.warnings.is_empty());
    fs::create_dir_all(&folder).unwrap();
    let login = folder.join("auth.json");
    symlink("auth.json", &login).unwrap();
    let (files, handover) = handed(settings(home.path(), Vec::new()));
    assert_eq!((files.len(), states(&handover)), (0, vec![HandoverState::Unreadable]));
    assert!(handover.warnings[0].starts_with("opencode login: "), "{handover:?}");
    assert!(handover.warnings[0].contains("cannot be read"), "{handover:?}");
    fs::remove_file(&login).unwrap();
    fs::write(&login, "secret").unwrap();
    fs::set_permissions(&login, fs::Permissions::from_mode(0o644)).unwrap();
    let (files, handover) = handed(settings(home.path(), Vec::new()));
    assert_eq!(files, [(format!("/root/{}", Agent::Opencode.login()), 0o600, b"secret".to_vec())]);
    assert_eq!(states(&handover), [HandoverState::Copied]);
    assert!(!format!("{handover:?}").contains("secret"));
    let other = tempfile::tempdir().unwrap();
    fs::create_dir(other.path().join("opencode")).unwrap();
    fs::write(other.path().join("opencode/auth.json"), "other").unwrap();
    let data_home = Some(other.path().to_owned());
    let (files, _) = handed(HandoverSettings { data_home, ..settings(home.path(), Vec::new()) });
    assert_eq!(files[0].2, b"other");
}

#[test]
fn the_login_of_an_agent_comes_from_where_its_user_has_it() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("elsewhere.json");
    let host = path.clone().into_os_string().into();
    let mut login = AgentLogin { agent: Agent::Claude, host };
    // Whoever starts an agent misses its login.
    let (files, handover) = handed_with(&settings(home.path(), Vec::new()), Some(&login));
    assert_eq!((files.len(), handover.warnings.len()), (0, 1));
    assert!(handover.warnings[0].starts_with("claude login: `"), "{handover:?}");
    assert!(handover.warnings[0].contains("does not exist; the guest keeps"), "{handover:?}");
    assert_eq!(states(&handover), [HandoverState::Missing; 2]);
    fs::write(&path, "secret").unwrap();
    let (files, handover) = handed_with(&settings(home.path(), Vec::new()), Some(&login));
    let guest = "/root/.claude/.credentials.json";
    assert_eq!(files, [(guest.into(), 0o600, b"secret".to_vec())]);
    assert_eq!(handover.reports[0].kind, HandoverKind::ClaudeLogin);
    assert_eq!(states(&handover), [HandoverState::Copied, HandoverState::Missing]);
    // What is no file is refused: it would become a folder of the guest for good.
    login.host = home.path().to_owned().into_os_string().into();
    let (files, handover) = handed_with(&settings(home.path(), Vec::new()), Some(&login));
    assert_eq!((files.len(), handover.reports[0].state), (0, HandoverState::Refused));
    assert!(handover.warnings[0].contains("is a folder"), "{handover:?}");
    login.host = path.into_os_string().into();
    // The one of opencode is handed over once.
    login.agent = Agent::Opencode;
    let (files, handover) = handed_with(&settings(home.path(), Vec::new()), Some(&login));
    assert_eq!((files.len(), handover.reports.len()), (1, 1));
}

#[test]
fn folders_come_with_their_files_only() {
    let home = tempfile::tempdir().unwrap();
    let top = home.path().join("tool");
    fs::create_dir_all(top.join("a/b")).unwrap();
    fs::write(top.join("run"), "#!").unwrap();
    fs::set_permissions(top.join("run"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::write(top.join("a/b/conf"), b"\xff\0").unwrap();
    fs::set_permissions(top.join("a/b/conf"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("/etc/shadow", top.join("a/link")).unwrap();
    symlink("/etc", top.join("dir")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        top.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    // The entry itself may be a link, as managers of such files make them.
    symlink("tool", home.path().join("entry")).unwrap();
    let entry = home.path().join("entry");
    let (files, handover) =
        handed(settings(home.path(), vec![synced(&entry, "/root/.config/tool", None)]));
    assert_eq!(
        files,
        [
            ("/root/.config/tool/run".into(), 0o755, b"#!".to_vec()),
            ("/root/.config/tool/a/b/conf".into(), 0o640, b"\xff\0".to_vec()),
        ]
    );
    let detail = handover.reports[1].detail.clone().unwrap();
    assert_eq!(detail, "2 symbolic links, one special file");
    assert!(handover.warnings[0].contains("without 2 symbolic links"), "{handover:?}");
    let (files, _) = handed(settings(home.path(), vec![synced(&entry, "/root/x", Some(0o600))]));
    assert!(files.iter().all(|file| file.1 == 0o600));
}

#[test]
fn what_cannot_be_copied_is_reported_and_does_not_stop_the_others() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    fs::write(at("good"), "good").unwrap();
    let huge = fs::File::create(at("huge")).unwrap();
    huge.set_len(1 << 40).unwrap();
    fs::create_dir(at("large")).unwrap();
    for name in ["1", "2", "3"] {
        fs::write(at("large").join(name), vec![0; 3 << 20]).unwrap();
    }
    let pipe = at("pipe");
    let (fifo, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, fifo, mode, 0).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    symlink("turn", at("turn")).unwrap();
    let names = ["missing", "huge", "large", "pipe", "dangling", "turn", "good"];
    let entries = names.map(|name| synced(&at(name), &format!("/root/{name}"), None)).to_vec();
    let (files, handover) = handed(settings(home.path(), entries));
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].2, b"good");
    use HandoverState::{Copied, Missing, Refused, Unreadable};
    assert_eq!(
        states(&handover)[1..],
        [Missing, Refused, Refused, Refused, Missing, Unreadable, Copied]
    );
    assert_eq!(handover.warnings.len(), names.len() - 1);
    for (warning, name) in handover.warnings.iter().zip(names) {
        assert!(warning.contains(&format!("/{name}` ")), "{warning}");
    }
}

/// Runs this as a user who may not read every file. The superuser's thread becomes another user for
/// the rest of its life; other threads stay what they are (setresuid(2) is the thread's own).
fn as_a_user<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if rustix::process::geteuid().is_root() {
                let nobody = rustix::process::Uid::from_raw(65_534);
                rustix::thread::set_thread_res_uid(None, nobody, None).unwrap();
            }
            work()
        });
        thread.join().unwrap()
    })
}

#[test]
fn an_unreadable_file_is_a_warning() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("closed");
    let open = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    open(home.path(), 0o755);
    fs::write(&path, "x").unwrap();
    let entry = || settings(home.path(), vec![synced(&path, "/root/x", None)]);
    open(&path, 0o444);
    let (files, _) = as_a_user(|| handed(entry()));
    assert_eq!(files.len(), 1);
    open(&path, 0o000);
    let (files, handover) = as_a_user(|| handed(entry()));
    assert_eq!((files.len(), states(&handover)[1]), (0, HandoverState::Unreadable));
    assert!(handover.warnings[0].contains("cannot be read: Permission denied"));
}

#[test]
fn an_image_build_gets_nothing() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("x");
    fs::write(&path, "x").unwrap();
    let handover = settings(home.path(), vec![synced(&path, "/root/x", None)]);
    let part = capability(&Parts { handover, ..parts(home.path()) }).guest.unwrap();
    let mut vm = plan("0123456789ab", "web");
    let files = |vm: &_| {
        let mut config: GuestConfig = empty_config();
        let reports = part(vm, &devices(vm, &spec()), &mut config).unwrap().reports;
        (config.files.len(), reports.len())
    };
    assert_eq!(files(&vm), (1, 2));
    let operation = banger_api::OpId::from_entropy(1);
    vm.build = Some(banger_engine::plan::BuildPlan { operation, keep: false });
    assert_eq!(files(&vm), (0, 0));
}

#[test]
fn a_file_that_the_guest_could_not_write_is_not_copied() {
    let mut handover = Handover::default();
    for guest in ["/root/a", "/root/ab", "/root/b"] {
        handover.report(HandoverKind::FileSync, guest, HandoverState::Copied, None);
    }
    let warnings = [
        "cannot write `/root/ab`: Is a directory".to_owned(),
        "cannot write `/root/b/c`: No space left on device".to_owned(),
    ];
    handover.correct(&warnings);
    use HandoverState::{Copied, Failed};
    assert_eq!(states(&handover), [Copied, Failed, Failed]);
    assert_eq!(handover.reports[1].detail.as_ref(), Some(&warnings[0]));
}
