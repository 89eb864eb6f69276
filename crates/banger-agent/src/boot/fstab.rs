//! Entries of fstab(5) and crypttab(5) for devices that this machine does not have.
//!
//! An image of another machine lists that machine's disks. systemd waits 90 s for each of them and
//! then enters emergency mode; other inits report failures. Such a line becomes a comment, and a
//! line again at the first boot that has the device, so that nothing a user wrote is lost.

use rustix::fs::{AtFlags, OFlags};

use super::devices::Machine;
use super::log::BootLog;
use crate::beneath::{Folder, Links, Owner};
use crate::fault::{Context, Fault};
use crate::inside::Inside as _;

/// Prefix of a line that does not apply to this machine.
const ABSENT: &[u8] = b"#banger: not on this machine: ";

/// Largest table that is read, in bytes.
const TABLE_MAX: u64 = 1024 * 1024;

/// File systems that come over the network, or that a program of the guest provides.
const REMOTE_OR_VIRTUAL: [&str; 10] =
    ["nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "lustre", "afs", "davfs"];

/// Shared folders and pools that no machine of ours has.
const FOREIGN: [&str; 5] = ["vboxsf", "vmhgfs", "fuse.vmhgfs-fuse", "prl_fs", "zfs"];

/// Makes comments of such lines in both tables, and lines of comments that apply again. `layered`:
/// the root is an overlay, which no entry for `/` describes.
pub fn apply(root: &Folder, layered: bool, log: &mut BootLog) {
    let read = |path: &str| root.read(path.as_bytes(), TABLE_MAX).unwrap_or_default();
    let (fstab, crypttab) = (read("etc/fstab"), read("etc/crypttab"));
    if fstab.is_empty() && crypttab.is_empty() {
        return;
    }
    let machine = Machine::look();
    let exists =
        |path: &str| root.open_beneath(path.as_bytes(), OFlags::PATH, Links::Inside).is_ok();
    let mut opened = Vec::new();
    let checked = rewrite(&crypttab, |fields| check_crypttab_entry(fields, &machine, &mut opened));
    store(root, "etc/crypttab", &crypttab, checked, log);
    let (kept, absent) = (Vec::new(), Vec::new());
    let mut table = Table { machine: &machine, exists: &exists, opened, layered, kept, absent };
    let checked = rewrite(&fstab, |fields| table.check(fields));
    store(root, "etc/fstab", &fstab, checked, log);
}

/// A table as it should be, and a line of text for each entry taken out now.
struct Checked {
    content: Vec<u8>,
    taken_out: Vec<String>,
}

/// Writes a table that has changed, with the owner and mode it had.
fn store(root: &Folder, path: &str, old: &[u8], checked: Checked, log: &mut BootLog) {
    if checked.content == old {
        return;
    }
    let outcome = root.real_place(path.as_bytes()).and_then(|(folder, name)| {
        let write = || {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let stat = rustix::fs::statat(&folder, name.as_slice(), flags)?;
            let owner = Owner { uid: stat.st_uid, gid: stat.st_gid };
            folder.put(&name, &checked.content, owner, stat.st_mode & 0o7777)
        };
        write().context(|| format!("cannot write `/{path}`"))
    });
    log.note::<(), Fault>(outcome);
    for line in checked.taken_out {
        log.warn(format!("`/{path}`: {line}"));
    }
}

/// Checks each entry: a reason (`Some`) makes it a comment.
fn rewrite(content: &[u8], mut check: impl FnMut(&[String]) -> Option<String>) -> Checked {
    let mut checked =
        Checked { content: Vec::with_capacity(content.len() + 64), taken_out: Vec::new() };
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        let entry = line.strip_prefix(ABSENT).unwrap_or(line);
        let text = String::from_utf8_lossy(entry);
        let fields: Vec<String> = text.split_whitespace().map(unescape).collect();
        let is_entry = fields.first().is_some_and(|first| !first.starts_with('#'));
        let verdict = if is_entry { check(&fields) } else { None };
        let Some(why) = verdict else {
            // A comment of ours around something that is no entry was edited by the user.
            checked.content.extend_from_slice(if is_entry { entry } else { line });
            continue;
        };
        if entry.len() == line.len() {
            checked.taken_out.push(why);
        }
        checked.content.extend_from_slice(ABSENT);
        checked.content.extend_from_slice(entry);
    }
    checked
}

