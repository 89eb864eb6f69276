//! What files of /etc become that this machine shares with its user: bytes in, bytes out. Lines
//! that are not understood stay as they are, whatever their encoding and line ends.

/// The lines of a file with their ends.
fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content.split_inclusive(|byte| *byte == b'\n')
}

/// What ends lines in this file.
fn line_end(content: &[u8]) -> &'static [u8] {
    let first = lines(content).next().unwrap_or_default();
    if first.ends_with(b"\r\n") { b"\r\n" } else { b"\n" }
}

/// Appends a line, ending the one before it if need be.
fn append(content: &mut Vec<u8>, line: &[u8]) {
    let end = line_end(content);
    if content.last().is_some_and(|last| *last != b'\n') {
        content.extend_from_slice(end);
    }
    content.extend_from_slice(line);
    content.extend_from_slice(end);
}

/// The words of a line of hosts(5) or resolv.conf(5), without its comment.
fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let line = line.split(|byte| *byte == b'#').next().unwrap_or_default();
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

fn first_word(line: &[u8]) -> &[u8] {
    words(line).next().unwrap_or_default()
}

/// The name that a hostname(5) file holds.
pub fn name_in(hostname: &[u8]) -> Option<&[u8]> {
    lines(hostname).find_map(|line| words(line).next())
}

/// hostname(5) with another name; comments stay.
pub fn hostname(old: &[u8], name: &[u8]) -> Vec<u8> {
    let mut new = Vec::new();
    let mut is_written = false;
    for line in lines(old) {
        match words(line).next() {
            Some(word) if !is_written && word == name => {
                is_written = true;
                new.extend_from_slice(line);
            }
            Some(_) if !is_written => {
                is_written = true;
                new.extend_from_slice(name);
                new.extend_from_slice(line_end(line));
            }
            // The file holds one name.
            Some(_) => {}
            None => new.extend_from_slice(line),
        }
    }
    if !is_written {
        append(&mut new, name);
    }
    new
}

/// hosts(5) with our name at 127.0.1.1 (Debian's place for it) and a `localhost`. Of the lines that
/// are there, only one at 127.0.1.1 is replaced, if it names this machine or is named after
/// `before`, the machine that the file was written on.
pub fn hosts(old: &[u8], name: &[u8], before: Option<&[u8]>) -> Vec<u8> {
    let is_ours = |line: &[u8]| {
        let mut names = words(line).skip(1);
        first_word(line) == b"127.0.1.1"
            && names.any(|word| {
                let host = word.split(|byte| *byte == b'.').next().unwrap_or_default();
                word == name || Some(word) == before || Some(host) == before
            })
    };
    let has = |wanted: &[u8]| lines(old).any(|line| first_word(line) == wanted);
    let mut new = Vec::with_capacity(old.len() + 128);
    let ours = [b"127.0.1.1\t", name].concat();
    let mut is_written = false;
    for line in lines(old) {
        let is_right = words(line).eq(words(&ours));
        match (is_ours(line), is_written) {
            (false, _) => new.extend_from_slice(line),
            (true, true) => {}
            (true, false) if is_right => {
                is_written = true;
                new.extend_from_slice(line);
            }
            (true, false) => {
                is_written = true;
                new.extend_from_slice(&ours);
                new.extend_from_slice(line_end(old));
            }
        }
    }
    if !has(b"127.0.0.1") {
        append(&mut new, b"127.0.0.1\tlocalhost");
    }
    if !has(b"::1") {
        append(&mut new, b"::1\tlocalhost ip6-localhost ip6-loopback");
    }
    if !is_written {
        append(&mut new, &ours);
    }
    new
}

/// resolv.conf(5) with these resolvers, and these search domains where there are any. Options,
/// comments and what else is there stay.
pub fn resolv_conf(old: &[u8], servers: &[String], search: &[String]) -> Vec<u8> {
    let replaced = |line: &[u8]| match words(line).next() {
        Some(b"nameserver") => true,
        Some(b"search" | b"domain") => !search.is_empty(),
        _ => false,
    };
    let is_replaced = |line: &&[u8]| replaced(line);
    let mut ours: Vec<String> = Vec::new();
    if !search.is_empty() {
        ours.push(format!("search {}", search.join(" ")));
    }
    ours.extend(servers.iter().map(|server| format!("nameserver {server}")));
    let there = lines(old).filter(is_replaced).map(<[u8]>::trim_ascii);
    if there.eq(ours.iter().map(String::as_bytes)) {
        return old.to_vec();
    }
    let mut new: Vec<u8> = lines(old).filter(|line| !replaced(line)).flatten().copied().collect();
    for line in &ours {
        append(&mut new, line.as_bytes());
    }
    new
}

