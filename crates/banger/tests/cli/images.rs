//! Images and kernels.

use crate::support::{expect, home, plain, run};

#[test]
fn images_and_kernels() {
    let home = home();
    let pulled = run(&home, "image pull debian");
    assert_eq!(pulled.code, 0, "{}", pulled.err);
    assert_eq!(plain(&pulled.out), "FINGERPRINT\n");
    let id = pulled.out.trim();
    assert_eq!(home.json(&["image", "show", "debian"])["id"], id);
    assert!(run(&home, "image show debian").out.starts_with("names        debian\n"));
    assert!(run(&home, "image list").out.starts_with("NAME    ID                "));
    expect(&run(&home, "image list -q"), 0, "FINGERPRINT\n", "");
    let kernel = home.json(&["kernel", "pull"]);
    assert_eq!(kernel["names"][0], "debian-cloud");
    assert_eq!(home.json(&["kernel", "list"])[0]["id"], kernel["id"]);
    run(&home, "vm create --name web --no-start");
    expect(
        &run(&home, "image delete debian"),
        4,
        "",
        "error: image `debian` is used by web\nhint: delete these VMs first\n",
    );
    run(&home, "vm delete web");
    let deleted = run(&home, "image delete debian");
    assert!(deleted.out.starts_with("debian deleted, "), "{}", deleted.out);
    expect(
        &run(&home, "image delete debian"),
        3,
        "",
        "error: there is no image `debian`\nhint: `banger image list` lists all images\n",
    );
    assert_eq!(run(&home, "kernel delete debian-cloud nope").code, 1);
    home.finish();
}

#[test]
fn moving_an_image_name_requires_replace() {
    let home = home();
    let id = run(&home, "image pull debian").out;
    let again = run(&home, "image pull debian");
    assert_eq!((again.code, &again.out), (0, &id));
    run(&home, "vm create --name web --no-start");
    let tar = home.path().join("debian.tar");
    std::fs::write(&tar, b"x").unwrap();
    let tar = tar.to_str().unwrap();
    let refused = home.run(&["image", "import", tar]);
    assert_eq!(refused.code, 4, "{}", refused.err);
    let expected = format!(
        "error: the name `debian` refers to the image {}, which is used by web\n\
         hint: choose another name, or move this one with `--replace`\n",
        id.trim()
    );
    assert_eq!(refused.err, expected);
    assert_eq!(home.json(&["image", "show", "debian"])["id"], id.trim());
    let replaced = home.run(&["image", "import", "--replace", tar]);
    assert_eq!(replaced.code, 0, "{}", replaced.err);
    let own = format!("debian-{}", &id[..8]);
    let expected = format!("the image before it, used by web, is `{own}` now");
    assert!(replaced.err.contains(&expected), "{}", replaced.err);
    assert_eq!(home.json(&["image", "show", &own])["id"], id.trim());
    assert_ne!(home.json(&["image", "show", "debian"])["id"], id.trim());
    run(&home, "vm delete web");
    home.finish();
}

#[test]
fn similar_names_of_images_and_kernels_are_suggested_to_create() {
    let home = home();
    run(&home, "image pull debian");
    run(&home, "image tag debian workshop");
    for (option, name, similar) in [
        ("--image", "debain", "debian"),
        ("--image", "worksop", "workshop"),
        ("--kernel", "debian-clod", "debian-cloud"),
    ] {
        let created = home.run(&["vm", "create", option, name]);
        let kind = option.trim_start_matches('-');
        let expected =
            format!("error: there is no {kind} `{name}`\nhint: did you mean `{similar}`?\n");
        assert_eq!(created.err, expected);
        assert_ne!(created.code, 0);
    }
    let far = home.run(&["vm", "create", "--image", "fedora"]);
    assert!(far.err.contains("`banger image list`"), "{}", far.err);
    home.finish();
}

