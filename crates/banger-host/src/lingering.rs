//! Lingering: the user's systemd starts with the host and outlives the user's sessions
//! (loginctl(1), `enable-linger`).

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Name of this process's user, by passwd(5) or, for users of other databases, `USER`.
pub fn user() -> Option<OsString> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let uid = rustix::process::geteuid().as_raw();
    name_in(&passwd, uid).map(OsString::from).or(std::env::var_os("USER"))
}

fn name_in(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

/// Whether a user lingers, on the host whose root folder is `root`.
pub fn is_enabled(root: &Path, user: &OsStr) -> bool {
    root.join("var/lib/systemd/linger").join(user).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_users_are_read() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(name_in(passwd, 1000), Some("ann"));
        assert_eq!(name_in(passwd, 0), Some("root"));
        assert_eq!(name_in(passwd, 7), None);
    }
}