/// A file with this block in the place of the earlier one with the same marks, or at its end. First
/// and last line of the block are its marks; without lines between them it is removed.
pub fn with_block(old: &[u8], block: &[u8]) -> Vec<u8> {
    let is = |line: &[u8], mark: Option<&[u8]>| {
        mark.is_some_and(|mark| line.trim_ascii_end() == mark.trim_ascii_end())
    };
    let (begin, end) = (lines(block).next(), lines(block).last());
    let mut new = Vec::with_capacity(old.len() + block.len());
    let mut is_written = lines(block).count() < 3;
    let mut rest = old;
    while let Some(line) = lines(rest).next() {
        rest = rest.get(line.len()..).unwrap_or_default();
        if !is(line, begin) {
            new.extend_from_slice(line);
            continue;
        }
        // Without its end only the mark itself is replaced.
        let mut length = 0;
        let closed = lines(rest).find_map(|inner| {
            length += inner.len();
            is(inner, end).then_some(length)
        });
        rest = closed.and_then(|length| rest.get(length..)).unwrap_or(rest);
        if !is_written {
            is_written = true;
            new.extend_from_slice(block);
        }
    }
    if !is_written {
        if new.last().is_some_and(|last| *last != b'\n') {
            new.push(b'\n');
        }
        new.extend_from_slice(block);
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_added_replaced_and_removed() {
        const NONE: &[u8] = b"# begin\n# end\n";
        let (one, two) = (b"# begin\na=1\n# end\n", b"# begin\na=2\nb=3\n# end\n");
        for user in [b"".as_slice(), b"x=1\n", b"x=\xff\r\n# other: end\n"] {
            let with_one = with_block(user, one);
            assert_eq!(with_one, [user, one].concat());
            assert_eq!(with_block(&with_one, one), with_one, "a second boot changes nothing");
            let edited = [with_one.as_slice(), b"after=1\n"].concat();
            let with_two = with_block(&edited, two);
            assert_eq!(with_two, [user, two, b"after=1\n"].concat());
            assert_eq!(with_block(&with_two, NONE), [user, b"after=1\n"].concat());
            assert_eq!(with_block(user, NONE), user);
        }
        assert_eq!(with_block(b"no end", one), b"no end\n# begin\na=1\n# end\n");
        // A user's edits of the marks lose no other lines.
        assert_eq!(with_block(b"# begin\nx=1\n", one), b"# begin\na=1\n# end\nx=1\n");
        assert_eq!(with_block(b"# end\nx=1\n", NONE), b"# end\nx=1\n");
        let twice = [one.as_slice(), b"x=1\n", one].concat();
        assert_eq!(with_block(&twice, two), [two.as_slice(), b"x=1\n"].concat());
    }

    #[test]
    fn other_lines_of_hosts_are_kept() {
        let old = b"127.0.0.1 localhost\n# mine\n10.0.0.1 db\n127.0.1.1 old.example old\n";
        let new = hosts(old, b"vm", Some(b"old"));
        let expected = "127.0.0.1 localhost\n# mine\n10.0.0.1 db\n127.0.1.1\tvm\n\
            ::1\tlocalhost ip6-localhost ip6-loopback\n";
        assert_eq!(String::from_utf8(new.clone()).unwrap(), expected);
        assert_eq!(hosts(&new, b"vm", Some(b"vm")), new, "a second boot changes nothing");
    }

    #[test]
    fn names_of_the_user_at_our_address_stay() {
        let old = b"::1 x\n127.0.0.1 x\n127.0.1.1 app.test\n";
        assert_eq!(hosts(old, b"vm", Some(b"old")), [old, b"127.0.1.1\tvm\n".as_slice()].concat());
        assert_eq!(hosts(old, b"vm", None), [old, b"127.0.1.1\tvm\n".as_slice()].concat());
    }

    #[test]
    fn hosts_from_nothing() {
        let new = String::from_utf8(hosts(b"", b"vm", None)).unwrap();
        assert!(new.starts_with("127.0.0.1\tlocalhost\n::1\tlocalhost"), "{new}");
    }

    #[test]
    fn other_encodings_and_line_ends_stay() {
        let complete = b"127.0.0.1 l\n::1 l\n";
        for odd in [
            b"10.0.0.1 caf\xe9 # \xff\xfe\n".as_slice(),
            b"\xef\xbb\xbf# mark\n",
            b"a\0b\n",
            b"10.0.0.2 x\r\n",
            b"10.0.0.3 no end",
            b"\n\n  \n",
        ] {
            let old = [complete, odd].concat();
            let new = hosts(&old, b"vm", Some(b"old"));
            assert!(new.starts_with(&old), "{}", String::from_utf8_lossy(&new));
            assert!(new.ends_with(b"\n127.0.1.1\tvm\n"), "{}", String::from_utf8_lossy(&new));
        }
        let dos = hosts(b"127.0.0.1 l\r\n::1 l\r\n", b"vm", None);
        assert_eq!(dos, b"127.0.0.1 l\r\n::1 l\r\n127.0.1.1\tvm\r\n");
    }

    #[test]
    fn hostnames_keep_their_comments() {
        assert_eq!(hostname(b"", b"vm"), b"vm\n");
        assert_eq!(hostname(b"old", b"vm"), b"vm\n");
        assert_eq!(hostname(b"# mine\nold\nolder\n", b"vm"), b"# mine\nvm\n");
        assert_eq!(hostname(b"vm", b"vm"), b"vm");
        assert_eq!(name_in(b"# x\n old \n"), Some(b"old".as_slice()));
        assert_eq!(name_in(b"\n#"), None);
    }

    #[test]
    fn resolvers_are_replaced_and_options_stay() {
        let servers = ["10.0.2.3".to_owned(), "1.1.1.1".to_owned()];
        let search = ["vm".to_owned(), "lan".to_owned()];
        assert_eq!(
            resolv_conf(b"", &servers, &search),
            b"search vm lan\nnameserver 10.0.2.3\nnameserver 1.1.1.1\n"
        );
        let old = b"# \xe9\nsearch corp\nnameserver 9.9.9.9\noptions ndots:2 # nameserver";
        let new = resolv_conf(old, &servers, &[]);
        let expected = b"# \xe9\nsearch corp\noptions ndots:2 # nameserver\n\
            nameserver 10.0.2.3\nnameserver 1.1.1.1\n";
        assert_eq!(new, expected);
        assert_eq!(resolv_conf(&new, &servers, &[]), new, "a second boot changes nothing");
        assert!(!resolv_conf(old, &servers, &search).windows(4).any(|text| text == b"corp"));
    }
}
