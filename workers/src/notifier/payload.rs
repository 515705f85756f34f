//! What several types share of the messages that they send.

pub mod fit;
pub mod slack_form;
