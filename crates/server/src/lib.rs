//! A catalog over HTTP: tables by name, their files and history, and commits over several of them.
//!
//! [`Server::bind`] takes an opened catalog and [`Settings`]; [`Server::serve`] answers until it is told to stop. A service
//! keeps nothing of its own: any number of them may serve one database.
//!
//! All of it is bounded: connections, the size of heads and bodies, the time of a request, the time that a client may
//! leave an answer unread. Errors are `application/problem+json` ([`Problem`]) with the codes of
//! [`CatalogError::code`](deltalakedb::CatalogError::code). `/openapi.json` describes all routes.
#![forbid(unsafe_code)]

mod auth;
mod cursor;
mod extract;
mod places;
mod problem;
mod routes;
mod serve;
mod settings;
mod state;
mod watch;

pub use problem::Problem;
pub use serve::Server;
pub use settings::{Authentication, Scrape, Settings};
