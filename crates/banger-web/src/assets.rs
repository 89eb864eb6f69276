//! The embedded files: of this crate, and of the packages that the build script has checked.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

/// Files of npm packages: name, content.
const VENDOR: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/vendor.rs"));

/// Files of this crate: name, content.
const OWN: &[(&str, &[u8])] = &[
    ("style.css", include_bytes!("../static/style.css")),
    ("app.js", include_bytes!("../static/app.js")),
    ("charts.js", include_bytes!("../static/charts.js")),
    ("csp.js", include_bytes!("../static/csp.js")),
    ("terminal.js", include_bytes!("../static/terminal.js")),
    ("icon.svg", include_bytes!("../static/icon.svg")),
];

struct Asset {
    hash: String,
    content: &'static [u8],
}

static ASSETS: LazyLock<HashMap<&'static str, Asset>> = LazyLock::new(|| {
    let asset = |(name, content): &(&'static str, &'static [u8])| {
        let sum = Sha256::digest(content);
        let hash = sum.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        (*name, Asset { hash, content })
    };
    OWN.iter().chain(VENDOR).map(asset).collect()
});

/// Path of a file, which changes with its content.
pub fn url(name: &str) -> String {
    match ASSETS.get(name) {
        Some(asset) => format!("/static/{}/{name}", asset.hash),
        None => format!("/static/0/{name}"),
    }
}

/// `GET /static/{hash}/{name}`.
pub async fn serve(Path((hash, name)): Path<(String, String)>) -> Response {
    let Some(asset) = ASSETS.get(name.as_str()) else {
        return (StatusCode::NOT_FOUND, "no such file").into_response();
    };
    let media_type = match name.rsplit('.').next() {
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    };
    let lifetime = match hash == asset.hash {
        true => "private, max-age=31536000, immutable",
        false => "no-cache",
    };
    let headers = [(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, lifetime)];
    (headers, asset.content).into_response()
}
