//! Reads files of any common compression as uncompressed data. The first bytes of a file determine
//! its format, never its name.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::{FetchError, Inflate, PathContext, Progress, Running, Tools, read_full};

/// Compression format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// None, or an unknown one.
    Plain,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// The .xz file format.
    Xz,
    /// The .lzma file format, which came before .xz.
    Lzma,
    /// The .bz2 file format.
    Bzip2,
    /// The LZ4 frame format.
    Lz4,
    /// The .lz file format.
    Lzip,
    /// The .lzo file format.
    Lzop,
    /// The .Z file format of compress(1).
    Compress,
}

impl Compression {
    /// The format of a file that begins with these bytes. Checks for a tar header first, since a
    /// file name in it may look like any format.
    pub fn of_file(start: &[u8]) -> Self {
        if crate::ext4::tar::is_header(start) { Self::Plain } else { Self::of(start) }
    }

    /// Detects the format from a file's first bytes.
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x1f, 0x9d, ..] => Self::Compress,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x5d, 0, 0, ..] => Self::Lzma,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            // Frames, and the legacy format of the kernel.
            [0x04, 0x22, 0x4d, 0x18, ..] | [0x02, 0x21, 0x4c, 0x18, ..] => Self::Lz4,
            [b'L', b'Z', b'I', b'P', ..] => Self::Lzip,
            [0x89, b'L', b'Z', b'O', ..] => Self::Lzop,
            _ => Self::Plain,
        }
    }

    /// The external decompressor, its Debian package, and its arguments; `None` for formats read in
    /// this process.
    fn program(self) -> Option<(&'static str, &'static str, &'static [&'static str])> {
        Some(match self {
            Self::Plain | Self::Gzip | Self::Zstd => return None,
            Self::Xz | Self::Lzma => ("xz", "xz-utils", &["-dc", "--memlimit-decompress=1GiB"]),
            Self::Bzip2 => ("bzip2", "bzip2", &["-dc"]),
            Self::Lz4 => ("lz4", "lz4", &["-dc"]),
            Self::Lzip => ("lzip", "lzip", &["-dc"]),
            Self::Lzop => ("lzop", "lzop", &["-dc"]),
            Self::Compress => ("gzip", "gzip", &["-dc"]),
        })
    }
}

/// Maximum number of frames without data before the first one with data.
const SKIPPED_FRAMES: usize = 1000;

/// Detects the compression of a file, whose first frames may have no data.
fn look(file: &mut File) -> io::Result<Compression> {
    for _ in 0..SKIPPED_FRAMES {
        let mut start = [0; 512];
        let count = read_full(file, &mut start)?;
        if !super::members::is_skippable(&start) {
            return Ok(Compression::of_file(&start[..count]));
        }
        let length = u32::from_le_bytes([start[4], start[5], start[6], start[7]]);
        let rest = i64::from(length) + 8 - i64::try_from(count).unwrap_or_default();
        file.seek(SeekFrom::Current(rest))?;
    }
    Ok(Compression::Plain)
}

/// A file that is read several times and must not change in between.
#[derive(Debug)]
pub struct Source {
    file: File,
    path: PathBuf,
    seen: (u64, i64, i64, u64),
}

impl Source {
    /// Opens a regular file.
    ///
    /// # Errors
    /// The file cannot be opened, or is not a regular file.
    pub fn open(path: &Path) -> Result<Self, FetchError> {
        let file = File::open(path).at("open", path)?;
        let meta = file.metadata().at("look at", path)?;
        if !meta.is_file() {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
            return Err(FetchError::io("read", path, error));
        }
        let seen = seen(&meta);
        Ok(Self { file, path: path.to_owned(), seen })
    }

