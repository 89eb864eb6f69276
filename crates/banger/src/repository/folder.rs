//! `banger run PATH --copy`: a folder of this host in a machine, with everything in it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use banger_api::size::human_size;
use banger_api::{ApiError, ErrorCode, Hint};
use banger_archive::pack::{self, Devices};
use banger_archive::place::{self, LastLink};
use banger_client::Client;
use banger_workspace::origin::Origin;
use tokio::sync::mpsc;

use super::HOME;
use crate::commands::cp::ends::End;
use crate::commands::cp::transfer;
use crate::context::{Context, Format};
use crate::errors::{Failure, usage};
use crate::render::progress::Track;
use crate::render::{plain, warning};

/// A folder that is sent.
pub struct Folder {
    path: PathBuf,
    /// The folder in the guest.
    pub guest: PathBuf,
}

impl Folder {
    /// The folder at `path`, which may be a link to it.
    ///
    /// # Errors
    /// Not a folder, or `/`.
    pub fn find(path: &Path) -> Result<Self, ApiError> {
        let shown = path.display();
        let path = path.canonicalize().map_err(|error| {
            let text = format!("`{shown}` cannot be opened");
            ApiError::new(ErrorCode::NotFound, text).caused_by(&error)
        })?;
        let Some(name) = path.file_name().filter(|_| path.is_dir()) else {
            return Err(usage(format!("`{shown}` is not a folder that can be copied"))
                .with_hint(Hint::text("name a folder below `/`")));
        };
        let guest = Path::new(HOME).join(name);
        Ok(Self { path, guest })
    }

    /// Where it comes from and goes to.
    pub fn record(&self) -> Origin {
        let folder = self.guest.as_os_str().as_bytes().to_vec();
        Origin { path: self.path.clone(), folder }
    }

    /// Prints what would be sent: all files are read for it.
    ///
    /// # Errors
    /// A file that cannot be read; standard output's.
    pub async fn show(&self, context: &Context) -> Result<(), Failure> {
        let path = self.path.as_os_str().as_bytes().to_vec();
        let packing = tokio::task::spawn_blocking(move || {
            let (file, _) = place::source(None, &path, LastLink::Follow)?;
            let top = pack::Top { name: place::name(&path), path: &path };
            pack::pack(&file, top, Devices::LeaveOut, io::sink())
        });
        let packed = packing.await.map_err(|error| usage("the copy failed").caused_by(&error))?;
        let packed =
            packed.map_err(|failure| ApiError::new(ErrorCode::BadRequest, failure.chain()))?;
        let (from, to) = (self.path.display().to_string(), self.guest.display().to_string());
        if context.format == Format::Json {
            return context.json(&serde_json::json!({
                "path": from,
                "folder": to,
                "entries": packed.entries,
                "bytes": packed.bytes,
                "left_out": packed.left_out,
            }));
        }
        let mut lines = vec![
            format!("{from} -> {to}"),
            format!("copied     {} entries, {}", packed.entries, human_size(packed.bytes)),
        ];
        if packed.left_out > 0 {
            lines.push(format!("not sent   {} sockets and devices", packed.left_out));
        }
        let lines: Vec<String> = lines.iter().map(|line| plain::line(line)).collect();
        context.print(&(lines.join("\n") + "\n"))
    }

    /// Copies the folder; its files belong to root in the guest. What was written before an error
    /// stays.
    ///
    /// # Errors
    /// A file that cannot be read; the guest's; the connection's.
    pub async fn send(&self, client: &Client, vm: &str, track: &mut Track) -> Result<(), Failure> {
        let begun = Instant::now();
        let elapsed = || u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut report = |bytes| track.transfer(elapsed(), "copy", bytes, None);
        // Nothing is written on this host.
        let (writing, _) = mpsc::channel(1);
        let options =
            transfer::Options { keep_owners: false, link: LastLink::Follow, user: None, writing };
        let from = End::Host(self.path.as_os_str().as_bytes().to_vec());
        let to = End::Guest { vm: vm.to_owned(), path: OsStr::new(HOME).as_bytes().to_vec() };
        let copied = transfer::copy(client, from, to, &options, &mut report).await?;
        if copied.left_out > 0 {
            warning(&format!("{} sockets or devices were not copied", copied.left_out));
        }
        Ok(())
    }
}
