//! One-time tokens that become sessions, and the sessions.
//!
//! A token is part of the URL that `banger web` prints. The first request with it gets a session,
//! known by a cookie; a second one is refused. Only hashes are kept, so that a comparison takes no
//! longer for a better guess.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// How long a token can be used.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(15 * 60);
/// How long a session lasts.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// Maximum number of sessions; the oldest one ends.
const MAX_SESSIONS: usize = 64;
/// Maximum number of unused tokens; the oldest one ends.
const MAX_TOKENS: usize = 64;
/// Bytes of entropy in a token, a cookie and a form token.
const SECRET_BYTES: usize = 32;

type Key = [u8; 32];

/// A secret of [`SECRET_BYTES`] bytes as text for URLs.
///
/// # Errors
/// The system has no random numbers.
pub fn secret() -> io::Result<String> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn key(text: &str) -> Key {
    Sha256::digest(text.as_bytes()).into()
}

/// A message that the next page shows once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flash {
    /// Whether it reports an error.
    pub kind: FlashKind,
    /// The message.
    pub text: String,
    /// Further lines: causes and advice.
    pub more: Vec<String>,
}

/// Kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlashKind {
    /// Something was done or begun.
    Done,
    /// Something failed.
    Failed,
}

struct Session {
    /// The token that forms carry.
    csrf: String,
    begun: Instant,
    flash: Option<Flash>,
}

/// A session as handlers see it.
#[derive(Debug, Clone)]
pub struct SessionRef {
    key: Key,
    /// The token that forms carry.
    pub csrf: String,
}

/// A new session.
pub struct NewSession {
    /// Value of its cookie.
    pub cookie: String,
}

/// Tokens and sessions.
#[derive(Default)]
pub struct Logins {
    tokens: HashMap<Key, Instant>,
    sessions: HashMap<Key, Session>,
}

impl Logins {
    /// Makes a one-time token.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new_token(&mut self, now: Instant) -> io::Result<String> {
        let token = secret()?;
        self.tokens.retain(|_, made| now.duration_since(*made) < TOKEN_LIFETIME);
        drop_oldest(&mut self.tokens, MAX_TOKENS, |made| *made);
        self.tokens.insert(key(&token), now);
        Ok(token)
    }

    /// Exchanges a token for a session; none if the token was used, has expired or never was.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn enter(&mut self, token: &str, now: Instant) -> io::Result<Option<NewSession>> {
        let Some(made) = self.tokens.remove(&key(token)) else { return Ok(None) };
        if now.duration_since(made) >= TOKEN_LIFETIME {
            return Ok(None);
        }
        let (cookie, csrf) = (secret()?, secret()?);
        drop_oldest(&mut self.sessions, MAX_SESSIONS, |session| session.begun);
        self.sessions.insert(key(&cookie), Session { csrf, begun: now, flash: None });
        Ok(Some(NewSession { cookie }))
    }

    /// The session of a cookie.
    pub fn session(&mut self, cookie: &str, now: Instant) -> Option<SessionRef> {
        let key = key(cookie);
        let session = self.sessions.get(&key)?;
        if now.duration_since(session.begun) >= SESSION_LIFETIME {
            self.sessions.remove(&key);
            return None;
        }
        Some(SessionRef { key, csrf: session.csrf.clone() })
    }

    /// Ends a session.
    pub fn leave(&mut self, session: &SessionRef) {
        self.sessions.remove(&session.key);
    }

    /// Keeps a message for the next page of the session.
    pub fn set_flash(&mut self, session: &SessionRef, flash: Flash) {
        if let Some(session) = self.sessions.get_mut(&session.key) {
            session.flash = Some(flash);
        }
    }

    /// Takes the message for the next page.
    pub fn take_flash(&mut self, session: &SessionRef) -> Option<Flash> {
        self.sessions.get_mut(&session.key)?.flash.take()
    }
}

impl SessionRef {
    /// Whether a form carries the token of this session.
    pub fn accepts(&self, token: &str) -> bool {
        key(token) == key(&self.csrf)
    }
}

fn drop_oldest<T>(all: &mut HashMap<Key, T>, most: usize, time: impl Fn(&T) -> Instant) {
    while all.len() >= most {
        let oldest = all.iter().min_by_key(|(_, one)| time(one)).map(|(key, _)| *key);
        let Some(oldest) = oldest else { return };
        all.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_one_session() {
        let (mut logins, now) = (Logins::default(), Instant::now());
        let token = logins.new_token(now).unwrap();
        assert!(logins.enter("other", now).unwrap().is_none());
        let cookie = logins.enter(&token, now).unwrap().unwrap().cookie;
        assert!(logins.enter(&token, now).unwrap().is_none(), "used twice");
        let session = logins.session(&cookie, now).unwrap();
        assert!(session.accepts(&session.csrf.clone()));
        assert!(!session.accepts("") && !session.accepts(&cookie) && !session.accepts(&token));
        assert!(logins.session(&token, now).is_none() && logins.session("", now).is_none());
        logins.leave(&session);
        assert!(logins.session(&cookie, now).is_none());
    }

    #[test]
    fn tokens_and_sessions_expire() {
        let (mut logins, now) = (Logins::default(), Instant::now());
        let token = logins.new_token(now).unwrap();
        assert!(logins.enter(&token, now + TOKEN_LIFETIME).unwrap().is_none());
        let token = logins.new_token(now).unwrap();
        let cookie = logins.enter(&token, now).unwrap().unwrap().cookie;
        let almost = now + SESSION_LIFETIME - Duration::from_secs(1);
        assert!(logins.session(&cookie, almost).is_some());
        assert!(logins.session(&cookie, now + SESSION_LIFETIME).is_none());
        assert!(logins.session(&cookie, now).is_none(), "it was removed");
    }

    #[test]
    fn the_oldest_session_ends_when_there_are_too_many() {
        let (mut logins, now) = (Logins::default(), Instant::now());
        let mut enter = |seconds| {
            let now = now + Duration::from_secs(seconds);
            let token = logins.new_token(now).unwrap();
            logins.enter(&token, now).unwrap().unwrap().cookie
        };
        let cookies: Vec<String> = (0..=MAX_SESSIONS as u64).map(&mut enter).collect();
        let alive: Vec<bool> =
            cookies.iter().map(|cookie| logins.session(cookie, now).is_some()).collect();
        assert!(!alive[0] && alive[1..].iter().all(|alive| *alive));
    }

    #[test]
    fn a_message_is_shown_once() {
        let (mut logins, now) = (Logins::default(), Instant::now());
        let token = logins.new_token(now).unwrap();
        let cookie = logins.enter(&token, now).unwrap().unwrap().cookie;
        let session = logins.session(&cookie, now).unwrap();
        let flash = Flash { kind: FlashKind::Done, text: "x".into(), more: Vec::new() };
        logins.set_flash(&session, flash.clone());
        assert_eq!(logins.take_flash(&session), Some(flash));
        assert_eq!(logins.take_flash(&session), None);
    }
}
