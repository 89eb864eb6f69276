//! Decides what to change: base, host and guest in, actions out. Pure.
//!
//! | since the base | action |
//! | --- | --- |
//! | one side changed, made or removed it | the same on the other side |
//! | both made the same change | none |
//! | one side changed the content of a file, the other only its execute bits | both on both sides |
//! | one side removed it, the other changed it | the change is kept, on both sides |
//! | both changed it differently | the guest's version gets a name of its own; the host's stays |
//! | something on either side is left alone ([`Node::Left`]) | none |
//!
//! A folder that one side removed and the other changed keeps what was changed in it.

use std::collections::BTreeSet;

use crate::scope::Scope;
use crate::tree::{Children, Node, join};

/// One of the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// The host's folder.
    Host,
    /// The guest's folder.
    Guest,
}

impl Place {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Host => Self::Guest,
            Self::Guest => Self::Host,
        }
    }

    /// Its name in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Guest => "guest",
        }
    }
}

/// A change of one side. Those of one side are carried out in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make what the other side has at this path: a file, a symlink, or a folder without content.
    Copy {
        /// The side that is changed.
        to: Place,
        /// The path.
        path: Vec<u8>,
    },
    /// Remove a file, a symlink or a folder that is empty by then.
    Remove {
        /// The side that is changed.
        on: Place,
        /// The path.
        path: Vec<u8>,
    },
    /// Set or clear the execute bits of a file.
    Execute {
        /// The side that is changed.
        on: Place,
        /// The path.
        path: Vec<u8>,
        /// Whether it is a program.
        program: bool,
    },
    /// Rename the guest's version of a conflict. The next round copies both versions.
    SetAside {
        /// The path.
        path: Vec<u8>,
        /// Whether the guest's version is a folder.
        is_folder: bool,
    },
}

impl Action {
    /// The path that is changed.
    pub fn path(&self) -> &[u8] {
        match self {
            Self::Copy { path, .. }
            | Self::Remove { path, .. }
            | Self::Execute { path, .. }
            | Self::SetAside { path, .. } => path,
        }
    }
}

/// Part of the name of a file that was set aside.
const CONFLICT: &str = ".conflict-guest-";

/// Name for the guest's version of `name`: before its extension, with the time.
pub fn conflict_name(name: &[u8], stamp: &str, is_folder: bool) -> Vec<u8> {
    let mark = format!("{CONFLICT}{stamp}");
    // A name has at most 255 bytes.
    let most = 255 - mark.len();
    let dot = name.iter().rposition(|byte| *byte == b'.').filter(|at| *at > 0 && !is_folder);
    let (stem, extension) = match dot {
        Some(at) if name.len() - at <= 32 => name.split_at(at),
        _ => (name, [].as_slice()),
    };
    let stem = stem.get(..most.saturating_sub(extension.len())).unwrap_or(stem);
    [stem, mark.as_bytes(), extension].concat()
}

/// Whether a name is one of [`conflict_name`].
pub fn is_conflict(name: &[u8]) -> bool {
    name.windows(CONFLICT.len()).any(|part| part == CONFLICT.as_bytes())
}

/// The side that lost its whole content, if both `had` some, while the other side has: deleting the
/// other side's would be a guess.
pub fn halt<H, G>(had: bool, host: &Node<H>, guest: &Node<G>) -> Option<Place> {
    match (has_content(host), has_content(guest)) {
        (false, true) if had => Some(Place::Host),
        (true, false) if had => Some(Place::Guest),
        _ => None,
    }
}

fn has_content<S>(node: &Node<S>) -> bool {
    node.children().is_some_and(|children| !children.is_empty())
}

/// The actions that make both sides alike within `scope`, in order.
pub fn reconcile<B, H, G>(
    base: &Node<B>,
    host: &Node<H>,
    guest: &Node<G>,
    scope: Scope<'_>,
) -> Vec<Action> {
    let mut actions = Vec::new();
    decide(b"", Some(base), Some(host), Some(guest), scope, &mut actions);
    actions
}

fn decide<B, H, G>(
    path: &[u8],
    base: Option<&Node<B>>,
    host: Option<&Node<H>>,
    guest: Option<&Node<G>>,
    scope: Scope<'_>,
    actions: &mut Vec<Action>,
) {
    match (host, guest) {
        (None, None) | (Some(Node::Left(_)), _) | (_, Some(Node::Left(_))) => {}
        (Some(Node::Folder(ours)), Some(Node::Folder(theirs))) => {
            let known = base.and_then(Node::children);
            let mut visit = |name: &Vec<u8>| {
                let base = known.and_then(|known| known.get(name));
                let sides = (ours.get(name), theirs.get(name));
                let scope = match sides {
                    (Some(Node::Folder(_)), Some(Node::Folder(_))) => scope.below(name),
                    _ => Some(Scope::All),
                };
                if let Some(scope) = scope {
                    decide(&join(path, name), base, sides.0, sides.1, scope, actions);
                }
            };
            match scope.names() {
                Some(some) => some.for_each(&mut visit),
                None => names(known, ours, theirs).into_iter().for_each(visit),
            }
        }
        (Some(host), None) => one_side(path, base, host, Place::Host, actions),
        (None, Some(guest)) => one_side(path, base, guest, Place::Guest, actions),
        (Some(host), Some(guest)) if host.is_like(guest) => {}
        (Some(host), Some(guest)) => differing(path, base, host, guest, actions),
    }
}

