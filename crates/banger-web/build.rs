//! Embeds the front-end files of npm packages, which `scripts/setup.sh` has fetched by the lock
//! file `scripts/web/package-lock.json`.
//!
//! The files are in the folder `.cache/tools/web-HASH` of the workspace, HASH being the first 16
//! digits of the SHA-256 of the lock file, or in the folder that `BANGER_WEB_FILES` names. A build
//! never uses the network, and accepts files only with the sums listed here.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, process};

use sha2::{Digest, Sha256};

/// Path in the folder of packages, name under which the page serves it, SHA-256.
const FILES: &[(&str, &str, &str)] = &[
    (
        "@xterm/xterm/lib/xterm.js",
        "xterm.js",
        "14903579ff54664cd72f8e8699e6961a6272c21863ec1c3b118cdc8af5d4a972",
    ),
    (
        "@xterm/xterm/css/xterm.css",
        "xterm.css",
        "854a7c0fb70e8b1a083c16797ab827299fb18744f5ad34f227b48337e33293c6",
    ),
    (
        "@xterm/addon-fit/lib/addon-fit.js",
        "addon-fit.js",
        "ba3ea256ce0620a0992a197d6c9baea64823fc93d8da07a9e366ca9943c18527",
    ),
    (
        "uplot/dist/uPlot.iife.min.js",
        "uplot.js",
        "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    ),
    (
        "uplot/dist/uPlot.min.css",
        "uplot.css",
        "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    ),
];

/// Licences of the packages: path, name of the package.
const LICENCES: &[(&str, &str)] = &[
    ("@xterm/xterm/LICENSE", "@xterm/xterm"),
    ("@xterm/addon-fit/LICENSE", "@xterm/addon-fit"),
    ("uplot/LICENSE", "uplot"),
];

fn main() {
    if let Err(problem) = embed() {
        println!(
            "cargo::error=the web page's front-end files {problem}; run `scripts/setup.sh build`"
        );
        process::exit(1);
    }
}

fn embed() -> Result<(), String> {
    let root = Path::new("../..");
    let lock = root.join("scripts/web/package-lock.json");
    println!("cargo::rerun-if-changed={}", lock.display());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=BANGER_WEB_FILES");
    let folder = match env::var_os("BANGER_WEB_FILES") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let lock = read(&lock)?;
            let name = format!("web-{}", &hex(&Sha256::digest(&lock))[..16]);
            root.join(".cache/tools").join(name).join("node_modules")
        }
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let mut table = String::from("&[\n");
    let mut add = |name: &str, bytes: &[u8]| {
        let _ = writeln!(table, "(\"{name}\", include_bytes!(\"{name}\")),");
        fs::write(out.join(name), bytes).map_err(|error| format!("cannot be copied: {error}"))
    };
    for (path, name, sum) in FILES {
        let path = folder.join(path);
        println!("cargo::rerun-if-changed={}", path.display());
        let bytes = read(&path)?;
        if hex(&Sha256::digest(&bytes)) != *sum {
            return Err(format!("are not the expected ones: `{}` differs", path.display()));
        }
        add(name, &bytes)?;
    }
    let mut licences = String::new();
    for (path, name) in LICENCES {
        let text = read(&folder.join(path))?;
        let _ = writeln!(licences, "{name}\n\n{}\n", String::from_utf8_lossy(&text));
    }
    add("licences.txt", licences.as_bytes())?;
    table.push_str("]\n");
    fs::write(out.join("vendor.rs"), table).map_err(|error| format!("cannot be listed: {error}"))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("cannot be read: `{}`: {error}", path.display()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
