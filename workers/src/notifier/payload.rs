//! Payloads that several types share.

pub mod fit;
pub mod slack_form;
