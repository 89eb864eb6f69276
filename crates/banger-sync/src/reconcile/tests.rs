//! Single cases, and random edits on simulated sides.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::scope::Touched;
use crate::tree::{Left, split};

type Tree = Node<()>;

fn file(content: u8) -> Tree {
    Node::File { digest: [content; 20], program: false, seen: () }
}

fn program(content: u8) -> Tree {
    Node::File { digest: [content; 20], program: true, seen: () }
}

fn tree(entries: &[(&str, Tree)]) -> Tree {
    let mut root = Tree::folder();
    for (path, node) in entries {
        let mut so_far = Vec::new();
        for part in crate::tree::parts(split(path.as_bytes()).0) {
            so_far = join(&so_far, part);
            if root.get(&so_far).is_none() {
                root.set(&so_far, Some(Tree::folder()));
            }
        }
        root.set(path.as_bytes(), Some(node.clone()));
    }
    root
}

/// Carries actions out as a side does: what is not as expected fails.
fn carry_out(host: &mut Tree, guest: &mut Tree, actions: &[Action], stamp: &str) {
    for action in actions {
        match action {
            Action::Copy { to, path } => {
                let (from, to) = match to {
                    Place::Host => (&*guest, &mut *host),
                    Place::Guest => (&*host, &mut *guest),
                };
                let node = match from.get(path).unwrap() {
                    Node::Folder(_) => Tree::folder(),
                    other => other.clone(),
                };
                let is_there = to.get(path).is_some_and(|there| there.children().is_some());
                if !(is_there && node.children().is_some()) {
                    assert!(!is_there, "a folder is removed before it is replaced");
                    assert!(to.get(split(path).0).unwrap().children().is_some(), "{action:?}");
                    to.set(path, Some(node));
                }
            }
            Action::Remove { on, path } => {
                let side = if *on == Place::Host { &mut *host } else { &mut *guest };
                let children = side.get(path).unwrap().children();
                assert!(children.is_none_or(BTreeMap::is_empty), "{action:?} of {side:?}");
                side.set(path, None);
            }
            Action::Execute { on, path, program } => {
                let side = if *on == Place::Host { &mut *host } else { &mut *guest };
                let Some(Node::File { program: now, .. }) = side.get_mut(path) else { panic!() };
                *now = *program;
            }
            Action::SetAside { path, is_folder } => {
                let (parent, name) = split(path);
                let aside = join(parent, &conflict_name(name, stamp, *is_folder));
                assert!(guest.get(&aside).is_none());
                let node = guest.get(path).unwrap().clone();
                guest.set(path, None);
                guest.set(&aside, Some(node));
            }
        }
    }
}

/// The new base: what both sides have.
fn settle(base: &mut Tree, host: &Tree, guest: &Tree) {
    settle_in(base, host, guest, Scope::All);
}

fn settle_in(base: &mut Tree, host: &Tree, guest: &Tree, scope: Scope<'_>) {
    crate::base::settle(base, (host, guest), scope, &mut |_, _| (), &mut |_, _| ());
}

fn reconcile(base: &Tree, host: &Tree, guest: &Tree) -> Vec<Action> {
    super::reconcile(base, host, guest, Scope::All)
}

/// Rounds until nothing is left to do.
fn sync(base: &mut Tree, host: &mut Tree, guest: &mut Tree, year: usize) {
    for round in 0..4 {
        let actions = reconcile(base, host, guest);
        carry_out(host, guest, &actions, &format!("{year}-{round}"));
        settle(base, host, guest);
    }
    assert_eq!(reconcile(base, host, guest), [], "{base:?} {host:?} {guest:?}");
}

fn after(base: &Tree, host: &Tree, guest: &Tree) -> (Tree, Tree) {
    let (mut base, mut host, mut guest) = (base.clone(), host.clone(), guest.clone());
    sync(&mut base, &mut host, &mut guest, 2026);
    (host, guest)
}

#[test]
fn new_content_and_new_bits_of_the_other_side_are_no_conflict() {
    for (bits, other) in [(program(1), file(1)), (file(1), program(1))] {
        let base = tree(&[("a", other.clone())]);
        let Node::File { program, .. } = bits else { panic!() };
        let Node::File { program: before, .. } = other else { panic!() };
        let content = Node::File { digest: [2; 20], program: before, seen: () };
        let expected = tree(&[("a", Node::File { digest: [2; 20], program, seen: () })]);
        let (bits, content) = (tree(&[("a", bits)]), tree(&[("a", content)]));
        assert_eq!(after(&base, &bits, &content), (expected.clone(), expected.clone()));
        assert_eq!(after(&base, &content, &bits), (expected.clone(), expected));
    }
}

#[test]
fn one_sided_changes_arrive() {
    let base = tree(&[("a", file(1)), ("d/b", file(2)), ("d/c", file(3))]);
    for changed in [
        tree(&[("a", file(9)), ("d/b", file(2)), ("d/c", file(3))]),
        tree(&[("a", program(1)), ("d/b", file(2)), ("d/c", file(3))]),
        tree(&[("a", file(1))]),
        tree(&[("a", file(1)), ("d", file(4))]),
        tree(&[("a/x/y", file(1)), ("d/b", file(2)), ("d/c", file(3))]),
        tree(&[("a", file(1)), ("d/b", file(2)), ("d/c", file(3)), ("e/f/g", file(5))]),
    ] {
        assert_eq!(after(&base, &changed, &base), (changed.clone(), changed.clone()));
        assert_eq!(after(&base, &base, &changed), (changed.clone(), changed));
    }
}

