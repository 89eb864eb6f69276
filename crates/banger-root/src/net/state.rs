//! The shared nftables rules: compares them with the leases and loads them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Leases;
use super::docker;
use super::link::{Link, Links};
use super::lock::Lock;
use super::nft::{self, Nft, TableFamily};
use super::rules::{NONE, Sets, tables};
use crate::error::RootError;
use crate::places::Places;
use crate::protocol::Did;

/// The last load. It only avoids work: without it, all rules are loaded again.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The ruleset generation after that load; another number means that some program changed rules
    /// since. `None`: another program changed rules during the load.
    generation: Option<u32>,
    /// The text of banger's tables, with empty sets.
    frame: String,
    /// The elements of the sets.
    sets: Sets,
    /// The uplinks in banger's rules in Docker's chain, if there are any.
    docker: Option<BTreeSet<String>>,
    /// The tables as nft lists them, once they were read back.
    seen: Option<Value>,
}

const RECORD: &str = "rules.json";
/// Temporary name while the file is written.
const STAGED: &str = ".rules.json.new";

fn path(places: &Places) -> PathBuf {
    places.run.join(RECORD)
}

impl Record {
    /// The record of the last load; empty if it cannot be read.
    pub fn read(places: &Places) -> Self {
        let text = fs::read(path(places)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn write(&self, places: &Places) -> Result<(), RootError> {
        let failed = |error: io::Error| RootError::on_path("write", &path(places), &error);
        let text = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        let folder = banger_sys::fs::open_folder(&places.run).map_err(failed)?;
        let cached = banger_sys::fs::Durability::Cached;
        banger_sys::fs::write_atomically(folder, RECORD, &text, cached).map_err(failed)
    }
}

/// Removes the record, and a partly written one that a killed process left.
fn forget(places: &Places) -> Result<(), RootError> {
    for path in [path(places), places.run.join(STAGED)] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(RootError::on_path("remove", &path, &error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Whether to compare the rules before loading them again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Load the rules again if the ruleset generation changed.
    Generation,
    /// If the generation changed, list banger's rules and load them only if they differ.
    Contents,
}

/// The wanted state of the rules.
struct Now<'a> {
    leases: &'a Leases,
    bridge: &'a Link,
    look: Check,
}

/// Access to the rules.
#[derive(Debug)]
pub struct Rules<'a> {
    /// Folders and names.
    pub places: &'a Places,
    /// The lock, held during a change.
    pub lock: &'a Lock,
    /// Interfaces and routes.
    pub links: &'a Links,
    /// Queries to nftables.
    pub nft: &'a Nft,
}

/// banger's tables as nft lists them; `None` if one does not exist.
fn our_tables() -> Result<Option<Value>, RootError> {
    let tables = nft::list("table bridge banger")?.zip(nft::list("table inet banger")?);
    Ok(tables.map(|(bridge, inet)| nft::normalized(Value::Array(vec![bridge, inet]))))
}

fn tables_exist(nft: &Nft) -> Result<bool, RootError> {
    Ok(nft.has_table(TableFamily::Bridge, "banger")?
        && nft.has_table(TableFamily::Inet, "banger")?)
}

/// Whether Docker's chain contains all of banger's rules.
fn docker_is_complete(wanted: &Option<BTreeSet<String>>) -> Result<bool, RootError> {
    match wanted {
        Some(uplinks) => Ok(docker::count()? == uplinks.len() + 1),
        None => Ok(true),
    }
}

/// Whether the rules are those of the last load; changes nothing. `None`: there is no listing to
/// compare with.
///
/// # Errors
/// Errors of nft.
pub fn is_current(places: &Places, nft: &Nft) -> Result<Option<bool>, RootError> {
    let record = Record::read(places);
    if !tables_exist(nft)? {
        return Ok(Some(false));
    }
    if record.generation == Some(nft.generation()?) {
        return Ok(Some(true));
    }
    if record.seen.is_none() {
        return Ok(None);
    }
    Ok(Some(our_tables()? == record.seen && docker_is_complete(&record.docker)?))
}

impl Rules<'_> {
    /// Whether Docker's chain exists.
    ///
    /// # Errors
    /// A netlink request fails.
    pub fn docker_exists(&self) -> Result<bool, RootError> {
        self.nft.has_chain(TableFamily::IPv4, "filter", "DOCKER-USER")
    }

    /// The uplinks to which Docker's chain must let guests through; `None`: Docker is absent or no
    /// VM has NAT.
    fn docker_uplinks(
        &self,
        leases: &Leases,
        bridge: &Link,
    ) -> Result<Option<BTreeSet<String>>, RootError> {
        if !leases.any_nat() || !self.docker_exists()? {
            return Ok(None);
        }
        let failed = |error| RootError::system("list interfaces and routes", &error);
        let links = self.links.all().map_err(failed)?;
        let routes = self.links.routes().map_err(failed)?;
        Ok(Some(docker::uplinks(bridge.index, &links, &routes)))
    }

    /// Makes the rules match the leases.
    ///
    /// # Errors
    /// Errors of nft; the rules are then unchanged.
    pub fn settle(&self, leases: &Leases, bridge: &Link, look: Check) -> Result<Did, RootError> {
        // Docker may remove its chain in between: retry once without the record.
        let now = Now { leases, bridge, look };
        self.settle_from(Record::read(self.places), &now)
            .or_else(|_| self.settle_from(Record::default(), &now))
    }

    fn settle_from(&self, record: Record, now: &Now<'_>) -> Result<Did, RootError> {
        let Now { leases, bridge, look } = *now;
        let before = self.nft.generation()?;
        let (frame, sets) = (tables(&bridge.name, &Sets::default()), Sets::of(leases));
        let docker = self.docker_uplinks(leases, bridge)?;
        let untouched = record.generation == Some(before);
        let framed = record.frame == frame && record.docker == docker && tables_exist(self.nft)?;
        if framed && record.sets == sets {
            if untouched {
                return Ok(Did::WasThere);
            }
            if look == Check::Contents && record.seen.is_some() && docker_is_complete(&docker)? {
                let seen = our_tables()?;
                if seen == record.seen {
                    Record { generation: Some(before), ..record }.write(self.places)?;
                    return Ok(Did::WasThere);
                }
            }
        }
        let added = sets.additions(&record.sets).filter(|_| framed && untouched);
        let text = match added {
            Some(added) => added,
            None => {
                let mut all = tables(&bridge.name, &sets);
                if !untouched || record.docker != docker {
                    all += &self.docker_text(&bridge.name, docker.as_ref())?;
                }
                all
            }
        };
        nft::load(&text, self.lock.as_fd())?;
        let after = self.nft.generation()?;
        // Another number: another program changed rules at the same time.
        let generation = (after == before.wrapping_add(1)).then_some(after);
        Record { generation, frame, sets, docker, seen: None }.write(self.places)?;
        Ok(Did::Made)
    }

    fn docker_text(
        &self,
        bridge: &str,
        uplinks: Option<&BTreeSet<String>>,
    ) -> Result<String, RootError> {
        match uplinks {
            Some(uplinks) => docker::rules(bridge, uplinks),
            None if self.docker_exists()? => docker::removal(),
            None => Ok(String::new()),
        }
    }

    /// Records how nft lists the rules that were just loaded, so that later changes by other
    /// programs can be detected.
    ///
    /// # Errors
    /// Errors of nft.
    pub fn look(&self) -> Result<(), RootError> {
        let record = Record::read(self.places);
        if record.seen.is_some() || record.generation != Some(self.nft.generation()?) {
            return Ok(());
        }
        let seen = our_tables()?;
        // Record the listing only if no rule changed in between.
        if record.generation == Some(self.nft.generation()?) {
            Record { seen, ..record }.write(self.places)?;
        }
        Ok(())
    }

    /// Removes banger's tables and its rules in Docker's chain.
    ///
    /// # Errors
    /// Errors of nft.
    pub fn remove(&self) -> Result<Did, RootError> {
        let tables = self.nft.has_table(TableFamily::Bridge, "banger")?
            || self.nft.has_table(TableFamily::Inet, "banger")?;
        if !tables && !path(self.places).exists() {
            return forget(self.places).map(|()| Did::WasAbsent);
        }
        let mut text = NONE.to_owned();
        if self.docker_exists()? {
            text += &docker::removal()?;
        }
        nft::load(&text, self.lock.as_fd())?;
        forget(self.places).map(|()| Did::Removed)
    }
}
