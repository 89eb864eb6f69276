//! The connection to the guest's side of a live folder.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use banger_agent_proto::MAX_HTTP_HEAD;
use banger_agent_proto::archive::{NO_PATH, encode};
use banger_agent_proto::http::ErrorBody;
use banger_api::sync::SyncFolder;
use banger_engine::Engine;
use banger_engine::plan::VmPlan;
use banger_sync::Connection;
use banger_sync_side::UPGRADE;

use super::view::Problem;
use crate::session;

/// Time limit of the agent's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest error in an answer, in bytes.
const MAX_ERROR: usize = 64 * 1024;

/// Connects twice to the folder in the guest, and makes it if `make` is set.
pub async fn connect(
    engine: &Engine,
    vm: &VmPlan,
    folder: &SyncFolder,
    make: bool,
) -> Result<[Connection; 2], Problem> {
    let first = connect_once(engine, vm, folder, make).await?;
    Ok([first, connect_once(engine, vm, folder, false).await?])
}

async fn connect_once(
    engine: &Engine,
    vm: &VmPlan,
    folder: &SyncFolder,
    make: bool,
) -> Result<Connection, Problem> {
    let agent = session::dial(engine, vm).await.map_err(|error| Problem::wait(error.message))?;
    let path = encode(folder.guest.as_bytes());
    let make = if make { "&make=yes" } else { "" };
    let request = format!(
        "POST /sync?path={path}{make} HTTP/1.1\r\nHost: guest\r\nConnection: upgrade\r\n\
         Upgrade: {UPGRADE}\r\nContent-Length: 0\r\n\r\n"
    );
    let answered = tokio::task::spawn_blocking(move || ask(UnixStream::from(agent), &request));
    let failed = |error: &dyn std::error::Error| {
        Problem::wait(format!("the guest agent did not answer: {error}"))
    };
    match answered.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))? {
        Answer::Switched(connection) => Ok(connection),
        Answer::Refused(NO_PATH, _) => Err(Problem::guest_missing(folder)),
        Answer::Refused(404, _) => {
            let text = "the guest agent is of an older build: restart the VM";
            Err(Problem::wait(text.to_owned()))
        }
        Answer::Refused(_, message) => Err(Problem::wait(message)),
    }
}

enum Answer {
    Switched(Connection),
    /// Status and message.
    Refused(u16, String),
}

fn ask(mut stream: UnixStream, request: &str) -> io::Result<Answer> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    let mut received = Vec::new();
    let mut piece = [0; 4096];
    let end = loop {
        if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        match stream.read(&mut piece)? {
            length if length > 0 && received.len() < MAX_HTTP_HEAD => {
                received.extend_from_slice(piece.get(..length).unwrap_or_default());
            }
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    };
    let mut rest = received.split_off(end + 4);
    let status = received.get(9..12).and_then(|code| std::str::from_utf8(code).ok());
    let status = status.and_then(|code| code.parse().ok()).unwrap_or(0);
    if status == 101 {
        return Ok(Answer::Switched(Connection { stream, early: rest }));
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.take(MAX_ERROR as u64).read_to_end(&mut rest)?;
    let begin = rest.iter().position(|byte| *byte == b'{').unwrap_or(rest.len());
    let end = rest.iter().rposition(|byte| *byte == b'}').map_or(begin, |at| at + 1);
    let body = serde_json::from_slice::<ErrorBody>(rest.get(begin..end).unwrap_or_default());
    let message = body.map_or_else(|_| format!("the agent answered {status}"), |body| body.error);
    Ok(Answer::Refused(status, banger_api::excerpt(&message).to_string()))
}
