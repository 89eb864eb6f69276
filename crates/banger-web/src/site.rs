//! State of the page, its routes, and the layers that every request passes.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use banger_client::Client;
use tokio::time::Instant;

use crate::guard::{self, Facts, Purpose};
use crate::history::History;
use crate::hub::Hub;
use crate::login::{Flash, FlashKind, Logins, SessionRef};
use crate::routes::Routes;
use crate::{assets, entry, form, images, live, operations, page, terminal, vm, vms};

/// Maximum size of a form in bytes: a build script and the rest of its form, percent-encoded.
const MAX_FORM: usize = 4 << 20;

/// State of the page.
pub struct Site {
    /// The daemon, for requests of pages: they start it if none answers.
    pub client: Client,
    /// The daemon as long as it runs: a user may have stopped it.
    pub watcher: Client,
    /// Tokens and sessions.
    logins: Mutex<Logins>,
    /// The list of VMs, kept current.
    pub hub: Hub,
    /// Usage of VMs over the last hour.
    pub history: History,
    /// Port of the page, which is in the name of the cookie: cookies do not tell ports apart.
    port: u16,
}

/// State of handlers.
pub type Shared = State<Arc<Site>>;
/// The session of a request.
pub type Session = Extension<SessionRef>;

impl Site {
    /// The state of a page that listens on this port.
    pub fn new(client: Client, port: u16) -> Arc<Self> {
        let (hub, history) = (Hub::default(), History::default());
        let watcher = Client::of_running_daemon(client.paths().clone());
        Arc::new(Self { client, watcher, logins: Mutex::default(), hub, history, port })
    }

    fn logins(&self) -> MutexGuard<'_, Logins> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A one-time token for [`crate::entry`].
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new_token(&self) -> io::Result<String> {
        self.logins().new_token(Instant::now())
    }

    /// Exchanges a token for the `Set-Cookie` of a new session; none if it cannot be used.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn enter(&self, token: &str) -> io::Result<Option<String>> {
        let session = self.logins().enter(token, Instant::now())?;
        let name = self.cookie_name();
        let attributes = "Path=/; HttpOnly; SameSite=Strict";
        Ok(session.map(|session| format!("{name}={}; {attributes}", session.cookie)))
    }

    /// Ends a session.
    pub fn leave(&self, session: &SessionRef) {
        self.logins().leave(session);
    }

    /// Keeps a message for the next page.
    pub fn done(&self, session: &SessionRef, text: impl Into<String>) {
        let flash = Flash { kind: FlashKind::Done, text: text.into(), more: Vec::new() };
        self.set_flash(session, flash);
    }

    /// Keeps a message for the next page.
    pub fn set_flash(&self, session: &SessionRef, flash: Flash) {
        self.logins().set_flash(session, flash);
    }

    /// Takes the message for a page.
    pub fn take_flash(&self, session: &SessionRef) -> Option<Flash> {
        self.logins().take_flash(session)
    }

    fn cookie_name(&self) -> String {
        format!("banger_{}", self.port)
    }

    fn session(&self, headers: &HeaderMap) -> Option<SessionRef> {
        let name = self.cookie_name();
        let values = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
        let mut cookies = values.flat_map(|value| value.split(';')).filter_map(|cookie| {
            let (key, value) = cookie.trim().split_once('=')?;
            (key == name).then_some(value)
        });
        // Another port of this address may have set cookies of the same name.
        let mut logins = self.logins();
        cookies.find_map(|cookie| logins.session(cookie, Instant::now()))
    }
}

/// Routes that need a session.
fn with_session() -> Routes {
    Routes::new()
        .merge(vms::routes())
        .merge(vm::routes())
        .merge(images::routes())
        .merge(operations::routes())
        .merge(live::routes())
        .merge(terminal::routes())
        .merge(page::routes())
        .route("/leave", post(entry::leave))
}

/// Routes before a session.
fn without_session() -> Routes {
    Routes::new()
        .route("/enter", get(entry::enter))
        .route("/static/{hash}/{name}", get(assets::serve))
}

/// Paths of all routes.
pub fn paths() -> Vec<&'static str> {
    [with_session().paths(), without_session().paths()].concat()
}

/// All routes.
pub fn router(site: Arc<Site>) -> Router {
    let inner = with_session()
        .into_router()
        .fallback(page::not_found)
        .layer(middleware::from_fn_with_state(site.clone(), require_session));
    without_session()
        .into_router()
        .fallback_service(inner.with_state(site.clone()))
        .layer(middleware::from_fn(admitted))
        .layer(middleware::from_fn(with_security_headers))
        .with_state(site)
}

/// Refuses requests of other pages and under other names.
async fn admitted(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
    let purpose = match headers.contains_key(header::UPGRADE) {
        true => Purpose::Socket,
        false if is_get => Purpose::Read,
        false => Purpose::Change,
    };
    let hosts = headers.get_all(header::HOST).iter().count();
    let facts = Facts {
        host: text(header::HOST).filter(|_| hosts == 1 && request.uri().host().is_none()),
        origin: text(header::ORIGIN),
        fetch_site: text(HeaderName::from_static("sec-fetch-site")),
        fetch_mode: text(HeaderName::from_static("sec-fetch-mode")),
        purpose,
    };
    match guard::admit(&facts) {
        Ok(()) => next.run(request).await,
        Err(refusal) => entry::refused(StatusCode::FORBIDDEN, refusal.text()),
    }
}

/// Requires a session, and the token of the session in everything that changes something.
async fn require_session(State(site): Shared, mut request: Request, next: Next) -> Response {
    let Some(session) = site.session(request.headers()) else {
        let text = "This browser has no session. Open the link that `banger web` has printed; \
            press Enter there for a new one.";
        return entry::refused(StatusCode::UNAUTHORIZED, text);
    };
    request.extensions_mut().insert(session.clone());
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    if body.size_hint().lower() > MAX_FORM as u64 {
        return entry::refused(StatusCode::PAYLOAD_TOO_LARGE, "The form is too large.");
    }
    let Ok(bytes) = axum::body::to_bytes(body, MAX_FORM).await else {
        return entry::refused(StatusCode::PAYLOAD_TOO_LARGE, "The form is too large.");
    };
    if !form::Fields::parse(&bytes).get("csrf").is_some_and(|token| session.accepts(token)) {
        let text = "The form has no valid token. Load its page again.";
        return entry::refused(StatusCode::FORBIDDEN, text);
    }
    let answer = next.run(Request::from_parts(parts, Body::from(bytes))).await;
    site.hub.expect_change();
    answer
}

/// Nothing is loaded from elsewhere, no script or style is inline, no page is framed or kept.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types banger";

/// Headers of every answer.
async fn with_security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Not `no-referrer`: browsers would send `Origin: null` with forms.
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response.into_response()
}
