//! Access control lists: from the encoding of getxattr(2) to that of ext4.
//!
//! The kernel's interface (`posix_acl_xattr.h`, version 2) has an id in each entry; ext4 (version
//! 1) has one only where it means something.

/// Versions of both encodings.
const INTERFACE: u32 = 2;
const EXT4: u32 = 1;
/// Tags of entries with an id: `ACL_USER`, `ACL_GROUP`.
const WITH_ID: [u16; 2] = [2, 8];

/// The list in ext4's encoding; `None` if it is invalid.
pub fn of_ext4(value: &[u8]) -> Option<Vec<u8>> {
    let (version, entries) = value.split_first_chunk()?;
    if u32::from_le_bytes(*version) != INTERFACE || entries.len() % 8 != 0 {
        return None;
    }
    let mut list = EXT4.to_le_bytes().to_vec();
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes(*entry.first_chunk()?);
        list.extend(if WITH_ID.contains(&tag) { entry } else { &entry[..4] });
    }
    Some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_entries_of_users_and_groups_have_an_id() {
        let entry = |tag: u16, id: u32| {
            [&tag.to_le_bytes()[..], &7_u16.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let list = [&2_u32.to_le_bytes()[..], &entry(1, u32::MAX), &entry(2, 1000)].concat();
        let wanted = [&1_u32.to_le_bytes()[..], &[1, 0, 7, 0], &entry(2, 1000)].concat();
        assert_eq!(of_ext4(&list), Some(wanted));
        assert_eq!(of_ext4(&list[..7]), None);
        assert_eq!(of_ext4(b""), None);
    }
}
