//! A guest that sends more than the host takes: nothing of it is made before it is sent.

use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use banger_api::ApiError;
use banger_workspace::fetch::Limits;
use banger_workspace::guest::{Guest, Talk};
use banger_workspace::pull::Which;
use flate2::{Compress, Compression, FlushCompress};
use sha1::{Digest as _, Sha1};

use crate::hostile::answer;
use crate::local::{Liar, Pair};
use crate::world::git;

/// Length of the endless pack.
const TEN_GIB: u64 = 10 << 30;

/// Answers with `begin`, and then with `object` again and again.
struct Endless {
    begin: Vec<u8>,
    object: Vec<u8>,
    /// Bytes that were read.
    read: Arc<AtomicU64>,
}

impl Guest for Endless {
    fn start(&self, _: &[std::ffi::OsString]) -> Result<Talk, ApiError> {
        let Self { begin, object, read } = self;
        let (begin, object, read) = (begin.clone(), object.clone(), read.clone());
        let output = Repeated { begin, object, read };
        let end = || Ok((0, Vec::new()));
        Ok(Talk { output: Box::new(output), input: Box::new(io::sink()), end: Box::new(end) })
    }
}

struct Repeated {
    begin: Vec<u8>,
    object: Vec<u8>,
    read: Arc<AtomicU64>,
}

impl Read for Repeated {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let at = self.read.load(Ordering::Relaxed);
        let begin = self.begin.len() as u64;
        let rest = match at.checked_sub(begin) {
            None => &self.begin[at as usize..],
            Some(after) if after < TEN_GIB => {
                &self.object[(after % self.object.len() as u64) as usize..]
            }
            Some(_) => return Ok(0),
        };
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        self.read.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

/// Begin of an object in a pack: type blob and size (gitformat-pack(5)).
fn blob_header(mut size: u64) -> Vec<u8> {
    let mut header = vec![3 << 4 | (size & 15) as u8];
    size >>= 4;
    while size > 0 {
        *header.last_mut().unwrap() |= 0x80;
        header.push((size & 0x7f) as u8);
        size >>= 7;
    }
    header
}

fn pack_header(objects: u32) -> Vec<u8> {
    [b"PACK".as_slice(), &2_u32.to_be_bytes(), &objects.to_be_bytes()].concat()
}

/// A zlib stream of this many MiB of zeros (RFC 1950): one that was compressed, repeated.
fn zeros(mib: u64) -> Vec<u8> {
    let mut stream = Compress::new(Compression::best(), true);
    let mut piece = || {
        let mut out = Vec::with_capacity(64 << 10);
        stream.compress_vec(&vec![0; 1 << 20], &mut out, FlushCompress::Full).unwrap();
        out
    };
    let (mut whole, again) = (piece(), piece());
    for _ in 1..mib {
        whole.extend_from_slice(&again);
    }
    // An empty last block, and the sum.
    whole.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
    let sum = ((mib << 20) % 65_521) << 16 | 1;
    whole.extend_from_slice(&u32::try_from(sum).unwrap().to_be_bytes());
    whole
}

/// The name of the object of this many MiB of zeros.
fn name_of_zeros(mib: u64) -> String {
    let mut git = Command::new("git")
        .args(["hash-object", "--stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = git.stdin.take().unwrap();
    io::copy(&mut io::repeat(0).take(mib << 20), &mut input).unwrap();
    drop(input);
    String::from_utf8(git.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
}

fn head(pair: &Pair) -> String {
    git(&pair.world.host, &["rev-parse", "HEAD"]).trim().to_owned()
}

#[test]
fn a_pack_of_ten_gibibytes_is_read_up_to_the_limit() {
    let pair = Pair::new();
    // Stored blocks of noise, so that git has to keep what it gets.
    let noise: Vec<u8> =
        (0..60_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut object = blob_header(noise.len() as u64);
    let mut stream = Compress::new(Compression::none(), true);
    let mut stored = Vec::with_capacity(noise.len() + 1000);
    stream.compress_vec(&noise, &mut stored, FlushCompress::Finish).unwrap();
    object.extend(stored);
    let id = "a".repeat(40);
    let begin = answer(&head(&pair), &[("100644", &id, b"new")], &pack_header(1 << 20));
    let endless = Endless { begin, object, read: Arc::default() };
    let limits = Limits { pack_bytes: 32 << 20, ..Limits::default() };
    let mut workspace = pair.open();
    let error = workspace.fetch(&endless, &limits, Which::Own).map(drop).unwrap_err();
    assert!(error.message.contains("git refuses the objects"), "{error:?}");
    assert!(error.hint().is_some_and(|hint| hint.contains("at most 32 MiB")), "{error:?}");
    // What git had not read yet is in a pipe.
    let read = endless.read.load(Ordering::Relaxed);
    assert!(read < limits.pack_bytes + (1 << 20), "{read} bytes were read");
    drop(workspace);
    assert!(!pair.store().join("tmp").exists(), "nothing of it stays");
}

/// A pack that unpacks to a thousand times its size.
fn unpacks_to(mib: u64, limits: &Limits) {
    let pair = Pair::new();
    let mut pack = pack_header(1);
    pack.extend(blob_header(mib << 20));
    pack.extend(zeros(mib));
    let sum: [u8; 20] = Sha1::digest(&pack).into();
    pack.extend(sum);
    assert!((pack.len() as u64) < (mib << 20) / 500);
    let id = name_of_zeros(mib);
    let liar = Liar(answer(&head(&pair), &[("100644", &id, b"new")], &pack));
    let error = pair.open().fetch(&liar, limits, Which::Own).map(drop).unwrap_err();
    assert!(error.message.contains(&format!("have {mib} MiB")), "{error:?}");
    assert!(!pair.store().join("tmp").exists(), "nothing of it stays");
}

#[test]
fn a_small_pack_of_a_large_file_is_refused() {
    unpacks_to(600, &Limits { file_bytes: 500 << 20, ..Limits::default() });
}

#[test]
#[ignore = "git digests 10 GiB twice: nextest run -p banger-workspace --run-ignored only"]
fn a_small_pack_of_ten_gibibytes_is_refused() {
    unpacks_to(10 << 10, &Limits::default());
}
