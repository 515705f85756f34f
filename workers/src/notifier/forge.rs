//! What the types of code forges share: commit statuses, comments, and the forges' APIs.

pub mod comment;
pub mod commit_status;
pub mod expression;
pub mod gitea_api;
pub mod github_api;
pub mod github_app;
pub mod github_http;
pub mod gitlab_api;
pub mod language;
pub mod page;
#[cfg(test)]
pub mod service;
pub mod status_id;
