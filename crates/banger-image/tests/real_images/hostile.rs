//! Container images that are damaged or built to do harm are refused with their reason.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use banger_api::images::TakenName;
use banger_image::fetch::{NoProgress, digest_of_file};
use banger_image::images::ImageStore;

use crate::support::{half_made, tools, with_causes};

const CONFIG: &str = r#"{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":[]}}"#;

/// A tar archive with these files.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in files {
        archive.extend(header(name, content.len() as u64, b'0', ""));
        archive.extend(*content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.extend([0; 1024]);
    archive
}

/// A header as POSIX ustar has it, with any name.
fn header(name: &str, bytes: u64, kind: u8, link: &str) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000755\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{bytes:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

struct Layout(PathBuf);

impl Layout {
    fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
        fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self(folder.to_owned())
    }

    fn path(&self, hex: &str) -> PathBuf {
        self.0.join("blobs/sha256").join(hex)
    }

    /// Adds a blob; returns its descriptor.
    fn add(&self, kind: &str, bytes: &[u8]) -> String {
        let hex = digest_of_file(bytes).unwrap();
        fs::write(self.path(&hex), bytes).unwrap();
        self.entry(kind, &hex, bytes.len())
    }

    fn entry(&self, kind: &str, hex: &str, bytes: usize) -> String {
        let kind = format!("application/vnd.oci.image.{kind}");
        format!(r#"{{"mediaType":"{kind}","digest":"sha256:{hex}","size":{bytes}}}"#)
    }

    fn index(&self, config: &str, layers: &[String]) {
        let (config, layers) = (self.add("config.v1+json", config.as_bytes()), layers.join(","));
        let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#);
        let manifest = self.add("manifest.v1+json", manifest.as_bytes());
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{manifest}]}}"#);
        fs::write(self.0.join("index.json"), index).unwrap();
    }

    fn of_layer(folder: &Path, layer: &[u8]) -> Self {
        let layout = Self::new(folder);
        let entry = layout.add("layer.v1.tar", layer);
        layout.index(CONFIG, &[entry]);
        layout
    }
}

/// Imports, and returns the words of the error and its causes.
fn refusal(path: &Path, folder: &Path) -> String {
    let store = ImageStore::new(folder.join("images"), tools());
    let imported = store.import(path, "a file", "x", TakenName::Replace, &NoProgress);
    let error = imported.map(|image| image.record.id).unwrap_err();
    assert!(half_made(&folder.join("images")).is_empty());
    assert!(store.list().objects.is_empty());
    with_causes(&error)
}

