//! Which block devices and shared folders this machine has, and by what names fstab(5) may call
//! them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

/// Bytes of a device read to find its label: the superblock of btrfs is the last of them.
const SUPERBLOCKS: usize = 0x1_0000 + 0x400;

/// Devices of the kernel that appear only when they are used, or that the network brings.
const LATER: [&str; 5] = ["loop", "zram", "ram", "nbd", "rbd"];

/// What the machine has.
#[derive(Debug, Default)]
pub struct Machine {
    devices: Vec<Device>,
    /// Kinds of shared folders: `9p`, `virtiofs`.
    shares: Vec<&'static str>,
}

/// A block device.
#[derive(Debug, Default, Clone)]
pub struct Device {
    /// `vda`.
    pub name: String,
    /// virtio serial.
    pub serial: String,
    /// Of the file system on it, or of its partition.
    pub tags: Vec<(Tag, String)>,
}

/// What fstab(5) can find a device by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// Label of the file system.
    Label,
    /// UUID of the file system.
    Uuid,
    /// Name of the partition.
    PartLabel,
    /// UUID of the partition.
    PartUuid,
}

impl Machine {
    /// Looks at this machine.
    pub fn look() -> Self {
        let names = fs::read_dir("/sys/class/block").into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let has_virtio = |id: &str| {
            let devices = fs::read_dir("/sys/bus/virtio/devices").into_iter().flatten().flatten();
            devices
                .filter_map(|entry| fs::read_to_string(entry.path().join("device")).ok())
                .any(|found| found.trim() == id)
        };
        // Virtio 1.2, section 5: device ids.
        let shares = [("9p", "0x0009"), ("virtiofs", "0x001a")];
        let shares = shares.into_iter().filter(|(_, id)| has_virtio(id)).map(|(kind, _)| kind);
        Self { devices: names.map(look_at).collect(), shares: shares.collect() }
    }

    /// A machine of these devices.
    #[cfg(test)]
    pub fn of(devices: Vec<Device>) -> Self {
        Self { devices, shares: Vec::new() }
    }

    /// Whether it has shared folders of this kind.
    pub fn shares(&self, kind: &str) -> bool {
        self.shares.contains(&kind)
    }

    /// Whether `spec`, the first field of fstab(5), names a block device that is there; `None` if
    /// it names no block device, or one of which that cannot be told yet.
    pub fn has(&self, spec: &str) -> Option<bool> {
        if let Some((tag, value)) = tag_of(spec) {
            return Some(self.has_tag(tag, value));
        }
        let path = spec.strip_prefix("/dev/")?;
        if let Some(by) = path.strip_prefix("disk/") {
            let (by, value) = by.split_once('/')?;
            let value = unescape(value);
            return Some(match by {
                "by-label" => self.has_tag(Tag::Label, &value),
                "by-uuid" => self.has_tag(Tag::Uuid, &value),
                "by-partlabel" => self.has_tag(Tag::PartLabel, &value),
                "by-partuuid" => self.has_tag(Tag::PartUuid, &value),
                "by-id" => self.devices.iter().any(|device| {
                    !device.serial.is_empty() && value == format!("virtio-{}", device.serial)
                }),
                _ => false,
            });
        }
        let is_later = LATER.iter().any(|kind| {
            path.strip_prefix(kind)
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        });
        if is_later {
            return None;
        }
        Some(self.devices.iter().any(|device| device.name == path))
    }

    fn has_tag(&self, tag: Tag, value: &str) -> bool {
        let same = |known: &str| match tag {
            Tag::Uuid | Tag::PartUuid => known.eq_ignore_ascii_case(value),
            Tag::Label | Tag::PartLabel => known == value,
        };
        let mut tags = self.devices.iter().flat_map(|device| &device.tags);
        tags.any(|(kind, known)| *kind == tag && same(known))
    }
}

/// `LABEL=x`, also quoted, as libblkid reads it.
fn tag_of(spec: &str) -> Option<(Tag, &str)> {
    let (name, value) = spec.split_once('=')?;
    let tag = match name {
        "LABEL" => Tag::Label,
        "UUID" => Tag::Uuid,
        "PARTLABEL" => Tag::PartLabel,
        "PARTUUID" => Tag::PartUuid,
        _ => return None,
    };
    let quoted = |mark| value.strip_prefix(mark).and_then(|value| value.strip_suffix(mark));
    Some((tag, quoted('"').or_else(|| quoted('\'')).unwrap_or(value)))
}

/// udev's names of links: `\x20` for a space.
fn unescape(name: &str) -> String {
    let mut parts = name.split("\\x");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                plain.push(char::from(byte));
                plain.push_str(part.get(2..).unwrap_or_default());
            }
            None => {
                plain.push_str("\\x");
                plain.push_str(part);
            }
        }
    }
    plain
}

fn look_at(name: String) -> Device {
    let folder = format!("/sys/class/block/{name}");
    let serial = fs::read_to_string(format!("{folder}/serial")).unwrap_or_default();
    let uevent = fs::read_to_string(format!("{folder}/uevent")).unwrap_or_default();
    let mut tags: Vec<(Tag, String)> = uevent
        .lines()
        .filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            let tag = match key {
                "PARTNAME" => Tag::PartLabel,
                "PARTUUID" => Tag::PartUuid,
                _ => return None,
            };
            Some((tag, value.to_owned()))
        })
        .collect();
    let mut head = vec![0; SUPERBLOCKS];
    // A short device holds none of the larger superblocks.
    let length = File::open(format!("/dev/{name}"))
        .and_then(|device| device.read_at(&mut head, 0))
        .unwrap_or_default();
    tags.extend(tags_of_content(head.get(..length).unwrap_or_default()));
    Device { name, serial: serial.trim().to_owned(), tags }
}

