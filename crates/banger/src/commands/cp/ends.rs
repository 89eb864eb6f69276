//! The two ends of a copy: a path of this host, a path of a VM, or a stream.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

/// Source or target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Standard input or output.
    Stream,
    /// A path of this host, any bytes.
    Host(Vec<u8>),
    /// A path of a VM.
    Guest {
        /// Name, id or prefix of the id.
        vm: String,
        /// Path, any bytes.
        path: Vec<u8>,
    },
}

impl End {
    /// Reads an argument. What stands before the first colon is a VM, unless it has a slash.
    pub fn parse(argument: &OsStr) -> Self {
        let bytes = argument.as_bytes();
        if bytes == b"-" {
            return Self::Stream;
        }
        let colon = bytes.iter().position(|byte| *byte == b':');
        let split = colon.and_then(|at| Some((bytes.get(..at)?, bytes.get(at + 1..)?)));
        let named = split.filter(|(vm, _)| !vm.is_empty() && !vm.contains(&b'/'));
        match named.and_then(|(vm, path)| Some((std::str::from_utf8(vm).ok()?, path))) {
            Some((vm, path)) => Self::Guest { vm: vm.to_owned(), path: guest_path(path) },
            None => Self::Host(bytes.to_vec()),
        }
    }
}

/// The path in the guest: the home folder as a whole is copied without its name.
fn guest_path(path: &[u8]) -> Vec<u8> {
    match path {
        b"" | b"~" | b"~/" => b"~/.".to_vec(),
        path => path.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_after_a_name_means_a_vm() {
        for (argument, expected) in [
            (b"web:/srv".as_slice(), Some(("web", b"/srv".as_slice()))),
            (b"web:", Some(("web", b"~/."))),
            (b"web:~", Some(("web", b"~/."))),
            (b"web:a:b\xff", Some(("web", b"a:b\xff"))),
            (b"./web:x", None),
            (b"/web:x", None),
            (b"a/b:c", None),
            (b":x", None),
            (b"\xff:x", None),
            (b"file", None),
        ] {
            let end = End::parse(OsStr::from_bytes(argument));
            match expected {
                Some((vm, path)) => {
                    assert_eq!(end, End::Guest { vm: vm.into(), path: path.to_vec() });
                }
                None => assert_eq!(end, End::Host(argument.to_vec())),
            }
        }
        assert_eq!(End::parse(OsStr::new("-")), End::Stream);
    }
}