fn names<'a, B, H, G>(
    base: Option<&'a Children<B>>,
    host: &'a Children<H>,
    guest: &'a Children<G>,
) -> BTreeSet<&'a Vec<u8>> {
    let known = base.into_iter().flat_map(|base| base.keys());
    known.chain(host.keys()).chain(guest.keys()).collect()
}

/// Only one side has it: it was made there, or removed on the other side.
fn one_side<B, S>(
    path: &[u8],
    base: Option<&Node<B>>,
    node: &Node<S>,
    has: Place,
    actions: &mut Vec<Action>,
) {
    let Some(base) = base.filter(|base| base.is_like(node)) else {
        return copy_tree(path, node, has.other(), actions);
    };
    let (Some(children), Some(known)) = (node.children(), base.children()) else {
        return actions.push(Action::Remove { on: has, path: path.to_vec() });
    };
    if children.values().zip(children.keys()).any(|(node, name)| survives(known.get(name), node)) {
        actions.push(Action::Copy { to: has.other(), path: path.to_vec() });
    }
    let mut is_empty = true;
    for (name, child) in children {
        is_empty &= !stays(known.get(name), child);
        if !matches!(child, Node::Left(_)) {
            one_side(&join(path, name), known.get(name), child, has, actions);
        }
    }
    if is_empty {
        actions.push(Action::Remove { on: has, path: path.to_vec() });
    }
}

/// Whether something in it is to be on both sides, although the other side removed it.
fn survives<B, S>(base: Option<&Node<B>>, node: &Node<S>) -> bool {
    if matches!(node, Node::Left(_)) {
        return false;
    }
    let Some(base) = base.filter(|base| base.is_like(node)) else { return true };
    let (Some(children), Some(known)) = (node.children(), base.children()) else { return false };
    children.iter().any(|(name, child)| survives(known.get(name), child))
}

/// Whether something of it stays where it is.
fn stays<B, S>(base: Option<&Node<B>>, node: &Node<S>) -> bool {
    if matches!(node, Node::Left(_)) {
        return true;
    }
    let Some(base) = base.filter(|base| base.is_like(node)) else { return true };
    let (Some(children), Some(known)) = (node.children(), base.children()) else { return false };
    children.iter().any(|(name, child)| stays(known.get(name), child))
}

/// Both sides have something there, of different kinds or content.
fn differing<B, H, G>(
    path: &[u8],
    base: Option<&Node<B>>,
    host: &Node<H>,
    guest: &Node<G>,
    actions: &mut Vec<Action>,
) {
    if base.is_some_and(|base| base.is_same(guest)) {
        return replace(path, guest, host, Place::Guest, actions);
    }
    if base.is_some_and(|base| base.is_same(host)) {
        return replace(path, host, guest, Place::Host, actions);
    }
    if let (Node::File { digest, program, .. }, Node::File { digest: other, .. }) = (host, guest)
        && digest == other
    {
        // Made on both sides with the same content.
        let (path, program) = (path.to_vec(), *program);
        return actions.push(Action::Execute { on: Place::Guest, path, program });
    }
    if let Some(action) = merged(path, base, host, guest) {
        return actions.push(action);
    }
    // Without its unknown parts the folder cannot be renamed as a whole.
    let is_folder = guest.children().is_some();
    actions.push(Action::SetAside { path: path.to_vec(), is_folder });
}

/// The next step if one side changed only the content of a file, and the other only whether it is
/// a program: that first, since the content brings it along.
fn merged<B, H, G>(
    path: &[u8],
    base: Option<&Node<B>>,
    host: &Node<H>,
    guest: &Node<G>,
) -> Option<Action> {
    let (Some((known, _)), Some(ours), Some(theirs)) = (base?.file(), host.file(), guest.file())
    else {
        return None;
    };
    // The side with the new content, what it says of the bits, and what the other one says.
    let (newer, has, wanted) = if known == theirs.0 {
        (Place::Host, ours.1, theirs.1)
    } else if known == ours.0 {
        (Place::Guest, theirs.1, ours.1)
    } else {
        return None;
    };
    let path = path.to_vec();
    Some(match has == wanted {
        true => Action::Copy { to: newer.other(), path },
        false => Action::Execute { on: newer, path, program: wanted },
    })
}

/// Replaces `old` on one side by `new` of the other side.
fn replace<O, N>(path: &[u8], old: &Node<O>, new: &Node<N>, on: Place, actions: &mut Vec<Action>) {
    if let (Node::File { digest, .. }, Node::File { digest: other, program, .. }) = (old, new)
        && digest == other
    {
        let (path, program) = (path.to_vec(), *program);
        return actions.push(Action::Execute { on, path, program });
    }
    if old.children().is_some() || new.children().is_some() {
        remove_tree(path, old, on, actions);
    }
    copy_tree(path, new, on, actions);
}

fn remove_tree<S>(path: &[u8], node: &Node<S>, on: Place, actions: &mut Vec<Action>) {
    for (name, child) in node.children().into_iter().flatten() {
        remove_tree(&join(path, name), child, on, actions);
    }
    actions.push(Action::Remove { on, path: path.to_vec() });
}

fn copy_tree<S>(path: &[u8], node: &Node<S>, to: Place, actions: &mut Vec<Action>) {
    if matches!(node, Node::Left(_)) {
        return;
    }
    actions.push(Action::Copy { to, path: path.to_vec() });
    for (name, child) in node.children().into_iter().flatten() {
        copy_tree(&join(path, name), child, to, actions);
    }
}

#[cfg(test)]
mod tests;
