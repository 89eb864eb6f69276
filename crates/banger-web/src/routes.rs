//! The routes of the page with their list, which a test compares with the verbs of the API.

use std::sync::Arc;

use axum::Router;
use axum::routing::MethodRouter;

use crate::site::Site;

/// A router that keeps its paths.
#[derive(Default)]
pub struct Routes {
    router: Router<Arc<Site>>,
    paths: Vec<&'static str>,
}

impl Routes {
    /// Without routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a route.
    pub fn route(mut self, path: &'static str, to: MethodRouter<Arc<Site>>) -> Self {
        self.paths.push(path);
        Self { router: self.router.route(path, to), paths: self.paths }
    }

    /// Adds the routes of a module.
    pub fn merge(mut self, other: Self) -> Self {
        self.paths.extend(other.paths);
        Self { router: self.router.merge(other.router), paths: self.paths }
    }

    /// Their paths.
    pub fn paths(&self) -> &[&'static str] {
        &self.paths
    }

    /// The router.
    pub fn into_router(self) -> Router<Arc<Site>> {
        self.router
    }
}
