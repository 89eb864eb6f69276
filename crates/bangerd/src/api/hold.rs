//! Leases of session-bound VMs over the API, for clients that cannot use the session socket: the
//! VM lives as long as an upgraded connection.
//!
//! As on the session socket, a daemon that ends does not end the lease: the client holds the VM at
//! the next daemon.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use banger_api::{ApiError, VmId, routes};
use banger_engine::Engine;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;

use super::body::PathParams;
use super::{Answer, Shared, upgrade};
use crate::slots::Slot;
use crate::stopping::Stopping;

/// Keep a session-bound VM alive while this connection is open, with `Upgrade: banger-hold/1`.
#[utoipa::path(post, path = routes::VM_HOLD, tag = "vms", operation_id = "vm_hold",
    params(("vm" = String, Path, description = "name, id or unique prefix of an id")),
    responses(
        (status = 101, description = "the VM is held until the connection ends or sends a byte"),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn hold(
    State(api): Shared,
    PathParams(vm): PathParams<String>,
    slot: Option<Extension<Arc<Slot>>>,
    mut request: Request,
) -> Answer<Response> {
    let client = upgrade::requested(&mut request, routes::HOLD_PROTOCOL, "a hold")?;
    // Nothing is awaited between the hold and the task that releases it.
    let id = api.engine.hold(&vm)?;
    let slot = slot.map(|Extension(slot)| slot);
    tokio::spawn(keep(client, slot, api.engine.clone(), id, api.stopping.clone()));
    Ok(upgrade::accepted(routes::HOLD_PROTOCOL))
}

/// Holds the VM until the client's connection ends. The hold keeps the connection's slot.
async fn keep(
    client: OnUpgrade,
    slot: Option<Arc<Slot>>,
    engine: Arc<Engine>,
    vm: VmId,
    stopping: Stopping,
) {
    let ended = async {
        let Ok(client) = client.await else { return };
        if let Some(slot) = &slot {
            slot.keep();
        }
        let mut byte = [0];
        // Any byte or end of file ends the hold.
        let _ = TokioIo::new(client).read(&mut byte).await;
    };
    let closed = async {
        match &slot {
            Some(slot) => slot.closed().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = ended => engine.release_hold(&vm).await,
        () = closed => engine.release_hold(&vm).await,
        // The lease outlives the daemon.
        () = stopping.requested() => {}
    }
}