    /// The given path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.seen.0
    }

    /// Whether the file is unchanged since it was opened, according to its times.
    pub fn unchanged(&self) -> bool {
        self.file.metadata().is_ok_and(|meta| seen(&meta) == self.seen)
    }

    /// The raw file from its start.
    ///
    /// # Errors
    /// lseek(2).
    pub fn raw(&self) -> Result<File, FetchError> {
        let mut file = self.file.try_clone().at("open", &self.path)?;
        file.seek(SeekFrom::Start(0)).at("read", &self.path)?;
        Ok(file)
    }

    /// Whether it is not compressed.
    ///
    /// # Errors
    /// read(2).
    pub fn is_plain(&self) -> Result<bool, FetchError> {
        let compression = look(&mut self.raw()?).at("read", &self.path)?;
        Ok(compression == Compression::Plain)
    }

    /// The decompressed content from the start. Use one reader at a time.
    ///
    /// # Errors
    /// read(2); a missing decompressor.
    pub fn unpacked<'a>(
        &self,
        tools: &Tools,
        progress: &'a dyn Progress,
    ) -> Result<Unpacked<'a>, FetchError> {
        let compression = look(&mut self.raw()?).at("read", &self.path)?;
        if let Some((program, package, args)) = compression.program() {
            let mut tool = tools.command(program, package)?.args(args);
            tool.command.stdin(Stdio::from(self.raw()?));
            return Ok(Unpacked::of_program(tool.start(progress)?));
        }
        let packed = super::Counted::new(self.raw()?, Some(self.bytes()), progress);
        let inflated = Inflate::new(compression, packed).at("read", &self.path)?;
        Ok(Unpacked { stream: Stream::Inflate(inflated) })
    }
}

fn seen(meta: &std::fs::Metadata) -> (u64, i64, i64, u64) {
    use std::os::unix::fs::MetadataExt;
    (meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ino())
}

/// Content of a [`Source`].
pub struct Unpacked<'a> {
    stream: Stream<'a>,
}

enum Stream<'a> {
    Inflate(Inflate<super::Counted<'a, File>>),
    Program(Option<Running<'a>>),
}

impl<'a> Unpacked<'a> {
    /// The output of a program; an exit code other than 0 is an error at its end.
    pub fn of_program(running: Running<'a>) -> Self {
        Self { stream: Stream::Program(Some(running)) }
    }
}

impl Read for Unpacked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Inflate(reader) => reader.read(buffer),
            Stream::Program(running) => {
                let Some(reader) = running else { return Ok(0) };
                let count = reader.read(buffer)?;
                // Only the exit code tells a complete file from a damaged one.
                if count == 0
                    && !buffer.is_empty()
                    && let Some(running) = running.take()
                {
                    running.finish().map_err(FetchError::into_io)?;
                }
                Ok(count)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::NoProgress;
    use std::io::Write;

    fn packed(compression: Compression, content: &[u8]) -> Vec<u8> {
        match compression {
            Compression::Plain => content.to_vec(),
            Compression::Gzip => {
                let mut out =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                out.write_all(content).unwrap();
                out.finish().unwrap()
            }
            Compression::Zstd => zstd::encode_all(content, 1).unwrap(),
            _ => {
                let (program, args, end) = match compression {
                    Compression::Xz => ("xz", &["-0"][..], "xz"),
                    Compression::Lzma => ("xz", &["-0", "--format=lzma"][..], "lzma"),
                    Compression::Bzip2 => ("bzip2", &["-1"][..], "bz2"),
                    _ => ("lz4", &["-1", "-m"][..], "lz4"),
                };
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("x");
                std::fs::write(&path, content).unwrap();
                let tool = Tools::new("").command(program, program).unwrap();
                tool.args(args).args([path.to_str().unwrap()]).run(&NoProgress).unwrap();
                std::fs::read(path.with_extension(end)).unwrap()
            }
        }
    }

    fn read(bytes: &[u8]) -> Result<Vec<u8>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let source = Source::open(file.path()).unwrap();
        let mut all = Vec::new();
        for _ in 0..2 {
            all.clear();
            let mut reader = source.unpacked(&Tools::new(""), &NoProgress).unwrap();
            reader.read_to_end(&mut all).map_err(|error| error.to_string())?;
        }
        assert!(source.unchanged());
        Ok(all)
    }

    #[test]
    fn every_compression_reads_the_same_twice_and_truncation_is_seen() {
        let content: Vec<u8> =
            (0..200_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
        use Compression::{Bzip2, Gzip, Lz4, Lzma, Plain, Xz, Zstd};
        for compression in [Plain, Gzip, Zstd, Xz, Lzma, Bzip2, Lz4] {
            let bytes = packed(compression, &content);
            assert_eq!(Compression::of(&bytes), compression);
            assert!(read(&bytes).unwrap() == content, "{compression:?}");
            if compression != Plain {
                let cut = read(&bytes[..bytes.len() * 2 / 3]);
                assert!(cut.is_err(), "{compression:?} truncated was read");
            }
        }
    }

    #[test]
    fn short_files_are_plain_and_folders_are_refused() {
        assert_eq!(read(b"").unwrap(), b"");
        assert_eq!(read(b"\x1f").unwrap(), b"\x1f");
        let error = Source::open(Path::new("/tmp")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read `/tmp`");
    }
}
