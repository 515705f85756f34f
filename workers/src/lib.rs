//! Workers: deliveries to every provider type.

pub mod address;
pub mod classify;
pub mod http;
pub mod notification;
pub mod notifier;
pub mod text;
