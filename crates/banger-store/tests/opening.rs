//! Opening: modes, paths of any length, and unusable files with their errors.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use banger_api::{ApiError, ErrorCode};
use banger_engine::store::{Durability, Store as _};
use banger_store::{FILE_NAME, SCHEMA_VERSION, Store};
use common::{put, vm};

fn refused(path: &Path) -> ApiError {
    match Store::open(path) {
        Ok(_) => panic!("`{}` was opened", path.display()),
        Err(error) => error,
    }
}

async fn remember_one(path: &Path) {
    let store = Store::open(path).unwrap();
    store.commit(vec![put(&vm(1, "web"))], Durability::Power).await.unwrap();
    let folder = path.parent().unwrap();
    for name in [FILE_NAME.to_owned(), format!("{FILE_NAME}-wal"), format!("{FILE_NAME}-shm")] {
        let mode = std::fs::metadata(folder.join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    drop(store);
    let store = Store::open(path).unwrap();
    assert_eq!(store.load().await.unwrap().vms, [vm(1, "web")]);
}

#[tokio::test]
async fn paths_of_any_length_and_kind_work() {
    for length in [0, 200, 400, 500, 513, 1000, 3000] {
        let top = tempfile::tempdir().unwrap();
        let mut folder: PathBuf = top.path().to_owned();
        while folder.as_os_str().len() < length {
            folder.push("x".repeat((length - folder.as_os_str().len()).clamp(1, 99)));
        }
        std::fs::create_dir_all(&folder).unwrap();
        remember_one(&folder.join(FILE_NAME)).await;
        let left = std::fs::read_dir(&folder).unwrap().count();
        assert_eq!(left, 2, "closed, a database is one file and its reserve ({length} characters)");
    }
    let top = tempfile::tempdir().unwrap();
    let odd = top.path().join("it's 100% ? #odd;\n");
    std::fs::create_dir(&odd).unwrap();
    remember_one(&odd.join(FILE_NAME)).await;
}

#[tokio::test]
async fn an_existing_file_becomes_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o664)).unwrap();
    remember_one(&path).await;
}

#[test]
fn a_missing_folder_is_named() {
    let error = refused(Path::new("/nonexistent/state/banger.db"));
    assert_eq!(error.code, ErrorCode::ReadOnly);
    assert_eq!(error.message, "the database `/nonexistent/state/banger.db` cannot be written");
    assert!(error.hint().unwrap().contains("`BANGER_STATE_DIR`"));
    assert_eq!(error.causes, ["No such file or directory (os error 2)"]);
}

#[test]
fn an_unwritable_folder_is_named() {
    // Root cannot create files here either.
    let error = refused(Path::new("/proc/self/banger.db"));
    assert_eq!(error.code, ErrorCode::ReadOnly);
    assert!(error.message.contains("`/proc/self/banger.db`"), "{}", error.message);
}

#[test]
fn damaged_foreign_and_newer_files_are_refused_and_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    let shown = path.display().to_string();

    std::fs::write(&path, "this is no database, but is as long as the header of one".repeat(9))
        .unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = refused(&path);
    assert_eq!(error.code, ErrorCode::Corrupt);
    assert_eq!(error.message, format!("the database `{shown}` is damaged"));
    assert!(error.hint().unwrap().contains(&format!("move `{shown}` aside")));
    assert_eq!(std::fs::read(&path).unwrap(), before);

    std::fs::remove_file(&path).unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE songs (name TEXT)").unwrap();
    let error = refused(&path);
    assert_eq!(error.code, ErrorCode::Corrupt);
    assert_eq!(error.message, format!("the database `{shown}` was not made by banger"));

    std::fs::remove_file(&path).unwrap();
    drop(Store::open(&path).unwrap());
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
    let error = refused(&path);
    assert_eq!(error.code, ErrorCode::DaemonUnavailable);
    let schema = format!("(schema {}, this one knows {SCHEMA_VERSION})", SCHEMA_VERSION + 1);
    assert!(error.message.ends_with(&schema), "{}", error.message);
    assert!(error.hint().unwrap().starts_with("use the version of banger that wrote it, or set"));
}

#[tokio::test]
async fn a_damaged_page_is_an_error_when_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    remember_one(&path).await;
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096..].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let error = Store::open(&path).unwrap().load().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Corrupt);
}
