//! Programs that build a kernel, and the identity that they run with.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use crate::Privilege;
use crate::fetch::{FetchError, PathContext, Progress, Tool, Tools};
use crate::kernels::KernelError;

/// Programs, each with its Debian package (Documentation/process/changes.rst of Linux).
const PROGRAMS: [(&str, &str); 11] = [
    ("make", "make"),
    ("gcc", "gcc"),
    ("ld", "binutils"),
    ("objcopy", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("perl", "perl-base"),
    ("tar", "tar"),
    ("xz", "xz-utils"),
    ("setpriv", "util-linux"),
];
/// The header of libelf, which objtool is linked with.
const HEADER: (&str, &str) = ("gelf.h", "libelf-dev");
/// The user `nobody` and the group `nogroup` of Debian: compilers need no privilege.
pub const NOBODY: u32 = 65534;

/// Packages of missing programs and headers, each once.
///
/// # Errors
/// The compiler cannot be run; cancellation.
fn missing(tools: &Tools, progress: &dyn Progress) -> Result<Vec<String>, FetchError> {
    let mut packages: Vec<String> = Vec::new();
    let mut add = |package: &str| {
        if !packages.iter().any(|known| known == package) {
            packages.push(package.to_owned());
        }
    };
    PROGRAMS.iter().filter(|(name, _)| tools.find(name).is_none()).for_each(|(_, p)| add(p));
    let (header, package) = HEADER;
    match tools.command("gcc", "gcc") {
        Ok(gcc) => {
            let preprocess = ["-x", "c", "-E", "-include", header, "-o", "/dev/null", "/dev/null"];
            match gcc.args(preprocess).run(progress) {
                Ok(()) => {}
                Err(FetchError::ToolFailed { .. }) => add(package),
                Err(error) => return Err(error),
            }
        }
        // The header belongs to the compiler's search path.
        Err(_) => add(package),
    }
    Ok(packages)
}

/// Checks that everything is installed.
///
/// # Errors
/// [`KernelError::MissingBuildTools`] names all packages at once.
pub fn check(tools: &Tools, progress: &dyn Progress) -> Result<(), KernelError> {
    let packages = missing(tools, progress)?;
    if packages.is_empty() { Ok(()) } else { Err(KernelError::MissingBuildTools { packages }) }
}

/// A program in the folder of a build: without privilege, and killed with this process.
///
/// # Errors
/// The program is missing.
pub fn unprivileged(
    tools: &Tools,
    name: &'static str,
    package: &'static str,
    folder: &Path,
) -> Result<Tool, FetchError> {
    let program = tools.command(name, package)?.command.get_program().to_owned();
    let mut tool = tools.command("setpriv", "util-linux")?;
    tool.command.current_dir(folder).env("HOME", folder).env_remove("MAKEFLAGS");
    tool.command.args(["--no-new-privs", "--pdeathsig", "KILL"]);
    if Privilege::ours() == Privilege::Root {
        let (uid, gid) = (format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"));
        tool.command.args([uid, gid]).arg("--clear-groups").arg("--bounding-set=-all");
    }
    Ok(tool.args(["--"]).args([program]).named(name))
}

/// The same, with a file that only this process may read as its standard input.
///
/// # Errors
/// The program is missing; open(2).
pub fn unprivileged_with(
    tools: &Tools,
    (name, package): (&'static str, &'static str),
    folder: &Path,
    input: &Path,
) -> Result<Tool, FetchError> {
    let mut tool = unprivileged(tools, name, package, folder)?;
    tool.command.stdin(Stdio::from(File::open(input).at("open", input)?));
    Ok(tool)
}
