//! nftables: changes through nft(8), as transactions; cheap queries over netlink.

use std::io;
use std::os::fd::BorrowedFd;

use banger_base::HostHint;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, GenAttribute, GenMessage, NfTablesMessage, TableAttribute,
    TableMessage,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner};
use netlink_sys::protocols::NETLINK_NETFILTER;
use rustix::io::Errno;
use serde_json::Value;

use super::link::is;
use super::netlink::Netlink;
use super::run::{TEXT_PATH, find, run};
use crate::error::{Kind, RootError};

/// Family of a table.
pub use netlink_packet_netfilter::NetfilterProtoFamily as TableFamily;

/// nftables of the calling thread's network namespace.
#[derive(Debug)]
pub struct Nft(Netlink);

fn message(family: TableFamily, inner: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), inner)
}

impl Nft {
    /// Opens a socket to nftables.
    ///
    /// # Errors
    /// socket(2).
    pub fn open() -> Result<Self, RootError> {
        Netlink::open(NETLINK_NETFILTER)
            .map(Self)
            .map_err(|error| RootError::system("open a socket to nftables", &error))
    }

    /// The generation of the rules: the kernel increments it with each change of any rule.
    ///
    /// # Errors
    /// The kernel has no nftables.
    pub fn generation(&self) -> Result<u32, RootError> {
        let failed = |error| {
            RootError::system("query nftables", &error).with_hint(HostHint::load("nf_tables"))
        };
        let request = NfTablesMessage::GetGen(GenMessage { attributes: Vec::new() });
        let answer = self.0.get(message(TableFamily::Unspec, request)).map_err(failed)?;
        let NetfilterMessageInner::NfTables(NfTablesMessage::NewGen(answer)) = answer.inner else {
            return Err(failed(io::ErrorKind::InvalidData.into()));
        };
        let id = answer.attributes.iter().find_map(|attribute| match attribute {
            GenAttribute::Id(id) => Some(*id),
            _ => None,
        });
        id.ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))
    }

    /// Whether a table exists.
    ///
    /// # Errors
    /// Netlink errors.
    pub fn has_table(&self, family: TableFamily, name: &str) -> Result<bool, RootError> {
        let attributes = vec![TableAttribute::Name(name.into())];
        self.has(message(family, NfTablesMessage::GetTable(TableMessage { attributes })))
    }

    /// Whether a chain exists.
    ///
    /// # Errors
    /// Netlink errors.
    pub fn has_chain(
        &self,
        family: TableFamily,
        table: &str,
        name: &str,
    ) -> Result<bool, RootError> {
        let attributes =
            vec![ChainAttribute::Table(table.into()), ChainAttribute::Name(name.into())];
        self.has(message(family, NfTablesMessage::GetChain(ChainMessage { attributes })))
    }

    fn has(&self, request: NetfilterMessage) -> Result<bool, RootError> {
        match self.0.exists(request) {
            Ok(()) => Ok(true),
            Err(error) if is(&error, Errno::NOENT) => Ok(false),
            Err(error) => Err(RootError::system("query nftables", &error)),
        }
    }
}

fn nft(
    args: &[&str],
    text: &str,
    kept: Option<BorrowedFd<'_>>,
) -> Result<super::run::Ended, RootError> {
    let program = find("nft").ok_or_else(|| {
        RootError::new(Kind::HostNotReady, "there is no program `nft`")
            .with_hint(HostHint::install("nftables"))
    })?;
    run(&program, args, text, kept)
}

/// Loads rules as one transaction. nft holds `kept` open until it ends.
///
/// # Errors
/// `Internal` with the error output of nft.
pub fn load(text: &str, kept: BorrowedFd<'_>) -> Result<(), RootError> {
    nft(&["-f", TEXT_PATH], text, Some(kept))?.into_output("load nftables rules").map(|_| ())
}

/// Lists one object (`table inet banger`, `chain …`) as JSON of nft; `None` if it does not exist.
/// Older versions of nft cannot list several at once.
///
/// # Errors
/// nft cannot be run, or its output is not JSON.
pub fn list(object: &str) -> Result<Option<Value>, RootError> {
    let args: Vec<&str> = ["-j", "list"].into_iter().chain(object.split(' ')).collect();
    let ended = nft(&args, "", None)?;
    if !ended.success && ended.stderr.contains("No such file or directory") {
        return Ok(None);
    }
    let output = ended.into_output("list nftables rules")?;
    let mut listed: Value = serde_json::from_slice(&output)
        .map_err(|error| RootError::system("parse the output of `nft`", &error.into()))?;
    let mut things = listed.get_mut("nftables").map(Value::take).unwrap_or_default();
    if let Value::Array(things) = &mut things {
        things.retain(|thing| thing.get("metainfo").is_none());
    }
    Ok(Some(things))
}

/// Removes handles and sorts sets, so that listings can be compared.
pub fn normalized(mut listed: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.remove("handle");
                map.values_mut().for_each(walk);
                if let Some(Value::Array(elements)) = map.get_mut("elem") {
                    elements.sort_by_cached_key(ToString::to_string);
                }
            }
            Value::Array(list) => list.iter_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut listed);
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalized_lists_ignore_handles_and_order() {
        let list = |handle: u32, elements: [&str; 2]| {
            normalized(serde_json::json!([{ "set": { "handle": handle, "elem": elements } }]))
        };
        assert_eq!(list(1, ["a", "b"]), list(2, ["b", "a"]));
        assert_ne!(list(1, ["a", "b"]), list(1, ["a", "c"]));
    }
}
