//! squashfs images, which sqfs2tar(1) turns into an archive: it keeps owners, attributes, devices
//! and hard links, without privilege (decision 28).

use std::io::Read;
use std::path::PathBuf;

use super::{Context, Inspect, Opened, RootFs};
use crate::ext4::tar::EntryKind;
use crate::ext4::{Contents, Ext4Error, Fill, Kind, TarContents, Tree};
use crate::fetch::{FetchError, Source, Unpacked};

/// The program, and its Debian package.
const PROGRAM: (&str, &str) = ("sqfs2tar", "squashfs-tools-ng");

/// A squashfs image.
pub struct Squashfs<'a> {
    path: PathBuf,
    source: Source,
    sha256: String,
    context: Context<'a>,
}

impl<'a> Squashfs<'a> {
    /// An image.
    ///
    /// # Errors
    /// The program is not installed.
    pub fn new(file: Opened<'a>) -> Result<Self, FetchError> {
        let Opened { path, source, sha256, context } = file;
        context.tools.command(PROGRAM.0, PROGRAM.1)?;
        Ok(Self { path, source, sha256, context })
    }

    fn contents(&self) -> TarContents<impl FnMut() -> Result<Unpacked<'a>, FetchError>> {
        let Context { tools, progress, .. } = self.context;
        TarContents::new(move || {
            // With the root folder itself: its owner and mode.
            let tool = tools.command(PROGRAM.0, PROGRAM.1)?.args(["--root-becomes", "."]);
            Ok(Unpacked::of_program(tool.args([&self.path]).start(progress)?))
        })
    }
}

impl RootFs for Squashfs<'_> {
    fn tree(&mut self, inspect: &mut Inspect<'_>) -> Result<Tree, Ext4Error> {
        let (tree, _) = self.contents().tree(&mut |entry, content: &mut dyn Read| {
            let path = entry.path.strip_prefix(b"./").unwrap_or(&entry.path);
            match &entry.kind {
                EntryKind::Node(Kind::File(file)) => inspect(path, file, content),
                _ => Ok(()),
            }
        })?;
        Ok(tree)
    }

    fn sha256(&self) -> String {
        self.sha256.clone()
    }

    fn kind(&self) -> &'static str {
        "squashfs image"
    }

    fn unchanged(&self) -> bool {
        self.source.unchanged()
    }
}

impl Contents for Squashfs<'_> {
    fn each(&mut self, fill: &mut Fill<'_>) -> Result<(), Ext4Error> {
        self.contents().each(fill)
    }
}
