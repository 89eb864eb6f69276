//! `GET /archive` and `PUT /archive`: files of the guest as tar streams.
//!
//! The thread of the connection works with the permissions of the requested user, and never
//! regains its own: the connection ends with the request.

use std::io;

use banger_agent_proto::archive::{
    CONTENT_TYPE, ERROR_TRAILER, LEFT_OUT_TRAILER, MAX_TRAILER, SOURCE_HEADER, Unpacked, encode,
};
use banger_archive::pack::{self, Devices, pack};
use banger_archive::place::{self, LastLink, Place, Source};
use banger_archive::unpack::{self, MAX_ENTRIES, Owners, Rules, SetId, Special, Top, unpack};
use banger_archive::{Cause, Failure};
use rustix::fs::{Gid, Uid};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::exec;
use super::http::{Refusal, Request};
use super::routes::Client;
use crate::beneath::MAX_PATH;
use crate::users::User;

/// Packs a file or folder.
///
/// # Errors
/// The connection's.
pub fn send(mut client: Client, request: &Request) -> io::Result<()> {
    let opened = caller(request).and_then(|(user, path)| {
        let link = match request.parameter("link").as_deref() {
            None => LastLink::Keep,
            Some(b"follow") => LastLink::Follow,
            Some(_) => return Err(Refusal::bad("`link` must be `follow`")),
        };
        let source = place::source(None, &path, link).map_err(|failure| refusal(&failure, &user));
        let (file, source) = source?;
        let name = match request.parameter("name") {
            Some(name) => one_part(name)?,
            None => place::name(&path).to_vec(),
        };
        Ok((user, path, file, source, name))
    });
    let (user, path, file, source, name) = match opened {
        Ok(opened) => opened,
        Err(refusal) => return client.refuse(&refusal),
    };
    // The reader may be paused for long, as a pager is.
    set_socket_timeout(client.stream(), Timeout::Send, None)?;
    let trailers = format!("{ERROR_TRAILER}, {LEFT_OUT_TRAILER}");
    let headers = [(SOURCE_HEADER, source.as_str()), ("Trailer", trailers.as_str())];
    let mut chunks = client.start_chunks_with(CONTENT_TYPE, &headers)?;
    let top = pack::Top { name: &name, path: &path };
    match pack(&file, top, Devices::LeaveOut, &mut chunks) {
        Ok(packed) => chunks.finish_with(&[(LEFT_OUT_TRAILER, packed.left_out.to_string())]),
        Err(Failure { cause: Cause::Stream, .. }) => Err(io::ErrorKind::BrokenPipe.into()),
        Err(failure) => {
            let message = refusal(&failure, &user).message.into_bytes();
            let message = message.get(..MAX_TRAILER).unwrap_or(&message);
            chunks.finish_with(&[(ERROR_TRAILER, encode(message))])
        }
    }
}

/// Unpacks the body of the request.
///
/// # Errors
/// The connection's.
pub fn receive(mut client: Client, request: &Request) -> io::Result<()> {
    let placed = caller(request).and_then(|(user, path)| {
        let (place, owners) = target(request, &path, &user)?;
        Ok((user, place, owners))
    });
    let (user, Place { folder, name }, owners) = match placed {
        Ok(placed) => placed,
        Err(refusal) => return client.refuse_early(&refusal),
    };
    let rules = Rules {
        owners,
        set_id: if owners == Owners::Keep { SetId::Keep } else { SetId::Drop },
        special: Special::LeaveOut,
        top: name.as_deref().map_or(Top::AsIs, Top::Named),
        max_entries: MAX_ENTRIES,
        reserve_bytes: 0,
    };
    // The archive may come from a program that is paused.
    set_socket_timeout(client.stream(), Timeout::Recv, None)?;
    let mut done = unpack::Unpacked::default();
    let mut body = client.body(request)?;
    match unpack(&folder, &mut body, &rules, &mut done) {
        Ok(()) => {
            // An archive may be padded after its end.
            io::copy(&mut body, &mut io::sink())?;
            let unpack::Unpacked { entries, bytes, left_out, .. } = done;
            client.answer(200, &Unpacked { entries, bytes, left_out })
        }
        Err(failure) => client.refuse_early(&refusal(&failure, &user)),
    }
}

/// The user and the absolute path of the request. The thread has that user's permissions from then
/// on.
pub(super) fn caller(request: &Request) -> Result<(User, Vec<u8>), Refusal> {
    let wanted = request.parameter("user").unwrap_or_else(|| b"root".to_vec());
    let user = exec::find_user(&String::from_utf8_lossy(&wanted))?;
    let path = request.parameter("path").ok_or_else(|| Refusal::bad("`path` is missing"))?;
    if path.len() > MAX_PATH || path.contains(&0) {
        let text = format!("`path` has a zero byte, or more than {MAX_PATH} bytes");
        return Err(Refusal::bad(text));
    }
    let path = absolute(path, &user.home);
    become_user(&user).map_err(|error| {
        Refusal::new(500, format!("cannot take the permissions of `{}`: {error}", user.name))
    })?;
    Ok((user, path))
}

