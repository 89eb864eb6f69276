//! Fetches the kernel and the Debian image into a folder and prints where they are: for trying
//! things by hand.
//!
//! `cargo run -p banger-host --example prepare -- FOLDER [AGENT]`

use std::path::PathBuf;

use banger_image::fetch::{Progress, Tools};
use banger_image::images::ImageStore;
use banger_image::initramfs::Initramfs;
use banger_image::kernels::KernelStore;

struct Print;

impl Progress for Print {
    fn stage(&self, name: &str) {
        eprintln!("== {name}");
    }
    fn bytes(&self, _done: u64, _total: Option<u64>) {}
    fn log(&self, line: &str) {
        eprintln!("   {line}");
    }
    fn cancelled(&self) -> bool {
        false
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let folder = args.next().ok_or("usage: prepare FOLDER [AGENT]")?;
    let tools = Tools::new(std::env::var("PATH").unwrap_or_default());
    let kernel = KernelStore::new(folder.join("kernels"), tools.clone());
    let kernel = kernel.pull("debian-cloud", &Print)?;
    println!("kernel     {}", kernel.vmlinux().display());
    println!("modules    {}", kernel.modules_disk().display());
    if let Some(agent) = args.next() {
        let initramfs = Initramfs::new(folder.join("initramfs"));
        println!("initramfs  {}", initramfs.get(&kernel, &agent)?.display());
    }
    let images = ImageStore::new(folder.join("images"), tools);
    images.clean_staging()?;
    let image = match images.resolve("debian") {
        Ok(image) => image,
        Err(_) => images.pull("debian", banger_api::images::Rebuild::IfOutdated, &Print)?,
    };
    println!("root disk  {}", image.root_disk().display());
    Ok(())
}
