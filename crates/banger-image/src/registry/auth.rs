//! Authentication at a registry: basic, and tokens of its token server (RFC 6750; the distribution
//! specification's "Token Authentication").

use std::sync::Mutex;
use std::sync::PoisonError;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, Url};
use serde::Deserialize;

use super::RegistryError;
use super::credentials::Credentials;
use super::http::{Http, check_url};
use crate::fetch::Progress;

/// Longest answer of a token server in bytes.
const TOKEN_BYTES: u64 = 256 << 10;

/// What a session presents.
pub struct Auth {
    credentials: Option<Credentials>,
    scope: String,
    header: Mutex<Option<HeaderValue>>,
}

/// A registry's demand.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Auth {
    /// Presents nothing until the registry demands it.
    pub fn new(credentials: Option<Credentials>, repository: &str) -> Self {
        let scope = format!("repository:{repository}:pull");
        Self { credentials, scope, header: Mutex::default() }
    }

    /// Whether the user has credentials.
    pub fn has_credentials(&self) -> bool {
        self.credentials.is_some()
    }

    /// Adds the header to a request.
    pub fn apply(&self, request: RequestBuilder) -> RequestBuilder {
        let header = self.header.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match header {
            Some(header) => request.header(AUTHORIZATION, header),
            None => request,
        }
    }

    /// Answers a challenge; returns whether there is something new to present.
    ///
    /// # Errors
    /// The token server's; cancellation.
    pub async fn answer(
        &self,
        headers: &HeaderMap,
        http: &Http,
        progress: &dyn Progress,
    ) -> Result<bool, RegistryError> {
        let header = match challenge(headers) {
            Some(Challenge::Basic) => match &self.credentials {
                Some(Credentials::Basic(user, password)) => basic(user, password),
                _ => return Ok(false),
            },
            Some(Challenge::Bearer { realm, service, scope }) => {
                let scope = scope.unwrap_or_else(|| self.scope.clone());
                let Some(token) = self.token(&realm, service, &scope, http, progress).await? else {
                    return Ok(false);
                };
                format!("Bearer {token}")
            }
            None => return Ok(false),
        };
        let bad = |_| RegistryError::Protocol {
            host: http.server(),
            why: "sent a token that is no header".into(),
        };
        let mut header = HeaderValue::try_from(header).map_err(bad)?;
        header.set_sensitive(true);
        let mut known = self.header.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = known.as_ref() != Some(&header);
        *known = Some(header);
        Ok(is_new)
    }

    async fn token(
        &self,
        realm: &str,
        service: Option<String>,
        scope: &str,
        http: &Http,
        progress: &dyn Progress,
    ) -> Result<Option<String>, RegistryError> {
        let protocol = |why: String| RegistryError::Protocol { host: http.server(), why };
        let mut url = Url::parse(realm)
            .map_err(|_| protocol("names a token server without an address".into()))?;
        check_url(&url, http.local)
            .map_err(|why| protocol(format!("names a token server that {why}")))?;
        let request = match &self.credentials {
            Some(Credentials::Identity(token)) => {
                // A form is written as the query of an address is.
                let mut form = url.clone();
                form.query_pairs_mut()
                    .clear()
                    .append_pair("grant_type", "refresh_token")
                    .append_pair("client_id", "banger")
                    .append_pair("service", service.as_deref().unwrap_or_default())
                    .append_pair("scope", scope)
                    .append_pair("refresh_token", token);
                let body = form.query().unwrap_or_default().to_owned();
                let kind = "application/x-www-form-urlencoded";
                http.post(url).header("content-type", kind).body(body)
            }
            other => {
                {
                    let mut query = url.query_pairs_mut();
                    if let Some(service) = &service {
                        query.append_pair("service", service);
                    }
                    query.append_pair("scope", scope);
                }
                let request = http.get(url);
                match other {
                    Some(Credentials::Basic(user, password)) => {
                        request.basic_auth(user, Some(password))
                    }
                    _ => request,
                }
            }
        };
        let response = http.send(request, progress).await?;
        match response.status().as_u16() {
            200 => {}
            400..=403 => return Ok(None),
            429 => return Err(RegistryError::TooManyRequests { host: http.server() }),
            status => {
                let message = "its token server fails".to_owned();
                return Err(RegistryError::Status { host: http.server(), status, message });
            }
        }
        let body = http.body(response, TOKEN_BYTES, progress).await?;
        let token: Token = serde_json::from_slice(&body)
            .map_err(|_| protocol("has a token server that sends no token".into()))?;
        Ok(token.token.or(token.access_token).filter(|token| !token.is_empty()))
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// The challenge that can be answered: of several, a token.
fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut found = None;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let Some(text) = value.to_str().ok() else { continue };
        for challenge in http_auth::parse_challenges(text).unwrap_or_default() {
            let param = |name: &str| {
                let mut params = challenge.params.iter();
                let param = params.find(|(known, _)| known.eq_ignore_ascii_case(name));
                param.map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = param("realm")
            {
                let (service, scope) = (param("service"), param("scope"));
                return Some(Challenge::Bearer { realm, service, scope });
            }
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                found = Some(Challenge::Basic);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_parsed() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap());
            }
            challenge(&headers)
        };
        let token = concat!(
            r#"Bearer realm="https://auth.io/token",service="a,b","#,
            r#"scope="repository:x:pull""#
        );
        let bearer = Some(Challenge::Bearer {
            realm: "https://auth.io/token".into(),
            service: Some("a,b".into()),
            scope: Some("repository:x:pull".into()),
        });
        assert_eq!(of(&[token]), bearer);
        assert_eq!(of(&[r#"Basic realm="x""#, token]), bearer);
        assert_eq!(of(&[r#"BASIC realm="x""#]), Some(Challenge::Basic));
        assert_eq!(of(&["Negotiate"]), None);
        assert_eq!(of(&["Bearer service=\"x\""]), None);
        assert_eq!(of(&["\"\""]), None);
    }
}