/// `\040` for a space, as getmntent(3) reads it.
fn unescape(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match byte {
            Some(byte) => {
                plain.push(char::from(byte));
                plain.push_str(part.get(3..).unwrap_or_default());
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

fn has_option(options: Option<&String>, wanted: &[&str]) -> bool {
    options.is_some_and(|options| options.split(',').any(|option| wanted.contains(&option)))
}

/// An entry of crypttab(5): name, device, key file, options. Notes the names that can be opened.
fn check_crypttab_entry(
    fields: &[String],
    machine: &Machine,
    opened: &mut Vec<String>,
) -> Option<String> {
    let [name, device, ..] = fields else { return None };
    if machine.has(device) == Some(false) && !has_option(fields.get(3), &["noauto"]) {
        return Some(format!("left out `{name}`: the machine has no `{device}`"));
    }
    opened.push(name.clone());
    None
}

/// The rules for fstab(5), and what has been seen of it so far.
struct Table<'a> {
    machine: &'a Machine,
    /// Whether the image has a path.
    exists: &'a dyn Fn(&str) -> bool,
    /// Names under /dev/mapper that crypttab opens.
    opened: Vec<String>,
    layered: bool,
    /// Mount points of entries that stay.
    kept: Vec<String>,
    /// Mount points of entries that do not.
    absent: Vec<String>,
}

impl Table<'_> {
    fn check(&mut self, fields: &[String]) -> Option<String> {
        let [spec, point, ..] = fields else { return None };
        let point = point.trim_end_matches('/').to_owned();
        // Not mounted at boot, so it cannot keep the boot from ending.
        if has_option(fields.get(3), &["noauto"]) {
            return None;
        }
        let why = self.why_absent(spec, &point, fields);
        match why {
            Some(_) => self.absent.push(point.clone()),
            None => self.kept.push(point.clone()),
        }
        why.map(|why| {
            let place = if point.is_empty() { "/" } else { &point };
            format!("left out `{spec}` for `{place}`: {why}")
        })
    }

    fn why_absent(&self, spec: &str, point: &str, fields: &[String]) -> Option<String> {
        let kind = fields.get(2).map(String::as_str).unwrap_or_default();
        if point.is_empty() && self.layered {
            return Some("the root is mounted by the VM".into());
        }
        if FOREIGN.contains(&kind) || (["9p", "virtiofs"].contains(&kind) && !self.shares(kind)) {
            return Some(format!("the machine has no `{kind}`"));
        }
        if REMOTE_OR_VIRTUAL.contains(&kind) || has_option(fields.get(3), &["_netdev"]) {
            return None;
        }
        if let Some(name) = spec.strip_prefix("/dev/mapper/")
            && self.opened.iter().any(|opened| opened == name)
        {
            return None;
        }
        if spec.starts_with("/dev/") || !spec.starts_with('/') {
            let absent = self.machine.has(spec) == Some(false);
            return absent.then(|| "the machine has no such device".into());
        }
        // A file or folder: of a bind mount, a loop device, swap. Other kinds know what theirs is.
        let is_source = ["none", "auto", "bind", "swap"].contains(&kind)
            || has_option(fields.get(3), &["bind", "rbind", "loop"]);
        if !is_source || spec.starts_with("//") {
            return None;
        }
        let source = spec.trim_end_matches('/');
        let below = |points: &[String]| {
            points.iter().any(|point| !point.is_empty() && is_below(source, point))
        };
        if below(&self.absent) {
            return Some("its source is on a device that the machine does not have".into());
        }
        let is_missing = !below(&self.kept) && !(self.exists)(source);
        is_missing.then(|| "its source does not exist".into())
    }

    fn shares(&self, kind: &str) -> bool {
        self.machine.shares(kind)
    }
}

fn is_below(path: &str, point: &str) -> bool {
    path.strip_prefix(point).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::super::devices::{Device, Tag};
    use super::*;

    fn machine() -> Machine {
        let tags = vec![(Tag::Label, "DATA".to_owned()), (Tag::Uuid, "aa-bb".to_owned())];
        Machine::of(vec![Device { name: "vda".into(), tags, ..Device::default() }])
    }

    fn check(content: &[u8], layered: bool) -> Checked {
        let machine = machine();
        let exists = |path: &str| path == "/srv/www" || path == "/swapfile";
        let opened = vec!["safe".to_owned()];
        let (kept, absent) = (Vec::new(), Vec::new());
        let mut table = Table { machine: &machine, exists: &exists, opened, layered, kept, absent };
        rewrite(content, |fields| table.check(fields))
    }

    fn stays(line: &str) -> bool {
        let line = format!("{line}\n");
        let checked = check(line.as_bytes(), true);
        assert_eq!(checked.taken_out.len(), usize::from(checked.content != line.as_bytes()));
        checked.content == line.as_bytes()
    }

    #[test]
    fn entries_for_absent_devices_are_taken_out() {
        for line in [
            "LABEL=BOOT /boot ext4 defaults 0 2",
            "UUID=11111111-2222-3333-4444-555555555555 none swap sw 0 0",
            "UUID=\"ABCD-1234\" /boot/efi vfat umask=0077 0 1",
            "PARTUUID=0123-01\t/data\txfs\tdefaults",
            "PARTLABEL=home /home btrfs subvol=home",
            "/dev/sda1 /boot auto defaults 0 0",
            "/dev/sdb none swap sw",
            "/dev/disk/by-id/ata-X-part1 /x ext4 nofail",
            "/dev/mapper/vg-home /home ext4 defaults",
            "  LABEL=my\\040disk /mnt ext4",
            "LABEL=cloudimg-rootfs / ext4 discard,errors=remount-ro 0 1",
            "LABEL=DATA / ext4 defaults 0 1",
            "share /mnt virtiofs defaults",
            "host0 /mnt 9p trans=virtio",
            "rpool/data /data zfs defaults",
            "/nowhere/x /srv none bind",
            "/images/a.iso /cd iso9660 loop,ro",
            "/nowhere/swap none swap sw",
        ] {
            assert!(!stays(line), "{line}");
        }
    }

    #[test]
    fn all_others_stay() {
        for line in [
            "# UNCONFIGURED FSTAB FOR BASE SYSTEM",
            "",
            "half",
            "tmpfs /tmp tmpfs rw,nosuid 0 0",
            "proc /proc proc defaults 0 0",
            "LABEL=DATA /data ext4 defaults 0 2",
            "UUID=AA-BB /data ext4",
            "/dev/vda /data ext4",
            "/dev/mapper/safe /safe ext4",
            "/dev/sda1 /mnt/usb auto noauto,user 0 0",
            "/srv/www /var/www none bind",
            "/swapfile none swap sw 0 0",
            "server:/srv /srv nfs nofail,_netdev",
            "//server/share /mnt cifs credentials=/etc/x",
            "/a:/b /pool fuse.mergerfs defaults",
            "/dev/zram0 none swap defaults",
            "overlay /x overlay lowerdir=/a",
        ] {
            assert!(stays(line), "{line}");
        }
    }

    #[test]
    fn entries_below_an_absent_mount_are_disabled_too() {
        let table = b"/dev/sdb1 /data ext4\n/data/www /var/www none bind\ntmpfs /run/x tmpfs\n\
                      /run/x/y /y none bind\n";
        let checked = check(table, false);
        assert_eq!(checked.taken_out.len(), 2, "{:?}", checked.taken_out);
        assert!(checked.taken_out[1].contains("/data/www"));
    }

    #[test]
    fn comments_become_lines_again_and_bytes_stay() {
        let table = b"# caf\xe9\r\n\n/dev/sdb1 /data ext4\r\n/dev/vda /x ext4\nLABEL=B /b ext4";
        let first = check(table, false);
        assert_eq!(first.taken_out.len(), 2);
        let again = check(&first.content, false);
        assert_eq!((again.content == first.content, again.taken_out.len()), (true, 0));
        let text = [ABSENT, b"/dev/vda /x ext4\n", ABSENT, b"# edited\n"].concat();
        let back = check(&text, false);
        assert_eq!(back.content, [b"/dev/vda /x ext4\n", ABSENT, b"# edited\n"].concat());
        let machine = Machine::of(vec![
            Device { name: "sdb1".into(), ..Device::default() },
            Device { tags: vec![(Tag::Label, "B".into())], ..Device::default() },
            Device { name: "vda".into(), ..Device::default() },
        ]);
        let whole = rewrite(&first.content, |fields| {
            (machine.has(&fields[0]) == Some(false)).then(String::new)
        });
        assert_eq!(whole.content, table);
    }

    #[test]
    fn openable_crypttab_entries_are_returned() {
        let mut opened = Vec::new();
        let table =
            b"safe UUID=aa-bb none luks\nlost /dev/sda3 none luks\nlazy /dev/sdb none noauto\n";
        let checked =
            rewrite(table, |fields| check_crypttab_entry(fields, &machine(), &mut opened));
        assert_eq!(checked.taken_out, ["left out `lost`: the machine has no `/dev/sda3`"]);
        assert_eq!(opened, ["safe", "lazy"]);
    }

    #[test]
    fn a_changed_table_keeps_owner_mode_and_link() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        std::fs::create_dir_all(at("etc")).unwrap();
        std::fs::write(at("fstab.real"), "LABEL=no-such-label /boot ext4\n").unwrap();
        std::fs::set_permissions(at("fstab.real"), PermissionsExt::from_mode(0o640)).unwrap();
        symlink("../fstab.real", at("etc/fstab")).unwrap();
        let root = Folder::open(dir.path().to_str().unwrap()).unwrap();
        let mut log = BootLog::start();
        apply(&root, true, &mut log);
        let text = std::fs::read(at("fstab.real")).unwrap();
        assert!(text.starts_with(ABSENT));
        assert_eq!(at("fstab.real").metadata().unwrap().mode() & 0o777, 0o640);
        assert_eq!(log.finish().1.len(), 1);
    }
}