/// UUID and label of a file system or swap space, from the beginning of its device.
///
/// Places as in the kernel's `ext4_super_block`, `swap_header`, `xfs_dsb`, `btrfs_super_block` and
/// the boot sectors of FAT.
fn tags_of_content(head: &[u8]) -> Vec<(Tag, String)> {
    let at = |place: usize, length: usize| head.get(place..place + length);
    let is = |place: usize, magic: &[u8]| at(place, magic.len()) == Some(magic);
    let (uuid, label) = if is(1024 + 56, &[0x53, 0xef]) {
        (at(1024 + 104, 16), at(1024 + 120, 16))
    } else if is(4096 - 10, b"SWAPSPACE2") {
        (at(1036, 16), at(1052, 16))
    } else if is(0, b"XFSB") {
        (at(32, 16), at(108, 12))
    } else if is(0x1_0040, b"_BHRfS_M") {
        (at(0x1_0020, 16), at(0x1_012b, 256))
    } else if is(0x52, b"FAT32") {
        (at(0x43, 4), at(0x47, 11))
    } else if is(0x36, b"FAT1") {
        (at(0x27, 4), at(0x2b, 11))
    } else {
        return Vec::new();
    };
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).trim_end().to_owned()
    };
    let uuid = uuid.map(|bytes| (Tag::Uuid, uuid_text(bytes)));
    let label = label.map(|bytes| (Tag::Label, text(bytes)));
    uuid.into_iter().chain(label).filter(|(_, value)| !value.is_empty()).collect()
}

/// `1b4e28ba-2fa1-11d2-883f-0016d3cca427`, or FAT's `ABCD-1234`.
fn uuid_text(bytes: &[u8]) -> String {
    if let [d, c, b, a] = bytes {
        return format!("{a:02X}{b:02X}-{c:02X}{d:02X}");
    }
    let mut text = String::with_capacity(36);
    for (place, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&place) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        let mut head = vec![0; SUPERBLOCKS];
        head[1080..1082].copy_from_slice(&[0x53, 0xef]);
        head[1128..1144].copy_from_slice(&[0xab; 16]);
        head[1144..1148].copy_from_slice(b"DATA");
        let vda =
            Device { name: "vda".into(), serial: "work".into(), tags: tags_of_content(&head) };
        let part = Device {
            name: "vdb1".into(),
            tags: vec![(Tag::PartUuid, "aa-01".into()), (Tag::PartLabel, "my data".into())],
            ..Device::default()
        };
        Machine::of(vec![vda, part])
    }

    #[test]
    fn devices_are_known_by_all_their_names() {
        let machine = machine();
        let uuid = "abababab-abab-abab-abab-abababababab";
        for spec in [
            "LABEL=DATA",
            "LABEL=\"DATA\"",
            &format!("UUID={uuid}"),
            &format!("UUID={}", uuid.to_uppercase()),
            &format!("/dev/disk/by-uuid/{uuid}"),
            "PARTUUID=AA-01",
            "/dev/disk/by-partlabel/my\\x20data",
            "/dev/disk/by-id/virtio-work",
            "/dev/vda",
            "/dev/vdb1",
        ] {
            assert_eq!(machine.has(spec), Some(true), "{spec}");
        }
        for spec in [
            "LABEL=data",
            "LABEL=",
            "UUID=1111",
            "PARTLABEL=DATA",
            "/dev/sda1",
            "/dev/vda1",
            "/dev/mapper/vg-root",
            "/dev/disk/by-path/pci-0",
            "/dev/disk/by-label/BOOT",
        ] {
            assert_eq!(machine.has(spec), Some(false), "{spec}");
        }
        for spec in ["tmpfs", "none", "host:/srv", "/swapfile", "/dev/zram0", "/dev/loop3"] {
            assert_eq!(machine.has(spec), None, "{spec}");
        }
    }

    #[test]
    fn superblocks_are_read() {
        let with = |parts: &[(usize, &[u8])]| {
            let mut head = vec![0; SUPERBLOCKS];
            for (place, bytes) in parts {
                head[*place..place + bytes.len()].copy_from_slice(bytes);
            }
            tags_of_content(&head)
        };
        let swap = with(&[(4086, b"SWAPSPACE2"), (1036, &[1; 16]), (1052, b"sw")]);
        assert_eq!(swap[0].1, "01010101-0101-0101-0101-010101010101");
        assert_eq!(swap[1], (Tag::Label, "sw".into()));
        let xfs = with(&[(0, b"XFSB"), (32, &[2; 16]), (108, b"xl")]);
        assert_eq!(xfs[1], (Tag::Label, "xl".into()));
        let btrfs = with(&[(0x1_0040, b"_BHRfS_M"), (0x1_0020, &[3; 16]), (0x1_012b, b"bl")]);
        assert_eq!(btrfs[1], (Tag::Label, "bl".into()));
        let fat =
            with(&[(0x52, b"FAT32   "), (0x43, &[0x34, 0x12, 0xcd, 0xab]), (0x47, b"EFI   ")]);
        assert_eq!(fat, [(Tag::Uuid, "ABCD-1234".into()), (Tag::Label, "EFI".into())]);
        assert!(tags_of_content(&[]).is_empty() && tags_of_content(&[0; 4096]).is_empty());
    }
}
