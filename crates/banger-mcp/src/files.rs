//! Tools about files of a machine, over the archives that `banger cp` uses too.

use std::io::{self, Read};
use std::time::{SystemTime, UNIX_EPOCH};

use banger_api::{ApiError, ErrorCode, Hint};
use banger_archive::place::{LastLink, Source};
use banger_archive::{Entry, Failure, Kind, Reader, Writer};
use banger_client::{
    ArchiveSource, ArchiveTarget, Exec as Command, ExecRequest, Output, PieceReader, keep_first,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::arguments::{Encoding, ListFiles, ReadFile, WriteFile};
use crate::server::Call;
use crate::text;

/// Most bytes that a call reads.
const MAX_READ_BYTES: u32 = 1024 * 1024;
/// Bytes that it reads without another limit.
const DEFAULT_READ_BYTES: u32 = 256 * 1024;
/// Largest content of a written file, in bytes.
const MAX_CONTENT: usize = 8 * 1024 * 1024;
/// Pieces of an archive in a channel.
const QUEUE: usize = 4;
/// Most entries of a folder that are listed.
const MAX_ENTRIES: usize = 2000;
/// Most bytes of a listing.
const MAX_LISTING: usize = 1024 * 1024;
/// Deepest listing, in levels of folders.
const MAX_DEPTH: u8 = 8;

/// Prints for each path its mode in hexadecimal digits, size and time of modification, a line feed
/// and the path, ended by a zero byte.
const LISTING: &str = r#"for f; do stat -c '%f %s %Y' "$f" && printf '%s\0' "$f"; done"#;

impl Call<'_> {
    /// Reads a part of a file.
    pub async fn read_file(&mut self, wanted: ReadFile) -> Result<Value, ApiError> {
        let length = wanted.max_bytes.unwrap_or(DEFAULT_READ_BYTES);
        if !(1..=MAX_READ_BYTES).contains(&length) {
            let text = format!("`max_bytes` must be from 1 to {MAX_READ_BYTES}");
            return Err(ApiError::new(ErrorCode::BadRequest, text));
        }
        let from = ArchiveSource {
            path: wanted.path.clone().into_bytes(),
            name: b"file".to_vec(),
            link: LastLink::Follow,
            user: None,
        };
        let mut stream = self.client.archive(&wanted.vm, &from).await?;
        if stream.source != Source::File {
            let text = format!("`{}` is a folder", banger_api::excerpt(&wanted.path));
            let hint = Hint::text("`list_files` lists it");
            return Err(ApiError::new(ErrorCode::BadRequest, text).with_hint(hint));
        }
        let (to, pieces) = mpsc::channel::<Bytes>(QUEUE);
        let offset = wanted.offset;
        let reading = tokio::task::spawn_blocking(move || {
            part(PieceReader::new(pieces), offset, length as usize)
        });
        loop {
            match stream.next().await {
                Ok(Some(piece)) => {
                    if to.send(piece).await.is_err() {
                        // The reader has what it wants, or has refused.
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => return Err(error),
            }
        }
        drop(to);
        let part = reading.await.map_err(|error| {
            ApiError::new(ErrorCode::Internal, "a thread failed").caused_by(&error)
        })?;
        let (size, bytes) = part.map_err(|failure| {
            let path = banger_api::excerpt(&wanted.path);
            ApiError::new(ErrorCode::GuestFailed, format!("cannot read `{path}`"))
                .caused_by(&io::Error::other(failure.chain()))
        })?;
        let end = offset.saturating_add(bytes.len() as u64);
        let mut value = json!({ "size": size, "offset": offset, "truncated": end < size });
        let content = match text::unchanged(&bytes) {
            Some(text) => [("encoding", json!("text")), ("content", json!(text))],
            None => {
                let encoded = BASE64_STANDARD.encode(&bytes);
                [("encoding", json!("base64")), ("content", json!(encoded))]
            }
        };
        if let Some(object) = value.as_object_mut() {
            object.extend(content.map(|(name, value)| (name.to_owned(), value)));
        }
        Ok(value)
    }

    /// Writes a file.
    pub async fn write_file(&mut self, wanted: WriteFile) -> Result<Value, ApiError> {
        let bad = |text: String| ApiError::new(ErrorCode::BadRequest, text);
        let content = match wanted.encoding {
            Encoding::Text => wanted.content.into_bytes(),
            Encoding::Base64 => BASE64_STANDARD
                .decode(wanted.content.as_bytes())
                .map_err(|error| bad("`content` is not base64".into()).caused_by(&error))?,
        };
        if content.len() > MAX_CONTENT {
            let hint = Hint::text("`upload` copies a file of this host");
            let text = format!("`content` has {} bytes, at most 8 MiB are allowed", content.len());
            return Err(bad(text).with_hint(hint));
        }
        let mode = match wanted.mode.as_deref() {
            None => 0o644,
            Some(digits) => u32::from_str_radix(digits, 8)
                .ok()
                .filter(|mode| *mode <= 0o777)
                .ok_or_else(|| bad("`mode` must be octal digits up to 777".into()))?,
        };
        let (folder, name) =
            wanted.path.rsplit_once('/').map_or(("./", wanted.path.as_str()), |(_, name)| {
                (wanted.path.get(..wanted.path.len() - name.len()).unwrap_or("./"), name)
            });
        if matches!(name, "" | "." | "..") {
            return Err(bad("`path` must name a file".into()));
        }
        let bytes = content.len();
        let archive = archive(name.as_bytes(), mode, &content).map_err(|error| {
            ApiError::new(ErrorCode::Internal, "the archive cannot be made").caused_by(&error)
        })?;
        let target = ArchiveTarget {
            path: folder.as_bytes().to_vec(),
            source: Source::File,
            name: name.as_bytes().to_vec(),
            keep_owners: false,
            user: None,
        };
        let (to, pieces) = mpsc::channel(1);
        let sending = async move {
            // A refusal is the answer of the request.
            let _ = to.send(Ok(Bytes::from(archive))).await;
        };
        let (unpacked, ()) =
            tokio::join!(self.client.unarchive(&wanted.vm, &target, pieces), sending);
        unpacked?;
        Ok(json!({ "path": wanted.path, "bytes": bytes }))
    }

    /// Lists a folder.
    pub async fn list_files(&mut self, wanted: ListFiles) -> Result<Value, ApiError> {
        let bad = |text: String| ApiError::new(ErrorCode::BadRequest, text);
        let depth = wanted.depth.unwrap_or(1);
        if !(1..=MAX_DEPTH).contains(&depth) {
            return Err(bad(format!("`depth` must be from 1 to {MAX_DEPTH}")));
        }
        // `find` takes a path that begins with a dash for an option.
        let path = match wanted.path.strip_prefix('-') {
            Some(_) => format!("./{}", wanted.path),
            None => wanted.path.clone(),
        };
        let depth = depth.to_string();
        let words = [
            "find",
            "-H",
            &path,
            "-mindepth",
            "1",
            "-maxdepth",
            &depth,
            "-exec",
            "sh",
            "-c",
            LISTING,
            "sh",
            "{}",
            "+",
        ];
        let request = ExecRequest {
            argv: words.into_iter().map(Into::into).collect(),
            ..ExecRequest::default()
        };
        let session = self.client.agent_session(&wanted.vm).await?;
        let Command { mut output, .. } = Command::start(session, &request).await?;
        let (mut listing, mut messages, mut cut) = (Vec::new(), Vec::new(), false);
        let code = loop {
            match output.next().await? {
                Output::Stdout(data) => listing.extend_from_slice(&data),
                Output::Stderr(data) => keep_first(&mut messages, data, 4096),
                Output::Exit(status) => break status.shell_code(),
            }
            if listing.len() > MAX_LISTING {
                cut = true;
                break 0;
            }
        };
        let mut entries = entries(&listing);
        if code != 0 && entries.is_empty() {
            let text = format!("cannot list `{}`", banger_api::excerpt(&wanted.path));
            let error = ApiError::new(ErrorCode::NotFound, text);
            return Err(error.caused_by(&io::Error::other(text::lines(&messages).trim_end())));
        }
        cut |= entries.len() > MAX_ENTRIES;
        entries.truncate(MAX_ENTRIES);
        Ok(json!({ "entries": entries, "truncated": cut }))
    }
}

/// An archive of one file.
fn archive(name: &[u8], mode: u32, content: &[u8]) -> io::Result<Vec<u8>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let entry = Entry {
        kind: Kind::File,
        path: name.to_vec(),
        link: Vec::new(),
        mode,
        uid: 0,
        gid: 0,
        mtime_s: i64::try_from(now.as_secs()).unwrap_or(0),
        mtime_ns: now.subsec_nanos(),
        size: content.len() as u64,
        segments: None,
        device: (0, 0),
    };
    let mut writer = Writer::new(Vec::with_capacity(content.len() + 4096));
    writer.entry(&entry)?;
    writer.data(content)?;
    writer.end_entry()?;
    writer.finish()
}

/// Reads a part of the file in an archive; its size and the bytes.
fn part(from: impl Read, offset: u64, length: usize) -> Result<(u64, Vec<u8>), Failure> {
    let mut reader = Reader::new(from);
    let entry = reader.next_entry()?;
    let Some(entry) = entry.filter(|entry| entry.kind == Kind::File) else {
        return Err(Failure::archive("this is not a file with content"));
    };
    let end = entry.size.min(offset.saturating_add(length as u64));
    let mut bytes = vec![0; usize::try_from(end.saturating_sub(offset)).unwrap_or(0)];
    let whole = banger_archive::Segment { offset: 0, length: entry.size };
    let segments = entry.segments.clone().unwrap_or_else(|| vec![whole]);
    let mut buffer = vec![0; 64 * 1024];
    for segment in segments {
        let (mut at, last) = (segment.offset, segment.offset.saturating_add(segment.length));
        while at < last && at < end {
            let wanted = usize::try_from(last - at).unwrap_or(usize::MAX).min(buffer.len());
            let count = reader.data(buffer.get_mut(..wanted).unwrap_or_default())?;
            if count == 0 {
                return Err(Failure::archive("the archive ended early"));
            }
            // Holes between segments stay zero.
            for (place, byte) in (at..).zip(buffer.iter().take(count)) {
                let index = place.checked_sub(offset).and_then(|n| usize::try_from(n).ok());
                if let Some(slot) = index.and_then(|index| bytes.get_mut(index)) {
                    *slot = *byte;
                }
            }
            at += count as u64;
        }
    }
    Ok((entry.size, bytes))
}

/// The entries of a listing; incomplete ones are left out.
fn entries(listing: &[u8]) -> Vec<Value> {
    let complete = listing.iter().rposition(|byte| *byte == 0).map_or(0, |end| end + 1);
    let listing = listing.get(..complete).unwrap_or_default();
    listing.split(|byte| *byte == 0).filter_map(entry).collect()
}

fn entry(record: &[u8]) -> Option<Value> {
    let end = record.iter().position(|byte| *byte == b'\n')?;
    let (head, path) = (record.get(..end)?, record.get(end + 1..)?);
    let head = std::str::from_utf8(head).ok()?;
    let mut words = head.split(' ');
    let mode = u32::from_str_radix(words.next()?, 16).ok()?;
    let size: u64 = words.next()?.parse().ok()?;
    let modified: i64 = words.next()?.parse().ok()?;
    let kind = match mode & 0o170_000 {
        0o100_000 => "file",
        0o040_000 => "folder",
        0o120_000 => "symlink",
        0o010_000 => "pipe",
        0o140_000 => "socket",
        _ => "device",
    };
    Some(json!({
        "path": text::lines(path),
        "type": kind,
        "mode": format!("{:o}", mode & 0o7777),
        "size": size,
        "modified": modified,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_file_is_read() {
        let content: Vec<u8> = (0..=255).cycle().take(200_000).collect();
        let archive = archive(b"name", 0o600, &content).unwrap();
        let read = |offset, length| part(archive.as_slice(), offset, length).unwrap();
        assert_eq!(read(0, 1 << 20), (200_000, content.clone()));
        assert_eq!(read(70_001, 5), (200_000, content[70_001..70_006].to_vec()));
        assert_eq!(read(199_999, 5), (200_000, content[199_999..].to_vec()));
        assert_eq!(read(300_000, 5), (200_000, Vec::new()));
        assert!(part(&archive[..600], 0, 10_000).is_err());
    }

    #[test]
    fn holes_are_zeros() {
        let mut entry = Entry {
            kind: Kind::File,
            path: b"f".to_vec(),
            link: Vec::new(),
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime_s: 0,
            mtime_ns: 0,
            size: 20,
            segments: None,
            device: (0, 0),
        };
        let segment = |offset, length| banger_archive::Segment { offset, length };
        entry.segments = Some(vec![segment(4, 3), segment(15, 2)]);
        let mut writer = Writer::new(Vec::new());
        writer.entry(&entry).unwrap();
        writer.data(b"abcde").unwrap();
        writer.end_entry().unwrap();
        let archive = writer.finish().unwrap();
        let (size, bytes) = part(archive.as_slice(), 5, 12).unwrap();
        assert_eq!((size, bytes.as_slice()), (20, &b"bc\0\0\0\0\0\0\0\0de"[..]));
    }

    #[test]
    fn listings_are_parsed_whatever_the_names_are() {
        let listing = b"81a4 5 1700000000\n./a\nb\0a1ff 3 1\n./l\x1b\0junk\x0041ed 4096 2\n./d";
        let entries = entries(listing);
        assert_eq!(entries.len(), 2, "{entries:?}");
        assert_eq!(entries[0]["path"], "./a\nb");
        assert_eq!(entries[0]["mode"], "644");
        assert_eq!(entries[1]["type"], "symlink");
        assert_eq!(entries[1]["path"], "./l\\u{1b}");
    }
}
