//! Tar archives, plain or compressed.

use std::io::Read;

use super::limited::Limited;
use super::{Context, Inspect, Probe, RootFs};
use crate::ext4::tar::EntryKind;
use crate::ext4::{Contents, Ext4Error, Fill, Kind, TarContents, Tree};
use crate::fetch::{FetchError, Source, Unpacked};

/// The archive of a root file system.
pub struct Archive<'a> {
    source: Source,
    sha256: String,
    context: Context<'a>,
}

impl<'a> Archive<'a> {
    /// An archive, whatever the file contains: reading it tells whether it is one.
    pub fn new(probe: Probe<'a>) -> Self {
        let Probe { source, sha256, context, .. } = probe;
        Self { source, sha256, context }
    }

    fn contents(&self) -> TarContents<impl FnMut() -> Result<Limited<Unpacked<'a>>, FetchError>> {
        let Context { tools, progress, .. } = self.context;
        let name = self.source.path().display().to_string();
        TarContents::new(move || {
            let unpacked = self.source.unpacked(tools, progress)?;
            Ok(Limited::new(unpacked, &name, self.source.bytes()))
        })
    }
}

impl RootFs for Archive<'_> {
    fn tree(&mut self, inspect: &mut Inspect<'_>) -> Result<Tree, Ext4Error> {
        let (tree, warnings) =
            self.contents().tree(&mut |entry, content: &mut dyn Read| match &entry.kind {
                EntryKind::Node(Kind::File(file)) => inspect(&entry.path, file, content),
                _ => Ok(()),
            })?;
        for line in warnings.lines() {
            self.context.progress.warning(&line);
        }
        Ok(tree)
    }

    fn sha256(&self) -> String {
        self.sha256.clone()
    }

    fn kind(&self) -> &'static str {
        "archive"
    }

    fn unchanged(&self) -> bool {
        self.source.unchanged()
    }
}

impl Contents for Archive<'_> {
    fn each(&mut self, fill: &mut Fill<'_>) -> Result<(), Ext4Error> {
        self.contents().each(fill)
    }
}
