//! Resource usage of VMs.

use axum::Json;
use axum::extract::State;
use banger_api::stats::VmStats;
use banger_api::{ApiError, ErrorCode, VmId, routes};
use banger_engine::stats::{GuestView, Selection};
use serde::Deserialize;

use super::body::QueryParams;
use super::{Answer, Shared};

/// Maximum number of ids in a request; a longer request line would exceed the limit of a head.
const MAX_IDS: usize = 4096;

/// The query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    vms: Option<String>,
    all: Option<bool>,
    guest: Option<bool>,
}

/// Sample the resource usage of VMs.
///
/// Counters begin with the run of a VM; rates are differences between two samples. Guest agents
/// that do not answer within 500 ms are left out: 2 s for all of them together.
#[utoipa::path(get, path = routes::STATS, tag = "vms", operation_id = "vm_stats",
    params(
        ("vms" = Option<String>, Query, pattern = "^[0-9a-f]{12}(,[0-9a-f]{12})*$",
            max_length = 53247,
            description = "ids of at most 4096 VMs in any state, separated by commas; by default \
                           the running and paused VMs. Ids of VMs that do not exist are ignored"),
        ("all" = Option<bool>, Query,
            description = "VMs in any state, instead of the running and paused ones; without \
                           effect beside `vms`"),
        ("guest" = Option<bool>, Query,
            description = "whether the guest agents are asked; by default they are"),
    ),
    responses(
        (status = 200, description = "one sample of each VM, sorted by name", body = [VmStats]),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn stats(
    State(api): Shared,
    QueryParams(query): QueryParams<Query>,
) -> Answer<Json<Vec<VmStats>>> {
    let selection = match (&query.vms, query.all) {
        (Some(list), _) => Selection::Ids(ids(list)?),
        (None, Some(true)) => Selection::All,
        (None, _) => Selection::Running,
    };
    let guest = if query.guest == Some(false) { GuestView::Omitted } else { GuestView::Asked };
    Ok(Json(api.engine.stats(&selection, guest).await))
}

fn bad(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, text)
}

/// Parses ids separated by commas.
fn ids<C: FromIterator<VmId>>(list: &str) -> Result<C, ApiError> {
    if list.split(',').count() > MAX_IDS {
        return Err(bad(format!("`vms` has more than {MAX_IDS} ids")));
    }
    let id = |text: &str| {
        text.parse::<VmId>().map_err(|_| {
            let shown = banger_api::excerpt(text);
            bad(format!("`vms` has `{shown}`, not the id of a VM"))
        })
    };
    list.split(',').map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_parsed_and_bad_ones_named() {
        let all: Vec<VmId> = ids("aaaa00000001,bbbb00000002").unwrap();
        assert_eq!(all.len(), 2);
        for (list, shown) in
            [("", "``"), ("web", "`web`"), ("aaaa00000001,", "``"), ("A\n", "A\\n")]
        {
            let error = ids::<Vec<_>>(list).unwrap_err();
            assert!(error.message.contains(shown), "{error}");
        }
        let many = vec!["aaaa00000001"; MAX_IDS + 1].join(",");
        assert_eq!(ids::<Vec<_>>(&many).unwrap_err().message, "`vms` has more than 4096 ids");
    }
}
