//! Payloads that several types share.

pub mod fit;
pub mod fit_body;
pub mod parts;
pub mod slack_form;