/// The path from `/`; one without a slash at its start begins in the home folder.
fn absolute(path: Vec<u8>, home: &str) -> Vec<u8> {
    let rest = match path.as_slice() {
        [b'/', ..] => return path,
        b"~" => b"",
        [b'~', b'/', rest @ ..] => rest,
        rest => rest,
    };
    [home.as_bytes(), b"/", rest].concat()
}

/// For this thread only, unlike the functions of the C library. The effective capabilities of the
/// superuser go with the user id.
fn become_user(user: &User) -> io::Result<()> {
    if user.uid == 0 {
        return Ok(());
    }
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    set_thread_groups(&groups)?;
    set_thread_res_gid(None, Gid::from_raw(user.gid), None)?;
    // Real and saved id stay: a program of the user must not be able to signal the agent.
    Ok(set_thread_res_uid(None, Uid::from_raw(user.uid), None)?)
}

/// Where the body goes.
fn target(request: &Request, path: &[u8], user: &User) -> Result<(Place, Owners), Refusal> {
    let source = request.parameter("source").and_then(|name| Source::named(&name));
    let source =
        source.ok_or_else(|| Refusal::bad("`source` must be `file`, `folder` or `contents`"))?;
    let owners = match request.parameter("owners").as_deref() {
        None | Some(b"caller") => Owners::Caller,
        Some(b"keep") => Owners::Keep,
        Some(_) => return Err(Refusal::bad("`owners` must be `keep` or `caller`")),
    };
    let name = match (source, request.parameter("name")) {
        (Source::Contents, _) => b".".to_vec(),
        (_, Some(name)) => one_part(name)?,
        (_, None) => return Err(Refusal::bad("`name` is missing")),
    };
    let place = place::target(None, path, source, &name);
    Ok((place.map_err(|failure| refusal(&failure, user))?, owners))
}

/// Checks a name within a folder.
fn one_part(name: Vec<u8>) -> Result<Vec<u8>, Refusal> {
    let is_part = !name.is_empty() && name != b".." && name.len() <= 255;
    match is_part && !name.contains(&b'/') && !name.contains(&0) {
        true => Ok(name),
        false => Err(Refusal::bad("`name` must be the name of a file, without slashes")),
    }
}

fn refusal(failure: &Failure, user: &User) -> Refusal {
    let mut message = failure.chain();
    if failure.cause == Cause::Denied {
        message.push_str(&format!(" as user `{}`", user.name));
    }
    Refusal::new(failure.cause.http_status(), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_at_the_root_or_in_the_home_folder() {
        for (path, expected) in [
            ("/etc/x", "/etc/x"),
            ("x/y", "/home/dev/x/y"),
            ("", "/home/dev/"),
            ("~", "/home/dev/"),
            ("~/x", "/home/dev/x"),
            ("./~", "/home/dev/./~"),
            ("~x", "/home/dev/~x"),
        ] {
            let path = absolute(path.as_bytes().to_vec(), "/home/dev");
            assert_eq!(String::from_utf8(path).unwrap(), expected);
        }
    }

    #[test]
    fn names_are_one_part() {
        for name in ["", "..", "a/b", "a\0", "/", &"n".repeat(256)] {
            assert!(one_part(name.as_bytes().to_vec()).is_err(), "{name:?}");
        }
        assert_eq!(one_part(b"\xff\n".to_vec()).unwrap(), b"\xff\n");
    }

    #[test]
    fn a_missing_path_has_the_status_of_the_protocol() {
        assert_eq!(Cause::Missing.http_status(), banger_agent_proto::archive::NO_PATH);
    }

    #[test]
    fn a_lack_of_permission_names_the_user() {
        let user = User {
            name: "dev".into(),
            uid: 1000,
            gid: 1000,
            groups: vec![1000],
            home: "/home/dev".into(),
            shell: "/bin/sh".into(),
        };
        let failure = Failure::file("cannot read `/etc/shadow`", rustix::io::Errno::ACCESS);
        let refused = refusal(&failure, &user);
        let text = "cannot read `/etc/shadow`: Permission denied (os error 13) as user `dev`";
        assert_eq!((refused.status, refused.message.as_str()), (403, text));
    }

    /// In a thread of its own, as each connection has.
    #[test]
    fn a_thread_has_the_permissions_of_its_user() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can take another user's permissions");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "x").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode;
        std::fs::set_permissions(dir.path(), mode(0o777)).unwrap();
        std::fs::set_permissions(&secret, mode(0o600)).unwrap();
        let (made, inner) = (dir.path().join("made"), secret.clone());
        std::thread::spawn(move || {
            let user = crate::users::find("4242", "", "").unwrap();
            become_user(&user).unwrap();
            let denied = std::fs::read(&inner).unwrap_err();
            assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);
            std::fs::write(&made, "x").unwrap();
            // The handle of a file is reopened through /proc.
            let open = place::source(None, made.as_os_str().as_encoded_bytes(), LastLink::Keep);
            let mut bytes = Vec::new();
            let top = pack::Top { name: b"made", path: b"made" };
            pack(&open.unwrap().0, top, Devices::LeaveOut, &mut bytes).unwrap();
        })
        .join()
        .unwrap();
        use std::os::unix::fs::MetadataExt as _;
        let meta = dir.path().join("made").metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (4242, 4242));
        assert_eq!(std::fs::read(&secret).unwrap(), b"x", "other threads keep their own");
    }
}
