//! The shared rules: whether they are what the leases say, and making them so.

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
use crate::words::Did;

/// What was loaded last. It only saves work: without it everything is loaded again.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The number that the kernel gave to all rules then; another means that somebody, maybe
    /// somebody else, changed something since. `None`: somebody did at the same moment.
    generation: Option<u32>,
    /// The text of our tables without what is in their sets.
    frame: String,
    /// What was in them.
    sets: Sets,
    /// The uplinks in our rules in Docker's chain, if there are any.
    docker: Option<BTreeSet<String>>,
    /// How nft shows our tables, once that was looked at.
    seen: Option<Value>,
}

const RECORD: &str = "rules.json";
/// What it is called while it is written.
const STAGED: &str = ".rules.json.new";

fn path(places: &Places) -> PathBuf {
    places.run.join(RECORD)
}

impl Record {
    /// That of the last load; empty if there is none to be read.
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

/// Removes the record, and what one that was killed while it wrote left of it.
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

/// How closely it is looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// If anybody changed any rule since, ours are loaded again.
    Quickly,
    /// Then it is looked at ours first.
    Closely,
}

/// What the rules are to become.
struct Now<'a> {
    leases: &'a Leases,
    bridge: &'a Link,
    look: Look,
}

/// What it takes to change rules.
#[derive(Debug)]
pub struct Rules<'a> {
    /// Where.
    pub places: &'a Places,
    /// Held while they are changed.
    pub lock: &'a Lock,
    /// Interfaces and routes.
    pub links: &'a Links,
    /// The kernel's side.
    pub nft: &'a Nft,
}

/// As nft shows them; `None` if one is not there.
fn our_tables() -> Result<Option<Value>, RootError> {
    let tables = nft::list("table bridge banger")?.zip(nft::list("table inet banger")?);
    Ok(tables.map(|(bridge, inet)| nft::same_form(Value::Array(vec![bridge, inet]))))
}

fn tables_exist(nft: &Nft) -> Result<bool, RootError> {
    Ok(nft.has_table(TableFamily::Bridge, "banger")?
        && nft.has_table(TableFamily::Inet, "banger")?)
}

/// Whether our rules in Docker's chain are all there.
fn docker_is_so(wanted: &Option<BTreeSet<String>>) -> Result<bool, RootError> {
    match wanted {
        Some(uplinks) => Ok(docker::count()? == uplinks.len() + 1),
        None => Ok(true),
    }
}

/// Whether the rules are what was loaded last, without changing anything; `None`: it cannot be
/// told.
///
/// # Errors
/// nft's.
pub fn right(places: &Places, nft: &Nft) -> Result<Option<bool>, RootError> {
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
    Ok(Some(our_tables()? == record.seen && docker_is_so(&record.docker)?))
}

impl Rules<'_> {
    /// Whether Docker's chain is there.
    pub fn docker_exists(&self) -> Result<bool, RootError> {
        self.nft.has_chain(TableFamily::IPv4, "filter", "DOCKER-USER")
    }

    /// The uplinks that Docker has to let guests through to; `None`: it has nothing to do with
    /// them.
    fn wanted_of_docker(
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

    /// Makes the rules what the leases say.
    ///
    /// # Errors
    /// nft's; after that the rules are as they were.
    pub fn settle(&self, leases: &Leases, bridge: &Link, look: Look) -> Result<Did, RootError> {
        // Docker may take its chain away while we look: then once more, from nothing.
        let now = Now { leases, bridge, look };
        self.settle_from(Record::read(self.places), &now)
            .or_else(|_| self.settle_from(Record::default(), &now))
    }

    fn settle_from(&self, record: Record, now: &Now<'_>) -> Result<Did, RootError> {
        let Now { leases, bridge, look } = *now;
        let before = self.nft.generation()?;
        let (frame, sets) = (tables(&bridge.name, &Sets::default()), Sets::of(leases));
        let docker = self.wanted_of_docker(leases, bridge)?;
        let untouched = record.generation == Some(before);
        let framed = record.frame == frame && record.docker == docker && tables_exist(self.nft)?;
        if framed && record.sets == sets {
            if untouched {
                return Ok(Did::WasThere);
            }
            if look == Look::Closely && record.seen.is_some() && docker_is_so(&docker)? {
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
        // Else somebody else changed something at the same moment.
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
            None if self.docker_exists()? => docker::without(),
            None => Ok(String::new()),
        }
    }

    /// Looks at how nft shows the rules that were just loaded, so that later changes can be told
    /// from those of others.
    ///
    /// # Errors
    /// nft's.
    pub fn look(&self) -> Result<(), RootError> {
        let record = Record::read(self.places);
        if record.seen.is_some() || record.generation != Some(self.nft.generation()?) {
            return Ok(());
        }
        let seen = our_tables()?;
        // Only what nobody touched between is what we loaded.
        if record.generation == Some(self.nft.generation()?) {
            Record { seen, ..record }.write(self.places)?;
        }
        Ok(())
    }

    /// Removes our tables and our rules in Docker's chain.
    ///
    /// # Errors
    /// nft's.
    pub fn remove(&self) -> Result<Did, RootError> {
        let tables = self.nft.has_table(TableFamily::Bridge, "banger")?
            || self.nft.has_table(TableFamily::Inet, "banger")?;
        if !tables && !path(self.places).exists() {
            return forget(self.places).map(|()| Did::WasAbsent);
        }
        let mut text = NONE.to_owned();
        if self.docker_exists()? {
            text += &docker::without()?;
        }
        nft::load(&text, self.lock.as_fd())?;
        forget(self.places).map(|()| Did::Removed)
    }
}
