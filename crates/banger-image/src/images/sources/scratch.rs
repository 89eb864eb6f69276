//! Temporary copies in the staging folder, sparse where the original has zeros.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::Context;
use crate::fetch::{self, FetchError, PathContext, Source};

/// Unit in which zeros are left out.
const BLOCK: usize = 4096;
/// Number of bytes read at once.
const BUFFER_BYTES: usize = 1 << 18;
/// Number of bytes between two checks of the free space.
const CHECKED_BYTES: u64 = 64 << 20;
/// Space that stays free.
const SPARE_BYTES: u64 = 64 << 20;

/// A path for a new temporary file; the staging folder is removed with its content.
///
/// # Errors
/// mkdir(2).
pub fn file(context: Context<'_>, name: &str) -> Result<PathBuf, FetchError> {
    fs::create_dir_all(context.scratch).at("make the folder", context.scratch)?;
    Ok(context.scratch.join(name))
}

/// Decompresses a file.
///
/// # Errors
/// A damaged stream; no space; cancellation.
pub fn unpack(source: &Source, context: Context<'_>) -> Result<PathBuf, FetchError> {
    let unpacked = source.unpacked(context.tools, context.progress)?;
    let path = file(context, "unpacked")?;
    copy(unpacked, &path, source.path(), context)?;
    Ok(path)
}

/// Copies to a new file; `from` names the origin in errors.
///
/// # Errors
/// Errors of the reader; no space; cancellation.
pub fn copy(
    mut reader: impl Read,
    target: &std::path::Path,
    from: &std::path::Path,
    context: Context<'_>,
) -> Result<(), FetchError> {
    let file = File::create_new(target).at("create", target)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut at, mut unchecked) = (0_u64, u64::MAX);
    loop {
        let count = fetch::read_full(&mut reader, &mut buffer).at("read", from)?;
        if count == 0 {
            break;
        }
        context.progress.go_on()?;
        for (index, block) in buffer[..count].chunks(BLOCK).enumerate() {
            if block.iter().all(|byte| *byte == 0) {
                continue;
            }
            if unchecked >= CHECKED_BYTES {
                fetch::need_space(context.scratch, CHECKED_BYTES + SPARE_BYTES)?;
                unchecked = 0;
            }
            unchecked += block.len() as u64;
            file.write_all_at(block, at + (index * BLOCK) as u64).at("write", target)?;
        }
        at += count as u64;
    }
    file.set_len(at).at("write", target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::{NoProgress, Tools};
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn zeros_take_no_space_in_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let context =
            Context { tools: &Tools::new(""), progress: &NoProgress, scratch: folder.path() };
        let target = file(context, "copy").unwrap();
        let mut bytes = vec![0; (64 << 20) + 100];
        bytes[40 << 20] = 7;
        copy(bytes.as_slice(), &target, &target, context).unwrap();
        assert!(fs::read(&target).unwrap() == bytes);
        let used = fs::metadata(&target).unwrap().blocks() * 512;
        assert!(used < 1 << 20, "{used}");
    }
}
