//! Selected lines of a log as an answer: the last of the existing ones, then new ones. A client
//! that asks for the place of each line resumes the log without loss, also at another daemon.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use axum::body::{Body, Bytes};
use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use banger_api::routes;
use futures_util::stream;

use super::logs::{bad, follow_mode};
use super::{Answer, Api, Failure};
use crate::agent_log::AgentLines;
use crate::daemon_log::Reader;
use crate::failure::io_failure;
use crate::logs::{self, Follow, LogFile, Place};
use crate::stopping::Stopping;

/// Maximum number of bytes of a log before its place that are read for a [`Reader`].
const MAX_SEARCHED: u64 = 4 * crate::log::MAX_BYTES;

/// Selects lines of a log.
pub trait Lines: Send + 'static {
    /// Adds the next bytes; returns the completed lines, each with its newline.
    fn push(&mut self, bytes: &[u8]) -> Vec<String>;
}

impl Lines for Reader {
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        Reader::push(self, bytes)
    }
}

impl Lines for AgentLines {
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        AgentLines::push(self, bytes)
    }
}

/// Where an answer begins.
enum Begin {
    /// With the first existing line.
    All,
    /// With this number of existing lines.
    Tail(u32),
    /// With the first line after this place.
    From(Place),
}

/// The part of a log that is wanted.
pub struct Range {
    begin: Begin,
    follow: Follow,
    places: bool,
}

impl Range {
    /// The part that a query asks for.
    ///
    /// # Errors
    /// `from` is not a place, or `tail` is given too.
    pub fn new(
        tail: Option<u32>,
        follow: bool,
        from: Option<&str>,
        places: bool,
    ) -> Result<Self, Failure> {
        let begin = match (tail, from) {
            (Some(_), Some(_)) => return Err(bad("`from` and `tail` exclude each other")),
            (Some(tail), None) => Begin::Tail(tail),
            (None, Some(from)) => Begin::From(from.parse()?),
            (None, None) => Begin::All,
        };
        Ok(Self { begin, follow: follow_mode(follow), places })
    }
}

/// Existing lines that wait for the last of them to be found.
struct Tail {
    lines: VecDeque<String>,
    most: usize,
}

impl Tail {
    fn add(&mut self, lines: Vec<String>) {
        for line in lines {
            self.lines.push_back(line);
            if self.lines.len() > self.most {
                self.lines.pop_front();
            }
        }
    }
}

struct Selected<L> {
    log: LogFile,
    reader: L,
    places: bool,
    tail: Option<Tail>,
    stopping: Stopping,
}

impl<L: Lines> Selected<L> {
    /// The lines that are complete with these bytes, which end where the log was read to.
    fn lines(&mut self, piece: &[u8]) -> io::Result<Vec<String>> {
        if !self.places {
            return Ok(self.reader.push(piece));
        }
        let mut place = self.log.place()?.before(piece.len());
        let mut all = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            place = place.after(part.len());
            all.extend(self.reader.push(part).iter().map(|line| format!("{place} {line}")));
        }
        Ok(all)
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(mut tail) = self.tail.take() {
            while let Some(piece) = self.log.read()? {
                tail.add(self.lines(&piece)?);
                tokio::task::yield_now().await;
            }
            let lines: String = tail.lines.into_iter().collect();
            if !lines.is_empty() {
                return Ok(Some(lines.into()));
            }
        }
        loop {
            let piece = tokio::select! {
                piece = self.log.next() => piece?,
                () = self.stopping.requested() => None,
            };
            let Some(piece) = piece else { return Ok(None) };
            let lines = self.lines(&piece)?.concat();
            if !lines.is_empty() {
                return Ok(Some(lines.into()));
            }
            tokio::task::yield_now().await;
        }
    }
}

/// The selected lines of a log.
///
/// # Errors
/// It cannot be read.
pub fn answer<L: Lines>(
    api: &Api,
    path: &Path,
    range: Range,
    mut reader: L,
    kind: &'static str,
) -> Answer<Response> {
    let Range { begin, follow, places } = range;
    let failed = |error: io::Error| io_failure("read the log", path, &error);
    let mut tail = None;
    let log = match begin {
        Begin::All => LogFile::open(path, None, follow)?,
        Begin::Tail(0) => LogFile::at_end(path, follow)?,
        Begin::Tail(most) => {
            tail = Some(Tail { lines: VecDeque::new(), most: most as usize });
            LogFile::open(path, None, follow)?
        }
        Begin::From(place) => LogFile::open_at(path, place, follow)?,
    };
    if matches!(begin, Begin::Tail(0) | Begin::From(_)) {
        // Lines of an operation get their VM from earlier lines.
        drop(reader.push(&logs::whole(path, MAX_SEARCHED, log.position()).map_err(failed)?));
    }
    let place = log.place().map_err(failed)?;
    let place = (HeaderName::from_static(routes::LOG_PLACE_HEADER), place.to_string());
    let selected = Selected { log, reader, places, tail, stopping: api.stopping.clone() };
    let pieces = stream::try_unfold(selected, |mut selected| async move {
        Ok::<_, io::Error>(selected.next().await?.map(|piece| (piece, selected)))
    });
    Ok(([(CONTENT_TYPE, kind.to_owned()), place], Body::from_stream(pieces)).into_response())
}
