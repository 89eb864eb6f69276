//! The way in, the way out, and the page of a refused request.

use askama::Template;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::{Extension, Json};
use serde::Deserialize;

use crate::assets;
use crate::login::SessionRef;
use crate::site::Shared;

/// The page without navigation.
#[derive(Template)]
#[template(path = "entry.html")]
struct EntryPage<'a> {
    style: String,
    icon: String,
    title: &'a str,
    text: &'a str,
    /// Whether the browser goes on to the list of VMs by itself.
    goes_on: bool,
}

/// Query of [`enter`].
#[derive(Debug, Deserialize)]
pub struct Enter {
    /// The one-time token.
    #[serde(default)]
    token: String,
}

/// `GET /enter`: exchanges the token for a session.
///
/// The answer is a page that goes on to the list, not a redirect: if a program or a file opened the
/// URL, a browser would not send a cookie with `SameSite=Strict` along a chain of redirects.
pub async fn enter(State(site): Shared, Query(query): Query<Enter>) -> Response {
    match site.enter(&query.token) {
        Ok(Some(cookie)) => {
            let mut headers = HeaderMap::new();
            if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                headers.insert(header::SET_COOKIE, cookie);
            }
            let text = "This browser has a session now.";
            (headers, page("Welcome to banger", text, true)).into_response()
        }
        Ok(None) => {
            let text = "This link was used already, or is too old: each link opens one session. \
                Press Enter where `banger web` runs for a new one. If you have not used the link, \
                somebody else has: stop `banger web` with Ctrl-C, which ends all sessions.";
            refused(StatusCode::FORBIDDEN, text)
        }
        Err(_) => refused(StatusCode::INTERNAL_SERVER_ERROR, "The system has no random numbers."),
    }
}

/// `POST /leave`: ends the session.
pub async fn leave(State(site): Shared, Extension(session): Extension<SessionRef>) -> Response {
    site.leave(&session);
    Redirect::to("/").into_response()
}

/// The page of a refused request.
pub fn refused(status: StatusCode, text: &str) -> Response {
    let title = if status == StatusCode::UNAUTHORIZED { "Not signed in" } else { "Refused" };
    (status, page(title, text, false)).into_response()
}

fn page(title: &str, text: &str, goes_on: bool) -> Response {
    let (style, icon) = (assets::url("style.css"), assets::url("icon.svg"));
    match (EntryPage { style, icon, title, text, goes_on }).render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => Json(error.to_string()).into_response(),
    }
}
