//! Work seeds: the files of `/root` as a disk of their own.

use std::fs;
use std::path::Path;

use banger_image::images::{ImageStore, WORK_SEED, WorkSeed};

use crate::listing::{in_image, on_host};
use crate::sources::{assert_equal, fill, import};
use crate::support::{Watch, fsck, half_made, run, tools};

const MARK: &str = "trusted.banger.seed";

/// A root file system with many files in its `/root`.
fn with_home(temp: &Path) -> std::path::PathBuf {
    let source = temp.join("source");
    fs::create_dir_all(source.join("bin")).unwrap();
    fs::write(source.join("bin/sh"), "#!").unwrap();
    run("chmod", &["755", source.join("bin/sh").to_str().unwrap()], "");
    fill(&source.join("root"));
    source
}

#[test]
fn a_home_with_many_files_has_a_seed_that_equals_it() {
    let temp = tempfile::tempdir().unwrap();
    let source = with_home(temp.path());
    let image = import(temp.path(), &source, &Watch::default()).unwrap();
    let seed = image.folder.join(WORK_SEED);
    let WorkSeed::Disk(path, bytes) = image.work_seed() else { panic!("there is no seed") };
    assert_eq!((&path, bytes), (&seed, fs::metadata(&seed).unwrap().len()));
    fsck(&seed);
    let mut found = in_image(&seed);
    let root = found.get_mut(&b""[..]).unwrap();
    assert_eq!((root.mode & 0o7777, root.xattrs.remove(MARK)), (0o700, Some(b"done".to_vec())));
    let mut wanted = on_host(&source.join("root"));
    wanted.get_mut(&b""[..]).unwrap().mode = root.mode;
    assert_equal(wanted, found, false, "seed");

    // An image of an earlier version, one with a seed of another version, a damaged seed.
    let store = ImageStore::new(temp.path().join("images"), tools());
    let content = fs::read(&seed).unwrap();
    let record = image.folder.join("work.json");
    let text = fs::read_to_string(&record).unwrap();
    let damages: [&dyn Fn(); 4] = [
        &|| fs::remove_file(&record).unwrap(),
        &|| fs::write(&record, text.replace("\"version\": 1", "\"version\": 0")).unwrap(),
        &|| fs::write(&record, text.replace(&image.record.fingerprint, "00")).unwrap(),
        &|| fs::write(&seed, "short").unwrap(),
    ];
    for damage in damages {
        damage();
        assert_eq!(image.work_seed(), WorkSeed::Missing);
        store.make_work_seed(&image.record.id, &Watch::default()).unwrap();
        assert!(matches!(image.work_seed(), WorkSeed::Disk(..)));
        assert_eq!(in_image(&seed).len(), found_len(&content, temp.path()));
        fsck(&seed);
    }
    assert!(half_made(&temp.path().join("images")).is_empty());
    image.verify().unwrap();
}

fn found_len(content: &[u8], folder: &Path) -> usize {
    let path = folder.join("first-seed");
    fs::write(&path, content).unwrap();
    in_image(&path).len()
}

#[test]
fn a_home_with_few_files_has_none() {
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("source");
    fill(&source);
    fs::create_dir(source.join("root")).unwrap();
    fs::write(source.join("root/.bashrc"), "x").unwrap();
    let image = import(temp.path(), &source, &Watch::default()).unwrap();
    assert_eq!(image.work_seed(), WorkSeed::Few);
    assert!(!image.folder.join(WORK_SEED).exists());
    fs::remove_file(image.folder.join("work.json")).unwrap();
    assert_eq!(image.work_seed(), WorkSeed::Missing);
    let store = ImageStore::new(temp.path().join("images"), tools());
    store.make_work_seed("x", &Watch::default()).unwrap();
    assert_eq!(image.work_seed(), WorkSeed::Few);
}
