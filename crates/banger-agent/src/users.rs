//! /etc/passwd and /etc/group, parsed here because a static program cannot ask NSS.

use crate::fault::Fault;

/// Who runs a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name; the number where the user has none.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Primary and supplementary groups.
    pub groups: Vec<u32>,
    /// Home folder.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// The largest id that is not the "no change" value of setuid(2).
const MAX_ID: u32 = u32::MAX - 1;

/// Finds `wanted` in the text of the two files: `USER` or `USER:GROUP`, each a name or a number.
///
/// uid 0 exists even without /etc/passwd, and a number without an entry runs with the same
/// number as group, so that an image with nothing in /etc can be used. With a group the user has
/// that group only, as in Docker.
///
/// # Errors
/// An unknown name.
pub fn find(wanted: &str, passwd: &str, group: &str) -> Result<User, Fault> {
    let Some((name, wanted_group)) = wanted.split_once(':') else {
        return find_user(wanted, passwd, group);
    };
    let mut user = find_user(name, passwd, group)?;
    user.gid = find_group(wanted_group, group)?;
    user.groups = vec![user.gid];
    Ok(user)
}

/// Id of a group, by name or number; a name wins over a number.
fn find_group(wanted: &str, group: &str) -> Result<u32, Fault> {
    let named = group.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_wanted = !wanted.is_empty() && fields.next() == Some(wanted);
        is_wanted.then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    named
        .or_else(|| wanted.parse().ok())
        .filter(|gid| *gid <= MAX_ID)
        .ok_or_else(|| Fault::new(format!("the guest has no group `{wanted}`")))
}

fn find_user(wanted: &str, passwd: &str, group: &str) -> Result<User, Fault> {
    let number = wanted.parse::<u32>().ok().filter(|id| *id <= MAX_ID);
    // A name wins over a number that happens to be one: as chown(1) does.
    let entry =
        passwd.lines().filter_map(parse_line).find(|user| user.name == wanted).or_else(|| {
            passwd.lines().filter_map(parse_line).find(|user| Some(user.uid) == number)
        });
    let mut user = match (entry, number) {
        (Some(user), _) => user,
        (None, Some(0)) => superuser(),
        (None, None) if wanted == "root" => superuser(),
        (None, Some(id)) => nameless(id),
        (None, None) => return Err(Fault::new(format!("the guest has no user `{wanted}`"))),
    };
    user.groups = groups_of(&user, group);
    Ok(user)
}

fn superuser() -> User {
    User {
        name: "root".into(),
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        home: "/root".into(),
        shell: "/bin/sh".into(),
    }
}

fn nameless(id: u32) -> User {
    User {
        name: id.to_string(),
        uid: id,
        gid: id,
        groups: Vec::new(),
        home: "/".into(),
        shell: "/bin/sh".into(),
    }
}

/// `name:password:uid:gid:gecos:home:shell`, passwd(5).
fn parse_line(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let mut fields = fields.skip(1);
    let uid = fields.next()?.parse().ok().filter(|id| *id <= MAX_ID)?;
    let gid = fields.next()?.parse().ok().filter(|id| *id <= MAX_ID)?;
    let mut fields = fields.skip(1);
    let home = fields.next().filter(|home| home.starts_with('/')).unwrap_or("/");
    let shell = fields.next().filter(|shell| shell.starts_with('/')).unwrap_or("/bin/sh");
    Some(User {
        name: name.into(),
        uid,
        gid,
        groups: Vec::new(),
        home: home.into(),
        shell: shell.into(),
    })
}

/// `name:password:gid:member,member`, group(5).
fn groups_of(user: &User, group: &str) -> Vec<u32> {
    let mut groups = vec![user.gid];
    for line in group.lines() {
        let mut fields = line.split(':').skip(2);
        let Some(gid) = fields.next().and_then(|gid| gid.parse().ok()) else { continue };
        let is_member =
            fields.next().is_some_and(|members| members.split(',').any(|name| name == user.name));
        if is_member && gid <= MAX_ID && !groups.contains(&gid) {
            groups.push(gid);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        broken line\n\
        dev:x:1000:1001:A Dev,,,:/home/dev:/bin/zsh\n\
        bare:x:7:7::\n\
        1234:x:50:50::/srv:/bin/sh\n\
        huge:x:4294967295:1::/:/bin/sh\n";
    const GROUP: &str =
        "root:x:0:\nsudo:x:27:dev,other\ndev:x:1001:\ngames:x:60:dev\nbad:x:y:dev\n";

    #[test]
    fn by_name_with_groups() {
        let user = find("dev", PASSWD, GROUP).unwrap();
        assert_eq!((user.uid, user.gid), (1000, 1001));
        assert_eq!(user.groups, [1001, 27, 60]);
        assert_eq!((user.home.as_str(), user.shell.as_str()), ("/home/dev", "/bin/zsh"));
    }

    #[test]
    fn by_number() {
        assert_eq!(find("1000", PASSWD, GROUP).unwrap().name, "dev");
        assert_eq!(find("1234", PASSWD, GROUP).unwrap().uid, 50, "a name wins over a number");
        let stranger = find("4242", PASSWD, GROUP).unwrap();
        assert_eq!((stranger.uid, stranger.gid, stranger.home.as_str()), (4242, 4242, "/"));
    }

    #[test]
    fn with_a_group_the_user_has_no_other() {
        for (wanted, uid, gid) in [
            ("dev:sudo", 1000, 27),
            ("dev:27", 1000, 27),
            ("1000:4242", 1000, 4242),
            ("4242:games", 4242, 60),
            ("root:root", 0, 0),
        ] {
            let user = find(wanted, PASSWD, GROUP).unwrap();
            assert_eq!((user.uid, user.gid, user.groups), (uid, gid, vec![gid]), "{wanted}");
        }
        for wanted in ["dev:", ":sudo", "dev:nobody", "dev:-1", "dev:4294967295", "dev:bad", ":"] {
            assert!(find(wanted, PASSWD, GROUP).is_err(), "{wanted}");
        }
    }

    #[test]
    fn missing_fields_have_defaults() {
        let user = find("bare", PASSWD, GROUP).unwrap();
        assert_eq!((user.home.as_str(), user.shell.as_str()), ("/", "/bin/sh"));
    }

    #[test]
    fn root_needs_no_file() {
        for wanted in ["root", "0"] {
            let user = find(wanted, "", "").unwrap();
            assert_eq!((user.uid, user.home.as_str()), (0, "/root"));
            assert_eq!(user.groups, [0]);
        }
    }

    #[test]
    fn foreign_users_and_invalid_ids_are_refused() {
        for wanted in ["nobody", "huge", "4294967295", "-1", ""] {
            assert!(find(wanted, PASSWD, GROUP).is_err(), "{wanted}");
        }
    }
}