#[test]
fn untag_and_delete_remove_one_of_several_names() {
    let home = home();
    let id = run(&home, "image pull debian").out;
    let id = id.trim();
    let tagged = run(&home, "image tag debian base");
    assert_eq!(tagged.out, format!("base is a name of the image {id}\n"), "{}", tagged.err);
    assert_eq!(home.json(&["image", "tag", "base", "third"])["names"][2], "third");
    let text = "third removed; the image is still base, debian\n";
    expect(&run(&home, "image untag third"), 0, text, "");
    run(&home, "vm create --name web --no-start");
    let text = "debian removed; the image is still base\n";
    expect(&run(&home, "image delete debian"), 0, text, "");
    assert_eq!(home.json(&["image", "show", "base"])["id"], id);
    let last = run(&home, "image untag base");
    assert_eq!(last.code, 4, "{}", last.err);
    assert!(last.err.contains("`base` is the only name of the image"), "{}", last.err);
    assert_eq!(run(&home, "image untag nope").code, 3);
    assert_eq!(run(&home, "image delete base").code, 4);
    run(&home, "image pull debian");
    // The simulated recipe gives the same image again.
    assert_eq!(run(&home, "image tag nope x").code, 3);
    let home_json = home.json(&["image", "show", "base"]);
    assert_eq!(home_json["names"].as_array().unwrap().len(), 2);
    run(&home, "vm delete web");
    home.finish();
}

#[test]
fn an_archive_is_uploaded_from_standard_input() {
    use std::io::Write;
    use std::process::Stdio;
    let home = home();
    let nameless = run(&home, "image import -");
    assert_eq!(nameless.code, 2);
    assert!(nameless.err.contains("standard input has no name"), "{}", nameless.err);
    let mut command = home.command(&["image", "import", "--name", "piped", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&vec![7; 3 << 20]).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let image = home.json(&["image", "show", "piped"]);
    assert_eq!(image["names"][0], "piped");
    // A taken name is an error before the archive has been read to its end.
    let mut command = home.command(&["image", "import", "--name", "piped", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let piece = vec![7; 1 << 20];
    let mut pieces = 0;
    while input.write_all(&piece).is_ok() && pieces < 100_000 {
        pieces += 1;
    }
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{printed}");
    assert!(printed.contains("the name `piped` refers to the image"), "{printed}");
    home.finish();
}

#[test]
fn ctrl_c_aborts_an_upload() {
    use std::io::Write;
    use std::process::Stdio;

    let home = home();
    run(&home, "vm list");
    let mut command = home.command(&["image", "import", "--name", "piped", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Its input is open and empty: the program waits in a read.
    let mut input = child.stdin.take().unwrap();
    input.write_all(&vec![7; 3 << 20]).unwrap();
    banger_testkit::kill(child.id(), "INT");
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("error: the upload was cancelled\n"), "{printed}");
    drop(input);
    assert_eq!(home.json(&["image", "list"]), serde_json::json!([]));
    let uploads = home.path().join("data");
    let left = |folder: &std::path::Path| -> usize {
        let mut count = 0;
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(data) if data.is_dir() => folders.push(entry.path()),
                    Ok(data) => count += usize::from(data.len() > 1 << 20),
                    Err(_) => {}
                }
            }
        }
        count
    };
    home.wait("the half-sent archive to be removed", || left(&uploads) == 0);
    home.finish();
}

#[test]
fn import_checks_the_file_first() {
    let home = home();
    let tar = home.path().join("Tiny.tar");
    let missing = home.run(&["image", "import", tar.to_str().unwrap()]);
    assert_eq!(missing.code, 3);
    assert!(missing.err.contains("Tiny.tar` cannot be read\n"), "{}", missing.err);
    assert!(missing.err.contains("\nhint: name a file or folder of this host"), "{}", missing.err);
    std::fs::write(&tar, b"x").unwrap();
    let made = home.command(&["image", "import", "Tiny.tar"]).current_dir(home.path()).output();
    assert!(made.unwrap().status.success());
    assert_eq!(home.json(&["image", "show", "tiny"])["names"][0], "tiny");
    let folder = home.path().join("tree");
    std::fs::create_dir(&folder).unwrap();
    let made = home.command(&["image", "import", "."]).current_dir(&folder).output();
    assert!(made.unwrap().status.success());
    assert_eq!(home.json(&["image", "show", "tree"])["names"][0], "tree");
    let pipe = home.run(&["image", "import", "--name", "x", "/dev/null"]);
    assert_eq!(pipe.code, 2);
    assert!(
        pipe.err.contains("is neither a file nor a folder\nhint: read it here"),
        "{}",
        pipe.err
    );
    home.finish();
}