#[test]
fn both_versions_of_a_conflict_stay() {
    let base = tree(&[("a.txt", file(1))]);
    let (host, guest) = after(&base, &tree(&[("a.txt", file(2))]), &tree(&[("a.txt", file(3))]));
    let both = tree(&[("a.txt", file(2)), ("a.conflict-guest-2026-0.txt", file(3))]);
    assert_eq!((host, guest), (both.clone(), both));
    // A folder against a file.
    let (host, guest) = after(&base, &tree(&[("a.txt", file(2))]), &tree(&[("a.txt/x", file(3))]));
    let both = tree(&[("a.txt", file(2)), ("a.txt.conflict-guest-2026-0/x", file(3))]);
    assert_eq!((host, guest), (both.clone(), both));
}

#[test]
fn a_change_outlives_a_removal() {
    let base = tree(&[("d/a", file(1)), ("d/b", file(2)), ("d/e/c", file(3))]);
    let changed = tree(&[("d/a", file(1)), ("d/b", file(9)), ("d/e/c", file(3))]);
    let kept = tree(&[("d/b", file(9))]);
    let empty = Tree::folder();
    assert_eq!(after(&base, &empty, &changed), (kept.clone(), kept.clone()));
    assert_eq!(after(&base, &changed, &empty), (kept.clone(), kept));
}

#[test]
fn what_is_left_alone_stays_with_its_folder() {
    let base = tree(&[("d/a", file(1))]);
    let host = tree(&[("d/a", file(1)), ("d/socket", Node::Left(Left::Special))]);
    let actions = reconcile(&base, &host, &Tree::folder());
    assert_eq!(actions, [Action::Remove { on: Place::Host, path: b"d/a".to_vec() }]);
    let unreadable = tree(&[("d", Node::Left(Left::Unreadable))]);
    assert_eq!(reconcile(&base, &base, &unreadable), []);
    assert_eq!(reconcile(&base, &unreadable, &base), []);
}

#[test]
fn a_side_that_is_empty_as_a_whole_halts() {
    let (full, empty) = (tree(&[("a", file(1)), ("b", file(2))]), Tree::folder());
    assert_eq!(halt(true, &empty, &full), Some(Place::Host));
    assert_eq!(halt(true, &full, &empty), Some(Place::Guest));
    assert_eq!(halt(true, &empty, &empty), None);
    assert_eq!(halt(false, &empty, &full), None, "the first time");
}

#[test]
fn names_of_conflicts_are_found_again() {
    for (name, expected) in [
        ("a.txt", "a.conflict-guest-T.txt"),
        ("a", "a.conflict-guest-T"),
        (".env", ".env.conflict-guest-T"),
    ] {
        let made = conflict_name(name.as_bytes(), "T", false);
        assert_eq!(String::from_utf8(made.clone()).unwrap(), expected);
        assert!(is_conflict(&made) && !is_conflict(name.as_bytes()));
    }
    let long = conflict_name(&[b'n'; 255], "T", false);
    assert!(long.len() == 255 && is_conflict(&long));
}

/// An edit of one side.
#[derive(Debug, Clone)]
enum Edit {
    Write(usize, u8),
    Remove(usize),
    Program(usize),
    Folder(usize),
    /// Something that is left alone.
    Left(usize),
}

const PATHS: [&str; 9] = ["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "f", "f/a"];

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let place = 0..PATHS.len();
    let edit = prop_oneof![
        4 => (place.clone(), 1..250u8).prop_map(|(path, content)| Edit::Write(path, content)),
        2 => place.clone().prop_map(Edit::Remove),
        1 => place.clone().prop_map(Edit::Program),
        1 => place.prop_map(Edit::Folder),
    ];
    proptest::collection::vec(edit, 0..12)
}

/// The same with files that are left alone.
fn edits_with_left() -> impl Strategy<Value = Vec<Edit>> {
    (edits(), proptest::collection::vec((0..PATHS.len()).prop_map(Edit::Left), 0..3))
        .prop_flat_map(|(edits, left)| Just([edits, left].concat()).prop_shuffle())
}

/// Edits a side; `mark` keeps contents of both sides apart.
fn edit(side: &mut Tree, edits: &[Edit], mark: u8) {
    for one in edits {
        let path = one.path();
        let is_in_folder = side.get(split(path).0).is_some_and(|node| node.children().is_some());
        match one {
            _ if !is_in_folder => {}
            Edit::Write(_, content) => {
                let node = Node::File { digest: [*content; 20], program: mark == 1, seen: () };
                side.set(path, Some(node));
            }
            Edit::Remove(_) => side.set(path, None),
            Edit::Program(_) => {
                if let Some(Node::File { program, .. }) = side.get_mut(path) {
                    *program = !*program;
                }
            }
            Edit::Folder(_) => side.set(path, Some(Tree::folder())),
            Edit::Left(_) => side.set(path, Some(Node::Left(Left::Unreadable))),
        }
    }
}