#[test]
fn layers_that_do_harm_are_refused() {
    let mut negative = tar(&[("bin/sh", b"x")]);
    negative[124..136].copy_from_slice(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe");
    let sum: u32 = (0..512)
        .map(|at| if (148..156).contains(&at) { 32 } else { u32::from(negative[at]) })
        .sum();
    negative[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut cyclic = header("a/x", 0, b'1', "a/y").to_vec();
    cyclic.extend(header("a/y", 0, b'1', "a/x"));
    cyclic.extend([0; 1024]);
    let cut = tar(&[("bin/sh", &[7; 5000])])[..3000].to_vec();
    let mut xz = b"\xfd7zXZ\0".to_vec();
    xz.resize(600, 0);
    // A link that leads out of the image, and a file behind it.
    let outside = tempfile::tempdir().unwrap();
    let mut behind = header("out", 0, b'2', outside.path().to_str().unwrap()).to_vec();
    behind.extend(tar(&[("bin/sh", b"x"), ("out/file", b"x")]));
    let bomb = zeros();
    for (layer, expected) in [
        (tar(&[("../../etc/passwd", b"x")]), "leads out of the archive"),
        (tar(&[("bin/../../x", b"x")]), "leads out of the archive"),
        (tar(&[("bin/.wh...", b"")]), "leads out of the archive"),
        (negative, "damaged (entry 0)"),
        (cyclic, "is a hard link to"),
        (behind, "lies below something that is no folder"),
        (cut, "truncated"),
        (xz, "compressed as Xz"),
        (b"no archive at all".to_vec(), "no tar archive"),
        (bomb, "unpacks to more than 1024 MiB"),
    ] {
        let temp = tempfile::tempdir().unwrap();
        let layout = Layout::of_layer(&temp.path().join("layout"), &layer);
        let words = refusal(&layout.0, temp.path());
        let hex = digest_of_file(&layer[..]).unwrap();
        assert!(words.contains(expected) && words.contains(&hex), "{words}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

/// A compressed archive with a file of 10 GiB of zeros, in 10 MB.
fn zeros() -> Vec<u8> {
    const MEMBER: u64 = 64 << 20;
    const MEMBERS: u64 = 160;
    let packed = |content: &mut dyn Read| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::copy(&mut std::io::BufReader::with_capacity(1 << 20, content), &mut out).unwrap();
        out.finish().unwrap()
    };
    let mut archive = packed(&mut &header("bin/zeros", MEMBER * MEMBERS, b'0', "")[..]);
    let member = packed(&mut std::io::repeat(0).take(MEMBER));
    (0..MEMBERS).for_each(|_| archive.extend(&member));
    assert!(archive.len() < 11 << 20);
    archive
}

#[test]
fn archives_that_unpack_to_too_much_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("rootfs.tar.gz");
    fs::write(&path, zeros()).unwrap();
    let words = refusal(&path, temp.path());
    assert!(words.contains("rootfs.tar.gz` unpacks to more than 1024 MiB"), "{words}");
}

#[test]
fn too_many_layers_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let layout = Layout::new(&temp.path().join("layout"));
    let layer = layout.add("layer.v1.tar", &tar(&[("bin/sh", b"x")]));
    for (count, expected) in [
        (100_000, "larger than 4 MiB"),
        (20_000, "the image has 20000 layers; at most 512 are allowed"),
        (513, "the image has 513 layers; at most 512 are allowed"),
    ] {
        layout.index(CONFIG, &vec![layer.clone(); count]);
        let words = refusal(&layout.0, temp.path());
        assert!(words.contains(expected), "{count}: {words}");
    }
    // In a format that names each layer in a few bytes.
    let saved = format!(r#"[{{"Config":"c.json","Layers":[{}]}}]"#, "\"l.tar\",".repeat(100_000));
    let saved = saved.replace(",]", "]");
    let archive = tar(&[("manifest.json", saved.as_bytes()), ("c.json", CONFIG.as_bytes())]);
    let path = temp.path().join("saved.tar");
    fs::write(&path, archive).unwrap();
    let words = refusal(&path, temp.path());
    assert!(words.contains("the image has 100000 layers; at most 512 are allowed"), "{words}");
}

#[test]
fn layouts_that_lie_are_refused() {
    type Change = fn(&Layout, &str);
    let good = tar(&[("bin/sh", b"#!")]);
    let hex = digest_of_file(&good[..]).unwrap();
    let cases: [(&str, Change); 8] = [
        ("has no `blobs/sha256/", |layout, hex| fs::remove_file(layout.path(hex)).unwrap()),
        ("does not match its digest", |layout, hex| {
            fs::write(layout.path(hex), tar(&[("bin/sh", b"!#")])).unwrap();
        }),
        ("cannot open", |layout, hex| {
            fs::remove_file(layout.path(hex)).unwrap();
            symlink("/etc/passwd", layout.path(hex)).unwrap();
        }),
        ("cannot read", |layout, hex| {
            fs::remove_file(layout.path(hex)).unwrap();
            fs::create_dir(layout.path(hex)).unwrap();
        }),
        ("does not match its digest", |layout, hex| {
            layout.index(CONFIG, &[layout.entry("layer.v1.tar", hex, 7)]);
        }),
        ("only for linux/arm64", |layout, hex| {
            let layer = layout.entry("layer.v1.tar", hex, 2048);
            layout.index(&CONFIG.replace("amd64", "arm64"), &[layer]);
        }),
        ("larger than 4 MiB", |layout, _| {
            fs::write(layout.0.join("index.json"), vec![b' '; 5 << 20]).unwrap();
        }),
        ("`index.json` of the image is not valid", |layout, _| {
            fs::write(layout.0.join("index.json"), "[".repeat(100_000)).unwrap();
        }),
    ];
    for (expected, change) in cases {
        let temp = tempfile::tempdir().unwrap();
        let layout = Layout::of_layer(&temp.path().join("layout"), &good);
        change(&layout, &hex);
        let words = refusal(&layout.0, temp.path());
        assert!(words.contains(expected), "{expected}: {words}");
    }
}

#[test]
fn archives_of_docker_save_that_lie_are_refused() {
    let saved = |layers: &str| format!(r#"[{{"Config":"c.json","Layers":[{layers}]}}]"#);
    let config = |ids: &str| CONFIG.replace("[]", &format!("[{ids}]"));
    let layer = tar(&[("bin/sh", b"#!")]);
    let id = format!("\"sha256:{}\"", digest_of_file(&layer[..]).unwrap());
    let wrong = format!("\"sha256:{}\"", "0".repeat(64));
    for (manifest, config, expected) in [
        (saved("\"l.tar\""), config(&wrong), "does not match its digest"),
        (saved("\"l.tar\""), config(""), "1 layers, but digests of 0"),
        (saved("\"../../../etc/passwd\""), config(&id), "has no `../../../etc/passwd`"),
        (saved("\"loop\""), config(&id), "has no `loop`"),
        (saved("\"l.tar\"").replace("c.json", "d.json"), config(&id), "has no `d.json`"),
        ("[]".to_owned(), config(&id), "has no `image`"),
        (
            format!("{},{}", saved("").trim_end_matches(']'), &saved("")[1..]),
            config(&id),
            "it has several images",
        ),
        ("{}".to_owned(), config(&id), "`manifest.json` of the image is not valid"),
    ] {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("saved.tar");
        let mut archive = header("loop", 0, b'2', "loop").to_vec();
        archive.extend(tar(&[
            ("manifest.json", manifest.as_bytes()),
            ("c.json", config.as_bytes()),
            ("l.tar", &layer),
        ]));
        fs::write(&path, archive).unwrap();
        let words = refusal(&path, temp.path());
        assert!(words.contains(expected), "{expected}: {words}");
    }
}
