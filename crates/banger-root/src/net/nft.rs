//! Talks to nftables: changes through nft(8), as transactions; looks at what costs nothing over
//! netlink.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use serde_json::Value;

use super::link::is;
use super::netlink::{Family, Netlink, Request, attribute};
use super::run::{TEXT_PATH, find, run};
use crate::error::{Kind, RootError};

/// `NFNL_SUBSYS_NFTABLES`, the high byte of a message's type.
const NFTABLES: u16 = 10 << 8;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_GETGEN: u16 = 16;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_GEN_ID: u16 = 1;
/// Bytes of `struct nfgenmsg`.
const GENERIC: usize = 4;

/// Families of tables, `NFPROTO_…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFamily {
    /// IPv4 and IPv6.
    Inet = 1,
    /// IPv4.
    Ip = 2,
    /// Frames in a bridge.
    Bridge = 7,
}

/// nftables of the calling thread's network namespace.
#[derive(Debug)]
pub struct Nft(Netlink);

fn generic(of: u8) -> [u8; GENERIC] {
    [of, 0, 0, 0]
}

impl Nft {
    /// Opens it.
    ///
    /// # Errors
    /// socket(2).
    pub fn open() -> Result<Self, RootError> {
        Netlink::open(Family::Netfilter)
            .map(Self)
            .map_err(|error| RootError::system("talk to nftables", &error))
    }

    /// A number that every change of any rule counts up.
    ///
    /// # Errors
    /// The kernel's: it has no nftables.
    pub fn generation(&self) -> Result<u32, RootError> {
        let answer = self.0.get(Request::new(NFTABLES | NFT_MSG_GETGEN, 0, &generic(0)));
        let failed = |error| {
            RootError::system("ask nftables of the kernel", &error)
                .with_hint("the kernel needs nf_tables: modprobe nf_tables")
        };
        let answer = answer.map_err(failed)?;
        let id = answer.get(GENERIC..).and_then(|rest| attribute(rest, NFTA_GEN_ID));
        let id = id.and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
        id.ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))
    }

    /// Whether there is such a table.
    ///
    /// # Errors
    /// The kernel's.
    pub fn has_table(&self, of: TableFamily, name: &str) -> Result<bool, RootError> {
        let request = Request::new(NFTABLES | NFT_MSG_GETTABLE, 0, &generic(of as u8));
        self.has(request.with_text(NFTA_TABLE_NAME, name))
    }

    /// Whether there is such a chain.
    ///
    /// # Errors
    /// The kernel's.
    pub fn has_chain(&self, of: TableFamily, table: &str, name: &str) -> Result<bool, RootError> {
        let request = Request::new(NFTABLES | NFT_MSG_GETCHAIN, 0, &generic(of as u8));
        self.has(request.with_text(NFTA_CHAIN_TABLE, table).with_text(NFTA_CHAIN_NAME, name))
    }

    fn has(&self, request: Request) -> Result<bool, RootError> {
        match self.0.get(request) {
            Ok(_) => Ok(true),
            Err(error) if is(&error, Errno::NOENT) => Ok(false),
            Err(error) => Err(RootError::system("ask nftables of the kernel", &error)),
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
            .with_hint("install nftables: apt-get install nftables")
    })?;
    run(&program, args, text, kept)
}

/// Loads a text, all of it or nothing. `kept` is held open until it has happened.
///
/// # Errors
/// What nft complains of.
pub fn load(text: &str, kept: BorrowedFd<'_>) -> Result<(), RootError> {
    nft(&["-f", TEXT_PATH], text, Some(kept))?.good("load nftables rules").map(|_| ())
}

/// Lists one thing (`table inet banger`, `chain …`) as nft shows it; `None` if it is not there.
/// Several at once are not understood by all versions of nft.
///
/// # Errors
/// nft does not run, or says what is not JSON.
pub fn list(what: &str) -> Result<Option<Value>, RootError> {
    let args: Vec<&str> = ["-j", "list"].into_iter().chain(what.split(' ')).collect();
    let ended = nft(&args, "", None)?;
    if !ended.well && ended.complaint.contains("No such file or directory") {
        return Ok(None);
    }
    let output = ended.good("list nftables rules")?;
    let mut listed: Value = serde_json::from_slice(&output)
        .map_err(|error| RootError::system("read what `nft` lists", &error.into()))?;
    let mut things = listed.get_mut("nftables").map(Value::take).unwrap_or_default();
    if let Value::Array(things) = &mut things {
        things.retain(|thing| thing.get("metainfo").is_none());
    }
    Ok(Some(things))
}

/// Without the numbers that the kernel gives to what is loaded, and with sets in one order.
pub fn same_form(mut listed: Value) -> Value {
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
    fn lists_are_alike_but_for_handles_and_order() {
        let list = |handle: u32, elements: [&str; 2]| {
            same_form(serde_json::json!([{ "set": { "handle": handle, "elem": elements } }]))
        };
        assert_eq!(list(1, ["a", "b"]), list(2, ["b", "a"]));
        assert_ne!(list(1, ["a", "b"]), list(1, ["a", "c"]));
    }
}