impl Edit {
    fn path(&self) -> &'static [u8] {
        let (Self::Write(at, _) | Self::Remove(at) | Self::Program(at)) = self else {
            let (Self::Folder(at) | Self::Left(at)) = self else { unreachable!() };
            return PATHS[*at].as_bytes();
        };
        PATHS[*at].as_bytes()
    }
}

/// The folders that are listed again after edits.
fn listed(edits: &[Edit], touched: &mut Touched) {
    for path in edits.iter().map(Edit::path) {
        touched.insert(split(path).0);
        // One that was made anew is listed itself.
        touched.insert(path);
    }
}

/// Contents of all files.
fn contents(side: &Tree, into: &mut BTreeSet<[u8; 20]>) {
    match side {
        Node::File { digest, .. } => drop(into.insert(*digest)),
        Node::Folder(children) => children.values().for_each(|child| contents(child, into)),
        Node::Link { .. } | Node::Left(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Both sides end alike, and every content that either side wrote since the base is there.
    #[test]
    fn random_edits_converge_without_loss(
        first in edits(), ours in edits(), theirs in edits(), again in edits(),
    ) {
        let mut base = Tree::folder();
        edit(&mut base, &first, 0);
        let (mut host, mut guest) = (base.clone(), base.clone());
        for (year, ours, theirs) in [(1, &ours, &theirs), (2, &again, &ours)] {
            let before = base.clone();
            edit(&mut host, ours, 0);
            edit(&mut guest, theirs, 1);
            let (mut old, mut new) = (BTreeSet::new(), BTreeSet::new());
            contents(&before, &mut old);
            contents(&host, &mut new);
            contents(&guest, &mut new);
            sync(&mut base, &mut host, &mut guest, year);
            prop_assert_eq!(&host, &guest);
            prop_assert_eq!(&base, &host);
            let mut left = BTreeSet::new();
            contents(&host, &mut left);
            for content in new.difference(&old) {
                prop_assert!(left.contains(content), "{:?} was lost", content);
            }
        }
    }

    /// A daemon that is killed after any number of actions, with or without saving the base, ends
    /// at the same place, without a loss.
    #[test]
    fn a_kill_at_any_moment_loses_nothing(
        first in edits(), ours in edits(), theirs in edits(), cut in 0..20usize,
        saved in any::<bool>(),
    ) {
        let mut base = Tree::folder();
        edit(&mut base, &first, 0);
        let (mut host, mut guest) = (base.clone(), base.clone());
        edit(&mut host, &ours, 0);
        edit(&mut guest, &theirs, 1);
        let (mut old, mut new) = (BTreeSet::new(), BTreeSet::new());
        contents(&base, &mut old);
        contents(&host, &mut new);
        contents(&guest, &mut new);
        let actions = reconcile(&base, &host, &guest);
        carry_out(&mut host, &mut guest, &actions[..cut.min(actions.len())], "2025");
        if saved {
            settle(&mut base, &host, &guest);
        }
        sync(&mut base, &mut host, &mut guest, 2026);
        prop_assert_eq!(&host, &guest);
        let mut left = BTreeSet::new();
        contents(&host, &mut left);
        for content in new.difference(&old) {
            prop_assert!(left.contains(content), "{:?} was lost", content);
        }
    }

    /// Rounds that look only at folders in which something changed, or in which actions of the last
    /// round may have failed, decide and settle as rounds that look at everything.
    #[test]
    fn incremental_and_whole_rounds_agree(
        first in edits(),
        years in proptest::collection::vec(
            (edits_with_left(), edits_with_left(), 0..24usize), 1..5,
        ),
    ) {
        let mut base = Tree::folder();
        edit(&mut base, &first, 0);
        let (mut host, mut guest) = (base.clone(), base.clone());
        let mut touched = Touched::default();
        for (year, (ours, theirs, cut)) in years.iter().enumerate() {
            edit(&mut host, ours, 0);
            edit(&mut guest, theirs, 1);
            listed(ours, &mut touched);
            listed(theirs, &mut touched);
            for round in 0..4 {
                let actions = reconcile(&base, &host, &guest);
                let scope = Scope::Only(&touched);
                prop_assert_eq!(&super::reconcile(&base, &host, &guest, scope), &actions);
                // In the first round, a part of them fails.
                let made = if round == 0 { (*cut).min(actions.len()) } else { actions.len() };
                carry_out(&mut host, &mut guest, &actions[..made], &format!("{year}-{round}"));
                let mut undecided = Touched::default();
                for path in actions.iter().map(Action::path) {
                    undecided.insert(split(path).0);
                }
                touched.merge(undecided.clone());
                let mut whole = base.clone();
                settle(&mut whole, &host, &guest);
                settle_in(&mut base, &host, &guest, Scope::Only(&touched));
                prop_assert_eq!(&base, &whole);
                touched = undecided;
                if actions.is_empty() {
                    break;
                }
            }
        }
    }
}
